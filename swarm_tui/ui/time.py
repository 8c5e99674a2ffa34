"""Asking how much longer agents shall live."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from swarm_tui.errors import UsageError
from swarm_tui.lifespan import parse_time, tell_left
from swarm_tui.model import Agent
from swarm_tui.text import Safe, join, literal
from swarm_tui.ui.field import Field
from swarm_tui.ui.figures import plural
from swarm_tui.ui.keys import quiet

_KEEP = "keep"


@dataclass(frozen=True, slots=True)
class Time:
    """What a person has granted; `by_s` None: its time has no end."""

    by_s: float | None
    is_pinned: bool = False


class TimeDialog(ModalScreen[Time | None]):
    """How much longer; None: leave it as it is."""

    BINDINGS: ClassVar[list[BindingType]] = [quiet("escape,ctrl+c", "no")]

    def __init__(self, agents: Sequence[Agent], now: float) -> None:
        super().__init__()
        self._agents = agents
        self._now = now

    def compose(self) -> ComposeResult:
        one = self._agents[0] if len(self._agents) == 1 else None
        whom = one.name if one else literal(plural(len(self._agents), "agent"))
        with Vertical(id="dialog"):
            yield Static(Content(join((literal("More time for"), whom))), id="dialog-title")
            if one:
                yield Static(Content(_tell(one, self._now)), classes="line")
            yield Static(Content("how much longer"), classes="label")
            yield Field(id="time", placeholder="30m, 2h, 3d; never: no end; keep: no rule ends it")
            yield Static(Content(""), id="dialog-problem")
            with Horizontal(id="dialog-keys"):
                yield Button(Content("↵  give it"), id="yes", compact=True)
                yield Button(Content("esc  leave it"), id="no", compact=True)

    def on_mount(self) -> None:
        self.set_focus(self.query_one("#time", Input))

    @on(Input.Submitted)
    @on(Button.Pressed, "#yes")
    def _done(self) -> None:
        text = self.query_one("#time", Input).value
        if text.strip().lower() == _KEEP:
            self.dismiss(Time(None, is_pinned=True))
            return
        try:
            self.dismiss(Time(parse_time(text)))
        except UsageError as error:
            problem = join((error.title, error.hint), ": ")
            self.query_one("#dialog-problem", Static).update(Content(problem))

    @on(Button.Pressed, "#no")
    def action_no(self) -> None:
        self.dismiss(None)


def _tell(agent: Agent, now: float) -> Safe:
    birth = agent.record.birth if agent.record else None
    if birth and birth.is_pinned:
        return literal("no rule ends it")
    left = tell_left(agent, now)
    return left or literal("its time has no end")
