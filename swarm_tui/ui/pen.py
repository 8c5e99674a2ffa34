"""Draws one line of the diff pane: numbers, sign, code; or both sides; or what is said between."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from rich.cells import cell_len
from rich.segment import Segment
from textual.strip import Strip

from swarm_tui.handoff import Side
from swarm_tui.review.diff import FileDiff, Pair, Row, Span, emphasis, side_by_side
from swarm_tui.text import EMPTY, TAB_CELLS, Safe
from swarm_tui.ui.figures import wrap
from swarm_tui.ui.ink import Line, fit_line
from swarm_tui.ui.paint import Coat
from swarm_tui.ui.search import find_in
from swarm_tui.ui.shade import Ground, Shades, colour
from swarm_tui.ui.sheet import Item, Words, tell_gap

CURSOR: Final = "▌"
SELECTED: Final = "┃"
_BETWEEN: Final = "│"
_CUT: Final = "›"
_ROLES: Final = {
    "text": "text-normal",
    "strong": "text-normal",
    "muted": "text-muted",
    "faint": "text-faint",
    "accent": "text-accent",
    "good": "signal-good",
    "warning": "signal-warning",
    "bad": "signal-bad",
    "cpu": "graphs-cpu",
}
_SIGNS: Final = {"added": "+", "removed": "-", "plain": " ", "panel": " "}
_PARTNERS_AT_MOST: Final = 200
"""In larger blocks of changes no line is compared with another one."""
_HEADING: Final = re.compile(r"[A-Za-z_$@#]")
"""How a line begins that says what follows it; git's own rule where nothing else is known."""
_HEADING_LINES: Final = 400
"""So far above a block of changes its heading is looked for."""

Partners = dict[tuple[Side, int], int]


class Mark(NamedTuple):
    """How a line stands out."""

    is_cursor: bool = False
    is_selected: bool = False
    side: Side = "new"
    """Where the cursor is, where both sides are shown."""

    @property
    def sign(self) -> str:
        return CURSOR if self.is_cursor else SELECTED if self.is_selected else " "


