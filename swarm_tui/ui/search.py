"""Finding text in a diff: in every line of the new file, and in those that were removed."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import Literal

from swarm_tui.handoff import Side
from swarm_tui.review.diff import FileDiff

Place = tuple[Side, int]
"""A line, counted from 1."""


class Matches:
    """The lines of one file that hold a needle, in the order of the unified view."""

    def __init__(self, diff: FileDiff, needle: str) -> None:
        self._diff = diff
        self._new_starts = [span.new for span in diff.spans]
        self._old_starts = [span.old for span in diff.spans]
        self.places = list(self._find(needle.casefold())) if needle else []

    def next(self, here: Place | None, direction: Literal[-1, 1]) -> Place | None:
        """The next match below (1) or above (-1) a line; None: start at the file's end."""
        if here is None:
            return (self.places[0] if direction > 0 else self.places[-1]) if self.places else None
        key = self._order(here)
        if direction > 0:
            at = bisect_right(self.places, key, key=self._order)
            return self.places[at] if at < len(self.places) else None
        at = bisect_left(self.places, key, key=self._order)
        return self.places[at - 1] if at else None

    def _find(self, needle: str) -> Iterator[Place]:
        diff, at = self._diff, 0
        for span in diff.spans:
            yield from _within(diff.new, at, span.new, "new", needle)
            yield from _within(diff.old, span.old, span.old + span.removed, "old", needle)
            at = span.new
        yield from _within(diff.new, at, len(diff.new), "new", needle)

    def _order(self, place: Place) -> tuple[int, int, int]:
        side, line = place[0], place[1] - 1
        if side == "old":
            at = bisect_right(self._old_starts, line) - 1
            if at < 0:
                return (line, 1, 0)
            span = self._diff.spans[at]
            if line < span.old + span.removed:
                return (span.new, 0, line)
            line += span.new + span.added - span.old - span.removed
        return (line, 1, 0)


def _within(
    lines: Sequence[bytes], first: int, end: int, side: Side, needle: str
) -> Iterator[Place]:
    for number in range(first, end):
        if needle in lines[number].decode("utf-8", "replace").casefold():
            yield side, number + 1


def find_in(text: str, needle: str) -> list[tuple[int, int]]:
    """Every place of a (casefolded) needle in a line, as [start, end)."""
    folded = text.casefold()
    if len(folded) != len(text):  # places in it are not places in the text
        return [(0, len(text))] if needle in folded else []
    found = []
    at = folded.find(needle)
    while at >= 0:
        found.append((at, at + len(needle)))
        at = folded.find(needle, at + len(needle))
    return found
