"""Two agents' work on one screen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from stand_in import START, StandInSupervisor, make_app, make_fleet, running, seen, until
from stand_in_reading import StandInComparison, StandInReading, Texts, make_reading
from test_safety import CORPUS, check
from textual.pilot import Pilot

from swarm_tui.amount import render_age
from swarm_tui.model import AgentId, State
from swarm_tui.ports import Progress
from swarm_tui.review.comparison import Comparison
from swarm_tui.text import literal
from swarm_tui.ui.app import SwarmApp
from swarm_tui.ui.comparison import CompareScreen
from swarm_tui.ui.fleet import FleetScreen
from swarm_tui.ui.screen import top

OLD = b"one\ntwo\nthree\n"
OF_MOSS: Texts = {
    "both.py": (OLD, b"one\nmossy\nthree\n"),
    "alike.py": (None, b"the same\n"),
    "moss.py": (None, b"moss alone\n"),
    "logo.png": (None, b"\x89PNG\0" + b"m" * 2000),
}
OF_EMBER: Texts = {
    "both.py": (OLD, b"one\nglowing\nthree\n"),
    "alike.py": (None, b"the same\n"),
    "ember.py": (None, b"ember alone\n"),
    "logo.png": (None, b"\x89PNG\0" + b"e" * 9000),
}


Make = Callable[..., StandInSupervisor]


@pytest.fixture
def make_swarm(monkeypatch: pytest.MonkeyPatch) -> Make:
    """A fleet of which the work of ember and moss can be read."""

    async def compared(
        swarm: StandInSupervisor, a: AgentId, b: AgentId, on_progress: Progress
    ) -> Comparison:
        on_progress(literal("moss: taking the work"), None)
        if swarm.gate:
            await swarm.gate.wait()
        of_a, of_b = swarm.readings[a], swarm.readings[b]
        assert isinstance(of_a, StandInReading)
        assert isinstance(of_b, StandInReading)
        return StandInComparison(of_a, of_b, "cannot be read now: its guest does not answer")

    monkeypatch.setattr(StandInSupervisor, "comparison", compared)

    def make(of_ember: Texts = OF_EMBER, of_moss: Texts = OF_MOSS) -> StandInSupervisor:
        swarm = make_fleet()
        for name, texts in (("ember", of_ember), ("moss", of_moss)):
            agent = swarm.named(name)
            swarm.readings[agent.id] = make_reading(agent.id, agent.name, texts, number=2)
        return swarm

    return make


async def compare(app: SwarmApp, pilot: Pilot[Any], swarm: StandInSupervisor) -> None:
    fleet = top(app)
    assert isinstance(fleet, FleetScreen)
    fleet.take_selection([swarm.named("ember").id, swarm.named("moss").id])
    await pilot.press("c")
    await until(pilot, lambda: isinstance(top(app), CompareScreen), "the screen")


def letters(swarm: StandInSupervisor, app: SwarmApp) -> dict[str, str]:
    """Which of them is A and which B: as they stand in the fleet."""
    return {name: "A" if f" A {name}" in seen(app) else "B" for name in ("ember", "moss")}


async def test_both_diffs_are_beside_each_other_on_a_wide_screen(make_swarm: Make) -> None:
    swarm = make_swarm()
    app = make_app(swarm)
    async with running(app, size=(130, 40)) as pilot:
        await compare(app, pilot, swarm)
        await until(pilot, lambda: "the same" in seen(app), "the first file")
        for line in ("same", "differ", "only A", "only B"):
            assert line in seen(app)
        await pilot.press("J")
        await until(pilot, lambda: "mossy" in seen(app) and "glowing" in seen(app), "both sides")
        await pilot.press("t")
        await until(pilot, lambda: "from A to B" in seen(app), "the diff between them")
        await until(pilot, lambda: "mossy" in seen(app) and "glowing" in seen(app), "its lines")
        await pilot.press("K")
        await until(pilot, lambda: "it is the same in both" in seen(app), "nothing between")
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(top(app), FleetScreen), "back")
    for reading in swarm.readings.values():
        assert isinstance(reading, StandInReading)
        assert reading.is_closed


async def test_a_narrow_screen_shows_one_side_and_changes_over(make_swarm: Make) -> None:
    swarm = make_swarm()
    app = make_app(swarm)
    async with running(app) as pilot:
        await compare(app, pilot, swarm)
        await pilot.press("J")
        words = {"ember": "glowing", "moss": "mossy"}
        letter = letters(swarm, app)
        first, second = sorted(words, key=lambda name: letter[name])
        await until(pilot, lambda: words[first] in seen(app), "A")
        assert words[second] not in seen(app)
        await pilot.press("t")
        await until(pilot, lambda: words[second] in seen(app), "B")
        assert words[first] not in seen(app)
        await pilot.press("t")
        await until(pilot, lambda: all(word in seen(app) for word in words.values()), "A to B")
        await pilot.press("t")
        for word in ("ember alone", "binary", "moss alone"):
            await pilot.press("J")
            await until(pilot, lambda word=word: word in seen(app), "the side that changed it")  # type: ignore[misc]


async def test_two_are_compared_no_more_and_no_fewer(make_swarm: Make) -> None:
    app = make_app(make_swarm())
    async with running(app, size=(120, 40)) as pilot:
        await pilot.press("c")
        await until(pilot, lambda: "Select exactly two agents" in seen(app), "the reason")
        assert isinstance(top(app), FleetScreen)


async def test_what_is_at_work_is_told_then_from_when_each_side_is(make_swarm: Make) -> None:
    swarm = make_swarm()
    swarm.gate = asyncio.Event()
    app = make_app(swarm)
    async with running(app) as pilot:
        fleet = top(app)
        assert isinstance(fleet, FleetScreen)
        fleet.take_selection([swarm.named("ember").id, swarm.named("moss").id])
        await pilot.press("c")
        await until(pilot, lambda: "moss: taking the work" in seen(app), "the step")
        swarm.gate.set()
        await until(pilot, lambda: isinstance(top(app), CompareScreen), "the screen")
        age = render_age(swarm.clock.now() - (START - 14))
        states = {name: swarm.named(name).state for name in ("ember", "moss")}
        for name, state in states.items():
            now = {State.RUNNING: "running on", State.ASKING: "it asks"}.get(state, state)
            line = f"{name} as of {age} ago, {now}"
            await until(pilot, lambda line=line: line in seen(app), line)  # type: ignore[misc]
        assert "cannot be read now: its guest" in seen(app)
        swarm.clock.pass_by(7200)
        await until(pilot, lambda: "as of 2h" in seen(app), "the age moves on")


async def test_who_has_gone_on_meanwhile_is_told_and_not_interrupted(make_swarm: Make) -> None:
    swarm = make_swarm()
    swarm.gate = asyncio.Event()
    app = make_app(swarm)
    async with running(app) as pilot:
        fleet = top(app)
        assert isinstance(fleet, FleetScreen)
        fleet.take_selection([swarm.named("ember").id, swarm.named("moss").id])
        await pilot.press("c")
        await until(pilot, lambda: "moss: taking the work" in seen(app), "the step")
        await pilot.press("c")
        await until(pilot, lambda: "their work is being taken" in seen(app), "one at a time")
        await pilot.press("m")
        await until(pilot, lambda: app.screen is not fleet, "the dialog")
        swarm.gate.set()
        await until(pilot, lambda: "press c on them" in seen(app), "it is told")
        assert not any(isinstance(screen, CompareScreen) for screen in app.screen_stack)
        for reading in swarm.readings.values():
            assert isinstance(reading, StandInReading)
            assert reading.is_closed


async def test_other_bases_are_told(make_swarm: Make) -> None:
    swarm = make_swarm()
    moss = swarm.readings[swarm.named("moss").id]
    assert isinstance(moss, StandInReading)
    moss.of = replace(moss.of, base="f" * 40)
    app = make_app(swarm)
    async with running(app) as pilot:
        await compare(app, pilot, swarm)
        await until(pilot, lambda: "their bases differ" in seen(app), "the note")


async def test_no_hostile_text_leaves_the_screen(make_swarm: Make) -> None:
    texts: Texts = {
        text.encode("utf-8", "surrogatepass")[:80].replace(b"\0", b"?"): (
            None,
            text.encode("utf-8", "surrogatepass") * 3,
        )
        for text in CORPUS
    }
    swarm = make_swarm(texts, texts)
    app = make_app(swarm)
    async with running(app, size=(130, 40)) as pilot:
        await compare(app, pilot, swarm)
        for _ in texts:
            check(app)
            await pilot.press("J")
