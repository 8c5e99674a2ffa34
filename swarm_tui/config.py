"""Reading the configuration: one strict TOML file, the environment, and the command line.

A value comes from the command line, else from `SWARM_TUI_<SECTION>_<KEY>` in the environment, else
from the file, else it is the default; `Loaded.sources` says which. Nothing is guessed: an unknown
key, a wrong type or a value out of range is an error, and all of them are told at once.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, get_type_hints

from swarm_tui.errors import ConfigError
from swarm_tui.model import HostName
from swarm_tui.paths import Paths, locate
from swarm_tui.settings import HOST, NAME, SECTIONS, Config, HostEntry, Kind
from swarm_tui.text import Safe, sanitize

PREFIX: Final = "SWARM_TUI_"
FILE_VARIABLE: Final = "SWARM_TUI_CONFIG"
"""Names another file than the one in the configuration folder; that file must then exist."""

Key = tuple[str, ...]
"""("ui", "theme") or ("hosts", NAME, "uri"); written with dots."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value comes from."""

    kind: Literal["default", "file", "environment", "command line"]
    where: str = ""
    """FILE:LINE, or the name of the variable."""

    def __str__(self) -> str:
        return self.where or self.kind


@dataclass(frozen=True, slots=True)
class Loaded:
    """The configuration, where each value came from, and the folders that follow from it."""

    config: Config
    sources: Mapping[str, Source]
    """Key ("ui.theme") → source; one for every value."""
    paths: Paths
    file: Path
    """The file that was read, or would have been: it need not exist."""


def load(
    environ: Mapping[str, str] = os.environ,
    overrides: Mapping[str, object] = MappingProxyType({}),
    *,
    file: Path | None = None,
    uid: int | None = None,
) -> Loaded:
    """Read everything and check it.

    `overrides` are the command line's values by key ("ui.theme" → "daylight"). `file` takes the
    place of the file that the environment names. Raises ConfigError, which tells every problem
    that there is, and SetupError when the folders cannot be found.
    """
    reading = _Reading(locate(environ, uid))
    named = file or (Path(environ[FILE_VARIABLE]) if environ.get(FILE_VARIABLE) else None)
    reading.read_file(named or reading.paths.config_file, must_exist=named is not None)
    reading.read_environ(environ)
    reading.read_overrides(overrides)
    return reading.finish()


class _Setting(NamedTuple):
    kind: Kind
    default: object


@cache
def _settings() -> Mapping[Key, _Setting]:
    """Every setting outside of the hosts, in order."""
    found: dict[Key, _Setting] = {}
    for section, cls in SECTIONS.items():
        hints = get_type_hints(cls, include_extras=True)
        for field in fields(cls):
            kind: Kind = hints[field.name].__metadata__[0]
            default = None if field.default is MISSING else field.default
            found[section, field.name] = _Setting(kind, default)
    return found


