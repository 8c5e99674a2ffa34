"""Forking by key: how many, under which names, and what is refused."""

from __future__ import annotations

from dataclasses import replace

from stand_in import MIB, StandInSupervisor, make_app, make_fleet, running, seen, until

from swarm_tui.command import Fork, Spawn
from swarm_tui.fact import HostSeen
from swarm_tui.model import HostName
from swarm_tui.ui.app import Settings
from swarm_tui.ui.fleet import FleetScreen
from swarm_tui.ui.forks import ForkDialog
from swarm_tui.ui.grid import View
from swarm_tui.ui.screen import top

TABLE = Settings(view=View.TABLE)


async def test_f_asks_how_many_and_under_which_names() -> None:
    swarm = make_fleet()
    app = make_app(swarm, TABLE)
    async with running(app) as pilot:
        screen = top(app)
        assert isinstance(screen, FleetScreen)
        cobalt = screen.grid.cursor = swarm.named("cobalt").id
        await pilot.press("f")
        await until(pilot, lambda: "Fork cobalt" in seen(app), "the dialog")
        assert "1 fork" in seen(app)
        await pilot.press("backspace", "0")
        await until(pilot, lambda: "a number from 1 to 50" in seen(app), "the limit")
        await pilot.press("enter")
        assert isinstance(app.screen, ForkDialog), "it was taken all the same"
        await pilot.press("backspace", "3", "tab", *"try", "enter")
        await until(pilot, lambda: bool(swarm.done), "the forks")
        assert swarm.done == [Fork(cobalt, 3, "try")]


async def test_more_forks_than_there_is_room_for_are_refused_where_they_are_asked_for() -> None:
    swarm = make_fleet()
    local = swarm.store.host(HostName("local"))
    assert local
    swarm.apply(HostSeen(replace(local, memory_free=1 << 40)))
    [room] = swarm.promises.rooms(Spawn(local.name))
    swarm.apply(HostSeen(replace(local, memory_free=room.promised + (512 + 2 * 256) * MIB)))
    app = make_app(swarm, TABLE)
    async with running(app) as pilot:
        screen = top(app)
        assert isinstance(screen, FleetScreen)
        screen.grid.cursor = swarm.named("cobalt").id
        await pilot.press("f")
        await until(pilot, lambda: "on local: " in seen(app), "where, and why there")
        await pilot.press("backspace", "9", "enter")
        await until(pilot, lambda: "There is room for 2 of 9 forks" in seen(app), "the refusal")
        assert isinstance(app.screen, ForkDialog), "it was taken all the same"
        await pilot.press("backspace", "2", "enter")
        await until(pilot, lambda: bool(swarm.done), "the forks")


async def test_escape_forks_nothing() -> None:
    swarm = make_fleet()
    app = make_app(swarm, TABLE)
    async with running(app) as pilot:
        screen = top(app)
        assert isinstance(screen, FleetScreen)
        screen.grid.cursor = swarm.named("ember").id
        await pilot.press("f")
        await until(pilot, lambda: "Fork ember" in seen(app), "the dialog")
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, ForkDialog), "it to close")
        assert not swarm.done


async def test_why_an_agent_cannot_be_forked_is_told() -> None:
    swarm = StandInSupervisor()
    swarm.add_host(missing={"fork": "its driver has no way to"})
    swarm.add("ember")
    app = make_app(swarm, TABLE)
    async with running(app) as pilot:
        screen = top(app)
        assert isinstance(screen, FleetScreen)
        screen.grid.cursor = swarm.named("ember").id
        await pilot.press("f")
        await until(pilot, lambda: "its driver has no way to" in seen(app), "the reason")
        assert not swarm.done
