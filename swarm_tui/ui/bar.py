"""What we draw ourselves: the base of every line-rendered widget, and the bars of a screen."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import ClassVar

from rich.segment import Segment
from textual import events
from textual.filter import ANSIToTruecolor, LineFilter
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from swarm_tui.text import EMPTY, Safe
from swarm_tui.ui.action import Action
from swarm_tui.ui.ink import Ink, Line, draw, ink_of
from swarm_tui.ui.keys import key_name


class Inked(Widget):
    """A widget with the theme's ink for its surface."""

    ALLOW_SELECT = False
    SURFACE: ClassVar[str] = "background"

    _mixed: tuple[dict[str, str], Ink] | None = None

    def get_line_filters(self) -> Sequence[LineFilter]:
        # Our colours are true colours already: translating terminal colours would cost a tenth
        # of all drawing for nothing.
        filters = super().get_line_filters()
        return [each for each in filters if not isinstance(each, ANSIToTruecolor)]

    @property
    def ink(self) -> Ink:
        variables = self.app.theme_variables  # another object after each change of theme
        if self._mixed is None or self._mixed[0] is not variables:
            self._mixed = (variables, ink_of(self.app, self.SURFACE))
        return self._mixed[1]


class Bar(Inked):
    """A few lines, each with a left and a right part; drawn anew when `show` brings others."""

    DEFAULT_CSS = """
    Bar { height: 1; width: 100%; }
    """
    SURFACE = "surface"

    def draw_line(self, y: int, ink: Ink, width: int) -> tuple[Line, Line]:
        """The parts of one line. The left one is cut when both do not fit."""
        raise NotImplementedError

    def render_line(self, y: int) -> Strip:
        ink, width = self.ink, self.size.width
        left, right = self.draw_line(y, ink, width)
        return draw(width, left, right, fill=ink.text)


class Heading(Bar):
    """The first line of a screen: its word, and what is told of it at the left and the right."""

    def __init__(self, word: str) -> None:
        super().__init__(id="summary")
        self._word = word
        self._left: Safe = EMPTY
        self._right: Safe = EMPTY

    def show(self, left: Safe, right: Safe) -> None:
        if (left, right) != (self._left, self._right):
            self._left, self._right = left, right
            self.refresh()

    def draw_line(self, y: int, ink: Ink, width: int) -> tuple[Line, Line]:
        left = [Segment(f" {self._word} ", ink.accent), Segment(self._left, ink.strong)]
        return left, [Segment(f" {self._right} ", ink.muted)]


class Footer(Bar):
    """The keys of a screen, greyed where policy says no, and what was just said."""

    NOTICE_S: ClassVar[float] = 2.0

    class Pressed(Message):
        """A key in the footer was clicked."""

        def __init__(self, action: str) -> None:
            super().__init__()
            self.action = action

    def __init__(
        self, actions: Sequence[Action], *, kept: Collection[str], id: str | None = None
    ) -> None:
        """Those `kept`, by id, are shown however narrow it is; the others as they fit, in order."""
        super().__init__(id=id)
        self._kept = kept
        self._actions = [action for action in actions if action.label]
        self._denied: frozenset[str] = frozenset()
        self._keys: dict[str, str] = {action.id: action.keys[0] for action in self._actions}
        self._notice = ""
        self._spans: list[tuple[int, int, str]] = []

    def show(self, denied: frozenset[str], keys: dict[str, str]) -> None:
        """Grey the denied ones; `keys` overrules which key is shown for an action."""
        merged = {action.id: action.keys[0] for action in self._actions} | keys
        if (denied, merged) != (self._denied, self._keys):
            self._denied, self._keys = denied, merged
            self.refresh()

    def say(self, notice: str) -> None:
        """Show a short word at the right for a moment."""
        self._notice = notice
        self.refresh()
        self.set_timer(self.NOTICE_S, lambda: self._unsay(notice))

    def _unsay(self, notice: str) -> None:
        if self._notice == notice:
            self._notice = ""
            self.refresh()

    def draw_line(self, y: int, ink: Ink, width: int) -> tuple[Line, Line]:
        right = [Segment(f" {self._notice} ", ink.warning)] if self._notice else []
        room = width - len(self._notice) - 2 if self._notice else width
        line, self._spans, x = [Segment(" ", ink.text)], [], 1
        for action in self._fitting(room - 1):
            key = key_name(self._keys[action.id])
            is_denied = action.id in self._denied
            line += [
                Segment(key, ink.faint if is_denied else ink.accent),
                Segment(f" {action.label}  ", ink.faint if is_denied else ink.muted),
            ]
            end = x + len(key) + len(action.label) + 1
            self._spans.append((x, end, action.id))
            x = end + 2
        return line, right

    def _fitting(self, room: int) -> list[Action]:
        """All that fit, in order."""

        def cells(action: Action) -> int:
            return len(key_name(self._keys[action.id])) + len(action.label) + 3

        kept = {action.id for action in self._actions if action.id in self._kept}
        left = room - sum(cells(action) for action in self._actions if action.id in kept)
        for action in self._actions:
            if action.id not in kept and cells(action) <= left:
                kept.add(action.id)
                left -= cells(action)
        return [action for action in self._actions if action.id in kept]

    def on_click(self, event: events.Click) -> None:
        for start, end, action in self._spans:
            if start <= event.x < end:
                self.post_message(self.Pressed(action))
