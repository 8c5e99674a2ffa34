"""The list of views: choose one, keep the present one under a name, rename, remove."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Final, Literal

from rich.segment import Segment
from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from swarm_tui import views
from swarm_tui.errors import SwarmError
from swarm_tui.text import sanitize
from swarm_tui.ui.bar import Bar
from swarm_tui.ui.field import Field
from swarm_tui.ui.figures import fit
from swarm_tui.ui.ink import Ink, Line
from swarm_tui.ui.keys import quiet
from swarm_tui.views import Group, Order, View

_NUMBERED: Final = 9
"""Views that have a key of their own."""
_HINT: Final = "↵ 1-9 choose   s save this one   r rename   d remove   esc close"


def tell(view: View) -> str:
    """What a view shows, in a line."""
    parts: list[str] = [sanitize(view.filter, max_cells=60)]
    if view.order is not Order.ATTENTION or view.is_reversed:
        parts.append(f"by {view.order}{' ↑' if view.is_reversed else ''}")
    if view.group is not Group.NONE:
        parts.append(f"grouped by {sanitize(view.grouped)}")
    if view.look:
        parts.append(view.look.value)
    return " · ".join(part for part in parts if part)


class _Rows(Bar):
    """The views, one a line."""

    SURFACE = "panel"

    def __init__(self) -> None:
        super().__init__(id="views")
        self.views: Sequence[View] = ()
        self.cursor = 0

    def show(self, shown: Sequence[View], cursor: int) -> None:
        self.views, self.cursor = shown, max(0, min(cursor, len(shown) - 1))
        self.styles.height = len(shown)
        self.refresh()

    def draw_line(self, y: int, ink: Ink, width: int) -> tuple[Line, Line]:
        if y >= len(self.views):
            return [], []
        view = self.views[y]
        number = f"{y + 1}" if y < _NUMBERED else " "
        is_cursor = y == self.cursor
        return [
            Segment("▌" if is_cursor else " ", ink.accent),
            Segment(f"{number} ", ink.accent),
            Segment(f"{fit(view.name, 24)} ", ink.strong if is_cursor else ink.text),
            Segment(tell(view), ink.faint if view.is_built_in else ink.muted),
        ], []


class ViewsDialog(ModalScreen[View | None]):
    """Answers with the view that was chosen."""

    AUTO_FOCUS = ""  # letters are keys until a name is asked for
    BINDINGS: ClassVar[list[BindingType]] = [
        quiet("escape,ctrl+c", "close"),
        quiet("q,V", "close"),
        quiet("enter", "choose"),
        quiet("j,down", "move(1)"),
        quiet("k,up", "move(-1)"),
        quiet("s", "name('save')"),
        quiet("r", "name('rename')"),
        quiet("d", "remove"),
        quiet("y", "surely"),
        *(quiet(str(number), f"take({number})") for number in range(1, _NUMBERED + 1)),
    ]

    def __init__(self, file: Path, present: View) -> None:
        """`present`: how the fleet is shown now."""
        super().__init__()
        self._file = file
        self._present = present
        self._rows = _Rows()
        self._doing: Literal["save", "rename", "remove", ""] = ""

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog", classes="-views"):
            yield Static(Content("Views"), id="dialog-title")
            yield self._rows
            yield Static(Content(""), id="dialog-ask")
            yield Field(id="typed")
            yield Static(Content(""), id="dialog-problem")
            yield Static(Content(_HINT), id="dialog-hint")

    def on_mount(self) -> None:
        self._rest()
        self._read()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return not (action == "choose" and self._typed.display)  # then it is the input's own

    @property
    def _typed(self) -> Input:
        return self.query_one("#typed", Input)

    def _say(self, ask: str = "", problem: str = "") -> None:
        for name, text in (("ask", ask), ("problem", problem)):
            line = self.query_one(f"#dialog-{name}", Static)
            line.update(Content(text))
            line.display = bool(text)

    def _rest(self, problem: str = "") -> None:
        """Back to the list."""
        self._doing = ""
        self._typed.display = False
        self.set_focus(None)
        self._say(problem=problem)

    def _read(self, wanted: str = "") -> None:
        """Show what there is, with the cursor on the view of that name."""
        shown: Sequence[View] = views.BUILT_IN
        try:
            shown = views.read(self._file)
        except SwarmError as error:
            self._say(problem=f"{error}\n{error.hint}")
        names = [view.name for view in shown]
        self._rows.show(shown, names.index(wanted) if wanted in names else self._rows.cursor)

    @property
    def _current(self) -> View:
        return self._rows.views[self._rows.cursor]

    # Keys

    def action_close(self) -> None:
        if self._doing:
            self._rest()
        else:
            self.dismiss(None)

    def action_move(self, down: int) -> None:
        if not self._doing:
            self._rows.show(self._rows.views, self._rows.cursor + down)
            self._say()

    def action_choose(self) -> None:
        if not self._doing:
            self.dismiss(self._current)

    def action_take(self, number: int) -> None:
        if not self._doing and number <= len(self._rows.views):
            self.dismiss(self._rows.views[number - 1])

    def action_name(self, doing: Literal["save", "rename"]) -> None:
        if self._doing:
            return
        current = self._current
        if doing == "rename" and current.is_built_in:
            self._say(problem=f"“{current.name}” is built in")
            return
        self._doing = doing
        if doing == "save":
            self._say(f"Save as ({tell(self._present) or 'everything'}):")
        else:
            self._say(f"New name of “{current.name}”:")
        self._typed.value = "" if current.is_built_in else current.name
        self._typed.display = True
        self.set_focus(self._typed)

    @on(Input.Submitted)
    def _named(self, event: Input.Submitted) -> None:
        name = event.value.strip()
        try:
            if self._doing == "save":
                views.save(self._file, replace(self._present, name=name))
            else:
                views.rename(self._file, self._current.name, name)
        except SwarmError as error:
            self._say(problem=f"{error}\n{error.hint}".strip())
            return
        self._rest()
        self._read(name)

    def action_remove(self) -> None:
        if self._doing:
            return
        if self._current.is_built_in:
            self._say(problem=f"“{self._current.name}” is built in")
            return
        self._doing = "remove"
        self._say(f"Remove “{self._current.name}”? y: yes, esc: no")

    def action_surely(self) -> None:
        if self._doing != "remove":
            return
        try:
            views.remove(self._file, self._current.name)
        except SwarmError as error:
            self._rest(f"{error}\n{error.hint}")
            return
        self._rest()
        self._read()
