"""What stands on which line of the diff pane: rows of the diff, and our own words between them.

It costs by what was put between, not by the size of the diff: rows are made when they are drawn.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from swarm_tui.handoff import Comment, Flag, Side
from swarm_tui.review.diff import FileDiff, Pair, Row, Rows, side_by_side, unified
from swarm_tui.text import Safe, literal, sanitize
from swarm_tui.ui.figures import plural, wrap
from swarm_tui.ui.ink import Role

MORE: Final = 20
"""Lines that a gap gives up at each of its ends when it is opened a little."""
NEAR: Final = 3
"""Unchanged lines that are shown around one that must be seen."""


@dataclass(frozen=True, slots=True)
class Para:
    """Something said, before it is broken to the width of the pane."""

    text: Safe
    role: Role = "text"
    lead: str = ""
    lead_role: Role = "faint"
    comment: Comment | None = None
    """The one that it is of."""
    flag: Flag | None = None
    """The one that it tells."""


class Words(NamedTuple):
    """One line of something said."""

    lead: str
    text: str
    para: Para


Item = Row | Pair | Words
Lines = tuple[int, int]
"""[first, end) lines of the new file, from 1."""


class _Run(NamedTuple):
    """Consecutive lines of the sheet."""

    start: int
    """Line of the sheet at which it begins."""
    base: int
    """Its first row of the diff; for items of our own the row that they belong to."""
    items: Sequence[Item] | None
    """None: rows of the diff, one after the other."""


class Sheet:
    """The lines of one file's page."""

    def __init__(
        self,
        head: Sequence[Para],
        rows: Rows[Row] | Rows[Pair],
        comments: Sequence[Comment],
        opened: Iterable[Lines],
        width: int,
    ) -> None:
        """`opened` lines are shown though they are unchanged; comments stand below theirs."""
        self.rows = rows
        self._runs: list[_Run] = []
        self._length = 0
        self._hunks = rows.hunks()
        patches, homeless = self._place(comments, [*opened], width)
        top = [*head, *(para for comment in homeless for para in tell_comment(comment))]
        self._add(0, [line for para in top for line in break_para(para, width)])
        self._lay(patches)
        self._starts = [run.start for run in self._runs]
        self._bases = [run.base for run in self._runs]

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Item:
        if not 0 <= index < self._length:
            raise IndexError(index)
        run = self._runs[bisect_right(self._starts, index) - 1]
        if run.items is not None:
            return run.items[index - run.start]
        return self.rows[run.base + index - run.start]

    # Where things are

    def find(self, side: Side, line: int) -> int | None:
        """The place of a line (from 1), or of the gap that stands for it."""
        base = self.rows.find(side, line)
        if base is None:
            return None
        place = self._of(base)
        run = self._runs[bisect_right(self._starts, place) - 1]
        if run.items is None:
            return place
        for offset, item in enumerate(run.items):
            if not isinstance(item, Words) and _shows(item, side, line):
                return run.start + offset
        return place

    def next_hunk(self, index: int, direction: int) -> int | None:
        """The place of the first row of the next (1) or previous (-1) block of changes."""
        places = range(len(self._hunks))
        run = self._runs[max(0, bisect_right(self._starts, index) - 1)] if self._runs else None
        if run is None:
            return None
        base = run.base if run.items is not None else run.base + index - run.start
        near = bisect_right(self._hunks, base)
        candidates = places[max(0, near - 2) :] if direction > 0 else places[: near + 1][::-1]
        for number in candidates:
            place = self._of(self._hunks[number])
            if (place - index) * direction > 0:
                return place
        return None

    def hunk_number(self, index: int) -> tuple[int, int]:
        """Which block of changes a place is in or below (from 1), of how many."""
        if not self._runs:
            return 0, 0
        run = self._runs[max(0, bisect_right(self._starts, index) - 1)]
        base = run.base if run.items is not None else run.base + index - run.start
        return bisect_right(self._hunks, base), len(self._hunks)

    def _of(self, base: int) -> int:
        """The place of a row of the diff."""
        run = self._runs[bisect_right(self._bases, base) - 1]
        return run.start if run.items is not None else run.start + base - run.base

    # How it is made

    def _place(
        self, comments: Sequence[Comment], opened: list[Lines], width: int
    ) -> tuple[dict[int, list[Item]], list[Comment]]:
        """Rows of the diff that are replaced, by what; and comments whose line is not in it."""
        below: dict[tuple[Side, int], list[Comment]] = {}
        homeless: list[Comment] = []
        touched: dict[int, list[Lines]] = {}
        at: dict[int, None] = {}
        for comment in comments:
            base = self.rows.find(comment.side, comment.last) if comment.first else None
            if base is None:
                homeless.append(comment)
                continue
            below.setdefault((comment.side, comment.last), []).append(comment)
            at[base] = None
            row = self.rows[base]
            if row.kind == "gap":
                line = _new_line(row, comment.side, comment.last)
                opened.append((line - NEAR, line + NEAR + 1))
        for first, end in opened:
            for line in {first, (first + end) // 2, end - 1}:  # it may reach out of the gap
                base = self.rows.find("new", line) if line > 0 else None
                if base is not None and self.rows[base].kind == "gap":
                    touched.setdefault(base, []).append((first, end))
                    at[base] = None
        patches = {}
        for base in at:
            row = self.rows[base]
            items = _open_gap(row, touched.get(base, ())) if row.kind == "gap" else [row]
            patches[base] = [*_with_comments(items, below, width)]
        return patches, homeless

    def _lay(self, patches: Mapping[int, list[Item]]) -> None:
        done = 0
        for base in sorted(patches):
            self._add(done, None, base - done)
            self._add(base, patches[base])
            done = base + 1
        self._add(done, None, len(self.rows) - done)

    def _add(self, base: int, items: Sequence[Item] | None, count: int = 0) -> None:
        count = count if items is None else len(items)
        if count:
            self._runs.append(_Run(self._length, base, items))
            self._length += count


def rows_of(diff: FileDiff, *, is_split: bool, context: int | None) -> Rows[Row] | Rows[Pair]:
    return side_by_side(diff, context) if is_split else unified(diff, context)


def no_rows() -> Rows[Row]:
    """Where there is nothing but words."""
    return Rows(Row)


def open_ends(gap: Row | Pair) -> list[Lines]:
    """The lines that a gap gives up when it is opened a little."""
    first = gap.new or 1
    end = first + gap.hidden
    if gap.hidden <= 2 * MORE:
        return [(first, end)]
    return [(first, first + MORE), (end - MORE, end)]


def tell_comment(comment: Comment) -> list[Para]:
    """A comment as it stands below its line."""
    where = f"{comment.side} line" if comment.side == "old" else "line"
    lines = f"{comment.first}" + (f"-{comment.last}" if comment.last > comment.first else "")
    if comment.first:
        about = f"{where}{'s' if comment.last > comment.first else ''} {lines}"
    else:
        about = "the file as a whole" if comment.path else "the review as a whole"
    head = Para(literal(f"✎ comment on {about}"), "accent", "   ┃ ", "accent", comment)
    text = sanitize(comment.text, lines="many")
    body = (
        Para(sanitize(line), "text", "   ┃ ", "accent", comment)
        for line in (text.split("\n") if text else [])
    )
    return [head, *body]


def tell_gap(gap: Row | Pair) -> Safe:
    return literal(plural(gap.hidden, "unchanged line"))


def break_para(para: Para, width: int) -> list[Words]:
    """It as lines of at most `width` cells; later ones are indented under the first."""
    room = max(12, width - len(para.lead))
    is_bar = para.lead.rstrip().endswith("┃")
    rest = para.lead if is_bar else " " * len(para.lead)
    return [
        Words(para.lead if place == 0 else rest, piece, para)
        for place, piece in enumerate(wrap(para.text, room))
    ]


def _new_line(row: Row | Pair, side: Side, line: int) -> int:
    """The new line beside an unchanged one of a gap."""
    if side == "new" or row.old is None or row.new is None:
        return line
    return line - row.old + row.new


def _shows(row: Row | Pair, side: Side, line: int) -> bool:
    first = row.old if side == "old" else row.new
    return first is not None and first <= line < first + max(1, row.hidden)


def _open_gap(gap: Row | Pair, shown: Iterable[Lines]) -> list[Item]:
    """The gap with these lines of the new file shown in it."""
    first_old, first_new = gap.old or 1, gap.new or 1
    end = first_new + gap.hidden
    make = type(gap)
    items: list[Item] = []
    at = first_new
    for start, stop in sorted(shown):
        start, stop = max(at, start), min(end, stop)
        if start >= stop:
            continue
        if start - at == 1:  # a gap of one line takes no less room than the line itself
            start = at
        if start > at:
            items.append(make("gap", first_old + at - first_new, at, start - at))
        items += [
            make("context", first_old + line - first_new, line) for line in range(start, stop)
        ]
        at = stop
    if end - at == 1:
        items.append(make("context", first_old + at - first_new, at))
    elif end > at:
        items.append(make("gap", first_old + at - first_new, at, end - at))
    return items


def _with_comments(
    items: Iterable[Item], below: Mapping[tuple[Side, int], Sequence[Comment]], width: int
) -> Iterable[Item]:
    sides: tuple[Side, Side] = ("old", "new")
    for item in items:
        yield item
        if isinstance(item, Words) or item.kind == "gap":
            continue
        for side in sides:
            line = item.old if side == "old" else item.new
            for comment in below.get((side, line), ()) if line else ():
                for para in tell_comment(comment):
                    yield from break_para(para, width)
