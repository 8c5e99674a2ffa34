"""On which host a new agent is made, and why: by free memory, and spread over the hosts.

Pure but for `Promises`, which remembers what agents will take that nobody sees so far. What an
agent may still grow by counts as taken, and so does what is on its way back from the disk, so that
the kernel of a host never has to choose whom to end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from swarm_tui.command import FORKS, Fork, Spawn
from swarm_tui.errors import NotFound, Refused, SwarmError, Unsupported, UsageError
from swarm_tui.label import Label
from swarm_tui.model import Agent, AgentId, Host, HostName, HostState, Power, State, Verb
from swarm_tui.ports import Needs, Spawned
from swarm_tui.profile import PLAIN, Profile
from swarm_tui.store import RESTORING, Store
from swarm_tui.text import EMPTY, Safe, join, literal, sanitize

FRESH_S: Final = 2.0
"""Figures of a host that are older are read again before they are gone by."""
RISK: Final = literal("A host that runs out of memory may end any of its agents.")
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
    what = f"It {_tell_needs(needs)}; {_mib(reserve)} of each host stay free."
    return Refused(
        "No host has memory for another agent",
        join((literal(what), join(each, "; "))),
        "End or pause an agent, or give new ones less memory. A host that does not tell its memory"
        " is taken only when it is named; supervisor.reserve_mib is what stays free.",
    )


def _refuse_forks(
    room: Room, reserve: int, placed: Sequence[Placed], commands: Sequence[Fork]
) -> Refused:
    error = _refusal([room], reserve)
    wanted = sum(command.count for command in commands)
    if wanted == 1:
        return error
    told = f"There is room for {len(placed)} of {wanted} forks"
    return Refused(told, error.detail, error.hint)


def _tell_needs(needs: Needs) -> str:
    vmm = f"and, as an estimate, {_mib(needs.overhead)} for the VMM itself"
    return f"needs {_mib(needs.guest)} {vmm}"


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
    """Agents that one act makes, all alike."""

    host: HostName
    each: int
    """Bytes."""
    count: int
    profile: Safe
    labels: frozenset[Label]
    named: set[AgentId] = field(default_factory=set)

    def lacks(self, seen: Collection[AgentId]) -> int:
        """How many of them are not among those."""
        return max(0, self.count - len(self.named.intersection(seen)))


class Maker(Protocol):
    """What makes agents on a host, as far as their place goes; a `ports.Spawner` is one."""

    def needs(self, profile: Profile) -> Needs: ...


class Promises:
    """What agents will take of each host that are not there yet.

    Those that have a record count for every supervisor; until then only for the one that makes
    them, so that two who begin in the same moment may take the same room.
    """

    def __init__(self, store: Store, makers: Mapping[HostName, Maker], reserve: int) -> None:
        """`reserve`: bytes of each host that stay free."""
        self._store = store
        self._makers = makers
        self._reserve = reserve
        self._open: list[_Promise] = []

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

    def foresee_forks(self, commands: Sequence[Fork]) -> Forecast:
        """What would become of these, one after the other. Never blocks."""
        left: dict[HostName, Room] = {}
        placed: list[Placed] = []
        for command in commands:
            try:
                whole = self._room_of_fork(command)
            except SwarmError as error:
                return Forecast(placed, error)
            room = left.get(whole.host, whole)
            for _ in range(min(command.count, FORKS)):
                try:
                    placed.append(choose([replace(room, needs=whole.needs)], self._reserve))
                except Refused:
                    # In an act that is refused as a whole, none has taken anything.
                    return Forecast(placed, _refuse_forks(whole, self._reserve, placed, commands))
                room = replace(room, needs=whole.needs).with_one_more()
            left[whole.host] = room
        return Forecast(placed)

    def doubts(self, agents: Iterable[AgentId]) -> Sequence[Safe]:
        """What speaks against bringing back those of these agents that are saved: sentences.

        None where there is memory for them, and where nobody knows. Never blocks.
        """
        saved: dict[HostName, list[Agent]] = {}
        for agent in filter(None, map(self._store.agent, agents)):
            if agent.state is State.SAVED and agent.vm and agent.vm.memory_bytes:
                saved.setdefault(agent.host, []).append(agent)
        told = [*filter(None, (self._doubt(host, back) for host, back in saved.items()))]
        return [*told, RISK] if told else []

    @contextmanager
    def placed(self, command: Spawn) -> Iterator[tuple[Placed, Callable[[AgentId], None]]]:
        """Its place, held for it until the block is left, and what is to be told who it is.

        Raises Refused where no host has one, Unsupported, UsageError.
        """
        chosen = choose(self.rooms(command), self._reserve)
        size, profile = chosen.needs.total, command.profile.name
        with self._held(_Promise(chosen.host, size, 1, profile, _labels(command))) as promise:
            yield chosen, promise.named.add

    @contextmanager
    def forked(self, command: Fork) -> Iterator[Callable[[AgentId], None]]:
        """Room for all of them, held until the block is left; for what is to be told who they are.

        Raises Refused where there is not enough, NotFound.
        """
        self.check(command)
        room = self._room_of_fork(command)
        with self._held(
            _Promise(room.host, room.needs.total, command.count, EMPTY, frozenset())
        ) as promise:
            yield promise.named.add

    def check(self, command: Fork) -> None:
        """Raise Refused unless all of them have room now."""
        if error := self.foresee_forks([command]).error:
            raise error

    def rooms(self, command: Spawn) -> Sequence[Room]:
        """What each candidate has for it. Raises Unsupported, UsageError."""
        hosts = self.candidates(command)
        agents = self._agents_on(hosts)
        return [self._room(host, command, agents[host]) for host in hosts]

    @contextmanager
    def _held(self, promise: _Promise) -> Iterator[_Promise]:
        self._open.append(promise)
        try:
            yield promise
        finally:
            self._open.remove(promise)

    def _agents_on(self, hosts: Iterable[HostName]) -> Mapping[HostName, Sequence[Agent]]:
        found: dict[HostName, list[Agent]] = {host: [] for host in hosts}
        for agent in self._store.agents():
            if agent.host in found:
                found[agent.host].append(agent)
        return found

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
        return self._measured(host, needs, agents, command.profile.name, _labels(command))

    def _room_of_fork(self, command: Fork) -> Room:
        """Of one: it takes what its source was given. Raises NotFound."""
        agent = self._store.agent(command.agent)
        if agent is None:
            raise NotFound("No such agent", command.agent, "`swarm-tui ls` shows all.")
        given = agent.vm.memory_bytes if agent.vm else None
        agents = self._agents_on([agent.host])[agent.host]
        room = self._room(agent.host, Spawn(agent.host), agents)
        return replace(room, needs=replace(room.needs, guest=given or room.needs.guest))

    def _doubt(self, name: HostName, back: Sequence[Agent]) -> Safe:
        host, maker = self._store.host(name), self._makers.get(name)
        if host is None or host.state is not HostState.UP:
            return EMPTY
        given = sum(agent.vm.memory_bytes or 0 for agent in back if agent.vm)
        overhead = maker.needs(PLAIN).overhead if maker else 0
        needs = Needs(given, overhead * len(back))
        agents = self._agents_on([name])[name]
        room = self._measured(host, needs, agents, EMPTY, frozenset())
        if room.spare is None or room.holds(self._reserve):
            return EMPTY
        who = back[0].name if len(back) == 1 else literal(f"{len(back)} agents")
        which = "needs" if len(back) == 1 else "need"
        what = _tell_needs(needs).replace("needs", which, 1)
        kept = f"of which {_mib(self._reserve)} are to stay free"
        there = join((_tell_other(room), literal(kept)), ", ")
        return join((join((who, literal(what))), there), "; ")

    def _measured(
        self,
        host: Host,
        needs: Needs,
        agents: Sequence[Agent],
        profile: Safe,
        labels: frozenset[Label],
    ) -> Room:
        promises = [promise for promise in self._open if promise.host == host.name]
        known = {agent.id for agent in agents}
        # Of one that has no VM so far a record tells the profile, and nothing the labels.
        labelled = known if profile else {agent.id for agent in agents if agent.vm}
        alike = sum(_is_alike(agent, profile, labels) for agent in agents)
        for promise in promises:
            if promise.profile == profile and (profile or promise.labels >= labels):
                alike += promise.lacks(labelled)
        sizes = {agent.id: _coming(agent, needs.overhead) for agent in agents}
        counted = {agent.id for agent in agents if sizes[agent.id] or _is_on(agent)}
        coming = sum(sizes.values())
        coming += sum(promise.each * promise.lacks(counted) for promise in promises)
        if host.memory_free is not None or host.memory_total is None:
            free, is_estimated = host.memory_free, False
            coming += sum(_growth(agent, needs.overhead) for agent in agents)
        else:
            # Then growth is in it already: what was given is taken off in full.
            given = sum(_given(agent, needs.overhead) for agent in agents)
            free, is_estimated = host.memory_total - given, True
        return Room(
            host.name,
            needs=needs,
            free=free,
            is_estimated=is_estimated,
            unknown=sanitize(host.missing.get("memory_free", "")),
            promised=coming,
            agents=len(agents) + sum(promise.lacks(known) for promise in promises),
            alike=alike,
        )


def _labels(command: Spawn) -> frozenset[Label]:
    return frozenset((*command.profile.labels, *command.labels))


def _is_alike(agent: Agent, profile: Safe, labels: frozenset[Label]) -> bool:
    """Whether they are better apart: of one profile or, without one, with the same labels."""
    if profile:
        return agent.record is not None and agent.record.birth.profile == profile
    return agent.vm is not None and labels <= frozenset(agent.tag.labels)


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
    if agent.vm is None or not _is_on(agent) or agent.vm.memory_bytes is None:
        return 0
    return agent.vm.memory_bytes + overhead


def _is_on(agent: Agent) -> bool:
    return agent.vm is not None and agent.vm.power in _ON


def _growth(agent: Agent, overhead: int) -> int:
    """What it may take beyond what it holds now; all of it while nobody tells what it holds."""
    held = agent.usage.memory_host if agent.usage else None
    return max(0, _given(agent, overhead) - (held or 0))


def _coming(agent: Agent, overhead: int) -> int:
    """What it will take when a verb has made it, or brought it back: ours, or another's."""
    if agent.operation is None or _is_on(agent):
        return 0
    record, given = agent.record, agent.vm.memory_bytes if agent.vm else None
    if record and record.verb is Verb.SPAWN:
        given = given or (record.birth.memory_mib or 0) << 20
    elif agent.operation.verb not in RESTORING:
        return 0
    return given + overhead if given else 0
