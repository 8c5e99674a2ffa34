"""The difference of two files as spans of lines, and the rows in which a screen shows them.

Everything here costs by what is looked at: rows are made when they are asked for, lines are made
safe when they are shown, and likeness is weighed within a fixed budget.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache
from typing import Any, Final, Generic, Literal, TypeVar, overload

from swarm_tui.errors import ReviewError
from swarm_tui.handoff import ABSENT, EXECUTABLE, SUBMODULE, SYMLINK, Change, Side
from swarm_tui.review.likeness import Aligner
from swarm_tui.text import LINE_CELLS, Safe, sanitize

_BINARY_PROBE: Final = 8000
"""Bytes in which git looks for a NUL before it calls a file binary (xdiff-interface.c)."""
_SHOWN_BYTES: Final = 4 * LINE_CELLS + 64
"""More of a line cannot reach the screen: a character has at most four bytes."""
_EMPHASIS_LIMIT: Final = 500
_EMPHASIS_COST: Final = 10_000
"""Pairs of equal words; lines of one word again and again would take for ever."""
_IN_COMMON: Final = 0.3
"""Share of the characters that must be the same for the others to be worth a colour."""
_TOKEN: Final = re.compile(r"\w+|\s+|.")


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
    """Lines without their ends; empty where there is no text (binary, too large)."""
    new: Sequence[bytes]
    spans: Sequence[Span]
    note: Safe
    """Why no lines are shown ("binary: 4 KiB -> 12 KiB"), or what they cannot show (no newline at
    the end, a mode); may be empty."""

    def text(self, side: Side, line: int) -> Safe:
        """A line for the screen; `line` counts from 1. Raises IndexError beyond the file."""
        lines = self.old if side == "old" else self.new
        if line < 1:
            raise IndexError(line)
        return _shown(lines[line - 1][:_SHOWN_BYTES])


@lru_cache(maxsize=1024)
def _shown(line: bytes) -> Safe:
    return sanitize(line)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the unified view. Lines count from 1; None where the side has none."""

    kind: Literal["context", "removed", "added", "gap"]
    old: int | None
    new: int | None
    hidden: int = 0
    """For a gap: how many unchanged lines it stands for, from `old` and `new` on."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One row of the side-by-side view: line numbers from 1, None where a side has none."""

    kind: Literal["context", "changed", "gap"]
    old: int | None
    new: int | None
    hidden: int = 0
    """As in `Row`."""


def is_binary(blob: bytes) -> bool:
    """As git sees it: a NUL near the beginning."""
    return b"\0" in blob[:_BINARY_PROBE]


def split_lines(blob: bytes) -> Sequence[bytes]:
    r"""Lines without their "\n", the only line end there is: a "\r" belongs to its line."""
    lines = blob.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return lines


def make(
    change: Change, old_blob: bytes | None, new_blob: bytes | None, spans: Sequence[Span]
) -> FileDiff:
    """One change with its content; None for a blob that is not there or too large to show.

    `spans` are used for text on both sides only. Raises ReviewError when they would hide a
    difference: whatever lies outside of them must be the same on both sides.
    """
    old = _Half(change.old_mode, change.old, old_blob, change.old_size)
    new = _Half(change.new_mode, change.new, new_blob, change.new_size)
    is_shown = True
    notes = list(_modes(change))
    for word, is_so in (("too large to show", _Half.is_too_large), ("binary", _Half.is_binary)):
        if is_so(old) or is_so(new):
            notes.append(f"{word}: {_sizes(old, new)}")
            is_shown = False
    old_lines = old.lines() if is_shown or old.is_special else []
    new_lines = new.lines() if is_shown or new.is_special else []
    if is_shown and old.is_text and new.is_text:
        _check(old_lines, new_lines, spans)
        if old_blob != new_blob and not spans:
            spans = _at_the_end(old_lines, new_lines)
        elif old_blob == new_blob and change.old_path is not None:
            notes.append("the content is unchanged")
    else:
        spans = [Span(0, len(old_lines), 0, len(new_lines))] if old_lines or new_lines else []
    if is_shown:
        notes += _ends(old, new)
    return FileDiff(change, old_lines, new_lines, tuple(spans), sanitize("; ".join(notes)))


@dataclass(frozen=True, slots=True)
class _Half:
    """One side of a change."""

    mode: str
    oid: str
    blob: bytes | None
    size: int | None

    @property
    def is_special(self) -> bool:
        """Shown as one line, whatever the other side is."""
        return self.mode in (SUBMODULE, SYMLINK)

    @property
    def is_text(self) -> bool:
        return self.mode not in (ABSENT, SUBMODULE, SYMLINK) and self.blob is not None

    def is_too_large(self) -> bool:
        return self.blob is None and self.mode not in (ABSENT, SUBMODULE)

    def is_binary(self) -> bool:
        return self.is_text and self.blob is not None and is_binary(self.blob)

    def lines(self) -> Sequence[bytes]:
        if self.mode == SUBMODULE:
            return [f"Subproject commit {self.oid}".encode()]
        if not self.blob:
            return []
        return [self.blob] if self.mode == SYMLINK else split_lines(self.blob)

    def lacks_newline(self) -> bool:
        return self.is_text and bool(self.blob) and not (self.blob or b"").endswith(b"\n")


