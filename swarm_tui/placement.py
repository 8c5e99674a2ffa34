"""On which host a new agent is made, and why: by free memory, and spread over the hosts.

Pure but for `Promises`, which remembers what spawns under way will take. What an agent may still
grow by counts as taken, so that the kernel of a host never has to choose whom to end.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from swarm_tui.command import Spawn
from swarm_tui.errors import Refused, SwarmError, Unsupported, UsageError
from swarm_tui.label import Label
from swarm_tui.model import Agent, AgentId, Host, HostName, HostState, Power
from swarm_tui.ports import Needs, Spawned
from swarm_tui.profile import Profile
from swarm_tui.store import Store
from swarm_tui.text import EMPTY, Safe, join, literal, sanitize

FRESH_S: Final = 2.0
"""Figures of a host that are older are read again before they are gone by."""
NAMED: Final = 3
"""So many of the other hosts are named in a reason."""

_NOTHING: Final = Needs(0, 0)
_ON: Final = frozenset({Power.RUNNING, Power.PAUSED})


@dataclass(frozen=True, slots=True)
class Room:
    """What one host has for a new agent. Bytes; None is unknown."""

    host: HostName
    obstacle: Safe = EMPTY
    """Why none can be made there, whatever memory it has; empty: nothing is in the way."""
    needs: Needs = _NOTHING
    free: int | None = None
    """As the host tells it, or estimated."""
    is_estimated: bool = False
    """It tells only how much there is in all: what VMs were given is taken off that."""
    unknown: Safe = EMPTY
    """Why `free` is not known."""
    promised: int = 0
    """To spawns under way, and to agents that have not grown yet to what they were given."""
    agents: int = 0
    """With those under way."""
    alike: int = 0
    """Of them, those of the same profile or labels."""

    @property
    def spare(self) -> int | None:
        return None if self.free is None else self.free - self.promised

    def holds(self, reserve: int) -> bool:
        """Whether one more is known to fit beside the reserve."""
        return (
            not self.obstacle
            and self.spare is not None
            and self.needs.total <= self.spare - reserve
        )

    def with_one_more(self) -> Room:
        return replace(
            self,
            promised=self.promised + self.needs.total,
            agents=self.agents + 1,
            alike=self.alike + 1,
        )


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a new agent goes."""

    host: HostName
    free: int | None
    """Bytes, without what is promised and before this one; None: nobody knows."""
    needs: Needs
    reason: Safe
    """A sentence for people: "on lab2: 5.1 GiB free, 3 agents; lab1 has 0.4 GiB free"."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What would become of some spawns, begun now."""

    placed: Sequence[Placed]
    """One for each that has a place, in their order."""
    error: SwarmError | None = None
    """Why the others have none; None: all have one."""

    @property
    def counts(self) -> Mapping[HostName, int]:
        """How many on each host."""
        counts: dict[HostName, int] = {}
        for one in self.placed:
            counts[one.host] = counts.get(one.host, 0) + 1
        return counts


def choose(rooms: Sequence[Room], reserve: int) -> Placed:
    """The best of some hosts: the fewest of its kind there, then the most memory.

    `reserve` bytes stay free on each. A host whose memory nobody knows is taken only when it is
    the only one: then whoever named it knows. Raises Refused with what each of them lacks.
    """
    able = [room for room in rooms if room.holds(reserve)]
    if able:
        best = min(able, key=lambda room: (room.alike, -(room.spare or 0), room.host))
    elif len(rooms) == 1 and not rooms[0].obstacle and rooms[0].spare is None:
        best = rooms[0]
    else:
        raise _refusal(rooms, reserve)
    others = [_tell_other(room) for room in rooms if room is not best]
    if len(others) > NAMED:
        others[NAMED:] = [literal(f"and {len(others) - NAMED} more hosts")]
    agents = literal(f"{best.agents} agent{'' if best.agents == 1 else 's'}")
    own = join((literal("on"), sanitize(best.host)))
    own = join((own, join((_tell_spare(best), agents), ", ")), ": ")
    return Placed(best.host, best.spare, best.needs, join((own, *others), "; "))


