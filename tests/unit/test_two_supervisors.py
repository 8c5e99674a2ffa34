"""Two supervisors on one store: each sees the other's acts, and they never act twice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from swarm_tui.catalogue import Pace
from swarm_tui.command import Kill, Pause, Resume
from swarm_tui.errors import ClaimLost, Refused, StoreUnreachable
from swarm_tui.model import State
from swarm_tui.supervisor import Supervisor

from .lab import Lab, hurry_store, until
from .standin import AGENT, Call


@pytest.fixture
def lab(memory_path: Path, store_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    hurry_store(monkeypatch)
    lab = Lab(memory_path, store_url)
    with closing(lab.catalogue):
        yield lab


def step(supervisor: Supervisor) -> str:
    agent = supervisor.store.agent(AGENT)
    return agent.operation.step if agent and agent.operation else ""


async def test_each_sees_who_acts_and_what_came_of_it(lab: Lab) -> None:
    gate = asyncio.Event()
    lab.world.plans["save"] = Call(gate=gate)
    async with lab.make(who="ann@desk") as ann, lab.running() as bob:
        await until(lambda: lab.state(ann) is State.RUNNING)
        pausing = asyncio.create_task(ann.do(Pause(AGENT)))
        try:
            await until(lambda: step(bob) == "ann@desk is pausing it", "bob is not told")
            with pytest.raises(Refused, match="at work") as raised:
                await bob.do(Kill(AGENT))
            assert "ann@desk is pausing it" in raised.value.detail
        finally:
            gate.set()  # else nobody could leave
        await pausing
        await bob.refresh()
        await until(lambda: lab.state(bob) is State.SAVED and not step(bob), "bob sees no end")
        await bob.do(Resume(AGENT))
        await ann.refresh()
        await until(lambda: lab.state(ann) is State.RUNNING, "ann does not see it")
    assert lab.world.is_working()


async def test_of_many_verbs_at_once_each_is_done_once(lab: Lab) -> None:
    async with lab.running() as ann, lab.running() as bob:
        for number in range(3):
            for verb, call in ((Pause(AGENT), "save"), (Resume(AGENT), "restore")):
                calls = (supervisor.do(verb) for supervisor in (ann, bob, ann, bob))
                results = await asyncio.gather(*calls, return_exceptions=True)
                done = [result for result in results if not isinstance(result, BaseException)]
                assert all(isinstance(result, str | Refused) for result in results), results
                assert len(done) == 1
                assert lab.world.calls.count(call) == number + 1
    assert lab.world.is_working()
    assert lab.world.counter() == 2


async def test_who_is_cut_off_goes_no_further_and_the_other_takes_over(
    memory_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On two machines, in the middle of a pause; and the VM's memory was saved meanwhile."""
    hurry_store(monkeypatch)
    lab = Lab(memory_path, postgres_url, Pace(beat_s=0.05, fence_s=0.5, dead_s=1.0, retry_s=0.1))
    saved = asyncio.Event()
    lab.world.plans["save"] = Call(answer=saved)
    async with (
        lab.make(who="ann@desk", place="desk") as ann,
        lab.make(who="bob@lab", place="lab") as bob,
    ):
        await until(lambda: State.RUNNING is lab.state(ann) is lab.state(bob))
        pausing = asyncio.create_task(ann.do(Pause(AGENT)))
        try:
            await until(lambda: "save" in lab.world.calls)
            monkeypatch.setattr(ann._catalogue.database, "write", cut_off)
            await bob.refresh()
            await until(lambda: lab.state(bob) is State.SAVED, "bob did not take over")
            calls = len(lab.world.calls)
        finally:
            saved.set()  # else nobody could leave
        with pytest.raises(ClaimLost):
            await pausing
        assert "check_saved" not in lab.world.calls[calls:], "she went on"
        monkeypatch.undo()
        hurry_store(monkeypatch)
        await bob.do(Resume(AGENT))
        record = lab.catalogue.record(AGENT)
        assert record
        assert (record.verb, record.saved_in) == (None, None)
    assert lab.world.is_working()
    assert lab.world.counter() == 2
    lab.catalogue.close()


def cut_off() -> None:
    raise StoreUnreachable("The store is out of reach")
