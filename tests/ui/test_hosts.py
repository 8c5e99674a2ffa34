"""The panel of hosts: how each one is, what it has, and what it cannot do, with the reason."""

from __future__ import annotations

from dataclasses import replace

from stand_in import StandInSupervisor, make_app, make_fleet, running, seen, until

from swarm_tui.fact import HostSeen
from swarm_tui.model import Host, HostName, HostState, Power
from swarm_tui.text import EMPTY, sanitize
from swarm_tui.ui.app import Settings
from swarm_tui.ui.fleet import FleetScreen
from swarm_tui.ui.grid import View
from swarm_tui.ui.screen import top

TABLE = Settings(view=View.TABLE)
WIDE = (120, 40)


def many() -> StandInSupervisor:
    swarm = StandInSupervisor()
    for name, driver in (("lab", "QEMU"), ("edge", "CH"), ("bench", "TEST")):
        swarm.add_host(name, driver=driver, missing={"save": "it has no disk to save to"})
    swarm.add("ash", host="lab", memory_mib=512)
    swarm.add("birch", host="lab", power=Power.PAUSED, memory_mib=256)
    swarm.add("cedar", host="lab", power=Power.OFF, memory_mib=4096)
    swarm.add("dogwood", host="edge")
    return swarm


def change(swarm: StandInSupervisor, name: str, **facts: object) -> None:
    host = swarm.store.host(HostName(name))
    assert host
    swarm.apply(HostSeen(replace(host, **facts)))  # type: ignore[arg-type]


async def test_every_host_has_a_line_with_what_it_has() -> None:
    swarm = many()
    change(swarm, "lab", cpus=16, memory_total=64 << 30, memory_free=40 << 30, latency_s=0.012)
    app = make_app(swarm, TABLE)
    async with running(app, WIDE) as pilot:
        await pilot.press("H")
        await until(pilot, lambda: "3 hosts" in seen(app), "the panel")
        line = next(line for line in seen(app).splitlines() if "lab  " in line)
        for told in ("● up", "QEMU 7.2.22", " 16 ", " 64G ", " 40G ", " 768M ", "12ms"):
            assert told in line, told
        assert "768M and 4 vCPUs to agents that are on" in seen(app)


async def test_what_nobody_tells_is_not_known_and_says_why() -> None:
    swarm = many()
    change(swarm, "lab", missing={"memory_free": "the driver does not tell it"})
    app = make_app(swarm, TABLE)
    async with running(app, WIDE) as pilot:
        await pilot.press("H")
        await until(pilot, lambda: "free     n/a  the driver does not tell it" in seen(app), "why")
        await pilot.press("ctrl+d")
        await until(pilot, lambda: "pause to disk  it has no disk to save to" in seen(app), "lacks")


async def test_it_says_for_how_many_new_agents_there_is_room() -> None:
    """What the 768 MiB of its agents may still grow by, and what stays free, is taken."""
    swarm = many()
    swarm.spawning_hosts = (HostName("lab"),)
    change(swarm, "lab", memory_total=64 << 30, memory_free=(512 + 768 + 5 * 256) << 20)
    app = make_app(swarm, TABLE)
    async with running(app, WIDE) as pilot:
        await pilot.press("H")
        await until(pilot, lambda: "for 5 new agents of 256M each" in seen(app), "the room")
        change(swarm, "lab", memory_free=1 << 30)
        swarm.clock.pass_by(1)
        await until(pilot, lambda: "No host has memory for another agent" in seen(app), "no room")
        await pilot.press("j")
        await until(pilot, lambda: "No agents can be made on edge" in seen(app), "none there")


async def test_enter_shows_the_hosts_agents_alone() -> None:
    swarm = many()
    app = make_app(swarm, TABLE)
    async with running(app, WIDE) as pilot:
        await pilot.press("H", "j", "enter")
        await until(pilot, lambda: isinstance(top(app), FleetScreen), "the fleet")
        await until(pilot, lambda: "/host:edge 1 shown" in seen(app), "the filter")
        assert "dogwood" in seen(app)
        assert "birch" not in seen(app)


async def test_esc_goes_back_and_changes_nothing() -> None:
    app = make_app(many(), TABLE)
    async with running(app, WIDE) as pilot:
        await pilot.press("H", "j", "escape")
        await until(pilot, lambda: isinstance(top(app), FleetScreen), "the fleet")
        assert "birch" in seen(app)
        assert "dogwood" in seen(app)


async def test_a_lost_host_tells_when_it_is_tried_again_and_its_error_in_full() -> None:
    swarm = many()
    change(
        swarm,
        "edge",
        state=HostState.DOWN,
        since=swarm.clock.now() - 200,
        next_try=swarm.clock.now() + 17,
        failure=sanitize("No route\nssh: connect: timed out\nIs it on?", lines="many"),
        failed_at=swarm.clock.now() - 3,
    )
    app = make_app(swarm, TABLE)
    async with running(app, WIDE) as pilot:
        await pilot.press("H", "j")
        await until(pilot, lambda: "next try in 17s" in seen(app), "the next try")
        for told in ("1 lost", "○ lost 3m", "No route", "ssh: connect: timed out", "Is it on?"):
            assert told in seen(app), told
        change(swarm, "edge", next_try=None)
        swarm.clock.pass_by(1)
        await until(pilot, lambda: "trying now" in seen(app), "the try")


async def test_a_host_that_is_not_heard_makes_its_agents_stale() -> None:
    swarm = many()
    now = swarm.clock.now()
    change(swarm, "lab", seen=now)
    change(swarm, "edge", seen=now - 12)
    app = make_app(swarm)
    async with running(app, WIDE) as pilot:
        await until(pilot, lambda: "running · stale 12s" in seen(app), "the tile")
        assert seen(app).count("stale") == 1
        assert "edge  connected, but not heard for 12s" in seen(app)
        await pilot.press("v")
        await until(pilot, lambda: "stale 12s" in seen(app), "the row")
        await pilot.press("H")
        await until(pilot, lambda: "◌ stale 12s" in seen(app), "the panel")
        change(swarm, "edge", seen=swarm.clock.now())
        swarm.clock.pass_by(1)
        await until(pilot, lambda: "stale" not in seen(app), "it is heard again")


def test_staleness_is_of_connected_hosts_and_follows_the_polls() -> None:
    host = Host(HostName("lab"), EMPTY, HostState.UP, 0.0, seen=100.0)
    assert host.stale_s(104.0) is None
    assert host.stale_s(106.0) == 6.0
    assert replace(host, poll_s=10.0).stale_s(130.0) is None
    assert replace(host, poll_s=10.0).stale_s(141.0) == 41.0
    assert replace(host, state=HostState.DOWN).stale_s(999.0) is None
    assert replace(host, seen=None).stale_s(999.0) is None


async def test_hostile_facts_of_a_host_are_only_text() -> None:
    swarm = make_fleet()
    swarm.add_host("evil", driver="\x1b[2J[red]CH\u202e", missing={"save": "\x1b]0;x\x07 no"})
    app = make_app(swarm, TABLE)
    async with running(app, WIDE) as pilot:
        await pilot.press("H", "end", "ctrl+d")
        await until(pilot, lambda: "[red]CH" in seen(app), "the panel")
        assert "\x1b[2J" not in seen(app)
        assert "\u202e" not in seen(app)
