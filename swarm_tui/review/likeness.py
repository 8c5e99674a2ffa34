"""Which of the lines that went are most like which of those that came: for standing side by side.

Bounded: a diff of 50,000 lines must open at once, so large spans are not weighed at all, and the
many small ones of one diff share a budget.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_WORD: Final = re.compile(rb"\w+|[^\w\s]")
_LINE_BYTES: Final = 200
_LARGEST: Final = 400
"""Pairs of lines in a span that is still weighed."""
_BUDGET: Final = 20_000
_LINE_COST: Final = 5
"""What taking the words out of a line costs, in weighed pairs (measured)."""
_ALIKE: Final = 0.5


class Aligner:
    """Aligns the spans of one diff, as long as its budget lasts."""

    def __init__(self) -> None:
        self._budget = _BUDGET

    @property
    def is_spent(self) -> bool:
        return self._budget < 0

    def align(self, removed: Sequence[bytes], added: Sequence[bytes]) -> Sequence[tuple[int, int]]:
        """Pairs of indexes of lines that are alike, both rising; best in sum. May be empty."""
        pairs = len(removed) * len(added)
        if not 1 < pairs <= _LARGEST:
            return []
        self._budget -= pairs + _LINE_COST * (len(removed) + len(added))
        if self._budget < 0:
            return []
        olds, news = [_words(line) for line in removed], [_words(line) for line in added]
        likes = [[_likeness(old, new) for new in news] for old in olds]
        return _best(likes, len(news))


def _words(line: bytes) -> frozenset[bytes]:
    return frozenset(_WORD.findall(line[:_LINE_BYTES]))


def _likeness(old: frozenset[bytes], new: frozenset[bytes]) -> float:
    """From 0 to 1; 0 for what is not alike enough."""
    both = len(old) + len(new)
    shared = 2 * len(old & new)
    return shared / both if both and shared >= _ALIKE * both else 0.0


def _best(likes: Sequence[Sequence[float]], width: int) -> Sequence[tuple[int, int]]:
    sums = [[0.0] * (width + 1)]
    for row in likes:
        above, current = sums[-1], [0.0]
        for index, like in enumerate(row):
            current.append(max(above[index] + like, above[index + 1], current[index]))
        sums.append(current)
    pairs = []
    old, new = len(likes), width
    while old and new:
        best = sums[old][new]
        if best == sums[old - 1][new]:
            old -= 1
        elif best == sums[old][new - 1]:
            new -= 1
        else:
            old, new = old - 1, new - 1
            pairs.append((old, new))
    return pairs[::-1]
