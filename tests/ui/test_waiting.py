"""The queue on the screen: what waits, the oldest first, and what can be done there."""

from __future__ import annotations

from typing import Any

from stand_in import StandInSupervisor, make_app, make_fleet, running, seen, until
from textual.pilot import Pilot

from swarm_tui.command import Kill, Resume
from swarm_tui.errors import StorageFull
from swarm_tui.model import EventKind, Power
from swarm_tui.ui.agent import AgentScreen
from swarm_tui.ui.app import SwarmApp
from swarm_tui.ui.fleet import FleetScreen
from swarm_tui.ui.grid import GRACE_S
from swarm_tui.ui.waiting import WaitingScreen


async def open_queue(swarm: StandInSupervisor, pilot: Pilot[Any]) -> WaitingScreen:
    await pilot.press("W")
    app = pilot.app
    await until(pilot, lambda: isinstance(app.screen, WaitingScreen), "the queue")
    screen = app.screen
    assert isinstance(screen, WaitingScreen)
    await until(pilot, lambda: screen.queue.count, "what waits")
    swarm.clock.pass_by(GRACE_S)
    return screen


async def go_to(screen: WaitingScreen, pilot: Pilot[Any], name: str) -> None:
    for _ in range(screen.queue.count):
        if screen.need and screen.need.name == name:
            return
        await pilot.press("j")
    raise AssertionError(f"{name} does not wait")


def lines(app: SwarmApp) -> list[str]:
    return [line.rstrip() for line in seen(app).splitlines()]


async def test_it_shows_who_waits_with_kind_age_host_and_reason() -> None:
    swarm = make_fleet()
    app = make_app(swarm)
    async with running(app) as pilot:
        await open_queue(swarm, pilot)
        shown = lines(app)
        assert shown[0].startswith(" waiting 2 ask · 1 failed · 1 host")
        assert [line.split()[1:4] for line in shown[1:5]] == [
            ["ask", "3m", "moss"],
            ["host", "1m", "attic"],
            ["ask", "57s", "fern"],
            ["failed", "12s", "onyx"],
        ]
        assert "review: 3 files changed, tests pass" in shown[1]
        assert max(map(len, shown)) <= 80


async def test_enter_goes_to_the_agent_and_escape_comes_back() -> None:
    swarm = make_fleet()
    app = make_app(swarm)
    async with running(app) as pilot:
        screen = await open_queue(swarm, pilot)
        need = screen.need
        assert need
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, AgentScreen), "its screen")
        assert need.name in lines(app)[0]
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is screen, "the queue again")


async def test_enter_on_a_lost_host_shows_its_agents() -> None:
    swarm = make_fleet()
    app = make_app(swarm)
    async with running(app) as pilot:
        screen = await open_queue(swarm, pilot)
        await go_to(screen, pilot, "attic")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, FleetScreen), "the fleet")
        await until(pilot, lambda: "pike" in seen(app) and "moss" not in seen(app), "its agents")


async def test_a_verb_is_done_to_the_agent_of_the_row() -> None:
    swarm = make_fleet()
    swarm.clock.pass_by(3600)
    app = make_app(swarm)
    async with running(app) as pilot:
        screen = await open_queue(swarm, pilot)
        await go_to(screen, pilot, "slate")
        await pilot.press("u")
        await until(pilot, lambda: swarm.done, "the verb")
        assert swarm.done == [Resume(swarm.named("slate").id)]
        await until(pilot, lambda: "slate" not in "".join(lines(app)[1:12]), "it waits no more")


async def test_a_review_taken_from_the_queue_opens_from_there() -> None:
    swarm = make_fleet()
    app = make_app(swarm)
    async with running(app) as pilot:
        screen = await open_queue(swarm, pilot)
        need = screen.need
        assert need
        assert need.agent
        swarm.begin(need.agent, "freezes it")
        await until(pilot, lambda: "at work: freezes it" in seen(app), "the step")
        assert screen.current() == need.agent
        swarm.end(need.agent)
        await until(pilot, lambda: "review: 3 files changed" in seen(app), "that it asks")
        assert screen.current() == need.agent


async def test_a_key_meant_for_a_row_that_has_just_gone_does_nothing() -> None:
    swarm = make_fleet()
    app = make_app(swarm)
    async with running(app) as pilot:
        screen = await open_queue(swarm, pilot)
        was = screen.need
        assert was
        assert was.agent
        swarm.hear(was.agent, EventKind.STATUS, "goes on")
        await until(pilot, lambda: screen.need and screen.need.key != was.key, "the next row")
        await pilot.press("K")
        assert "press again" in seen(app)
        assert not [done for done in swarm.done if isinstance(done, Kill)]
        assert app.screen is screen


async def test_new_ones_leave_the_cursor_on_its_row() -> None:
    swarm = make_fleet()
    app = make_app(swarm)
    async with running(app) as pilot:
        screen = await open_queue(swarm, pilot)
        await pilot.press("j")
        need = screen.need
        swarm.set_power(swarm.named("cobalt"), Power.CRASHED)
        await until(pilot, lambda: "2 failed" in lines(app)[0], "the new one")
        assert screen.need == need
        assert screen.is_steady()


async def test_a_snoozed_row_is_gone_for_a_while_and_can_be_seen() -> None:
    swarm = make_fleet()
    app = make_app(swarm)
    async with running(app) as pilot:
        screen = await open_queue(swarm, pilot)
        count = screen.queue.count
        need = screen.need
        assert need
        await pilot.press("z")
        assert screen.queue.count == count - 1
        assert "1 snoozed" in lines(app)[0]
        await pilot.press("Z")
        await until(pilot, lambda: "snoozed: review: 3" in seen(app), "the snoozed one")
        await pilot.press("home", "space")
        await until(pilot, lambda: "1 snoozed" not in lines(app)[0], "it is awake again")
        assert screen.queue.count == count


async def test_mine_leaves_out_what_others_own() -> None:
    swarm = make_fleet()
    app = make_app(swarm)
    async with running(app) as pilot:
        screen = await open_queue(swarm, pilot)
        await pilot.press("o")
        await until(pilot, lambda: "mine" in lines(app)[0], "the filter")
        assert {need.kind for need in screen.queue._rows} == {"host"}
        await pilot.press("o")
        assert screen.queue.count > 1


async def test_a_fault_is_read_in_full_and_taken_off() -> None:
    swarm = make_fleet()
    app = make_app(swarm)
    async with running(app, (120, 30)) as pilot:
        screen = await open_queue(swarm, pilot)
        why = "the disk of the spool is full, and nothing can be kept of what agents say"
        swarm.faults.append(StorageFull("No room", why))
        await until(pilot, lambda: "1 fault" in lines(app)[0], "the fault")
        await pilot.press("end", "enter")
        await until(pilot, lambda: app.screen is not screen, "the whole of it")
        await pilot.press("escape", "space")
        await until(pilot, lambda: "1 fault" not in lines(app)[0], "it is off")


async def test_nothing_waits_and_it_says_so() -> None:
    swarm = StandInSupervisor()
    swarm.add_host("local")
    swarm.add("ember")
    app = make_app(swarm)
    async with running(app) as pilot:
        await pilot.press("W")
        await until(pilot, lambda: "Nothing waits for you" in seen(app), "the word")
        await pilot.press("enter", "z", "w", "r")
        assert not swarm.done
