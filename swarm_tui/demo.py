"""`swarm-tui demo`: a local swarm of real VMs, or a pretended one, for the first look."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from swarm_tui.amount import render_bytes
from swarm_tui.bootstrap import (
    ensure_local,
    local_folder,
    local_host,
    make_simulated,
    make_supervisor,
    open_catalogue,
    open_local,
    open_shelf,
    open_snapshots,
)
from swarm_tui.cadence import cadence
from swarm_tui.catalogue import Catalogue
from swarm_tui.command import Spawn
from swarm_tui.config import Loaded
from swarm_tui.database import open_database
from swarm_tui.model import Agent, AgentId, Birth, Record
from swarm_tui.profile import ENDLESS, Ending, Life, Profile
from swarm_tui.profiles import Entry
from swarm_tui.report import agent_object, write_json
from swarm_tui.stage import run_app
from swarm_tui.supervisor import Supervisor
from swarm_tui.text import Safe, literal

if TYPE_CHECKING:
    from swarm_tui.adapters.simulated import SimulatedSwarm

_LIVES: Final = (
    ENDLESS,
    Life(1800.0, Ending.END),
    Life(on_done=Ending.END, on_failed=Ending.PAUSE),
    Life(7200.0, Ending.PAUSE, on_done=Ending.END),
)
READY: Final = Profile(
    literal("quick"), literal("Simulated: some are made in advance, as H shows"), ready=3
)
_LIVED: Final = 25
"""So many of each kind have such lives."""
CONNECT_S: Final = 20.0
STATE_S: Final = 15.0
ANSWER_S: Final = 20.0


def show(
    loaded: Loaded, shell_argv: Callable[[AgentId], list[str]], *, is_kept: bool, view: str
) -> int:
    """Bring the swarm up, open the app on it and, unless it is kept, bring it down after."""
    say(f"a swarm of {loaded.config.local.agents} agents, each in a microVM of its own")
    asyncio.run(up(loaded, is_json=False))
    say(
        "they stay when you leave (--keep); `swarm-tui demo --down` ends them"
        if is_kept
        else "they end when you leave; --keep lets them stay"
    )
    banner = "" if is_kept else "demo: its agents end when you leave"
    status = run_app(make_supervisor(loaded), loaded, shell_argv, banner, view)
    if not is_kept:
        asyncio.run(down(loaded, is_json=False))
    return status


def simulate(agents: int, loaded: Loaded, view: str) -> int:
    """The app on a swarm that is pretended in memory."""
    home = Path(tempfile.mkdtemp(prefix="swarm-tui-simulated-"))
    try:
        rule = cadence(loaded.config.snapshots)
        supervisor, swarm = make_simulated(agents, home, wanted=lambda: [READY], rule=rule)
        give_lives(Catalogue(open_database(f"sqlite://{home / 'store.db'}"), home / "c"), swarm)
        more = [Entry(READY.name, home, True, READY)]
        banner = "simulated: nothing here is real"
        return run_app(supervisor, loaded, _no_shell, banner, view, more)
    finally:
        shutil.rmtree(home)


def give_lives(catalogue: Catalogue, swarm: SimulatedSwarm) -> None:
    """Some of them end by rule: their time is over soon, or they are done."""
    for number, vm in enumerate(swarm.vms()):
        if number % len(_LIVES) == 0 and number // len(_LIVES) >= _LIVED:
            break
        life = _LIVES[number % len(_LIVES)]
        if life is not ENDLESS:
            now = time.time()
            born = vm.tag.created or now
            left = None if life.ttl_s is None else max(born + life.ttl_s, now + life.ttl_s / 60)
            birth = Birth(literal("simulated"), life=life, expires=left)
            catalogue.write(Record(vm.id, vm.name, vm.host, birth=birth))
    catalogue.close()


def _no_shell(_agent: AgentId) -> list[str]:
    told = "This agent is simulated: there is no VM and no shell. Enter goes back."
    return ["sh", "-c", 'echo "$1"; read -r _', "sh", told]


async def up(loaded: Loaded, *, is_json: bool) -> int:
    """Bring the swarm up to the configured number of agents, and leave it so."""
    begun = time.monotonic()
    await asyncio.to_thread(ensure_local, loaded, say)
    async with make_supervisor(loaded, is_following=False) as supervisor:
        await supervisor.connected(CONNECT_S)
        agents = await spawn_missing(supervisor, loaded)
    given = sum(agent.vm.memory_bytes or 0 for agent in agents if agent.vm)
    say(f"{len(agents)} agents, {render_bytes(given)} of memory, {time.monotonic() - begun:.1f} s")
    if is_json:
        write_json({"agents": [agent_object(agent) for agent in agents]})
    return 0


async def down(loaded: Loaded, *, is_json: bool) -> int:
    """End the local swarm: every VM of it, its disks, snapshots and records."""
    async with open_local(loaded) as spawner:
        ended = await spawner.down()
    for agent in ended:
        remove_records(loaded, agent)
    if is_json:
        write_json({"ended": list(ended)})
    else:
        say(f"{len(ended)} agents ended")
    return 0


async def spawn_missing(supervisor: Supervisor, loaded: Loaded) -> Sequence[Agent]:
    """Make as many agents as are missing; returns all that are there then, by name."""
    here = _own_agents(supervisor, loaded)
    missing = loaded.config.local.agents - len(here)
    if here:
        say(f"{len(here)} agents are there already")
    spawn = Spawn(local_host(loaded))
    done = await asyncio.gather(*(supervisor.do(spawn, tell) for _ in range(max(0, missing))))
    for line in done:
        say(line)
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


def remove_records(loaded: Loaded, agent: AgentId) -> None:
    open_snapshots(loaded).remove(agent)
    open_shelf(loaded).remove(agent)
    with closing(open_catalogue(loaded)) as catalogue:
        catalogue.remove(agent)


def say(text: str) -> None:
    print(f"swarm-tui: {text}", file=sys.stderr, flush=True)


def tell(step: Safe, fraction: float | None) -> None:
    say(f"  {step}" + (f" {fraction:.0%}" if fraction is not None else ""))
