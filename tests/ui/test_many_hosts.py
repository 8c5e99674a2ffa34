"""Many hosts of mixed drivers in one fleet: real libvirt ones, simulated ones, a dead one."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from stand_in import running, seen, until
from testhost import Domain, write_host
from textual.pilot import Pilot

from swarm_tui.adapters.libvirt import LibvirtHypervisor
from swarm_tui.adapters.simulated import SimulatedSwarm
from swarm_tui.audit import Audit
from swarm_tui.catalogue import Catalogue
from swarm_tui.database import open_database
from swarm_tui.lifecycle import Terms
from swarm_tui.model import HostName, HostState, State
from swarm_tui.review.shelf import Shelf
from swarm_tui.site import Site, Timing
from swarm_tui.snapshot import Snapshots
from swarm_tui.supervisor import Supervisor
from swarm_tui.text import literal
from swarm_tui.ui.app import Settings, SwarmApp
from swarm_tui.ui.grid import View
from swarm_tui.ui.screen import top

SIZE = (140, 40)
DEAD = HostName("dead")


@pytest.fixture
def deaf(tmp_path: Path) -> Iterator[Path]:
    """A socket that takes every connection and never says a word: the worst of dead hosts."""
    place = tmp_path / "deaf"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen()
        yield place


@pytest.fixture
def swarm(tmp_path: Path, deaf: Path) -> tuple[Supervisor, SimulatedSwarm]:
    """Three hosts of the test driver, two simulated ones, and the dead one first."""
    simulated = SimulatedSwarm(8, hosts=2, tick_s=0.1)
    sites = [Site(LibvirtHypervisor(DEAD, f"qemu+unix:///session?socket={deaf}"))]
    for name in ("lab", "edge", "bench"):
        domains = [Domain(f"{name}-{number}", labels=[f"on={name}"]) for number in range(3)]
        sites.append(Site(LibvirtHypervisor(HostName(name), write_host(tmp_path, name, domains))))
    sites += [Site(simulated.hypervisor(host)) for host in range(2)]
    supervisor = Supervisor(
        sites,
        simulated.guest,
        Catalogue(open_database(f"sqlite://{tmp_path}/store.db"), tmp_path / "catalogue"),
        Snapshots(tmp_path / "snapshots"),
        Audit(tmp_path / "audit.jsonl"),
        Terms(Shelf(tmp_path / "reviews"), literal("nobody"), None, tmp_path / "signers", 1 << 20),
        timing=Timing(poll_s=0.1, relist_s=1.0),
    )
    return supervisor, simulated


@asynccontextmanager
async def shown(supervisor: Supervisor) -> AsyncIterator[tuple[SwarmApp, Pilot[None]]]:
    async with supervisor:
        app = SwarmApp(supervisor, Settings(view=View.TABLE, notify="off"), lambda agent: [])
        async with running(app, SIZE) as pilot:
            await until(pilot, lambda: len(supervisor.store.agents()) == 17, "all agents")
            yield app, pilot


async def test_a_dead_host_costs_the_others_nothing(
    swarm: tuple[Supervisor, SimulatedSwarm],
) -> None:
    supervisor, simulated = swarm
    store = supervisor.store
    async with shown(supervisor) as (app, pilot):
        host = store.host(DEAD)
        assert host
        assert host.state is HostState.CONNECTING, "its connection hangs"

        def readings() -> dict[HostName, float]:
            return {one.name: one.seen or 0.0 for one in store.hosts() if one.name != DEAD}

        for _ in range(3):  # all others are read again and again meanwhile
            before = readings()
            await until(
                pilot,
                lambda: all(at > before[name] for name, at in readings().items()),  # noqa: B023
                "a reading of every other host",
            )
        assert store.host(DEAD) == host, "still the same try"
        assert f"{DEAD}  connecting to qemu+unix" in seen(app)
        assert "5/6 hosts up" in seen(app)
        names = ("lab-0", "edge-2", "bench-1")
        await until(pilot, lambda: all(name in seen(app) for name in names), "every host's agents")
        simulated.crash(simulated.ids()[0])
        await until(pilot, lambda: "1 failed" in seen(app).splitlines()[0], "news of the others")


async def test_a_verb_reaches_agents_of_different_drivers_at_once(
    swarm: tuple[Supervisor, SimulatedSwarm],
) -> None:
    supervisor, _ = swarm
    async with shown(supervisor) as (app, pilot):
        await pilot.press("slash", *"host:lab,bench,simulated* state:running", "enter", "a", "P")
        await until(pilot, lambda: "3 on lab" in seen(app), "the question")
        assert "3 on bench" in seen(app)
        await pilot.pause(0.4)  # a yes that comes sooner counts for none
        await pilot.press("y")
        await until(pilot, lambda: "done to" in seen(app), "the outcome")
        states = {str(agent.name): agent.state for agent in supervisor.store.agents()}
        assert {states[f"{host}-{n}"] for host in ("lab", "bench") for n in range(3)} == {
            State.PAUSED
        }
        assert {states[f"edge-{n}"] for n in range(3)} == {State.RUNNING}


async def test_the_panel_tells_every_driver_and_filters_to_one_host(
    swarm: tuple[Supervisor, SimulatedSwarm],
) -> None:
    supervisor, _ = swarm
    async with shown(supervisor) as (app, pilot):
        await pilot.press("H")
        await until(pilot, lambda: "6 hosts" in seen(app), "the panel")
        text = seen(app)
        for told in ("… connecting", "TEST ", "simulated"):
            assert told in text, told
        assert "uri        qemu+unix:///session?socket" in text
        assert "not connected so far" in text
        await pilot.press("j")
        await until(pilot, lambda: "the driver does not tell it (virNode" in seen(app), "why")
        await pilot.press("enter")
        await until(pilot, lambda: "/host:lab 3 shown" in seen(app), "the fleet")
        assert top(app).context.roster.filter == "host:lab"
