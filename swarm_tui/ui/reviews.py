"""The app's reviews: taken, opened, judged. They outlive the screens that they are shown on."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from textual.app import App
from textual.screen import Screen

from swarm_tui.command import Review, Verdict
from swarm_tui.model import AgentId, Judgement, State
from swarm_tui.text import EMPTY, Safe, join, literal, sanitize
from swarm_tui.ui.court import Terms
from swarm_tui.ui.review import ReviewScreen
from swarm_tui.ui.screen import Context, top


class Reviews:
    """Of all agents."""

    def __init__(
        self,
        app: App[Any],
        context: Context,
        start: Callable[[Coroutine[Any, Any, object], str], None],
        tell: Callable[[Safe, Safe], None],
    ) -> None:
        """`start` begins a job of the app, by name; `tell` shows a title and a sentence."""
        self._app = app
        self._swarm = context
        self._start = start
        self._tell = tell
        self._reviewing: set[AgentId] = set()
        """Whose review is about to be opened."""
        self._ungiven: dict[AgentId, tuple[int, dict[Judgement, str]]] = {}
        """What was typed with verdicts that were not given, and on which review of the agent."""

    def open(self, agent: AgentId) -> None:
        """Take the agent's work and open it; a review that is open already is only opened."""
        if agent not in self._reviewing:
            self._reviewing.add(agent)
            place = (self._app.screen, top(self._app).current())
            self._start(self._take(agent, place), "review")

    async def _take(self, agent: AgentId, place: tuple[Screen[Any], AgentId | None]) -> None:
        """`place` is where the person was; who has gone on since is told, not interrupted."""
        known = self._swarm.roster.agents[agent]
        is_open = known.record is not None and known.record.review is not None
        try:
            if not (is_open and known.state is State.SAVED):
                await self._swarm.supervisor.do(Review(agent))
            if place != (self._app.screen, top(self._app).current()):
                ready = join((literal("The review of"), known.name, literal("is ready")))
                self._tell(ready, literal("press r on it"))
                return
            await self._show(agent)
        finally:
            self._reviewing.discard(agent)

    async def _show(self, agent: AgentId) -> None:
        supervisor = self._swarm.supervisor
        reading = await supervisor.reading(agent)
        terms, repository = supervisor.terms, supervisor.repository(agent)
        told = Terms(
            sanitize(str(repository), max_cells=60) if repository else EMPTY,
            terms.reviewer if terms.signer else EMPTY,
        )
        number = reading.review.number
        if self._ungiven.get(agent, (0,))[0] != number:
            self._ungiven[agent] = (number, {})
        messages = self._ungiven[agent][1]
        self._app.push_screen(
            ReviewScreen(self._swarm, agent, reading, told, messages, self._decide)
        )

    def _decide(self, verdict: Verdict) -> None:
        self._start(self._judge(verdict), verdict.verb)

    async def _judge(self, verdict: Verdict) -> None:
        known = self._swarm.roster.agents.get(verdict.agent)
        done = await self._swarm.supervisor.do(verdict)
        self._ungiven.pop(verdict.agent, None)
        self._tell(join((known.name if known else EMPTY, literal(verdict.verb)), ": "), done)
