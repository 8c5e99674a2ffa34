"""Checkpoints that nobody asks for: by interval, and at each turn of an agent.

A turn is where an agent hands over to a person or takes up again: it asks, a message was put into
its inbox, or a verdict was carried out. As with `rules`, what is due is told by what is known now
(its newest snapshot is older than its turn, or than the interval), whoever claims the agent first
acts, and it is looked at once more when nobody else can change the agent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from swarm_tui.audit import Audit
from swarm_tui.catalogue.shells import Shells
from swarm_tui.command import Checkpoint, Command
from swarm_tui.errors import Busy, NotFound, Refused, StorageFull, SwarmError
from swarm_tui.inventory import Inventory
from swarm_tui.lifecycle import Timeline
from swarm_tui.lifecycle.ground import in_thread
from swarm_tui.lifespan import parse_time
from swarm_tui.model import Agent, AgentId, Cause, HostName, Origin, Power, State, Verb, Vm
from swarm_tui.rules import NotDue
from swarm_tui.settings import Snapshots
from swarm_tui.text import Safe, literal

LOOK_S: Final = 2.0
APART_S: Final = 60.0
"""At least so long after its newest snapshot: a guest decides itself how often it asks."""
AGAIN_S: Final = 300.0
"""After a failure."""
BY_RULE: Final = literal("rule")
_HANDED_OVER: Final[frozenset[str]] = frozenset(
    {Verb.MESSAGE, Verb.APPROVE, Verb.SEND_BACK, Verb.REJECT}
)


@dataclass(frozen=True, slots=True)
class Cadence:
    """When a checkpoint is made without a person's asking."""

    every_s: float | None = None
    """So long after its newest snapshot; None: never."""
    told: str = ""
    """The same as it is configured: "30m"."""
    at_turns: bool = False


SILENT: Final = Cadence()


def cadence(configured: Snapshots) -> Cadence:
    """As it is configured."""
    if configured.every == "off":
        return Cadence(at_turns=configured.at_turns == "yes")
    return Cadence(parse_time(configured.every), configured.every, configured.at_turns == "yes")


def cadence_of(agent: Agent, rule: Cadence) -> Cadence:
    """The rule, but for what the agent's profile says itself."""
    own = agent.record.birth.checkpoint if agent.record else ""
    if not own:
        return rule
    every_s = None if own == "off" else parse_time(own)
    return Cadence(every_s, own, rule.at_turns)


def due(
    rule: Cadence, agent: Agent, newest: float | None, handed: tuple[float, Safe] | None, now: float
) -> Origin | None:
    """For what a checkpoint is due now; None: for nothing. Pure; times are Unix seconds.

    `newest`: when its newest snapshot was made; `handed`: when a person last handed over to it,
    and by what.
    """
    rule = cadence_of(agent, rule)
    if not _goes_on(agent):
        return None
    since = newest if newest is not None else agent.tag.created
    if since is None or now - since < APART_S:
        return None
    if rule.at_turns:
        if agent.state is State.ASKING and agent.since is not None and since < agent.since:
            return Origin(Cause.TURN, literal("turn: it asks"), BY_RULE)
        if handed and since < handed[0]:
            return Origin(Cause.TURN, literal(f"turn: {handed[1]}"), BY_RULE)
    if rule.every_s is not None and now - since >= rule.every_s:
        return Origin(Cause.INTERVAL, literal(f"every {rule.told}"), BY_RULE)
    return None


def _goes_on(agent: Agent) -> bool:
    """Whether it works, and neither a person nor a verb has anything to do with it."""
    record, vm = agent.record, agent.vm
    if agent.state not in (State.RUNNING, State.ASKING) or agent.operation:
        return False
    if vm is None or vm.power is not Power.RUNNING:
        return False
    if record is None:
        return True
    is_held = record.verb or record.verdict or record.review is not None or record.saved_in
    return not (is_held or record.birth.is_pinned)


