"""The deep one: connects hosts, keeps the store true, and does what a person commands.

Screens and the command line know only this class, the store and the model. Facts come in by the
event road (hint → re-read → store), commands go out by the command road (policy → audit intent →
port → audit outcome); a command never writes a state, it comes back as a fact.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from swarm_tui.audit import Audit, Entry
from swarm_tui.cadence import SILENT, Cadence, Checkpoints
from swarm_tui.catalogue import Catalogue, Claim
from swarm_tui.catalogue.shells import Shells
from swarm_tui.command import Command, End, Fork, Kill, Pause, Shell, Spawn
from swarm_tui.errors import (
    Busy,
    GuestCut,
    HostUnreachable,
    NotFound,
    Refused,
    StoreUnreachable,
    SwarmError,
)
from swarm_tui.fact import Fact, OperationChanged, Recorded
from swarm_tui.inventory import Inventory, Kept
from swarm_tui.lifecycle import (
    UNKNOWN,
    Bequest,
    Handoff,
    Steered,
    Terms,
    Timeline,
    claimed,
    detail,
    fenced,
    steer,
)
from swarm_tui.looks import Looks
from swarm_tui.model import (
    Agent,
    AgentId,
    Capabilities,
    HostName,
    Operation,
    Record,
    State,
    Verb,
)
from swarm_tui.nursery import Nursery
from swarm_tui.placement import FRESH_S, Forecast, Promises, tell
from swarm_tui.policy import Decision, Deny, decide
from swarm_tui.ports import Console, Guest, Progress, Spawned
from swarm_tui.results import Results
from swarm_tui.retention import KEEP_ALL, Keeping, Retention, holding
from swarm_tui.review.comparison import Comparison, open_comparison
from swarm_tui.review.depot import Depot
from swarm_tui.review.desk import Reading, open_reading
from swarm_tui.rules import Rules
from swarm_tui.site import Place, Site, Timing, spawning
from swarm_tui.snapshot import Archive
from swarm_tui.spool import Spool
from swarm_tui.stocks import Stocks
from swarm_tui.store import Store
from swarm_tui.text import Safe, join, literal, sanitize
from swarm_tui.watch import GuestWatch, RecordWatch, relisted, settled
from swarm_tui.watch.task import Tasks

T = TypeVar("T")

ENDED_KEPT: Final = 1000
RESERVE: Final = 512 << 20


class Supervisor:
    """Owns every long task. Use as an async context manager, or `start` and `close`."""

    def __init__(
        self,
        sites: Sequence[Site],
        guest: Guest,
        catalogue: Catalogue,
        snapshots: Archive,
        audit: Audit,
        terms: Terms,
        *,
        keeping: Keeping = KEEP_ALL,
        cadence: Cadence = SILENT,
        reserve: int = RESERVE,
        timing: Timing | None = None,
        is_following: bool = True,
        logs: Spool | None = None,
        depot: Depot | None = None,
        stocks: Stocks | None = None,
    ) -> None:
        """`keeping`, `cadence`: which snapshots stay, and when they are made by themselves.

        `reserve`: bytes of each host's memory that spawns leave free.

        `is_following`: hold a link into every guest; not needed for a single verb. `logs`: where
        what guests say is kept on disk. `depot`: what makes repositories ready.
        `stocks`: what keeps agents ready in advance.
        """
        self.store = Store()
        self.logs = logs
        self.audit = audit
        self.snapshots = snapshots
        self._inventory = Inventory(catalogue.database)
        self.terms = terms
        self._catalogue = catalogue
        self.results = Results(catalogue.database, catalogue.root.parent / "results")
        self._retention = Retention(
            keeping, holding(catalogue.records), self._inventory.total_bytes
        )
        self._is_following = is_following
        self._tasks = Tasks()
        self._verbs: set[asyncio.Task[Any]] = set()
        self._at_work: dict[AgentId, Verb] = {}
        self._start_task, self._faults = self._tasks.start, self._tasks.faults
        self._ended: deque[Entry] = deque(maxlen=ENDED_KEPT)
        shells, tell = Shells(catalogue.database), self._faults.append
        self.rules = Rules(self.store.agents, self.do, shells, self._start_task, tell)
        past = (self._inventory, shells, audit)
        self.checkpoints = Checkpoints(
            cadence, self.store.agents, self.do, *past, self._start_task, tell
        )
        self._places = {
            site.hypervisor.host: Place.of(
                site, guest, self._apply, self._take_records, timing or Timing()
            )
            for site in sites
        }
        spawners = {site.hypervisor.host: site.spawner for site in sites if site.spawner}
        self.promises = Promises(self.store, spawners, reserve)
        self._nursery = Nursery(catalogue, depot, self._apply, self._at_work, self.promises)
        self.stocks = stocks or Stocks()
        self._guests = GuestWatch(
            self.store.agent,
            lambda agent: self._place_of(agent).guest,
            self._apply,
            self._start_task,
            logs,
        )
        self._records = RecordWatch(
            catalogue,
            self.store,
            self._apply,
            self._start_task,
            self._places.keys(),
            self._at_work.keys(),
            self._lifecycle,
            lambda agent: self._place_of(agent).watch.reread(agent.id),
            self._faults.append,
        )

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Begin to connect to all hosts, in the background; returns at once."""
        for name, place in self._places.items():
            self._start_task(place.watch.run(), f"watch {name}", place.watch.give_up)
        self._start_task(self._records.run(), "watch records")
        self._start_task(self.audit.keep_up(self._faults.append), "keep the audit log up")
        if self._is_following:
            self._start_task(self._guests.take_turns(), "take turns")
            self._start_task(self.rules.run(), "carry out rules")
            self._start_task(self.checkpoints.run(), "make checkpoints")
            is_busy, tell = self.store.is_busy, self._faults.append
            filling = self.stocks.run(
                self.foresee, lambda on: bool(self._verbs or is_busy(on)), tell
            )
            self._start_task(filling, "keep agents ready")

    async def close(self) -> None:
        """Let verbs at work come to their end, then let go of every host and guest."""
        while self._verbs or self._records.mending:
            await asyncio.wait({*self._verbs, *self._records.mending.values()})
        await self._guests.close()
        await self._tasks.end()
        for place in self._places.values():
            place.close()
        for guest in {id(place.guest): place.guest for place in self._places.values()}.values():
            await guest.close()
        await asyncio.to_thread(self._catalogue.close)

    async def connected(
        self, timeout_s: float, is_enough: Callable[[], bool] = lambda: False
    ) -> None:
        """As `watch.settled`, for all hosts."""
        await settled((place.watch for place in self._places.values()), timeout_s, is_enough)

    # What is known

    def show(self, agents: Collection[AgentId]) -> None:
        """Take in which agents are on the screen now; their guests are heard first."""
        self._guests.show(agents)

    def may(self, verb: Verb, agent: AgentId | None, *, is_quick: bool = False) -> Decision:
        """Whether `verb` is legal now, and why not; for footers, menus and dialogs."""
        if verb is Verb.SPAWN:
            return decide(verb, None, spawning(self._places))
        known = self.store.agent(agent) if agent else None
        return decide(verb, known, self._capabilities(known), is_quick=is_quick)

    def spawners(self) -> Sequence[HostName]:
        """Hosts on which new agents can be made."""
        return [name for name, place in self._places.items() if place.site.spawner]

    def foresee(self, command: Spawn, count: int = 1) -> Forecast:
        """Where `count` of them would be made now, and why there; reads nothing, never blocks."""
        return self.promises.foresee(command, count)

    def take_faults(self) -> Sequence[BaseException]:
        """Errors that no verb is to blame for, since the last call; for the screen."""
        faults = list(self._faults)
        self._faults.clear()
        return faults

    def take_ended(self) -> Sequence[Entry]:
        """Verbs of this supervisor that ended since the last call, oldest first."""
        ended = list(self._ended)
        self._ended.clear()
        return ended

    def acts(self, agent: AgentId | None = None) -> Sequence[Entry]:
        """What was done, to one agent or to all, by everybody, oldest first; see `audit.gap`."""
        return self.audit.recent(agent)

    async def past(self, agent: AgentId) -> tuple[Sequence[Kept], SwarmError | None]:
        """Its snapshots, oldest first, and why its host could not be asked for them.

        Raises NotFound, StoreError.
        """
        place = self._place_of(self._known(agent))
        return await place.past(agent, self.snapshots, self._inventory)

    def repository(self, agent: AgentId) -> Path | None:
        """Where the agent's approved work would land; None: nowhere yet. Raises NotFound."""
        return self._repository_of(self._known(agent))

    async def reading(self, agent: AgentId) -> Reading:
        """The review that is open on the agent; close it after use. Raises NotFound."""
        known = self._known(agent)
        if known.record is None or known.record.review is None:
            raise NotFound(f"No review of {known.name} is open")
        number, own = known.record.review, self._repository_of(known)
        return await open_reading(self.terms.shelf, agent, number, own)

    async def comparison(self, a: AgentId, b: AgentId, tell: Progress | None = None) -> Comparison:
        """What two agents have done until now; close it. As `Looks`; raises SwarmError."""
        stores = (self.terms.shelf, self._inventory)
        looks = Looks(*stores, self.do, self._repository_of, self.store.agent)
        parties = await looks.parties([self._known(a), self._known(b)], tell or _unseen)
        return await open_comparison(self.terms.shelf, *parties)

    def console(self, agent: AgentId) -> AbstractAsyncContextManager[Console]:
        """The agent's serial console. Raises NotFound."""
        return self._place_of(self._known(agent)).site.hypervisor.console(agent)

    async def freshen(self, hosts: Iterable[HostName]) -> None:
        """Read how much memory is free on these hosts, unless that was a moment ago."""
        watches = [self._places[host].watch for host in hosts if host in self._places]
        await asyncio.gather(*(watch.freshen(FRESH_S) for watch in watches))

    async def refresh(self, agent: AgentId | None = None) -> None:
        """Read again now, one agent or everything; a host out of reach is tried at once."""
        if agent:
            await self._place_of(self._known(agent)).watch.reread(agent)
        else:
            await relisted(place.watch for place in self._places.values())

    # What is done

    async def do(self, command: Command, on_progress: Progress | None = None) -> Safe:
        """Do it, and return a plain sentence on what was done. Raises SwarmError.

        Cancelling the caller does not cancel the verb. An `Ask` of the policy counts as
        answered: the caller has confirmed it.
        """
        if isinstance(command, Spawn):
            return tell(await self.spawn(command, on_progress))
        return await self._shielded(self._perform(command, on_progress), command.verb)

    async def spawn(self, command: Spawn, on_progress: Progress | None = None) -> Spawned:
        """As `do`, and tell who was made, where and why there."""
        return await self._shielded(self._spawn(command, on_progress or _unseen), command.verb)

    async def _shielded(self, work: Coroutine[Any, Any, T], name: str) -> T:
        task = asyncio.create_task(work, name=name)
        self._verbs.add(task)
        task.add_done_callback(self._verbs.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            # Nobody waits for its end any more; a failure must be told all the same.
            task.add_done_callback(self._tasks.note)
            raise

    async def _perform(self, command: Steered | Shell, on_progress: Progress | None) -> Safe:
        agent = self._known(command.agent)
        place = self._place_of(agent)
        if isinstance(command, Shell):
            agent = await self._decide(command, agent, place)
            return await self._audited(Verb.SHELL, agent, agent.host, "", _nothing)
        if at_work := self._at_work.get(agent.id):
            raise Busy(f"{at_work} is still at work on {agent.name}", "", "Wait until it is done.")
        self._at_work[agent.id] = command.verb
        try:
            await self._records.mended(agent.id)
            async with claimed(self._catalogue, agent.id, command.verb) as claim:
                return await self._perform_claimed(command, agent, place, claim, on_progress)
        finally:
            del self._at_work[agent.id]

    async def _perform_claimed(
        self,
        command: Steered,
        agent: Agent,
        place: Place,
        claim: Claim,
        on_progress: Progress | None,
    ) -> Safe:
        """Decide by what is true now that nobody else can change it, then do it."""
        self._records.take_over(agent.id)
        # Not what the store believes: another process may have acted a moment ago.
        record = await asyncio.to_thread(claim.record, agent.id)
        record = record or Record(agent.id, agent.name, agent.host)
        lifecycle = self._lifecycle(agent, claim)
        if lifecycle and record.verb and not isinstance(command, Kill):
            record = await lifecycle.recover(record)
        self._apply(Recorded(agent.id, record))
        agent = await self._decide(command, agent, place)
        await self.rules.check(agent, command)
        if lifecycle is None:
            raise HostUnreachable(f"Host {agent.host} is not connected")
        await self.checkpoints.check(agent, command, lifecycle)
        if isinstance(command, Fork):
            await self.freshen([agent.host])
            self.promises.check(command)
        terms = replace(self.terms, shelf=fenced(self.terms.shelf, claim.check))
        handoff = Handoff(lifecycle, terms, self._repository_of(agent))
        peak = self.store.memory_peak(agent.id)
        bequest = Bequest(handoff, self.results, self._catalogue.folder(agent.id), peak)
        try:
            with self._operation(agent, command.verb, on_progress) as progress:

                async def act() -> Safe:
                    if not isinstance(command, Fork):
                        return await steer(command, agent, record, bequest, progress)
                    names = {str(known.name) for known in self.store.agents()}
                    return await self._nursery.fork(
                        command, agent, record, lifecycle, place, names, progress
                    )

                verb, told = command.verb, detail(command)
                return await self._audited(verb, agent, agent.host, told, act)
        finally:
            with contextlib.suppress(SwarmError):  # the verb's own outcome matters more
                if isinstance(command, Kill | End):
                    await self._records.take(agent.id)
                await place.watch.reread(agent.id)

    async def _decide(self, command: Command, agent: Agent, place: Place) -> Agent:
        """Read the VM now, and raise Refused unless the policy allows the command then."""
        if agent.state is not State.LOST:
            await place.watch.reread(agent.id)
        agent = self._known(agent.id)
        is_quick = isinstance(command, Pause) and command.is_quick
        decision = self.may(command.verb, agent.id, is_quick=is_quick)
        if isinstance(decision, Deny):
            raise Refused(f"{command.verb} of {agent.name} is not possible now", decision.reason)
        return agent

    async def _spawn(self, command: Spawn, on_progress: Progress) -> Spawned:
        await self.freshen(self.promises.candidates(command))
        with self.promises.placed(command) as (placed, on_known):
            on_progress(placed.reason, None)
            spawned: list[Spawned] = []

            async def act() -> Safe:
                place = self._places[placed.host]
                made = await self._nursery.spawn(command, place, on_progress, on_known)
                spawned.append(replace(made, host=placed.host, reason=placed.reason))
                with contextlib.suppress(SwarmError):  # it is there; the next list will show it
                    await place.watch.reread(made.agent)
                return tell(spawned[0])

            told = join((command.profile.name, sanitize(command.task), placed.reason), "; ")
            await self._audited(Verb.SPAWN, None, placed.host, told, act)
            return spawned[0]

    async def _audited(
        self,
        verb: Verb,
        agent: Agent | None,
        host: HostName,
        detail: str,
        act: Callable[[], Awaitable[Safe]],
    ) -> Safe:
        return await self.audit.around(
            verb,
            act,
            agent=agent,
            host=host,
            detail=detail,
            is_unknown=lambda error: (
                isinstance(error, (*UNKNOWN, StoreUnreachable))
                or (verb is Verb.MESSAGE and isinstance(error, GuestCut))
            ),
            on_fault=self._faults.append,
            on_end=self._ended.append,
        )

    # How it hangs together

    async def _take_records(self) -> None:
        await self._records.try_look()

    def _apply(self, fact: Fact) -> bool:
        changed = self.store.apply(fact)
        if changed and self._is_following:
            for agent in self.store.take_moved():
                self._guests.tend(agent, self.store.agent(agent))
        return changed

    @contextlib.contextmanager
    def _operation(
        self, agent: Agent, verb: Verb, on_progress: Progress | None
    ) -> Iterator[Progress]:
        """Show a verb at work, step by step, until it ends."""
        started = time.time()

        def progress(step: Safe, fraction: float | None) -> None:
            self._apply(OperationChanged(agent.id, Operation(verb, step, fraction, started)))
            if on_progress:
                on_progress(step, fraction)

        progress(literal("begins"), None)
        try:
            yield progress
        finally:
            self._apply(OperationChanged(agent.id, None))

    def _lifecycle(self, agent: Agent, claim: Claim) -> Timeline | None:
        """The sequences on the agent's host while it is ours; None before it was connected.

        This task's work on files is in that host's threads from here on.
        """
        if (place := self._places.get(agent.host)) is None:
            return None
        return place.lifecycle(
            claim, self.snapshots, self._inventory, self._retention, self._note_record
        )

    def _note_record(self, record: Record) -> None:
        self._apply(Recorded(record.id, record))

    def _known(self, agent: AgentId) -> Agent:
        known = self.store.agent(agent)
        if known is None:
            raise NotFound("No such agent", agent, "`swarm-tui ls` shows all.")
        return known

    def _place_of(self, agent: Agent) -> Place:
        place = self._places.get(agent.host)
        if place is None:
            raise NotFound(f"Host {agent.host} is not configured", f"{agent.name} is on it.")
        return place

    def _repository_of(self, agent: Agent) -> Path | None:
        """The one that it began with, by our own record of it; else its host's."""
        own = agent.record.birth.repository if agent.record else None
        return own or self._place_of(agent).site.repository

    def _capabilities(self, agent: Agent | None) -> Capabilities | None:
        place = self._places.get(agent.host) if agent else None
        return place.watch.capabilities if place else None


async def _nothing() -> Safe:
    return literal("opened")


def _unseen(_step: Safe, _fraction: float | None) -> None:
    pass
