"""The single source of truth: facts go in, derived agents come out, and what changed is marked.

Pure and synchronous; only the supervisor writes to it. Screens read whole frozen records and ask
for the ids that changed since they last looked.
"""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from swarm_tui.model import (
    Agent,
    AgentId,
    Counters,
    EventKind,
    Fact,
    GuestEvent,
    GuestHeard,
    GuestSampled,
    Host,
    HostName,
    HostSeen,
    HostState,
    Link,
    LinkChanged,
    Listed,
    Operation,
    OperationChanged,
    Power,
    Record,
    Recorded,
    Sampled,
    State,
    Usage,
    Verb,
    Vm,
    VmGone,
    VmSeen,
)
from swarm_tui.text import EMPTY, Safe, literal

HISTORY_SAMPLES: Final = 120
LOG_EVENTS: Final = 2000
"""Guest events kept in memory per agent; older ones are counted as dropped."""


class History:
    """The last samples of one agent's CPU and memory, oldest first; NaN where unknown."""

    __slots__ = ("cpu_percent", "memory_used")

    def __init__(self) -> None:
        self.cpu_percent = array("f")
        self.memory_used = array("d")

    def add(self, usage: Usage) -> None:
        for series, value in (
            (self.cpu_percent, usage.cpu_percent),
            (self.memory_used, usage.memory_used),
        ):
            series.append(float("nan") if value is None else value)
            if len(series) > HISTORY_SAMPLES:
                del series[0]


@dataclass(slots=True)
class Log:
    """The last events of one agent, and how many came before them."""

    events: deque[GuestEvent] = field(default_factory=lambda: deque(maxlen=LOG_EVENTS))
    total: int = 0
    """Events ever seen; `total - len(events)` were dropped from memory."""
    lost: int = 0
    """Events that never reached us because they came too fast."""


@dataclass(slots=True)
class _Known:
    """Everything that facts said of one agent; `Agent` is derived from it."""

    vm: Vm | None = None
    vm_seq: int = -1
    is_listed: bool = False
    """Whether its host still knows the VM."""
    seen: float = 0.0
    record: Record | None = None
    operation: Operation | None = None
    link: Link = Link.NONE
    link_reason: Safe = EMPTY
    asks: Safe | None = None
    is_done: bool = False
    is_ready: bool = False
    last_line: Safe = EMPTY
    last_line_at: float | None = None
    status: Safe = EMPTY
    tokens_in: int = 0
    tokens_out: int = 0
    model: Safe = EMPTY
    counters: Counters | None = None
    traffic: GuestSampled | None = None
    usage: Usage | None = None
    history: History | None = None
    log: Log = field(default_factory=Log)
    agent: Agent | None = None


