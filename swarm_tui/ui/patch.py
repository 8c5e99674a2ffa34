"""The diff of one file: a scrolled view with a cursor, of which only the visible lines are made."""

from __future__ import annotations

from typing import ClassVar, Final, Literal

from textual import events
from textual.binding import BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from swarm_tui.handoff import Comment, Side
from swarm_tui.review.diff import Pair, Row
from swarm_tui.ui.bar import Inked
from swarm_tui.ui.ink import fit_line
from swarm_tui.ui.keys import quiet
from swarm_tui.ui.page import CONTEXT, Ladder, Memory, Page, Target
from swarm_tui.ui.paint import Coat, Lexer
from swarm_tui.ui.pen import Mark, Pen
from swarm_tui.ui.search import Matches, Place
from swarm_tui.ui.shade import shades_of
from swarm_tui.ui.sheet import Item, Lines, Para, Sheet, Words, no_rows, open_ends, rows_of

SPLIT_CELLS: Final = 150
"""So wide a screen shows both sides beside each other, unless it is told not to."""
_CONTEXTS: Final = (0, CONTEXT, 8, 20, 60, 200)
_MARGIN: Final = 2
"""Lines that are kept in sight above and below the cursor."""
_STEP: Final = 8
"""Cells that long lines are moved by."""


