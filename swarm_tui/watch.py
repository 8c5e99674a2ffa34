"""The event road: one watcher a host, one follower a guest; they only ever apply facts.

A hint from a host is never believed: the VM is read again and the answer stored, under a sequence
number taken when the question was asked. A host that cannot be reached is tried again with a
back-off and listed anew; it never delays another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from swarm_tui import spool
from swarm_tui.errors import AgentGone, DeadlineExceeded, GuestError, HostUnreachable, SwarmError
from swarm_tui.model import (
    Address,
    Agent,
    AgentId,
    Capabilities,
    Counters,
    EventBatch,
    EventKind,
    Fact,
    GuestEvent,
    GuestHeard,
    GuestSampled,
    Hint,
    Host,
    HostSeen,
    HostState,
    Link,
    LinkChanged,
    Listed,
    Power,
    Sampled,
    VmGone,
    VmSeen,
)
from swarm_tui.ports import Guest, Hypervisor
from swarm_tui.text import EMPTY, join, literal, sanitize

FIRST_BACK_OFF_S: Final = 0.5
LAST_BACK_OFF_S: Final = 30.0
TRAFFIC_S: Final = 2.0
FIRST_READ_BYTES: Final = 256 << 10
"""How much of an earlier log is taken into memory at the start."""
_SLICE: Final = 250
"""Samples applied before the loop gets a turn, so that ten thousand agents delay no key."""

_sequence = itertools.count(1)

Apply = Callable[[Fact], bool]


class HostWatch:
    """Keeps the store true for one host, for as long as `run` runs."""

    def __init__(
        self,
        hypervisor: Hypervisor,
        apply: Apply,
        *,
        poll_s: float,
        relist_s: float,
        on_list: Callable[[], Awaitable[None]],
    ) -> None:
        """`on_list` is awaited after each whole list, before the host is shown as up."""
        self._hypervisor = hypervisor
        self._apply = apply
        self._poll_s = poll_s
        self._relist_s = relist_s
        self._on_list = on_list
        self._hints: asyncio.Queue[Hint] = asyncio.Queue()
        self._host = Host(
            name=hypervisor.host,
            uri=sanitize(hypervisor.uri),
            state=HostState.CONNECTING,
            since=time.time(),
        )
        self.capabilities: Capabilities | None = None
        """Known since the first connection."""
        self.settled = asyncio.Event()
        """Set once the first connection has been made or has failed."""
        self.error: SwarmError | None = None
        """Why the host is out of reach; None while it is not."""

    async def run(self) -> None:
        """Connect, watch, and connect again, for ever."""
        back_off_s = FIRST_BACK_OFF_S
        self._show(self._host)
        while True:
            connected = time.monotonic()
            try:
                await self._watch_once()
            except SwarmError as error:
                if time.monotonic() - connected > LAST_BACK_OFF_S:
                    back_off_s = FIRST_BACK_OFF_S
                delay_s = back_off_s * random.uniform(0.8, 1.2)
                self._show_down(error, delay_s)
                self.settled.set()
            finally:
                await self._hypervisor.close()
            await asyncio.sleep(delay_s)
            back_off_s = min(LAST_BACK_OFF_S, back_off_s * 2)

    async def relist(self) -> None:
        """Read everything of this host again."""
        seq = next(_sequence)
        vms = await self._hypervisor.list()
        self._apply(Listed(self._hypervisor.host, tuple(vms), seq))

    async def reread(self, agent: AgentId) -> None:
        """Read one VM again."""
        seq = next(_sequence)
        try:
            vm = await self._hypervisor.describe(agent)
        except AgentGone:
            self._apply(VmGone(agent, seq))
        else:
            self._apply(VmSeen(vm, seq))

    async def _watch_once(self) -> None:
        self._hints = asyncio.Queue()
        self.capabilities = await self._hypervisor.open(self._hints.put_nowait)
        await self.relist()
        await self._on_list()
        await self._show_up()
        self.settled.set()
        pump = asyncio.create_task(self._pump())
        poll = asyncio.create_task(self._poll())
        try:
            done, _ = await asyncio.wait((pump, poll), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (pump, poll):
                task.cancel()
            await asyncio.gather(pump, poll, return_exceptions=True)

    async def _pump(self) -> None:
        """Merge what hints came together, and read again what they point at."""
        while True:
            hints = [await self._hints.get()]
            while not self._hints.empty():
                hints.append(self._hints.get_nowait())
            if any(hint.kind == "closed" for hint in hints):
                raise HostUnreachable(
                    "The connection to the host was closed", "", "Is libvirtd still running?"
                )
            agents = {hint.agent for hint in hints}
            if None in agents:
                await self.relist()
                continue
            for agent in agents:
                if agent:
                    with contextlib.suppress(DeadlineExceeded):  # the next list will tell
                        await self.reread(agent)

    async def _poll(self) -> None:
        relist_at = time.monotonic() + self._relist_s
        while True:
            begun = time.monotonic()
            try:
                await self._sample(await self._hypervisor.counters())
            except DeadlineExceeded as error:
                self._show(replace(self._host, detail=error.title))
            else:
                await self._show_up()
            if time.monotonic() >= relist_at:
                await self.relist()
                relist_at = time.monotonic() + self._relist_s
            # Armed only when the last reading has ended: a slow host is asked less often.
            await asyncio.sleep(max(self._poll_s / 4, self._poll_s - (time.monotonic() - begun)))

    async def _sample(self, counters: Mapping[AgentId, Counters]) -> None:
        items = list(counters.items())
        for start in range(0, len(items), _SLICE):
            self._apply(Sampled(self._hypervisor.host, dict(items[start : start + _SLICE])))
            await asyncio.sleep(0)

    async def _show_up(self) -> None:
        facts = await self._hypervisor.facts()
        now = time.time()
        self.error = None
        self._show(
            replace(
                self._host,
                state=HostState.UP,
                since=self._host.since if self._host.state is HostState.UP else now,
                seen=now,
                detail=EMPTY,
                capabilities=self.capabilities,
                memory_total=facts.memory_total,
                memory_free=facts.memory_free,
                cpus=facts.cpus,
            )
        )

    def _show_down(self, error: SwarmError, delay_s: float) -> None:
        self.error = error
        was_down = self._host.state is HostState.DOWN
        self._show(
            replace(
                self._host,
                state=HostState.DOWN,
                since=self._host.since if was_down else time.time(),
                detail=join(
                    (error.title, error.detail, literal(f"(next try in {delay_s:.0f} s)")), " "
                ),
            )
        )

    def _show(self, host: Host) -> None:
        self._host = host
        self._apply(HostSeen(host))


@dataclass(frozen=True, slots=True)
class _Followed:
    task: asyncio.Task[None]
    address: Address


class GuestWatch:
    """Follows the event files of all running guests; one task for each."""

    def __init__(
        self,
        guest: Guest,
        apply: Apply,
        start: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]],
        spool_folder: Callable[[AgentId], Path] | None,
    ) -> None:
        """`start` starts a task whose unexpected errors are seen; without folders, no spool."""
        self._guest = guest
        self._apply = apply
        self._start = start
        self._spool_folder = spool_folder
        self._followed: dict[AgentId, _Followed] = {}
        self._offsets: dict[AgentId, int] = {}

    def tend(self, agent_id: AgentId, agent: Agent | None) -> None:
        """Begin or stop to follow a guest, as its present facts ask for."""
        followed = self._followed.get(agent_id)
        is_running = agent is not None and agent.vm is not None and agent.vm.power is Power.RUNNING
        address = agent.tag.address if agent and is_running else None
        if followed and (followed.address != address or followed.task.done()):
            followed.task.cancel()
            del self._followed[agent_id]
            if address is None:
                self._apply(LinkChanged(agent_id, Link.NONE))
        if address and agent_id not in self._followed:
            task = self._start(self._follow(agent_id, address), f"follow {agent_id}")
            self._followed[agent_id] = _Followed(task, address)

    async def close(self) -> None:
        tasks = [followed.task for followed in self._followed.values()]
        self._followed.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, agent: AgentId, address: Address) -> None:
        with self._open_spool(agent) as writer:
            self._apply(LinkChanged(agent, Link.CONNECTING))
            back_off_s = FIRST_BACK_OFF_S
            while True:
                begun = time.monotonic()
                try:
                    async with asyncio.TaskGroup() as both:
                        both.create_task(self._follow_traffic(agent, address))
                        both.create_task(self._follow_events(agent, address, writer))
                except* SwarmError as errors:
                    self._apply(LinkChanged(agent, Link.DOWN, _first(errors).title))
                if time.monotonic() - begun > LAST_BACK_OFF_S:
                    back_off_s = FIRST_BACK_OFF_S
                await asyncio.sleep(back_off_s * random.uniform(0.8, 1.2))
                back_off_s = min(LAST_BACK_OFF_S / 4, back_off_s * 2)

    async def _follow_events(
        self, agent: AgentId, address: Address, writer: spool.Writer | None
    ) -> None:
        async for batch in self._guest.events(address, self._offsets.get(agent, 0)):
            self._apply(LinkChanged(agent, Link.UP))
            self._offsets[agent] = batch.offset
            if batch.events or batch.dropped:
                self._apply(GuestHeard(agent, batch))
                if writer:
                    writer = self._keep(agent, batch, writer)
        raise GuestError("The guest closed its event stream")

    def _keep(self, agent: AgentId, batch: EventBatch, writer: spool.Writer) -> spool.Writer | None:
        """Spool a batch; when the disk is full the log goes on without, and says so."""
        try:
            writer.append(batch)
        except SwarmError as error:
            remark = GuestEvent(EventKind.OTHER, join((error.title, error.detail), ": "))
            self._apply(GuestHeard(agent, EventBatch((remark,), batch.offset)))
            return None
        return writer

    async def _follow_traffic(self, agent: AgentId, address: Address) -> None:
        async for received, sent in self._guest.traffic(address, TRAFFIC_S):
            self._apply(LinkChanged(agent, Link.UP))
            self._apply(GuestSampled(agent, time.monotonic(), received, sent))

    @contextlib.contextmanager
    def _open_spool(self, agent: AgentId) -> Iterator[spool.Writer | None]:
        """Take in what was spooled earlier, once, and go on writing after it."""
        if self._spool_folder is None:
            yield None
            return
        folder = self._spool_folder(agent)
        if agent not in self._offsets:
            batch, _ = spool.read(folder, FIRST_READ_BYTES)
            self._offsets[agent] = batch.offset
            if batch.events:
                self._apply(GuestHeard(agent, batch))
        with spool.Writer(folder) as writer:
            yield writer


def _first(errors: BaseExceptionGroup[SwarmError]) -> SwarmError:
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