def _modes(change: Change) -> Iterator[str]:
    names = {SYMLINK: "symlink", SUBMODULE: "submodule", EXECUTABLE: "executable"}
    old, new = change.old_mode, change.new_mode
    if ABSENT in (old, new):
        mode = new if old == ABSENT else old
        if mode in names:
            yield names[mode]
    elif old != new:
        yield f"{names.get(old, 'file')} -> {names.get(new, 'file')} (mode {old} -> {new})"


def _sizes(old: _Half, new: _Half) -> str:
    import humanize  # only for what has no lines: the diffs of ordinary files must open at once

    def size(half: _Half) -> str:
        if half.mode == ABSENT:
            return "none"
        known = len(half.blob) if half.blob is not None else half.size
        return "?" if known is None else humanize.naturalsize(known, binary=True, format="%.0f")

    return f"{size(old)} -> {size(new)}"


def _ends(old: _Half, new: _Half) -> Iterator[str]:
    lacks = [word for word, half in (("old", old), ("new", new)) if half.lacks_newline()]
    if lacks:
        whose = "both files" if len(lacks) == 2 else f"the {lacks[0]} file"
        yield f"no newline at the end of {whose}"


def _at_the_end(old: Sequence[bytes], new: Sequence[bytes]) -> Sequence[Span]:
    """Where contents differ and no line does, only the newline at the end can be the reason."""
    return [Span(len(old) - 1, 1, len(new) - 1, 1)]


def _check(old: Sequence[bytes], new: Sequence[bytes], spans: Sequence[Span]) -> None:
    at_old = at_new = 0
    for span in [*spans, Span(len(old), 0, len(new), 0)]:
        if (
            min(span.removed, span.added) < 0
            or span.old < at_old
            or span.new < at_new
            or old[at_old : span.old] != new[at_new : span.new]
        ):
            raise ReviewError(
                "A difference does not fit its files",
                f"Near line {at_new + 1} of the new file there is a change that is not listed.",
                "Nothing of this review can be trusted: take it again.",
            )
        at_old, at_new = span.old + span.removed, span.new + span.added
    if (at_old, at_new) != (len(old), len(new)):
        raise ReviewError("A difference does not fit its files", "It reaches beyond their ends.")


_R = TypeVar("_R", bound=Row | Pair)


class Rows(Sequence[_R], Generic[_R]):
    """The rows of a view, each made when it is asked for."""

    def __init__(self, make_row: Callable[..., _R]) -> None:
        self._make_row: Callable[..., _R] = make_row
        self._starts: list[int] = []
        self._runs: list[tuple[str, int | None, int | None, int]] = []
        """Kind, old and new line of the first row (from 1), hidden lines."""
        self._length = 0

    def extend(self, kind: str, old: int | None, new: int | None, count: int) -> None:
        """Add rows of one kind whose lines follow each other; lines from 1."""
        if count:
            self._starts.append(self._length)
            self._runs.append((kind, old, new, 0))
            self._length += count

    def skip(self, old: int, new: int, hidden: int) -> None:
        """Add one row that stands for unchanged lines."""
        self._starts.append(self._length)
        self._runs.append(("gap", old, new, hidden))
        self._length += 1

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> _R: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[_R]: ...

    def __getitem__(self, index: int | slice) -> _R | Sequence[_R]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(self._length))]
        if index < 0:
            index += self._length
        if not 0 <= index < self._length:
            raise IndexError(index)
        run = bisect_right(self._starts, index) - 1
        kind, old, new, hidden = self._runs[run]
        offset = index - self._starts[run]
        return self._make_row(
            kind,
            None if old is None else old + offset,
            None if new is None else new + offset,
            hidden,
        )

    def hunks(self) -> Sequence[int]:
        """The first row of each block of changed rows."""
        found = []
        is_changed = False
        for start, (kind, *_) in zip(self._starts, self._runs, strict=True):
            was_changed, is_changed = is_changed, kind not in ("context", "gap")
            if is_changed and not was_changed:
                found.append(start)
        return found

    def find(self, side: Side, line: int) -> int | None:
        """The row that shows a line (from 1), or the gap that stands for it; None: no such line."""
        ends = [*self._starts[1:], self._length][: len(self._starts)]
        for start, end, run in zip(self._starts, ends, self._runs, strict=True):
            kind, old, new, hidden = run
            first = old if side == "old" else new
            if first is None or line < first:
                continue
            if line < first + (hidden if kind == "gap" else end - start):
                return start if kind == "gap" else start + line - first
        return None


