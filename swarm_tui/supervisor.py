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
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from swarm_tui.audit import Audit, Entry, Outcome
from swarm_tui.catalogue import Catalogue
from swarm_tui.errors import (
    AuditError,
    DeadlineExceeded,
    HostUnreachable,
    NotFound,
    Refused,
    SwarmError,
    Unsupported,
)
from swarm_tui.lifecycle import Lifecycle
from swarm_tui.model import (
    Agent,
    AgentId,
    Capabilities,
    Command,
    Fact,
    HostName,
    Kill,
    Operation,
    OperationChanged,
    Pause,
    Power,
    Record,
    Recorded,
    Resume,
    Shell,
    Spawn,
    State,
    Verb,
)
from swarm_tui.policy import Decision, Deny, decide
from swarm_tui.ports import Console, Guest, Hypervisor, Progress, Spawner
from swarm_tui.snapshot import Snapshots
from swarm_tui.store import Store
from swarm_tui.text import Safe, join, literal
from swarm_tui.watch import GuestWatch, HostWatch

FAULTS_KEPT: Final = 50
RECORDS_S: Final = 1.0
"""How often the catalogue is looked at for what other processes did."""


@dataclass(frozen=True, slots=True)
class Timing:
    poll_s: float = 1.0
    relist_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Site:
    """One host with what works on it."""

    hypervisor: Hypervisor
    spawner: Spawner | None = None
    guest: Guest | None = None
    """How to reach this host's guests, where it is not the supervisor's common way."""


@dataclass(slots=True)
class _Place:
    site: Site
    watch: HostWatch
    guest: Guest


