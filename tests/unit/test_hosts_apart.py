"""Many hosts, of which some are dead or hang: the others do not notice."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from swarm_tui.command import Kill, Pause, Resume
from swarm_tui.errors import HostUnreachable
from swarm_tui.model import AgentId, HostState, State
from swarm_tui.snapshot import Draft, Snapshots
from swarm_tui.supervisor import Supervisor
from swarm_tui.watch import host as host_watch

from .lab import DEADLINE_S, Lab, until
from .standin import AGENT, Call

HOSTS = 50


@pytest.fixture
def lab(memory_path: Path) -> Lab:
    return Lab(memory_path)


def agent(number: int) -> AgentId:
    return AgentId(f"6f1c7b0e-0000-4000-8000-{number:012}")


async def test_of_fifty_hosts_half_hang_and_the_others_are_there_and_steered(lab: Lab) -> None:
    gate = asyncio.Event()
    for number in range(2, HOSTS + 1):
        world = lab.add_host(f"host-{number:02}")
        if number % 2:
            world.add(agent(number), f"agent-{number}")
        else:
            world.plans["open"] = Call(gate=gate)
    async with lab.make() as supervisor:
        await until(lambda: len(supervisor.store.agents()) == HOSTS // 2, "hosts wait for others")
        shown = {host.state for host in supervisor.store.hosts()}
        assert shown == {HostState.UP, HostState.CONNECTING}
        await asyncio.gather(*(supervisor.do(Pause(it.id)) for it in supervisor.store.agents()))
        assert {it.state for it in supervisor.store.agents()} == {State.SAVED}
        gate.set()


class HangingSnapshots(Snapshots):
    """Kept on a host that hangs: whoever asks for one waits in a thread."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked = 0
        self.gate = threading.Event()

    def draft(self, agent: AgentId) -> Draft:
        self.asked += 1
        assert self.gate.wait(DEADLINE_S)
        return super().draft(agent)


async def test_verbs_that_hang_on_one_host_hold_up_no_verb_elsewhere(lab: Lab) -> None:
    far = lab.add_host("far")
    ids = [agent(number) for number in range(2, 42)]
    for number, it in enumerate(ids):
        far.add(it, f"agent-{number}")
    hanging = HangingSnapshots(lab.home / "far-snapshots")
    supervisor = lab.make(snapshots={far.host: hanging})
    async with supervisor:
        await supervisor.connected(DEADLINE_S)
        pausing = [asyncio.create_task(supervisor.do(Pause(it))) for it in ids]
        await until(lambda: hanging.asked)
        await supervisor.do(Pause(AGENT))
        await supervisor.do(Resume(AGENT))
        await supervisor.do(Kill(AGENT))
        assert not any(task.done() for task in pausing)
        assert hanging.asked < 10, "one host takes threads without end"
        hanging.gate.set()
        await asyncio.gather(*pausing)
        assert {it.state for it in supervisor.store.agents()} == {State.SAVED}


async def test_a_refresh_tries_a_dead_host_at_once(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_watch, "FIRST_BACK_OFF_S", 3600.0)
    monkeypatch.setattr(host_watch, "LAST_BACK_OFF_S", 3600.0)
    dead = lab.add_host("dead")
    dead.add(agent(2), "cobalt")
    dead.plans["open"] = Call(before=HostUnreachable("No route"))
    async with lab.make() as supervisor:
        with pytest.raises(HostUnreachable, match="No route"):
            await supervisor.connected(DEADLINE_S)
        await supervisor.refresh()
        await until(lambda: dead.calls.count("open") == 2)
        dead.plans.clear()
        await until(lambda: _is_waiting(supervisor))
        await supervisor.refresh()
        await until(lambda: lab.state(supervisor, agent(2)) is State.RUNNING)


def _is_waiting(supervisor: Supervisor) -> bool:
    return any(host.next_try is not None for host in supervisor.store.hosts())
