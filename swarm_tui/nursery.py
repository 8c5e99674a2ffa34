"""New agents: who and of what one is made stands in its record before there is anything of it."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Callable, Collection, MutableMapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from swarm_tui.catalogue import Catalogue, Claim
from swarm_tui.command import FORKS, Fork, Spawn
from swarm_tui.errors import AgentGone, SnapshotError, SwarmError, Unsupported, UsageError
from swarm_tui.fact import OperationChanged, Recorded
from swarm_tui.lifecycle import Timeline, claimed
from swarm_tui.lifecycle.ground import explain, in_thread
from swarm_tui.model import (
    Agent,
    AgentId,
    Birth,
    Cause,
    Operation,
    Origin,
    Power,
    Record,
    SnapshotId,
    Verb,
)
from swarm_tui.placement import Promises
from swarm_tui.ports import Forker, Order, Parent, Progress, Source, Spawned
from swarm_tui.review.depot import Depot
from swarm_tui.site import Place
from swarm_tui.text import EMPTY, Safe, join, literal, sanitize
from swarm_tui.watch.task import Apply


@dataclass(slots=True)
class Births:
    """Agents that are about to be: each is ours from its naming on, and has a record."""

    place: Place
    birth: Birth
    verb: Verb
    _catalogue: Catalogue
    _apply: Apply
    _at_work: MutableMapping[AgentId, Verb]
    _on_known: Callable[[AgentId], None]
    """Told who has a record, and is in the store, from now on."""
    _stack: AsyncExitStack
    _claims: dict[AgentId, Claim] = field(default_factory=dict)
    _kept: set[AgentId] = field(default_factory=set)
    _began: float = field(default_factory=time.time)
    _step: Safe = EMPTY
    _fraction: float | None = None

    async def note(self, agent: AgentId, name: Safe) -> None:
        """Somebody is about to be; `ports.OnNamed`. Raises Busy, StoreError."""
        if agent not in self._claims:
            self._at_work[agent] = self.verb
            claim = claimed(self._catalogue, agent, self.verb)
            self._claims[agent] = await self._stack.enter_async_context(claim)
        host = self.place.site.hypervisor.host
        # A fork is a spawn to whoever mends it: nobody knows of it yet.
        record = Record(agent, name, host, verb=Verb.SPAWN, birth=self.birth)
        record = await asyncio.to_thread(self._claims[agent].write, record)
        self._apply(Recorded(agent, record))
        self.show(self._step, self._fraction)
        self._on_known(agent)

    def show(self, step: Safe, fraction: float | None) -> None:
        """Tell how far they are; a `ports.Progress`."""
        self._step, self._fraction = step, fraction
        for agent in self._claims.keys() - self._kept:
            operation = Operation(self.verb, step, fraction, self._began)
            self._apply(OperationChanged(agent, operation))

    def telling(self, on_progress: Progress) -> Progress:
        """Tells whoever asked for them as well."""

        def tell(step: Safe, fraction: float | None) -> None:
            self.show(step, fraction)
            on_progress(step, fraction)

        return tell

    async def keep(self, agent: AgentId, name: Safe) -> None:
        """It is there, and answers. Raises StoreError."""
        if claim := self._claims.get(agent):
            self._kept.add(agent)
            host = self.place.site.hypervisor.host
            record = await asyncio.to_thread(claim.record, agent)
            record = record or Record(agent, name, host, birth=self.birth)
            record = await asyncio.to_thread(claim.write, replace(record, name=name, verb=None))
            self._apply(Recorded(agent, record))

    async def end(self) -> None:
        """Forget who came to nothing. Raises nothing: why they did is what is to be told."""
        for agent, claim in self._claims.items():
            if agent not in self._kept and await self._is_gone(agent):
                with suppress(SwarmError):  # then it is mended
                    await asyncio.to_thread(claim.remove, agent)
                    self._apply(Recorded(agent, None))
            self._apply(OperationChanged(agent, None))

    def let_go(self) -> None:
        for agent in self._claims:
            self._at_work.pop(agent, None)

    async def _is_gone(self, agent: AgentId) -> bool:
        try:
            await self.place.site.hypervisor.describe(agent)
        except AgentGone:
            return True
        except SwarmError:
            return False
        return False


class Nursery:
    """Where agents of all hosts come from."""

    def __init__(
        self,
        catalogue: Catalogue,
        depot: Depot | None,
        apply: Apply,
        at_work: MutableMapping[AgentId, Verb],
        promises: Promises,
    ) -> None:
        """Without a `depot` no repository is delivered: agents begin with their images' own."""
        self._catalogue = catalogue
        self._depot = depot
        self._apply = apply
        self._at_work = at_work
        self._promises = promises

    @asynccontextmanager
    async def births(
        self, place: Place, birth: Birth, verb: Verb, on_known: Callable[[AgentId], None]
    ) -> AsyncIterator[Births]:
        """For agents on one host, made in one act.

        Of those that are not `keep`t nothing is left at the end. Where that cannot be made sure
        of, because the host is out of reach or we are killed, their records stay, and
        `Lifecycle.recover` ends what there is of them.
        """
        async with AsyncExitStack() as stack:
            births = Births(
                place, birth, verb, self._catalogue, self._apply, self._at_work, on_known, stack
            )
            stack.callback(births.let_go)
            try:
                yield births
            finally:
                await asyncio.shield(births.end())

    async def spawn(
        self,
        command: Spawn,
        place: Place,
        on_progress: Progress,
        on_known: Callable[[AgentId], None],
    ) -> Spawned:
        """Make an agent and wait until it answers over SSH. Raises SwarmError.

        `on_known` is told who it will be as soon as there is a record of it.
        """
        profile, spawner = command.profile, place.site.spawner
        assert spawner is not None  # placed
        place.work_here()
        await asyncio.to_thread(self._catalogue.database.check)
        environment = profile.variables(os.environ)
        source: Source | None = None
        if profile.repository and self._depot:
            source = await self._depot.get(profile.repository, profile.ref, on_progress)
        labels = {label.key: label for label in (*profile.labels, *command.labels)}
        task, own = command.task or profile.task, tuple(labels[key] for key in sorted(labels))
        order = Order(command.name, task, own, profile, source, environment)
        memory = spawner.needs(profile).guest
        birth = _birth(command, source.repository if source else None, memory)
        async with self.births(place, birth, Verb.SPAWN, on_known) as births:
            tell = births.telling(on_progress)
            spawned = await spawner.spawn(order, tell, births.note)
            await births.keep(spawned.agent, spawned.name)
        return spawned

    async def fork(
        self,
        command: Fork,
        agent: Agent,
        record: Record,
        lifecycle: Timeline,
        place: Place,
        names: Collection[str],
        on_progress: Progress,
    ) -> Safe:
        """Make forks of an agent that the caller holds. Raises SwarmError.

        Those that were made stay when another one fails; the error says which. `names` are taken.
        Where not all of them have room it is Refused, with the agent untouched.
        """
        with self._promises.forked(command) as on_known:
            return await self._fork(
                command, agent, record, lifecycle, place, names, on_progress, on_known
            )

    async def _fork(
        self,
        command: Fork,
        agent: Agent,
        record: Record,
        lifecycle: Timeline,
        place: Place,
        names: Collection[str],
        on_progress: Progress,
        on_known: Callable[[AgentId], None],
    ) -> Safe:
        forker = place.site.spawner
        if not isinstance(forker, Forker):
            raise Unsupported(f"{agent.name} cannot be forked", "Its host makes no agents.")
        if not 0 < command.count <= FORKS:
            raise UsageError(f"{command.count} forks cannot be made", f"1 to {FORKS} can.")
        chosen, remark = command.snapshot or record.saved_in, EMPTY
        vm = agent.vm
        if not command.snapshot and vm and vm.power is Power.RUNNING:
            origin = Origin(Cause.FORK, literal("fork"))
            kept, stop_s, remark = await lifecycle.capture(
                vm, record, Verb.FORK, origin, on_progress
            )
            chosen = kept.id
            remark = join((literal(f"{agent.name} stood still for {stop_s:.2f} s"), remark), "; ")
        if chosen is None or vm is None:
            raise SnapshotError("There is nothing to fork from", "It is off and not saved.")
        on_progress(literal("checking the snapshot"), None)
        await in_thread(lifecycle.snapshots.verify, agent.id, chosen, lifecycle.maker())
        snapshot = await in_thread(lifecycle.snapshots.read, agent.id, chosen)
        definition = await in_thread(lifecycle.snapshots.definition, agent.id, chosen)
        memory, *disks = await in_thread(lifecycle.snapshots.parts, agent.id, chosen)
        parent = Parent(agent.id, agent.name, vm.tag, definition, memory, disks, snapshot.is_frozen)
        birth = _inherited(record, chosen, vm.memory_bytes)
        async with self.births(place, birth, Verb.FORK, on_known) as births:
            tell = births.telling(on_progress)

            async def make(name: str) -> Spawned:
                forked = await forker.fork(parent, name, command.task, tell, births.note)
                await births.keep(forked.agent, forked.name)
                return forked

            wanted = _names(command.prefix or agent.name, command.count, names)
            results = await asyncio.gather(*map(make, wanted), return_exceptions=True)
        made = [forked for forked in results if isinstance(forked, Spawned)]
        told = join([sanitize(f"{one.name} ({one.agent}, {one.seconds:.1f} s)") for one in made])
        for failure in results:
            if isinstance(failure, BaseException):
                if isinstance(failure, SwarmError):
                    explain(failure, f"{len(made)} of {command.count} forks are there: {told}")
                raise failure
        return join((literal("forked:"), join((told, remark), "; ")))


def _names(prefix: str, count: int, taken: Collection[str]) -> Sequence[str]:
    numbers = (f"{prefix}-{number}" for number in itertools.count(1))
    return list(itertools.islice((name for name in numbers if name not in taken), count))


def _inherited(record: Record, snapshot: SnapshotId, memory: int | None) -> Birth:
    """Of a fork: its time begins anew, and what was done by its parent's rules is not its own."""
    ttl_s = record.birth.life.ttl_s
    return replace(
        record.birth,
        parent=record.id,
        snapshot=snapshot,
        expires=None if ttl_s is None else time.time() + ttl_s,
        is_pinned=False,
        acted=None,
        unkept=EMPTY,
        memory_mib=None if memory is None else memory >> 20,
    )


def _birth(command: Spawn, repository: Path | None, memory: int) -> Birth:
    life = command.profile.life
    return Birth(
        profile=command.profile.name,
        repository=repository,
        life=life,
        expires=None if life.ttl_s is None else time.time() + life.ttl_s,
        memory_mib=memory >> 20,
        checkpoint=command.profile.checkpoint,
    )
