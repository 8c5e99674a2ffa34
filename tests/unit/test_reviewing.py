"""Reviews through a supervisor: what it shows, what it writes down, and two of them at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm_tui.audit import Outcome
from swarm_tui.command import Approve, Kill, Resume, Review, SendBack
from swarm_tui.errors import NotFound, Refused
from swarm_tui.handoff import Comment
from swarm_tui.model import Judgement, State
from swarm_tui.store import sort_key

from .hall import Hall, make_hall
from .lab import Lab, hurry_store, until
from .standin import AGENT


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry_store(monkeypatch)


@pytest.fixture
def hall(memory_path: Path) -> Hall:
    hall = make_hall(memory_path)
    hall.work()
    return hall


@pytest.fixture
def lab(hall: Hall) -> Lab:
    return Lab(hall.home)


async def test_a_review_is_shown_and_written_down(hall: Hall, lab: Lab) -> None:
    async with lab.running() as supervisor:
        with pytest.raises(NotFound):
            await supervisor.reading(AGENT)
        steps: list[str] = []
        told = await supervisor.do(Review(AGENT), lambda step, _: steps.append(step))
        agent = supervisor.store.agent(AGENT)
        assert agent
        assert (agent.state, agent.reason) == (State.SAVED, "review 1 is open")
        assert agent.is_waiting
        assert sort_key(agent)[0] == 0, "who waits for a human comes first"
        for step in ("freezing the agent", "taking the work", "checking the work", "saving memory"):
            assert step in steps
        assert await supervisor.do(Review(AGENT)) == "review 1 is open", "it was taken anew"
        reading = await supervisor.reading(AGENT)
        [change] = reading.review.changes
        diff = await reading.file(change)
        assert diff.text("new", 1) == "done"
        reading.comment(Comment("c1", "Why?", change.path))
        await reading.close()
        await supervisor.do(SendBack(AGENT, 1, reading.review.digest))
        assert lab.state(supervisor) is State.RUNNING
        review, again, sent = supervisor.acts(AGENT)
        assert (review.verb, review.outcome, review.detail) == ("review", Outcome.DONE, told)
        assert again.outcome is Outcome.DONE
        assert (sent.verb, sent.outcome) == ("send-back", Outcome.DONE)
    [message] = hall.messages()
    assert "Why?" in message["text"]


async def test_of_two_supervisors_one_decides_and_the_other_is_told(hall: Hall, lab: Lab) -> None:
    async with lab.running() as ann, lab.running() as bob:
        await ann.do(Review(AGENT))
        await bob.refresh(AGENT)
        await until(lambda: lab.state(bob) is State.SAVED, "bob sees it")
        reading = await bob.reading(AGENT)
        reading.mark(reading.review.changes[0].key, is_viewed=True)
        digest = reading.review.digest
        await reading.close()
        await ann.do(SendBack(AGENT, 1, digest, "Not yet."))
        with pytest.raises(Refused):
            await bob.do(Approve(AGENT, 1, digest))
    assert hall.landed() is None
    assert [message["verdict"] for message in hall.messages()] == ["send-back"]


async def test_a_verdict_that_was_cut_off_is_named_and_delivered(hall: Hall, lab: Lab) -> None:
    await hall.review()
    review = hall.look()
    verdict = await hall.handoff._sign(
        review, Judgement.APPROVE, hall.shelf.drafts(AGENT, 1), "well done"
    )
    hall.shelf.write_verdict(verdict)
    hall.catalogue.write(hall.record)
    async with lab.running() as supervisor:
        await until(lambda: lab.state(supervisor) is State.SAVED, "it is shown")
        with pytest.raises(Refused, match="decided already"):
            await supervisor.do(SendBack(AGENT, 1, review.digest, "No."))
        await supervisor.do(Resume(AGENT))
        assert lab.state(supervisor) is State.RUNNING
    assert hall.landed() == review.head
    assert [message["verdict"] for message in hall.messages()] == ["approve"]


async def test_a_kill_takes_the_drafts_along_and_leaves_the_verdicts(hall: Hall, lab: Lab) -> None:
    async with lab.running() as supervisor:
        await supervisor.do(Review(AGENT))
        await supervisor.do(SendBack(AGENT, 1, hall.taken().digest, "More."))
        await supervisor.do(Review(AGENT))
        await supervisor.do(Kill(AGENT))
    assert hall.shelf.numbers(AGENT) == [1]
    assert hall.shelf.verdict(AGENT, 1)
    assert not hall.shelf.quarantine(AGENT).exists()