class Checkpoints:
    """Carries a cadence out, one agent at a time; of one supervisor."""

    def __init__(
        self,
        rule: Cadence,
        agents: Callable[[], Sequence[Agent]],
        do: Callable[[Command], Awaitable[Safe]],
        inventory: Inventory,
        shells: Shells,
        audit: Audit,
        start: Callable[[Coroutine[Any, Any, None], str], object],
        tell: Callable[[SwarmError], None],
    ) -> None:
        """`tell` is told once of each host on which it cannot be carried out."""
        self._rule = rule
        self._agents = agents
        self._do = do
        self._inventory = inventory
        self._shells = shells
        self._audit = audit
        self._start = start
        self._tell = tell
        self._is_at_work = False
        self._newest: dict[AgentId, float] = {}
        self._rests: dict[AgentId, float] = {}
        """Until when nothing is tried again."""
        self._told: set[HostName] = set()

    async def run(self) -> None:
        """Look again and again, for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            if self._is_at_work:
                continue
            with suppress(SwarmError):  # no store: nothing is done then
                if found := await self.find():
                    self._is_at_work = True
                    self._start(self._try(*found), f"checkpoint of {found[0].id}")

    async def find(self) -> tuple[Agent, Origin] | None:
        """For whom one is due now, and for what. Raises SwarmError."""
        agents = self._agents()
        known = {agent.id for agent in agents}
        self._newest = {one: at for one, at in self._newest.items() if one in known}
        awake = [one for one in agents if self._rests.get(one.id, 0.0) <= time.monotonic()]
        handed = await self._handed_over()
        for agent in awake:
            if self._due(agent, handed, time.time()) is None:
                continue
            # By what everybody knows of its snapshots, and by the store's clock.
            open_, now = await asyncio.to_thread(self._shells.look)
            await self._look_at(agent.id)
            origin = self._due(agent, handed, now)
            if origin and agent.id not in open_:
                return agent, origin
        return None

    async def check(self, agent: Agent, command: Command, lifecycle: Timeline) -> None:
        """Whether an automatic checkpoint may be made, now that the agent is ours.

        Raises NotDue when it is not due any more, StorageFull when there is no room for it.
        """
        if not isinstance(command, Checkpoint) or command.origin.by != BY_RULE or not agent.vm:
            return
        await self._look_at(agent.id)
        if self._due(agent, await self._handed_over(), time.time()) is None:
            raise NotDue(f"No checkpoint of {agent.name} is due any more", "", "Nothing was done.")
        await check_room(lifecycle, agent.vm)

    def _due(
        self, agent: Agent, handed: Mapping[str, tuple[float, Safe]], now: float
    ) -> Origin | None:
        return due(self._rule, agent, self._newest.get(agent.id), handed.get(agent.id), now)

    async def _look_at(self, agent: AgentId) -> None:
        kept = await asyncio.to_thread(self._inventory.known, agent)
        self._newest.pop(agent, None)
        if kept:
            self._newest[agent] = max(one.snapshot.created for one in kept)

    async def _handed_over(self) -> Mapping[str, tuple[float, Safe]]:
        """When a person last handed over to each agent, and by what."""
        if not self._rule.at_turns:
            return {}
        acts = await asyncio.to_thread(self._audit.recent)
        return {
            act.agent: (act.ended, act.verb)
            for act in acts
            if act.verb in _HANDED_OVER and act.outcome == "done" and act.ended is not None
        }

    async def _try(self, agent: Agent, origin: Origin) -> None:
        try:
            await self._do(Checkpoint(agent.id, origin=origin))
        except (Busy, NotFound, NotDue):
            self._rests[agent.id] = time.monotonic() + LOOK_S  # another's by now
        except (Refused, StorageFull) as error:
            self._rests[agent.id] = time.monotonic() + AGAIN_S
            if agent.host not in self._told:
                self._told.add(agent.host)
                self._tell(error)
        except SwarmError:  # it is in the audit log, and among what waits for a human
            self._rests[agent.id] = time.monotonic() + AGAIN_S
        else:
            self._newest.pop(agent.id, None)  # it is looked up: it may ask since then
            self._told.discard(agent.host)
        finally:
            self._is_at_work = False


async def check_room(lifecycle: Timeline, vm: Vm) -> None:
    """Raises StorageFull unless its memory and copies of its disks have room beside the others."""
    left = await in_thread(lifecycle.snapshots.room, vm.id, list(vm.disks or ()))
    if left < (vm.memory_bytes or 0):
        short = ((vm.memory_bytes or 0) - left) >> 20
        raise StorageFull(
            f"No room for checkpoints on {vm.host}",
            f"{short + 1} MiB are lacking for one of {vm.name}; automatic ones are left out.",
            "Free some space, lower snapshots.keep, or set snapshots.folder elsewhere.",
        )
