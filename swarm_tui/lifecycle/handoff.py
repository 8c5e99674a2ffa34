"""Verdicts: the agent that stood still for its review goes on with what was said.

    judge   sign -> keep the verdict -> restore -> same head? -> land -> deliver -> thaw

A verdict is on the disk before anything is done with it, and each of its steps is noted after it
was done: one that was cut off is carried out to its end by the next `resume`, and nothing is done
twice.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from swarm_tui import command, durable
from swarm_tui.errors import NotFound, Refused, ReviewError, SignatureError, SwarmError
from swarm_tui.handoff import Drafts, Review, Verdict
from swarm_tui.lifecycle.ground import ANSWER_S, explain, going_on, in_thread, noting
from swarm_tui.lifecycle.taking import Taking, address_of
from swarm_tui.model import AgentId, Judgement, Message, Record, Verb, Vm
from swarm_tui.ports import Progress
from swarm_tui.review.desk import ensure, unseen
from swarm_tui.review.landing import branch_name, holds, read_landed
from swarm_tui.review.pull import head_now
from swarm_tui.review.shelf import Shelf
from swarm_tui.review.signers import first_line
from swarm_tui.review.verdict import compose
from swarm_tui.text import Safe, join, literal, sanitize

_JUDGEMENTS: Final = {
    Verb.APPROVE: Judgement.APPROVE,
    Verb.SEND_BACK: Judgement.SEND_BACK,
    Verb.REJECT: Judgement.REJECT,
}


class _Void(ReviewError):
    """The agent's work moved: what was decided is about something else."""


