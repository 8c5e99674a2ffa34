"""Asking how many forks of agents shall be made, under which names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from swarm_tui.amount import render_bytes
from swarm_tui.command import FORKS
from swarm_tui.model import Agent, State
from swarm_tui.placement import Forecast
from swarm_tui.text import EMPTY, Safe, join, literal
from swarm_tui.ui.field import Field
from swarm_tui.ui.figures import plural
from swarm_tui.ui.keys import quiet


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a person asks for, of each agent."""

    count: int
    prefix: str
    """Empty: each fork is called after its agent."""
    task: str
    """Empty: each does what its agent does."""


class ForkDialog(ModalScreen[Wanted | None]):
    """How many forks, and what they take; None: none at all."""

    BINDINGS: ClassVar[list[BindingType]] = [quiet("escape,ctrl+c", "no")]

    def __init__(
        self, agents: Sequence[Agent], foresee: Callable[[int], Forecast], whence: Safe = EMPTY
    ) -> None:
        """`foresee` tells what would become of so many of each.

        `whence`: the checkpoint that they begin with; empty: they begin where it stands now.
        """
        super().__init__()
        self._whence = whence
        self._agents = agents
        self._foresee = foresee

    def compose(self) -> ComposeResult:
        agents = self._agents
        whom = agents[0].name if len(agents) == 1 else literal(plural(len(agents), "agent"))
        with Vertical(id="dialog"):
            yield Static(Content(join((literal("Fork"), whom))), id="dialog-title")
            yield Static(Content(self._tell_source()), classes="line")
            yield Static(Content("how many of each"), classes="label")
            yield Field(value="1", id="count")
            yield Static(Content("names begin with"), classes="label")
            yield Field(id="prefix", placeholder="the agent's own name")
            yield Static(Content("task"), classes="label")
            yield Field(id="task", placeholder=self._agents[0].tag.task or "the agent's own")
            yield Static(Content(""), classes="line", id="cost")
            yield Static(Content(""), id="dialog-problem")
            with Horizontal(id="dialog-keys"):
                yield Button(Content("↵  fork"), id="yes", compact=True)
                yield Button(Content("esc  leave it"), id="no", compact=True)

    def on_mount(self) -> None:
        self.set_focus(self.query_one("#count", Input))
        self._tell_cost()

    @on(Input.Changed, "#count")
    def _tell_cost(self) -> int | None:
        """How many of each, where that can be done."""
        count, cost, problem = self._count(), EMPTY, literal(f"a number from 1 to {FORKS}")
        if count is not None:
            forecast = self._foresee(count)
            cost, problem = self._cost(count, forecast), EMPTY
            if error := forecast.error:
                problem = join((error.title, error.detail), "\n")
        self.query_one("#cost", Static).update(Content(cost))
        self.query_one("#dialog-problem", Static).update(Content(problem))
        return None if problem else count

    @on(Input.Submitted)
    @on(Button.Pressed, "#yes")
    def _done(self) -> None:
        count = self._tell_cost()  # it may have changed since it was told
        if count is not None:
            prefix, task = (
                self.query_one(one, Input).value.strip() for one in ("#prefix", "#task")
            )
            self.dismiss(Wanted(count, prefix, task))

    @on(Button.Pressed, "#no")
    def action_no(self) -> None:
        self.dismiss(None)

    def _count(self) -> int | None:
        text = self.query_one("#count", Input).value.strip()
        is_number = text.isascii() and text.isdigit() and len(text) < 4
        return int(text) if is_number and 0 < int(text) <= FORKS else None

    def _tell_source(self) -> Safe:
        if self._whence:
            return join((literal("from"), self._whence))
        if all(agent.state is State.SAVED for agent in self._agents):
            return literal("from what is saved, which stays as it is")
        return literal("what runs stands still for a moment, and goes on")

    def _cost(self, count: int, forecast: Forecast) -> Safe:
        memory = [agent.vm.memory_bytes if agent.vm else None for agent in self._agents]
        known = sum(size for size in memory if size) * count
        at_least = "at least " if None in memory else ""
        made = plural(count * len(self._agents), "fork")
        told = f"{made}: {at_least}{render_bytes(known)} of memory, a disk of its own each"
        where = () if forecast.error else dict.fromkeys(one.host for one in forecast.placed)
        first = {one.host: one for one in reversed(forecast.placed)}
        return join((literal(told), *(first[host].reason for host in where)), "\n")
