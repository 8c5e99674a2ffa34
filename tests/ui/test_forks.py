"""Forking by key: how many, under which names, and what is refused."""

from __future__ import annotations

from stand_in import StandInSupervisor, make_app, make_fleet, running, seen, until

from swarm_tui.command import Fork
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
        ember = screen.grid.cursor = swarm.named("ember").id
        await pilot.press("f")
        await until(pilot, lambda: "Fork ember" in seen(app), "the dialog")
        assert "1 fork" in seen(app)
        await pilot.press("backspace", "0")
        await until(pilot, lambda: "a number from 1 to 50" in seen(app), "the limit")
        await pilot.press("enter")
        assert isinstance(app.screen, ForkDialog), "it was taken all the same"
        await pilot.press("backspace", "3", "tab", *"try", "enter")
        await until(pilot, lambda: bool(swarm.done), "the forks")
        assert swarm.done == [Fork(ember, 3, "try")]


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
