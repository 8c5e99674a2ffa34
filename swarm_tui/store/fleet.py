"""The single source of truth: facts go in, derived agents come out, and what changed is marked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from swarm_tui.fact import (
    Fact,
    GuestHeard,
    GuestSampled,
    HostSeen,
    LinkChanged,
    Listed,
    OperationChanged,
    Recorded,
    Sampled,
    VmGone,
    VmSeen,
)
from swarm_tui.model import (
    Agent,
    AgentId,
    Counters,
    Host,
    HostName,
    Link,
    Power,
    State,
    Usage,
    Verb,
    Vm,
)
from swarm_tui.store.known import (
    STOPPED,
    History,
    Known,
    Log,
    derive_state,
    hear,
    host_of,
    is_up_at_once,
    since,
)
from swarm_tui.text import EMPTY, Safe

LOG_EVENTS: Final = 2000
"""Guest events kept in memory per agent, at most; older ones are counted as dropped."""
FLEET_EVENTS: Final = 200_000
"""Guest events kept in memory of all agents together, at about 250 bytes each."""
FEWEST_EVENTS: Final = 50
GONE_KEPT: Final = 2_000
"""Agents that went, remembered so that an older answer brings none back: one that is under way
comes within seconds, and not while so many go."""
_PASSING: Final = frozenset(
    {
        Verb.REVIEW,
        Verb.COMPARE,
        Verb.APPROVE,
        Verb.SEND_BACK,
        Verb.REJECT,
        Verb.CHECKPOINT,
        Verb.FORK,
    }
)
"""Verbs during which who waits for a human waits on, though it stands still for them."""


@dataclass(frozen=True, slots=True)
class Outage:
    """What supervisors share is out of reach; what is shown of it was known before."""

    since: float
    reason: Safe
    is_blind: bool
    """It was never read: nothing is known of what was kept."""


class Store:
    """Holds agents and hosts. `apply` takes facts, the rest are reads."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        """`now` is the wall clock; tests give their own."""
        self._now = now
        self._known: dict[AgentId, Known] = {}
        self._hosts: dict[HostName, Host] = {}
        self._gone: dict[AgentId, int] = {}
        """When agents went, so that an older answer does not bring them back."""
        self._lists: dict[HostName, int] = {}
        """When each host was listed last: an older answer cannot bring anybody new."""
        self._dirty: set[AgentId] = set()
        self._news: set[AgentId] = set()
        self.news: set[AgentId] = set()
        """Those of the last `take_dirty` that changed in more than their numbers."""
        self._moved: set[AgentId] = set()
        self._hosts_changed = False
        self.outage: Outage | None = None
        """Since when and why the shared store is out of reach; None while it answers."""

    # Reads

    def agents(self) -> Sequence[Agent]:
        """All agents, in no order that means anything."""
        return [known.agent for known in self._known.values() if known.agent]

    def agent(self, agent: AgentId) -> Agent | None:
        known = self._known.get(agent)
        return known.agent if known else None

    def is_busy(self, host: HostName) -> bool:
        """Whether a verb is at work on an agent of it, ours or another's."""
        agents = (known.agent for known in self._known.values() if known.operation)
        return any(agent is not None and agent.host == host for agent in agents)

    def hosts(self) -> Sequence[Host]:
        return list(self._hosts.values())

    def host(self, name: HostName) -> Host | None:
        return self._hosts.get(name)

    def history(self, agent: AgentId) -> History | None:
        """Samples of CPU and memory; None before the first."""
        known = self._known.get(agent)
        return known.history if known else None

    def memory_peak(self, agent: AgentId) -> int | None:
        """The most memory that samples, as far as they are kept, have seen in use; bytes."""
        history = self.history(agent)
        seen = [used for used in (history.memory_used if history else ()) if used == used]
        return int(max(seen)) if seen else None

    def log(self, agent: AgentId) -> Log:
        known = self._known.get(agent)
        return known.log if known else Log()

    def take_dirty(self) -> set[AgentId]:
        """Ids of agents that changed, came or went since the last call."""
        dirty, self._dirty = self._dirty, set()
        self.news, self._news = self._news, set()
        return dirty

    def take_moved(self) -> set[AgentId]:
        """Ids of agents whose VM came, went or changed its power, or of which a verb let go,
        since the last call."""
        moved, self._moved = self._moved, set()
        return moved

    def take_hosts_changed(self) -> bool:
        """Whether a host, or how the shared store does, changed since the last call."""
        changed, self._hosts_changed = self._hosts_changed, False
        return changed

    # Facts

    def apply(self, fact: Fact) -> bool:
        """Take in a fact; True when it changed something that a screen shows."""
        match fact:
            case VmSeen(vm, seq):
                return self._see(vm, seq)
            case VmGone(agent, seq, host):
                return self._lose(agent, seq, host)
            case Listed(host, vms, seq):
                present = {vm.id for vm in vms}
                self._lists[host] = max(seq, self._lists.get(host, seq))
                changed = [self._see(vm, seq) for vm in vms]
                changed += [
                    self._lose(agent, seq, host)
                    for agent, known in list(self._known.items())
                    if agent not in present and host_of(known) == host
                ]
                return any(changed)
            case HostSeen(host):
                return self._see_host(host)
            case Sampled(host, counters):
                has_changed = False
                for agent, reading in counters.items():
                    has_changed |= self._sample(agent, host, reading)
                return has_changed
            case GuestSampled(agent):
                return self._sample_traffic(agent, fact)
            case GuestHeard(agent, batch):
                if known := self._known.get(agent):
                    known.is_ready, known.heard = True, self._now()
                    hear(known, batch, self._log_size(), self._now())
                    return self._derive(agent, known)
            case LinkChanged(agent, link, reason):
                known = self._known.get(agent)
                if known and Link.UP in (link, known.link):
                    known.heard = self._now()
                is_news = known and (known.link, known.link_reason) != (link, reason)
                if known and (is_news or (link is Link.UP and not known.is_ready)):
                    known.link, known.link_reason = link, reason
                    known.is_ready = known.is_ready or link is Link.UP
                    return self._derive(agent, known)
            case Recorded(agent, record):
                known = self._known.setdefault(agent, Known())
                known.record = record
                return self._settle(agent, known)
            case OperationChanged(agent, operation):
                if known := self._known.get(agent):
                    if operation is None:
                        self._moved.add(agent)
                    known.operation = operation
                    return self._derive(agent, known)
        return False

    def _see(self, vm: Vm, seq: int) -> bool:
        if self._gone.get(vm.id, -1) > seq:
            return False
        known = self._known.get(vm.id) or Known()
        was = known.vm
        if known.vm_seq == seq and was is vm:
            return False  # the whole list, after its parts
        if known.vm_seq > seq or (was is None and self._lists.get(vm.host, -1) > seq):
            return False
        if was and known.is_listed and was.host != vm.host:
            # Two hosts with the same id: whoever had it first has it until it is gone from there,
            # so that no verb goes now to the one, now to the other.
            return False
        self._known[vm.id] = known
        known.vm, known.vm_seq, known.seen = vm, seq, self._now()
        if was == vm and known.is_listed and known.agent and known.usage:
            known.agent = _with_usage(known.agent, known.usage, known.seen)
            return False
        known.is_listed = True
        if was is None or (was.power, was.tag) != (vm.power, vm.tag):
            self._moved.add(vm.id)
        if vm.power in STOPPED:
            known.counters = known.usage = None
        elif vm.power is Power.RUNNING and (was is None or was.power in STOPPED):
            known.is_ready = is_up_at_once(known, self._now(), is_new=was is None)
            known.has_run = True
        return self._settle(vm.id, known)

    def _lose(self, agent: AgentId, seq: int, host: HostName | None) -> bool:
        known = self._known.get(agent)
        if known and (known.vm_seq > seq or host not in (None, host_of(known))):
            return False
        self._gone[agent] = seq
        if len(self._gone) > GONE_KEPT:
            del self._gone[next(iter(self._gone))]
        if not known or not known.is_listed:
            return False
        known.vm_seq, known.seen, known.is_listed = seq, self._now(), False
        known.counters = known.usage = None
        if known.vm and known.vm.power is not Power.OFF:
            known.vm = replace(known.vm, power=Power.OFF)
            self._moved.add(agent)
        return self._settle(agent, known)

    def _settle(self, agent: AgentId, known: Known) -> bool:
        """Derive an agent anew, or drop it when neither its host nor our catalogue has it.

        Some drivers forget a VM that is off; then the catalogue still holds all of it.
        """
        record = known.record
        if known.is_listed or (record and (record.saved_in or record.verb)):
            return self._derive(agent, known)
        del self._known[agent]
        if record:
            self._known[agent] = Known(record=record)
        if known.agent is None:
            return False
        self._dirty.add(agent)
        self._news.add(agent)
        self._moved.add(agent)
        return True

    def _see_host(self, host: Host) -> bool:
        was = self._hosts.get(host.name)
        if was == host:
            return False
        self._hosts[host.name] = host
        self._hosts_changed = True
        if was is None or (was.state, was.reason) != (host.state, host.reason):
            for agent, known in self._known.items():
                if known.agent and host_of(known) == host.name:
                    self._derive(agent, known)
        return True

    def note_outage(self, outage: Outage | None) -> None:
        """Whether what supervisors share is in reach; None: it is."""
        if outage == self.outage:
            return
        self.outage = outage
        self._hosts_changed = True
        for agent, known in self._known.items():
            if known.record is None and known.agent:
                self._derive(agent, known)

    def _sample(self, agent: AgentId, host: HostName, reading: Counters) -> bool:
        known = self._known.get(agent)
        if not known or not known.vm or known.vm.host != host or known.vm.power in STOPPED:
            return False  # a late answer about a VM that is off by now
        was, known.counters = known.counters or reading, reading
        seconds = reading.monotonic - was.monotonic
        cpu = _rate(reading.cpu_ns, was.cpu_ns, seconds)
        net = (
            _rate(reading.net_received, was.net_received, seconds),
            _rate(reading.net_sent, was.net_sent, seconds),
            False,
        )
        if reading.net_received is None and (last := known.usage):  # then the guest itself may tell
            net = (last.net_received_per_s, last.net_sent_per_s, last.is_net_claimed)
        known.usage = Usage(
            self._now(),
            None if cpu is None else cpu / 1e7,
            reading.memory_used,
            reading.memory_given,
            reading.memory_host,
            _rate(reading.disk_read, was.disk_read, seconds),
            _rate(reading.disk_written, was.disk_written, seconds),
            *net,
        )
        if seconds > 0:
            known.history = known.history or History()
            known.history.add(known.usage)
        return self._use(agent, known)

    def _sample_traffic(self, agent: AgentId, fact: GuestSampled) -> bool:
        known = self._known.get(agent)
        if not known:
            return False
        was, known.traffic = known.traffic, fact
        if not was or not known.usage or not known.counters:
            return False
        if known.counters.net_received is not None:
            return False  # the host can tell: what it counts goes before what the guest claims
        seconds = fact.monotonic - was.monotonic
        known.usage = replace(
            known.usage,
            net_received_per_s=_rate(fact.net_received, was.net_received, seconds),
            net_sent_per_s=_rate(fact.net_sent, was.net_sent, seconds),
            is_net_claimed=True,
        )
        return self._use(agent, known)

    def _use(self, agent: AgentId, known: Known) -> bool:
        """As `_derive`, where nothing but its usage is another: most of all facts by far."""
        was, usage = known.agent, known.usage
        if was is None:
            return self._derive(agent, known)
        if usage is None or was.usage == usage:
            return False
        known.agent = _with_usage(was, usage, known.seen)
        self._dirty.add(agent)
        return True

    def _derive(self, agent: AgentId, known: Known) -> bool:
        """Make the agent's public record anew; True when it differs in what a screen shows."""
        now, was, host_name = self._now(), known.agent, host_of(known)
        host = self._hosts.get(host_name)
        is_blind = self.outage is not None and self.outage.is_blind
        state, reason = derive_state(known, host, now, is_blind=is_blind)
        if was and was.state is not State.LOST and state is State.LOST:
            known.before = was
        derived = Agent(
            id=agent,
            name=known.vm.name if known.vm else known.record.name if known.record else EMPTY,
            host=host_name,
            state=state,
            since=was.since if was and was.state is state else since(known, state, host, now),
            reason=reason,
            seen=known.seen,
            vm=known.vm,
            record=known.record,
            usage=known.usage,
            operation=known.operation,
            link=known.link,
            heard=known.heard,
            last_line=known.last_line,
            last_line_at=known.last_line_at,
            status=known.status,
            tokens_in=known.tokens_in,
            tokens_out=known.tokens_out,
            model=known.model,
        )
        held = was.waits_since if was else None
        if derived.is_waiting or (held is not None and _waits_on(derived)):
            waits_since = (derived.since or 0.0) if held is None else held
            derived = replace(derived, waits_since=waits_since)
        known.agent = derived
        if was == derived:
            return False
        self._dirty.add(agent)
        self._news.add(agent)
        return True

    def _log_size(self) -> int:
        share = FLEET_EVENTS // max(1, len(self._known))
        return max(FEWEST_EVENTS, min(LOG_EVENTS, share))


def _waits_on(agent: Agent) -> bool:
    return agent.operation is not None and agent.operation.verb in _PASSING


def _with_usage(agent: Agent, usage: Usage, seen: float) -> Agent:
    """The same agent with other numbers: `dataclasses.replace` at a third of its cost."""
    other = object.__new__(Agent)
    for name in Agent.__slots__:
        object.__setattr__(other, name, getattr(agent, name))
    object.__setattr__(other, "usage", usage)
    object.__setattr__(other, "seen", seen)
    return other


def _rate(now: int | None, was: int | None, seconds: float) -> float | None:
    if now is None or was is None or seconds <= 0 or now < was:
        return None
    return (now - was) / seconds


def sort_key(agent: Agent) -> tuple[int, float, str, str]:
    """Order of the fleet: who waits for a human first, the longest wait on top; then by name."""
    if agent.waits_since is not None:
        return (0, agent.waits_since, agent.host, agent.name)
    return (1, 0.0, agent.host, agent.name)


def count_states(agents: Iterable[Agent]) -> Mapping[State, int]:
    """How many agents are in each state; states without agents are left out."""
    counts: dict[State, int] = {}
    for agent in agents:
        counts[agent.state] = counts.get(agent.state, 0) + 1
    return counts
