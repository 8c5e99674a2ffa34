"""Reading profiles: one strict TOML file each, its name that of the profile.

Nothing is guessed: an unknown key, a wrong type or a value out of range is an error, and all of a
file's are told at once. One that is broken takes no other with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from swarm_tui.config import Key, by_place, find_places, nearest, told
from swarm_tui.durable import storage
from swarm_tui.errors import ConfigError, NotFound, UsageError
from swarm_tui.label import make_labels
from swarm_tui.lifespan import parse_time
from swarm_tui.profile import PLAIN, Ending, Life, Profile
from swarm_tui.settings import ARGV, NAME, SPAN, Kind, choice, integer
from swarm_tui.text import Safe, sanitize

_SHIPPED: Final = Path(__file__).parent
_LONGEST: Final = 64 << 10
"""Bytes of a file, at most."""
_ENDINGS: Final = tuple(ending.value for ending in Ending)
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, and what it says or why it cannot be used."""

    name: Safe
    file: Path
    is_shipped: bool
    profile: Profile | None
    error: ConfigError | None = None
    lines: Mapping[str, int] = field(default_factory=dict)
    """Key ("life.ttl") → line on which it is given; the others have their defaults."""


@dataclass(frozen=True, slots=True)
class Profiles:
    """All that there are: a person's own first, each kind by name."""

    entries: Sequence[Entry]

    @property
    def usable(self) -> Sequence[Profile]:
        return [entry.profile for entry in self.entries if entry.profile]

    def find(self, name: str) -> Profile:
        """Raises NotFound, and ConfigError where that one is broken."""
        entry = self.entry(name)
        if entry.error:
            raise entry.error
        assert entry.profile
        return entry.profile

    def entry(self, name: str) -> Entry:
        """Raises NotFound."""
        found = next((entry for entry in self.entries if entry.name == name), None)
        if found is None:
            names = [str(entry.name) for entry in self.entries]
            near = nearest(name, names)
            known = ", ".join(names)
            raise NotFound(f"There is no profile “{sanitize(name)}”{near}", f"There are: {known}.")
        return found


def load(folder: Path) -> Profiles:
    """All profiles; `folder` has a person's own, which go before shipped ones of the same name.

    Blocks. Raises ConfigError when the folder cannot be read.
    """
    with storage("read the profiles", ConfigError):
        own = sorted(folder.glob("*.toml")) if folder.is_dir() else []
    entries = [_read(file, is_shipped=False) for file in own]
    taken = {entry.name for entry in entries}
    return Profiles([*entries, *(entry for entry in _shipped() if entry.name not in taken)])


@cache
def _shipped() -> Sequence[Entry]:
    return [_read(file, is_shipped=True) for file in sorted(_SHIPPED.glob("*.toml"))]


def _read(file: Path, *, is_shipped: bool) -> Entry:
    name = sanitize(file.stem)
    try:
        profile, lines = _parse(file)
        return Entry(name, file, is_shipped, profile, lines=lines)
    except ConfigError as error:
        return Entry(name, file, is_shipped, None, error)


def _parse(file: Path) -> tuple[Profile, Mapping[str, int]]:
    """Raises ConfigError with every problem of the file."""
    import tomllib  # takes milliseconds, and `ls` never needs it

    reading = _Reading(file)
    with storage("read the profile", ConfigError):
        # What is no file, such as a pipe, would be waited for.
        raw = file.read_bytes() if file.is_file() else None
    if raw is None:
        reading.note(f"{file}: not a file")
    elif len(raw) > _LONGEST:
        reading.note(f"{file}: longer than {_LONGEST >> 10} KiB")
    else:
        try:
            text = raw.decode()
            tree = tomllib.loads(text)
        except UnicodeDecodeError as error:
            reading.note(f"{file}: not UTF-8 at byte {error.start}")
        except (ValueError, RecursionError) as error:  # also of numbers and lists without measure
            reading.note(f"{file}: not TOML: {error}")
        else:
            reading.lines = {place.key: place.line for place in find_places(text)}
            reading.take(tree)
    return reading.finish(), {".".join(key): line for key, line in reading.lines.items()}


def _text(most: int, *, is_lines: bool = False) -> Kind:
    def read(raw: object) -> str:
        if not isinstance(raw, str) or len(raw) > most or "\0" in raw:
            raise ValueError
        if not is_lines and not raw.isprintable():
            raise ValueError("it holds what cannot be seen")
        return raw

    return Kind(f"text of at most {most} characters", read)


def _read_repository(raw: object) -> str:
    if not isinstance(raw, str) or not raw.isprintable() or raw.startswith("-"):
        raise ValueError
    if re.match(r"(https?|ssh|git)://[!-~]+$", raw) or re.match(r"[\w.-]+@[\w.-]+:[!-~]+$", raw):
        return raw
    try:
        path = Path(raw).expanduser()
    except RuntimeError as error:
        raise ValueError("there is no such home folder") from error
    if not path.is_absolute():
        raise ValueError
    return str(path)


def _read_ref(raw: object) -> str:
    # What git itself refuses in names (git-check-ref-format(1)), and what it takes for an option.
    if not isinstance(raw, str) or not re.fullmatch(r"[!-~]{1,200}", raw) or raw.startswith("-"):
        raise ValueError
    if re.search(r"[\\ :?*\[]|\.\.|@\{", raw):
        raise ValueError("git takes no such name")
    return raw


def _read_labels(raw: object) -> Any:
    if not isinstance(raw, list) or not all(isinstance(one, str) for one in raw):
        raise ValueError
    try:
        return make_labels(raw)
    except UsageError as error:
        raise ValueError(error.title) from error