class _Reading:
    """Collects values with their sources, and problems. A later source overrules an earlier."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self._file = paths.config_file
        self._lines: Mapping[Key, int] = {}
        self._given: dict[Key, tuple[object, Source]] = {}
        self._used: dict[Key, Source] = {}
        self._problems: list[str] = []

    def read_file(self, file: Path, *, must_exist: bool) -> None:
        self._file = file
        try:
            text = file.read_bytes().decode("utf-8")
        except FileNotFoundError:
            if must_exist:
                self._problems.append(f"{file}: there is no such file")
            return
        except OSError as error:
            self._problems.append(f"{file}: cannot be read: {error.strerror}")
            return
        except UnicodeDecodeError as error:
            self._problems.append(f"{file}: not UTF-8 at byte {error.start}")
            return
        import tomllib  # only when there is a file: it doubles the time that `ls` takes to start

        try:
            tree = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            place = re.search(r"line (\d+), column (\d+)", str(error))
            line = f"{place[1]}:{place[2]}" if place else str(text.count("\n") + 1)
            self._problems.append(f"{file}:{line}: not TOML: {error}")
            return
        self._lines = _find_lines(text)
        for section, entries in tree.items():
            if section not in (*SECTIONS, "hosts"):
                self._refuse((section,), self._in_file((section,)))
            elif not isinstance(entries, dict):
                self._mismatch((section,), entries, self._in_file((section,)), "a table")
            elif section == "hosts":
                for name, entry in entries.items():
                    self._take_host(name, entry)
            else:
                self._take((section,), entries)

    def _take_host(self, name: str, entry: object) -> None:
        key = ("hosts", name)
        if not isinstance(entry, dict):
            self._mismatch(key, entry, self._in_file(key), "a table")
        elif not entry:
            self._problems.append(f"{self._in_file(key)}: {_dotted(key)}: its uri is missing")
        else:
            self._take(key, entry)

    def _take(self, table: Key, entries: Mapping[str, object]) -> None:
        for name, raw in entries.items():
            key = (*table, name)
            self._given[key] = (raw, self._in_file(key))

    def _in_file(self, key: Key) -> Source:
        # A key written in a way whose line is not found has its table's line.
        line = next((self._lines[key[:n]] for n in (3, 2, 1) if key[:n] in self._lines), None)
        return Source("file", f"{self._file}:{line}" if line else f"{self._file}")

    def read_environ(self, environ: Mapping[str, str]) -> None:
        for variable in sorted(environ):
            key = _key_of(variable)
            if key:
                self._given[key] = (
                    _from_text(key, environ[variable]),
                    Source("environment", variable),
                )

    def read_overrides(self, overrides: Mapping[str, object]) -> None:
        for dotted, value in overrides.items():
            key = tuple(dotted.split("."))
            raw = _from_text(key, value) if isinstance(value, str) else value
            self._given[key] = (raw, Source("command line"))

    def finish(self) -> Loaded:
        sections: dict[str, Any] = {}
        for section, cls in SECTIONS.items():
            sections[section] = cls(
                **{
                    key[1]: self._value(key, *s)
                    for key, s in _settings().items()
                    if key[0] == section
                }
            )
            if section == "paths":
                folders = sections[section]
                self.paths = replace(
                    self.paths, data=folders.data, state=folders.state, cache=folders.cache
                )
        hosts = self._hosts()
        for key, (_, source) in self._given.items():
            if key not in self._used:
                self._refuse(key, source)
        if self._problems:
            raise ConfigError(
                "The configuration is not valid",
                "\n".join(sorted(self._problems, key=by_place)),
                "Mend these and try again; nothing was guessed, and nothing was done.",
            )
        sources = {_dotted(key): source for key, source in self._used.items()}
        return Loaded(Config(hosts=hosts, **sections), sources, self.paths, self._file)

    def _value(self, key: Key, kind: Kind, default: object) -> Any:
        raw, source = self._given.get(key, (None, Source("default")))
        self._used[key] = source
        if source.kind != "default":
            try:
                return kind.read(raw)
            except ValueError as error:
                self._mismatch(key, raw, source, kind.allowed, str(error), kind.choices)
        return kind.default(self.paths) if kind.default else default

    def _hosts(self) -> Mapping[HostName, HostEntry]:
        names = dict.fromkeys(key[1] for key in self._given if key[0] == "hosts" and len(key) == 3)
        owners: dict[str, str] = {}
        entries: dict[HostName, HostEntry] = {}
        for name in names:
            first = next(source for key, (_, source) in self._given.items() if key[1:2] == (name,))
            try:
                NAME.read(name)
            except ValueError:
                self._mismatch(("hosts", name), name, first, NAME.allowed)
            key = ("hosts", name, "uri")
            if key not in self._given:
                self._problems.append(f"{first}: {_dotted(key)}: missing; a host needs one")
            uri = self._value(key, HOST["uri"], "")
            if uri in owners:
                self._mismatch(key, uri, self._used[key], f"not that of hosts.{owners[uri]} again")
            elif uri:
                owners[uri] = name
            own = {
                key: self._value(("hosts", name, key), HOST[key], None)
                for key in HOST
                if key != "uri"
            }
            entries[HostName(name)] = HostEntry(HostName(name), uri, **own)
        return MappingProxyType(entries)

    def _mismatch(
        self,
        key: Key,
        raw: object,
        source: Source,
        allowed: str,
        reason: str = "",
        choices: Sequence[str] = (),
    ) -> None:
        because = f" ({reason})" if reason else ""
        near = nearest(raw, choices) if isinstance(raw, str) else ""
        self._problems.append(
            f"{source}: {_dotted(key)}: found {told(raw)}{because}; allowed: {allowed}{near}"
        )

    def _refuse(self, key: Key, source: Source) -> None:
        known = sorted(_siblings(key))
        name = key[-1] if known else key[0]
        known = known or sorted((*SECTIONS, "hosts"))
        self._problems.append(
            f"{source}: {_dotted(key)}: unknown key{nearest(name, known)}; "
            f"there are: {', '.join(known)}"
        )


def _siblings(key: Key) -> Iterable[str]:
    if key[0] == "hosts" and len(key) == 3:
        return HOST
    return [name for section, name in _settings() if len(key) == 2 and section == key[0]]


_HOST_VARIABLE: Final = re.compile(
    # The name is what stands before a key that there is, however many words either has.
    rf"HOSTS_([A-Z0-9_]+?)_({'|'.join(HOST).upper()}|[A-Z]+)"
)


def _key_of(variable: str) -> Key | None:
    """The key that an environment variable sets; None when it is none of ours.

    A variable that begins with a section's name is ours even when there is no such key.
    """
    if not variable.startswith(PREFIX):
        return None
    rest = variable.removeprefix(PREFIX)
    host = _HOST_VARIABLE.fullmatch(rest)
    if host:
        return ("hosts", host[1].lower().replace("_", "-"), host[2].lower())
    section, _, name = rest.lower().partition("_")
    return (section, name) if name and section in SECTIONS else None


def _from_text(key: Key, text: str) -> object:
    """Text as TOML would have it: a number where a number is wanted and it reads as one."""
    setting = _settings().get(key)
    if setting and setting.kind.is_number:
        if re.fullmatch(r"-?[0-9]{1,18}", text):
            return int(text)
        if re.fullmatch(r"-?[0-9]*\.[0-9]+", text):
            return float(text)
    return text


_PART: Final = r"""[\w-]+|"[^"\\]*"|'[^']*'"""
_PATH: Final = rf"(?:{_PART})(?:\s*\.\s*(?:{_PART}))*"
_TABLE: Final = re.compile(rf"\s*\[\[?\s*({_PATH})\s*\]")
_ENTRY: Final = re.compile(rf"\s*({_PATH})\s*=")


