"""How Cloud Hypervisor's VMs stand, as libvirt and the host's kernel tell it together.

libvirt's driver alone does not do: it forgets every VM when its daemon restarts, does not notice
that a VMM has died, and holds a VM's lock while it waits for the VMM, without a time-out, so that
one VMM that hangs blocks every look at that VM and the list of all (ch_driver.c and ch_monitor.c
of libvirt 11.3). So each VM is asked for by itself, one that blocks is not asked again until it
has answered, and the kernel is asked which VMMs live and who has a VM's disk open.

libvirt itself is not imported here.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from swarm_tui.adapters.domain import Definition, power_of
from swarm_tui.errors import AgentGone, DeadlineExceeded, HostError
from swarm_tui.model import AgentId, Counters, HostName, Power, Vm
from swarm_tui.ports import Outpost
from swarm_tui.premises import Footprint, Process
from swarm_tui.text import EMPTY, Safe, literal

BATCH: Final = 64
"""VMs that share one deadline."""
ASK_VMM_S: Final = 1.0
ORPHAN: Final = literal("orphan: libvirt has forgotten it; resume adopts it")


@dataclass(frozen=True, slots=True)
class Told:
    """What libvirt says of one VM now."""

    state: int
    reason: int
    pid: int
    """Of its VMM: the driver gives it as the domain's id. -1: it is off."""
    cpu_ns: int | None = None
    taps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sight:
    """How one VM stands."""

    power: Power
    reason: Safe = EMPTY
    footprint: Footprint | None = None
    """Of its VMM, while it lives."""
    cpu_ns: int | None = None
    is_orphan: bool = False
    is_left_behind: bool = False

    @property
    def process(self) -> Process | None:
        return self.footprint.process if self.footprint else None

    def to_vm(self, definition: Definition, host: HostName) -> Vm:
        vm = definition.to_vm(host, 0, 0)
        return replace(
            vm,
            power=self.power,
            reason=self.reason,
            is_orphan=self.is_orphan,
            is_left_behind=self.is_left_behind,
        )

    def to_counters(self, monotonic: float, memory_given: int | None) -> Counters:
        footprint = self.footprint
        if footprint is None:
            return Counters(monotonic)
        return Counters(
            monotonic=monotonic,
            cpu_ns=self.cpu_ns,
            memory_used=footprint.memory_host,
            memory_given=memory_given,
            memory_host=footprint.memory_host,
            disk_read=footprint.disk_read,
            disk_written=footprint.disk_written,
            net_received=footprint.net_received,
            net_sent=footprint.net_sent,
        )


SOURCES: Final[Mapping[str, str]] = {
    "cpu_ns": "libvirt virDomainGetVcpus cpuTime: the vCPUs without the VMM's own threads",
    "memory_used": "resident memory of its VMM, from the host's /proc; the guest's own is not told",
    "memory_given": "its definition",
    "memory_host": "resident memory of its VMM, from the host's /proc",
    "disk_read": "storage reads of its VMM, from the host's /proc/PID/io",
    "disk_written": "storage writes of its VMM, from the host's /proc/PID/io",
    "net_received": "the host's tap, tx_bytes",
    "net_sent": "the host's tap, rx_bytes",
}
"""Where a counter of Cloud Hypervisor's comes from."""


class Definitions(Mapping[AgentId, Definition]):
    """The definitions alone of what is known."""

    def __init__(self, known: Mapping[AgentId, tuple[str, Definition]]) -> None:
        self._known = known

    def __getitem__(self, agent: AgentId) -> Definition:
        return self._known[agent][1]

    def __iter__(self) -> Iterator[AgentId]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


class Busy:
    """The VMs for which libvirt has a call of ours at work: it would block each further one."""

    def __init__(self) -> None:
        self._calls: Counter[AgentId] = Counter()
        self._lock = threading.Lock()

    def __contains__(self, agent: object) -> bool:
        return agent in self._calls

    def __bool__(self) -> bool:
        return bool(self._calls)

    @contextmanager
    def at(self, agent: AgentId) -> Iterator[None]:
        """While a call is made. On the thread that makes it, which may never come back."""
        with self._lock:
            self._calls[agent] += 1
        try:
            yield
        finally:
            with self._lock:
                self._calls -= Counter([agent])


