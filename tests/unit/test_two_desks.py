"""Two reviewers on two machines with one store: what one takes the other opens and decides."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cut import cut_at

from swarm_tui.audit import Audit, Outcome
from swarm_tui.command import Approve, Resume, Review, SendBack
from swarm_tui.database import Database
from swarm_tui.errors import (
    AuditError,
    Refused,
    ReviewError,
    SignatureError,
    StoreUnreachable,
    SwarmError,
)
from swarm_tui.handoff import Comment
from swarm_tui.model import Judgement, State
from swarm_tui.ports import Signature
from swarm_tui.review.desk import Reading, open_reading
from swarm_tui.review.quarantine import Quarantine
from swarm_tui.review.shelf import Shelf
from swarm_tui.supervisor import Supervisor
from swarm_tui.text import literal

from .hall import Hall, make_hall
from .lab import DEADLINE_S, Lab, hurry_store, until
from .standin import AGENT


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry_store(monkeypatch)


@dataclass
class Desks:
    """One agent, and desks from which it is reviewed, each with a home of its own."""

    hall: Hall
    lab: Lab
    database: Database

    def shelf(self, name: str) -> Shelf:
        return Shelf(self.hall.home / name / "reviews", self.database)

    @asynccontextmanager
    async def at(self, name: str) -> AsyncIterator[Supervisor]:
        supervisor = self.lab.make()
        supervisor.audit = Audit(self.hall.home / name / "audit.jsonl", self.database)
        supervisor.terms = replace(
            supervisor.terms,
            shelf=self.shelf(name),
            reviewer=literal(f"{name}@example.org"),
        )
        async with supervisor:
            await supervisor.connected(DEADLINE_S)
            yield supervisor

    async def take(self) -> None:
        async with self.at("ann") as ann:
            await ann.do(Review(AGENT))

    async def open(self, name: str, number: int = 1, lender: Path | None = None) -> Reading:
        return await open_reading(self.shelf(name), AGENT, number, lender)


@pytest.fixture
def desks(memory_path: Path, database: Database) -> Desks:
    hall = make_hall(memory_path)
    hall.work()
    return Desks(hall, Lab(hall.home), database)


async def test_one_reviews_and_the_other_opens_comments_and_approves(desks: Desks) -> None:
    async with desks.at("ann") as ann, desks.at("bob") as bob:
        await ann.do(Review(AGENT))
        await bob.refresh(AGENT)
        await until(lambda: desks.lab.state(bob) is State.SAVED, "bob sees it")
        anns, bobs = await ann.reading(AGENT), await bob.reading(AGENT)
        async with anns, bobs:
            assert bobs.review == anns.review
            [change] = bobs.review.changes
            assert (await bobs.file(change)).text("new", 1) == "done"
            assert b"".join([piece async for piece in bobs.patch()]) == b"".join(
                [piece async for piece in anns.patch()]
            )
            anns.comment(Comment("a", "Why?", change.path, first=1, last=1))
            bobs.comment(Comment("b", "Because.", change.path, first=1, last=1))
            for key in (bobs.review.about, change.key):
                bobs.mark(key, is_viewed=True)
            assert anns.drafts() == bobs.drafts()
            assert [comment.id for comment in anns.drafts().comments] == ["a", "b"]
        digest = bobs.review.digest
        await bob.do(Approve(AGENT, 1, digest))
        with pytest.raises(SwarmError):
            await ann.do(Approve(AGENT, 1, digest))
        acts = [(act.verb, act.outcome) for act in ann.acts(AGENT)]
        assert acts == [(act.verb, act.outcome) for act in bob.acts(AGENT)]
        assert acts[:2] == [("review", Outcome.DONE), ("approve", Outcome.DONE)]
    assert desks.hall.landed() == bobs.review.head
    [message] = desks.hall.messages()
    assert "Why?" in message["text"]
    assert "Because." in message["text"]
    decided = desks.shelf("ann").verdict(AGENT, 1)
    assert decided is not None
    assert (decided.reviewer, decided.steps) == ("bob@example.org", ("landed", "delivered"))


async def test_both_cannot_decide_though_both_try_at_once(desks: Desks) -> None:
    await desks.take()
    review = desks.shelf("bob").read(AGENT, 1)
    handoffs = {
        name: replace(
            desks.hall.handoff,
            terms=replace(desks.hall.handoff.terms, shelf=desks.shelf(name)),
        )
        for name in ("ann", "bob")
    }
    signed = {
        name: await handoff._sign(review, _judgement(), desks.shelf(name).drafts(AGENT, 1), name)
        for name, handoff in handoffs.items()
    }
    desks.shelf("bob").write_verdict(signed["bob"])
    with pytest.raises(Refused, match="decided already"):
        desks.shelf("ann").write_verdict(signed["ann"])


def _judgement() -> Judgement:
    return Judgement.SEND_BACK


async def test_a_second_review_is_compared_with_the_first_elsewhere(desks: Desks) -> None:
    await desks.take()
    async with desks.at("ann") as ann:
        await ann.do(SendBack(AGENT, 1, desks.shelf("ann").read(AGENT, 1).digest, "More."))
        desks.hall.work("more.txt")
        await ann.do(Review(AGENT))
    async with await desks.open("bob", 2) as reading:
        assert reading.previous is not None
        assert [change.path for change in await reading.since()] == [b"more.txt"]


async def test_who_has_no_repository_gets_the_base_too(desks: Desks) -> None:
    await desks.take()
    async with await desks.open("bob") as reading:
        assert [change.path for change in reading.review.changes] == [b"work.txt"]
        assert b"".join([piece async for piece in reading.patch()])


async def test_a_base_that_is_too_large_is_told(desks: Desks) -> None:
    await desks.take()
    with desks.database.write() as transaction:
        transaction.run("DELETE FROM pack_parts WHERE name LIKE 'base/%'")
        transaction.run("UPDATE packs SET size = 0, sha256 = '' WHERE name LIKE 'base/%'")
    with pytest.raises(ReviewError, match="not at hand") as raised:
        await desks.open("bob")
    assert "review.repository" in raised.value.hint
    async with await desks.open("bob", lender=desks.hall.owner) as reading:
        assert reading.review.number == 1


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE pack_parts SET content = ? WHERE name LIKE 'review/%'",
        "UPDATE pack_parts SET content = ? WHERE name LIKE 'base/%'",
    ],
)
@pytest.mark.parametrize("is_digest_right", [False, True])
async def test_hostile_bytes_in_the_store_are_refused_and_leave_nothing(
    desks: Desks, sql: str, is_digest_right: bool
) -> None:
    await desks.take()
    hostile = b"PACK\0\0\0\2\0\0\0\1" + b"\xff" * 200
    with desks.database.write() as transaction:
        assert transaction.run(sql, hostile)
        if is_digest_right:
            digest = hashlib.sha256(hostile).hexdigest()
            transaction.run("UPDATE packs SET size = ?, sha256 = ?", len(hostile), digest)
    with pytest.raises(ReviewError):
        await desks.open("bob")
    async with Quarantine(desks.shelf("bob").quarantine(AGENT)) as quarantine:
        assert await quarantine.head_of(1) is None
    async with await desks.open("ann") as reading:  # who has the objects needs no store for them
        assert reading.review.number == 1


@pytest.mark.parametrize(
    ("written", "altered"),
    [
        ('"added": 1', '"added": 2'),
        ('"kind": "ci"', '"kind": "mode"'),
    ],
)
@pytest.mark.parametrize("name", ["ann", "bob"])
async def test_a_review_that_was_altered_in_the_store_is_told_where_it_was_taken_and_elsewhere(
    desks: Desks, name: str, written: str, altered: str
) -> None:
    desks.hall.work(".travis.yml")
    await desks.take()
    review = desks.shelf("ann").read(AGENT, 1)
    with desks.database.write() as transaction:
        was = transaction.row("SELECT content FROM reviews")
        assert was
        assert written in was[0]
        transaction.run("UPDATE reviews SET content = ?", was[0].replace(written, altered))
    for _ in range(2):
        with pytest.raises(ReviewError, match="does not say what its work is"):
            await desks.open(name)
    async with desks.at(name) as supervisor:
        for key in (review.about, *(change.key for change in review.changes)):
            desks.shelf(name).mark(AGENT, key, is_viewed=True)
        with pytest.raises(ReviewError):
            await supervisor.do(Approve(AGENT, 1, review.digest))
    assert desks.hall.landed() is None


class StandInSigner:
    """Takes "good" for everybody's signature."""

    async def sign(self, payload: bytes) -> Signature:
        return Signature("good", "ssh-ed25519 AAAA")

    async def check(
        self, payload: bytes, armored: str, principal: str, allowed_signers: Path
    ) -> str:
        if armored != "good":
            raise SignatureError("The signature does not hold")
        return "SHA256:good"


