"""What waits for a human, over all hosts: one need a row, the oldest first.

Kept up to date from what changed alone: nothing is done per agent while that agent stays as it is.
Times are Unix seconds.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from swarm_tui.audit import Entry, Outcome
from swarm_tui.errors import SwarmError
from swarm_tui.lifespan import left_s, warn, warns_at
from swarm_tui.model import Agent, AgentId, Host, HostName, HostState, State, Verb
from swarm_tui.text import EMPTY, Safe, join, literal, sanitize

FORGOTTEN_S: Final = 1800.0
"""An agent that stands still for longer was probably forgotten: its RAM stays in use."""
SNOOZE_S: Final = 900.0
_SETTLED_S: Final = 5.0
"""An agent that changed its state so long after a verb had failed has gone on since."""
_SPAWN_S: Final = 3600.0
"""For so long an agent that could not be made is told of."""
_FAULTS_AT_MOST: Final = 50
_REASON_CELLS: Final = 400


class Kind(StrEnum):
    """Why it waits; the same word on the screen, in the terminal's title and in JSON."""

    ASK = "ask"  # asks for review
    REVIEW = "review"  # its review is open, and nobody has decided
    VERDICT = "verdict"  # given, but not delivered
    VERB = "verb"  # failed, was cut off, or has an outcome that nobody knows
    FAILED = "failed"
    UNKNOWN = "unknown"
    HOST = "host"  # out of reach, with all its agents
    LIFE = "life"  # its time is over or nearly so, or a rule that ends it is not carried out
    STOPPED = "stopped"  # frozen or paused, and forgotten for long
    FAULT = "fault"  # of storage, quota, audit log: what no verb is to blame for


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that waits for a human."""

    key: str
    """The same for as long as it is about the same agent, host or fault."""
    kind: Kind
    since: float | None
    """None: nobody knows since when."""
    reason: Safe
    host: HostName | None = None
    agent: AgentId | None = None
    name: Safe = EMPTY
    owner: Safe = EMPTY

    @property
    def is_over(self) -> bool:
        """Whether it has happened, and is only to be read."""
        return self.kind is Kind.FAULT or (self.kind is Kind.VERB and self.agent is None)

    def is_for(self, person: str) -> bool:
        """Whether it concerns somebody: the owner by login name, or anybody where none is."""
        return not self.owner or self.owner.partition("@")[0] == person


class Attention:
    """The queue. `hear…` takes in what changed; `tick` lets time pass."""

    def __init__(self) -> None:
        self._needs: dict[str, tuple[Need, tuple[float, str]]] = {}
        """Each with its place in the order."""
        self._order: list[tuple[float, str]] = []
        self._noticed: dict[str, float] = {}
        """When a need was first seen, for those of which nobody knows since when."""
        self.counts: Counter[Kind] = Counter()
        self.version = 0
        """Grows with each change of what is in the queue."""
        self._agents: dict[AgentId, Agent] = {}
        """All that were heard of."""
        self._acts: dict[str, Entry] = {}
        """The last verb on each agent, where it did not end well."""
        self._reviewers: dict[str, Safe] = {}
        self._hosts: dict[HostName, Host] = {}
        """Those that are down."""
        self._at_work: dict[HostName, set[AgentId]] = {}
        """Agents that were at work when their host was last seen."""
        self._lost: dict[HostName, set[AgentId]] = {}
        self._later: list[tuple[float, AgentId]] = []
        """When who is to be looked at again though nothing changes: who stands still will have been
        forgotten, a life comes to its end; a heap."""
        self._snoozed: dict[str, tuple[float, Need]] = {}
        self._dismissed: set[str] = set()

    # Reads

    def __len__(self) -> int:
        return len(self._order)

    def needs(self, *, with_snoozed: bool = False) -> Iterator[Need]:
        """The oldest first."""
        for _, key in self._order:
            if with_snoozed or key not in self._snoozed:
                yield self._needs[key][0]

    def is_snoozed(self, key: str) -> bool:
        return key in self._snoozed

    @property
    def snoozed(self) -> int:
        return len(self._snoozed)

    # What is heard

    def hear(self, agent: AgentId, known: Agent | None, now: float) -> None:
        """How an agent stands now; None: it is gone."""
        was = self._agents.get(agent)
        if known is None:
            if was:
                self._follow_host(was.host, agent, None)
                self._forget(agent)
            self._acts.pop(agent, None)
            self._reviewers.pop(agent, None)
            return
        if was and was.host != known.host:
            self._follow_host(was.host, agent, None)
        self._follow_host(known.host, agent, known.state)
        self._agents[agent] = known
        if known.state in (State.FROZEN, State.PAUSED):
            is_new = was is None or (was.state, was.since) != (known.state, known.since)
            if is_new:
                heapq.heappush(self._later, ((known.since or now) + FORGOTTEN_S, agent))
        if (warns := warns_at(known)) is not None and (was is None or warns_at(was) != warns):
            for at in (warns, warns + (left_s(known, warns) or 0.0)):
                if at >= now:
                    heapq.heappush(self._later, (at, agent))
        self._settle(agent, now)

    def _settle(self, agent: AgentId, now: float) -> None:
        known = self._agents[agent]
        found = self._judge(known, now)
        if found is None:
            self._drop(agent)
            return
        kind, since, reason = found
        self._put(
            Need(
                agent,
                kind,
                since,
                sanitize(reason, max_cells=_REASON_CELLS),
                known.host,
                agent,
                known.name,
                known.tag.owner,
            ),
            now,
        )

    def _judge(self, agent: Agent, now: float) -> tuple[Kind, float | None, Safe] | None:
        """Why this agent waits, if it does; what is worst first."""
        if agent.operation:
            # A human is at it: it keeps its place, so that whoever sits before it stays there.
            was = self._needs.get(agent.id)
            at_work = join((literal(f"{agent.operation.verb} at work"), agent.operation.step), ": ")
            return (was[0].kind, was[0].since, at_work) if was else None
        if agent.state is State.LOST:
            return None  # its host waits instead
        record = agent.record
        if record and record.verb:
            cut = literal(f"{record.verb} was cut off; how far it came is not known")
            return Kind.VERB, agent.since, agent.reason or cut
        act = self._acts.get(agent.id)
        if act and (agent.since or 0.0) <= _end(act) + _SETTLED_S:
            return Kind.VERB, _end(act), _tell(act)
        is_reviewed = record is not None and record.review is not None
        if agent.state is State.SAVED and is_reviewed and record:
            if record.verdict:
                return Kind.VERDICT, agent.since, agent.reason
            by = self._reviewers.get(agent.id)
            taken = join((literal("taken by"), by)) if by else EMPTY
            return Kind.REVIEW, agent.waits_since or agent.since, join((agent.reason, taken), ", ")
        if agent.state is State.ASKING:
            return Kind.ASK, agent.waits_since or agent.since, agent.reason
        if agent.state is State.FAILED:
            return Kind.FAILED, agent.since, agent.reason
        if agent.state is State.UNKNOWN:
            return Kind.UNKNOWN, agent.since, agent.reason or literal("its state is not known")
        if told := warn(agent, now):
            return Kind.LIFE, told[0], told[1]
        if agent.state in (State.FROZEN, State.PAUSED):
            since = agent.since or self._noticed.setdefault(agent.id, now)
            if now - since >= FORGOTTEN_S:
                what = "frozen" if agent.state is State.FROZEN else "paused, its RAM in use"
                return Kind.STOPPED, since, join((literal(what), agent.reason), ": ")
        return None

    def _follow_host(self, host: HostName, agent: AgentId, state: State | None) -> None:
        """Keep count of who is lost with a host, and of those who were at work there."""
        lost = self._lost.setdefault(host, set())
        at_work = self._at_work.setdefault(host, set())
        was = (len(lost), len(at_work))
        if state is State.LOST:
            lost.add(agent)
        else:
            lost.discard(agent)
            if state in (State.STARTING, State.RUNNING, State.ASKING):
                at_work.add(agent)
            else:
                at_work.discard(agent)
        if host in self._hosts and was != (len(lost), len(at_work)):
            self._settle_host(host)

    def hear_hosts(self, hosts: Iterable[Host], now: float) -> None:
        """All hosts, whenever one of them changed."""
        down = {host.name: host for host in hosts if host.state is HostState.DOWN}
        for name in self._hosts.keys() - down.keys():
            self._drop(_host_key(name))
        self._hosts = down
        for name in down:
            self._settle_host(name)

    def _settle_host(self, name: HostName) -> None:
        host = self._hosts[name]
        lost = self._lost.get(name, set())
        at_work = len(lost & self._at_work.get(name, set()))
        agents = f"{len(lost)} agent{'' if len(lost) == 1 else 's'} lost" if lost else ""
        if at_work:
            agents += f", {at_work} of them at work"
        why = sanitize(host.reason or host.detail, max_cells=_REASON_CELLS)
        reason = join((literal("out of reach"), literal(agents), why), "; ")
        need = Need(_host_key(name), Kind.HOST, host.since, reason, name, name=sanitize(name))
        self._put(need, host.since)

    def hear_acts(self, acts: Iterable[Entry], now: float) -> None:
        """Verbs that ended, or of which nobody knows how they ended; oldest first."""
        for act in acts:
            agent = AgentId(act.agent)
            is_good = act.outcome is Outcome.DONE
            if str(act.verb) in (Verb.SHELL, Verb.LOGS):
                continue
            if not agent:
                if act.outcome and not is_good and now - _end(act) < _SPAWN_S:
                    self._hear_spawn(act, now)
                continue
            if str(act.verb) == Verb.REVIEW and is_good:
                self._reviewers[agent] = act.actor
            if is_good:
                self._acts.pop(agent, None)
            elif act.outcome:  # one without may be at work still: its record tells
                self._acts[agent] = act
            if agent in self._agents:
                self._settle(agent, now)

    def _hear_spawn(self, act: Entry, now: float) -> None:
        key = f"act {act.id}"
        if key not in self._dismissed:
            host = HostName(act.host)
            self._put(Need(key, Kind.VERB, _end(act), _tell(act), host, name=act.name), now)

    def hear_fault(self, error: BaseException, now: float) -> None:
        """A failure that no verb is to blame for. It stays until it is snoozed."""
        if not isinstance(error, SwarmError):
            return
        key = f"fault {error.title}"
        faults = [key for key, (need, _) in self._needs.items() if need.kind is Kind.FAULT]
        if key not in self._needs and len(faults) >= _FAULTS_AT_MOST:
            self._drop(faults[0])
        reason = join((error.title, sanitize(error.detail, max_cells=_REASON_CELLS)), ": ")
        self._put(Need(key, Kind.FAULT, self._noticed.setdefault(key, now), reason), now)

    # Time

    def tick(self, now: float) -> None:
        """Take in who has been forgotten by now, whose life is over, and whose rest is over."""
        while self._later and self._later[0][0] <= now:
            _, agent = heapq.heappop(self._later)
            if agent in self._agents:
                self._settle(agent, now)
        for key in [key for key, (until, _) in self._snoozed.items() if until <= now]:
            self.wake(key)

    def snooze(self, key: str, now: float, for_s: float = SNOOZE_S) -> None:
        """Leave it out for a while; it comes back sooner if it waits for something else."""
        if key not in self._needs:
            return
        need = self._needs[key][0]
        if need.is_over:
            self._dismissed.add(key)
            self._drop(key)
            return
        self._snoozed[key] = (now + for_s, need)
        self.version += 1

    def wake(self, key: str) -> None:
        if self._snoozed.pop(key, None):
            self.version += 1

    # The order

    def _put(self, need: Need, now: float) -> None:
        key = need.key
        was = self._needs.get(key)
        if was and was[0] == need:
            return
        if key in self._snoozed and _what(self._snoozed[key][1]) != _what(need):
            del self._snoozed[key]
        at = need.since if need.since is not None else self._noticed.setdefault(key, now)
        place = (at, key)
        if was:
            self.counts[was[0].kind] -= 1
        if was is None or was[1] != place:
            if was:
                self._unplace(was[1])
            insort(self._order, place)
        self._needs[key] = (need, place)
        self.counts[need.kind] += 1
        self.version += 1

    def _drop(self, key: str) -> None:
        was = self._needs.pop(key, None)
        if was is None:
            return
        self._unplace(was[1])
        self.counts[was[0].kind] -= 1
        self._noticed.pop(key, None)
        self._snoozed.pop(key, None)
        self.version += 1

    def _unplace(self, place: tuple[float, str]) -> None:
        del self._order[bisect_left(self._order, place)]

    def _forget(self, agent: AgentId) -> None:
        self._drop(agent)
        del self._agents[agent]
        self._noticed.pop(agent, None)


def _host_key(host: HostName) -> str:
    return f"host {host}"


def _what(need: Need) -> tuple[Kind, float | None]:
    """What must be the same for a need to stay snoozed."""
    return need.kind, need.since


def _end(act: Entry) -> float:
    return act.ended if act.ended is not None else act.at


def _tell(act: Entry) -> Safe:
    how = "failed" if act.outcome is Outcome.FAILED else "ended nobody knows how"
    return join((join((act.verb, literal(how))), act.detail), ": ")


def summarize(counts: Mapping[Kind, int]) -> Safe:
    """The queue in a few words: "2 ask · 1 failed"; empty when nothing waits."""
    told = [f"{count:,} {kind}" for kind in Kind if (count := counts.get(kind, 0))]
    return join(map(literal, told), " · ")
