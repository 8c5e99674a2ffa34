"""Rules that would let everything go meet snapshots that somebody, or something, needs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from swarm_tui.command import Checkpoint, Discard, Fork, Kill, Mark, Pause, Resume, Review, RollBack
from swarm_tui.errors import Busy, Refused
from swarm_tui.model import Cause, Origin, Snapshot, State
from swarm_tui.retention import Keeping
from swarm_tui.snapshot import Snapshots
from swarm_tui.supervisor import Supervisor
from swarm_tui.text import literal

from .hall import make_hall
from .lab import Lab, hurry_store, until
from .standin import AGENT, Call
from .workbench import STANDS_AT

MERCILESS = Keeping(keep=0, age_s=0.0, agent_bytes=1, total_bytes=1)


@pytest.fixture
def lab(memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    hurry_store(monkeypatch)
    hall = make_hall(memory_path)
    hall.work()
    return Lab(hall.home)


@pytest.fixture
async def supervisor(lab: Lab) -> AsyncIterator[Supervisor]:
    async with lab.running() as supervisor:
        supervisor._retention = replace(supervisor._retention, rules=MERCILESS)
        yield supervisor


def there(lab: Lab) -> list[Snapshot]:
    files = Snapshots(lab.home / "snapshots")
    return [files.read(AGENT, name) for name in files.ids(AGENT)]


def is_idle(supervisor: Supervisor) -> bool:
    agent = supervisor.store.agent(AGENT)
    return agent is not None and agent.operation is None


async def turn(supervisor: Supervisor) -> None:
    """An automatic checkpoint, after which the rules are kept to."""
    await supervisor.do(Checkpoint(AGENT, origin=Origin(Cause.TURN, literal("turn"))))


async def test_nothing_else_stays(lab: Lab, supervisor: Supervisor) -> None:
    """The rules are as hard as the tests below need them to be."""
    for _ in range(3):
        await turn(supervisor)
        assert len(there(lab)) == 1


async def test_what_a_person_named_or_pinned(lab: Lab, supervisor: Supervisor) -> None:
    await supervisor.do(Checkpoint(AGENT, "green"))
    await turn(supervisor)
    pinned = there(lab)[-1].id
    await supervisor.do(Mark(AGENT, pinned, "", is_pinned=True))
    for _ in range(3):
        await turn(supervisor)
    assert [one.title for one in there(lab)[:2]] == ["green", ""]
    assert there(lab)[1].id == pinned
    await supervisor.do(Mark(AGENT, pinned, "", is_pinned=False))
    await turn(supervisor)
    assert pinned not in [one.id for one in there(lab)]


async def test_the_only_one_of_a_person(lab: Lab, supervisor: Supervisor) -> None:
    await supervisor.do(Checkpoint(AGENT))
    [only] = there(lab)
    await supervisor.do(Pause(AGENT, is_quick=True))
    await supervisor.do(Resume(AGENT))
    assert there(lab) == [only], "there is no way back any more"


async def test_what_is_under_review(lab: Lab, supervisor: Supervisor) -> None:
    await turn(supervisor)
    await supervisor.do(Review(AGENT))
    [reviewed] = there(lab)
    assert reviewed.origin.told == "review 1"
    with pytest.raises(Refused, match="is needed") as raised:
        await supervisor.do(Discard(AGENT, reviewed.id))
    assert "review 1" in raised.value.detail
    await supervisor.do(Resume(AGENT))
    assert lab.world.is_working()


async def test_what_a_fork_is_being_made_of(lab: Lab, supervisor: Supervisor) -> None:
    await supervisor.do(Checkpoint(AGENT))
    source = there(lab)[0].id
    plan = lab.world.plans["spawn"] = Call(gate=asyncio.Event())
    assert plan.gate
    async with lab.running() as other:
        forking = asyncio.create_task(supervisor.do(Fork(AGENT, 1, "twig", snapshot=source)))
        await until(lambda: "spawn" in lab.world.calls, "it is being made")
        with pytest.raises(Busy):
            await other.do(Discard(AGENT, source))
        with pytest.raises(Busy):
            await supervisor.do(Discard(AGENT, source))
        # Whoever has not heard of the fork yet must not believe that there is none.
        apply = other.store.apply
        other.store.apply = (  # type: ignore[method-assign]
            lambda fact: apply(fact) if getattr(fact, "agent", AGENT) == AGENT else False
        )
        plan.gate.set()
        await forking
        await until(lambda: is_idle(other), "the other sees that the fork is made")
        with pytest.raises(Refused, match="is needed") as raised:
            await other.do(Discard(AGENT, source))
        assert "twig-1 was forked from it" in raised.value.detail
    await turn(supervisor)
    await turn(supervisor)
    assert there(lab)[0].id == source
    await supervisor.refresh()
    twig = next(one for one in supervisor.store.agents() if one.name == "twig-1")
    await supervisor.do(Kill(twig.id))
    await turn(supervisor)
    assert source not in [one.id for one in there(lab)], "nothing needs it any more"


async def test_what_the_present_of_a_fork_is_made_of(lab: Lab, supervisor: Supervisor) -> None:
    """The snapshot that a fork takes of a running agent."""
    await supervisor.do(Fork(AGENT, 1, "twig"))
    [source] = there(lab)
    assert source.origin.cause is Cause.FORK
    await turn(supervisor)
    await turn(supervisor)
    assert there(lab)[0].id == source.id


async def test_what_a_roll_back_goes_to_and_what_it_gives_up(
    lab: Lab, supervisor: Supervisor
) -> None:
    await supervisor.do(Checkpoint(AGENT))
    chosen = there(lab)[0].id
    lab.world.tick()
    plan = lab.world.plans["restore"] = Call(gate=asyncio.Event())
    assert plan.gate
    async with lab.running() as other:
        going = asyncio.create_task(supervisor.do(RollBack(AGENT, chosen)))
        await until(lambda: "restore" in lab.world.calls, "it goes back")
        with pytest.raises(Busy):
            await other.do(Discard(AGENT, chosen))
        assert len(there(lab)) == 2, "the present was given up and is kept nowhere"
        plan.gate.set()
        await going
    lab.world.plans.clear()
    assert lab.world.counter() == STANDS_AT
    [first, present] = there(lab)
    assert (first.id, present.origin.cause) == (chosen, Cause.ROLL_BACK)
    await turn(supervisor)
    await supervisor.do(RollBack(AGENT, chosen))
    assert lab.world.counter() == STANDS_AT, "it cannot go there again"
    await supervisor.do(Discard(AGENT, chosen))
    assert chosen not in [one.id for one in there(lab)], "a person may discard it all the same"
    assert lab.state(supervisor) is State.RUNNING
