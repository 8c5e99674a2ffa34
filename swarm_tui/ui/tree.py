"""The files of a review as a tree; only the visible lines are drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final, NamedTuple

from rich.cells import cell_len
from rich.segment import Segment
from textual import events
from textual.binding import BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from swarm_tui.handoff import Change
from swarm_tui.text import Safe, literal, sanitize
from swarm_tui.ui.bar import Inked
from swarm_tui.ui.figures import fit
from swarm_tui.ui.ink import Ink, Line, fit_line, ink_of
from swarm_tui.ui.keys import quiet
from swarm_tui.ui.pen import CURSOR

STATUS: Final[Mapping[str, str]] = {
    "new": "A",
    "deleted": "D",
    "renamed": "R",
    "retyped": "T",
    "mode": "X",
    "modified": "M",
}
"""One letter each, as git has them; X is only a file's mode."""
ABOUT: Final = literal("about this review")
_DEPTH_AT_MOST: Final = 40
"""Folders of a path that become folders of the tree; what is below is part of the name."""
_INDENT_AT_MOST: Final = 8


@dataclass(frozen=True, slots=True)
class Signs:
    """What is shown of a file beside its name."""

    is_viewed: bool = False
    flags: int = 0
    comments: int = 0


class _Node(NamedTuple):
    depth: int
    name: Safe
    change: int | None
    """None: a folder."""


