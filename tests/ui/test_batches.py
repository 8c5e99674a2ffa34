"""Selecting many, and a verb on all of them: counted, bounded, called off, told of in one place."""

from __future__ import annotations

import asyncio

from stand_in import StandInSupervisor, make_app, running, seen, until
from textual.pilot import Pilot

from swarm_tui.command import Command, Kill, Pause
from swarm_tui.errors import StorageFull
from swarm_tui.fact import HostSeen, VmGone
from swarm_tui.model import AgentId, EventKind, HostName, HostState, Power
from swarm_tui.ports import Progress
from swarm_tui.text import Safe
from swarm_tui.ui.app import Settings, SwarmApp
from swarm_tui.ui.fleet import FleetScreen
from swarm_tui.ui.grid import Grid, View
from swarm_tui.ui.screen import top

TABLE = Settings(view=View.TABLE)
SIZE = (110, 34)


class Failing(StandInSupervisor):
    """One agent of it always fails."""

    async def do(self, command: Command, on_progress: Progress | None = None) -> Safe:
        done = await super().do(command, on_progress)
        if self.store.agent(self.bad) and getattr(command, "agent", None) == self.bad:
            raise StorageFull("No room for the snapshot", "12 MiB are missing")
        return done

    bad = AgentId("")


def swarm_of(count: int, *, hosts: int = 2) -> Failing:
    swarm = Failing()
    names = ["lab", "edge", "bench"][:hosts]
    for host in names:
        swarm.add_host(host)
    for number in range(count):
        swarm.add(f"a{number}", host=names[number % hosts])
    return swarm


def fleet(app: SwarmApp) -> FleetScreen:
    screen = top(app)
    assert isinstance(screen, FleetScreen)
    return screen


def selected(app: SwarmApp, swarm: StandInSupervisor) -> list[str]:
    known = [swarm.store.agent(agent) for agent in fleet(app).grid.selected]
    return sorted(agent.name if agent else "gone" for agent in known)


async def say_yes(pilot: Pilot[None], swarm: StandInSupervisor, keys: str = "y") -> None:
    swarm.clock.pass_by(1)
    await pilot.press(*keys)


# Selecting


async def test_shift_and_arrows_select_a_range_and_take_it_back() -> None:
    swarm = swarm_of(6, hosts=1)
    app = make_app(swarm, TABLE)
    async with running(app, SIZE) as pilot:
        await pilot.press("down", "shift+down", "shift+down")
        assert selected(app, swarm) == ["a1", "a2", "a3"]
        await pilot.press("shift+up")
        assert selected(app, swarm) == ["a1", "a2"]
        await pilot.press("end", "shift+up")  # another range, beside the first one
        assert selected(app, swarm) == ["a1", "a2", "a4", "a5"]
        await pilot.press("asterisk")
        assert selected(app, swarm) == ["a0", "a3"]


async def test_shift_and_click_select_up_to_there() -> None:
    swarm = swarm_of(6, hosts=1)
    app = make_app(swarm, TABLE)
    async with running(app, SIZE) as pilot:
        await pilot.press("down")
        await pilot.click(Grid, offset=(5, 3), shift=True)
        assert selected(app, swarm) == ["a1", "a2", "a3"]


async def test_a_selection_by_filter_outlives_the_filter_and_is_told_while_hidden() -> None:
    swarm = swarm_of(6)
    app = make_app(swarm, TABLE)
    async with running(app, SIZE) as pilot:
        await pilot.press("slash", *"host:lab", "enter", "a")
        await pilot.press("slash", "ctrl+u", *"host:edge", "enter")
        await until(pilot, lambda: "3 selected, 3 not shown" in seen(app), "the count")
        await pilot.press("a")
        assert selected(app, swarm) == [f"a{number}" for number in range(6)]
        await pilot.press("p")
        await until(pilot, lambda: "3 agents of these the filter does not" in seen(app), "it")


async def test_a_selection_stays_on_its_agents_when_the_list_moves() -> None:
    swarm = swarm_of(5, hosts=1)
    app = make_app(swarm, TABLE)
    async with running(app, SIZE) as pilot:
        await pilot.press("space", "shift+down")
        assert selected(app, swarm) == ["a0", "a1"]
        swarm.hear(swarm.named("a4").id, EventKind.ASK, "look")
        swarm.apply(VmGone(swarm.named("a0").id, swarm.seq + 9))
        swarm.clock.pass_by(2)
        await until(pilot, lambda: selected(app, swarm) == ["a1"], "only who is left")
        await pilot.press("p")
        await until(pilot, lambda: "a1: pause" in seen(app), "the verb")
        assert swarm.done == [Pause(swarm.named("a1").id)]


# A verb on many


