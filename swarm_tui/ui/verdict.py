"""The last question before a verdict: what is decided, on what exactly, and what happens then."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
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
from swarm_tui.ui.editor import Pad
from swarm_tui.ui.grid import GRACE_S
from swarm_tui.ui.keys import quiet

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
    check: Callable[[str], Safe]
    """Why it cannot be given with a message; empty when it can."""


class VerdictDialog(ModalScreen[Answer | None]):
    """Most keys do nothing here, so that what was meant as text never decides anything.

    Sending back and rejecting begin in the message. A yes that comes sooner than the question can
    have been seen was meant for something else.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        quiet("y", "yes"),
        quiet("m", "write"),
        quiet("ctrl+s,ctrl+enter", "give"),
        quiet("ctrl+t", "kill"),
        quiet("escape,ctrl+c", "no"),
    ]
    ENDS: ClassVar[Collection[str]] = ("ctrl+s", "ctrl+enter", "ctrl+t", "escape", "ctrl+c")

    def __init__(self, plea: Plea, message: str, monotonic: Callable[[], float]) -> None:
        """`message` is what was typed before, if the question was left."""
        super().__init__()
        self._plea = plea
        self._monotonic = monotonic
        self._asked_at = monotonic()
        self._is_written = plea.judgement is not Judgement.APPROVE
        """It begins in the message."""
        self.pad = Pad(message, id="pad", ends=self.ENDS)
        self._before = self.pad.text

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
                yield Button(self._label(), id="yes", compact=True)
                if is_grave:
                    yield Button(Content("ctrl+t  reject, kill"), id="kill", compact=True)
                if not self._is_written:
                    yield Button(Content("m  message"), id="write", compact=True)
                yield Button(Content("esc  leave it"), id="no", compact=True)

    def _label(self) -> Content:
        judgement = self._plea.judgement
        key = "ctrl+s" if self._is_typed_into() else "y"
        kept = ", keep" if judgement is Judgement.REJECT else ""
        return Content(f"{key}  {WORDS[judgement]}{kept}")

    def on_mount(self) -> None:
        if self._is_written:
            self.set_focus(self.pad)
            self.pad.move_cursor(self.pad.document.end)
        else:
            self.set_focus(self.query_one("#no", Button))

    def on_descendant_focus(self) -> None:
        button = self.query_one("#yes", Button)
        button.label = self._label()
        button.refresh(layout=True)  # it does not grow by itself

    # Keys

    def _is_typed_into(self) -> bool:
        return self.focused is self.pad or self._is_written

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        match action:
            case "yes" | "write":
                return not self._is_written
            case "give" | "kill" | "no":
                # The message takes these itself, after all that was typed before them.
                return self.focused is not self.pad
            case _:
                return True

    @on(Pad.Ended)
    def _end(self, event: Pad.Ended) -> None:
        match event.key:
            case "escape" | "ctrl+c":
                self.action_no()
            case "ctrl+t":
                self._kill_if_seen(event.text)
            case _:
                self._give_if_seen(event.text)

    def action_yes(self) -> None:
        if self._is_seen():
            self._give(self.pad.text)

    def action_give(self) -> None:
        self._give_if_seen(self.pad.text)

    def action_kill(self) -> None:
        self._kill_if_seen(self.pad.text)

    @on(Button.Pressed, "#write")
    def action_write(self) -> None:
        self.set_focus(self.pad)

    @on(Button.Pressed, "#no")
    def action_no(self) -> None:
        self.dismiss(None)  # what was typed is kept for the next time

    # Answers

    def _is_seen(self) -> bool:
        return self._monotonic() - self._asked_at >= GRACE_S

    def _give_if_seen(self, message: str) -> None:
        if self._is_seen() or message != self._before:  # who has written has seen it
            self._give(message)

    def _kill_if_seen(self, message: str) -> None:
        if self._is_seen() and self._plea.judgement is Judgement.REJECT:
            self._give(message, is_kept=False)

    @on(Button.Pressed, "#yes")
    def _yes(self) -> None:
        self._give(self.pad.text)

    @on(Button.Pressed, "#kill")
    def _kill(self) -> None:
        self._give(self.pad.text, is_kept=False)

    def _give(self, message: str, *, is_kept: bool = True) -> None:
        if problem := self._plea.check(message):
            self.query_one("#dialog-problem", Static).update(Content(problem))
            self.set_focus(self.pad)
        else:
            self.dismiss(Answer(message.strip(), is_kept))
