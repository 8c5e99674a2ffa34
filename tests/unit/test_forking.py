"""Forks of an agent that ends meanwhile, on a disk that fills, and of which one fails."""

from __future__ import annotations

import asyncio
from errno import ENOSPC
from pathlib import Path

import pytest

from swarm_tui import durable
from swarm_tui.command import Checkpoint, Fork
from swarm_tui.errors import HostError, StorageFull, SwarmError
from swarm_tui.model import Agent, State
from swarm_tui.snapshot import Snapshots
from swarm_tui.supervisor import Supervisor

from .lab import Lab, hurry_store, until
from .standin import AGENT, Call


@pytest.fixture
def lab(memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    hurry_store(monkeypatch)
    return Lab(memory_path)


def end_vm(lab: Lab) -> None:
    """As `virsh destroy` does."""
    lab.world.change(AGENT, power="off", reason="destroyed", memory=None)


def has_disks(lab: Lab) -> bool:
    return all(Path(disk).exists() for disk in lab.world.state()["disks"])


def others(supervisor: Supervisor) -> list[Agent]:
    return [agent for agent in supervisor.store.agents() if agent.id != AGENT]


@pytest.mark.parametrize("call", ["suspend", "dump"])
async def test_one_that_ends_before_its_memory_is_kept_has_no_forks(lab: Lab, call: str) -> None:
    async with lab.running() as supervisor:
        plan = lab.world.plans[call] = Call(gate=asyncio.Event())
        assert plan.gate
        forking = asyncio.create_task(supervisor.do(Fork(AGENT, 3)))
        await until(lambda: call in lab.world.calls, "it is being copied")
        end_vm(lab)
        plan.gate.set()
        with pytest.raises(SwarmError) as raised:
            await forking
        assert "Its VM has ended meanwhile" in raised.value.hint
        assert "It goes on" not in raised.value.hint
        await supervisor.refresh()
        assert lab.state(supervisor) is State.FAILED
        assert not others(supervisor)
        files = Snapshots(lab.home / "snapshots")
        assert not files.ids(AGENT)
        assert not files.drafts(AGENT)
        assert has_disks(lab)


async def test_one_that_ends_after_that_is_forked_all_the_same(lab: Lab) -> None:
    async with lab.running() as supervisor:
        plan = lab.world.plans["spawn"] = Call(gate=asyncio.Event())
        assert plan.gate
        forking = asyncio.create_task(supervisor.do(Fork(AGENT, 2)))
        await until(lambda: lab.world.calls.count("spawn") == 2, "both are being made")
        end_vm(lab)
        plan.gate.set()
        told = await forking
        assert "ember-1" in told
        assert "ember-2" in told
        await supervisor.refresh()
        assert lab.state(supervisor) is State.FAILED
        assert sorted(agent.name for agent in others(supervisor)) == ["ember-1", "ember-2"]


@pytest.mark.parametrize("step", ["copy_quickly", "digest", "write"])
async def test_a_disk_that_fills_in_the_middle(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    async with lab.running() as supervisor:

        def fill(*given: object) -> str:
            raise OSError(ENOSPC, "No space left on device")

        with monkeypatch.context() as full:
            full.setattr(durable, step, fill)
            with pytest.raises(StorageFull) as raised:
                await supervisor.do(Fork(AGENT, 2))
        assert "It goes on; nothing was lost." in raised.value.hint
        assert lab.world.is_working()
        assert not others(supervisor)
        files = Snapshots(lab.home / "snapshots")
        assert not files.ids(AGENT)
        assert not files.drafts(AGENT)
        await supervisor.do(Fork(AGENT, 2))
        await supervisor.refresh()
        assert len(others(supervisor)) == 2


async def test_those_that_were_made_stay_when_another_fails(lab: Lab) -> None:
    async with lab.running() as supervisor:
        failure = HostError("The VM was not started", "no reason")

        def fail_second(step: str) -> None:
            if step == "before spawn" and lab.world.calls.count("spawn") == 2:
                lab.world.on_step = lambda _: None
                raise failure

        lab.world.on_step = fail_second
        with pytest.raises(HostError) as raised:
            await supervisor.do(Fork(AGENT, 3))
        await supervisor.refresh()
        made = others(supervisor)
        assert len(made) == 2
        assert "2 of 3 forks are there" in raised.value.hint
        assert all(f"{agent.name} ({agent.id}" in raised.value.hint for agent in made)
        assert lab.world.is_working()
        await supervisor.do(Checkpoint(AGENT))
