"""Taking an agent's work: it stands still for that, and is as it was before when that fails.

    take    freeze -> pull into quarantine -> look for flags -> keep the review -> save the VM
    look    freeze -> pull into quarantine -> thaw -> look for flags -> keep the review

The work is taken from a guest whose agent is frozen. Of a review that is opened the VM is saved
only then: what is reviewed is what the snapshot holds.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from swarm_tui.errors import Refused, ReviewError, SwarmError
from swarm_tui.handoff import Flag, FlagKind, Review
from swarm_tui.lifecycle.ground import FREEZE_S, UNKNOWN, explain, in_thread, noting
from swarm_tui.lifecycle.timeline import Timeline
from swarm_tui.model import Address, AgentId, Cause, Origin, Power, Record, Verb, Vm
from swarm_tui.ports import Progress, Signer
from swarm_tui.review.carry import carried
from swarm_tui.review.desk import find_flags
from swarm_tui.review.landing import last_landed
from swarm_tui.review.parcel import send
from swarm_tui.review.pull import Pulled, pull
from swarm_tui.review.quarantine import Quarantine
from swarm_tui.review.shelf import Shelf
from swarm_tui.text import EMPTY, Safe, join, literal


@dataclass(frozen=True, slots=True)
class Terms:
    """On which terms reviews are made, as configured."""

    shelf: Shelf
    reviewer: Safe
    """The principal under which verdicts are signed."""
    signer: Signer | None
    """None: verdicts are not signed."""
    allowed_signers: Path
    pack_bytes: int


@dataclass(frozen=True, slots=True)
class Taking:
    """Of the agents of one host. The caller holds the agent."""

    lifecycle: Timeline
    terms: Terms
    repository: Path | None
    """The owner's, in which approved work lands."""

    async def take(self, vm: Vm | None, record: Record, why: Safe, progress: Progress) -> Safe:
        """Open a review of what the agent has done until now; it is saved when this returns.

        When a step fails the agent goes on as it did before, or is paused again, and the error
        says so.
        """
        before = record
        vm, record = await self.stand_still(vm, record, progress)
        try:
            async with self.quarantine(vm.id) as quarantine:
                number = await self._number(vm)
                pulled = await self._pull(vm, quarantine, number, progress)
                review = await self._examine(vm, quarantine, number, pulled, why, progress)
                await self._keep(quarantine, review)
            record = await self.lifecycle.write(replace(record, review=review.number))
        except SwarmError as error:
            await self.go_on(vm, before, record, error, progress)
            raise
        try:
            saved = await self.lifecycle.pause(vm, record, progress, of_review(number))
        except UNKNOWN:  # of the host: it may be saving still
            raise
        except SwarmError as error:
            await self.go_on(vm, before, record, error, progress)
            raise
        return join((literal(f"review {review.number} is open: {_count(review)}"), saved), "; ")

    async def look(self, vm: Vm | None, record: Record, progress: Progress) -> Safe:
        """Take what the agent has done until now as a review that is not opened.

        Who works stands still only until its work is here; who stood still is as it was before,
        which for a saved one means that it is saved again. What the newest review has already is
        not kept twice.
        """
        before, power = record, vm.power if vm else Power.OFF
        goes_on = power is Power.RUNNING and not record.is_frozen
        # By it a cut is mended: who worked goes on by itself, who stood still does not.
        verb = Verb.COMPARE if goes_on else Verb.PAUSE
        began = time.monotonic()
        vm, record = await self.stand_still(vm, record, progress, verb)
        try:
            async with self.quarantine(vm.id) as quarantine:
                number = await self._number(vm)
                pulled = await self._pull(vm, quarantine, number, progress)
                if goes_on:
                    await self.lifecycle.wake(vm, record, progress, is_restored=False)
                    record = await self.lifecycle.write(replace(record, is_frozen=False, verb=None))
                stood = literal(f"it stood still for {time.monotonic() - began:.2f} s")
                newest = await in_thread(self.terms.shelf.last, vm.id)
                if newest and _is_same(newest, vm.tag.base, pulled):
                    number = newest.number
                    told = literal(f"nothing is new since review {number}")
                else:
                    review = await self._examine(vm, quarantine, number, pulled, EMPTY, progress)
                    await self._keep(quarantine, review)
                    told = literal(f"taken as review {number}: {_count(review)}")
        except SwarmError as error:
            await self.go_on(vm, before, record, error, progress)
            raise
        if goes_on:
            return join((told, stood), "; ")
        try:
            if before.saved_in is not None:
                saved = await self.lifecycle.pause(vm, record, progress, of_review(number))
                return join((told, saved), "; ")
            if power is Power.PAUSED:
                await self.lifecycle.hypervisor.suspend(vm.id)
            await self.lifecycle.write(replace(record, verb=None))
        except UNKNOWN:  # of the host: it may be saving still
            raise
        except SwarmError as error:
            await self.go_on(vm, before, record, error, progress)
            raise
        return join((told, literal("it stands still as before")), "; ")

    async def stand_still(
        self, vm: Vm | None, record: Record, progress: Progress, verb: Verb = Verb.REVIEW
    ) -> tuple[Vm, Record]:
        """The VM runs and its agent is frozen, whichever way it was stopped before."""
        ground, before = self.lifecycle, record
        record = await ground.write(replace(record, verb=verb))
        vm, record = await self.bring_back(vm, record, progress)
        try:
            progress(literal("freezing the agent"), None)
            record = await ground.write(replace(record, is_frozen=True))
            await ground.guest.freeze(address_of(vm), FREEZE_S)
        except SwarmError as error:
            await self.go_on(vm, before, record, error, progress)
            raise
        return vm, record

    async def bring_back(
        self, vm: Vm | None, record: Record, progress: Progress
    ) -> tuple[Vm, Record]:
        """The VM runs, its clock is right, and its agent stands as still as it stood before."""
        ground = self.lifecycle
        if vm is None or vm.power is Power.OFF:
            vm = await ground.restore(record, progress)
            record = await ground.write(replace(record, saved_in=None))
        elif vm.power is Power.PAUSED:
            progress(literal("letting the vCPUs run"), None)
            try:
                await ground.hypervisor.resume(vm.id)
            except UNKNOWN:
                raise
            except SwarmError as error:
                with noting([]):  # then `recover` does it
                    await ground.write(replace(record, verb=None))
                explain(error, "It is as it was before.")
                raise
        elif not record.is_frozen:
            return vm, record
        # Also where an earlier try was cut off behind the restore: the clock may be late.
        await ground.wake(vm, replace(record, is_frozen=False), progress)
        return replace(vm, power=Power.RUNNING), record

    async def _number(self, vm: Vm) -> int:
        """Of its next review."""
        number = await in_thread(self.terms.shelf.next_number, vm.id)
        if self.repository:
            with suppress(ReviewError):  # told when it is to land
                number = max(number, await last_landed(self.repository, vm.name) + 1)
        return number

    async def _pull(
        self, vm: Vm, quarantine: Quarantine, number: int, progress: Progress
    ) -> Pulled:
        return await pull(
            self.lifecycle.guest,
            address_of(vm),
            quarantine,
            number,
            vm.tag.base,
            progress,
            limit_bytes=self.terms.pack_bytes,
        )

    async def _examine(
        self,
        vm: Vm,
        quarantine: Quarantine,
        number: int,
        pulled: Pulled,
        why: Safe,
        progress: Progress,
    ) -> Review:
        base, taken = vm.tag.base, time.time()
        progress(literal("looking at what changed"), None)
        survey = await quarantine.survey(base, pulled.head)
        found = list(await find_flags(quarantine, survey, base, pulled.head))
        if pulled.remark:  # what git could not add is in no diff
            found.insert(0, Flag(FlagKind.LEFT_OUT, pulled.remark))
        return Review(
            agent=vm.id,
            name=vm.name,
            number=number,
            taken=taken,
            base=base,
            head=pulled.head,
            tree=survey.tree,
            digest=await quarantine.digest(base, pulled.head),
            changes=tuple(survey.changes),
            flags=tuple(found),
            commits=tuple(survey.commits),
            is_uncommitted=pulled.is_uncommitted,
            why=why,
        )

    async def _keep(self, quarantine: Quarantine, review: Review) -> None:
        """Put it on the shelf, with the comments on an earlier one that came to no verdict."""
        shelf, agent = self.terms.shelf, AgentId(review.agent)
        last = await in_thread(shelf.last, agent)
        left = last and not await in_thread(shelf.verdict, agent, last.number)
        await send(shelf, quarantine, review, self.terms.pack_bytes)
        await in_thread(shelf.write, review)
        await in_thread(shelf.note_checked, review)
        if last and left:
            drafts = await in_thread(shelf.drafts, agent, last.number)
            for comment in await carried(quarantine, drafts.comments, review.changes):
                await in_thread(shelf.comment, agent, review.number, comment)

    async def go_on(
        self, vm: Vm, before: Record, record: Record, error: SwarmError, progress: Progress
    ) -> None:
        """After taking its work failed: the agent is again as it was before it."""
        ground = self.lifecycle
        problems: list[SwarmError] = []
        stands = before.saved_in is not None or before.is_frozen or vm.power is Power.PAUSED
        record = replace(record, review=before.review, verdict=before.verdict, verb=None)
        with noting(problems):
            if before.saved_in is not None:
                await ground.pause(vm, record, progress)
            elif stands:
                await ground.write(replace(record, is_frozen=True))
            else:
                await ground.wake(vm, record, progress, is_restored=False)
                await ground.write(replace(record, is_frozen=False))
        explain(
            error,
            "Nothing was lost; resume it."
            if problems
            else "It was paused again; nothing was lost."
            if before.saved_in
            else "It stands still as before; nothing was lost."
            if stands
            else "It goes on; nothing was lost.",
            *(str(problem) for problem in problems),
        )

    def quarantine(self, agent: AgentId) -> Quarantine:
        """Where the agent's work is kept apart; close it after use."""
        return Quarantine(self.terms.shelf.quarantine(agent), self.repository)


def of_review(number: int) -> Origin:
    """Of a snapshot that holds exactly what that review has."""
    return Origin(Cause.REVIEW, literal(f"review {number}"))


def _is_same(newest: Review, base: str, pulled: Pulled) -> bool:
    """Whether that review has what was pulled; what git could not add nobody can compare."""
    return (newest.base, newest.head) == (base, pulled.head) and not pulled.remark


def address_of(vm: Vm) -> Address:
    """Raises Refused when none is known."""
    if vm.tag.address is None:
        raise Refused(f"{vm.name} cannot be looked into", "No SSH address is known for it.")
    return vm.tag.address


def _count(review: Review) -> Safe:
    parts = [_plural(len(review.changes), "file")]
    if review.flags:
        parts.append(_plural(len(review.flags), "flag"))
    return literal(", ".join(parts))


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun if count == 1 else noun + 's'}"
