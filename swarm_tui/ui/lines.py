"""Many lines of text, followed or scrolled, searched and filtered; only the visible are drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal, NamedTuple

from rich.cells import cell_len
from rich.segment import Segment
from textual import events
from textual.binding import BindingType
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from swarm_tui.pattern import Pattern
from swarm_tui.text import EMPTY, Safe
from swarm_tui.ui.bar import Inked
from swarm_tui.ui.figures import wrap
from swarm_tui.ui.ink import Ink, Line, Role, fit_line
from swarm_tui.ui.keys import quiet
from swarm_tui.ui.pen import CURSOR

_INDENT: Final = "  "
"""Before the second and later pieces of a wrapped line, after the lead's width."""


@dataclass(slots=True, eq=False)
class Entry:
    """One line of text with a short lead (a time, a sign) of the same width everywhere."""

    lead: str
    text: Safe
    role: Role = "text"
    lead_role: Role = "faint"
    is_kept: bool = True
    """It passes the filter."""
    is_match: bool = False


class _Row(NamedTuple):
    entry: Entry
    piece: str
    start: int
    """Where the piece begins in the entry's text."""


class Lines(Inked, ScrollView, can_focus=True):
    """Lines are added at the end and dropped at the start; a wrapped line takes several rows."""

    BINDINGS: ClassVar[list[BindingType]] = [
        quiet("up,k", "scroll_by(-1)"),
        quiet("down,j", "scroll_by(1)"),
        quiet("pageup,ctrl+u", "scroll_page(-1)"),
        quiet("pagedown,ctrl+d", "scroll_page(1)"),
        quiet("home", "first"),
        quiet("end", "last"),
    ]
    DEFAULT_CSS = """
    Lines { height: 1fr; overflow-x: hidden; overflow-y: scroll; scrollbar-size-vertical: 1; }
    """

    class Changed(Message):
        """Following, place or matches changed."""

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, Lines.Changed)

    def __init__(self, *, has_cursor: bool = False, id: str | None = None) -> None:
        """`has_cursor`: one line is the current one, and the keys move that."""
        super().__init__(id=id)
        self.is_following = True
        self.pattern: Pattern | None = None
        self.filter: Pattern | None = None
        self.matches = 0
        """Shown entries that match the pattern."""
        self._has_cursor = has_cursor
        self._entries: list[Entry] = []
        self._rows: list[_Row] = []
        self._note: Safe = EMPTY
        self._tail: Safe = EMPTY
        self._found: Entry | None = None
        """The match, or the line under the cursor."""
        self._width = 0
        self._is_settling = False

    @property
    def count(self) -> int:
        """How many entries are kept."""
        return len(self._entries)

    @property
    def shown(self) -> list[Entry]:
        """The entries that pass the filter."""
        if self.filter is None:
            return self._entries
        return [entry for entry in self._entries if entry.is_kept]

    @property
    def current(self) -> Entry | None:
        """The line under the cursor."""
        if self._found is None and self._has_cursor and self._rows:
            return self._rows[-1].entry
        return self._found

    # Content

    def clear(self) -> None:
        self._entries, self._rows, self._found, self.matches = [], [], None, 0
        self._tail = EMPTY
        self._settle(None)

    def show_tail(self, text: Safe) -> None:
        """Show a line that has no end yet, below all others."""
        if text != self._tail:
            anchor = self._anchor()
            self._tail = text
            self._settle(anchor)

    def note(self, note: Safe) -> None:
        """What stands above the first line."""
        if note != self._note:
            anchor = self._anchor() if self.scroll_offset.y else None
            self._note = note
            self._settle(anchor)

    def add(self, entries: Sequence[Entry], *, keep: int) -> None:
        """Add at the end; keep the last `keep`."""
        anchor = self._anchor()
        fresh = self._judge(entries[-keep:] if keep else [])
        self._entries += fresh
        self._rows += self._break(fresh)
        self._drop(len(self._entries) - keep)
        self._settle(anchor)

    def splice(self, place: int, entries: Sequence[Entry]) -> None:
        """Put the first `place` entries anew: they give way to these."""
        anchor = self._anchor()
        rest = next((entry for entry in self._entries[place:] if entry.is_kept), None)
        row = self._row_of(rest) if rest else len(self._rows)
        assert row is not None
        for entry in self._entries[:place]:
            self.matches -= entry.is_match and entry.is_kept
            if entry is self._found:
                self._found = None
        fresh = self._judge(entries)
        self._entries[:place] = fresh
        self._rows[:row] = self._break(fresh)
        self._settle(anchor)

    def amend(self, place: int, entries: Sequence[Entry]) -> None:
        """Put the entries from `place` on anew: those that stand there already among others."""
        anchor = self._anchor()
        first = next((entry for entry in self._entries[place:] if entry.is_kept), None)
        row = self._row_of(first) if first else len(self._rows)
        for entry in self._entries[place:]:
            self.matches -= entry.is_match and entry.is_kept
        fresh = self._judge(entries)
        self._entries[place:] = fresh
        self._rows[row:] = self._break(fresh)
        self._settle(anchor)

    def _drop(self, count: int) -> None:
        """Drop so many of the oldest."""
        if count <= 0:
            return
        for entry in self._entries[:count]:
            self.matches -= entry.is_match and entry.is_kept
            if entry is self._found:
                self._found = None
        del self._entries[:count]
        first = next((entry for entry in self._entries if entry.is_kept), None)
        del self._rows[: len(self._rows) if first is None else self._row_of(first)]

    def _judge(self, entries: Sequence[Entry]) -> list[Entry]:
        """Find out which pass the filter and which match."""
        fresh = list(entries)
        texts = [entry.text for entry in fresh] if self.filter or self.pattern else []
        if self.filter:
            for entry, is_kept in zip(fresh, self.filter.among(texts), strict=True):
                entry.is_kept = is_kept
        if self.pattern:
            for entry, is_match in zip(fresh, self.pattern.among(texts), strict=True):
                entry.is_match = is_match
                self.matches += is_match and entry.is_kept
        return fresh

    def _judge_all(self) -> None:
        for entry in self._entries:
            entry.is_kept, entry.is_match = True, False
        self.matches = 0
        self._judge(self._entries)

    # Layout

    @property
    def _height(self) -> int:
        return len(self._rows) + bool(self._note) + bool(self._tail)

    def _anchor(self) -> tuple[list[_Row], int] | None:
        """What stands in the view, when that is to stay there, and at which height the first."""
        if self.is_following or not self._rows:
            return None
        top = max(0, self.scroll_offset.y - bool(self._note))
        return self._rows[top : top + max(1, self.size.height)], top + bool(self._note)

    def _settle(self, anchor: tuple[list[_Row], int] | None) -> None:
        """Take on the present height, with the same lines at the same place."""
        self._is_settling = True
        self.virtual_size = Size(self._width, self._height)
        if self.is_following:
            self.scroll_to(y=self._height, animate=False)
        elif anchor:
            seen, was = anchor
            for above, row in enumerate(seen):
                if row.entry.is_kept and (place := self._row_of(row.entry, row.start)) is not None:
                    moved = place + bool(self._note) - was - above
                    self.scroll_to(y=max(0, self.scroll_offset.y + moved), animate=False)
                    break
        self._is_settling = False
        self.refresh()
        self.post_message(self.Changed())

    def _row_of(self, entry: Entry, start: int = 0) -> int | None:
        """The row in which an entry's piece stands; the entry's first if it is broken otherwise."""
        first = None
        for place, row in enumerate(self._rows):
            if row.entry is entry:
                first = place if first is None else first
                if row.start >= start:
                    return place
            elif first is not None:
                break
        return first

    def lead_cells(self) -> int:
        """The width of what stands before each line; None: as the entry has it."""
        return cell_len(self._entries[0].lead) if self._entries else 0

    def lead(self, entry: Entry, ink: Ink) -> Line:
        """What stands before a line, of `lead_cells` cells."""
        return [Segment(entry.lead, getattr(ink, entry.lead_role))] if entry.lead else []

    def _break(self, entries: Iterable[Entry]) -> list[_Row]:
        rows: list[_Row] = []
        room = max(8, self._width - self.lead_cells())
        for entry in entries:
            if not entry.is_kept:
                continue
            text = entry.text
            if len(text) <= room and (text.isascii() or cell_len(text) <= room):
                rows.append(_Row(entry, text, 0))
                continue
            start = 0
            for piece in wrap(text, max(8, room - len(_INDENT))):
                rows.append(_Row(entry, piece, start))
                start += len(piece)
        return rows

    def lay_out(self) -> None:
        """Break all lines anew."""
        anchor = self._anchor()
        self._width = max(1, self.scrollable_content_region.width)
        self._rows = self._break(self._entries)
        self._settle(anchor)

    def on_resize(self) -> None:
        if self.scrollable_content_region.width != self._width:
            self.lay_out()
        elif self.is_following:
            self.scroll_to(y=self._height, animate=False)

    # Following and moving

    def follow(self, is_following: bool) -> None:
        self.is_following = is_following
        if is_following:
            self._found = None if self._has_cursor else self._found
            self.scroll_to(y=self._height, animate=False)
        self.refresh()
        self.post_message(self.Changed())

    @property
    def below(self) -> int:
        """Rows below the last visible one."""
        return max(0, self._height - self.scroll_offset.y - self.size.height)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if self._is_settling:
            return
        # The wheel and the scroll bar come this way too: going up stops following, and arriving
        # at the end takes it up again.
        if new_value < old_value and self.below:
            self.is_following = False
        elif new_value > old_value and not self.below:
            self.is_following = True
        self.post_message(self.Changed())

    def action_scroll_by(self, rows: int) -> None:
        if self._has_cursor:
            self._move(rows)
        else:
            self.scroll_to(y=self.scroll_offset.y + rows, animate=False)

    def action_scroll_page(self, direction: int) -> None:
        self.action_scroll_by(direction * max(1, self.size.height - 2))

    def action_first(self) -> None:
        if self._has_cursor and self._rows:
            self._found = self._rows[0].entry
        self.scroll_to(y=0, animate=False)
        self.refresh()

    def action_last(self) -> None:
        self.follow(True)

    def on_click(self, event: events.Click) -> None:
        row = event.y + self.scroll_offset.y - bool(self._note)
        if self._has_cursor and 0 <= row < len(self._rows):
            self._found = self._rows[row].entry
            self.is_following = False
            self.refresh()
            self.post_message(self.Changed())

    def _move(self, down: int) -> None:
        """Move the cursor by lines."""
        here, shown = self.current, self.shown
        if here is None:
            return
        place = shown.index(here) + down
        if place >= len(shown) - 1 and down > 0:
            self.follow(True)
            return
        self.is_following = False
        self._found = shown[max(0, place)]
        self.show_found()

    # Searching

    def search(self, pattern: Pattern | None) -> None:
        """Mark every occurrence, and go to the last one above the end of what is seen."""
        self.pattern = pattern
        self._found = None
        self._judge_all()
        if self.matches:
            self.find_next(-1)
        self.refresh()
        self.post_message(self.Changed())

    def keep_only(self, pattern: Pattern | None) -> None:
        """Show only the lines that match; None: all."""
        self.filter = pattern
        self._judge_all()
        if self._found and not self._found.is_kept:
            self._found = None
        self.lay_out()

    def find_next(self, direction: Literal[-1, 1]) -> bool:
        """Go to the next match (1: down); round the end. False when there is none."""
        if self.seek(direction, lambda entry: entry.is_match):
            return True
        ends = self.shown if direction > 0 else reversed(self.shown)
        self._found = next((entry for entry in ends if entry.is_match), None)
        if self._found is None:
            return False
        self.show_found()
        return True

    def seek(self, direction: Literal[-1, 1], test: Callable[[Entry], bool]) -> bool:
        """Go to the next line of a kind, from here; False when there is none."""
        shown = self.shown
        if self._found is not None:
            here = shown.index(self._found)
        else:
            bottom = self.scroll_offset.y + self.size.height - bool(self._note)
            seen = self._rows[:bottom]
            here = shown.index(seen[-1].entry) + 1 if seen else 0
        places = range(here + 1, len(shown)) if direction > 0 else range(here - 1, -1, -1)
        found = next((place for place in places if test(shown[place])), None)
        if found is None:
            return False
        self._found = shown[found]
        self.is_following = False
        self.show_found()
        return True

    def show_found(self) -> None:
        """See that the line under the cursor is on the screen."""
        row = self._row_of(self._found) if self._found else None
        if row is None:
            return
        row += bool(self._note)
        top, height = self.scroll_offset.y, self.size.height
        if not top <= row < top + height:
            self.is_following = False
            is_near = self._has_cursor and top - 2 <= row <= top + height + 1
            y = (row if row < top else row - height + 1) if is_near else row - height // 2
            self.scroll_to(y=max(0, y), animate=False)
        self.refresh()
        self.post_message(self.Changed())

    # Drawing

    def render_line(self, y: int) -> Strip:
        ink, width = self.ink, self.scrollable_content_region.width
        row_number = y + self.scroll_offset.y
        if self._note:
            if row_number == 0:
                return Strip(fit_line([Segment(self._note, ink.faint)], width, ink.text), width)
            row_number -= 1
        if row_number >= len(self._rows):
            tail = self._tail if row_number == len(self._rows) else ""
            return Strip(fit_line([Segment(f" {tail}", ink.text)], width, ink.text), width)
        row = self._rows[row_number]
        entry = row.entry
        if row.start:
            line: Line = [Segment(" " * self.lead_cells() + _INDENT, ink.text)]
        else:
            line = self.lead(entry, ink)
            if entry is (self.current if self._has_cursor else self._found) and line:
                line = self._mark(line, ink)
        line += self._pieces(row, ink)
        return Strip(fit_line(line, width, ink.text), width)

    def _mark(self, line: Line, ink: Ink) -> Line:
        """Make the lead that of the line under the cursor."""
        if not self._has_cursor:
            return [Segment(line[0].text, ink.accent), *line[1:]]
        first = line[0]
        return [Segment(CURSOR, ink.accent), Segment(first.text[1:], first.style), *line[1:]]

    def _pieces(self, row: _Row, ink: Ink) -> Line:
        style = getattr(ink, row.entry.role)
        if not (self.pattern and row.entry.is_match):
            return [Segment(row.piece, style)]
        line: Line = []
        at, end = row.start, row.start + len(row.piece)
        text = row.entry.text
        for first, last in self.pattern.spans(text):
            first, last = max(first, at), min(last, end)
            if first < last:
                line += [Segment(text[at:first], style), Segment(text[first:last], ink.match)]
                at = last
        return [segment for segment in [*line, Segment(text[at:end], style)] if segment.text]
