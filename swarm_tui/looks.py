"""What agents have done until now, for who compares it: taken anew unless it stands still since."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from swarm_tui.command import Command, Compare
from swarm_tui.errors import Busy, NotFound, Refused, SwarmError
from swarm_tui.handoff import Review
from swarm_tui.inventory import Inventory
from swarm_tui.lifecycle import of_review
from swarm_tui.lifecycle.ground import explain
from swarm_tui.model import Agent, AgentId
from swarm_tui.ports import Progress
from swarm_tui.review.comparison import Party
from swarm_tui.review.shelf import Shelf
from swarm_tui.text import EMPTY, Safe, join, literal

PATIENCE_S: Final = 30.0
LOOK_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Looks:
    """Of one supervisor."""

    shelf: Shelf
    inventory: Inventory
    do: Callable[[Command, Progress], Awaitable[Safe]]
    repository_of: Callable[[Agent], Path | None]
    agent: Callable[[AgentId], Agent | None]
    """As it is by now."""

    async def parties(self, agents: Sequence[Agent], on_progress: Progress) -> Sequence[Party]:
        """All of them at once, each as `party`. Raises Refused for one that is there twice."""
        if len({agent.id for agent in agents}) < len(agents):
            raise Refused("An agent cannot be compared with itself", agents[0].name)
        return await asyncio.gather(*(self.party(agent, on_progress) for agent in agents))

    async def party(self, agent: Agent, on_progress: Progress) -> Party:
        """The agent with a review of what it has done until now.

        Where it cannot be taken now, with its newest one, and why. Raises SwarmError when there is
        none either.
        """
        lender = self.repository_of(agent)
        newest: Review | None = await asyncio.to_thread(self.shelf.last, agent.id)
        if await asyncio.to_thread(self._is_present, agent, newest) and newest:
            return Party(agent.id, agent.name, lender, newest.number, newest.taken)
        began = time.time()

        def tell(step: Safe, fraction: float | None) -> None:
            on_progress(join((agent.name, step), ": "), fraction)

        why = EMPTY
        try:
            await self._take(agent.id, tell)
        except SwarmError as error:
            if newest is None:
                explain(error, f"{agent.name} cannot be compared: its work was never taken before.")
                raise
            why = join((literal("cannot be read now"), error.title, error.detail), ": ")
        newest = await asyncio.to_thread(self.shelf.last, agent.id)
        if newest is None:
            raise NotFound(f"The work of {agent.name} was removed just now")
        # What was found to be as an earlier review has it was so not before we looked.
        as_of = newest.taken if why else max(newest.taken, began)
        return Party(agent.id, agent.name, lender, newest.number, as_of, why)

    async def _take(self, agent: AgentId, on_progress: Progress) -> None:
        """Take it, after what is at work on the agent, if that comes to an end soon."""
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                await self.do(Compare(agent), on_progress)
                return
            except (Busy, Refused):
                known = self.agent(agent)
                if known is None or known.operation is None or time.monotonic() > until:
                    raise
                at_work = known.operation
                on_progress(literal(f"{at_work.verb} is at work on it: {at_work.step}"), None)
            await asyncio.sleep(LOOK_S)

    def _is_present(self, agent: Agent, newest: Review | None) -> bool:
        """Whether the agent stands still with what that review has. Blocks."""
        record = agent.record
        if record is None or newest is None:
            return False
        if record.review is not None:
            return record.review == newest.number
        there = (kept.snapshot for kept in self.inventory.known(agent.id))
        present = next((one for one in there if one.id == record.saved_in), None)
        if present is None:
            return False
        of = of_review(newest.number)
        return (present.origin.cause, present.origin.told) == (of.cause, of.told)