class FileTree(Inked, ScrollView, can_focus=True):
    """The first line is about the review as a whole; `changes` are in the order of the tree."""

    BINDINGS: ClassVar[list[BindingType]] = [
        quiet("up,k", "move(-1)"),
        quiet("down,j", "move(1)"),
        quiet("pageup,ctrl+u", "page(-1)"),
        quiet("pagedown,ctrl+d", "page(1)"),
        quiet("home,g", "end(0)"),
        quiet("end,G", "end(1)"),
    ]
    DEFAULT_CSS = """
    FileTree { height: 1fr; overflow-x: hidden; overflow-y: scroll; scrollbar-size-vertical: 1; }
    """

    class Chosen(Message):
        """A file was chosen by enter or a click; -1: what is about the review."""

        def __init__(self, index: int) -> None:
            super().__init__()
            self.index = index

    def __init__(self) -> None:
        super().__init__(id="tree")
        self.changes: Sequence[Change] = ()
        self._signs: Sequence[Signs] = ()
        self._about = Signs()
        self._rows: list[_Node] = []
        self._lines: list[int] = []
        """The line of each change."""
        self._open = -1
        """The change that is shown beside."""
        self._cursor = 0

    def show(self, changes: Iterable[Change]) -> None:
        """Other files; nothing is known of them yet."""
        self.changes = order(changes)
        self._rows = list(_list_nodes(self.changes))
        self._lines = [0] * len(self.changes)
        for line, node in enumerate(self._rows):
            if node.change is not None:
                self._lines[node.change] = line + 1
        self._signs = [Signs()] * len(self.changes)
        self.virtual_size = Size(self.size.width, len(self._rows) + 1)
        self._cursor = 0
        self.refresh()

    def show_signs(self, about: Signs, signs: Sequence[Signs]) -> None:
        """`signs` are in the order of `changes`."""
        if (about, signs) != (self._about, self._signs):
            self._about, self._signs = about, signs
            self.refresh()

    def show_open(self, index: int) -> None:
        """Which change is shown beside; -1: what is about the review."""
        was, self._open = self._line_of(self._open), index
        self._redraw(was)
        self._go(self._line_of(index))

    def choose(self) -> None:
        """Open what the cursor is on."""
        node = self._rows[self._cursor - 1] if self._cursor else None
        if node is None:
            self.post_message(self.Chosen(-1))
        elif node.change is not None:
            self.post_message(self.Chosen(node.change))

    # Moving

    def action_move(self, down: int) -> None:
        """To the next line that can be opened."""
        line = self._cursor + down
        while 0 < line <= len(self._rows) and self._rows[line - 1].change is None:
            line += down
        if 0 <= line <= len(self._rows):
            self._go(line)

    def action_page(self, direction: int) -> None:
        line = self._cursor + direction * max(1, self.size.height - 2)
        self._go_near(max(0, min(line, len(self._rows))))

    def action_end(self, last: int) -> None:
        self._go_near(len(self._rows) * last)

    def _go_near(self, line: int) -> None:
        while 0 < line < len(self._rows) and self._rows[line - 1].change is None:
            line += 1
        self._go(line)

    def _go(self, line: int) -> None:
        was, self._cursor = self._cursor, line
        top, height = self.scroll_offset.y, self.size.height
        if height > 0 and not top <= line < top + height:
            self.scroll_to(y=max(0, line - height // 2), animate=False)
        elif line == 1 and top == 1:
            self.scroll_to(y=0, animate=False)
        self._redraw(was, line)

    def _redraw(self, *lines: int) -> None:
        top, width = self.scroll_offset.y, self.size.width
        self.refresh(*(Region(0, line - top, width, 1) for line in lines))

    def _line_of(self, index: int) -> int:
        return self._lines[index] if 0 <= index < len(self._lines) else 0

    def on_click(self, event: events.Click) -> None:
        line = event.y + self.scroll_offset.y
        if line <= len(self._rows):
            self._go(line)
            self.choose()

    def on_focus(self) -> None:
        self._redraw(self._cursor)

    def on_blur(self) -> None:
        self._go(self._line_of(self._open))

    # Drawing

    def render_line(self, y: int) -> Strip:
        line, width = y + self.scroll_offset.y, self.scrollable_content_region.width
        is_cursor = line == self._cursor
        ink = ink_of(self.app, "cursor") if is_cursor else self.ink
        if line > len(self._rows):
            return Strip(fit_line([], width, self.ink.text), width)
        mark = CURSOR if is_cursor and (self.has_focus or self._is_open(line)) else " "
        drawn: Line = [Segment(mark, ink.accent)]
        if line == 0:
            drawn += _draw_about(self._about, ink, width - 1, self._is_open(0))
        else:
            node = self._rows[line - 1]
            indent = "  " * min(node.depth, _INDENT_AT_MOST)
            if node.change is None:
                drawn.append(Segment(f"  {indent}{node.name}/", ink.muted))
            else:
                change, signs = self.changes[node.change], self._signs[node.change]
                name = f"{indent}{node.name}"
                drawn += _draw_file(change, signs, name, ink, width - 1, self._is_open(line))
        return Strip(fit_line(drawn, width, ink.text), width)

    def _is_open(self, line: int) -> bool:
        if line == 0 or self._open < 0:
            return line == 0 and self._open < 0
        return self._open < len(self._lines) and self._lines[self._open] == line


def _draw_about(signs: Signs, ink: Ink, width: int, is_open: bool) -> Line:
    right = _draw_signs(signs, ink)
    room = width - sum(segment.cell_length for segment in right) - 2
    style = ink.strong if is_open else ink.text
    return [_viewed(signs, ink), Segment(fit(ABOUT, room), style), *right]


def _draw_file(
    change: Change, signs: Signs, name: str, ink: Ink, width: int, is_open: bool
) -> Line:
    status = change.status
    style = {"new": ink.good, "deleted": ink.bad, "modified": ink.muted}.get(status, ink.warning)
    right = _draw_signs(signs, ink)
    if change.added:
        right.append(Segment(f" +{_short(change.added)}", ink.good))
    if change.removed:
        right.append(Segment(f" -{_short(change.removed)}", ink.bad))
    while len(right) > 1 and width - sum(segment.cell_length for segment in right) < 14:
        right.pop()  # a name comes before numbers
    room = width - sum(segment.cell_length for segment in right) - 4
    named = ink.muted if signs.is_viewed and not is_open else ink.strong if is_open else ink.text
    padded = fit(name, room) if cell_len(name) <= room else _cut_middle(name, room)
    return [
        _viewed(signs, ink),
        Segment(f"{STATUS[status]} ", style),
        Segment(padded, named),
        *right,
    ]


def _viewed(signs: Signs, ink: Ink) -> Segment:
    return Segment("✓ ", ink.good) if signs.is_viewed else Segment("· ", ink.faint)


def _draw_signs(signs: Signs, ink: Ink) -> Line:
    drawn: Line = []
    if signs.comments:
        drawn.append(Segment(f" ✎{signs.comments}", ink.accent))
    if signs.flags:
        style = ink.muted if signs.is_viewed else ink.warning
        drawn.insert(0, Segment(f" ⚑{signs.flags}", style))
    return drawn


def _short(count: int) -> str:
    return str(count) if count < 10_000 else f"{count // 1000}k"


def _cut_middle(name: str, room: int) -> str:
    """The beginning and the end of a name: its ending says what it is."""
    if not name.isascii() or room < 12:
        return fit(name, room)
    tail = (room - 1) // 2
    return f"{name[: room - 1 - tail]}…{name[len(name) - tail :]}"


def order(changes: Iterable[Change]) -> list[Change]:
    """As in the tree: folders before files, each by name."""

    def key(change: Change) -> list[tuple[int, bytes]]:
        *folders, name = _split(change.path)
        return [*((0, folder) for folder in folders), (1, name)]

    return sorted(changes, key=key)


def _split(path: bytes) -> list[bytes]:
    return path.split(b"/", _DEPTH_AT_MOST)


@dataclass
class _Folder:
    folders: dict[bytes, _Folder] = field(default_factory=dict)
    files: list[int] = field(default_factory=list)


def _list_nodes(changes: Sequence[Change]) -> Iterable[_Node]:
    """Folders and files from top to bottom; folders with nothing but one folder are joined."""
    root = _Folder()
    for index, change in enumerate(changes):
        folder = root
        for name in _split(change.path)[:-1]:
            folder = folder.folders.setdefault(name, _Folder())
        folder.files.append(index)
    return _walk(root, changes, 0)


def _walk(folder: _Folder, changes: Sequence[Change], depth: int) -> Iterable[_Node]:
    for name, child in folder.folders.items():
        names = [name]
        while not child.files and len(child.folders) == 1:
            ((only, child),) = child.folders.items()
            names.append(only)
        yield _Node(depth, sanitize(b"/".join(names)), None)
        yield from _walk(child, changes, depth + 1)
    for index in folder.files:
        yield _Node(depth, sanitize(_split(changes[index].path)[-1]), index)
