"""An agent's past: snapshots taken while it goes on, and the way back to one.

    checkpoint  stop the vCPUs -> write the memory -> copy the disks -> go on -> digest, seal
                where a driver cannot do that: save the VM, and restore it at once
    roll back   check the chosen one -> save the present -> restore the chosen one

Either stops the agent only in passing: where it was cut off, `recover` lets it go on. While a roll
back is under way, the record's `saved_in` names the state that the agent is in, which changes in
one write, and `saving_in` the present that was given up and comes back if the chosen one cannot.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import replace
from typing import Final

from swarm_tui.errors import Busy, NotFound, Refused, SnapshotError, SwarmError
from swarm_tui.lifecycle.ground import UNKNOWN, explain, going_on, in_thread, noting
from swarm_tui.lifecycle.verbs import Lifecycle
from swarm_tui.model import Cause, Origin, Power, Record, Rewound, Snapshot, SnapshotId, Verb, Vm
from swarm_tui.person import actor
from swarm_tui.ports import Progress
from swarm_tui.snapshot import Draft
from swarm_tui.text import EMPTY, Safe, join, literal, sanitize

PASSING: Final = frozenset({Verb.CHECKPOINT, Verb.FORK, Verb.ROLL_BACK, Verb.COMPARE})
"""Verbs that stop an agent only for a moment."""
TITLE_CELLS: Final = 80
_FATES: Final = {
    Power.RUNNING: "It goes on; nothing was lost.",
    Power.OFF: "Its VM has ended meanwhile; what there is of it is kept.",
}
"""What became of an agent whose checkpoint failed."""


class Timeline(Lifecycle):
    """The sequences for the agents of one host, with those on their past."""

    # Checkpoint

    async def checkpoint(
        self, vm: Vm, record: Record, origin: Origin, title: str, progress: Progress
    ) -> Safe:
        """Keep a snapshot of an agent that goes on."""
        snapshot, stop_s, remark = await self.capture(vm, record, Verb.CHECKPOINT, origin, progress)
        named = EMPTY
        if title:
            try:
                await in_thread(self.snapshots.label, vm.id, snapshot.id, title, False)
            except SwarmError as error:
                named = sanitize(f"it could not be named: {error}")
        stood = literal(f"stood still for {stop_s:.2f} s")
        size = literal(f"{snapshot.size_bytes >> 20} MiB on disk")
        pruned = await self.prune(vm.id, snapshot.id)
        rule = EMPTY
        if origin.cause in (Cause.TURN, Cause.INTERVAL):
            rule = join((literal("by rule:"), origin.told))
        made = literal(f"snapshot {snapshot.id}")
        return join((rule, made, size, stood, remark, named, pruned), "; ")

    async def capture(
        self, vm: Vm, record: Record, verb: Verb, origin: Origin, progress: Progress
    ) -> tuple[Snapshot, float, Safe]:
        """Take a snapshot of an agent that goes on, on the way of `verb`, which is over then.

        Returns it, the seconds for which the agent stood still, and what did not work but stops
        nobody. When it fails the agent goes on, and the error says so.
        """
        if vm.power is not Power.RUNNING:
            raise Refused("It cannot be kept as it runs", f"The VM is {vm.power}.")
        if "dump" not in self.capabilities.missing:
            return await self._capture_running(vm, record, verb, origin, progress)
        began = time.monotonic()
        saved, snapshot, remark = await self.save(vm, record, verb, origin, progress)
        went_on = await self._bring_back(saved, verb, progress)
        remark = join((remark, went_on), "; ")
        return snapshot, time.monotonic() - began, remark

    async def _capture_running(
        self, vm: Vm, record: Record, verb: Verb, origin: Origin, progress: Progress
    ) -> tuple[Snapshot, float, Safe]:
        if vm.disks is None:
            raise Busy("It cannot be kept now", "Its host cannot tell its disks.", "Try again.")
        if not await self.drop_drafts(vm.id):
            raise Refused("It cannot be kept now", "An earlier pause is still at work on it.")
        before = record = replace(record, saved_in=None)
        draft: Draft | None = None
        try:
            draft = await in_thread(self.snapshots.draft, vm.id)
            record = await self.write(replace(record, verb=verb, saving_in=draft.id))
            definition = await self.hypervisor.definition(vm.id)
            origin = origin if origin.by else replace(origin, by=sanitize(actor()))
            await in_thread(
                self.snapshots.plan,
                draft,
                record,
                definition,
                self.maker(),
                vm.disks,
                origin,
                True,
            )
            stop_s = await self._copy(vm, draft, progress)
            progress(literal("checking and syncing"), None)
            await self.hypervisor.check_saved(draft.memory)
            snapshot = await in_thread(self.snapshots.seal, vm.id, draft)
        except UNKNOWN as error:
            explain(error, "Nothing was lost; it goes on as soon as its host answers.")
            raise
        except SwarmError as error:
            await self._let_go(vm, before, draft, error)
            raise
        try:
            await self.write(replace(record, saving_in=None, verb=None))
        except SwarmError as error:
            explain(error, f"The snapshot is kept all the same, as {snapshot.id}.")
            raise
        return snapshot, stop_s, await self._set_clock(vm, record, progress)

    async def _copy(self, vm: Vm, draft: Draft, progress: Progress) -> float:
        """Write memory and disks while the vCPUs stand still; for how many seconds they did."""
        progress(literal("writing its memory"), None)
        size = vm.memory_bytes or 0
        scratch = await in_thread(self.snapshots.scratch, draft, size) if size else draft.memory
        began = time.monotonic()
        await self.hypervisor.suspend(vm.id)
        await _both(
            self.hypervisor.dump(vm.id, scratch), in_thread(self.snapshots.copy_disks, draft)
        )
        await self.hypervisor.resume(vm.id)
        stop_s = time.monotonic() - began
        await in_thread(self.snapshots.take_in, draft, scratch)
        return stop_s

    async def _let_go(self, vm: Vm, before: Record, draft: Draft | None, error: SwarmError) -> None:
        """After a checkpoint that failed, with the VM alive: make all as it was before."""
        problems: list[SwarmError] = []
        power = Power.UNKNOWN
        with noting(problems):
            power = await self.power(vm.id)
            if power is Power.PAUSED:
                await self.hypervisor.resume(vm.id)
                power = await self.power(vm.id)
        if draft:
            with noting(problems):
                await in_thread(self.snapshots.discard, draft)
        with noting(problems):
            await self.write(replace(before, saving_in=None, verb=None))
        fate = _FATES.get(power, "How it stands now is not known.")
        explain(error, fate, *(str(problem) for problem in problems))

    async def _set_clock(self, vm: Vm, record: Record, progress: Progress) -> Safe:
        """Its clock stood still with it."""
        try:
            if await self.power(vm.id) is not Power.RUNNING:
                return literal("its VM has ended meanwhile")
            return await self.wake(vm, replace(record, is_frozen=False), progress)
        except SwarmError as error:
            return join((literal("its clock was not set:"), error.title))

    # Roll back

    async def roll_back(
        self, vm: Vm | None, record: Record, chosen: SnapshotId, progress: Progress
    ) -> Safe:
        """Keep the present, and let the agent go on from an earlier snapshot of it.

        When that fails the present comes back. Raises SnapshotError, before anything is touched,
        for a snapshot that is damaged or of another hypervisor version.
        """
        progress(literal("checking the snapshot"), None)
        snapshot = await in_thread(self.snapshots.read, record.id, chosen)
        await in_thread(self.snapshots.verify, record.id, chosen, self.maker())
        is_off = vm is None or vm.power is Power.OFF
        if is_off and record.saved_in is None:
            raise SnapshotError("Its present cannot be kept", "The VM is off and not saved.")
        if is_off and record.saved_in == chosen:
            raise Refused("It stands there already", f"It is saved in {chosen}.", "Resume it.")
        before = record
        if vm and not is_off:
            told = literal(f"before roll back to {snapshot.title or chosen}")
            origin = Origin(Cause.ROLL_BACK, told, sanitize(actor()))
            record, _, _ = await self.save(vm, record, Verb.ROLL_BACK, origin, progress)
        present = record
        progress(literal("going back"), None)
        back = sanitize(f"rolled back to {snapshot.title or snapshot.origin.told or chosen}")
        rewound = Rewound(time.time(), snapshot.created, back, chosen)
        record = await self.write(
            replace(
                record,
                saved_in=chosen,
                saving_in=record.saved_in,
                is_frozen=snapshot.is_frozen,
                verb=Verb.ROLL_BACK,
                review=None,
                verdict=None,
                birth=replace(record.birth, rewound=rewound),
            )
        )
        try:
            done = await self._bring_back(record, Verb.ROLL_BACK, progress)
        except UNKNOWN:
            raise
        except SwarmError as error:
            await self._come_back(present, error, progress, is_resumed=not is_off)
            raise
        kept = literal(f"what was the present is kept in {present.saved_in}")
        void = EMPTY
        if before.review is not None:
            void = literal(f"review {before.review} is void: it was of what was given up")
        return join((back, kept, void, done), "; ")

    async def _bring_back(self, record: Record, verb: Verb, progress: Progress) -> Safe:
        """Restore what the record says it is saved in; who was cut off there is not left so."""
        try:
            return await self.resume(None, record, progress, verb)
        except UNKNOWN:
            now = await in_thread(self.catalogue.record, record.id)
            if now and now.verb is None:  # nothing was asked of the host: `recover` does it
                await self.write(replace(record, verb=verb))
            raise

    async def _come_back(
        self, present: Record, error: SwarmError, progress: Progress, *, is_resumed: bool
    ) -> None:
        """After a roll back that failed."""
        if not await self.is_off(present.id):
            return
        progress(literal("bringing the present back"), None)
        try:
            await self.write(replace(present, saving_in=None, verb=None))
            if is_resumed:
                await self._bring_back(present, Verb.ROLL_BACK, progress)
        except SwarmError as worse:
            explain(error, f"The present did not come back at once ({worse.title}); it is kept.")
            return
        explain(
            error,
            "The present came back; nothing was lost."
            if is_resumed
            else "It is saved in its present, as before.",
        )

    # What a person does to a snapshot

    async def mark(self, record: Record, chosen: SnapshotId, title: str, is_pinned: bool) -> Safe:
        """Name and pin a snapshot, or take that back."""
        shown = sanitize(" ".join(title.split()), max_cells=TITLE_CELLS)
        marked = await in_thread(self.snapshots.label, record.id, chosen, shown, is_pinned)
        named = join((literal("named"), marked.title)) if marked.title else literal("no name")
        pinned = literal("pinned" if marked.is_pinned else "not pinned")
        return join((literal(f"snapshot {chosen}"), named, pinned), ", ")

    async def discard(self, record: Record, chosen: SnapshotId) -> Safe:
        """Remove a snapshot. Raises Refused when something but a person holds it."""
        held = await in_thread(self.retention.holds, record.id)
        if why := held.get(chosen):
            raise Refused("The snapshot is needed", f"{chosen}: {why}.")
        if not await in_thread(self.snapshots.prune, record.id, [chosen]):
            raise NotFound("There is no such snapshot", chosen)
        return literal(f"snapshot {chosen} is removed")

    # Recovery

    async def recover(self, record: Record) -> Record:
        """As of all verbs; after a checkpoint or a roll back the agent goes on, as it did."""
        if record.verb not in PASSING:
            return await super().recover(record)
        await self.end_left_behind(record)
        power = await self.power(record.id)
        if power is Power.PAUSED:
            power = await self._go_on_after_dump(record)
        if power is Power.OFF and record.saved_in is None:
            verb = record.verb
            record = await self.finish_pause(record)
            if record.saved_in is None:
                return record
            record = await self.write(replace(record, verb=verb))
        if power is Power.OFF:
            await self._go_on_from_disk(record)
        elif power is Power.RUNNING and await self.drop_drafts(record.id):
            vm = await self.hypervisor.describe(record.id)
            if record.saved_in or record.is_frozen:
                await self.wake(vm, record, _unheard)
            await self.write(going_on(record))
        return await in_thread(self.catalogue.record, record.id) or record

    async def _go_on_after_dump(self, record: Record) -> Power:
        drafts = await in_thread(self.snapshots.drafts, record.id)
        copied = [await in_thread(self.snapshots.is_copied, draft) for draft in drafts]
        if copied and all(copied):  # else its memory may be under way yet
            await self.hypervisor.resume(record.id)
        return await self.power(record.id)

    async def _go_on_from_disk(self, record: Record) -> None:
        present = record.saving_in
        verb = record.verb or Verb.RESUME
        try:
            await self._bring_back(record, verb, _unheard)
        except UNKNOWN:
            raise
        except SwarmError as error:
            if present and verb is Verb.ROLL_BACK and await self.is_off(record.id):
                there = await in_thread(self.snapshots.read, record.id, present)
                await self._come_back(
                    replace(
                        record,
                        saved_in=present,
                        is_frozen=there.is_frozen,
                        birth=replace(record.birth, rewound=None),
                    ),
                    error,
                    _unheard,
                    is_resumed=True,
                )
            raise


def _unheard(_step: Safe, _fraction: float | None) -> None:
    """Nobody looks on."""


async def _both(*works: Awaitable[None]) -> None:
    """Side by side, each to its end. Raises SwarmError, one whose outcome is unknown first."""
    results = await asyncio.gather(*works, return_exceptions=True)
    failures = [result for result in results if isinstance(result, BaseException)]
    for failure in sorted(failures, key=lambda one: not isinstance(one, UNKNOWN)):
        raise failure