class Handoff(Taking):
    """Review and verdict for the agents of one host. The caller holds the agent."""

    async def judge(
        self, vm: Vm | None, record: Record, wanted: command.Verdict, progress: Progress
    ) -> Safe:
        """Decide on the open review, and carry the decision out.

        Raises Refused when it is another review or another content than the reviewer saw, when
        a flag was not seen, or when somebody else has decided.
        """
        shelf, agent = self.terms.shelf, record.id
        review = await in_thread(shelf.read, agent, wanted.review)
        if record.review != review.number or wanted.digest != review.digest:
            raise Refused(
                "The verdict is on another content than what is open",
                f"Seen: review {wanted.review}, {wanted.digest}; open: review {record.review}, "
                f"{review.digest}.",
                "Open the review again.",
            )
        judgement = _JUDGEMENTS[wanted.verb]
        drafts = await in_thread(shelf.drafts, agent, review.number)
        if judgement is Judgement.APPROVE:
            async with self.quarantine(agent) as quarantine:
                await ensure(shelf, quarantine, review)
            _check_seen(review, drafts)
            await self._check_landing(review)
        progress(literal("signing the verdict"), None)
        verdict = await self._sign(review, judgement, drafts, wanted.message)
        await in_thread(shelf.write_verdict, verdict)
        if isinstance(wanted, command.Reject) and not wanted.is_kept:
            done = await self.lifecycle.kill(vm, record, progress)
            await in_thread(shelf.note_step, agent, review.number, "delivered")
            await in_thread(shelf.remove, agent)
            return join((literal("rejected"), done), "; ")
        return await self.carry_out(vm, record, verdict, progress)

    async def _check_landing(self, review: Review) -> None:
        if self.repository is None:
            raise Refused(
                "It is not known where to land it",
                f"No repository is configured for the host of {review.name}.",
                "Set review.repository, or repository of its host, to your own repository.",
            )
        if not await holds(self.repository, review.base):
            raise Refused(
                "It cannot be landed in your repository",
                f"{self.repository} does not hold {review.base}, which the agent began with.",
                "Fetch that commit there, or name another repository in the configuration.",
            )
        branch = branch_name(review.name, review.number)
        try:
            landed = await read_landed(self.repository, branch)
        except NotFound:
            return
        if landed.head != review.head:
            raise Refused(
                f"There is a branch {branch} already",
                f"In {self.repository}, at {landed.head}.",
                "Rename or remove it, then approve again.",
            )

    async def _sign(
        self, review: Review, judgement: Judgement, drafts: Drafts, message: str
    ) -> Verdict:
        verdict = compose(
            review,
            judgement,
            reviewer=self.terms.reviewer,
            drafts=drafts,
            message=message,
            at=time.time(),
            branch_name=branch_name,
        )
        if self.terms.signer is None:
            return verdict
        signature = await self.terms.signer.sign(verdict.payload)
        await in_thread(_begin_signers, self.terms.allowed_signers, verdict.reviewer, signature.key)
        try:
            await self.terms.signer.check(
                verdict.payload,
                signature.armored,
                verdict.reviewer,
                self.terms.allowed_signers,
            )
        except SignatureError as error:
            explain(error, f"{self.terms.allowed_signers} does not allow your key.")
            raise
        return replace(verdict, signature=signature.armored)

    async def take_up(
        self, vm: Vm | None, record: Record, verdict: Verdict, progress: Progress
    ) -> Safe:
        """Carry out a verdict that was cut off, whoever gave it.

        Who signs verdicts believes none from the store without a signature that counts. Raises
        SignatureError.
        """
        if self.terms.signer:
            try:
                await self.terms.signer.check(
                    verdict.payload,
                    verdict.signature,
                    verdict.reviewer,
                    self.terms.allowed_signers,
                )
            except SignatureError as error:
                whose = sanitize(verdict.reviewer)
                explain(
                    error,
                    f"Nothing was done with the {verdict.judgement} that {whose} seems to have "
                    f"given: let them resume the agent, or allow their key in "
                    f"{self.terms.allowed_signers}.",
                )
                raise
        return await self.carry_out(vm, record, verdict, progress)

    async def carry_out(
        self, vm: Vm | None, record: Record, verdict: Verdict, progress: Progress
    ) -> Safe:
        """Do what a verdict says, from wherever an earlier try was cut off."""
        ground = self.lifecycle
        record = await ground.write(
            replace(record, verb=Verb(verdict.judgement), verdict=verdict.judgement)
        )
        kept = f"The {verdict.judgement} is kept; resume the agent to deliver it."
        try:
            vm, record = await self.bring_back(vm, record, progress)
        except SwarmError as error:
            explain(error, kept)
            raise
        try:
            done = await self._follow(vm, record, verdict, progress)
            if record.is_frozen:
                progress(literal("thawing the agent"), None)
                await ground.guest.thaw(address_of(vm), ANSWER_S)
        except _Void:
            raise
        except SwarmError as error:
            with noting([]):  # then `recover` does it
                await ground.write(replace(record, verb=None))
            explain(error, "The VM runs, its agent stands still.", kept)
            raise
        await ground.write(going_on(record))
        goes_on = literal("the agent goes on with the verdict")
        return join((done, goes_on, await ground.prune(record.id, None)), "; ")

    async def _follow(self, vm: Vm, record: Record, verdict: Verdict, progress: Progress) -> Safe:
        """The steps of a verdict while the agent stands still, less those that were done."""
        shelf, agent, number = self.terms.shelf, vm.id, verdict.review
        given = await in_thread(shelf.verdict, agent, number)
        steps = given.steps if given else ()
        mark = "" if verdict.signature else " (not signed)"
        done = literal(f"review {number}: {verdict.judgement}{mark}")
        if "void" in steps:
            raise await self._end_void(vm, record, verdict, "It was found so before.", progress)
        if not steps:
            progress(literal("checking that its work is what was reviewed"), None)
            head = await head_now(self.lifecycle.guest, address_of(vm), verdict.base)
            if head != verdict.head:
                await in_thread(shelf.note_step, agent, number, "void")
                told = f"Reviewed: {verdict.head}; now: {head}."
                raise await self._end_void(vm, record, verdict, told, progress)
        if verdict.branch:
            if "landed" not in steps:
                progress(sanitize(f"landing as {verdict.branch}"), None)
                await self._land(verdict)
                await in_thread(shelf.note_step, agent, number, "landed")
            done = join((done, sanitize(f"landed as {verdict.branch}")), ", ")
        if "delivered" not in steps:
            progress(literal("delivering the verdict"), None)
            message = Message(
                id=f"verdict-{number:06}-{verdict.digest[-12:]}",
                kind="verdict",
                text=verdict.message,
                verdict=verdict.judgement,
            )
            await self.lifecycle.guest.deliver(address_of(vm), message, ANSWER_S)
            await in_thread(shelf.note_step, agent, number, "delivered")
        return done

    async def _land(self, verdict: Verdict) -> None:
        if self.repository is None:
            raise Refused("It is not known where to land it", hint="Set review.repository.")
        attachments = {"verdict.json": verdict.payload}
        if verdict.signature:
            attachments["verdict.json.sig"] = verdict.signature.encode()
        agent = AgentId(verdict.agent)
        review = await in_thread(self.terms.shelf.read, agent, verdict.review)
        async with self.quarantine(agent) as quarantine:
            await ensure(self.terms.shelf, quarantine, review)
            await quarantine.land(
                self.repository, verdict.base, verdict.head, verdict.branch, attachments
            )

    async def _end_void(
        self, vm: Vm, record: Record, verdict: Verdict, detail: str, progress: Progress
    ) -> _Void:
        """The agent goes on as if nothing had been decided; returns the error that says so."""
        error = _Void(
            f"The {verdict.judgement} is void: the agent's work moved after it was reviewed",
            detail,
            "Nothing was landed or delivered, and the agent goes on; review it again.",
        )
        problems: list[SwarmError] = []
        is_frozen = record.is_frozen
        with noting(problems):
            await self.lifecycle.wake(vm, record, progress, is_restored=False)
            is_frozen = False
        with noting(problems):
            await self.lifecycle.write(
                replace(record, is_frozen=is_frozen, verb=None, review=None, verdict=None)
            )
        explain(error, *(str(problem) for problem in problems))
        return error


def pending(shelf: Shelf, record: Record) -> Verdict | None:
    """The verdict on the open review that was given and is not carried out yet."""
    if record.review is None:
        return None
    return shelf.verdict(record.id, record.review)


def _check_seen(review: Review, drafts: Drafts) -> None:
    missed = unseen(review, drafts)
    if missed:
        told = [f"{flag.kind}: {sanitize(flag.path) or 'the review'}" for flag in missed]
        raise Refused(
            f"{len(missed)} flags were not seen",
            "\n".join(told),
            "Look at each of these files and mark it as viewed, then approve.",
        )


def _begin_signers(path: Path, principal: str, key: str) -> None:
    """Your own key is the first that counts; who else does is yours to add."""
    if not path.exists():
        with durable.storage("write the allowed signers"):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            durable.write(path, first_line(principal, key).encode())