class Patch(Inked, ScrollView, can_focus=True):
    """`show` gives it a page; the screen reads `target`, `comment` and `item`."""

    BINDINGS: ClassVar[list[BindingType]] = [
        quiet("up", "move(-1)"),
        quiet("down", "move(1)"),
        quiet("shift+up", "move(-1,True)"),
        quiet("shift+down", "move(1,True)"),
        quiet("k", "hunk(-1)"),
        quiet("j", "hunk(1)"),
        quiet("pageup,ctrl+u", "page(-1)"),
        quiet("pagedown,ctrl+d", "page(1)"),
        quiet("home,g", "end(0)"),
        quiet("end,G", "end(1)"),
        quiet("left,h", "shift(-1)"),
        quiet("right,l", "shift(1)"),
    ]
    DEFAULT_CSS = """
    Patch { height: 1fr; overflow-x: hidden; overflow-y: scroll; scrollbar-size-vertical: 1; }
    """

    class Moved(Message):
        """The cursor is elsewhere, or what is shown changed."""

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, Patch.Moved)

    class Left(Message):
        """The next block of changes is in the next (1) or the previous (-1) file."""

        def __init__(self, direction: Literal[-1, 1]) -> None:
            super().__init__()
            self.direction = direction

    class Pressed(Message):
        """Something that we said was chosen."""

        def __init__(self, para: Para) -> None:
            super().__init__()
            self.para = para

    def __init__(self) -> None:
        super().__init__(id="patch")
        self.page = Page("", ())
        self.wraps = False
        self.wants_split: bool | None = None
        """None: by the width of the screen."""
        self.needle = ""
        self.pivot: int | None = None
        """Where the selection of lines begins, if there is one."""
        self._lexer = Lexer()
        self._coat: Coat | None = None
        self._memories: dict[str, Memory] = {}
        self._sheet = Sheet((), no_rows(), (), (), 80)
        self._pen: Pen | None = None
        self._variables: dict[str, str] = {}
        """Those of the theme that the pen draws with."""
        self._cursor = 0
        self._side: Side = "new"
        self._shift = 0
        self._width = 0
        self._ladder = Ladder(0)
        self._drawn: dict[int, list[Strip]] = {}
        self._matches: Matches | None = None

    async def on_unmount(self) -> None:
        if self._coat:
            self._coat.close()
        await self._lexer.close()

    # What is shown

    def show(self, page: Page) -> None:
        """Show another page, or the present one with other words."""
        if page.key == self.page.key and page.diff is self.page.diff:
            self.page = page
            self._relay()
            return
        self._remember()
        if self._coat:
            self._coat.close()
        self.page = page
        self.pivot, self._shift, self._matches = None, 0, None
        self._coat = Coat(page.diff, self._lexer, self._forget) if page.diff else None
        self._lay()
        memory = self._memory
        if memory.cursor is None:
            first = self._sheet.next_hunk(-1, 1) if page.diff else 0
            is_near = first is not None and first < max(4, self.size.height - _MARGIN)
            memory.cursor = first if first is not None and is_near and not page.head else 0
        self._cursor = min(memory.cursor, max(0, len(self._sheet) - 1))
        self.scroll_to(y=memory.top, animate=False)
        self._tell()

    @property
    def _memory(self) -> Memory:
        return self._memories.setdefault(self.page.key, Memory())

    def _remember(self) -> None:
        if self.page.key:
            self._memory.cursor, self._memory.top = self._cursor, self.scroll_offset.y

    @property
    def is_split(self) -> bool:
        """Whether both sides are shown beside each other."""
        if not self.page.has_sides:
            return False
        if self.wants_split is None:
            return self.app.size.width >= SPLIT_CELLS
        return self.wants_split

    def _lay(self) -> None:
        page, memory = self.page, self._memory
        self._width = max(20, self.scrollable_content_region.width)
        rows = (
            rows_of(page.diff, is_split=self.is_split, context=memory.context)
            if page.diff
            else no_rows()
        )
        comments = page.comments
        self._sheet = Sheet(page.head, rows, comments, memory.opened, self._width - 1)
        self._pen = None
        self._measure()

    def _measure(self) -> None:
        self._drawn.clear()
        count = len(self._sheet)
        heights = map(self._sharp.height, (self._sheet[at] for at in range(count)))
        self._ladder = Ladder(count, heights if self.wraps else None)
        self.virtual_size = Size(self._width, self._ladder.height)
        self.refresh()

    def _relay(self) -> None:
        """Lay out anew, with the cursor on its line, and that where it was on the screen."""
        place, item = self.place(), self.item()
        offset = self._ladder.top(self._cursor) - self.scroll_offset.y
        self.pivot = None
        self._lay()
        found = self._sheet.find(*place) if place and not isinstance(item, Words) else None
        self._cursor = found if found is not None else self._cursor
        self._cursor = max(0, min(self._cursor, len(self._sheet) - 1))
        self.scroll_to(y=max(0, self._ladder.top(self._cursor) - offset), animate=False)
        self._reveal()
        self._tell()

    @property
    def _sharp(self) -> Pen:
        """The pen, made anew after anything that it draws by has changed."""
        variables = self.app.theme_variables  # another object after each change of theme
        if self._pen is None or self._variables is not variables:
            self._variables = variables
            self._drawn.clear()
            flags = (para.flag for para in self.page.head)
            self._pen = Pen(
                shades_of(self.app),
                self._width,
                self.page.diff,
                self._coat,
                frozenset(flag.line for flag in flags if flag and flag.line),
                self.needle,
                self._shift,
                self.is_split,
                self.wraps,
            )
        return self._pen

    def _forget(self) -> None:
        """Draw everything again: colours came in, say."""
        self._pen = None
        self._drawn.clear()
        self.refresh()

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._pen = None

    def on_resize(self) -> None:
        if self.scrollable_content_region.width != self._width:
            self._relay()

    def render_line(self, y: int) -> Strip:
        place = y + self.scroll_offset.y
        index, line = self._ladder.at(place)
        if index is None:
            plain = self.ink.text
            return Strip(fit_line([], self._width, plain), self._width)
        pen = self._sharp
        strips = self._drawn.get(index)
        if strips is None:
            if len(self._drawn) > 1000:
                self._drawn.clear()
            strips = self._drawn[index] = pen.draw(self._sheet[index], self._mark(index))
        return strips[min(line, len(strips) - 1)]

    def _mark(self, index: int) -> Mark:
        low, high = self._selected()
        is_selected = self.pivot is not None and low <= index <= high
        return Mark(index == self._cursor and self.has_focus, is_selected, self._side)

    def on_focus(self) -> None:
        self._redraw(self._cursor, self._cursor)

    on_blur = on_focus

    def _redraw(self, first: int, last: int) -> None:
        for index in range(first, last + 1):
            self._drawn.pop(index, None)
        top = self._ladder.top(first) - self.scroll_offset.y
        end = self._ladder.top(last) - self.scroll_offset.y + self._ladder.height_of(last)
        self.refresh(Region(0, top, self._width, end - top))

    # What the screen asks

    @property
    def is_settled(self) -> bool:
        """All colours of what is seen are there."""
        return self._coat is None or self._coat.is_settled

    def item(self) -> Item | None:
        """What the cursor stands on."""
        return self._sheet[self._cursor] if self._cursor < len(self._sheet) else None

    def comment(self) -> Comment | None:
        """The comment that the cursor stands on, or that is about its line."""
        item = self.item()
        if isinstance(item, Words):
            return item.para.comment
        target = self.target()
        if target is None or self.pivot is not None:
            return None
        return next(
            (
                comment
                for comment in self.page.comments
                if comment.side == target.side and comment.last == target.last
            ),
            None,
        )

    def place(self) -> Place | None:
        """The line that the cursor stands on, or the last one above it."""
        for index in range(min(self._cursor, len(self._sheet) - 1), -1, -1):
            item = self._sheet[index]
            if not isinstance(item, Words):
                return self._place_of(item)
        return None

    def _place_of(self, row: Row | Pair) -> Place:
        if row.new is None or (row.old is not None and isinstance(row, Pair) and self._is_old):
            return "old", row.old or 1
        return "new", row.new

    @property
    def _is_old(self) -> bool:
        return self._side == "old"

    def target(self) -> Target | None:
        """What a comment would be about: the selected lines, or the one under the cursor."""
        item = self.item()
        if item is None or isinstance(item, Words) or item.kind == "gap" or not self.page.diff:
            return None
        side, line = self._place_of(item)
        low, high = self._selected()
        items = [self._sheet[index] for index in range(low, high + 1)]
        rows = [row for row in items if not isinstance(row, Words) and row.kind != "gap"]
        lines = [row.old if side == "old" else row.new for row in rows]
        known = sorted(number for number in lines if number) or [line]
        return Target(side, known[0], known[-1], self.page.diff.text(side, known[0]))

    def where(self) -> tuple[int, int, int]:
        """Which block of changes the cursor is in or below, of how many; percent of the page."""
        number, count = self._sheet.hunk_number(self._cursor)
        return number, count, 100 * (self._cursor + 1) // max(1, len(self._sheet))

    # How it is shown

    def choose_split(self) -> bool:
        """Turn to the other view; False where there is only one."""
        if not self.page.has_sides:
            return False
        self.wants_split = not self.is_split
        self._relay()
        return True

    def choose_wrap(self) -> None:
        self.wraps = not self.wraps
        self._shift = 0
        self._relay()

    def choose_more(self, direction: Literal[-1, 1]) -> None:
        """More (1) or fewer unchanged lines around each block of changes."""
        now = self._memory.context
        if direction > 0:
            wanted = next((each for each in _CONTEXTS if now is not None and each > now), None)
        else:
            wanted = next((each for each in _CONTEXTS[::-1] if now is None or each < now), 0)
        self._choose_context(wanted)

    def choose_whole(self) -> None:
        """The whole file, or its changes again."""
        self._choose_context(CONTEXT if self._memory.context is None else None)

    def _choose_context(self, lines: int | None) -> None:
        self._memory.context = lines
        self._memory.opened = ()
        self._relay()

    def choose_side(self) -> Side:
        """Let the cursor be on the other side, where both are beside each other."""
        self._side = "old" if self._side == "new" else "new"
        self._redraw(self._cursor, self._cursor)
        self._tell()
        return self._side

    def press(self) -> None:
        """Do what the line under the cursor is there for."""
        item = self.item()
        if isinstance(item, Words):
            self.post_message(self.Pressed(item.para))
        elif item is not None and item.kind == "gap":
            self._open(*open_ends(item))

    def _open(self, *lines: Lines) -> None:
        self._memory.opened += lines
        self._relay()

    def find(self, side: Side, line: int) -> bool:
        """Put the cursor on a line, which is shown if it was not; False: there is none."""
        index = self._sheet.find(side, line)
        if index is None:
            return False
        item = self._sheet[index]
        if not isinstance(item, Words) and item.kind == "gap":
            new = line if side == "new" or not item.old else line - item.old + (item.new or 1)
            self._memory.opened += ((max(1, new - CONTEXT), new + CONTEXT + 1),)
            self._lay()
            index = self._sheet.find(side, line) or index
        self._side = side
        self._go(index, is_centred=True)
        return True

    # Searching

    def search(self, needle: str) -> int:
        """Mark every match; how many lines hold one."""
        self.needle = needle.casefold()
        self._matches = None
        self._forget()
        return len(self._found.places) if self.page.diff else 0

    @property
    def _found(self) -> Matches:
        assert self.page.diff
        if self._matches is None:
            self._matches = Matches(self.page.diff, self.needle)
        return self._matches

    def find_next(self, direction: Literal[-1, 1], *, is_fresh: bool = False) -> bool:
        """To the next match of this file; `is_fresh`: the first one from its beginning or end."""
        if not self.page.diff or not self.needle:
            return False
        place = self._found.next(None if is_fresh else self.place(), direction)
        return place is not None and self.find(*place)

    # Moving

    def _selected(self) -> tuple[int, int]:
        pivot = self._cursor if self.pivot is None else self.pivot
        return min(pivot, self._cursor), max(pivot, self._cursor)

    def select(self) -> None:
        """Begin to select lines, or select none."""
        low, high = self._selected()
        self.pivot = self._cursor if self.pivot is None else None
        self._redraw(low, high)
        self._tell()

    def action_move(self, down: int, is_selecting: bool = False) -> None:
        top, height = self.scroll_offset.y, self.size.height
        at = self._ladder.top(self._cursor)
        if not top <= at < top + height and not is_selecting:
            # The wheel has left the cursor behind: it goes on from what is seen.
            index, _ = self._ladder.at(top if at < top else top + height - 1)
            self._go(self._cursor if index is None else index)
            return
        if is_selecting and self.pivot is None:
            self.pivot = self._cursor
        self._go(self._cursor + down)

    def action_page(self, direction: int) -> None:
        rows = max(1, self.size.height - _MARGIN)
        if self.wraps:
            index, _ = self._ladder.at(self._ladder.top(self._cursor) + direction * rows)
            self._go((len(self._sheet) - 1) * (direction > 0) if index is None else index)
        else:
            self._go(self._cursor + direction * rows)

    def action_end(self, last: int) -> None:
        self._go((len(self._sheet) - 1) * last)

    def action_hunk(self, direction: Literal[-1, 1]) -> None:
        index = self._sheet.next_hunk(self._cursor, direction)
        if index is None:
            self.post_message(self.Left(direction))
        else:
            self._go(index, is_hunk=True)

    def go_to_hunk(self, direction: Literal[-1, 1]) -> None:
        """To the first (1) or the last (-1) block of changes."""
        start = -1 if direction > 0 else len(self._sheet)
        index = self._sheet.next_hunk(min(start, len(self._sheet)), direction)
        if index is not None:
            self._go(index, is_hunk=True)

    def action_shift(self, direction: int) -> None:
        if not self.wraps:
            self._shift = max(0, self._shift + direction * _STEP)
            self._forget()

    def _go(self, index: int, *, is_centred: bool = False, is_hunk: bool = False) -> None:
        index = max(0, min(index, len(self._sheet) - 1))
        was, self._cursor = self._cursor, index
        if self.pivot is not None:
            self._redraw(min(was, index), max(was, index))
        else:
            self._redraw(was, was)
            self._redraw(index, index)
        self._reveal(is_centred=is_centred, is_hunk=is_hunk)
        self._tell()

    def _reveal(self, *, is_centred: bool = False, is_hunk: bool = False) -> None:
        """Scroll so that the cursor is seen, as little as need be."""
        height = self.size.height
        if height <= 0:
            return
        at, top = self._ladder.top(self._cursor), self.scroll_offset.y
        end = at + self._ladder.height_of(self._cursor)
        below = height // 3 if is_hunk else _MARGIN  # one wants to see what begins here
        if at - _MARGIN >= top and end + below <= top + height:
            return
        if is_hunk:
            at -= height // 4
        elif is_centred:
            at -= height // 2
        elif at - _MARGIN < top:
            at -= _MARGIN
        else:
            at = end + _MARGIN - height
        self.scroll_to(y=max(0, at), animate=False)

    def _tell(self) -> None:
        self.post_message(self.Moved())

    def on_click(self, event: events.Click) -> None:
        index, _ = self._ladder.at(event.y + self.scroll_offset.y)
        if index is None:
            return
        self.pivot = self.pivot if event.shift else None
        if event.shift and self.pivot is None:
            self.pivot = self._cursor
        self._side = self._sharp.side_at(event.x)
        self._forget()
        self._go(index)
        item = self._sheet[index]
        if isinstance(item, Words) or item.kind == "gap":
            self.press()
