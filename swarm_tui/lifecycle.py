"""What pause, resume and kill really do to one agent, step by step, and how a cut is mended.

The order of steps is the point: at no moment may the only copy of an agent's state be in a place
that the next step can lose. Every step that a crash could cut is written to the record before it
begins, and `recover` knows how to go on from each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from swarm_tui.catalogue import Catalogue
from swarm_tui.errors import AgentGone, GuestError, SnapshotError, SwarmError
from swarm_tui.model import AgentId, Capabilities, Power, Record, SnapshotId, Verb, Vm
from swarm_tui.ports import Guest, Hypervisor, Progress, Spawner
from swarm_tui.snapshot import Draft, Snapshots
from swarm_tui.text import Safe, join, literal

FREEZE_S: Final = 5.0
ANSWER_S: Final = 20.0
"""How long a restored guest may take to answer over SSH."""


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

    async def pause(self, vm: Vm, progress: Progress) -> Safe:
        """Freeze in the guest, save memory and devices, take in the disks, seal. RAM is freed.

        When the save fails the agent runs on and nothing is lost; the error says why.
        """
        record = self._write(replace(self._record(vm), verb=Verb.PAUSE))
        record, remark = await self._freeze(vm, record, progress)
        draft: Draft | None = None
        try:
            definition = await self.hypervisor.definition(vm.id)
            draft = await asyncio.to_thread(self.snapshots.draft, vm.id)
            await asyncio.to_thread(
                self.snapshots.plan, draft, record, definition, self._maker(), vm.disks
            )
            progress(literal("saving memory"), None)
            await self.hypervisor.save(vm.id, draft.memory, progress)
        except SwarmError as error:
            await self._run_on(vm, record, draft, error, progress)
            raise
        if vm.tag.address:
            await self.guest.forget(vm.tag.address)
        try:
            progress(literal("checking and syncing"), None)
            await self.hypervisor.check_saved(draft.memory)
            snapshot = await asyncio.to_thread(self.snapshots.seal, vm.id, draft)
        except SwarmError as error:
            await self._unsave(vm, record, draft, error, progress)
            raise
        self._write(replace(record, saved_in=snapshot.id, verb=None))
        await asyncio.to_thread(self.snapshots.prune, vm.id, self.keep, snapshot.id)
        return join(
            (literal("saved;"), literal(f"{snapshot.size_bytes >> 20} MiB on disk"), remark)
        )

    async def resume(self, vm: Vm | None, record: Record, progress: Progress) -> Safe:
        """Bring the agent back from whatever stopped it: disk, stopped vCPUs, frozen processes."""
        record = self._write(replace(record, verb=Verb.RESUME))
        try:
            if vm is None or vm.power in (Power.OFF, Power.CRASHED):
                if record.saved_in is None:
                    raise SnapshotError(
                        "There is nothing to resume from", "The VM is off and was not saved."
                    )
                vm, record = await self._restore(record, record.saved_in, progress)
            elif vm.power is Power.PAUSED:
                progress(literal("letting the vCPUs run"), None)
                await self.hypervisor.resume(vm.id)
            await self._wake(vm, record, progress)
        finally:
            # Whatever happened, the state is read again from the VM; no verb is at work any more.
            kept = self.catalogue.record(record.id) or record
            self._write(replace(kept, verb=None))
        await asyncio.to_thread(self.snapshots.prune, vm.id, self.keep, None)
        return literal("goes on where it stood")

    async def kill(self, vm: Vm | None, record: Record, progress: Progress) -> Safe:
        """End the VM; remove its definition, disk, snapshots and record."""
        self._write(replace(record, verb=Verb.KILL))
        if vm and vm.tag.address:
            await self.guest.forget(vm.tag.address)
        if vm:
            progress(literal("ending the VM"), None)
            try:
                await self.hypervisor.destroy(vm.id)
                await self.hypervisor.undefine(vm.id)
            except AgentGone:
                pass  # somebody else ended it meanwhile: what is left of it still goes
        progress(literal("removing its files"), None)
        if vm and self.spawner:
            await self.spawner.discard(vm)
        await asyncio.to_thread(self.snapshots.remove, record.id)
        await asyncio.to_thread(self.catalogue.remove, record.id)
        return literal("ended; its disk and snapshots are removed")

    async def recover(self, record: Record) -> Record:
        """Mend what a crash cut off; nothing runs or stops by it. Returns the present record."""
        try:
            vm: Vm | None = await self.hypervisor.describe(record.id)
        except AgentGone:
            vm = None
        is_off = vm is None or vm.power in (Power.OFF, Power.CRASHED)
        drafts = await asyncio.to_thread(self.snapshots.drafts, record.id)
        if not is_off:
            # It runs, so its disks are in place: whatever was begun did not take them.
            for draft in drafts:
                await asyncio.to_thread(self.snapshots.discard, draft)
            return self._write(replace(record, verb=None, saved_in=None))
        if record.saved_in:
            if record.verb is Verb.RESUME:
                await asyncio.to_thread(
                    self.snapshots.unstage_untouched, record.id, record.saved_in
                )
            return self._write(replace(record, verb=None))
        for draft in reversed(drafts):
            await self.hypervisor.check_saved(draft.memory)
            snapshot = await asyncio.to_thread(self.snapshots.seal, record.id, draft)
            return self._write(replace(record, saved_in=snapshot.id, verb=None))
        return self._write(replace(record, verb=None))

    # Steps

    async def _freeze(self, vm: Vm, record: Record, progress: Progress) -> tuple[Record, Safe]:
        """Freeze the agent's processes; a guest that cannot is saved as it stands, and told."""
        if vm.power is not Power.RUNNING or vm.tag.address is None or record.is_frozen:
            return record, literal("")
        progress(literal("freezing the agent"), None)
        # Recorded first: a thaw too many harms nothing, a forgotten one stops the agent for good.
        frozen = self._write(replace(record, is_frozen=True))
        try:
            await self.guest.freeze(vm.tag.address, FREEZE_S)
        except GuestError as error:
            return self._write(replace(frozen, is_frozen=False)), join(
                (literal("not frozen in the guest first:"), error.title)
            )
        return frozen, literal("")

    async def _run_on(
        self,
        vm: Vm,
        record: Record,
        draft: Draft | None,
        error: SwarmError,
        progress: Progress,
    ) -> None:
        """After a failed save: make sure that the agent runs, and leave nothing behind."""
        progress(literal("the save failed; letting the agent run on"), None)
        now = await self.hypervisor.describe(vm.id)
        if now.power in (Power.OFF, Power.CRASHED):
            # The save may have come to its end after all: `recover` can tell, we keep it all.
            error.hint = join(
                (error.hint, literal("The VM is off; what was saved is kept for recovery."))
            )
            return
        if now.power is Power.PAUSED and vm.power is Power.RUNNING:
            await self.hypervisor.resume(vm.id)
        if draft:
            await asyncio.to_thread(self.snapshots.discard, draft)
        record = self._write(replace(record, verb=None))
        await self._wake(now, record, progress, is_restored=False)
        error.hint = join((error.hint, literal("The agent runs on; nothing was lost.")))

    async def _unsave(
        self, vm: Vm, record: Record, draft: Draft, error: SwarmError, progress: Progress
    ) -> None:
        """After a save that cannot be made a snapshot: put the disks back, restore the VM."""
        progress(literal("cannot keep the snapshot; bringing the agent back"), None)
        await asyncio.to_thread(self.snapshots.put_back, draft)
        await self.hypervisor.restore(vm.id, draft.memory)
        await asyncio.to_thread(self.snapshots.discard, draft)
        record = self._write(replace(record, verb=None))
        await self._wake(vm, record, progress)
        error.hint = join((error.hint, literal("The agent runs on; nothing was lost.")))

    async def _restore(
        self, record: Record, snapshot: SnapshotId, progress: Progress
    ) -> tuple[Vm, Record]:
        progress(literal("checking the snapshot"), None)
        await asyncio.to_thread(self.snapshots.verify, record.id, snapshot, self._maker())
        memory = await asyncio.to_thread(self.snapshots.stage, record.id, snapshot)
        try:
            progress(literal("restoring memory"), None)
            await self._define_again(record.id, snapshot)
            await self.hypervisor.restore(record.id, memory)
        except SwarmError:
            if not await self._is_active(record.id):
                await asyncio.to_thread(self.snapshots.unstage, record.id, snapshot)
                raise
        record = self._write(replace(record, saved_in=None))
        return await self.hypervisor.describe(record.id), record

    async def _define_again(self, agent: AgentId, snapshot: SnapshotId) -> None:
        """Some drivers forget a VM that is off."""
        try:
            await self.hypervisor.describe(agent)
        except AgentGone:
            definition = await asyncio.to_thread(self.snapshots.definition, agent, snapshot)
            await self.hypervisor.define(definition)

    async def _is_active(self, agent: AgentId) -> bool:
        try:
            return (await self.hypervisor.describe(agent)).power in (Power.RUNNING, Power.PAUSED)
        except AgentGone:
            return False

    async def _wake(
        self, vm: Vm, record: Record, progress: Progress, *, is_restored: bool = True
    ) -> None:
        """Clock and entropy first, then thaw: the agent must not see the gap."""
        if vm.tag.address is None:
            self._write(replace(record, is_frozen=False))
            return
        if is_restored:
            progress(literal("waiting for the guest"), None)
            await self._or_still_frozen(record, self.guest.refresh(vm.tag.address, ANSWER_S))
        if record.is_frozen:
            progress(literal("thawing the agent"), None)
            await self._or_still_frozen(record, self.guest.thaw(vm.tag.address, ANSWER_S))
            self._write(replace(record, is_frozen=False))

    async def _or_still_frozen(self, record: Record, step: Awaitable[None]) -> None:
        try:
            await step
        except GuestError as error:
            if record.is_frozen:
                error.hint = join(
                    (error.hint, literal("The VM runs, its agent is still frozen; resume again."))
                )
            raise

    def _record(self, vm: Vm) -> Record:
        return self.catalogue.record(vm.id) or Record(id=vm.id, name=vm.name, host=vm.host)

    def _write(self, record: Record) -> Record:
        record = self.catalogue.write(record)
        self.on_record(record)
        return record

    def _maker(self) -> str:
        return f"{self.capabilities.driver} {self.capabilities.version}"
