"""An agent's past on the screen: what is listed, what is asked, what is refused and why."""

from __future__ import annotations

from dataclasses import replace

import pytest
from stand_in import START, StandInSupervisor, make_app, make_fleet, running, seen, until
from test_safety import CORPUS, check

from swarm_tui.command import Checkpoint, Discard, Fork, Mark, RollBack
from swarm_tui.errors import HostUnreachable, NotFound, StoreUnreachable
from swarm_tui.fact import Recorded
from swarm_tui.inventory import Kept, Standing
from swarm_tui.model import (
    AgentId,
    Birth,
    Cause,
    HostName,
    Origin,
    Record,
    Snapshot,
    SnapshotId,
)
from swarm_tui.ports import Progress
from swarm_tui.review.comparison import Comparison
from swarm_tui.text import sanitize
from swarm_tui.ui.app import Settings, SwarmApp
from swarm_tui.ui.fleet import FleetScreen
from swarm_tui.ui.grid import View
from swarm_tui.ui.screen import top
from swarm_tui.ui.timeline import TimelineScreen

OLD, REVIEWED, NAMED = (
    SnapshotId(f"20261123T12{minute}00.000Z-{minute}ab") for minute in (10, 25, 50)
)


def kept(
    snapshot: SnapshotId,
    cause: Cause,
    told: str = "",
    *,
    title: str = "",
    is_pinned: bool = False,
    standing: Standing = "there",
) -> Kept:
    minute = int(snapshot[11:13])
    return Kept(
        Snapshot(
            id=snapshot,
            agent=AgentId("ember"),
            name=sanitize("ember"),
            created=START - 3600 + minute * 60,
            size_bytes=minute << 20,
            hypervisor="QEMU 7.2.22",
            is_frozen=False,
            digests={},
            origin=Origin(cause, sanitize(told), sanitize("hanne@desk")),
            title=sanitize(title),
            is_pinned=is_pinned,
        ),
        HostName("lab-2"),
        sanitize("/var/lib/swarm/snapshots"),
        f"sha256:{minute:02}{'4f' * 31}",
        standing,
    )


def past(whose: str = "ember") -> StandInSupervisor:
    """A fleet of which one agent was reviewed, and forked before that."""
    swarm = make_fleet()
    swarm.told_past = [
        kept(OLD, Cause.PAUSE, is_pinned=True),
        kept(REVIEWED, Cause.REVIEW, "review 3"),
        kept(NAMED, Cause.CHECKPOINT, title="before the rewrite"),
    ]
    fern, ember = swarm.named("fern"), swarm.named(whose)
    birth = Birth(parent=ember.id, snapshot=OLD)
    swarm.apply(Recorded(fern.id, Record(fern.id, fern.name, fern.host, birth=birth)))
    swarm.apply(Recorded(ember.id, Record(ember.id, ember.name, ember.host, review=3)))
    return swarm


async def open_past(swarm: StandInSupervisor, app: SwarmApp, pilot: object) -> AgentId:
    screen = top(app)
    assert isinstance(screen, FleetScreen)
    ember = swarm.named("ember").id
    screen.grid.cursor = ember
    await pilot.press("b")  # type: ignore[attr-defined]
    return ember


def table(swarm: StandInSupervisor) -> SwarmApp:
    return make_app(swarm, Settings(view=View.TABLE))


def line_of(app: SwarmApp, word: str) -> int:
    return next(place for place, line in enumerate(seen(app).split("\n")) if word in line)


async def test_the_newest_stands_first_with_what_holds_it_and_forks_below() -> None:
    app = table(swarm := past())
    async with running(app) as pilot:
        await open_past(swarm, app, pilot)
        await until(pilot, lambda: "before the rewrite" in seen(app), "the timeline")
        assert "of ember" in seen(app)
        assert "3 checkpoints" in seen(app)
        assert "85M on disk" in seen(app)
        lines = [line_of(app, word) for word in ("before the rewrite", "review 3", "pause", "fern")]
        assert lines == sorted(lines)
        assert "12:50:00" in seen(app)
        assert f"sha256:50{'4f' * 31}" in seen(app)
        assert "QEMU 7.2.22 · on lab-2" in seen(app)
        assert "held: named" in seen(app)
        assert "made 14m ago" in seen(app)
        swarm.clock.pass_by(3600)
        await until(pilot, lambda: "made 1h" in seen(app), "the age moves on")
        await pilot.press("j", "j")
        await until(pilot, lambda: "held: fern was forked from it, pinned" in seen(app), "the hold")


