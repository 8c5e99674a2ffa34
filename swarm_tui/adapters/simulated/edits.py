"""Changes of files in memory: what a simulated agent's commits are made of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from swarm_tui.handoff import SYMLINK
from swarm_tui.text import sanitize

PLAIN: Final = "100644"

_PLACE: Final = re.compile(r"\d+\. (?P<path>\S+?)(?::(?P<line>\d+)(?:-\d+)?)?")
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
    """Write each comment of a verdict's message above the line, or into the file, it is about."""
    changed = dict(files)
    for path, line, text in sorted(_comments(message), reverse=True):  # numbers stay right
        file = changed.get(path)
        if file is None or file.mode == SYMLINK:
            continue
        lines = file.text.splitlines(keepends=True)
        if line > len(lines):
            continue
        at = line - 1 if line else int(file.text.startswith("#!"))
        blank = re.match(r"[ \t]*", lines[at]) if line else None
        remark = _REMARK.get(path.rpartition(".")[2], "# {}").format(f"Review: {text}")
        lines.insert(at, f"{blank[0] if blank else ''}{remark}\n")
        changed[path] = replace(file, text="".join(lines))
    return changed


def _comments(message: str) -> Iterable[tuple[str, int, str]]:
    """Path, line (0: the file as a whole) and first line of the text of each numbered comment."""
    lines = message.split("\n")
    for number, head in enumerate(lines):
        place = _PLACE.fullmatch(head)
        if place is None:
            continue
        line = int(place["line"] or 0)
        # Below the place stands, of a line, the line as it was; then the text.
        text = "".join(lines[number + (2 if line else 1) :][:1]).strip()
        yield place["path"], line, sanitize(text, max_cells=_REMARK_CELLS)
