"""What stands in front of a screen until it is answered."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from rich.table import Table
from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.visual import VisualType
from textual.widgets import Button, Input, Static

from swarm_tui import __version__
from swarm_tui.errors import SwarmError
from swarm_tui.text import Safe, literal, sanitize
from swarm_tui.ui.action import Action, Place
from swarm_tui.ui.actions import at
from swarm_tui.ui.field import Field
from swarm_tui.ui.grid import GRACE_S
from swarm_tui.ui.ink import Ink
from swarm_tui.ui.keys import by_section, key_names, quiet
from swarm_tui.ui.question import Question


class Confirm(ModalScreen[bool]):
    """Ask before something is done; answers True only for a clear yes.

    A yes that comes sooner than the question can have been seen was meant for something else.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        quiet("y", "yes"),
        quiet("n,escape,q,ctrl+c", "no"),
        quiet("left,up,h,k", "app.focus_previous"),
        quiet("right,down,l,j", "app.focus_next"),
    ]

    def __init__(self, question: Question, monotonic: Callable[[], float]) -> None:
        super().__init__()
        self._question = question
        self._monotonic = monotonic
        self._asked_at = monotonic()

    def compose(self) -> ComposeResult:
        question = self._question
        with Vertical(id="dialog", classes="-grave" if question.is_grave else ""):
            yield Static(Content(question.title), id="dialog-title")
            with VerticalScroll(id="dialog-body", can_focus=False):
                for agent in question.agents:
                    yield Static(Content(agent), classes="item")
                for line in question.lines:
                    yield Static(Content(line), classes="line")
            if question.typed:
                yield Static(Content(f"Type “{question.typed}” to go ahead:"), id="dialog-ask")
                yield Field(id="typed")
            with Horizontal(id="dialog-keys"):
                keys = "↵" if question.typed else "y"
                yield Button(Content(f"{keys}  {question.word}"), id="yes", compact=True)
                yield Button(Content("esc  leave it"), id="no", compact=True)

    def on_mount(self) -> None:
        if self._question.typed:
            self.query_one("#yes", Button).disabled = True
            self.set_focus(self.query_one("#typed", Input))
        else:
            self.set_focus(self.query_one("#no", Button))

    @on(Input.Changed)
    def _allow(self, event: Input.Changed) -> None:
        self.query_one("#yes", Button).disabled = not self._is_typed(event.value)

    def _is_typed(self, value: str) -> bool:
        return value.strip() == self._question.typed

    @on(Input.Submitted)
    def _yes_if_typed(self, event: Input.Submitted) -> None:
        if self._is_typed(event.value):
            self.dismiss(True)

    def action_yes(self) -> None:
        is_seen = self._monotonic() - self._asked_at >= GRACE_S
        if is_seen and not self._question.typed:
            self.dismiss(True)

    @on(Button.Pressed, "#yes")
    def _yes(self) -> None:
        self.dismiss(True)  # the button is not to be pressed before all is typed

    @on(Button.Pressed, "#no")
    def action_no(self) -> None:
        self.dismiss(False)


class Reading(ModalScreen[None]):
    """Something to read; any of the usual keys closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        quiet("escape,q,enter,question_mark,e,ctrl+c", "close"),
        quiet("j,down", "scroll(1)"),
        quiet("k,up", "scroll(-1)"),
        quiet("pagedown,ctrl+d,space", "scroll(10)"),
        quiet("pageup,ctrl+u", "scroll(-10)"),
    ]

    def __init__(self, title: str, blocks: Sequence[VisualType], *, kind: str) -> None:
        super().__init__()
        self._heading = title
        self._blocks = blocks
        self._kind = kind

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog", classes=self._kind):
            yield Static(Content(self._heading), id="dialog-title")
            with VerticalScroll(id="dialog-body", can_focus=False):
                for block in self._blocks:
                    yield Static(block, markup=False)
            yield Static(Content("j k scroll   esc close"), id="dialog-hint")

    def action_close(self) -> None:
        self.dismiss()

    def action_scroll(self, lines: int) -> None:
        body = self.query_one("#dialog-body", VerticalScroll)
        body.scroll_to(y=body.scroll_offset.y + lines, animate=False)


def help_dialog(place: Place, ink: Ink, say_why: Callable[[Action], str]) -> Reading:
    """All keys of one screen; `say_why` tells why policy denies one now, or nothing."""
    blocks: list[VisualType] = []
    here = at(place)
    width = max(len(key_names(action)) for action in here)
    for section, actions in by_section(here).items():
        table = Table.grid(padding=(0, 2, 0, 0), expand=True)
        table.add_column(width=width + 1, justify="right")
        table.add_column(ratio=1)
        for action in actions:
            why = say_why(action)
            text = Text(action.help, ink.faint if why else ink.text)
            if why:
                text.append(f" — {why}", ink.muted)
            table.add_row(Text(key_names(action), ink.faint if why else ink.accent), text)
        blocks += [Content.styled(f"\n{section}", "$text-muted"), table]
    return Reading(f"Keys of swarm-tui {__version__}", blocks, kind="-help")


def read_dialog(title: str, text: Safe, *, is_wide: bool = False) -> Reading:
    """One text in full."""
    return Reading(title, [Content(f"\n{text}")], kind="-help" if is_wide else "-grave")


def fault_dialog(error: BaseException) -> Reading:
    """An error in full: what happened, why, what to do, and what it came from."""
    if isinstance(error, SwarmError):
        title, told, hint = error.title, error.detail, error.hint
    else:
        title = literal("A fault in swarm-tui itself")
        told = _describe(error)
        hint = literal("Everything else goes on. Please report this with what you had just done.")
    came_from = "\n".join(_describe(cause) for cause in _causes(error))
    blocks: list[VisualType] = []
    for heading, text in (("Why", told), ("What to do", hint), ("What it came from", came_from)):
        if text:
            blocks += [Content.styled(f"\n{heading}", "$text-muted"), Content(text)]
    return Reading(title, blocks, kind="-grave")


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen = {id(error)}
    cause = error.__cause__
    while cause is not None and id(cause) not in seen:
        yield cause
        seen.add(id(cause))
        cause = cause.__cause__


def _describe(error: BaseException) -> Safe:
    """Its kind and words, and the place where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    told = error.title if isinstance(error, SwarmError) else str(error)
    return sanitize(f"{type(error).__name__}: {told}{where}", lines="many", max_cells=400)
