"""The hosts in the configuration file, and views in theirs: put in, and taken out again.

The file belongs to a person: what else stands in it stays as it was written, with its comments and
its order. Each change is checked to mean that one host more or less, and nothing else, before the
file is replaced.
"""

from __future__ import annotations

import io
import json
import stat
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from swarm_tui import durable
from swarm_tui.config import Key, find_places
from swarm_tui.errors import ConfigError
from swarm_tui.model import HostName
from swarm_tui.paths import make_private

_MODE: Final = 0o600
"""Of a file that is made new."""

Tree = dict[str, Any]


def enter(file: Path, name: HostName, settings: Mapping[str, str]) -> None:
    """Add `[hosts.NAME]` at the file's end; without a file, make one.

    Raises ConfigError when the file has the host already or cannot be changed, StorageFull.
    """
    with _change(file, "hosts") as text:
        tree = _parse(file, text.now)
        if name in tree.get("hosts", {}):
            raise ConfigError(f"There is a host {name} already", str(file))
        tree.setdefault("hosts", {})[name] = dict(settings)
        text.new = _added(text.now, f"hosts.{name}", settings)
        text.meant = tree


def strike(file: Path, name: HostName) -> None:
    """Take a host out. Raises ConfigError when it is not there or cannot be, StorageFull."""
    with _change(file, "hosts") as text:
        tree = _parse(file, text.now)
        if name not in tree.get("hosts", {}):
            raise ConfigError(f"There is no host {name} in the configuration", str(file))
        del tree["hosts"][name]
        text.new = _without(text.now, ("hosts", name))
        text.meant = tree


def put(
    file: Path,
    table: str,
    name: str,
    settings: Mapping[str, str | bool],
    replaced: str | None = None,
) -> None:
    """Add `[table."name"]` at the file's end, and take the one that is `replaced` out.

    Raises ConfigError when the file cannot be changed, StorageFull.
    """
    with _change(file, table) as text:
        tree = _parse(file, text.now)
        left = text.now
        if replaced is not None:
            tree.get(table, {}).pop(replaced, None)
            left = _without(left, (table, replaced))
        tree.setdefault(table, {})[name] = dict(settings)
        text.new = _added(left, f"{table}.{_quote(name)}", settings)
        text.meant = tree


def drop(file: Path, table: str, name: str) -> None:
    """Take a table out; not there is fine. Raises ConfigError, StorageFull."""
    with _change(file, table) as text:
        tree = _parse(file, text.now)
        tree.get(table, {}).pop(name, None)
        text.new = _without(text.now, (table, name))
        text.meant = tree


def _added(text: str, header: str, settings: Mapping[str, str | bool]) -> str:
    end = "\r\n" if "\r\n" in text else "\n"
    lines = [f"[{header}]", *(f"{key} = {_quote(settings[key])}" for key in settings)]
    before = text and text.rstrip("\r\n") + 2 * end
    return before + end.join([*lines, ""])


def _without(text: str, key: Key) -> str:
    gone = set(_lines_of(text, key))
    return "".join(line for number, line in enumerate(_lines(text), 1) if number not in gone)


def _lines(text: str) -> Sequence[str]:
    """With their ends; they end where TOML has it, unlike those of `splitlines`."""
    return [*io.StringIO(text, newline="\n")]


def _lines_of(text: str, key: Key) -> Iterator[int]:
    """The lines of a table and of keys that reach into it."""
    lines = _lines(text)
    places = [*find_places(text)]
    tables = [place for place in places if place.is_table]
    ends = [place.line for place in tables[1:]] + [len(lines) + 1]
    for table, end in zip(tables, ends, strict=False):  # the last end is that of the file
        if table.key[: len(key)] == key:
            yield from range(table.line, _end_of(lines, table.line, end))
    for place in places:
        if not place.is_table and place.key[: len(key)] == key:
            yield place.line


def _end_of(lines: Sequence[str], header: int, end: int) -> int:
    """The line after a table's last, where the next one's header is at `end`.

    A comment that leads to the next one is that one's, and one empty line between two is enough.
    """
    last = end - 1
    while last > header and _is_idle(lines[last - 1]):
        last -= 1
    comment = last
    while comment + 1 < end and lines[comment].lstrip().startswith("#"):
        comment += 1
    if comment + 1 < end:  # an empty line sets it apart from what follows
        last = comment
    while last + 1 < end and not lines[last].strip():
        last += 1
    return last + 1


def _is_idle(line: str) -> bool:
    return not line.strip() or line.lstrip().startswith("#")


class _Text:
    """A file's content as it is, as it shall be, and what that shall mean."""

    def __init__(self, now: str) -> None:
        self.now = now
        self.new = now
        self.meant: Tree = {}


@contextmanager
def _change(file: Path, table: str) -> Iterator[_Text]:
    """Replace the file by what is made of it inside."""
    if not file.parent.exists():
        make_private(file.parent)
    path = file.resolve()  # a link, into a repository of such files perhaps, stays one
    with durable.storage("change the configuration", ConfigError), durable.locked(path.parent):
        try:
            text = _Text(path.read_bytes().decode())
            mode = stat.S_IMODE(path.stat().st_mode)
        except FileNotFoundError:
            text, mode = _Text(""), _MODE
        except UnicodeDecodeError as error:
            raise ConfigError("The configuration is not UTF-8", f"{file}: {error}") from error
        yield text
        if not _means(text.new, text.meant, table):
            raise ConfigError(
                "The configuration cannot be changed as it is written",
                f"{file}: its [{table}] are written in a way that is kept for people to change.",
                "Change it by hand; nothing was done.",
            )
        durable.write(path, text.new.encode(), mode)


def _parse(file: Path, text: str) -> Tree:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError("The configuration is not TOML", f"{file}: {error}") from error


def _means(text: str, tree: Tree, table: str) -> bool:
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return _essence(found, table) == _essence(tree, table)


def _essence(tree: Tree, table: str) -> Tree:
    """That there is a table of hosts without a host means nothing."""
    return {name: value for name, value in tree.items() if name != table or value}


def _quote(text: str | bool) -> str:
    """A basic string of TOML; what JSON escapes it reads, too."""
    return json.dumps(text, ensure_ascii=False)
