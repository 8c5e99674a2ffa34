"""One follower a guest: its events, its traffic and the state of our link to it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from swarm_tui.errors import GuestError, SwarmError
from swarm_tui.model import (
    Address,
    Agent,
    AgentId,
    EventBatch,
    EventKind,
    GuestEvent,
    GuestHeard,
    GuestSampled,
    Link,
    LinkChanged,
    Power,
)
from swarm_tui.ports import Guest
from swarm_tui.spool import Spool, Writer
from swarm_tui.text import join, sanitize
from swarm_tui.watch.task import FIRST_BACK_OFF_S, LAST_BACK_OFF_S, Apply, Start

TRAFFIC_S: Final = 2.0
FIRST_READ_BYTES: Final = 256 << 10
"""How much of an earlier log is taken into memory at the start."""
_SPOOLS: Final = 4
"""Earlier logs read at the same time."""


@dataclass(frozen=True, slots=True)
class _Followed:
    task: asyncio.Task[None]
    address: Address


class GuestWatch:
    """Follows the event files of all running guests; one task for each."""

    def __init__(
        self,
        guest_of: Callable[[Agent], Guest],
        apply: Apply,
        start: Start,
        logs: Spool | None,
    ) -> None:
        """Without `logs`, nothing is kept on disk."""
        self._guest_of = guest_of
        self._apply = apply
        self._start = start
        self._logs = logs
        self._followed: dict[AgentId, _Followed] = {}
        self._offsets: dict[AgentId, int] = {}
        self._reading = asyncio.Semaphore(_SPOOLS)

    def tend(self, agent_id: AgentId, agent: Agent | None) -> None:
        """Begin or stop to follow a guest, as its present facts ask for.

        While a verb is at work nobody begins: a guest that was just restored has better to do than
        to greet readers, and the verb waits for its answer.
        """
        followed = self._followed.get(agent_id)
        is_running = agent is not None and agent.vm is not None and agent.vm.power is Power.RUNNING
        address = agent.tag.address if agent and is_running else None
        if followed and (followed.address != address or followed.task.done()):
            followed.task.cancel()
            del self._followed[agent_id]
            if address is None:
                self._apply(LinkChanged(agent_id, Link.NONE))
        if agent and address and not agent.operation and agent_id not in self._followed:
            follow = self._follow(agent_id, address, self._guest_of(agent))
            task = self._start(follow, f"follow {agent_id}", partial(self._give_up, agent_id))
            self._followed[agent_id] = _Followed(task, address)
        if agent is None:
            self._offsets.pop(agent_id, None)

    async def close(self) -> None:
        tasks = [followed.task for followed in self._followed.values()]
        self._followed.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _give_up(self, agent: AgentId, error: BaseException) -> None:
        self._apply(LinkChanged(agent, Link.DOWN, sanitize(f"swarm-tui failed: {error}")))

    async def _follow(self, agent: AgentId, address: Address, guest: Guest) -> None:
        self._apply(LinkChanged(agent, Link.CONNECTING))
        back_off_s = FIRST_BACK_OFF_S
        with contextlib.ExitStack() as stack:
            writer = await self._open_spool(agent, stack)
            while True:
                begun = time.monotonic()
                try:
                    async with asyncio.TaskGroup() as both:
                        both.create_task(self._follow_traffic(agent, address, guest))
                        both.create_task(self._follow_events(agent, address, guest, writer))
                except* SwarmError as errors:
                    self._apply(LinkChanged(agent, Link.DOWN, _first(errors).title))
                if time.monotonic() - begun > LAST_BACK_OFF_S:
                    back_off_s = FIRST_BACK_OFF_S
                await asyncio.sleep(back_off_s * random.uniform(0.8, 1.2))
                back_off_s = min(LAST_BACK_OFF_S / 4, back_off_s * 2)

    async def _follow_events(
        self, agent: AgentId, address: Address, guest: Guest, writer: Writer | None
    ) -> None:
        unkept = ""
        async for batch in guest.events(address, self._offsets.get(agent, 0)):
            self._apply(LinkChanged(agent, Link.UP))
            self._offsets[agent] = batch.offset
            if batch.events or batch.dropped:
                batch = _dated(batch)
                self._apply(GuestHeard(agent, batch))
                if self._logs and writer:
                    try:
                        await self._logs.append(writer, batch)
                    except SwarmError as error:  # e.g. a full disk: the log goes on in memory
                        if str(error) != unkept:
                            self._remark(agent, error)
                        unkept = str(error)
                    else:
                        unkept = unkept if writer.is_resting else ""
        raise GuestError("The guest closed its event stream")

    async def _follow_traffic(self, agent: AgentId, address: Address, guest: Guest) -> None:
        async for received, sent in guest.traffic(address, TRAFFIC_S):
            self._apply(LinkChanged(agent, Link.UP))
            self._apply(GuestSampled(agent, time.monotonic(), received, sent))

    async def _open_spool(self, agent: AgentId, stack: contextlib.ExitStack) -> Writer | None:
        """Take in what was spooled earlier, once, and go on writing after it."""
        if self._logs is None:
            return None
        try:
            async with self._reading:
                batch, writer = await asyncio.to_thread(self._logs.open, agent, FIRST_READ_BYTES)
        except SwarmError as error:
            self._remark(agent, error)
            return None
        stack.callback(writer.close)
        if agent not in self._offsets:
            self._offsets[agent] = batch.offset
            if batch.events:
                self._apply(GuestHeard(agent, batch))
        return writer

    def _remark(self, agent: AgentId, error: SwarmError) -> None:
        """Tell in the agent's own log that it is not kept on disk."""
        remark = GuestEvent(EventKind.OTHER, join((error.title, error.detail), ": "))
        self._apply(GuestHeard(agent, EventBatch((remark,), self._offsets.get(agent, 0))))


def _dated(batch: EventBatch) -> EventBatch:
    """With the time at which it was heard, where whoever read it did not note it."""
    if batch.heard is not None:
        return batch
    now = time.time()
    events = tuple(replace(event, heard=now) for event in batch.events)
    return replace(batch, events=events, heard=now)


def _first(errors: BaseExceptionGroup[SwarmError]) -> SwarmError:
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
