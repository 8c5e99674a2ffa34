"""A list with a cursor, one line a row, of which only the visible ones are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Generic, TypeVar

from rich.segment import Segment
from textual import events
from textual.binding import BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from swarm_tui.text import EMPTY, Safe
from swarm_tui.ui.bar import Inked
from swarm_tui.ui.ink import Ink, Line, Role, draw, fit_line, ink_of
from swarm_tui.ui.keys import quiet
from swarm_tui.ui.pen import CURSOR

Row = TypeVar("Row")


class Rows(Inked, ScrollView, Generic[Row], can_focus=True):
    """Subclasses take in the rows, say where the cursor is then, and draw one."""

    BINDINGS: ClassVar[list[BindingType]] = [
        quiet("up,k", "move(-1)"),
        quiet("down,j", "move(1)"),
        quiet("pageup,ctrl+u", "page(-1)"),
        quiet("pagedown,ctrl+d", "page(1)"),
        quiet("home", "end(0)"),
        quiet("end", "end(1)"),
    ]
    DEFAULT_CSS = """
    Rows { height: 1fr; overflow-x: hidden; overflow-y: scroll; scrollbar-size-vertical: 1; }
    """
    NOTE: ClassVar[Role] = "muted"
    """How the note is written."""

    class Moved(Message):
        """Another row is under the cursor, or it changed."""

    def __init__(self, *, id: str, note: Safe = EMPTY) -> None:
        super().__init__(id=id)
        self._rows: Sequence[Row] = ()
        self._cursor = 0
        self._note = note
        """What stands there where there are no rows."""

    @property
    def count(self) -> int:
        return len(self._rows)

    @property
    def current(self) -> Row | None:
        return self._rows[self._cursor] if self._rows else None

    def go(self, line: int) -> None:
        """Put the cursor there, or as near as there are rows."""
        was, self._cursor = self._cursor, max(0, min(line, len(self._rows) - 1))
        self._scroll_to_cursor()
        top = self.scroll_offset.y
        self.refresh(*(Region(0, row - top, self.size.width, 1) for row in (was, self._cursor)))
        self.post_message(self.Moved())

    def action_move(self, down: int) -> None:
        self.go(self._cursor + down)

    def action_page(self, direction: int) -> None:
        self.go(self._cursor + direction * max(1, self.size.height - 2))

    def action_end(self, last: int) -> None:
        self.go(len(self._rows) * last)

    def on_click(self, event: events.Click) -> None:
        self.go(event.y + self.scroll_offset.y)

    def draw_row(self, row: Row, ink: Ink, width: int) -> tuple[Line, Line]:
        """Its left and right parts, behind the cursor's mark."""
        raise NotImplementedError

    def render_line(self, y: int) -> Strip:
        place, width = y + self.scroll_offset.y, self.scrollable_content_region.width
        if place >= len(self._rows):
            text = f"  {self._note}" if place == 0 else ""
            note = Segment(text, getattr(self.ink, self.NOTE))
            return Strip(fit_line([note], width, self.ink.text), width)
        is_cursor = place == self._cursor
        ink = ink_of(self.app, "cursor") if is_cursor else self.ink
        mark = Segment(CURSOR if is_cursor else " ", ink.accent)
        left, right = self.draw_row(self._rows[place], ink, width)
        return draw(width, [mark, *left], right, fill=ink.text)

    def _resize(self) -> None:
        """There are as many rows to scroll over as there are now."""
        self.virtual_size = Size(self.size.width, len(self._rows))

    def _scroll_to_cursor(self) -> None:
        top, height = self.scroll_offset.y, self.size.height
        if self._cursor < top:
            self.scroll_to(y=self._cursor, animate=False)
        elif self._cursor >= top + height > 0:
            self.scroll_to(y=self._cursor - height + 1, animate=False)
