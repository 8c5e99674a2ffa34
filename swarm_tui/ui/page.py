"""A page of the diff pane, what is remembered of it, and where its lines are on the screen."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, NamedTuple

from swarm_tui.handoff import Comment, Side
from swarm_tui.review.diff import FileDiff
from swarm_tui.ui.sheet import Lines, Para

CONTEXT: Final = 3
"""Unchanged lines around each block of changes, unless more are asked for."""


@dataclass(frozen=True)
class Page:
    """What is shown of one file, or of the review as a whole."""

    key: str
    """Another key is another page; the same one keeps its cursor and what was opened."""
    head: Sequence[Para]
    diff: FileDiff | None = None
    comments: Sequence[Comment] = ()

    @property
    def has_sides(self) -> bool:
        """Whether there is anything to show beside each other."""
        return self.diff is not None and bool(self.diff.old) and bool(self.diff.new)


class Target(NamedTuple):
    """The lines that a comment would be about."""

    side: Side
    first: int
    last: int
    quote: str


@dataclass
class Memory:
    """What is remembered of a page while others are shown."""

    cursor: int | None = None
    top: int = 0
    opened: tuple[Lines, ...] = ()
    context: int | None = CONTEXT


class Ladder:
    """Where each item of a page begins on the screen."""

    def __init__(self, count: int, heights: Iterable[int] | None = None) -> None:
        """Without `heights` each of the `count` items is one line high."""
        self._count = count
        self._tops: Sequence[int] | None = None
        self.height = count
        if heights is not None:
            *self._tops, self.height = accumulate(heights, initial=0)

    def at(self, line: int) -> tuple[int | None, int]:
        """The item at a line, and which of its lines that is."""
        if not 0 <= line < self.height:
            return None, 0
        if self._tops is None:
            return line, 0
        index = bisect_right(self._tops, line) - 1
        return index, line - self._tops[index]

    def top(self, index: int) -> int:
        """The first line of an item; beyond the last one: the end."""
        if self._tops is None:
            return index
        return self._tops[index] if index < self._count else self.height

    def height_of(self, index: int) -> int:
        return self.top(index + 1) - self.top(index)
