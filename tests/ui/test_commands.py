"""From a key to the supervisor and back: refusals, questions, failures."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from stand_in import (
    MIB,
    StandInSupervisor,
    make_app,
    make_fleet,
    running,
    seen,
    type_ahead,
    until,
)

from swarm_tui.command import Kill, Pause, Resume
from swarm_tui.errors import GuestUnreachable, StorageFull
from swarm_tui.fact import HostSeen
from swarm_tui.model import HostName, State
from swarm_tui.ui.app import Settings, SwarmApp
from swarm_tui.ui.grid import GRACE_S, View
from swarm_tui.ui.screen import top

TABLE = Settings(view=View.TABLE)


async def put_cursor_on(app: SwarmApp, swarm: StandInSupervisor, name: str) -> None:
    screen = top(app)
    screen.query_one("Grid").move_to(swarm.named(name).id)  # type: ignore[attr-defined]


async def test_pause_is_done_and_told() -> None:
    swarm = make_fleet()
    app = make_app(swarm, TABLE)
    async with running(app) as pilot:
        await put_cursor_on(app, swarm, "ember")
        await pilot.press("p")
        await until(pilot, lambda: "ember: pause" in seen(app), "the toast")
        assert swarm.done == [Pause(swarm.named("ember").id)]
        assert swarm.named("ember").state is State.SAVED
        await pilot.press("u")
        await until(pilot, lambda: swarm.named("ember").state is State.RUNNING, "the resume")
        assert swarm.done[1:] == [Resume(swarm.named("ember").id)]


async def test_a_resume_for_which_memory_lacks_is_asked_about() -> None:
    swarm = make_fleet()
    local = swarm.store.host(HostName("local"))
    assert local
    swarm.apply(HostSeen(replace(local, memory_free=600 * MIB)))
    app = make_app(swarm, TABLE)
    async with running(app) as pilot:
        await put_cursor_on(app, swarm, "wren")
        await pilot.press("u")
        await until(pilot, lambda: "Resume wren?" in seen(app), "the question")
        assert "wren needs 256 MiB" in seen(app)
        assert not swarm.done
        swarm.clock.pass_by(2 * GRACE_S)
        await pilot.press("y")
        await until(pilot, lambda: bool(swarm.done), "the resume")
        assert swarm.done == [Resume(swarm.named("wren").id)]


async def test_quick_pause_saves_nothing() -> None:
    swarm = make_fleet()
    app = make_app(swarm, TABLE)
    async with running(app) as pilot:
        await put_cursor_on(app, swarm, "ember")
        await pilot.press("P")
        await until(pilot, lambda: swarm.named("ember").state is State.PAUSED, "the pause")
        assert swarm.done == [Pause(swarm.named("ember").id, is_quick=True)]


async def test_a_denied_key_says_why_and_does_nothing() -> None:
    swarm = make_fleet()
    app = make_app(swarm, TABLE)
    async with running(app) as pilot:
        await put_cursor_on(app, swarm, "ember")
        await pilot.press("u")
        await until(pilot, lambda: "Cannot resume ember now" in seen(app), "the refusal")
        assert "only a paused, saved or frozen agent can be" in seen(app)
        assert not swarm.done


async def test_a_key_with_no_agent_at_all_says_so() -> None:
    swarm = StandInSupervisor()
    swarm.add_host()
    app = make_app(swarm)
    async with running(app) as pilot:
        await pilot.press("p", "enter", "L", "x", "space")
        await until(pilot, lambda: "no agent is selected" in seen(app), "the refusal")
        assert len(app.screen_stack) == 2


async def test_the_footer_greys_what_policy_denies() -> None:
    swarm = make_fleet()
    app = make_app(swarm, TABLE)
    async with running(app) as pilot:
        for name, is_grey in (("ember", True), ("wren", False)):
            await put_cursor_on(app, swarm, name)
            await pilot.pause()
            drawn = {s.text.strip(): s.style for s in top(app).footer.render_line(0)}
            assert (drawn["resume"] == top(app).footer.ink.faint) is is_grey


# Questions


async def test_kill_asks_first_and_names_the_agent() -> None:
    swarm = make_fleet()
    app = make_app(swarm, TABLE)
    async with running(app) as pilot:
        await put_cursor_on(app, swarm, "ember")
        await pilot.press("K")
        await until(pilot, lambda: "Kill ember?" in seen(app), "the question")
        assert "its snapshots go for good" in seen(app)
        await pilot.press("enter")  # the button that leaves it has the focus
        await until(pilot, lambda: len(app.screen_stack) == 2, "the way back")
        assert not swarm.done
        await pilot.press("K")
        swarm.clock.pass_by(1)
        await pilot.press("y")
        await until(pilot, lambda: "ember: kill" in seen(app), "the kill")
        assert swarm.done == [Kill(agent) for agent in [swarm.done[0].agent]]  # type: ignore[union-attr]
        assert all(agent.name != "ember" for agent in swarm.store.agents())


async def test_a_yes_that_was_typed_before_the_question_is_none() -> None:
    swarm = make_fleet()
    app = make_app(swarm, TABLE)
    async with running(app) as pilot:
        await put_cursor_on(app, swarm, "ember")
        type_ahead(app, *"Kyle")
        await until(pilot, lambda: "Kill ember?" in seen(app), "the question")
        await pilot.pause()
        assert "Kill ember?" in seen(app)
        assert not swarm.done


async def test_what_is_typed_ahead_goes_where_it_was_meant() -> None:
    swarm = make_fleet()
    app = make_app(swarm, TABLE)
    async with running(app) as pilot:
        type_ahead(app, "slash", *"Kpux", "enter")
        await until(pilot, lambda: "/Kpux 0 shown" in seen(app), "the filter")
        assert "No agent matches" in seen(app)
        type_ahead(app, "escape", "j", "p")
        await until(pilot, lambda: swarm.done == [Pause(swarm.named("fern").id)], "the pause")


async def test_the_question_keeps_its_agent_whatever_happens_behind_it() -> None:
    swarm = make_fleet()
    app = make_app(swarm, TABLE)
    async with running(app) as pilot:
        await put_cursor_on(app, swarm, "ember")
        ember = swarm.named("ember").id
        await pilot.press("K")
        await put_cursor_on(app, swarm, "cobalt")
        swarm.clock.pass_by(1)
        await pilot.press("y")
        await until(pilot, lambda: swarm.done == [Kill(ember)], "the kill")


async def test_killing_several_must_be_typed() -> None:
    swarm = make_fleet()
    app = make_app(swarm, TABLE)
    async with running(app, (100, 30)) as pilot:
        for name in ("ember", "cobalt"):
            await put_cursor_on(app, swarm, name)
            await pilot.press("space")
        await pilot.press("K")
        await until(pilot, lambda: "Kill 2 agents?" in seen(app), "the question")
        await pilot.press("y", "enter")
        assert not swarm.done
        await pilot.press("backspace", *"3", "enter")
        assert not swarm.done
        await pilot.press("backspace", "2", "enter")
        await until(pilot, lambda: len(swarm.done) == 2, "both kills")
        await until(pilot, lambda: "done to 2 agents" in seen(app), "one toast for both")
        assert "selected" not in seen(app)


async def test_a_verb_on_several_counts_them_and_those_it_cannot_be_done_to() -> None:
    swarm = make_fleet()
    app = make_app(swarm, TABLE)
    async with running(app, (100, 30)) as pilot:
        for name in ("ember", "cobalt", "wren"):
            await put_cursor_on(app, swarm, name)
            await pilot.press("space")
        await pilot.press("p")
        await until(pilot, lambda: "Pause 2 of 3 agents?" in seen(app), "the question")
        assert "2 running · " in seen(app)
        assert "1 cannot: it is saved" in seen(app)
        swarm.clock.pass_by(1)
        await pilot.press("y")
        await until(pilot, lambda: len(swarm.done) == 2, "both pauses")
        assert {swarm.named(name).state for name in ("ember", "cobalt")} == {State.SAVED}


async def test_escape_leaves_everything_as_it_is() -> None:
    swarm = make_fleet()
    app = make_app(swarm, TABLE)
    async with running(app, (100, 30)) as pilot:
        await pilot.press("a", "K", "escape")
        assert len(app.screen_stack) == 2
        assert "12 selected" in seen(app)
        assert not swarm.done


# New agents


async def test_where_no_agent_can_be_made_the_key_says_why() -> None:
    swarm = StandInSupervisor()
    swarm.add_host(missing={"spawn": "no image has been built"})
    app = make_app(swarm)
    async with running(app) as pilot:
        await pilot.press("n")
        await until(pilot, lambda: "no image has been built" in seen(app), "the refusal")


# Failures


async def test_a_failure_is_a_toast_and_can_be_read_again() -> None:
    swarm = make_fleet()
    swarm.failure = StorageFull("No room for the snapshot", "12 MiB are free.", "Remove one.")
    app = make_app(swarm, TABLE)
    async with running(app) as pilot:
        await put_cursor_on(app, swarm, "ember")
        await pilot.press("p")
        await until(pilot, lambda: "No room for the snapshot" in seen(app), "the toast")
        assert "12 MiB are free." in seen(app)
        assert "Remove one." in seen(app)
        await pilot.press("e")
        await until(pilot, lambda: "What to do" in seen(app), "the whole story")
        await pilot.press("escape")
        assert swarm.named("ember").state is State.RUNNING


async def test_a_fault_of_our_own_is_shown_and_the_app_goes_on() -> None:
    swarm = make_fleet()
    swarm.failure = ZeroDivisionError("a fault")
    app = make_app(swarm, TABLE)
    async with running(app) as pilot:
        await put_cursor_on(app, swarm, "ember")
        await pilot.press("p")
        await until(pilot, lambda: "A fault in swarm-tui itself" in seen(app), "the dialog")
        assert "ZeroDivisionError: a fault" in seen(app)
        swarm.failure = None
        await pilot.press("escape", "p")
        await until(pilot, lambda: swarm.named("ember").state is State.SAVED, "the pause")


async def test_many_failures_do_not_flood_the_screen() -> None:
    swarm = make_fleet()
    swarm.failure = GuestUnreachable("No answer")
    app = make_app(swarm, TABLE)
    async with running(app, (100, 40)) as pilot:
        await pilot.press("a", "p")
        swarm.clock.pass_by(1)
        await pilot.press("y")
        await until(pilot, lambda: "failed: J tells who and why" in seen(app), "the summary")
        assert "No answer" not in seen(app)
        await pilot.press("J")
        await until(pilot, lambda: "No answer" in seen(app), "the reasons")


async def test_what_the_supervisor_could_not_blame_on_a_verb_is_told() -> None:
    swarm = make_fleet()
    app = make_app(swarm, TABLE)
    async with running(app) as pilot:
        swarm.faults.append(StorageFull("The record could not be written"))
        await until(pilot, lambda: "The record could not be written" in seen(app), "the toast")


# Leaving


async def test_leaving_asks_only_while_a_verb_is_at_work() -> None:
    swarm = make_fleet()
    swarm.gate = asyncio.Event()
    app = make_app(swarm, TABLE)
    async with running(app) as pilot:
        await put_cursor_on(app, swarm, "ember")
        await pilot.press("p", "q")
        await until(pilot, lambda: "Leave while a verb is at work?" in seen(app), "the question")
        await pilot.press("escape")
        swarm.gate.set()
        await until(pilot, lambda: "ember: pause" in seen(app), "the end of the verb")
        await pilot.press("q")
        await until(pilot, lambda: not app.is_running, "the end")


async def test_closing_a_screen_cuts_no_verb_off() -> None:
    swarm = make_fleet()
    swarm.gate = asyncio.Event()
    app = make_app(swarm, TABLE)
    async with running(app) as pilot:
        await put_cursor_on(app, swarm, "ember")
        await pilot.press("enter")
        await until(pilot, lambda: "─ log" in seen(app), "the agent's screen")
        await pilot.press("p", "escape")
        swarm.gate.set()
        await until(pilot, lambda: swarm.named("ember").state is State.SAVED, "the pause")


# Help and palette


async def test_help_lists_the_keys_and_why_one_is_denied() -> None:
    swarm = make_fleet()
    app = make_app(swarm, TABLE)
    async with running(app, (110, 60)) as pilot:
        await put_cursor_on(app, swarm, "ember")
        await pilot.press("question_mark")
        await until(pilot, lambda: "Steer agents" in seen(app), "the help")
        text = " ".join(seen(app).replace("│", " ").split())
        assert "Pause to a snapshot" in text
        assert "only a paused, saved or frozen agent" in text
        await pilot.press("question_mark")
        await until(pilot, lambda: len(app.screen_stack) == 2, "the way back")


@pytest.mark.parametrize("key", ["colon", "ctrl+p"])
async def test_the_palette_runs_an_action_by_its_name(key: str) -> None:
    swarm = make_fleet()
    app = make_app(swarm, TABLE)
    async with running(app, (100, 40)) as pilot:
        await pilot.press(key)
        await until(pilot, lambda: "quick-pause" in seen(app), "the palette")
        await pilot.press(*"refre")
        await until(pilot, lambda: "quick-pause" not in seen(app), "the narrowed list")
        await pilot.press("enter")
        await until(pilot, lambda: swarm.refreshed == 1, "the action")
