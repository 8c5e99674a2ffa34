"""What an agent has done until now, taken for a comparison: nothing else of it changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from swarm_tui import looks
from swarm_tui.command import Checkpoint, Pause, Resume, Review
from swarm_tui.errors import GuestFailed, GuestUnreachable, Refused
from swarm_tui.inventory import Inventory
from swarm_tui.looks import Looks
from swarm_tui.model import Cause, Power, State
from swarm_tui.ports import Progress
from swarm_tui.review.comparison import Party
from swarm_tui.snapshot import Snapshots
from swarm_tui.supervisor import Supervisor

from .hall import Hall, make_hall
from .lab import Lab, until
from .standin import AGENT, Call
from .workbench import quiet


@pytest.fixture
def hall(memory_path: Path) -> Hall:
    hall = make_hall(memory_path)
    hall.work()
    return hall


@pytest.fixture
def lab(hall: Hall) -> Lab:
    return Lab(hall.home)


@pytest.fixture
async def supervisor(lab: Lab) -> AsyncIterator[Supervisor]:
    async with lab.running() as supervisor:
        yield supervisor


async def look(supervisor: Supervisor, on_progress: Progress = quiet) -> Party:
    agent = supervisor.store.agent(AGENT)
    assert agent
    inventory = Inventory(supervisor._catalogue.database)
    reading = Looks(
        supervisor.terms.shelf,
        inventory,
        supervisor.do,
        supervisor._repository_of,
        supervisor.store.agent,
    )
    return await reading.party(agent, on_progress)


def state(supervisor: Supervisor) -> State | None:
    agent = supervisor.store.agent(AGENT)
    return agent.state if agent else None


async def test_who_works_goes_on_and_what_it_did_is_taken_anew(
    hall: Hall, supervisor: Supervisor
) -> None:
    hall.work("notes.txt", "not committed\n", is_committed=False)
    first = await look(supervisor)
    assert (first.review, first.why_then) == (1, "")
    hall.assert_free()
    assert state(supervisor) is State.RUNNING
    assert [bytes(one.path) for one in hall.taken().changes] == [b"notes.txt", b"work.txt"]
    hall.work("more.txt")
    second = await look(supervisor)
    assert (second.review, second.as_of > first.as_of) == (2, True)
    assert not Snapshots(hall.home / "snapshots").ids(AGENT), "it was saved for that"
    assert [act.verb for act in supervisor.acts()] == ["compare", "compare"]
    assert "it stood still for" in supervisor.acts()[-1].detail


async def test_what_a_review_has_already_is_not_kept_twice(
    hall: Hall, supervisor: Supervisor
) -> None:
    first = await look(supervisor)
    again = await look(supervisor)
    assert (again.review, again.as_of > first.as_of) == (1, True)
    assert hall.shelf.numbers(AGENT) == [1]
    assert "nothing is new since review 1" in supervisor.acts()[-1].detail
    await supervisor.do(Review(AGENT))
    assert hall.record.review == 2, "one that is opened has a number of its own"


async def test_who_is_saved_is_saved_again_and_then_left_alone(
    hall: Hall, supervisor: Supervisor
) -> None:
    await supervisor.do(Pause(AGENT))
    stood_at = hall.stands_at
    assert (await look(supervisor)).review == 1
    assert state(supervisor) is State.SAVED
    newest = Snapshots(hall.home / "snapshots").read(AGENT, hall.record.saved_in or "")  # type: ignore[arg-type]
    assert (newest.origin.cause, newest.origin.told) == (Cause.REVIEW, "review 1")
    assert hall.record.review is None, "it waits for a verdict that nobody asked for"
    acts = len(supervisor.acts())
    taken = (await look(supervisor)).as_of
    assert taken == hall.taken().taken
    assert len(supervisor.acts()) == acts, "it was woken for nothing"
    await supervisor.do(Resume(AGENT))
    assert hall.world.counter() == stood_at
    assert hall.world.is_working()


async def test_what_is_under_review_is_what_its_review_has(
    hall: Hall, supervisor: Supervisor
) -> None:
    await supervisor.do(Review(AGENT))
    acts = len(supervisor.acts())
    assert (await look(supervisor)).review == 1
    assert len(supervisor.acts()) == acts
    hall.assert_open()


async def test_whose_vcpus_stand_still_stands_still_again(
    hall: Hall, supervisor: Supervisor
) -> None:
    await supervisor.do(Pause(AGENT, is_quick=True))
    await look(supervisor)
    assert hall.world.power() is Power.PAUSED
    assert state(supervisor) is State.PAUSED
    await supervisor.do(Resume(AGENT))
    hall.assert_free()


async def test_what_is_at_work_on_it_is_waited_for(
    hall: Hall, lab: Lab, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "LOOK_S", 0.01)
    await look(supervisor)
    hall.work("more.txt")
    plan = lab.world.plans["dump"] = Call(gate=asyncio.Event())
    assert plan.gate
    at_work = asyncio.create_task(supervisor.do(Checkpoint(AGENT)))
    await until(lambda: "dump" in lab.world.calls)
    told: list[str] = []
    looking = asyncio.create_task(look(supervisor, lambda step, _: told.append(step)))
    await until(lambda: any("checkpoint is at work on it" in step for step in told))
    plan.gate.set()
    then = await looking
    await at_work
    assert (then.review, then.why_then) == (2, "")
    hall.assert_free()


async def test_who_cannot_be_read_is_shown_as_it_was_last_and_why(
    hall: Hall, lab: Lab, supervisor: Supervisor
) -> None:
    first = await look(supervisor)
    hall.work("more.txt")
    failure = GuestFailed("Its agent cannot be frozen", "no cgroup")
    lab.world.plans["freeze"] = Call(before=failure)
    then = await look(supervisor)
    assert (then.review, then.as_of) == (1, first.as_of)
    assert "Its agent cannot be frozen" in then.why_then
    assert state(supervisor) is State.RUNNING


async def test_who_was_never_read_and_cannot_be_is_an_error(
    lab: Lab, supervisor: Supervisor
) -> None:
    lab.world.plans["freeze"] = Call(before=GuestUnreachable("It does not answer"))
    with pytest.raises(GuestUnreachable) as raised:
        await look(supervisor)
    assert "It goes on; nothing was lost." in raised.value.hint
    assert "ember cannot be compared" in raised.value.hint, "nobody says whose it is"


async def test_a_checkpoint_between_review_and_pause_is_no_review(
    hall: Hall, supervisor: Supervisor
) -> None:
    """Only a snapshot that was made of the reviewed state tells that nothing is new since."""
    await look(supervisor)
    hall.work("more.txt")
    await supervisor.do(Checkpoint(AGENT))
    await supervisor.do(Pause(AGENT))
    assert (await look(supervisor)).review == 2
    verbs = [str(act.verb) for act in supervisor.acts()]
    assert verbs == ["compare", "checkpoint", "pause", "compare"]


async def test_an_agent_is_not_compared_with_itself(supervisor: Supervisor) -> None:
    with pytest.raises(Refused, match="with itself"):
        await supervisor.comparison(AGENT, AGENT)
    assert not supervisor.acts()