async def test_rolling_back_asks_and_says_that_the_present_is_saved_first() -> None:
    app = table(swarm := past())
    async with running(app) as pilot:
        ember = await open_past(swarm, app, pilot)
        await until(pilot, lambda: "before the rewrite" in seen(app), "the timeline")
        await pilot.press("r")
        await until(pilot, lambda: "What it is now is saved first" in seen(app), "the question")
        assert "Its open review 3 becomes void." in seen(app)
        assert not swarm.done
        await pilot.press("escape", "j", "r")
        await until(pilot, lambda: "It goes on from where it stood" in seen(app), "it again")
        swarm.clock.pass_by(1)
        await pilot.press("y")
        await until(pilot, lambda: swarm.done == [RollBack(ember, REVIEWED)], "the roll back")


async def test_pins_and_names_are_given_and_taken_back() -> None:
    app = table(swarm := past())
    async with running(app) as pilot:
        ember = await open_past(swarm, app, pilot)
        await until(pilot, lambda: "before the rewrite" in seen(app), "the timeline")
        await pilot.press("p")
        pinned = Mark(ember, NAMED, "before the rewrite", True)
        await until(pilot, lambda: swarm.done == [pinned], "the pin")
        await pilot.press("j", "n")
        await until(pilot, lambda: "Name the checkpoint" in seen(app), "the dialog")
        await pilot.press(*"good", "enter")
        named = Mark(ember, REVIEWED, "good", False)
        await until(pilot, lambda: swarm.done[1:] == [named], "the name")
        await pilot.press("j", "p")
        unpinned = Mark(ember, OLD, "", False)
        await until(pilot, lambda: swarm.done[2:] == [unpinned], "the pin is off")


async def test_forks_of_a_checkpoint_are_asked_for_as_those_of_an_agent() -> None:
    app = table(swarm := past())
    async with running(app) as pilot:
        ember = await open_past(swarm, app, pilot)
        await until(pilot, lambda: "before the rewrite" in seen(app), "the timeline")
        await pilot.press("j", "f")
        await until(pilot, lambda: "Fork ember" in seen(app), "the dialog")
        assert "from 12:25:00 · review 3" in seen(app)
        await pilot.press("backspace", "3", "tab", *"try", "tab", *"faster", "enter")
        forks = Fork(ember, 3, "try", "faster", REVIEWED)
        await until(pilot, lambda: swarm.done == [forks], "the forks")


async def test_a_checkpoint_is_taken_there_and_may_have_a_name() -> None:
    app = table(swarm := past())
    swarm.told_past = []
    async with running(app) as pilot:
        ember = await open_past(swarm, app, pilot)
        await until(pilot, lambda: "no checkpoint yet: S takes one" in seen(app), "the timeline")
        await pilot.press("S")
        await until(pilot, lambda: "Checkpoint of ember" in seen(app), "the dialog")
        await pilot.press(*"green", "enter")
        await until(pilot, lambda: swarm.done == [Checkpoint(ember, "green")], "the checkpoint")
        await pilot.press("S")
        await until(pilot, lambda: "Checkpoint of ember" in seen(app), "the dialog again")
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is top(app), "it to close")
        assert len(swarm.done) == 1


async def test_what_was_done_is_read_at_once() -> None:
    app = table(swarm := past())
    async with running(app) as pilot:
        await open_past(swarm, app, pilot)
        await until(pilot, lambda: "held: named" in seen(app), "the timeline")
        marked = kept(NAMED, Cause.CHECKPOINT, title="before the rewrite", is_pinned=True)
        swarm.told_past = [*swarm.told_past[:-1], marked]  # type: ignore[index]
        await pilot.press("p")
        await until(pilot, lambda: "held: pinned, named" in seen(app), "the pin")


async def test_discarding_asks_and_is_refused_where_something_needs_it() -> None:
    app = table(swarm := past())
    async with running(app) as pilot:
        ember = await open_past(swarm, app, pilot)
        await until(pilot, lambda: "before the rewrite" in seen(app), "the timeline")
        await pilot.press("end", "k", "D")
        await until(pilot, lambda: "Cannot discard now" in seen(app), "the refusal")
        assert not swarm.done
        await pilot.press("home", "D")
        await until(pilot, lambda: "It goes for good" in seen(app), "the question")
        assert "Somebody wanted it kept: it is named" in seen(app)
        swarm.clock.pass_by(1)
        await pilot.press("y")
        await until(pilot, lambda: swarm.done == [Discard(ember, NAMED)], "the end of it")


