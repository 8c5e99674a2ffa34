"""The difference of two files as spans of lines, and the rows in which a screen shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from swarm_tui.handoff import Change, Side
from swarm_tui.text import Safe


@dataclass(frozen=True, slots=True)
class Span:
    """Lines [old, old + removed) of the old file gave way to [new, new + added) of the new one.

    Counted from 0.
    """

    old: int
    removed: int
    new: int
    added: int


@dataclass(frozen=True, slots=True)
class FileDiff:
    """One change with the content of both sides."""

    change: Change
    old: Sequence[bytes]
    """Lines without their ends; empty where there is no text (binary, too large, submodule)."""
    new: Sequence[bytes]
    spans: Sequence[Span]
    note: Safe
    """Why no lines are shown ("binary: 4 KiB -> 12 KiB"), or what they cannot show (no newline at
    the end, a mode); may be empty."""

    def text(self, side: Side, line: int) -> Safe:
        """A line for the screen; `line` counts from 1."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the unified view. Lines count from 1; None where the side has none."""

    kind: Literal["context", "removed", "added", "gap"]
    old: int | None
    new: int | None
    hidden: int = 0
    """For a gap: how many unchanged lines it stands for."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One row of the side-by-side view: line numbers from 1, None where a side has none."""

    kind: Literal["context", "changed", "gap"]
    old: int | None
    new: int | None
    hidden: int = 0


def unified(diff: FileDiff, context: int | None = 3) -> Sequence[Row]:
    """Rows of the unified view; `context` lines around each span, None: the whole file."""
    raise NotImplementedError


def side_by_side(diff: FileDiff, context: int | None = 3) -> Sequence[Pair]:
    """Rows of the side-by-side view: within a span, lines that are alike stand side by side."""
    raise NotImplementedError


def emphasis(old: Safe, new: Safe) -> tuple[Sequence[tuple[int, int]], Sequence[tuple[int, int]]]:
    """What differs within a changed line: [start, end) ranges of the old and of the new text.

    Empty when the lines have too little in common for it to help.
    """
    raise NotImplementedError