class Store:
    """Holds agents and hosts. `apply` takes facts, the rest are reads."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        """`now` is the wall clock; tests give their own."""
        self._now = now
        self._known: dict[AgentId, _Known] = {}
        self._hosts: dict[HostName, Host] = {}
        self._gone: dict[AgentId, int] = {}
        self._dirty: set[AgentId] = set()
        self._moved: set[AgentId] = set()
        self._hosts_changed = False

    # Reads

    def agents(self) -> Sequence[Agent]:
        """All agents, in no order that means anything."""
        return [known.agent for known in self._known.values() if known.agent]

    def agent(self, agent: AgentId) -> Agent | None:
        known = self._known.get(agent)
        return known.agent if known else None

    def hosts(self) -> Sequence[Host]:
        return list(self._hosts.values())

    def host(self, name: HostName) -> Host | None:
        return self._hosts.get(name)

    def history(self, agent: AgentId) -> History | None:
        """Samples of CPU and memory; None before the first."""
        known = self._known.get(agent)
        return known.history if known else None

    def log(self, agent: AgentId) -> Log:
        known = self._known.get(agent)
        return known.log if known else Log()

    def take_dirty(self) -> set[AgentId]:
        """Ids of agents that changed, came or went since the last call."""
        dirty, self._dirty = self._dirty, set()
        return dirty

    def take_moved(self) -> set[AgentId]:
        """Ids of agents whose VM came, went or changed its power since the last call."""
        moved, self._moved = self._moved, set()
        return moved

    def take_hosts_changed(self) -> bool:
        changed, self._hosts_changed = self._hosts_changed, False
        return changed

    # Facts

    def apply(self, fact: Fact) -> bool:
        """Take in a fact; True when it changed something that a screen shows."""
        match fact:
            case VmSeen(vm, seq):
                return self._see(vm, seq)
            case VmGone(agent, seq):
                return self._lose(agent, seq)
            case Listed(host, vms, seq):
                present = {vm.id for vm in vms}
                changed = [self._see(vm, seq) for vm in vms]
                changed += [
                    self._lose(agent, seq)
                    for agent, known in list(self._known.items())
                    if agent not in present and _host_of(known) == host
                ]
                return any(changed)
            case HostSeen(host):
                return self._see_host(host)
            case Sampled(_, counters):
                for agent, reading in counters.items():
                    if known := self._known.get(agent):
                        self._sample(agent, known, reading)
                return bool(counters)
            case GuestSampled(agent):
                return self._sample_traffic(agent, fact)
            case GuestHeard(agent, batch):
                if known := self._known.get(agent):
                    known.is_ready = True
                    _hear(known, batch.events, batch.dropped)
                    return self._derive(agent, known)
            case LinkChanged(agent, link, reason):
                if known := self._known.get(agent):
                    known.link, known.link_reason = link, reason
                    known.is_ready = known.is_ready or link is Link.UP
                    return self._derive(agent, known)
            case Recorded(agent, record):
                return self._record(agent, record)
            case OperationChanged(agent, operation):
                if known := self._known.get(agent):
                    known.operation = operation
                    return self._derive(agent, known)
        return False

    def _see(self, vm: Vm, seq: int) -> bool:
        if self._gone.get(vm.id, -1) > seq:
            return False
        known = self._known.setdefault(vm.id, _Known())
        if known.vm_seq > seq:
            return False
        was = known.vm
        known.vm, known.vm_seq, known.seen = vm, seq, self._now()
        known.is_listed = True
        if vm.power is not Power.RUNNING:
            known.counters = known.usage = None
        if was is None or (was.power, was.tag) != (vm.power, vm.tag):
            self._moved.add(vm.id)
        if was and was.power in (Power.OFF, Power.CRASHED) and vm.power is Power.RUNNING:
            known.is_ready = False
        return self._derive(vm.id, known)

    def _lose(self, agent: AgentId, seq: int) -> bool:
        known = self._known.get(agent)
        if not known or known.vm_seq > seq:
            return False
        self._gone[agent] = seq
        known.vm_seq, known.seen, known.is_listed = seq, self._now(), False
        if known.vm and known.vm.power is not Power.OFF:
            known.vm = replace(known.vm, power=Power.OFF)
            self._moved.add(agent)
        return self._settle(agent, known)

    def _record(self, agent: AgentId, record: Record | None) -> bool:
        known = self._known.get(agent)
        if not known:
            if record is None or not record.saved_in:
                return False
            known = self._known.setdefault(agent, _Known())
        known.record = record
        return self._settle(agent, known)

    def _settle(self, agent: AgentId, known: _Known) -> bool:
        """Derive an agent anew, or drop it when neither its host nor our catalogue has it.

        Some drivers forget a VM that is off; then the catalogue still holds all of it.
        """
        if known.is_listed or (known.record and known.record.saved_in):
            return self._derive(agent, known)
        del self._known[agent]
        self._dirty.add(agent)
        self._moved.add(agent)
        return True

    def _see_host(self, host: Host) -> bool:
        if self._hosts.get(host.name) == host:
            return False
        was = self._hosts.get(host.name)
        self._hosts[host.name] = host
        self._hosts_changed = True
        if was is None or was.state != host.state:
            for agent, known in self._known.items():
                if _host_of(known) == host.name:
                    self._derive(agent, known)
        return True

    def _sample(self, agent: AgentId, known: _Known, reading: Counters) -> None:
        was, known.counters = known.counters, reading
        seconds = reading.monotonic - was.monotonic if was else 0.0
        if was is None or seconds <= 0:
            was, seconds = reading, 0.0
        cpu = _rate(reading.cpu_ns, was.cpu_ns, seconds)
        old = known.usage
        known.usage = Usage(
            at=self._now(),
            cpu_percent=None if cpu is None else cpu / 1e7,
            memory_used=reading.memory_used,
            memory_given=reading.memory_given,
            memory_host=reading.memory_host,
            disk_read_per_s=_rate(reading.disk_read, was.disk_read, seconds),
            disk_written_per_s=_rate(reading.disk_written, was.disk_written, seconds),
            net_received_per_s=_rate(reading.net_received, was.net_received, seconds)
            if reading.net_received is not None
            else (old.net_received_per_s if old else None),
            net_sent_per_s=_rate(reading.net_sent, was.net_sent, seconds)
            if reading.net_sent is not None
            else (old.net_sent_per_s if old else None),
        )
        if seconds:
            known.history = known.history or History()
            known.history.add(known.usage)
        self._derive(agent, known)

    def _sample_traffic(self, agent: AgentId, fact: GuestSampled) -> bool:
        known = self._known.get(agent)
        if not known:
            return False
        was, known.traffic = known.traffic, fact
        if not was or not known.usage:
            return False
        seconds = fact.monotonic - was.monotonic
        known.usage = replace(
            known.usage,
            net_received_per_s=_rate(fact.net_received, was.net_received, seconds),
            net_sent_per_s=_rate(fact.net_sent, was.net_sent, seconds),
        )
        return self._derive(agent, known)

    def _derive(self, agent: AgentId, known: _Known) -> bool:
        host = self._hosts.get(_host_of(known))
        state, reason = _derive_state(known, host)
        was = known.agent
        derived = Agent(
            id=agent,
            name=known.vm.name if known.vm else known.record.name if known.record else EMPTY,
            host=_host_of(known),
            state=state,
            since=was.since if was and was.state is state else _since(known, was, self._now()),
            reason=reason,
            seen=known.seen,
            vm=known.vm,
            record=known.record,
            usage=known.usage,
            operation=known.operation,
            link=known.link,
            last_line=known.last_line,
            last_line_at=known.last_line_at,
            status=known.status,
            tokens_in=known.tokens_in,
            tokens_out=known.tokens_out,
            model=known.model,
        )
        if was == derived:
            return False
        known.agent = derived
        self._dirty.add(agent)
        return True


def _host_of(known: _Known) -> HostName:
    if known.vm:
        return known.vm.host
    return known.record.host if known.record else HostName("")


def _since(known: _Known, was: Agent | None, now: float) -> float | None:
    if was is None:
        # Seen for the first time: it may have been like this for long.
        if known.record and (known.record.saved_in or known.record.is_frozen):
            return known.record.since
        return known.vm.tag.created if known.vm else None
    return now


def _derive_state(known: _Known, host: Host | None) -> tuple[State, Safe]:
    vm, record = known.vm, known.record
    if host and host.state is HostState.DOWN:
        return State.LOST, host.detail
    is_saved = record is not None and record.saved_in is not None
    if vm is None:
        return (State.SAVED, EMPTY) if is_saved else (State.UNKNOWN, EMPTY)
    match vm.power:
        case Power.PAUSED:
            return State.PAUSED, vm.reason
        case Power.CRASHED:
            return State.FAILED, literal("the guest crashed")
        case Power.OFF if is_saved:
            return State.SAVED, EMPTY
        case Power.OFF if known.operation and known.operation.verb in (Verb.PAUSE, Verb.RESUME):
            # Between two steps of a verb the VM is off and its state is on its way.
            return (known.agent.state if known.agent else State.UNKNOWN), EMPTY
        case Power.OFF if known.is_done:
            return State.DONE, literal("the VM is off")
        case Power.OFF if record and record.verb:
            return State.UNKNOWN, literal(f"{record.verb} was cut off")
        case Power.OFF:
            return State.FAILED, vm.reason
        case Power.UNKNOWN:
            return State.UNKNOWN, vm.reason
    if record and record.is_frozen:
        return State.FROZEN, EMPTY
    if known.asks is not None:
        return State.ASKING, known.asks
    if known.is_done:
        return State.DONE, known.status
    if not known.is_ready and known.link is not Link.NONE:
        return State.STARTING, known.link_reason
    return State.RUNNING, known.link_reason if known.link is Link.DOWN else EMPTY


def _hear(known: _Known, events: Iterable[GuestEvent], dropped: int) -> None:
    log = known.log
    log.lost += dropped
    for event in events:
        log.events.append(event)
        log.total += 1
        match event.kind:
            case EventKind.USAGE:
                known.tokens_in += event.tokens_in
                known.tokens_out += event.tokens_out
                known.model = event.model or known.model
                continue
            case EventKind.ASK:
                known.asks = event.text
            case EventKind.DONE:
                known.is_done, known.asks, known.status = True, None, event.text
            case EventKind.STATUS | EventKind.TOOL:
                known.asks, known.is_done = None, False
                if event.kind is EventKind.STATUS:
                    known.status = event.text
        known.last_line, known.last_line_at = event.text, event.at


def _rate(now: int | None, was: int | None, seconds: float) -> float | None:
    if now is None or was is None or seconds <= 0 or now < was:
        return None
    return (now - was) / seconds


def sort_key(agent: Agent) -> tuple[int, float, str, str]:
    """Order of the fleet: who waits for a human first, the longest wait on top; then by name."""
    if agent.state is State.ASKING:
        return (0, agent.since or 0.0, agent.host, agent.name)
    return (1, 0.0, agent.host, agent.name)


def count_states(agents: Iterable[Agent]) -> Mapping[State, int]:
    """How many agents are in each state; states without agents are left out."""
    counts: dict[State, int] = {}
    for agent in agents:
        counts[agent.state] = counts.get(agent.state, 0) + 1
    return counts