async def test_a_fork_is_a_line_that_leads_to_it_and_no_verb_is_done_there() -> None:
    app = table(swarm := past())
    async with running(app) as pilot:
        await open_past(swarm, app, pilot)
        await until(pilot, lambda: "before the rewrite" in seen(app), "the timeline")
        await pilot.press("end", "r")
        await until(pilot, lambda: "this line is a fork" in seen(app), "the refusal")
        assert isinstance(app.screen, TimelineScreen)
        await pilot.press("enter")
        fern = swarm.named("fern").id
        await until(pilot, lambda: top(app).current() == fern, "the fork")


async def test_an_agent_is_compared_with_the_fork_under_the_cursor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[tuple[AgentId, AgentId]] = []

    async def comparison(
        swarm: StandInSupervisor, a: AgentId, b: AgentId, on_progress: Progress
    ) -> Comparison:
        compared.append((a, b))
        raise NotFound("Neither can be read")

    monkeypatch.setattr(StandInSupervisor, "comparison", comparison)
    app = table(swarm := past())
    async with running(app) as pilot:
        ember = await open_past(swarm, app, pilot)
        await until(pilot, lambda: "before the rewrite" in seen(app), "the timeline")
        await pilot.press("c")
        await until(pilot, lambda: "this line is no fork" in seen(app), "the refusal")
        await pilot.press("end", "c")
        await until(pilot, lambda: compared == [(ember, swarm.named("fern").id)], "both")


async def test_the_policy_refuses_with_its_reason() -> None:
    app = table(swarm := past())
    swarm.add_host("lab-2", missing={"restore": "this host cannot restore"})
    async with running(app) as pilot:
        await open_past(swarm, app, pilot)
        await until(pilot, lambda: "before the rewrite" in seen(app), "the timeline")
        await pilot.press("r")
        await until(pilot, lambda: "this host cannot restore" in seen(app), "the reason")
        assert not swarm.done


async def test_the_present_is_marked_and_not_rolled_back_to() -> None:
    app = table(swarm := past())
    ember = swarm.named("ember")
    record = Record(ember.id, ember.name, ember.host, saved_in=NAMED)
    swarm.apply(Recorded(ember.id, record))
    async with running(app) as pilot:
        await open_past(swarm, app, pilot)
        await until(pilot, lambda: "held: it is the present, named" in seen(app), "the present")
        await pilot.press("r")
        await until(pilot, lambda: "the agent is saved in it; resume it" in seen(app), "why not")


async def test_what_is_not_known_is_told_as_that() -> None:
    app = table(swarm := past())
    swarm.told_past = [
        kept(OLD, Cause.PAUSE, standing="missing"),
        replace(kept(NAMED, Cause.PAUSE, standing="unseen"), digest=""),
    ]
    swarm.past_problem = HostUnreachable("Host lab-2 does not answer")
    async with running(app) as pilot:
        await open_past(swarm, app, pilot)
        await until(pilot, lambda: "as last known" in seen(app), "the timeline")
        assert "not looked for" in seen(app)
        assert "gone from its host" in seen(app)
        assert "digest n/a" in seen(app)
        await pilot.press("j", "r")
        await until(pilot, lambda: "Cannot roll back now" in seen(app), "the refusal")


async def test_a_past_that_cannot_be_read_is_told() -> None:
    app = table(swarm := past())
    swarm.told_past = StoreUnreachable("The store is out of reach")
    async with running(app) as pilot:
        await open_past(swarm, app, pilot)
        await until(pilot, lambda: "as last known" in seen(app), "the failure")
        swarm.told_past = [kept(NAMED, Cause.PAUSE)]
        await pilot.press("ctrl+r")
        await until(pilot, lambda: "1 checkpoint " in seen(app), "it is read again")


async def test_no_hostile_text_leaves_the_timeline() -> None:
    app = table(swarm := past())
    swarm.told_past = [
        replace(
            one := kept(SnapshotId(f"{NAMED}{text}"), Cause.TURN, text, title=text),
            snapshot=replace(one.snapshot, hypervisor=text),
            host=HostName(text),
            digest=text,
        )
        for text in CORPUS
    ]
    async with running(app, size=(120, 40)) as pilot:
        await open_past(swarm, app, pilot)
        await until(pilot, lambda: "checkpoints" in seen(app), "the timeline")
        for _ in CORPUS:
            check(app)
            await pilot.press("j")
        for key in ("r", "n", "D"):
            await pilot.press(key)
            await until(pilot, lambda: app.screen is not top(app), "the dialog")
            check(app)
            await pilot.press("escape")
            await until(pilot, lambda: app.screen is top(app), "back")
