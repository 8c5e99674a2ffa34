"""What forks, resumes and other supervisors take of a host's memory before it can be seen there."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from swarm_tui.acting import heed
from swarm_tui.command import Fork, Pause, Resume, Spawn
from swarm_tui.errors import Refused, UsageError
from swarm_tui.model import State, Verb

from .lab import Lab, hurry_store, until
from .standin import AGENT, HOST, Call
from .test_placement import room_for


@pytest.fixture
def lab(memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Room for two more beside the one that is there, which may still grow."""
    hurry_store(monkeypatch)
    made = Lab(memory_path)
    made.world.memory_free = room_for(3)
    return made


async def test_forks_that_do_not_all_fit_are_refused_before_their_source_is_stopped(
    lab: Lab,
) -> None:
    async with lab.running() as supervisor:
        before = len(lab.world.calls)
        with pytest.raises(Refused, match="There is room for 2 of 3 forks") as raised:
            await supervisor.do(Fork(AGENT, 3))
        assert "It needs 256 MiB and, as an estimate, 0 MiB for the VMM" in raised.value.detail
        assert "512 MiB of each host stay free" in raised.value.detail
        assert "has 1.0 GiB free beside 0.2 GiB promised" in raised.value.detail
        assert not {"suspend", "dump", "save"} & {*lab.world.calls[before:]}
        assert not supervisor.acts(), "forks without a place are no act"
        assert lab.world.agents() == [AGENT]
        await supervisor.do(Fork(AGENT, 2))
        assert len(lab.world.agents()) == 3
        await supervisor.refresh()
        lab.world.memory_free = room_for(3)  # they have grown by nothing so far
        with pytest.raises(Refused, match="No host has memory for another agent"):
            await supervisor.do(Fork(AGENT))


async def test_forks_of_what_is_saved_take_room_and_it_takes_none(lab: Lab) -> None:
    async with lab.running() as supervisor:
        await supervisor.do(Pause(AGENT))
        told = supervisor.promises.foresee_forks([Fork(AGENT, 4)])
        assert (told.counts, told.error is None) == ({HOST: 3}, False)
        await supervisor.do(Fork(AGENT, 3))
        assert len(lab.world.agents()) == 4
        assert lab.state(supervisor) is State.SAVED


async def test_forks_under_way_count_for_others(lab: Lab) -> None:
    gate = asyncio.Event()
    lab.world.plans["spawn"] = Call(gate=gate)
    async with lab.running() as supervisor:
        forking = asyncio.create_task(supervisor.do(Fork(AGENT, 2)))
        await until(lambda: len(supervisor.store.agents()) == 3)
        with pytest.raises(Refused, match="No host has memory"):
            await supervisor.do(Spawn(HOST))
        gate.set()
        await forking


async def test_what_is_saved_and_does_not_fit_is_told_and_can_be_resumed_all_the_same(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with lab.running() as supervisor:
        assert not supervisor.promises.doubts([AGENT]), "it runs"
        await supervisor.do(Pause(AGENT))
        assert not supervisor.promises.doubts([AGENT]), "it fits"
        lab.world.memory_free = room_for(1) - 1
        await supervisor.refresh()
        await until(lambda: supervisor.promises.doubts([AGENT]))
        needs, risk = supervisor.promises.doubts([AGENT])
        assert needs == (
            f"ember needs 256 MiB and, as an estimate, 0 MiB for the VMM itself; {HOST} has"
            " 0.7 GiB free, of which 512 MiB are to stay free"
        )
        assert "may end any of its agents" in risk

        agent = supervisor.store.agent(AGENT)
        assert agent
        monkeypatch.setattr(sys.stdin, "isatty", lambda: False)
        with pytest.raises(UsageError, match="needs --yes when nobody can be asked"):
            await heed(supervisor, Verb.RESUME, [agent])
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
        monkeypatch.setattr(sys.stdin, "readline", lambda: "no\n")
        with pytest.raises(UsageError, match="Nothing was done"):
            await heed(supervisor, Verb.RESUME, [agent])
        assert "ember needs 256 MiB" in capsys.readouterr().err
        await heed(supervisor, Verb.KILL, [agent])
        monkeypatch.setattr(sys.stdin, "readline", lambda: "yes\n")
        await heed(supervisor, Verb.RESUME, [agent])
        await supervisor.do(Resume(AGENT))
        assert lab.world.is_working()


async def test_where_memory_is_not_known_nothing_speaks_against_a_resume(lab: Lab) -> None:
    lab.world.memory_free = None
    async with lab.running() as supervisor:
        await supervisor.do(Pause(AGENT))
        assert not supervisor.promises.doubts([AGENT])


async def test_what_is_on_its_way_back_has_its_room(lab: Lab) -> None:
    gate = asyncio.Event()
    async with lab.running() as supervisor:
        await supervisor.do(Pause(AGENT))
        assert len(supervisor.foresee(Spawn(HOST), 9).placed) == 3
        lab.world.plans["restore"] = Call(gate=gate)
        resuming = asyncio.create_task(supervisor.do(Resume(AGENT)))
        await until(lambda: "restore" in lab.world.calls)
        assert len(supervisor.foresee(Spawn(HOST), 9).placed) == 2
        gate.set()
        await resuming
        assert len(supervisor.foresee(Spawn(HOST), 9).placed) == 2


async def test_what_another_supervisor_makes_takes_its_room(lab: Lab) -> None:
    gate = asyncio.Event()
    lab.world.plans["spawn"] = Call(gate=gate)
    async with lab.make(who="ann@desk") as ann, lab.running() as bob:
        await until(lambda: lab.state(ann) is State.RUNNING)
        assert not bob.store.is_busy(HOST)
        spawning = asyncio.create_task(ann.do(Spawn(HOST)))
        await until(lambda: len(bob.foresee(Spawn(HOST), 9).placed) == 1, "bob does not see it")
        assert bob.store.is_busy(HOST), "he would make agents ready meanwhile"
        gate.set()
        await spawning