def unified(diff: FileDiff, context: int | None = 3) -> Rows[Row]:
    """Rows of the unified view; `context` lines around each span, None: the whole file.

    Unchanged lines between are a gap, except a single one, which takes no more room itself.
    """
    rows = Rows(Row)

    def put(span: Span) -> None:
        rows.extend("removed", span.old + 1, None, span.removed)
        rows.extend("added", None, span.new + 1, span.added)

    _lay(rows, diff, context, put)
    return rows


def side_by_side(diff: FileDiff, context: int | None = 3) -> Rows[Pair]:
    """Rows of the side-by-side view: within a span, lines that are alike stand side by side.

    In large spans, and when the budget for likeness is spent, lines stand by their order.
    """
    rows = Rows(Pair)
    aligner = Aligner()

    def put(span: Span) -> None:
        old, new = span.old + 1, span.new + 1
        if span.removed == span.added == 1:  # the usual one, thousands of times
            rows.extend("changed", old, new, 1)
            return
        if not span.removed or not span.added or aligner.is_spent:
            _by_order(rows, old, old + span.removed, new, new + span.added)
            return
        removed = diff.old[span.old : span.old + span.removed]
        added = diff.new[span.new : span.new + span.added]
        for left, right in aligner.align(removed, added):
            _by_order(rows, old, span.old + left + 1, new, span.new + right + 1)
            old, new = span.old + left + 1, span.new + right + 1
            rows.extend("changed", old, new, 1)
            old, new = old + 1, new + 1
        _by_order(rows, old, span.old + span.removed + 1, new, span.new + span.added + 1)

    _lay(rows, diff, context, put)
    return rows


def _by_order(rows: Rows[Pair], old: int, old_end: int, new: int, new_end: int) -> None:
    both = min(old_end - old, new_end - new)
    rows.extend("changed", old, new, both)
    rows.extend("changed", old + both, None, old_end - old - both)
    rows.extend("changed", None, new + both, new_end - new - both)


def _lay(rows: Rows[_R], diff: FileDiff, context: int | None, put: Callable[[Span], None]) -> None:
    """Lay the spans out with the unchanged lines around them."""
    around = len(diff.old) if context is None else context
    old = new = 0
    for index, span in enumerate(diff.spans):
        _unchanged(rows, old, new, span.old - old, around if index else 0, around)
        put(span)
        old, new = span.old + span.removed, span.new + span.added
    is_whole = bool(diff.spans) or context is None
    _unchanged(rows, old, new, len(diff.old) - old, around if is_whole else 0, 0)


def _unchanged(rows: Rows[_R], old: int, new: int, count: int, head: int, tail: int) -> None:
    if count <= head + tail + 1:
        rows.extend("context", old + 1, new + 1, count)
        return
    rows.extend("context", old + 1, new + 1, head)
    rows.skip(old + head + 1, new + head + 1, count - head - tail)
    rows.extend("context", old + count - tail + 1, new + count - tail + 1, tail)


def hunks(rows: Rows[Any]) -> Sequence[int]:
    """Positions to jump to: the first row of each block of changed rows."""
    return rows.hunks()


Ranges = Sequence[tuple[int, int]]


@lru_cache(maxsize=1024)
def emphasis(old: Safe, new: Safe) -> tuple[Ranges, Ranges]:
    """What differs within a changed line: [start, end) ranges of the old and of the new text.

    By words. Empty when the lines have too little in common for it to help, and for lines that
    are long or repeat themselves.
    """
    nothing: tuple[Ranges, Ranges] = ((), ())
    if old == new or not old or not new or max(len(old), len(new)) > _EMPHASIS_LIMIT:
        return nothing
    olds, news = _TOKEN.findall(old), _TOKEN.findall(new)
    often = Counter(olds)
    if sum(often[word] for word in news) > _EMPHASIS_COST:
        return nothing
    ranges: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
    same = at_old = at_new = 0
    for kind, old_first, old_last, new_first, new_last in SequenceMatcher(
        None, olds, news, autojunk=False
    ).get_opcodes():
        left, right = "".join(olds[old_first:old_last]), "".join(news[new_first:new_last])
        if kind == "equal":
            same += len(left.replace(" ", ""))
        else:
            _mark(ranges[0], old, at_old, at_old + len(left))
            _mark(ranges[1], new, at_new, at_new + len(right))
        at_old, at_new = at_old + len(left), at_new + len(right)
    longer = max(len(old.replace(" ", "")), len(new.replace(" ", "")))
    return (tuple(ranges[0]), tuple(ranges[1])) if same >= _IN_COMMON * longer else nothing


def _mark(ranges: list[tuple[int, int]], text: str, start: int, end: int) -> None:
    """Add a range; two with nothing but blanks between them become one."""
    if start == end:
        return
    if ranges and not text[ranges[-1][1] : start].strip():
        start = ranges.pop()[0]
    ranges.append((start, end))