class Supervisor:
    """Owns every long task. Use as an async context manager, or `start` and `close`."""

    def __init__(
        self,
        sites: Sequence[Site],
        guest: Guest,
        catalogue: Catalogue,
        snapshots: Snapshots,
        audit: Audit,
        *,
        keep_snapshots: int = 2,
        timing: Timing = Timing(),
        is_following: bool = True,
        is_spooling: bool = True,
    ) -> None:
        """`is_following`: hold a link into every guest; not needed for a single verb.

        `is_spooling`: keep what guests say on disk.
        """
        self.store = Store()
        self.audit = audit
        self.snapshots = snapshots
        self._catalogue = catalogue
        self._keep = keep_snapshots
        self._guest = guest
        self._is_following = is_following
        self._guests = GuestWatch(
            guest, self._apply, self._start_task, catalogue.folder if is_spooling else None
        )
        self._places = {site.hypervisor.host: self._place(site, guest, timing) for site in sites}
        self._tasks: set[asyncio.Task[None]] = set()
        self._verbs: set[asyncio.Task[Safe]] = set()
        self._stamps: Mapping[AgentId, int] = {}
        self._faults: deque[BaseException] = deque(maxlen=FAULTS_KEPT)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Begin to connect to all hosts, in the background; returns at once."""
        for name, place in self._places.items():
            self._start_task(place.watch.run(), f"watch {name}")
        self._start_task(self._watch_records(), "watch records")

    async def close(self) -> None:
        """Let verbs at work come to their end, then let go of every host and guest."""
        if self._verbs:
            await asyncio.gather(*self._verbs, return_exceptions=True)
        await self._guests.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._guest.close()

    async def connected(self, timeout_s: float) -> None:
        """Wait until every host has been listed once.

        Raises the error of the first that is out of reach, without waiting for the rest.
        """
        for name, place in self._places.items():
            try:
                async with asyncio.timeout(timeout_s):
                    await place.watch.settled.wait()
            except TimeoutError as error:
                raise HostUnreachable(
                    f"Host {name} does not answer",
                    f"Nothing was heard for {timeout_s:.0f} s.",
                    "Run `swarm-tui doctor` to see what is missing.",
                ) from error
            if place.watch.error:
                raise place.watch.error

    # What is known

    def may(self, verb: Verb, agent: AgentId | None, *, is_quick: bool = False) -> Decision:
        """Whether `verb` is legal now, and why not; for footers, menus and dialogs."""
        if verb is Verb.SPAWN:
            return decide(verb, None, self._spawn_capabilities())
        known = self.store.agent(agent) if agent else None
        if known and known.state is State.PAUSED:
            is_quick = is_quick or verb is Verb.RESUME
        return decide(verb, known, self._capabilities(known), is_quick=is_quick)

    def spawners(self) -> Sequence[HostName]:
        """Hosts on which new agents can be made."""
        return [name for name, place in self._places.items() if place.site.spawner]

    def take_faults(self) -> Sequence[BaseException]:
        """Errors that no verb is to blame for, since the last call; for the screen."""
        faults = list(self._faults)
        self._faults.clear()
        return faults

    def acts(self, agent: AgentId | None = None) -> Sequence[Entry]:
        """What was done, to one agent or to all, oldest first, from the audit log."""
        return self.audit.recent(agent)

    def console(self, agent: AgentId) -> AbstractAsyncContextManager[Console]:
        """The agent's serial console. Raises NotFound."""
        return self._place_of(self._known(agent)).site.hypervisor.console(agent)

    async def refresh(self, agent: AgentId | None = None) -> None:
        """Read again now, one agent or everything."""
        if agent:
            await self._place_of(self._known(agent)).watch.reread(agent)
            return
        for place in self._places.values():
            await place.watch.relist()

    # What is done

    async def do(self, command: Command, on_progress: Progress | None = None) -> Safe:
        """Do it, and return a plain sentence on what was done. Raises SwarmError.

        Cancelling the caller does not cancel the verb. An `Ask` of the policy counts as
        answered: the caller has confirmed it.
        """
        task = asyncio.create_task(self._perform(command, on_progress), name=command.verb)
        self._verbs.add(task)
        task.add_done_callback(self._verbs.discard)
        return await asyncio.shield(task)

    async def _perform(self, command: Command, on_progress: Progress | None) -> Safe:
        if isinstance(command, Spawn):
            return await self._audited(
                Verb.SPAWN,
                None,
                command.host,
                command.task,
                lambda: self._spawn(command, on_progress),
            )
        agent = self._known(command.agent)
        place = self._place_of(agent)
        if agent.state is not State.LOST:
            await place.watch.reread(agent.id)
        agent = self._known(command.agent)
        is_quick = isinstance(command, Pause) and command.is_quick
        decision = self.may(command.verb, agent.id, is_quick=is_quick)
        if isinstance(decision, Deny):
            raise Refused(f"{command.verb} of {agent.name} is not possible now", decision.reason)
        if isinstance(command, Shell):
            return await self._audited(Verb.SHELL, agent, agent.host, "", _nothing)
        with self._catalogue.lock(agent.id), self._operation(agent, command.verb) as progress:

            def tell(step: Safe, fraction: float | None) -> None:
                progress(step, fraction)
                if on_progress:
                    on_progress(step, fraction)

            try:
                return await self._audited(
                    command.verb,
                    agent,
                    agent.host,
                    "quick" if is_quick else "",
                    lambda: self._steer(command, agent, place, tell),
                )
            finally:
                if place.watch.capabilities:
                    with contextlib.suppress(SwarmError):  # the verb's own outcome matters more
                        await place.watch.reread(agent.id)

    async def _steer(
        self, command: Command, agent: Agent, place: _Place, progress: Progress
    ) -> Safe:
        lifecycle = self._lifecycle(place)
        record = self._catalogue.record(agent.id) or Record(agent.id, agent.name, agent.host)
        # A VM that its driver forgot has no description; its record and snapshot have all.
        is_there = agent.vm is not None and agent.vm.power is not Power.OFF
        match command:
            case Pause(is_quick=True) if agent.vm:
                return await lifecycle.hold(agent.vm, progress)
            case Pause() if agent.vm:
                return await lifecycle.pause(agent.vm, progress)
            case Resume():
                return await lifecycle.resume(agent.vm if is_there else None, record, progress)
            case Kill():
                done = await lifecycle.kill(agent.vm, record, progress)
                self._apply(Recorded(agent.id, None))
                return done
        raise NotFound(f"Nothing is known of the VM of {agent.name}")

    async def _spawn(self, command: Spawn, on_progress: Progress | None) -> Safe:
        place = self._places.get(command.host)
        if place is None or place.site.spawner is None:
            raise Unsupported(
                f"No agents can be made on {command.host}",
                "It has no image to make them of.",
                f"Hosts that can: {', '.join(self.spawners()) or 'none'}.",
            )
        spawned = await place.site.spawner.spawn(command.name, command.task, on_progress or _unseen)
        await place.watch.reread(spawned.agent)
        return join((spawned.name, literal(f"answers after {spawned.seconds:.1f} s")))

    async def _audited(
        self,
        verb: Verb,
        agent: Agent | None,
        host: HostName,
        detail: str,
        act: Callable[[], Awaitable[Safe]],
    ) -> Safe:
        """Intent on disk, then the act, then its outcome. No intent, no act."""
        entry = await asyncio.to_thread(
            self.audit.intend,
            verb,
            agent=agent.id if agent else "",
            name=agent.name if agent else "",
            host=host,
            detail=detail,
        )
        try:
            done = await act()
        except DeadlineExceeded as error:
            await self._conclude(entry, Outcome.UNKNOWN, str(error))
            raise
        except SwarmError as error:
            await self._conclude(entry, Outcome.FAILED, str(error))
            raise
        await self._conclude(entry, Outcome.DONE, done)
        return done

    async def _conclude(self, entry: str, outcome: Outcome, detail: str) -> None:
        try:
            await asyncio.to_thread(self.audit.conclude, entry, outcome, detail)
        except AuditError as error:
            # The act is over; what remains is to say that its outcome is not on record.
            self._faults.append(error)

    # How it hangs together

    def _place(self, site: Site, guest: Guest, timing: Timing) -> _Place:
        host = site.hypervisor.host

        async def on_list() -> None:
            await self._recover(host)

        watch = HostWatch(
            site.hypervisor,
            self._apply,
            poll_s=timing.poll_s,
            relist_s=timing.relist_s,
            on_list=on_list,
        )
        return _Place(site, watch, site.guest or guest)

    def _apply(self, fact: Fact) -> bool:
        changed = self.store.apply(fact)
        if changed and self._is_following:
            for agent in self.store.take_moved():
                self._guests.tend(agent, self.store.agent(agent))
        return changed

    def _start_task(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """A task whose unexpected end is kept for the screen instead of vanishing."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)

        def note(ended: asyncio.Task[None]) -> None:
            self._tasks.discard(ended)
            if not ended.cancelled() and (error := ended.exception()):
                self._faults.append(error)

        task.add_done_callback(note)
        return task

    async def _watch_records(self) -> None:
        """Take in what other processes wrote into the catalogue."""
        while True:
            stamps = await asyncio.to_thread(self._catalogue.stamps)
            for agent in stamps.keys() | self._stamps.keys():
                if stamps.get(agent) != self._stamps.get(agent):
                    self._take_record(agent)
            self._stamps = stamps
            await asyncio.sleep(RECORDS_S)

    def _take_record(self, agent: AgentId) -> None:
        try:
            record = self._catalogue.record(agent)
        except SwarmError as error:
            self._faults.append(error)
            return
        if record is None or record.host in self._places:
            self._apply(Recorded(agent, record))

    async def _recover(self, host: HostName) -> None:
        """Take in the records of a host's agents, and mend what a crash had cut off."""
        place = self._places[host]
        for record in await asyncio.to_thread(self._catalogue.records):
            if record.host != host:
                continue
            if record.verb:
                try:
                    with self._catalogue.lock(record.id):
                        record = await self._lifecycle(place).recover(record)
                except Refused:
                    pass  # another process is at work on it: nothing is cut off
                except SwarmError as error:
                    self._faults.append(error)
            self._apply(Recorded(record.id, record))

    @contextlib.contextmanager
    def _operation(self, agent: Agent, verb: Verb) -> Iterator[Progress]:
        """Show a verb at work, step by step, until it ends."""
        started = time.time()

        def progress(step: Safe, fraction: float | None) -> None:
            self._apply(OperationChanged(agent.id, Operation(verb, step, fraction, started)))

        progress(literal("begins"), None)
        try:
            yield progress
        finally:
            self._apply(OperationChanged(agent.id, None))

    def _lifecycle(self, place: _Place) -> Lifecycle:
        return Lifecycle(
            hypervisor=place.site.hypervisor,
            capabilities=place.watch.capabilities or Capabilities("", ""),
            guest=place.guest,
            catalogue=self._catalogue,
            snapshots=self.snapshots,
            spawner=place.site.spawner,
            keep=self._keep,
            on_record=self._note_record,
        )

    def _note_record(self, record: Record) -> None:
        self._apply(Recorded(record.id, record))

    def _known(self, agent: AgentId) -> Agent:
        known = self.store.agent(agent)
        if known is None:
            raise NotFound("No such agent", agent, "`swarm-tui ls` shows all.")
        return known

    def _place_of(self, agent: Agent) -> _Place:
        place = self._places.get(agent.host)
        if place is None:
            raise NotFound(f"Host {agent.host} is not configured", f"{agent.name} is on it.")
        return place

    def _capabilities(self, agent: Agent | None) -> Capabilities | None:
        place = self._places.get(agent.host) if agent else None
        return place.watch.capabilities if place else None

    def _spawn_capabilities(self) -> Capabilities | None:
        for place in self._places.values():
            if place.site.spawner and place.watch.capabilities:
                return place.watch.capabilities
        if any(place.watch.capabilities for place in self._places.values()):
            return Capabilities("", "", missing={"spawn": "no host here can make agents"})
        return None


async def _nothing() -> Safe:
    return literal("opened")


def _unseen(_step: Safe, _fraction: float | None) -> None:
    pass
