"""`swarm-tui demo`: a local swarm of real VMs for the first look, and the proof that all works.

`check` does without a screen what a person would do with one, on a swarm of its own, and prints
one JSON object with the seconds of each step.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from swarm_tui.bootstrap import (
    ensure_local,
    local_folder,
    local_host,
    make_guest,
    make_simulated,
    make_supervisor,
    open_catalogue,
    open_local,
    open_snapshots,
    run_app,
)
from swarm_tui.command import Pause, Resume, Spawn
from swarm_tui.config import Loaded
from swarm_tui.errors import SwarmError
from swarm_tui.model import Address, Agent, AgentId, State
from swarm_tui.ports import Guest
from swarm_tui.report import agent_object, size, write_json
from swarm_tui.store import Store
from swarm_tui.supervisor import Supervisor
from swarm_tui.text import Safe

CONNECT_S: Final = 20.0
STATE_S: Final = 15.0
ANSWER_S: Final = 20.0


def show(loaded: Loaded, shell_argv: Callable[[AgentId], list[str]], *, is_kept: bool) -> int:
    """Bring the swarm up, open the app on it and, unless it is kept, bring it down after."""
    _say(f"a swarm of {loaded.config.local.agents} agents, each in a microVM of its own")
    asyncio.run(up(loaded, is_json=False))
    _say(
        "they stay when you leave (--keep); `swarm-tui demo --down` ends them"
        if is_kept
        else "they end when you leave; --keep lets them stay"
    )
    banner = "" if is_kept else "demo: its agents end when you leave"
    status = run_app(make_supervisor(loaded), loaded, shell_argv, banner)
    if not is_kept:
        asyncio.run(down(loaded, is_json=False))
    return status


def simulate(agents: int, loaded: Loaded) -> int:
    """The app on a swarm that is pretended in memory."""
    home = Path(tempfile.mkdtemp(prefix="swarm-tui-simulated-"))
    try:
        supervisor, _ = make_simulated(agents, home)
        return run_app(supervisor, loaded, _no_shell, "simulated: nothing here is real")
    finally:
        shutil.rmtree(home)


def _no_shell(_agent: AgentId) -> list[str]:
    told = "This agent is simulated: there is no VM and no shell. Enter goes back."
    return ["sh", "-c", 'echo "$1"; read -r _', "sh", told]


async def up(loaded: Loaded, *, is_json: bool) -> int:
    """Bring the swarm up to the configured number of agents, and leave it so."""
    begun = time.monotonic()
    await asyncio.to_thread(ensure_local, loaded.paths)
    async with make_supervisor(loaded, is_following=False) as supervisor:
        await supervisor.connected(CONNECT_S)
        agents = await _spawn_missing(supervisor, loaded)
    given = sum(agent.vm.memory_bytes or 0 for agent in agents if agent.vm)
    _say(f"{len(agents)} agents, {size(given)} of memory, {time.monotonic() - begun:.1f} s")
    if is_json:
        write_json({"agents": [agent_object(agent) for agent in agents]})
    return 0


async def down(loaded: Loaded, *, is_json: bool) -> int:
    """End the local swarm: every VM of it, its disks, snapshots and records."""
    async with open_local(loaded) as spawner:
        ended = await spawner.down()
    for agent in ended:
        _remove_records(loaded, agent)
    if is_json:
        write_json({"ended": list(ended)})
    else:
        _say(f"{len(ended)} agents ended")
    return 0


async def check(loaded: Loaded) -> int:
    """Up, reached, paused to a snapshot, resumed with the counter going on, down."""
    own = apart(loaded)
    clock = _Clock()
    problem: SwarmError | None = None
    facts: dict[str, object] = {}
    try:
        await _check_all(own, clock, facts)
    except SwarmError as error:
        problem = error
    finally:
        with clock.step("down"):
            async with open_local(own) as spawner:
                for agent in await spawner.down():
                    _remove_records(own, agent)
    result: dict[str, object] = {"ok": problem is None, **facts, "seconds": clock.seconds}
    if problem:
        result["error"] = {
            "step": clock.failed,
            "title": problem.title,
            "detail": problem.detail,
            "hint": problem.hint,
        }
    write_json(result)
    return problem.exit_code if problem else 0


async def _check_all(loaded: Loaded, clock: _Clock, facts: dict[str, object]) -> None:
    with clock.step("daemon"):
        facts["uri"] = await asyncio.to_thread(ensure_local, loaded.paths)
    supervisor = make_supervisor(loaded)
    guest = make_guest()
    try:
        async with supervisor:
            await supervisor.connected(CONNECT_S)
            async with open_local(loaded) as spawner:
                with clock.step("image and template"):
                    swarm = await spawner.prepare(_tell)
                    facts["accel"] = swarm.accel
            with clock.step("agents up"):
                agents = await _spawn_missing(supervisor, loaded)
            facts["agents"] = len(agents)
            with clock.step("agents reached"):
                await asyncio.gather(*(_counter(guest, agent) for agent in agents))
            await _check_pause(supervisor, guest, agents[0], clock, facts)
    finally:
        await guest.close()


async def _check_pause(
    supervisor: Supervisor, guest: Guest, agent: Agent, clock: _Clock, facts: dict[str, object]
) -> None:
    before = await _counter(guest, agent)
    with clock.step("pause to a snapshot"):
        facts["pause"] = await supervisor.do(Pause(agent.id))
    await _until(supervisor.store, agent.id, State.SAVED)
    await guest.forget(_address(agent))
    await asyncio.sleep(2)  # time that the counter must not count
    with clock.step("resume"):
        facts["resume"] = await supervisor.do(Resume(agent.id))
    after = await _counter(guest, agent)
    with clock.step("counter goes on"):
        later = await _count_past(guest, agent, after)
    facts["counter"] = {"before": before, "after": after, "later": later}
    if after < before:
        raise SwarmError(
            "The counter in the guest did not go on",
            f"It stood at {before} before the pause and at {after} after it.",
        )


class _Clock:
    """Seconds of each step, in order."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.failed = ""
        """The step in which an error came."""

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        _say(name)
        begun = time.monotonic()
        try:
            yield
        except SwarmError:
            self.failed = name
            raise
        finally:
            self.seconds[name] = round(time.monotonic() - begun, 3)