class Place(NamedTuple):
    line: int
    """From 1."""
    key: Key
    is_table: bool
    """It is a table's header; what follows belongs to it until the next one."""


def find_places(text: str) -> Iterator[Place]:
    """Where tables and keys that begin a line stand; tomllib tells none."""

    def split(path: str) -> Key:
        return tuple(part.strip("\"'") for part in re.findall(_PART, path))

    table: Key = ()
    for number, line in enumerate(text.split("\n"), 1):
        header = _TABLE.match(line)
        entry = _ENTRY.match(line)
        if header:
            table = split(header[1])
            yield Place(number, table, is_table=True)
        elif entry:
            yield Place(number, (*table, *split(entry[1])), is_table=False)


def _find_lines(text: str) -> Mapping[Key, int]:
    """The first line of each."""
    lines: dict[Key, int] = {}
    for place in find_places(text):
        lines.setdefault(place.key, place.line)
    return lines


def _dotted(key: Key) -> str:
    return ".".join(key)


def told(raw: object) -> str:
    """A value as it would stand in the file."""
    if isinstance(raw, bool):
        return str(raw).lower()
    if isinstance(raw, str):
        return repr(raw if len(raw) <= 80 else f"{raw[:79]}…")
    if isinstance(raw, list):
        return "a list"
    return "a table" if isinstance(raw, dict) else str(raw)


def nearest(name: str, known: Sequence[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, known, 1, 0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def by_place(problem: str) -> list[Any]:
    """Order by file and line, as a person mends them."""
    parts = re.split(r"([0-9]+)", problem)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)]


@dataclass(frozen=True, slots=True)
class Row:
    """One value for `swarm-tui config`; its value is plain enough for JSON."""

    key: str
    value: str | int | float
    source: str


def rows(loaded: Loaded) -> Sequence[Row]:
    """Every value in force with its source, hosts first; what a host does not name is left out."""

    def row(key: str, value: object) -> Row:
        if isinstance(value, tuple):
            value = shlex.join(value)
        plain = value if isinstance(value, int | float) else str("" if value is None else value)
        return Row(key, plain, str(loaded.sources[key]))

    hosts = [
        row(f"hosts.{host.name}.{key}", value)
        for host in loaded.config.hosts.values()
        for key, value in ((key, getattr(host, key)) for key in HOST)
        if value is not None
    ]
    return hosts + [
        row(f"{section}.{name}", getattr(getattr(loaded.config, section), name))
        for section, name in _settings()
    ]


def render_config(listed: Sequence[Row]) -> Safe:
    """The rows as a plain table, for people."""
    key_cells = max(len(row.key) for row in listed)
    value_cells = min(48, max(len(str(row.value)) for row in listed))
    return sanitize(
        "\n".join(f"{r.key:{key_cells}}  {r.value!s:{value_cells}}  {r.source}" for r in listed),
        lines="many",
    )
