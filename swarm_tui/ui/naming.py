"""Asking for the name of a checkpoint."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from swarm_tui.text import EMPTY, Safe
from swarm_tui.ui.field import Field
from swarm_tui.ui.keys import quiet


class NameDialog(ModalScreen[str | None]):
    """Its name, empty for none; None: leave it as it is."""

    BINDINGS: ClassVar[list[BindingType]] = [quiet("escape,ctrl+c", "no")]

    def __init__(self, asked: Safe, about: Safe, name: Safe = EMPTY) -> None:
        """`asked`: what for; `about`: which one it is; `name`: what it is called so far."""
        super().__init__()
        self._asked = asked
        self._about = about
        self._name_so_far = name

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog"):
            yield Static(Content(self._asked), id="dialog-title")
            yield Static(Content(self._about), classes="line")
            yield Static(Content("name; one that has a name is never removed by a rule"))
            yield Field(id="time", placeholder="no name", value=self._name_so_far)
            with Horizontal(id="dialog-keys"):
                yield Button(Content("↵  do it"), id="yes", compact=True)
                yield Button(Content("esc  leave it"), id="no", compact=True)

    def on_mount(self) -> None:
        self.set_focus(self.query_one(Input))

    @on(Input.Submitted)
    @on(Button.Pressed, "#yes")
    def _done(self) -> None:
        self.dismiss(" ".join(self.query_one(Input).value.split()))

    @on(Button.Pressed, "#no")
    def action_no(self) -> None:
        self.dismiss(None)
