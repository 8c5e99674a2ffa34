"""Carries out the rules by which agents' lives end: a few at a time, each by one supervisor.

Whoever claims an agent first acts; what is due is told by the present state alone, so that nothing
need be remembered across a restart. An act of a rule goes the road of every command: policy, audit,
claim, and whether it is due is looked at once more when nobody else can change the agent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from swarm_tui.catalogue.shells import Shells
from swarm_tui.command import Command, End, Kill, Pause
from swarm_tui.errors import Busy, NotFound, Refused, SwarmError
from swarm_tui.lifespan import Due, due, may_end
from swarm_tui.model import Agent, AgentId, Birth, Verb
from swarm_tui.profile import Ending, Occasion
from swarm_tui.text import Safe

LOOK_S: Final = 2.0
AGAIN_S: Final = 60.0
"""After a failure."""
_AT_ONCE: Final = 2


class NotDue(Refused):
    """What a rule was to do is not due any more."""


class Rules:
    """Of one supervisor."""

    def __init__(
        self,
        agents: Callable[[], Sequence[Agent]],
        do: Callable[[Command], Awaitable[Safe]],
        shells: Shells,
        start: Callable[[Coroutine[Any, Any, None], str], object],
        tell: Callable[[SwarmError], None],
    ) -> None:
        """`tell` is told of a rule that policy does not let be carried out, once."""
        self._agents = agents
        self._do = do
        self._shells = shells
        self._start = start
        self._tell = tell
        self._at_work: set[AgentId] = set()
        self._rests: dict[AgentId, tuple[Birth, float]] = {}
        """Until when nothing is tried again, as long as its rules are the same."""

    async def run(self) -> None:
        """Look again and again, for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            with suppress(SwarmError):  # no store: nothing is done then
                for agent, found in (await self.find()).items():
                    if len(self._at_work) >= _AT_ONCE:
                        break
                    if agent.id not in self._at_work and not self._is_resting(agent):
                        self._at_work.add(agent.id)
                        self._start(self._try(agent, found), f"rule for {agent.id}")

    async def find(self) -> Mapping[Agent, Due]:
        """For whom a rule is to be carried out now, the longest due first. Raises SwarmError."""
        found = self._due(time.time())
        if not found:
            return {}
        # By the store's clock: this machine's may be wrong.
        open_, now = await asyncio.to_thread(self._shells.look)
        found = [item for item in self._due(now) if item[0].id not in open_]
        return dict(sorted(found, key=lambda item: item[1].since or 0.0))

    def _due(self, now: float) -> list[tuple[Agent, Due]]:
        return [
            (agent, one)
            for agent in self._agents()
            if may_end(agent) and (one := due(agent, now)) and not one.hindrance
        ]

    def _is_resting(self, agent: Agent) -> bool:
        birth, until = self._rests.get(agent.id, (None, 0.0))
        return birth == _birth(agent) and time.monotonic() < until

    async def carry_out(self, agent: Agent, found: Due) -> Safe:
        """Do it now. Raises SwarmError; Busy, NotFound or Refused when it is another's by now."""
        if agent.record and agent.record.verb is Verb.KILL:
            return await self._do(Kill(agent.id))
        if found.ending is Ending.PAUSE:
            return await self._do(Pause(agent.id, occasion=found.occasion))
        return await self._do(End(agent.id, found.occasion))

    async def check(self, agent: Agent, command: Command) -> None:
        """Raises NotDue when a rule's command is not due any more, now that the agent is ours."""
        if not isinstance(command, End | Pause) or command.occasion is Occasion.ASKED:
            return
        open_, now = await asyncio.to_thread(self._shells.look)
        found = due(agent, now, is_open=agent.id in open_)
        if found is None or found.occasion is not command.occasion or found.hindrance:
            why = found.hindrance if found else ""
            raise NotDue(f"No rule ends {agent.name} any more", why, "Nothing was done.")

    async def _try(self, agent: Agent, found: Due) -> None:
        try:
            await self.carry_out(agent, found)
        except (Busy, NotFound, NotDue):
            pass  # another's by now
        except Refused as error:
            if self._rests.get(agent.id, (None,))[0] != _birth(agent):
                self._tell(error)
            self._rests[agent.id] = (_birth(agent), time.monotonic() + AGAIN_S)
        except SwarmError:  # it is in the audit log, and among what waits for a human
            self._rests[agent.id] = (_birth(agent), time.monotonic() + AGAIN_S)
        else:
            self._rests.pop(agent.id, None)
        finally:
            self._at_work.discard(agent.id)


def _birth(agent: Agent) -> Birth:
    return agent.record.birth if agent.record else Birth()