@dataclass(slots=True)
class Look:
    """Asks one connection of libvirt and the host's outpost how VMs stand."""

    outpost: Outpost
    tell: Callable[[AgentId], Told | None]
    """Ask libvirt of one VM; blocks, perhaps for ever. None: it knows no such VM."""
    study: Callable[[str, Callable[[], None]], Awaitable[None]]
    """Run blocking work with a deadline; raises DeadlineExceeded."""
    definitions: Mapping[AgentId, Definition]
    moving: Mapping[AgentId, Safe]
    """VMs that we act on just now, and what to say of them: libvirt blocks on these."""
    busy: Busy
    seen: dict[AgentId, Sight] = field(default_factory=dict)
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def at(self, agents: Collection[AgentId]) -> Mapping[AgentId, Sight]:
        """How these VMs stand now. Raises HostUnreachable, HostDenied."""
        told = await self._ask(agents)
        footprints = await self._measure(told)
        died = [agent for agent, now in told.items() if _has_died(now, footprints)]
        if died:  # unless it was stopped in between
            told |= await self._ask(died)
            footprints = await self._measure(told)
        off = [agent for agent, now in told.items() if now is None or now.pid <= 0]
        parentless = await self._find_orphans(off)
        sights = {}
        for agent in agents:
            if agent in parentless:
                sights[agent] = parentless[agent]
            elif agent in told:
                sights[agent] = _judge(told[agent], footprints)
            else:
                sights[agent] = await self._unanswered(agent)
        self.seen |= sights
        return sights

    async def _ask(self, agents: Collection[AgentId]) -> dict[AgentId, Told | None]:
        """What libvirt tells; of those who do not answer in time there is nothing."""
        found: dict[AgentId, Told | None] = {}
        async with self.asking:  # else another's question would be taken for one that hangs
            queue = deque(
                agent for agent in agents if agent not in self.moving and agent not in self.busy
            )
            while left := len(queue):
                try:
                    await self.study("look at the VMs", partial(self._ask_some, queue, found))
                except DeadlineExceeded:
                    if len(queue) == left:
                        break  # so many hang that there is no way left to ask
        return found

    def _ask_some(self, queue: deque[AgentId], found: dict[AgentId, Told | None]) -> None:
        """Each is taken from the queue before it is asked: when one blocks, others go on."""
        with suppress(IndexError):
            for _ in range(BATCH):
                agent = queue.popleft()
                with self.busy.at(agent):
                    found[agent] = self.tell(agent)

    async def _measure(self, told: Mapping[AgentId, Told | None]) -> Mapping[int, Footprint]:
        taps = {now.pid: now.taps for now in told.values() if now and now.pid > 0}
        return await self.outpost.measure(taps) if taps else {}

    async def _find_orphans(self, agents: Sequence[AgentId]) -> Mapping[AgentId, Sight]:
        """Of VMs that are off for libvirt those whose disk a process has open all the same."""
        disks = {
            disk: agent
            for agent in agents
            if (definition := self.definitions.get(agent))
            for disk in definition.disks or ()
        }
        if not disks:
            return {}
        holders = await self.outpost.holders(list(disks))
        if not holders:
            return {}
        footprints = await self.outpost.measure({process.pid: () for process in holders.values()})
        found = {}
        for disk, process in holders.items():
            footprint = footprints.get(process.pid)
            if footprint and footprint.process == process:
                found[disks[disk]] = await self._look_at_orphan(disks[disk], footprint)
        return found

    async def _look_at_orphan(self, agent: AgentId, footprint: Footprint) -> Sight:
        process = footprint.process
        try:
            told = await self._vmm_info(agent, process)
        except AgentGone:
            # libvirt 11.3 removes the socket of what it stops, but ends only its own children,
            # which VMMs are not (virCHProcessStop, virProcessAbort).
            why = literal(f"libvirt stopped it, but process {process.pid} goes on with its disk")
            return Sight(Power.UNKNOWN, why, footprint, is_left_behind=True)
        except (HostError, DeadlineExceeded, ValueError):
            why = literal(f"process {process.pid} has its disk open and does not answer")
            return Sight(Power.UNKNOWN, why, footprint)
        powers = {"Running": Power.RUNNING, "Paused": Power.PAUSED}
        power = powers.get(str(told.get("state")), Power.UNKNOWN)
        return Sight(power, ORPHAN, footprint, footprint.cpu_ns, is_orphan=True)

    async def _vmm_info(self, agent: AgentId, process: Process) -> dict[str, Any]:
        """What a VMM says of its VM. Raises AgentGone, HostError, DeadlineExceeded, ValueError."""
        definition = self.definitions.get(agent)
        if definition is None:
            raise AgentGone("The VM is not there any more", agent)
        socket = api_socket(process, definition.name)
        told = json.loads(await self.outpost.tell_vmm(socket, "vm.info", "", ASK_VMM_S))
        return told if isinstance(told, dict) else {}

    async def _unanswered(self, agent: AgentId) -> Sight:
        """Of one that libvirt has not answered for: what is known without it."""
        before = self.seen.get(agent, Sight(Power.UNKNOWN))
        if agent in self.moving:
            return replace(before, reason=self.moving[agent])
        why = literal("libvirt does not answer for it: its VMM hangs, or is saving")
        if before.process:
            footprints = await self.outpost.measure({before.process.pid: ()})
            footprint = footprints.get(before.process.pid)
            if footprint is None or footprint.process != before.process:
                return Sight(Power.CRASHED, literal("its VMM has ended"))
        return replace(before, power=Power.UNKNOWN, reason=why)


def api_socket(process: Process, name: str) -> Path:
    """Where libvirt put the API socket of a VMM, seen as that VMM sees its files."""
    return Path(f"/proc/{process.pid}/root/run/libvirt/ch/{name}-socket")


def _has_died(told: Told | None, footprints: Mapping[int, Footprint]) -> bool:
    return told is not None and told.pid > 0 and told.pid not in footprints


def _judge(told: Told | None, footprints: Mapping[int, Footprint]) -> Sight:
    if told is None:
        return Sight(Power.OFF)
    if _has_died(told, footprints):
        return Sight(Power.CRASHED, literal("its VMM has died"))
    power, reason = power_of(told.state, told.reason)
    return Sight(power, reason, footprints.get(told.pid), told.cpu_ns)
