"""Links into guests: to whom one is held, and what is asked over it.

An agent must be noticed when it asks, wherever it is, and a link costs memory and a handshake: see
docs/scale.md for what was measured. So up to `LINKS` guests are all followed at once, and an ask is
heard the moment it is made. Where there are more, those on the screen and those that wait for a
human keep a link, and the others take turns, who was heard longest ago first, `TURNS_PER_S` at
most. In its turn a guest tells all that it said since the last one, because event files are read
on at their byte offset: an ask is heard late then, but never missed, and until then the screen
tells how long ago the agent was heard. Of its network traffic a guest is asked only while it is on
the screen, and only where its host cannot count it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Final

from swarm_tui.errors import GuestError, SwarmError
from swarm_tui.event import parse_event
from swarm_tui.fact import GuestHeard, GuestSampled, LinkChanged
from swarm_tui.model import (
    Address,
    Agent,
    AgentId,
    EventBatch,
    EventKind,
    GuestEvent,
    Link,
    Power,
    Rewound,
)
from swarm_tui.ports import Guest
from swarm_tui.spool import Spool, Writer, known_bytes, recall
from swarm_tui.text import join, sanitize
from swarm_tui.watch.task import FIRST_BACK_OFF_S, LAST_BACK_OFF_S, Apply, Start

LINKS: Final = 512
"""Guests that are followed at the same time, where there are more."""
TURNS_PER_S: Final = 10
STAY_S: Final = 3.0
"""A guest keeps its link for so long at least: to connect, and to tell what it has to."""
SHOWN_S: Final = 0.5
"""Who only scrolls by is not asked for anything."""
TRAFFIC_S: Final = 2.0
FIRST_READ_BYTES: Final = 256 << 10
"""How much of an earlier log is taken into memory at the start."""
_SPOOLS: Final = 4
"""Earlier logs read at the same time."""


@dataclass(frozen=True, slots=True)
class _Followed:
    task: asyncio.Task[None]
    address: Address
    since: float
    is_measured: asyncio.Event
    """Set while its traffic is asked for."""


class GuestWatch:
    """Follows the event files of running guests; one task for each that has a link."""

    def __init__(
        self,
        agent_of: Callable[[AgentId], Agent | None],
        guest_of: Callable[[Agent], Guest],
        apply: Apply,
        start: Start,
        logs: Spool | None,
    ) -> None:
        """Without `logs`, nothing is kept on disk."""
        self._agent_of = agent_of
        self._guest_of = guest_of
        self._apply = apply
        self._start = start
        self._logs = logs
        self._followed: dict[AgentId, _Followed] = {}
        self._resting: OrderedDict[AgentId, Address] = OrderedDict()
        """Who waits for a turn, the one that was heard longest ago first."""
        self.shown: frozenset[AgentId] = frozenset()
        """Who is on the screen, and did not only scroll by."""
        self._seen: frozenset[AgentId] = frozenset()
        """Who was on the screen when it was last told, perhaps only scrolling by."""
        self._seen_at = 0.0
        self._offsets: dict[AgentId, int] = {}
        self._rewound: dict[AgentId, float] = {}
        """Up to when our logs tell of ways back."""
        self._unkept: dict[AgentId, str] = {}
        """Why the log is not kept on disk, as it was told."""
        self._reading = asyncio.Semaphore(_SPOOLS)

    def tend(self, agent_id: AgentId, agent: Agent | None) -> None:
        """Begin or stop to follow a guest, as its present facts ask for.

        While a verb is at work nobody begins: a guest that was just restored has better to do than
        to greet readers, and the verb waits for its answer.
        """
        followed = self._followed.get(agent_id)
        was_resting = self._resting.pop(agent_id, None)
        is_running = agent is not None and agent.vm is not None and agent.vm.power is Power.RUNNING
        address = agent.tag.address if agent and is_running else None
        is_over = followed and (followed.address != address or followed.task.done())
        if followed and (is_over or self._way_back(agent_id)):
            followed.task.cancel()
            del self._followed[agent_id]
        if address is None and (followed or was_resting):
            self._apply(LinkChanged(agent_id, Link.NONE))
        if agent and address and not agent.operation and agent_id not in self._followed:
            if len(self._followed) < LINKS:
                self._begin(agent, address)
            else:
                self._rest(agent_id, address)
                # Who was never heard comes before all others.
                self._resting.move_to_end(agent_id, last=agent.heard is not None)
        if agent is None:
            self._offsets.pop(agent_id, None)
            self._rewound.pop(agent_id, None)

    def show(self, agents: Collection[AgentId]) -> None:
        """Take in who is on the screen now; to be told again and again."""
        if (now := time.monotonic()) - self._seen_at < SHOWN_S:
            return
        self._seen_at, was = now, self._seen
        self._seen = frozenset(islice(agents, LINKS // 2))  # others need their turns, too
        left, self.shown = self.shown, self._seen & was
        for agent in left | self.shown:
            if followed := self._followed.get(agent):
                if agent in self.shown and self._needs_traffic(agent):
                    followed.is_measured.set()
                else:
                    followed.is_measured.clear()

    async def take_turns(self) -> None:
        """Give those without a link their turn, for ever."""
        while True:
            await asyncio.sleep(1 / TURNS_PER_S)
            for agent in [agent for agent in self.shown if agent in self._resting]:
                self._give_turn(agent)
            if longest := next(iter(self._resting), None):
                self._give_turn(longest)

    def _give_turn(self, agent_id: AgentId) -> None:
        agent = self._agent_of(agent_id)
        if agent is None or agent.operation:
            self._resting.move_to_end(agent_id)
            return
        if len(self._followed) >= LINKS:
            over = self._find_one_that_may_rest()
            if over is None:
                return
            followed = self._followed.pop(over)
            followed.task.cancel()
            self._rest(over, followed.address)
        self._begin(agent, self._resting.pop(agent_id))

    def _find_one_that_may_rest(self) -> AgentId | None:
        """Who has had a link for longest, of those that wait for a human only if need be."""
        now, waiting = time.monotonic(), None
        for agent_id, followed in self._followed.items():
            if now - followed.since < STAY_S:
                break  # all others began even later
            agent = self._agent_of(agent_id)
            if agent_id in self.shown or (agent and agent.operation):
                continue
            if not (agent and agent.is_waiting):
                return agent_id
            waiting = waiting or agent_id
        return waiting

    def _begin(self, agent: Agent, address: Address) -> None:
        is_measured = asyncio.Event()
        follow = self._follow(agent.id, address, self._guest_of(agent), is_measured)
        task = self._start(follow, f"follow {agent.id}", partial(self._give_up, agent.id))
        self._followed[agent.id] = _Followed(task, address, time.monotonic(), is_measured)

    def _rest(self, agent: AgentId, address: Address) -> None:
        self._resting[agent] = address
        self._apply(LinkChanged(agent, Link.RESTING))

    def _needs_traffic(self, agent_id: AgentId) -> bool:
        """Whether its host counts, but not this."""
        agent = self._agent_of(agent_id)
        usage = agent.usage if agent else None
        return usage is not None and (usage.is_net_claimed or usage.net_received_per_s is None)

    async def close(self) -> None:
        tasks = [followed.task for followed in self._followed.values()]
        self._followed.clear()
        self._resting.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _give_up(self, agent: AgentId, error: BaseException) -> None:
        self._apply(LinkChanged(agent, Link.DOWN, sanitize(f"swarm-tui failed: {error}")))

    async def _follow(
        self, agent: AgentId, address: Address, guest: Guest, is_measured: asyncio.Event
    ) -> None:
        self._apply(LinkChanged(agent, Link.CONNECTING))
        back_off_s = FIRST_BACK_OFF_S
        with contextlib.ExitStack() as stack:
            writer = await self._open_spool(agent, stack)
            while True:
                begun = time.monotonic()
                try:
                    async with asyncio.TaskGroup() as both:
                        both.create_task(self._follow_traffic(agent, address, guest, is_measured))
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
        while True:
            after = await self._go_back(agent, writer)
            events = guest.events(address, self._offsets.get(agent, 0))
            async with contextlib.aclosing(events) as batches:  # type: ignore[type-var]
                async for batch in batches:
                    if self._way_back(agent):
                        break  # what is read now is of the file as it was before, or read again
                    self._apply(LinkChanged(agent, Link.UP))
                    if after and batch.raw:
                        batch, after = self._pass_over(agent, batch, after)
                    self._offsets[agent] = batch.offset
                    if batch.events or batch.dropped:
                        await self._take(agent, _dated(batch), writer)
                else:
                    raise GuestError("The guest closed its event stream")

    async def _take(self, agent: AgentId, batch: EventBatch, writer: Writer | None) -> None:
        self._apply(GuestHeard(agent, batch))
        if self._logs is None or writer is None:
            return
        try:
            await self._logs.append(writer, batch)
        except SwarmError as error:  # e.g. a full disk: the log goes on in memory
            if str(error) != self._unkept.get(agent):
                self._remark(agent, error)
            self._unkept[agent] = str(error)
        else:
            if not writer.is_resting:
                self._unkept.pop(agent, None)

    def _way_back(self, agent_id: AgentId) -> Rewound | None:
        """The one that it took since it was read last, and of which our log does not tell yet."""
        agent = self._agent_of(agent_id)
        rewound = agent.record.birth.rewound if agent and agent.record else None
        is_new = rewound is not None and rewound.at > self._rewound.get(agent_id, 0.0)
        return rewound if is_new else None

    async def _go_back(self, agent: AgentId, writer: Writer | None) -> bytes:
        """After a way back, read on where the log stood then, and say so in the log.

        Returns what was heard next at that time: of that, no line shall come twice.
        """
        rewound = self._way_back(agent)
        if rewound is None:
            return b""
        if self._logs is None or agent not in self._offsets:
            self._rewound[agent] = rewound.at
            return b""  # nothing was heard that could come twice
        try:
            folder = self._logs.folder(agent)
            stood = await asyncio.to_thread(recall, folder, rewound.to)
        except SwarmError as error:
            self._rewound[agent] = rewound.at
            self._remark(agent, error)
            return b""
        self._rewound[agent] = rewound.at
        self._apply(GuestHeard(agent, EventBatch((), 0)))
        self._apply(GuestHeard(agent, EventBatch(stood.events, stood.offset, is_known=True)))
        told = GuestEvent(EventKind.OTHER, rewound.told, time.time())
        self._offsets[agent] = stood.offset
        await self._take(agent, _dated(EventBatch((told,), stood.offset, is_ours=True)), writer)
        return stood.after

    def _pass_over(
        self, agent: AgentId, batch: EventBatch, after: bytes
    ) -> tuple[EventBatch, bytes]:
        """The rest of a batch without the lines that were heard before, and what may come yet."""
        raw = batch.raw or b""
        size = known_bytes(raw, after)
        if not size:
            return batch, b""
        offset = batch.offset - (len(raw) - size)
        was = tuple(parse_event(line, batch.heard) for line in raw[:size].split(b"\n") if line)
        self._apply(GuestHeard(agent, EventBatch(was, offset, is_known=True)))
        rest = raw[size:]
        news = tuple(parse_event(line, batch.heard) for line in rest.split(b"\n") if line)
        return EventBatch(news, batch.offset, 0, rest, batch.heard), b"" if rest else after[size:]

    async def _follow_traffic(
        self, agent: AgentId, address: Address, guest: Guest, is_measured: asyncio.Event
    ) -> None:
        while True:
            await is_measured.wait()
            async with contextlib.aclosing(
                guest.traffic(address, TRAFFIC_S)  # type: ignore[type-var]
            ) as readings:
                async for received, sent in readings:
                    self._apply(GuestSampled(agent, time.monotonic(), received, sent))
                    if not is_measured.is_set():
                        break

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
            last = max((event.heard or 0.0 for event in batch.events), default=time.time())
            self._rewound.setdefault(agent, last)
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