def forecast(rooms: Sequence[Room], reserve: int, count: int) -> Forecast:
    """What would become of `count` spawns at once."""
    left = {room.host: room for room in rooms}
    placed: list[Placed] = []
    for _ in range(count):
        try:
            one = choose(list(left.values()), reserve)
        except Refused as error:
            return Forecast(placed, error)
        placed.append(one)
        left[one.host] = left[one.host].with_one_more()
    return Forecast(placed)


def tell(spawned: Spawned) -> Safe:
    """A plain sentence on an agent that was made."""
    answers = join((spawned.name, literal(f"answers after {spawned.seconds:.1f} s")))
    return join((answers, spawned.reason), "; ")


def _refusal(rooms: Sequence[Room], reserve: int) -> Refused:
    needs = next((room.needs for room in rooms if not room.obstacle), None)
    each = [_tell_other(room) for room in rooms]
    if needs is None:
        return Refused("No host can make this agent now", join(each, "; "))
    what = (
        f"It needs {_mib(needs.guest)} and, as an estimate, {_mib(needs.overhead)} for the VMM"
        f" itself; {_mib(reserve)} of each host stay free."
    )
    return Refused(
        "No host has memory for another agent",
        join((literal(what), join(each, "; "))),
        "End or pause an agent, or give new ones less memory. A host that does not tell its memory"
        " is taken only when it is named; supervisor.reserve_mib is what stays free.",
    )


def _tell_other(room: Room) -> Safe:
    name = sanitize(room.host)
    if room.obstacle:
        return join((name, room.obstacle), ": ")
    return join((name, literal("has"), _tell_spare(room)))


def _tell_spare(room: Room) -> Safe:
    if room.spare is None:
        return join((literal("an unknown amount of memory free"), _bracketed(room.unknown)))
    told = f"{max(0, room.spare) / (1 << 30):.1f} GiB free"
    if room.is_estimated:
        told += " by estimate"
    if room.promised:
        told += f" beside {room.promised / (1 << 30):.1f} GiB promised"
    return literal(told)


def _bracketed(text: Safe) -> Safe:
    return join((literal("("), text, literal(")")), "") if text else EMPTY


def _mib(size: int) -> str:
    return f"{size >> 20} MiB"


# What is known of the hosts


@dataclass(slots=True)
class _Promise:
    """A spawn under way."""

    host: HostName
    size: int
    profile: Safe
    labels: frozenset[Label]
    began: float = field(default_factory=time.time)
    agent: AgentId | None = None


class Maker(Protocol):
    """What makes agents on a host, as far as their place goes; a `ports.Spawner` is one."""

    def needs(self, profile: Profile) -> Needs: ...


