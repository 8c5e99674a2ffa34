"""Views of the fleet under a name: what is shown, in what order, how grouped, as tiles or a table.

A few are built in; a person's own stand in a file of their own, each as `[views."NAME"]`, where
they can be edited by hand, too.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from swarm_tui import filter, register
from swarm_tui.durable import storage
from swarm_tui.errors import ConfigError, NotFound, UsageError
from swarm_tui.text import sanitize

_TABLE: Final = "views"
_NAME_CELLS: Final = 40
_LABEL: Final = "label:"


class Order(StrEnum):
    ATTENTION = "attention"
    NAME = "name"
    STATE = "state"
    AGE = "age"
    CPU = "cpu"
    MEMORY = "memory"
    HOST = "host"


class Group(StrEnum):
    NONE = "none"
    HOST = "host"
    STATE = "state"
    OWNER = "owner"
    LABEL = "label"
    """By the value of one label, whose key is told beside."""


class Look(StrEnum):
    TILES = "tiles"
    TABLE = "table"


@dataclass(frozen=True, slots=True)
class View:
    """What a name stands for."""

    name: str
    filter: str = ""
    order: Order = Order.ATTENTION
    is_reversed: bool = False
    group: Group = Group.NONE
    label: str = ""
    """The key by which it is grouped, with `Group.LABEL`."""
    look: Look | None = None
    """None: as it is already."""
    is_built_in: bool = field(default=False, compare=False)

    @property
    def grouped(self) -> str:
        """As it stands in the file: "host", "label:team"."""
        return f"{_LABEL}{self.label}" if self.group is Group.LABEL else self.group.value


BUILT_IN: Final = (
    View("everything", is_built_in=True),
    View("waiting for me", "is:waiting", is_built_in=True),
    View("mine", "owner:me", is_built_in=True),
    View("failed or lost", "state:failed,lost", is_built_in=True),
)


def read(file: Path) -> Sequence[View]:
    """All views: those that are built in, then a person's own, as the file has them.

    Raises ConfigError when the file is damaged; the built-in ones are there nevertheless.
    """
    try:
        with storage("read the views", ConfigError):
            text = file.read_bytes().decode() if file.exists() else ""
        tree = tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _damaged(file, str(error)) from error
    if odd := sorted(tree.keys() - {_TABLE}):
        raise _damaged(file, f"{odd[0]} is none of views")
    tables = tree.get(_TABLE, {})
    if not isinstance(tables, dict):
        raise _damaged(file, "views is no table")
    return [*BUILT_IN, *(_parse(file, name, table) for name, table in tables.items())]


def find(file: Path, name: str) -> View:
    """The view of that name. Raises NotFound, and ConfigError when the file is damaged."""
    wanted = name.casefold()
    for view in BUILT_IN:
        if view.name == wanted:
            return view
    views = read(file)
    for view in views:
        if view.name.casefold() == wanted:
            return view
    known = ", ".join(view.name for view in views)
    raise NotFound(f"There is no view “{name}”", f"Views are: {known}.")


def save(file: Path, view: View) -> None:
    """Keep a view, instead of an own one that has its name.

    Raises UsageError for a name that cannot be, ConfigError, StorageFull.
    """
    check_name(view.name)
    replaced = _same(read(file), view.name)
    register.put(file, _TABLE, view.name, _settings(view), replaced)


def rename(file: Path, old: str, new: str) -> None:
    """Raises UsageError for a name that cannot be or is taken, ConfigError, StorageFull."""
    check_name(new)
    views = read(file)
    if new.casefold() != old.casefold() and _same(views, new):
        raise UsageError(f"There is a view “{new}” already")
    view = next((one for one in views if one.name == old and not one.is_built_in), None)
    if view is None:
        raise UsageError(f"There is no view “{old}” of yours")
    register.put(file, _TABLE, new, _settings(view), old)


def remove(file: Path, name: str) -> None:
    """Raises ConfigError, StorageFull."""
    read(file)  # a damaged file is left alone
    register.drop(file, _TABLE, name)


def check_name(name: str) -> None:
    """Raises UsageError for what cannot be the name of a view."""
    if any(view.name == name.casefold() for view in BUILT_IN):
        raise UsageError(f"“{name}” is built in", hint="Choose another name.")
    is_plain = sanitize(name) == name and not set(name) & set('"\\') and name.strip() == name
    if not name or len(name) > _NAME_CELLS or not is_plain:
        raise UsageError(
            "That cannot be the name of a view",
            hint=f'1 to {_NAME_CELLS} characters that can be seen, without " and \\.',
        )


def _same(views: Sequence[View], name: str) -> str | None:
    """The own view that has this name, as it is written there."""
    names = (view.name for view in views if not view.is_built_in)
    return next((one for one in names if one.casefold() == name.casefold()), None)


def _settings(view: View) -> Mapping[str, str | bool]:
    settings: dict[str, str | bool] = {"filter": view.filter, "sort": view.order.value}
    if view.is_reversed:
        settings["reverse"] = True
    settings["group"] = view.grouped
    if view.look:
        settings["look"] = view.look.value
    return settings


def _parse(file: Path, name: str, table: object) -> View:
    where = f"views.{name}"
    if not isinstance(table, dict):
        raise _damaged(file, f"{where} is no table")
    try:
        check_name(name)
    except UsageError as error:
        raise _damaged(file, f"{where}: {error.title}") from error
    if odd := sorted(table.keys() - {"filter", "sort", "reverse", "group", "look"}):
        raise _damaged(file, f"{where}.{odd[0]}: unknown key")
    try:
        text = _word(table, "filter", "")
        filter.parse(text)
        grouped = _word(table, "group", Group.NONE)
        label = grouped.removeprefix(_LABEL) if grouped.startswith(_LABEL) else ""
        look = _word(table, "look", "")
        return View(
            name,
            text,
            Order(_word(table, "sort", Order.ATTENTION)),
            _flag(table, "reverse"),
            Group.LABEL if label else Group(grouped),
            label,
            Look(look) if look else None,
        )
    except UsageError as error:
        raise _damaged(file, f"{where}.filter: {error}") from error
    except ValueError as error:
        raise _damaged(file, f"{where}: {error}") from error


def _word(table: Mapping[str, Any], key: str, default: str) -> str:
    value = table.get(key, default)
    if not isinstance(value, str):
        raise ValueError(f"{key}: text in quotes")
    return value


def _flag(table: Mapping[str, Any], key: str) -> bool:
    value = table.get(key, False)
    if not isinstance(value, bool):
        raise ValueError(f"{key}: true or false")
    return value


def _damaged(file: Path, what: str) -> ConfigError:
    return ConfigError(
        "The file of views cannot be used as it is",
        f"{file}: {what}",
        "Mend it or move it away; until then nothing is written to it.",
    )
