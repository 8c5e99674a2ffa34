"""What pause, resume and kill really do to one agent, step by step, and how a cut is mended.

The order of steps is the point: at no moment may the only copy of an agent's state be in a place
that the next step can lose. What a crash could cut is written to the record before it begins, and
`recover` knows how to go on from there. A host that did not answer (`UNKNOWN`) may still do what
it was asked: then nothing is removed or put back, the record keeps the verb, and `recover` goes on
once the VM itself tells how it ended.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from swarm_tui.errors import (
    AgentGone,
    Busy,
    DeadlineExceeded,
    GuestCut,
    GuestError,
    GuestUnreachable,
    Refused,
    SnapshotError,
    SwarmError,
    UsageError,
)
from swarm_tui.lifecycle.ground import UNKNOWN, Ground, explain, going_on, in_thread, noting
from swarm_tui.model import OF_PAUSE, Message, Origin, Power, Record, Snapshot, Verb, Vm
from swarm_tui.person import actor
from swarm_tui.ports import Progress
from swarm_tui.review.verdict import MESSAGE_BYTES, clean
from swarm_tui.snapshot import Draft
from swarm_tui.text import EMPTY, Safe, join, literal, sanitize

SAY_S: Final = 10.0
TOLD_CELLS: Final = 120
GRACE_S: Final = 15.0
GRACE_POLL_S: Final = 0.2
SHUT_DOWN: Final = "systemctl poweroff 2>/dev/null || poweroff"


class Lifecycle(Ground):
    """The sequences for the agents of one host. The caller holds the agent."""

    async def hold(self, vm: Vm, progress: Progress) -> Safe:
        """Quick pause: stop the vCPUs, keep the RAM."""
        progress(literal("stopping the vCPUs"), None)
        try:
            await self.hypervisor.suspend(vm.id)
        except UNKNOWN as error:
            explain(error, "Whether its vCPUs stand still is unknown; nothing was lost.")
            raise
        return literal("vCPUs stopped; its memory stays in use")

    # Pause

    async def pause(
        self, vm: Vm, record: Record, progress: Progress, origin: Origin = OF_PAUSE
    ) -> Safe:
        """Freeze in the guest, save memory and devices, take in the disks, seal. RAM is freed.

        When the save fails the agent runs on and nothing is lost; the error says why.
        """
        _, snapshot, remark = await self.save(vm, record, Verb.PAUSE, origin, progress)
        done = literal(f"saved; {snapshot.size_bytes >> 20} MiB on disk")
        return join((done, remark, await self.prune(vm.id, snapshot.id)), "; ")

    async def save(
        self, vm: Vm, record: Record, verb: Verb, origin: Origin, progress: Progress
    ) -> tuple[Record, Snapshot, Safe]:
        """As `pause`, on the way of `verb`, which stays open in the record unless it is a pause.

        Returns the present record, and what did not work but stops nobody.
        """
        if vm.disks is None:
            raise Busy("It cannot be paused now", "Its host cannot tell its disks.", "Try again.")
        # It is active, so a snapshot that it was saved in once is history.
        before = record = replace(record, saved_in=None)
        draft, remark = None, EMPTY
        if not await self.drop_drafts(vm.id):
            raise Refused("It cannot be paused now", "An earlier pause is still at work on it.")
        try:
            draft = await in_thread(self.snapshots.draft, vm.id)
            record = await self.write(replace(record, verb=verb, saving_in=draft.id))
            record, remark = await self.freeze(vm, record, progress)
            definition = await self.hypervisor.definition(vm.id)
            origin = origin if origin.by else replace(origin, by=sanitize(actor()))
            await in_thread(
                self.snapshots.plan, draft, record, definition, self.maker(), vm.disks, origin
            )
        except SwarmError as error:
            await self._call_off(vm, before, record, draft, error, progress)
            raise
        progress(literal("saving memory"), None)
        try:
            await self.hypervisor.save(vm.id, draft.memory, progress)
        except UNKNOWN as error:
            explain(error, "Whether it was saved is unknown; what was written is kept.")
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
            snapshot = await in_thread(self.snapshots.seal, vm.id, draft)
        except UNKNOWN as error:
            explain(error, "Its memory is saved; the snapshot will be completed.")
            raise
        except SwarmError as error:
            await self._unsave(vm, before, record, draft, error, progress)
            raise
        try:
            still = None if verb is Verb.PAUSE else verb
            record = await self.write(
                replace(record, saved_in=snapshot.id, saving_in=None, verb=still)
            )
        except SwarmError as error:
            explain(error, f"It is saved all the same, in {snapshot.id}.")
            raise
        return record, snapshot, remark

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
            power = await self.power(vm.id)
            if power is Power.PAUSED and vm.power is Power.RUNNING:
                await self.hypervisor.resume(vm.id)
        except SwarmError as worse:
            explain(error, f"How it stands is unknown ({worse.title}); all of it is kept.")
            return
        if power not in (Power.RUNNING, Power.PAUSED):
            explain(error, "The VM is off; what was saved of it is kept.")
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
            await in_thread(self.snapshots.put_back, draft)
            await self.hypervisor.restore(vm.id, draft.memory)
        except SwarmError as worse:
            explain(error, f"It was not brought back at once ({worse.title}); all of it is kept.")
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
            with noting(problems):
                await in_thread(self.snapshots.discard, draft)
        is_thawed = before.is_frozen or not record.is_frozen
        if is_restored or not is_thawed:
            with noting(problems):
                await self.wake(
                    vm, replace(record, is_frozen=not is_thawed), progress, is_restored=is_restored
                )
                is_thawed = True
        with noting(problems):
            is_frozen = before.is_frozen or not is_thawed
            await self.write(replace(before, is_frozen=is_frozen, saving_in=None, verb=None))
        explain(
            error,
            "It is as it was before; nothing was lost."
            if is_thawed
            else "Nothing was lost, but its processes are still frozen; resume it.",
            *(str(problem) for problem in problems),
        )

    # Resume

    async def resume(
        self, vm: Vm | None, record: Record, progress: Progress, verb: Verb = Verb.RESUME
    ) -> Safe:
        """Bring the agent back from whatever stopped it: disk, stopped vCPUs, frozen processes.

        An orphan that runs is adopted. `verb` is what this is the end of.
        """
        if vm and vm.is_orphan and vm.power is Power.RUNNING:
            return await self._adopt(vm, record, progress)
        is_off = vm is None or vm.power is Power.OFF
        if is_off and record.saved_in is None:
            raise SnapshotError("There is nothing to resume from", "The VM is off and not saved.")
        if vm and vm.power in (Power.CRASHED, Power.UNKNOWN):
            raise Refused("It cannot be resumed", f"The VM is {vm.power}.")
        before, record = record, await self.write(replace(record, verb=verb))
        if vm is None or is_off:
            vm = await self.restore(before, progress)
        elif vm.power is Power.PAUSED:
            progress(literal("letting the vCPUs run"), None)
            try:
                await self.hypervisor.resume(vm.id)
            except UNKNOWN as error:
                explain(error, "Whether its vCPUs run is unknown; nothing was lost.")
                raise
            except SwarmError as error:
                with suppress(SwarmError):  # then `recover` does it
                    await self.write(before)
                explain(error, "It is as it was before.")
                raise
        problems: list[SwarmError] = []
        is_alone = True
        with noting(problems):
            is_alone = await self.drop_drafts(vm.id)
        if not is_alone:  # `recover` goes on from here, once that has come to its end
            raise Refused("It was just stopped again", "An earlier pause is still at work on it.")
        is_frozen, remark = record.is_frozen, EMPTY
        with noting(problems):
            remark = await self.wake(vm, record, progress)
            is_frozen = False
        try:
            await self.write(going_on(record, is_frozen=is_frozen))
        except SwarmError as error:
            explain(error, "The VM runs all the same.")
            raise
        if problems:
            explain(problems[0], "The VM runs.", *(str(problem) for problem in problems[1:]))
            raise problems[0]
        goes_on = literal("goes on where it stood")
        return join((goes_on, remark, await self.prune(vm.id, None)), "; ")

    async def _adopt(self, vm: Vm, record: Record, progress: Progress) -> Safe:
        """Save a VM that its libvirt daemon has forgotten, and restore it through that daemon."""
        progress(literal("saving it, to adopt it"), None)
        await self.pause(vm, record, progress)
        saved = await in_thread(self.catalogue.record, vm.id)
        assert saved is not None  # just written by the pause
        done = await self.resume(None, saved, progress)
        return join((literal("adopted"), done), "; ")

    # Message

    async def say(self, vm: Vm, text: str, progress: Progress) -> Safe:
        """Put a message into the agent's inbox. Raises UsageError for one that cannot be sent."""
        message = Message(_message_id(), "message", _readable(text))
        if vm.tag.address is None:
            raise GuestUnreachable("No message can be sent", "No SSH address is known for it.")
        progress(literal("delivering the message"), None)
        try:
            await self.guest.deliver(vm.tag.address, message, SAY_S)
        except (GuestCut, DeadlineExceeded) as error:
            explain(error, "Whether it arrived is unknown; sent again, it may be there twice.")
            raise
        return join((literal("in its inbox:"), shortened(message.text)))

    # Kill

    async def kill(
        self, vm: Vm | None, record: Record, progress: Progress, *, is_graceful: bool = False
    ) -> Safe:
        """End the VM; remove its snapshots, its definition, its disk and its record."""
        await self.write(replace(record, verb=Verb.KILL))
        try:
            return await self._end(vm, record, progress, is_graceful=is_graceful)
        except UNKNOWN as error:
            explain(error, "How far it came is unknown; kill it again.")
            raise

    async def _end(
        self, vm: Vm | None, record: Record, progress: Progress, *, is_graceful: bool
    ) -> Safe:
        if vm and is_graceful:
            progress(literal("asking the guest to shut down"), None)
            await self._shut_down(vm)
        if vm:
            if vm.tag.address:
                with suppress(SwarmError):  # it goes with the VM
                    await self.guest.forget(vm.tag.address)
            progress(literal("ending the VM"), None)
            with suppress(AgentGone):  # whoever ended it: what is left of it still goes
                await self.hypervisor.destroy(vm.id)
                if vm.disks is None:  # nothing can keep its host from telling them now
                    vm = await self.hypervisor.describe(vm.id)
        progress(literal("removing its files"), None)
        await in_thread(self.snapshots.remove, record.id)
        if vm:
            with suppress(AgentGone):
                await self.hypervisor.undefine(vm.id)
        disks = ", ".join(str(disk) for disk in vm.disks or ()) if vm else ""
        if vm and self.spawner:
            try:
                await self.spawner.discard(vm)
            except SwarmError as error:
                explain(error, f"The VM has ended; left behind: {disks}.")
                raise
        await in_thread(self.catalogue.remove, record.id)
        if vm and self.spawner:
            return literal("ended; its disk and snapshots are removed")
        return sanitize(f"ended; its snapshots are removed, its disk is left: {disks or 'unknown'}")

    async def _shut_down(self, vm: Vm) -> None:
        """Let the guest end what it has at work, as long as it takes no longer than `GRACE_S`.

        Over SSH: some drivers' own shutdown pulls the plug (libvirt's for Cloud Hypervisor).
        """
        if vm.power is not Power.RUNNING or vm.tag.address is None:
            return
        with suppress(SwarmError, TimeoutError):  # then it is ended all the same
            async with asyncio.timeout(GRACE_S):
                with suppress(GuestError):  # it goes in the middle of the answer
                    await self.guest.run(vm.tag.address, SHUT_DOWN, timeout_s=SAY_S)
                while await self.power(vm.id) is Power.RUNNING:  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(GRACE_POLL_S)

    # Recovery

    async def recover(self, record: Record) -> Record:
        """Mend what a crash or a lost answer cut off, as far as the VM tells how it ended.

        Nothing runs or stops by it, but for a spawn that was cut off: what there is of it goes,
        its record too. Returns the present record; its `verb` stays where only the
        VM or a person can tell how to go on. Raises SnapshotError when the cut lost the memory.
        """
        if record.verb is Verb.SPAWN:
            return await self._end_unborn(record)
        await self.end_left_behind(record)
        power = await self.power(record.id)
        if record.verb is Verb.KILL:
            # Nothing is removed before the VM is off, and everything once it is.
            return record if power is Power.OFF else await self.write(replace(record, verb=None))
        if power is Power.OFF:
            if record.saved_in is None:
                return await self.finish_pause(record)
            return await self.write(replace(record, saving_in=None, verb=None))
        if power is Power.RUNNING and await self.drop_drafts(record.id):
            return await self.write(replace(record, saved_in=None, saving_in=None, verb=None))
        return record

    async def _end_unborn(self, record: Record) -> Record:
        """Remove what a spawn that was killed has left: nobody was told of it."""
        if self.spawner is None:  # another supervisor's can
            return record
        try:
            vm = await self.hypervisor.describe(record.id)
        except AgentGone:
            vm = Vm(record.id, record.name, record.host, Power.OFF)
        await self._end(vm, record, _untold, is_graceful=False)
        return replace(record, verb=None)

    async def end_left_behind(self, record: Record) -> None:
        """End a VMM that goes on without anybody to steer it once all it had is saved."""
        if record.saving_in is None:
            return
        with suppress(AgentGone):
            vm = await self.hypervisor.describe(record.id)
            if not vm.is_left_behind:
                return
            for draft in await in_thread(self.snapshots.drafts, record.id):
                with suppress(SnapshotError):
                    await self._check_whole(draft)
                    await self.hypervisor.destroy(record.id)

    async def finish_pause(self, record: Record) -> Record:
        """The VM is off: complete the snapshot that its memory was saved for, if it was."""
        agent = record.id
        problem: SnapshotError | None = None
        sealed = await in_thread(self.snapshots.ids, agent)
        saved_in = record.saving_in if record.saving_in in sealed else None
        drafts = await in_thread(self.snapshots.drafts, agent)
        for draft in reversed(drafts):
            if saved_in:
                break
            if await in_thread(self.snapshots.is_copied, draft):  # of a VM that ended meanwhile
                await in_thread(self.snapshots.discard, draft)
                continue
            try:
                await self._check_whole(draft)
            except SnapshotError as error:
                problem = error
                await in_thread(self.snapshots.put_back, draft)
                if not await in_thread(self.snapshots.has_memory, draft):
                    await in_thread(self.snapshots.discard, draft)
            else:
                saved_in = (await in_thread(self.snapshots.seal, agent, draft)).id
        record = await self.write(
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
        if not await in_thread(self.snapshots.has_memory, draft):
            raise SnapshotError("Its memory was not written")
        await self.hypervisor.check_saved(draft.memory)
        if await in_thread(self.snapshots.is_torn, draft):
            raise SnapshotError("Its disk was written to after its memory was saved")


def shortened(message: str) -> Safe:
    """As much of a message as is told where it was sent, and in the audit log."""
    return sanitize(" ".join(message.split()), max_cells=TOLD_CELLS)


def _untold(_step: Safe, _fraction: float | None) -> None:
    pass


def _message_id() -> str:
    """Inboxes are read in the order of names, which is that of time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}Z-{secrets.token_hex(4)}"


def _readable(text: str) -> str:
    readable = clean(text)
    if not readable:
        raise UsageError("The message is empty", hint="Say something.")
    size = len(readable.encode())
    if size > MESSAGE_BYTES:
        told = f"It has {size:,} bytes; {MESSAGE_BYTES:,} can be delivered."
        raise UsageError("The message is too long", told, "Put it into a file of its workspace.")
    return readable
