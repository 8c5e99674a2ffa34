"""Many lines of text, followed or scrolled and searched; only the visible ones are drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Final, Literal, NamedTuple

from rich.cells import cell_len
from rich.segment import Segment
from textual.binding import BindingType
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from swarm_tui.text import EMPTY, Safe
from swarm_tui.ui.bar import Inked
from swarm_tui.ui.figures import wrap
from swarm_tui.ui.ink import Ink, Line, Role, fit_line
from swarm_tui.ui.keys import quiet

_INDENT: Final = "  "
"""Before the second and later pieces of a wrapped line, after the lead's width."""


class Entry(NamedTuple):
    """One line of text with a short lead (a time, a sign) of the same width everywhere."""

    lead: str
    text: Safe
    role: Role = "text"
    lead_role: Role = "faint"


class _Row(NamedTuple):
    entry: Entry
    number: int
    """Of the entry, counted from the very first one."""
    piece: str
    is_first: bool


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

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.is_following = True
        self.needle = ""
        self.matches = 0
        """Entries in which the needle occurs."""
        self._first = 0
        """Number of the first entry that is kept."""
        self._entries: list[Entry] = []
        self._rows: list[_Row] = []
        self._note: Safe = EMPTY
        self._tail: Safe = EMPTY
        self._found: int | None = None
        self._width = 0

    @property
    def count(self) -> int:
        """How many entries are kept."""
        return len(self._entries)

    # Content

    def clear(self) -> None:
        self._first, self._entries, self._found = 0, [], None
        self._tail = EMPTY
        self._lay_out()

    def show_tail(self, text: Safe) -> None:
        """Show a line that has no end yet, below all others."""
        if text != self._tail:
            self._tail = text
            self._fit_height()

    def add(self, entries: Sequence[Entry], *, keep: int, note: Safe = EMPTY) -> None:
        """Add at the end; keep the last `keep`. `note` stands above the first line."""
        dropped = max(0, len(self._entries) + len(entries) - keep)
        fresh = entries[-keep:] if keep else []
        number = self._first + len(self._entries) + len(entries) - len(fresh)
        del self._entries[:dropped]
        self._entries += fresh
        self._first += dropped
        had_note, self._note = bool(self._note), note
        gone = next(
            (row for row, line in enumerate(self._rows) if line.number >= self._first),
            len(self._rows),
        )
        del self._rows[:gone]
        rows = list(self._break(fresh, number))
        self._rows += rows
        if self.needle:
            self.matches = sum(self._is_match(entry) for entry in self._entries)
        moved = gone - (bool(note) - had_note)
        if moved and not self.is_following:
            self.scroll_to(y=max(0, self.scroll_offset.y - moved), animate=False)
        self._fit_height()
        self.post_message(self.Changed())

    @property
    def _height(self) -> int:
        return len(self._rows) + bool(self._note) + bool(self._tail)

    def _fit_height(self) -> None:
        self.virtual_size = Size(self._width, self._height)
        if self.is_following:
            self.scroll_to(y=self._height, animate=False)
        self.refresh()

    def _break(self, entries: Iterable[Entry], number: int) -> Iterable[_Row]:
        for entry in entries:
            room = self._width - cell_len(entry.lead)
            pieces = wrap(entry.text, max(8, room - len(_INDENT)))
            if len(pieces) == 1 or cell_len(entry.text) <= room:
                pieces = [entry.text]
            for place, piece in enumerate(pieces):
                yield _Row(entry, number, piece, place == 0)
            number += 1

    def _lay_out(self) -> None:
        self._width = max(1, self.scrollable_content_region.width)
        self._rows = list(self._break(self._entries, self._first))
        self._fit_height()

    def on_resize(self) -> None:
        if self.scrollable_content_region.width != self._width:
            self._lay_out()
        elif self.is_following:
            self.scroll_to(y=self._height, animate=False)

    # Following

    def follow(self, is_following: bool) -> None:
        self.is_following = is_following
        if is_following:
            self.scroll_to(y=self._height, animate=False)
        self.post_message(self.Changed())

    @property
    def below(self) -> int:
        """Rows below the last visible one."""
        return max(0, self._height - self.scroll_offset.y - self.size.height)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        # The wheel and the scroll bar come this way too: going up stops following, and arriving
        # at the end takes it up again.
        if new_value < old_value and self.below:
            self.is_following = False
        elif new_value > old_value and not self.below:
            self.is_following = True
        self.post_message(self.Changed())

    def action_scroll_by(self, rows: int) -> None:
        self.scroll_to(y=self.scroll_offset.y + rows, animate=False)

    def action_scroll_page(self, direction: int) -> None:
        self.action_scroll_by(direction * max(1, self.size.height - 2))

    def action_first(self) -> None:
        self.scroll_to(y=0, animate=False)

    def action_last(self) -> None:
        self.follow(True)

    # Searching

    def search(self, needle: str) -> None:
        """Mark every occurrence, and go to the last one above the end of what is seen."""
        self.needle = needle.casefold()
        self._found = None
        self.matches = sum(self._is_match(entry) for entry in self._entries) if needle else 0
        if self.matches:
            self.find_next(-1)
        self.refresh()
        self.post_message(self.Changed())

    def find_next(self, direction: Literal[-1, 1]) -> bool:
        """Go to the next match (1: down); round the end. False when there is none."""
        matching = [
            self._first + place
            for place, entry in enumerate(self._entries)
            if self._is_match(entry)
        ]
        if not matching:
            return False
        here = self._found
        if here is None:
            bottom = self.scroll_offset.y + self.size.height - bool(self._note)
            here = self._rows[min(bottom, len(self._rows)) - 1].number + 1 if self._rows else 0
        if direction > 0:
            self._found = next((n for n in matching if n > here), matching[0])
        else:
            self._found = next((n for n in reversed(matching) if n < here), matching[-1])
        self._show_found()
        return True

    def _is_match(self, entry: Entry) -> bool:
        return bool(self.needle) and self.needle in entry.text.casefold()

    def _show_found(self) -> None:
        row = next(place for place, row in enumerate(self._rows) if row.number == self._found)
        row += bool(self._note)
        top, height = self.scroll_offset.y, self.size.height
        if not top <= row < top + height:
            self.is_following = False
            self.scroll_to(y=max(0, row - height // 2), animate=False)
        self.refresh()

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
        lead = row.entry.lead if row.is_first else " " * cell_len(row.entry.lead)
        style = getattr(ink, row.entry.role)
        line: Line = [Segment(lead, getattr(ink, row.entry.lead_role))] if lead else []
        if not row.is_first:
            line.append(Segment(_INDENT, ink.text))
        line += self._marked(row, ink) if self.needle else [Segment(row.piece, style)]
        is_found = row.number == self._found and row.is_first
        if is_found and line:
            line[0] = Segment(line[0].text, ink.accent)
        return Strip(fit_line(line, width, ink.text), width)

    def _marked(self, row: _Row, ink: Ink) -> Line:
        style = getattr(ink, row.entry.role)
        folded = row.piece.casefold()
        if len(folded) != len(row.piece):  # places in it are not places in the text
            return [Segment(row.piece, ink.match if self.needle in folded else style)]
        line: Line = []
        at = 0
        while (found := folded.find(self.needle, at)) >= 0:
            end = found + len(self.needle)
            line += [Segment(row.piece[at:found], style), Segment(row.piece[found:end], ink.match)]
            at = end
        return [segment for segment in [*line, Segment(row.piece[at:], style)] if segment.text]
