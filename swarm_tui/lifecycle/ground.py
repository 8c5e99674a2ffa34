"""What the sequences of all verbs share: an agent's place in the world, and their small steps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, ParamSpec, Protocol, TypeVar

from swarm_tui.errors import (
    AgentGone,
    ClaimLost,
    DeadlineExceeded,
    GuestError,
    GuestFailed,
    HostKeyChanged,
    HostUnreachable,
    SwarmError,
)
from swarm_tui.model import Address, AgentId, Capabilities, Power, Record, SnapshotId, Vm
from swarm_tui.ports import Guest, Hypervisor, Progress, Spawner
from swarm_tui.retention import Going, Retention, gone_back_to, plan, tell_going
from swarm_tui.snapshot import Archive
from swarm_tui.text import EMPTY, Safe, join, literal, sanitize

P = ParamSpec("P")
T = TypeVar("T")

FREEZE_S: Final = 5.0
ANSWER_S: Final = 20.0
"""How long a restored guest may take to answer over SSH."""
UNKNOWN: Final = (DeadlineExceeded, HostUnreachable, ClaimLost)
"""Errors after which nobody knows whether the host did, or still will do, what was asked; or
whether another supervisor goes on with it."""


class Records(Protocol):
    """Where the agent's record is kept; a claim on the agent is such a place."""

    def record(self, agent: AgentId) -> Record | None: ...

    def write(self, record: Record) -> Record:
        """Replace it, durably; returns it with `since` set."""
        ...

    def remove(self, agent: AgentId) -> None:
        """Remove all that is kept of the agent."""
        ...


_threads: ContextVar[Executor | None] = ContextVar("threads", default=None)
"""None: the event loop's own."""