async def _spawn_missing(supervisor: Supervisor, loaded: Loaded) -> Sequence[Agent]:
    """Make as many agents as are missing; returns all that are there then, by name."""
    here = _own_agents(supervisor, loaded)
    missing = loaded.config.local.agents - len(here)
    if here:
        _say(f"{len(here)} agents are there already")
    spawn = Spawn(local_host(loaded))
    done = await asyncio.gather(*(supervisor.do(spawn, _tell) for _ in range(max(0, missing))))
    for line in done:
        _say(line)
    return _own_agents(supervisor, loaded)


def _own_agents(supervisor: Supervisor, loaded: Loaded) -> Sequence[Agent]:
    """The agents of this local swarm: others may live on the same host."""
    folder = local_folder(loaded.paths)
    own = [
        agent
        for agent in supervisor.store.agents()
        if agent.vm and (folder / "agents" / agent.id).is_dir()
    ]
    return sorted(own, key=lambda agent: agent.name)


def apart(loaded: Loaded) -> Loaded:
    """The same configuration in folders of its own, so that no other swarm is touched."""
    paths = replace(
        loaded.paths, data=loaded.paths.data / "check", state=loaded.paths.state / "check"
    )
    config = replace(
        loaded.config,
        hosts={},
        snapshots=replace(loaded.config.snapshots, folder=paths.snapshots),
    )
    return replace(loaded, paths=paths, config=config)


async def _counter(guest: Guest, agent: Agent) -> int:
    """The counter that a process of the agent's counts up in the guest."""
    done = await guest.run(_address(agent), "cat /run/swarm/counter", timeout_s=ANSWER_S)
    try:
        return int(done.stdout)
    except ValueError as error:
        raise SwarmError(f"{agent.name} has no counter", repr(done.stdout[:80])) from error


async def _count_past(guest: Guest, agent: Agent, value: int) -> int:
    deadline = time.monotonic() + ANSWER_S
    while time.monotonic() < deadline:
        later = await _counter(guest, agent)
        if later > value:
            return later
        await asyncio.sleep(0.1)
    raise SwarmError(f"{agent.name} does not go on", f"Its counter stands at {value}.")


async def _until(store: Store, agent: AgentId, state: State) -> None:
    deadline = time.monotonic() + STATE_S
    while time.monotonic() < deadline:
        now = store.agent(agent)
        if now and now.state is state:
            return
        await asyncio.sleep(0.05)
    shown = now.state if now else "gone"
    raise SwarmError(f"The agent is {shown}, not {state}", f"{STATE_S:.0f} s after the verb.")


def _address(agent: Agent) -> Address:
    if agent.tag.address is None:
        raise SwarmError(f"{agent.name} has no SSH address")
    return agent.tag.address


def _remove_records(loaded: Loaded, agent: AgentId) -> None:
    open_snapshots(loaded).remove(agent)
    open_catalogue(loaded).remove(agent)


def _say(text: str) -> None:
    print(f"swarm-tui: {text}", file=sys.stderr, flush=True)


def _tell(step: Safe, fraction: float | None) -> None:
    _say(f"  {step}" + (f" {fraction:.0%}" if fraction is not None else ""))