class Promises:
    """What this process's spawns under way will take of each host."""

    def __init__(self, store: Store, makers: Mapping[HostName, Maker], reserve: int) -> None:
        """`reserve`: bytes of each host that stay free."""
        self._store = store
        self._makers = makers
        self._reserve = reserve
        self._open: list[_Promise] = []
        self._kept: set[AgentId] = set()
        """Agents whose promise was kept while others were still open."""

    def candidates(self, command: Spawn) -> Sequence[HostName]:
        """Hosts that may make it. Raises Unsupported, UsageError."""
        allowed = [HostName(host) for host in command.profile.hosts]
        wanted = command.host
        if wanted is None:
            hosts = allowed or list(self._makers)
        elif allowed and wanted not in allowed:
            raise UsageError(
                f"Agents of {command.profile.name} are not made on {wanted}",
                f"Its profile names {', '.join(allowed)}.",
            )
        else:
            hosts = [wanted]
        if not any(host in self._makers for host in hosts):
            raise Unsupported(
                f"No agents can be made on {', '.join(hosts) or 'any host'}",
                hint=f"Hosts that can: {', '.join(self._makers) or 'none'}.",
            )
        return hosts

    def foresee(self, command: Spawn, count: int = 1) -> Forecast:
        """What would become of `count` of them, by what is known now. Never blocks."""
        try:
            rooms = self.rooms(command)
        except SwarmError as error:
            return Forecast((), error)
        return forecast(rooms, self._reserve, count)

    @contextmanager
    def placed(self, command: Spawn) -> Iterator[tuple[Placed, _Promise]]:
        """Its place, held for it until the block is left.

        Raises Refused where no host has one, Unsupported, UsageError.
        """
        chosen = choose(self.rooms(command), self._reserve)
        promise = _Promise(chosen.host, chosen.needs.total, command.profile.name, _labels(command))
        self._open.append(promise)
        try:
            yield chosen, promise
        finally:
            self._open.remove(promise)
            if promise.agent:
                self._kept.add(promise.agent)
            if not self._open:
                self._kept.clear()

    def rooms(self, command: Spawn) -> Sequence[Room]:
        """What each candidate has for it. Raises Unsupported, UsageError."""
        hosts = self.candidates(command)
        on: dict[HostName, list[Agent]] = {host: [] for host in hosts}
        for agent in self._store.agents():
            if agent.host in on:
                on[agent.host].append(agent)
        return [self._room(host, command, on[host]) for host in hosts]

    def _room(self, name: HostName, command: Spawn, agents: Sequence[Agent]) -> Room:
        host, maker = self._store.host(name), self._makers.get(name)
        if host is None or maker is None:
            return Room(name, literal("no agents can be made there"))
        if obstacle := _obstacle(host):
            return Room(name, obstacle)
        try:
            needs = maker.needs(command.profile)
        except SwarmError as error:
            return Room(name, join((error.title, error.detail)))
        labels, profile = _labels(command), command.profile
        promises = [promise for promise in self._open if promise.host == name]
        still = self._unborn(promises, agents)
        alike = sum(_is_alike(agent, profile, labels) for agent in agents)
        alike += sum(
            promise.profile == profile.name and (bool(profile.name) or promise.labels >= labels)
            for promise in still
        )
        promised = sum(promise.size for promise in still)
        promised += sum(_growth(agent, needs.overhead) for agent in agents)
        free, is_estimated = host.memory_free, False
        if free is None and host.memory_total is not None:
            # Then growth is in it already: what was given is taken off in full.
            given = sum(_given(agent, needs.overhead) for agent in agents)
            free, is_estimated = host.memory_total - given, True
            promised = sum(promise.size for promise in still)
        return Room(
            name,
            needs=needs,
            free=free,
            is_estimated=is_estimated,
            unknown=sanitize(host.missing.get("memory_free", "")),
            promised=promised,
            agents=len(agents) + len(still),
            alike=alike,
        )

    def _unborn(self, promises: Sequence[_Promise], agents: Sequence[Agent]) -> Sequence[_Promise]:
        """Promises whose VM is not seen so far: one that is, is counted by its own figures."""
        left = sorted(promises, key=lambda promise: promise.began)
        for agent in agents:
            created = agent.tag.created
            if not left or created is None or agent.id in self._kept:
                continue
            if created >= left[0].began:
                del left[0]
        return left


def _labels(command: Spawn) -> frozenset[Label]:
    return frozenset((*command.profile.labels, *command.labels))


def _is_alike(agent: Agent, profile: Profile, labels: frozenset[Label]) -> bool:
    """Whether they are better apart: of one profile or, without one, with the same labels."""
    if profile.name:
        return agent.record is not None and agent.record.birth.profile == profile.name
    return labels <= frozenset(agent.tag.labels)


def _obstacle(host: Host) -> Safe:
    if host.state is HostState.CONNECTING:
        return literal("is not connected so far")
    if host.state is HostState.DOWN:
        return join((literal("is out of reach"), _bracketed(host.reason)))
    age_s = host.stale_s(time.time())
    if age_s is not None:
        return literal(f"was heard last {age_s:.0f} s ago")
    if host.capabilities and "spawn" in host.capabilities.missing:
        return sanitize(host.capabilities.missing["spawn"])
    return EMPTY


def _given(agent: Agent, overhead: int) -> int:
    """The most that its VM may take while it is on."""
    if agent.vm is None or agent.vm.power not in _ON or agent.vm.memory_bytes is None:
        return 0
    return agent.vm.memory_bytes + overhead


def _growth(agent: Agent, overhead: int) -> int:
    """What it may take beyond what it holds now; all of it while nobody tells what it holds."""
    held = agent.usage.memory_host if agent.usage else None
    return max(0, _given(agent, overhead) - (held or 0))
