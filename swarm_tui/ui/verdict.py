"""The last question before a verdict: what is decided, on what exactly, and what happens then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, NamedTuple

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from swarm_tui.model import Judgement
from swarm_tui.text import Safe
from swarm_tui.ui.actions import quiet
from swarm_tui.ui.editor import Pad
from swarm_tui.ui.grid import GRACE_S

WORDS: Final = {
    Judgement.APPROVE: "approve",
    Judgement.SEND_BACK: "send back",
    Judgement.REJECT: "reject",
}


class Answer(NamedTuple):
    message: str
    is_kept: bool = True
    """False: the agent is to be killed with a rejection."""


@dataclass(frozen=True, slots=True)
class Plea:
    """What a verdict's question shows."""

    judgement: Judgement
    title: Safe
    facts: Sequence[tuple[str, Safe]]
    """Label and value, one a line."""
    consequences: Sequence[Safe]
    needs_message: bool = False
    """Nothing else tells the agent what to do."""


class VerdictDialog(ModalScreen[Answer | None]):
    """A yes that comes sooner than the question can have been seen was meant for something else."""

    BINDINGS: ClassVar[list[BindingType]] = [
        quiet("y", "yes"),
        quiet("K", "kill"),
        quiet("m", "write"),
        quiet("n,escape,q,ctrl+c", "no"),
    ]

    def __init__(self, plea: Plea, message: str, monotonic: Callable[[], float]) -> None:
        """`message` is what was typed before, if the question was left."""
        super().__init__()
        self._plea = plea
        self._monotonic = monotonic
        self._asked_at = monotonic()
        self.pad = Pad(message, id="pad", ends=("ctrl+s", "ctrl+enter"))

    def compose(self) -> ComposeResult:
        plea = self._plea
        is_grave = plea.judgement is Judgement.REJECT
        with Vertical(id="dialog", classes="-verdict -grave" if is_grave else "-verdict"):
            yield Static(Content(plea.title), id="dialog-title")
            with VerticalScroll(id="dialog-body", can_focus=False):
                for label, value in plea.facts:
                    yield Static(Content(f"{label:<9} {value}"), classes="item")
                for line in plea.consequences:
                    yield Static(Content(line), classes="line")
            yield Static(Content("message to the agent"), id="dialog-ask")
            yield self.pad
            yield Static(Content(""), id="dialog-problem")
            with Horizontal(id="dialog-keys"):
                word = WORDS[plea.judgement]
                kept = ", keep it" if is_grave else ""
                yield Button(Content(f"y  {word}{kept}"), id="yes", compact=True)
                if is_grave:
                    yield Button(Content("K  reject, kill it"), id="kill", compact=True)
                yield Button(Content("m  message"), id="write", compact=True)
                yield Button(Content("esc  leave it"), id="no", compact=True)

    def on_mount(self) -> None:
        if self._plea.needs_message:
            self.set_focus(self.pad)
        else:
            self.set_focus(self.query_one("#no", Button))

    def _is_seen(self) -> bool:
        return self._monotonic() - self._asked_at >= GRACE_S

    def _answer(self, *, is_kept: bool = True) -> None:
        message = self.pad.text.strip()
        if self._plea.needs_message and not message:
            self.query_one("#dialog-problem", Static).update(
                Content("Say what it is to do: there is no comment, and no message yet.")
            )
            self.set_focus(self.pad)
        else:
            self.dismiss(Answer(message, is_kept))

    def action_yes(self) -> None:
        if self._is_seen():
            self._answer()

    def action_kill(self) -> None:
        if self._is_seen() and self._plea.judgement is Judgement.REJECT:
            self._answer(is_kept=False)

    @on(Button.Pressed, "#yes")
    def _yes(self) -> None:
        self._answer()

    @on(Button.Pressed, "#kill")
    def _kill(self) -> None:
        self._answer(is_kept=False)

    @on(Button.Pressed, "#write")
    def action_write(self) -> None:
        self.set_focus(self.pad)

    @on(Pad.Ended)
    def _written(self) -> None:
        """The message is done: the keys are verdicts again."""
        self.set_focus(self.query_one("#yes", Button))
        self._asked_at = self._monotonic()

    @on(Button.Pressed, "#no")
    def action_no(self) -> None:
        if self.focused is self.pad:  # what was typed stays; a second escape leaves
            self.set_focus(self.query_one("#no", Button))
        else:
            self.dismiss(None)