@dataclass(frozen=True)
class Pen:
    """Draws the lines of one file at one width."""

    shades: Shades
    width: int
    diff: FileDiff | None = None
    coat: Coat | None = None
    flagged: frozenset[int] = frozenset()
    """Lines of the new file that a flag is about."""
    needle: str = ""
    """What is searched for, casefolded."""
    left: int = 0
    """Cells of the code that are out of sight at the left."""
    is_split: bool = False
    wraps: bool = False
    partners: dict[Span | None, Partners] = field(default_factory=dict)
    """Those of each block of changes that was drawn."""

    def draw(self, item: Item, mark: Mark) -> list[Strip]:
        """The item's lines on the screen: one, or more where long lines are wrapped."""
        if isinstance(item, Words):
            return [self._words(item, mark)]
        if item.kind == "gap":
            return [self._gap(item, mark)]
        if isinstance(item, Pair):
            return self._pair(item, mark)
        return self._row(item, mark)

    def height(self, item: Item) -> int:
        """How many lines `draw` gives."""
        if not self.wraps or isinstance(item, Words) or item.kind == "gap":
            return 1
        room = self._room
        old = self._lines_of("old", item.old, room) if item.old else 1
        return max(old, self._lines_of("new", item.new, room) if item.new else 1)

    def _lines_of(self, side: Side, line: int, room: int) -> int:
        """How many lines of the screen one line of code takes, when it is wrapped."""
        assert self.diff
        raw = (self.diff.old if side == "old" else self.diff.new)[line - 1]
        if len(raw) + (TAB_CELLS - 1) * raw.count(b"\t") <= room and raw.isascii():
            return 1  # by far the most, and all of a large file are asked about
        return len(self._break(self._text(side, line), room))

    # Layout

    @property
    def _digits(self) -> int:
        return _digits(len(self.diff.old), len(self.diff.new)) if self.diff else 3

    @property
    def _half(self) -> int:
        """Cells of each side, with its gutter but without the mark."""
        return (self.width - 2) // 2

    @property
    def _room(self) -> int:
        """Cells for code in one line."""
        if self.is_split:
            return max(4, self._half - self._digits - 4)
        numbers = sum(self._digits + 1 for _ in self._number_columns)
        return max(4, self.width - 1 - numbers - 3)

    @property
    def _number_columns(self) -> Sequence[Side]:
        if self.diff and not self.diff.old:
            return ("new",)
        if self.diff and not self.diff.new:
            return ("old",)
        return ("old", "new")

    def side_at(self, x: int) -> Side:
        """The side on which a column of the screen is."""
        return "old" if self.is_split and x <= self._half else "new"

    # Lines of code

    def _row(self, row: Row, mark: Mark) -> list[Strip]:
        ground: Ground = "plain" if row.kind == "context" or row.kind == "gap" else row.kind
        side: Side = "old" if row.new is None else "new"
        line = (row.old if side == "old" else row.new) or 0
        numbers = "".join(
            f"{(row.old if column == 'old' else row.new) or '':>{self._digits}} "
            for column in self._number_columns
        )
        strips = self._code(side, line, ground, mark.is_cursor)
        drawn = []
        for place, code in enumerate(strips):
            gutter = self._gutter(numbers, ground, mark, place, row.new)
            drawn.append(Strip([*self._mark(mark, place), *gutter, *code], self.width))
        return drawn

    def _pair(self, pair: Pair, mark: Mark) -> list[Strip]:
        is_changed = pair.kind == "changed"
        left = self._half_of("old", pair, "removed" if is_changed else "plain", mark)
        right = self._half_of("new", pair, "added" if is_changed else "plain", mark)
        height = max(len(left), len(right))
        fill = Segment(" " * self._half, self.shades.style("text-faint", "panel"))
        between = Segment(_BETWEEN, self.shades.style("surface-line"))
        drawn = []
        for place in range(height):
            segments = [
                *self._mark(mark, place),
                *(left[place] if place < len(left) else [fill]),
                between,
                *(right[place] if place < len(right) else [fill]),
            ]
            plain = self.shades.style("text-normal")
            drawn.append(Strip(fit_line(segments, self.width, plain), self.width))
        return drawn

    def _half_of(self, side: Side, pair: Pair, ground: Ground, mark: Mark) -> list[Line]:
        line = pair.old if side == "old" else pair.new
        if line is None:
            return []
        here = mark.is_cursor and (mark.side == side or pair.old is None or pair.new is None)
        halves = []
        for place, code in enumerate(self._code(side, line, ground, here)):
            numbers = f"{line:>{self._digits}} "
            new = line if side == "new" else None
            gutter = self._gutter(numbers, ground, mark._replace(is_cursor=here), place, new)
            halves.append([*gutter, *code])
        return halves

    def _mark(self, mark: Mark, place: int) -> Line:
        style = self.shades.style("text-accent", "plain", is_cursor=mark.is_cursor, is_bold=True)
        return [Segment(mark.sign, style)]

    def _gutter(
        self, numbers: str, ground: Ground, mark: Mark, place: int, new: int | None
    ) -> Line:
        shades, is_cursor = self.shades, mark.is_cursor or mark.is_selected
        faint = shades.style(
            "text-normal" if is_cursor else "text-faint", ground, is_cursor=is_cursor
        )
        if place:
            return [Segment(" " * (len(numbers) + 3), faint)]
        sign = shades.style(
            {"added": "signal-good", "removed": "signal-bad"}.get(ground, "text-faint"),
            ground,
            is_cursor=is_cursor,
            is_bold=True,
        )
        warning = shades.style("signal-warning", ground, is_cursor=is_cursor, is_bold=True)
        flag = "⚑" if new is not None and new in self.flagged else " "
        return [
            Segment(numbers, faint),
            Segment(flag, warning),
            Segment(f"{_SIGNS[ground]} ", sign),
        ]

    def _code(self, side: Side, line: int, ground: Ground, is_cursor: bool) -> list[Line]:
        """The code of one line, cut or broken to exactly the room there is."""
        text = self._text(side, line)
        segments = colour(
            text,
            ground,
            self.shades,
            spans=self.coat.spans(side, line) if self.coat else (),
            words=self._changed_words(side, line) if ground in ("added", "removed") else (),
            matches=find_in(text, self.needle) if self.needle else (),
            is_cursor=is_cursor,
        )
        fill = self.shades.style("text-normal", ground, is_cursor=is_cursor)
        room = self._room
        if self.wraps:
            strip, at, pieces = Strip(segments), 0, []
            for piece in self._break(text, room):
                cells = cell_len(piece)
                pieces.append(fit_line([*strip.crop(at, at + cells)], room, fill))
                at += cells
            return pieces
        is_short = text.isascii() and len(text) <= room
        if is_short and not self.left:
            return [fit_line(segments, room, fill)]
        cells = cell_len(text)
        shown = [*Strip(segments).crop(self.left, self.left + room)]
        if cells > self.left + room:
            cut = self.shades.style("text-muted", ground, is_cursor=is_cursor)
            shown = [*fit_line([*Strip(shown).crop(0, room - 1)], room - 1, fill)]
            return [[*shown, Segment(_CUT, cut)]]
        return [fit_line(shown, room, fill)]

    def _text(self, side: Side, line: int) -> Safe:
        return self.diff.text(side, line) if self.diff else EMPTY

    def _break(self, text: str, room: int) -> list[str]:
        return wrap(text, room) if text else [""]

    def _changed_words(self, side: Side, line: int) -> Sequence[tuple[int, int]]:
        """What differs from the line's partner on the other side."""
        assert self.diff
        span = _span_of(self.diff, side, line)
        partners = self.partners.get(span)
        if partners is None:
            partners = self.partners[span] = _align(self.diff, span)
        partner = partners.get((side, line))
        if partner is None:
            return ()
        old, new = (line, partner) if side == "old" else (partner, line)
        olds, news = emphasis(self._text("old", old), self._text("new", new))
        return olds if side == "old" else news

    # What is said between

    def _words(self, words: Words, mark: Mark) -> Strip:
        shades, para = self.shades, words.para
        lead = shades.style(_ROLES[para.lead_role], "plain", is_cursor=mark.is_cursor)
        is_strong = para.role in ("strong", "accent", "warning", "bad")
        style = shades.style(
            _ROLES[para.role], "plain", is_cursor=mark.is_cursor, is_bold=is_strong
        )
        line = [*self._mark(mark, 0), Segment(words.lead, lead), Segment(words.text, style)]
        return Strip(fit_line(line, self.width, style), self.width)

    def _gap(self, gap: Row | Pair, mark: Mark) -> Strip:
        shades = self.shades
        style = shades.style("text-muted", "panel", is_cursor=mark.is_cursor)
        strong = shades.style("text-accent", "panel", is_cursor=mark.is_cursor)
        line = [*self._mark(mark, 0), Segment("  ⋯ ", strong), Segment(tell_gap(gap), style)]
        if heading := self._heading(gap):
            line += [Segment("   ", style), Segment(heading, style)]
        hint = "↵ shows more " if mark.is_cursor else ""
        line = fit_line(line, self.width - len(hint), style)
        return Strip([*line, Segment(hint, strong)], self.width)

    def _heading(self, gap: Row | Pair) -> str:
        """The line above what follows the gap that says where one is: a function's head."""
        if self.diff is None or gap.new is None:
            return ""
        end = gap.new + gap.hidden  # the line below the gap
        if end > len(self.diff.new):
            return ""
        for line in range(end, max(0, end - _HEADING_LINES), -1):
            if _HEADING.match(self.diff.new[line - 1][:1].decode("latin-1")):
                return "" if line == end else self.diff.text("new", line)
        return ""


def _digits(old: int, new: int) -> int:
    return max(3, len(str(max(old, new))))


def _span_of(diff: FileDiff, side: Side, line: int) -> Span | None:
    """The block of changes that a changed line is in."""
    low, high = 0, len(diff.spans)
    while low < high:
        middle = (low + high) // 2
        span = diff.spans[middle]
        if (span.old if side == "old" else span.new) < line:
            low = middle + 1
        else:
            high = middle
    return diff.spans[low - 1] if low else None


def _align(diff: FileDiff, span: Span | None) -> Partners:
    """For each line of a block of changes the one that it is compared with, on the other side."""
    if span is None or not 0 < span.removed <= _PARTNERS_AT_MOST >= span.added > 0:
        return {}
    partners: Partners = {}
    for pair in side_by_side(replace(diff, spans=(span,)), 0):
        if pair.kind == "changed" and pair.old and pair.new:
            partners["old", pair.old] = pair.new
            partners["new", pair.new] = pair.old
    return partners