def _read_hosts(raw: object) -> tuple[str, ...]:
    if not isinstance(raw, list):
        raise ValueError
    return tuple(NAME.read(one) for one in raw)


def _read_about(raw: object) -> Safe:
    return sanitize(_text(200).read(raw))


def _read_span(raw: object) -> float | None:
    if not isinstance(raw, str):
        raise ValueError
    try:
        return parse_time(raw)
    except UsageError as error:
        raise ValueError from error


_KEYS: Final[Mapping[str, Kind]] = {
    "about": Kind("one line of at most 200 characters", _read_about),
    "image": Kind("name or digest of an image (`swarm-tui image list`)", _text(128).read),
    "vcpus": integer(1, 64),
    "memory_mib": integer(128, 1 << 20),
    "disk_mib": integer(64, 1 << 22),
    "repository": Kind("an absolute path, ~/…, or a URL that git takes", _read_repository),
    "ref": Kind("a branch, a tag or a commit", _read_ref),
    "task": _text(16_384, is_lines=True),
    "command": ARGV,
    "labels": Kind('a list of labels, "key" or "key=value"', _read_labels),
    "hosts": Kind("a list of hosts' names", _read_hosts),
    "ready": integer(0, 64),
    "checkpoint": SPAN,
}
_LIFE: Final[Mapping[str, Kind]] = {
    "ttl": Kind("a time such as 90s, 30m, 2h or 3d, or never", _read_span),
    "on_expiry": choice(*_ENDINGS),
    "on_done": choice(*_ENDINGS),
    "on_failed": choice(*_ENDINGS),
}
_TABLES: Final = ("life", "environment")


@dataclass(slots=True)
class _Reading:
    """Collects the values of one file, and its problems."""

    file: Path
    lines: Mapping[Key, int] = field(default_factory=dict)
    _values: dict[str, Any] = field(default_factory=dict)
    _life: dict[str, Any] = field(default_factory=dict)
    _problems: list[str] = field(default_factory=list)

    def note(self, problem: str) -> None:
        self._problems.append(problem)

    def take(self, tree: Mapping[str, object]) -> None:
        for name, raw in tree.items():
            if name == "life":
                self._each(name, raw, self._take_life)
            elif name == "environment":
                self._take_environment(raw)
            elif name in _KEYS:
                self._value((name,), _KEYS[name], raw, self._values, name)
            else:
                self._refuse((name,), (*_KEYS, *_TABLES))

    def finish(self) -> Profile:
        try:
            NAME.read(self.file.stem)
        except ValueError:
            self.note(f"{self.file}: a profile's name, that of its file, has {NAME.allowed}")
        if self._problems:
            name = sanitize(self.file.stem)
            problems = sorted(self._problems, key=by_place)
            raise ConfigError(
                f"The profile {name} is not valid",
                "\n".join(sanitize(problem) for problem in problems),
                "Mend these; no agent is made of it before.",
            )
        life = Life(**self._life)
        return replace(PLAIN, name=sanitize(self.file.stem), life=life, **self._values)

    def _each(self, table: str, raw: object, take: Callable[[str, object], None]) -> None:
        if not isinstance(raw, dict):
            self._mismatch((table,), raw, "a table")
            return
        for name, value in raw.items():
            take(name, value)

    def _take_life(self, name: str, raw: object) -> None:
        if name not in _LIFE:
            self._refuse(("life", name), tuple(_LIFE))
            return
        self._value(("life", name), _LIFE[name], raw, self._life, name.replace("ttl", "ttl_s"))
        if name != "ttl" and name in self._life:
            self._life[name] = Ending(self._life[name])

    def _take_environment(self, raw: object) -> None:
        plain: list[tuple[str, str]] = []
        inherited: list[tuple[str, str]] = []

        def take(name: str, value: object) -> None:
            key = ("environment", name)
            if not _VARIABLE.fullmatch(name):
                self._mismatch(key, name, "a variable's name: letters, digits and _")
            elif isinstance(value, str) and "\0" not in value and len(value) <= 8192:
                plain.append((name, value))
            elif origin := _origin(value):
                inherited.append((name, origin))
            else:
                self._mismatch(key, value, 'text, or { from = "VARIABLE" } of your own environment')

        self._each("environment", raw, take)
        self._values |= {"environment": tuple(plain), "inherited": tuple(inherited)}

    def _value(self, key: Key, kind: Kind, raw: object, into: dict[str, Any], name: str) -> None:
        try:
            into[name] = kind.read(raw)
        except ValueError as error:
            self._mismatch(key, raw, kind.allowed, str(error), kind.choices)

    def _mismatch(
        self, key: Key, raw: object, allowed: str, reason: str = "", choices: Sequence[str] = ()
    ) -> None:
        because = f" ({reason})" if reason else ""
        near = nearest(raw, choices) if isinstance(raw, str) else ""
        self.note(
            f"{self._at(key)}: {'.'.join(key)}: found {told(raw)}{because}; "
            f"allowed: {allowed}{near}"
        )

    def _refuse(self, key: Key, known: Sequence[str]) -> None:
        self.note(
            f"{self._at(key)}: {'.'.join(key)}: unknown key{nearest(key[-1], known)}; "
            f"there are: {', '.join(known)}"
        )

    def _at(self, key: Key) -> str:
        line = self.lines.get(key) or self.lines.get(key[:1])
        return f"{self.file}:{line}" if line else str(self.file)


def _origin(raw: object) -> str:
    """The variable that `{ from = "VARIABLE" }` names; empty: it is no such thing."""
    origin = raw.get("from") if isinstance(raw, dict) and len(raw) == 1 else None
    return origin if isinstance(origin, str) and _VARIABLE.fullmatch(origin) else ""