@dataclass(frozen=True, slots=True)
class Ground:
    """One host with all that a verb on its agents needs. The caller holds the agent."""

    hypervisor: Hypervisor
    capabilities: Capabilities
    guest: Guest
    catalogue: Records
    snapshots: Archive
    spawner: Spawner | None
    retention: Retention
    """Which past snapshots to keep."""
    on_record: Callable[[Record], None]
    """Told each change of a record, so that the screen names the step truthfully."""

    async def freeze(self, vm: Vm, record: Record, progress: Progress) -> tuple[Record, Safe]:
        """Freeze the agent's processes; a guest that cannot is saved as it stands, and told."""
        if vm.power is not Power.RUNNING or vm.tag.address is None or record.is_frozen:
            return record, EMPTY
        progress(literal("freezing the agent"), None)
        # Recorded first: a thaw too many harms nothing, a forgotten one stops the agent for good.
        frozen = await self.write(replace(record, is_frozen=True))
        try:
            await self.guest.freeze(vm.tag.address, FREEZE_S)
        except (GuestFailed, HostKeyChanged) as error:  # then it runs on, for certain
            record, failure = await self.write(replace(frozen, is_frozen=False)), error.title
        except (GuestError, DeadlineExceeded) as error:
            record, failure = frozen, error.title
        else:
            return frozen, EMPTY
        return record, join((literal("not frozen in the guest first:"), failure))

    async def restore(self, record: Record, progress: Progress) -> Vm:
        """Bring the VM back from the snapshot it is saved in; when that fails, it stays saved."""
        snapshot = record.saved_in or SnapshotId("")
        is_asked = False
        try:
            progress(literal("checking the snapshot"), None)
            await in_thread(self.snapshots.verify, record.id, snapshot, self.maker())
            memory = await in_thread(self.snapshots.stage, record.id, snapshot)
            vm = await self._define_again(record.id, snapshot)
            progress(literal("restoring memory"), None)
            is_asked = True
            await self.hypervisor.restore(record.id, memory)
        except SwarmError as error:
            if is_asked and (isinstance(error, UNKNOWN) or not await self.is_off(record.id)):
                explain(error, "How far it came is unknown; the snapshot is kept.")
                raise
            problems: list[SwarmError] = []
            with noting(problems):
                await in_thread(self.snapshots.unstage, record.id, snapshot)
            with noting(problems):
                await self.write(replace(record, verb=None))
            explain(error, "It is still saved.", *(str(problem) for problem in problems))
            raise
        return vm

    async def _define_again(self, agent: AgentId, snapshot: SnapshotId) -> Vm:
        """Some drivers forget a VM that is off."""
        with suppress(AgentGone):
            return await self.hypervisor.describe(agent)
        definition = await in_thread(self.snapshots.definition, agent, snapshot)
        await self.hypervisor.define(definition)
        return await self.hypervisor.describe(agent)

    async def wake(
        self, vm: Vm, record: Record, progress: Progress, *, is_restored: bool = True
    ) -> Safe:
        """Clock and entropy first, then thaw: the agent must not see the gap.

        Returns what did not work but stops nobody. Raises GuestError, DeadlineExceeded when a
        frozen agent could not be thawed.
        """
        if vm.tag.address is None:
            return EMPTY
        remark = EMPTY
        try:
            if is_restored:
                progress(literal("waiting for the guest"), None)
                remark = await self._refresh(vm.tag.address, record)
            if record.is_frozen:
                progress(literal("thawing the agent"), None)
                await self.guest.thaw(vm.tag.address, ANSWER_S)
        except (GuestError, DeadlineExceeded) as error:
            explain(error, "The agent's processes are still frozen; resume it again.")
            raise
        return remark

    async def _refresh(self, address: Address, record: Record) -> Safe:
        try:
            await self.guest.refresh(address, ANSWER_S)
        except (GuestError, DeadlineExceeded) as error:
            if record.is_frozen and not isinstance(error, GuestFailed):
                raise  # who does not answer now will not answer to a thaw
            return join((literal("its clock was not set:"), error.title))
        return EMPTY

    async def drop_drafts(self, agent: AgentId) -> bool:
        """Remove unfinished snapshots of a VM that runs; False when one may be under way yet."""
        drafts = await in_thread(self.snapshots.drafts, agent)
        aside = [await in_thread(self.snapshots.set_aside, draft) for draft in drafts]
        # A save that nobody answered for may begin this late. Before it writes it stops the VM.
        if aside and await self.power(agent) is not Power.RUNNING:
            return False
        for draft in aside:
            await in_thread(self.snapshots.discard, draft)
        return True

    async def power(self, agent: AgentId) -> Power:
        try:
            return (await self.hypervisor.describe(agent)).power
        except AgentGone:
            return Power.OFF

    async def is_off(self, agent: AgentId) -> bool:
        try:
            return await self.power(agent) is Power.OFF
        except SwarmError:
            return False

    async def prune(self, agent: AgentId, in_use: SnapshotId | None) -> Safe:
        """Keep to the retention rules; what goes is told.

        That they cannot be kept to is a remark, not a failure.
        """
        try:
            going = await in_thread(self._prune, agent, in_use)
        except SwarmError as error:
            return sanitize(f"an old snapshot was not removed: {error}")
        return join(tuple(tell_going(one) for one in going), "; ")

    def _prune(self, agent: AgentId, in_use: SnapshotId | None) -> Sequence[Going]:
        """Blocks."""
        there = [self.snapshots.read(agent, name) for name in self.snapshots.ids(agent)]
        gone_back = gone_back_to(self.catalogue.record(agent))
        held = {**gone_back, **self.retention.holds(agent)}
        if in_use:
            held[in_use] = literal("it is the present")
        total = self.retention.total_bytes()
        going = plan(there, self.retention.rules, held, time.time(), total)
        removed = self.snapshots.prune(agent, [one.snapshot.id for one in going])
        return [one for one in going if one.snapshot.id in removed]

    async def write(self, record: Record) -> Record:
        record = await in_thread(self.catalogue.write, record)
        self.on_record(record)
        return record

    def maker(self) -> str:
        return f"{self.capabilities.driver} {self.capabilities.version}"


def going_on(record: Record, *, is_frozen: bool = False) -> Record:
    """The record of an agent whose VM runs again: nothing of what it was stopped for is open."""
    return replace(
        record,
        is_frozen=is_frozen,
        saved_in=None,
        saving_in=None,
        verb=None,
        review=None,
        verdict=None,
    )


def work_in(threads: Executor) -> None:
    """Have `in_thread` use these from here on, in this task and what it starts.

    A host's own: snapshots of a host far away wait for that host, large ones for the disk, and no
    other host's must wait with them.
    """
    _threads.set(threads)


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do file work beside the event loop, to its end even when cancelled.

    Else the agent would be let go of while its files are still being moved.
    """
    loop = asyncio.get_running_loop()
    return await ended(loop.run_in_executor(_threads.get(), partial(work, *args, **kwargs)))


async def ended(future: asyncio.Future[T]) -> T:
    """What a thread comes to, waited for even when cancelled."""
    is_cancelled = False
    while not future.done():
        try:
            await asyncio.wait((future,))
        except asyncio.CancelledError:
            is_cancelled = True
    if is_cancelled:
        raise asyncio.CancelledError
    return future.result()


@contextmanager
def noting(problems: list[SwarmError]) -> Iterator[None]:
    """Go on after a failure, and keep it to be told."""
    try:
        yield
    except SwarmError as error:
        problems.append(error)


def explain(error: SwarmError, *sentences: str) -> None:
    """Add to an error's hint how the agent stands now."""
    error.hint = join((error.hint, *(sanitize(sentence) for sentence in sentences)))