async def test_the_question_counts_by_state_and_host_and_says_who_cannot() -> None:
    swarm = swarm_of(5)
    swarm.set_power(swarm.named("a1"), Power.CRASHED)
    app = make_app(swarm, TABLE)
    async with running(app, SIZE) as pilot:
        await pilot.press("a", "p")
        await until(pilot, lambda: "Pause 4 of 5 agents?" in seen(app), "the question")
        assert "4 running · 3 on lab, 1 on edge" in seen(app)
        assert "1 cannot: it is failed; only a live agent can be paused" in seen(app)


async def test_at_most_four_at_once_on_a_host_and_the_progress_is_told() -> None:
    swarm = swarm_of(12)
    swarm.gate = asyncio.Event()
    app = make_app(swarm, TABLE)
    async with running(app, SIZE) as pilot:
        await pilot.press("a", "p")
        await say_yes(pilot, swarm)
        await until(pilot, lambda: len(swarm.done) == 8, "four on each host")
        await until(pilot, lambda: "pause 0/12" in seen(app), "the progress")
        await pilot.pause(0.05)
        assert len(swarm.done) == 8
        swarm.gate.set()
        await until(pilot, lambda: "done to 12 agents" in seen(app), "the outcome")
        assert "pause 12/12" not in seen(app)


async def test_what_has_not_begun_can_be_called_off() -> None:
    swarm = swarm_of(10, hosts=1)
    swarm.gate = asyncio.Event()
    app = make_app(swarm, TABLE)
    async with running(app, SIZE) as pilot:
        await pilot.press("a", "p")
        await say_yes(pilot, swarm)
        await until(pilot, lambda: len(swarm.done) == 4, "the first four")
        await pilot.press("J")
        await until(pilot, lambda: "4 at work, 6 waiting" in seen(app), "the dialog")
        await pilot.press("c")
        await until(pilot, lambda: "4 at work, 6 left" in seen(app), "those called off")
        swarm.gate.set()
        await until(pilot, lambda: "4 done, 6 left" in seen(app), "the end")
        assert len(swarm.done) == 4


async def test_failures_are_listed_and_can_be_selected_to_try_again() -> None:
    swarm = swarm_of(5)
    swarm.bad = swarm.named("a3").id
    app = make_app(swarm, TABLE)
    async with running(app, SIZE) as pilot:
        await pilot.press("a", "P")
        await say_yes(pilot, swarm)
        await until(pilot, lambda: "1 failed: J tells who and why" in seen(app), "the outcome")
        await pilot.press("J")
        await until(pilot, lambda: "4 done, 1 failed" in seen(app), "the dialog")
        assert "a3 on edge" in seen(app)
        assert "No room for the snapshot" in seen(app)
        assert "12 MiB are missing" in seen(app)
        await pilot.press("s")
        assert selected(app, swarm) == ["a3"]


async def test_who_has_changed_since_the_question_is_refused_and_told() -> None:
    swarm = swarm_of(4)
    app = make_app(swarm, TABLE)
    async with running(app, SIZE) as pilot:
        await pilot.press("a", "K")
        await until(pilot, lambda: "Kill 4 agents?" in seen(app), "the question")
        host = swarm.store.host(HostName("edge"))
        assert host
        swarm.add_host("edge", HostState.DOWN, detail="No route to host")
        await pilot.press("4", "enter")
        await until(pilot, lambda: "2 failed" in seen(app), "the outcome")
        await pilot.press("J")
        await until(pilot, lambda: "its host is out of reach" in seen(app), "why")
        assert [agent.name for agent in swarm.store.agents()] == ["a1", "a3"]
        swarm.apply(HostSeen(host))


async def test_kill_needs_the_number() -> None:
    swarm = swarm_of(3)
    app = make_app(swarm, TABLE)
    async with running(app, SIZE) as pilot:
        await pilot.press("a", "K")
        await until(pilot, lambda: "Type “3” to go ahead" in seen(app), "the question")
        await say_yes(pilot, swarm)
        await pilot.press("enter")
        assert not swarm.done
        await pilot.press("backspace", "3", "enter")
        await until(pilot, lambda: len(swarm.done) == 3, "the kills")
        assert all(isinstance(command, Kill) for command in swarm.done)


async def test_leaving_begins_nothing_more() -> None:
    swarm = swarm_of(9, hosts=1)
    swarm.gate = asyncio.Event()
    app = make_app(swarm, TABLE)
    async with running(app, SIZE) as pilot:
        await pilot.press("a", "p")
        await say_yes(pilot, swarm)
        await until(pilot, lambda: len(swarm.done) == 4, "the first four")
        await pilot.press("q")
        await until(pilot, lambda: "5 agents not begun with" in seen(app), "the question")
        await say_yes(pilot, swarm)
        swarm.gate.set()
    assert len(swarm.done) == 4


async def test_without_any_batch_that_is_said() -> None:
    app = make_app(swarm_of(1), TABLE)
    async with running(app, SIZE) as pilot:
        await pilot.press("J")
        assert "no verb on many so far" in seen(app)