@pytest.mark.parametrize("signature", ["", "forged", "good"])
async def test_a_verdict_from_the_store_counts_by_its_signature(
    desks: Desks, signature: str
) -> None:
    await desks.take()
    review = desks.shelf("ann").read(AGENT, 1)
    verdict = await desks.hall.handoff._sign(
        review, Judgement.SEND_BACK, desks.shelf("ann").drafts(AGENT, 1), "Mend it."
    )
    desks.shelf("ann").write_verdict(replace(verdict, signature=signature))
    async with desks.at("bob") as bob:
        bob.terms = replace(bob.terms, signer=StandInSigner())
        if signature == "good":
            await bob.do(Resume(AGENT))
            assert desks.lab.state(bob) is State.RUNNING
        else:
            with pytest.raises(SignatureError) as raised:
                await bob.do(Resume(AGENT))
            assert "allowed_signers" in raised.value.hint
            assert desks.lab.state(bob) is State.SAVED
    assert len(desks.hall.messages()) == (signature == "good")


@pytest.mark.parametrize("change", [2, 5, 8, 11, 14])
async def test_a_store_that_is_cut_off_under_a_review_loses_nothing(
    desks: Desks, change: int
) -> None:
    async with desks.at("ann") as ann:
        with cut_at(desks.database, change), suppress(AuditError, StoreUnreachable):
            await ann.do(Review(AGENT))
        await ann.do(Review(AGENT))
        number = desks.shelf("bob").numbers(AGENT)[-1]
        await ann.do(SendBack(AGENT, number, desks.shelf("bob").read(AGENT, number).digest, "No."))
        assert desks.lab.state(ann) is State.RUNNING
    desks.hall.assert_working()
    assert [message["verdict"] for message in desks.hall.messages()] == ["send-back"]
    audit = Audit(desks.hall.home / "bob" / "audit.jsonl", desks.database)
    assert [act.verb for act in audit.recent() if act.outcome is Outcome.DONE][-1] == "send-back"
    assert all(act.outcome for act in audit.recent())


@pytest.mark.parametrize("change", [2, 5, 6, 9, 10])
async def test_a_store_that_is_cut_off_under_a_verdict_gives_it_once(
    desks: Desks, change: int
) -> None:
    await desks.take()
    digest = desks.shelf("ann").read(AGENT, 1).digest
    async with desks.at("ann") as ann:
        with cut_at(desks.database, change), suppress(AuditError, StoreUnreachable):
            await ann.do(SendBack(AGENT, 1, digest, "Mend it."))
        if desks.shelf("ann").verdict(AGENT, 1) is None:
            await ann.do(SendBack(AGENT, 1, digest, "Mend it."))
        elif desks.lab.state(ann) is not State.RUNNING:
            await ann.do(Resume(AGENT))
        await until(lambda: desks.lab.state(ann) is State.RUNNING, "it goes on")
    desks.hall.assert_working()
    assert [message["verdict"] for message in desks.hall.messages()] == ["send-back"]
