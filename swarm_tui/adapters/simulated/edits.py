"""Changes of files in memory: what a simulated agent's commits are made of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from swarm_tui.handoff import SYMLINK
from swarm_tui.text import sanitize

PLAIN: Final = "100644"

_PLACE: Final = re.compile(r"\d+\. (?P<path>\S+?):(?P<line>\d+)(?:-\d+)?")
"""The head of a numbered comment in a verdict's message; not one on the old side."""
_REMARK: Final = {"md": "> {}", "sql": "-- {}"}
_REMARK_CELLS: Final = 70


@dataclass(frozen=True, slots=True)
class File:
    text: str
    mode: str = PLAIN
    """As git writes it; of a symbolic link the text is its target."""


Files = Mapping[str, File]


@dataclass(frozen=True, slots=True)
class Edit:
    path: str
    new: str
    old: str = ""
    """What `new` takes the place of; empty: the file is new, or `new` becomes its end."""
    mode: str = PLAIN
    """Of a new file."""


@dataclass(frozen=True, slots=True)
class Part:
    """What becomes one commit."""

    message: str
    edits: tuple[Edit, ...]


@dataclass(frozen=True, slots=True)
class Work:
    parts: tuple[Part, ...]
    """Committed when it first asks."""
    later: tuple[Part, ...]
    """What it goes on with, one after each answer."""
    loose: tuple[Edit, ...] = ()
    """Changed by then, but in no commit."""


def apply(files: Files, edits: Iterable[Edit]) -> Files:
    """What is to be replaced and is not there, because a comment was taken up in it, stays."""
    changed = dict(files)
    for edit in edits:
        file = changed.get(edit.path, File("", edit.mode))
        text = file.text.replace(edit.old, edit.new, 1) if edit.old else file.text + edit.new
        changed[edit.path] = replace(file, text=text)
    return changed


def take_up(files: Files, message: str) -> Files:
    """Write each comment of a verdict's message above the line that it is about."""
    changed = dict(files)
    for path, line, text in sorted(_comments(message), reverse=True):  # numbers stay right
        file = changed.get(path)
        if file is None or file.mode == SYMLINK:
            continue
        lines = file.text.splitlines(keepends=True)
        if not 0 < line <= len(lines):
            continue
        indent = lines[line - 1][: -len(lines[line - 1].lstrip()) or None].strip("\n")
        remark = _REMARK.get(path.rpartition(".")[2], "# {}").format(f"Review: {text}")
        lines.insert(line - 1, f"{indent}{remark}\n")
        changed[path] = replace(file, text="".join(lines))
    return changed


def _comments(message: str) -> Iterable[tuple[str, int, str]]:
    """Path, line and first line of the text of each comment on a line."""
    lines = message.split("\n")
    for number, head in enumerate(lines):
        place = _PLACE.fullmatch(head)
        # Behind the place stand the quoted line, then the text, both indented by three.
        if place and number + 2 < len(lines):
            text = sanitize(lines[number + 2].strip(), max_cells=_REMARK_CELLS)
            yield place["path"], int(place["line"]), text
