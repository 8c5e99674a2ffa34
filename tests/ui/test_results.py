"""How lives end, as a person sees it: the time left, more of it, and what was kept."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from stand_in import START, StandInSupervisor, make_app, make_fleet, running, seen, until
from test_safety import CORPUS, check

from swarm_tui.command import End, Extend
from swarm_tui.errors import StoreUnreachable
from swarm_tui.fact import Recorded
from swarm_tui.model import AgentId, Birth, EventBatch, HostName, Record
from swarm_tui.profile import Ending, Life, Occasion
from swarm_tui.results import Result
from swarm_tui.spool import Writer
from swarm_tui.text import sanitize
from swarm_tui.ui.app import Settings
from swarm_tui.ui.fleet import FleetScreen
from swarm_tui.ui.grid import View
from swarm_tui.ui.results import ResultsScreen
from swarm_tui.ui.screen import top


def result(number: int, text: str = "all tests pass", log: str = "") -> Result:
    return Result(
        agent=AgentId(f"agent-{number}"),
        name=sanitize(f"ember-{number} {text}"),
        host=HostName("lab-2"),
        occasion=(Occasion.DONE, Occasion.EXPIRED, Occasion.FAILED)[number % 3],
        ended=START - number * 60,
        born=START - 7200,
        task=sanitize(text),
        told=sanitize(text),
        base="1" * 40,
        head="2" * 40,
        changes=number,
        repository="/home/hanne/invoices",
        ref=sanitize(f"refs/swarm/results/ember/{number}"),
        log=log,
        tokens_in=1200,
    )


async def test_results_are_shown_with_their_branch_and_their_log(tmp_path: Path) -> None:
    line = b'{"kind":"log","text":"the last thing it said"}\n'
    with Writer(tmp_path) as writer:
        writer.append(EventBatch((), len(line), raw=line, heard=time.time()))
    swarm = make_fleet()
    swarm.told_results = [result(1, log=str(tmp_path)), result(2), result(3)]
    app = make_app(swarm)
    async with running(app) as pilot:
        await pilot.press("R")
        await until(pilot, lambda: "ember-3" in seen(app), "the results")
        assert "3 results" in seen(app)
        assert "refs/swarm/results/ember/1 in /home/hanne/invoices" in seen(app)
        assert "nobody has approved it" in seen(app)
        await pilot.press("j")
        await until(pilot, lambda: "refs/swarm/results/ember/2" in seen(app), "the second")
        await pilot.press("k", "enter")
        await until(pilot, lambda: "base" in seen(app), "all of it")
        await pilot.press("pagedown", "pagedown")
        await until(pilot, lambda: "the last thing it said" in seen(app), "its log")
        await pilot.press("escape", "escape")
        await until(pilot, lambda: not isinstance(top(app), ResultsScreen), "back")


async def test_results_that_cannot_be_read_are_told() -> None:
    swarm = make_fleet()
    swarm.told_results = StoreUnreachable("The store is out of reach")
    app = make_app(swarm)
    async with running(app) as pilot:
        await pilot.press("R")
        await until(pilot, lambda: "cannot be read now" in seen(app), "the failure")


async def test_no_hostile_text_leaves_the_screen_of_results() -> None:
    swarm = make_fleet()
    swarm.told_results = [result(place, text) for place, text in enumerate(CORPUS)]
    app = make_app(swarm)
    async with running(app, size=(120, 40)) as pilot:
        await pilot.press("R")
        await until(pilot, lambda: "results" in seen(app), "the screen")
        for _ in CORPUS:
            check(app)
            await pilot.press("j")


def give(swarm: StandInSupervisor, name: str, *, left_s: float) -> AgentId:
    """An hour of life, of which that is left; then it is ended."""
    agent = swarm.named(name)
    record = agent.record or Record(agent.id, agent.name, agent.host)
    birth = Birth(life=Life(3600.0, Ending.END), expires=swarm.clock.now() + left_s)
    swarm.apply(Recorded(agent.id, replace(record, birth=birth)))
    return agent.id


async def test_the_last_tenth_of_a_life_is_on_its_tile_and_in_the_queue() -> None:
    swarm = make_fleet()
    give(swarm, "ember", left_s=20)
    give(swarm, "moss", left_s=3000)
    app = make_app(swarm)
    async with running(app, size=(160, 50)) as pilot:
        await until(pilot, lambda: "left" in seen(app), "the time left")
        assert seen(app).count(" left") == 1
        await pilot.press("W")
        await until(pilot, lambda: "its time is over soon; then it is ended" in seen(app), "W")


async def test_a_person_gives_more_time_or_keeps_it() -> None:
    swarm = make_fleet()
    ember = give(swarm, "ember", left_s=120)
    app = make_app(swarm, Settings(view=View.TABLE))
    async with running(app) as pilot:
        screen = top(app)
        assert isinstance(screen, FleetScreen)
        screen.grid.cursor = ember
        await pilot.press("M")
        await until(pilot, lambda: "More time for ember" in seen(app), "the dialog")
        await pilot.press(*"soon", "enter")
        await until(pilot, lambda: "This is no time" in seen(app), "the refusal")
        await pilot.press("home", *["delete"] * 4, *"2h", "enter")
        await until(pilot, lambda: swarm.done == [Extend(ember, 7200.0)], "the extension")
        await pilot.press("M")
        await until(pilot, lambda: "More time for ember" in seen(app), "the dialog again")
        await pilot.press(*"keep", "enter")
        await until(pilot, lambda: swarm.done[-1:] == [Extend(ember, None, is_pinned=True)], "pin")


async def test_ending_asks_first() -> None:
    swarm = make_fleet()
    ember = give(swarm, "ember", left_s=120)
    app = make_app(swarm, Settings(view=View.TABLE))
    async with running(app) as pilot:
        screen = top(app)
        assert isinstance(screen, FleetScreen)
        screen.grid.cursor = ember
        await pilot.press("D")
        await until(pilot, lambda: "Its result is kept" in seen(app), "the question")
        assert not swarm.done
        swarm.clock.pass_by(1)
        await pilot.press("y")
        await until(pilot, lambda: swarm.done == [End(ember)], "the end")
