"""What pause, resume and kill really do to one agent, step by step, and how a cut is mended.

The order of steps is the point: at no moment may the only copy of an agent's state be in a place
that the next step can lose. What a crash could cut is written to the record before it begins, and
`recover` knows how to go on from there. A host that did not answer (`UNKNOWN`) may still do what
it was asked: then nothing is removed or put back, the record keeps the verb, and `recover` goes on
once the VM itself tells how it ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, ParamSpec, TypeVar

from swarm_tui.catalogue import Catalogue
from swarm_tui.errors import (
    AgentGone,
    DeadlineExceeded,
    GuestError,
    GuestFailed,
    HostKeyChanged,
    HostUnreachable,
    Refused,
    SnapshotError,
    SwarmError,
)
from swarm_tui.model import Address, AgentId, Capabilities, Power, Record, SnapshotId, Verb, Vm
from swarm_tui.ports import Guest, Hypervisor, Progress, Spawner
from swarm_tui.snapshot import Draft, Snapshots
from swarm_tui.text import EMPTY, Safe, join, literal, sanitize

P = ParamSpec("P")
T = TypeVar("T")

FREEZE_S: Final = 5.0
ANSWER_S: Final = 20.0
"""How long a restored guest may take to answer over SSH."""
UNKNOWN: Final = (DeadlineExceeded, HostUnreachable)
"""Errors of a host after which nobody knows whether it did, or still will do, what was asked."""


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """The sequences for the agents of one host. The caller holds the agent's lock."""

    hypervisor: Hypervisor
    capabilities: Capabilities
    guest: Guest
    catalogue: Catalogue
    snapshots: Snapshots
    spawner: Spawner | None
    keep: int
    """How many past snapshots to keep for each agent."""
    on_record: Callable[[Record], None]
    """Told each change of a record, so that the screen names the step truthfully."""

    async def hold(self, vm: Vm, progress: Progress) -> Safe:
        """Quick pause: stop the vCPUs, keep the RAM."""
        progress(literal("stopping the vCPUs"), None)
        await self.hypervisor.suspend(vm.id)
        return literal("vCPUs stopped; its memory stays in use")

    # Pause

    async def pause(self, vm: Vm, record: Record, progress: Progress) -> Safe:
        """Freeze in the guest, save memory and devices, take in the disks, seal. RAM is freed.

        When the save fails the agent runs on and nothing is lost; the error says why.
        """
        # It is active, so a snapshot that it was saved in once is history.
        before = record = replace(record, saved_in=None)
        draft, remark = None, EMPTY
        if not await self._drop_drafts(vm.id):
            raise Refused("It cannot be paused now", "An earlier pause is still at work on it.")
        try:
            draft = await _in_thread(self.snapshots.draft, vm.id)
            record = await self._write(replace(record, verb=Verb.PAUSE, saving_in=draft.id))
            record, remark = await self._freeze(vm, record, progress)
            definition = await self.hypervisor.definition(vm.id)
            await _in_thread(
                self.snapshots.plan, draft, record, definition, self._maker(), vm.disks
            )
        except SwarmError as error:
            await self._call_off(vm, before, record, draft, error, progress)
            raise
        progress(literal("saving memory"), None)
        try:
            await self.hypervisor.save(vm.id, draft.memory, progress)
        except UNKNOWN as error:
            _explain(error, "Whether it was saved is unknown; what was written is kept.")
            raise
        except SwarmError as error:
            await self._run_on(vm, before, record, draft, error, progress)
            raise
        if vm.tag.address:
            with suppress(SwarmError):  # it went with the VM
                await self.guest.forget(vm.tag.address)
        progress(literal("checking and syncing"), None)
        try:
            await self.hypervisor.check_saved(draft.memory)
            snapshot = await _in_thread(self.snapshots.seal, vm.id, draft)
        except UNKNOWN as error:
            _explain(error, "Its memory is saved; the snapshot will be completed.")
            raise
        except SwarmError as error:
            await self._unsave(vm, before, record, draft, error, progress)
            raise
        try:
            await self._write(replace(record, saved_in=snapshot.id, saving_in=None, verb=None))
        except SwarmError as error:
            _explain(error, f"It is saved all the same, in {snapshot.id}.")
            raise
        done = literal(f"saved; {snapshot.size_bytes >> 20} MiB on disk")
        return join((done, remark, await self._prune(vm.id, snapshot.id)), "; ")

    async def _freeze(self, vm: Vm, record: Record, progress: Progress) -> tuple[Record, Safe]:
        """Freeze the agent's processes; a guest that cannot is saved as it stands, and told."""
        if vm.power is not Power.RUNNING or vm.tag.address is None or record.is_frozen:
            return record, EMPTY
        progress(literal("freezing the agent"), None)
        # Recorded first: a thaw too many harms nothing, a forgotten one stops the agent for good.
        frozen = await self._write(replace(record, is_frozen=True))
        try:
            await self.guest.freeze(vm.tag.address, FREEZE_S)
        except (GuestFailed, HostKeyChanged) as error:  # then it runs on, for certain
            record, failure = await self._write(replace(frozen, is_frozen=False)), error.title
        except (GuestError, DeadlineExceeded) as error:
            record, failure = frozen, error.title
        else:
            return frozen, EMPTY
        return record, join((literal("not frozen in the guest first:"), failure))

    async def _run_on(
        self,
        vm: Vm,
        before: Record,
        record: Record,
        draft: Draft,
        error: SwarmError,
        progress: Progress,
    ) -> None:
        """After a save that failed: let the agent run on."""
        try:
            power = await self._power(vm.id)
            if power is Power.PAUSED and vm.power is Power.RUNNING:
                await self.hypervisor.resume(vm.id)
        except SwarmError as worse:
            _explain(error, f"How it stands is unknown ({worse.title}); all of it is kept.")
            return
        if power not in (Power.RUNNING, Power.PAUSED):
            _explain(error, "The VM is off; what was saved of it is kept.")
            return
        await self._call_off(vm, before, record, draft, error, progress)

    async def _unsave(
        self,
        vm: Vm,
        before: Record,
        record: Record,
        draft: Draft,
        error: SwarmError,
        progress: Progress,
    ) -> None:
        """After a save that cannot be made a snapshot: put the disks back, restore the VM."""
        progress(literal("cannot keep the snapshot; bringing the agent back"), None)
        try:
            await _in_thread(self.snapshots.put_back, draft)
            await self.hypervisor.restore(vm.id, draft.memory)
        except SwarmError as worse:
            _explain(error, f"It was not brought back at once ({worse.title}); all of it is kept.")
            return
        await self._call_off(vm, before, record, draft, error, progress, is_restored=True)

    async def _call_off(
        self,
        vm: Vm,
        before: Record,
        record: Record,
        draft: Draft | None,
        error: SwarmError,
        progress: Progress,
        *,
        is_restored: bool = False,
    ) -> None:
        """After a pause that failed, with the VM alive: make all as it was before.

        Each step for itself: on a full disk, say, the thaw must not wait for a record.
        """
        problems: list[SwarmError] = []
        if draft:
            with _noting(problems):
                await _in_thread(self.snapshots.discard, draft)
        is_thawed = before.is_frozen or not record.is_frozen
        if is_restored or not is_thawed:
            with _noting(problems):
                await self._wake(
                    vm, replace(record, is_frozen=not is_thawed), progress, is_restored=is_restored
                )
                is_thawed = True
        with _noting(problems):
            is_frozen = before.is_frozen or not is_thawed
            await self._write(replace(before, is_frozen=is_frozen, saving_in=None, verb=None))
        _explain(
            error,
            "It is as it was before; nothing was lost."
            if is_thawed
            else "Nothing was lost, but its processes are still frozen; resume it.",
            *(str(problem) for problem in problems),
        )

    # Resume

    async def resume(self, vm: Vm | None, record: Record, progress: Progress) -> Safe:
        """Bring the agent back from whatever stopped it: disk, stopped vCPUs, frozen processes."""
        is_off = vm is None or vm.power is Power.OFF
        if is_off and record.saved_in is None:
            raise SnapshotError("There is nothing to resume from", "The VM is off and not saved.")
        if vm and vm.power in (Power.CRASHED, Power.UNKNOWN):
            raise Refused("It cannot be resumed", f"The VM is {vm.power}.")
        before, record = record, await self._write(replace(record, verb=Verb.RESUME))
        if vm is None or is_off:
            vm = await self._restore(before, progress)
        elif vm.power is Power.PAUSED:
            progress(literal("letting the vCPUs run"), None)
            try:
                await self.hypervisor.resume(vm.id)
            except UNKNOWN as error:
                _explain(error, "Whether its vCPUs run is unknown; nothing was lost.")
                raise
            except SwarmError as error:
                with suppress(SwarmError):  # then `recover` does it
                    await self._write(before)
                _explain(error, "It is as it was before.")
                raise
        problems: list[SwarmError] = []
        is_alone = True
        with _noting(problems):
            is_alone = await self._drop_drafts(vm.id)
        if not is_alone:  # `recover` goes on from here, once that has come to its end
            raise Refused("It was just stopped again", "An earlier pause is still at work on it.")
        is_frozen, remark = record.is_frozen, EMPTY
        with _noting(problems):
            remark = await self._wake(vm, record, progress)
            is_frozen = False
        try:
            await self._write(
                replace(record, is_frozen=is_frozen, saved_in=None, saving_in=None, verb=None)
            )
        except SwarmError as error:
            _explain(error, "The VM runs all the same.")
            raise
        if problems:
            _explain(problems[0], "The VM runs.", *(str(problem) for problem in problems[1:]))
            raise problems[0]
        goes_on = literal("goes on where it stood")
        return join((goes_on, remark, await self._prune(vm.id, None)), "; ")

    async def _restore(self, record: Record, progress: Progress) -> Vm:
        """Bring the VM back from the snapshot it is saved in; when that fails, it stays saved."""
        snapshot = record.saved_in or SnapshotId("")
        is_asked = False
        try:
            progress(literal("checking the snapshot"), None)
            await _in_thread(self.snapshots.verify, record.id, snapshot, self._maker())
            memory = await _in_thread(self.snapshots.stage, record.id, snapshot)
            vm = await self._define_again(record.id, snapshot)
            progress(literal("restoring memory"), None)
            is_asked = True
            await self.hypervisor.restore(record.id, memory)
        except SwarmError as error:
            if is_asked and (isinstance(error, UNKNOWN) or not await self._is_off(record.id)):
                _explain(error, "How far it came is unknown; the snapshot is kept.")
                raise
            problems: list[SwarmError] = []
            with _noting(problems):
                await _in_thread(self.snapshots.unstage, record.id, snapshot)
            with _noting(problems):
                await self._write(replace(record, verb=None))
            _explain(error, "It is still saved.", *(str(problem) for problem in problems))
            raise
        return vm

    async def _define_again(self, agent: AgentId, snapshot: SnapshotId) -> Vm:
        """Some drivers forget a VM that is off."""
        with suppress(AgentGone):
            return await self.hypervisor.describe(agent)
        definition = await _in_thread(self.snapshots.definition, agent, snapshot)
        await self.hypervisor.define(definition)
        return await self.hypervisor.describe(agent)

    async def _wake(
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
            _explain(error, "The agent's processes are still frozen; resume it again.")
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

    # Kill

    async def kill(self, vm: Vm | None, record: Record, progress: Progress) -> Safe:
        """End the VM; remove its snapshots, its definition, its disk and its record."""
        await self._write(replace(record, verb=Verb.KILL))
        if vm:
            if vm.tag.address:
                with suppress(SwarmError):  # it goes with the VM
                    await self.guest.forget(vm.tag.address)
            progress(literal("ending the VM"), None)
            with suppress(AgentGone):  # whoever ended it: what is left of it still goes
                await self.hypervisor.destroy(vm.id)
        progress(literal("removing its files"), None)
        await _in_thread(self.snapshots.remove, record.id)
        if vm:
            with suppress(AgentGone):
                await self.hypervisor.undefine(vm.id)
        disks = ", ".join(str(disk) for disk in vm.disks) if vm else ""
        if vm and self.spawner:
            try:
                await self.spawner.discard(vm)
            except SwarmError as error:
                _explain(error, f"The VM has ended; left behind: {disks}.")
                raise
        await _in_thread(self.catalogue.remove, record.id)
        if vm and self.spawner:
            return literal("ended; its disk and snapshots are removed")
        return sanitize(f"ended; its snapshots are removed, its disk is left: {disks or 'unknown'}")

    # Recovery

    async def recover(self, record: Record) -> Record:
        """Mend what a crash or a lost answer cut off, as far as the VM tells how it ended.

        Nothing runs or stops by it. Returns the present record; its `verb` stays where only the
        VM or a person can tell how to go on. Raises SnapshotError when the cut lost the memory.
        """
        power = await self._power(record.id)
        if record.verb is Verb.KILL:
            # Nothing is removed before the VM is off, and everything once it is.
            return record if power is Power.OFF else await self._write(replace(record, verb=None))
        if power is Power.OFF:
            if record.saved_in is None:
                return await self._finish_pause(record)
            return await self._write(replace(record, saving_in=None, verb=None))
        if power is Power.RUNNING and await self._drop_drafts(record.id):
            return await self._write(replace(record, saved_in=None, saving_in=None, verb=None))
        return record

    async def _finish_pause(self, record: Record) -> Record:
        """The VM is off: complete the snapshot that its memory was saved for, if it was."""
        agent = record.id
        problem: SnapshotError | None = None
        sealed = await _in_thread(self.snapshots.ids, agent)
        saved_in = record.saving_in if record.saving_in in sealed else None
        drafts = await _in_thread(self.snapshots.drafts, agent)
        for draft in reversed(drafts):
            if saved_in:
                break
            try:
                await self._check_whole(draft)
            except SnapshotError as error:
                problem = error
                await _in_thread(self.snapshots.put_back, draft)
                if not draft.memory.exists():
                    await _in_thread(self.snapshots.discard, draft)
            else:
                saved_in = (await _in_thread(self.snapshots.seal, agent, draft)).id
        record = await self._write(
            replace(
                record,
                is_frozen=record.is_frozen and saved_in is not None,
                saved_in=saved_in,
                saving_in=None,
                verb=None,
            )
        )
        if problem and saved_in is None:
            raise SnapshotError(
                f"The pause of {record.name} was cut off and its memory is not whole",
                str(problem),
                "Its disk is where it was; nothing that was saved is removed.",
            ) from problem
        return record

    async def _check_whole(self, draft: Draft) -> None:
        """Raise SnapshotError unless the draft's memory is whole and fits to the disks."""
        if not draft.memory.exists():
            raise SnapshotError("Its memory was not written")
        await self.hypervisor.check_saved(draft.memory)
        if await _in_thread(self.snapshots.is_torn, draft):
            raise SnapshotError("Its disk was written to after its memory was saved")

    async def _drop_drafts(self, agent: AgentId) -> bool:
        """Remove unfinished snapshots of a VM that runs; False when one may be under way yet."""
        drafts = await _in_thread(self.snapshots.drafts, agent)
        aside = [await _in_thread(self.snapshots.set_aside, draft) for draft in drafts]
        # A save that nobody answered for may begin this late. Before it writes it stops the VM.
        if aside and await self._power(agent) is not Power.RUNNING:
            return False
        for draft in aside:
            await _in_thread(self.snapshots.discard, draft)
        return True

    # Small steps

    async def _power(self, agent: AgentId) -> Power:
        try:
            return (await self.hypervisor.describe(agent)).power
        except AgentGone:
            return Power.OFF

    async def _is_off(self, agent: AgentId) -> bool:
        try:
            return await self._power(agent) is Power.OFF
        except SwarmError:
            return False

    async def _prune(self, agent: AgentId, in_use: SnapshotId | None) -> Safe:
        """Keep to the retention rule; that it cannot be kept to is a remark, not a failure."""
        try:
            await _in_thread(self.snapshots.prune, agent, self.keep, in_use)
        except SwarmError as error:
            return sanitize(f"an old snapshot was not removed: {error}")
        return EMPTY

    async def _write(self, record: Record) -> Record:
        record = await _in_thread(self.catalogue.write, record)
        self.on_record(record)
        return record

    def _maker(self) -> str:
        return f"{self.capabilities.driver} {self.capabilities.version}"


async def _in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do file work beside the event loop, to its end even when cancelled.

    Else the agent's lock would be let go while its files are still being moved.
    """
    loop = asyncio.get_running_loop()
    future = loop.run_in_executor(None, partial(work, *args, **kwargs))
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
def _noting(problems: list[SwarmError]) -> Iterator[None]:
    """Go on after a failure, and keep it to be told."""
    try:
        yield
    except SwarmError as error:
        problems.append(error)


def _explain(error: SwarmError, *sentences: str) -> None:
    """Add to an error's hint how the agent stands now."""
    error.hint = join((error.hint, *(sanitize(sentence) for sentence in sentences)))
