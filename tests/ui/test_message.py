"""Writing to agents: what is typed is what is sent, and nothing is lost by a slip."""

from __future__ import annotations

from stand_in import StandInSupervisor, make_app, make_fleet, running, seen, type_ahead, until
from textual import events
from textual.pilot import Pilot

from swarm_tui.command import Say
from swarm_tui.errors import GuestUnreachable
from swarm_tui.model import AgentId, State
from swarm_tui.ui.app import Settings, SwarmApp
from swarm_tui.ui.editor import MessageDialog
from swarm_tui.ui.fleet import FleetScreen
from swarm_tui.ui.grid import View
from swarm_tui.ui.screen import top

TABLE = Settings(view=View.TABLE)


async def open_message(app: SwarmApp, swarm: StandInSupervisor, pilot: Pilot[None]) -> AgentId:
    """Press m on ember."""
    screen = top(app)
    assert isinstance(screen, FleetScreen)
    ember = swarm.named("ember").id
    screen.grid.cursor = ember
    await pilot.press("m")
    await until(pilot, lambda: "Message to ember" in seen(app), "the dialog")
    return ember


def is_open(app: SwarmApp) -> bool:
    return isinstance(app.screen, MessageDialog)


async def test_enter_sends_what_was_typed() -> None:
    swarm = make_fleet()
    app = make_app(swarm, TABLE)
    async with running(app) as pilot:
        ember = await open_message(app, swarm, pilot)
        await pilot.press(*"use", "space", *"blue", "ctrl+j", "ctrl+j", *"ü", "enter")
        await until(pilot, lambda: swarm.done == [Say(ember, "use blue\n\nü")], "the message")
        await until(pilot, lambda: "ember: message" in seen(app), "the outcome")
        assert not is_open(app)


async def test_what_is_typed_in_haste_is_sent_whole() -> None:
    """Enter must not overtake the letters before it, as bindings with priority do."""
    swarm = make_fleet()
    app = make_app(swarm, TABLE)
    async with running(app) as pilot:
        ember = await open_message(app, swarm, pilot)
        for character in "stop":
            app.post_message(events.Key(character, character))
        app.post_message(events.Key("enter", "\r"))
        await until(pilot, lambda: bool(swarm.done), "the message")
        assert swarm.done == [Say(ember, "stop")]


async def test_what_is_typed_before_the_dialog_is_there_is_sent_whole() -> None:
    swarm = make_fleet()
    app = make_app(swarm, TABLE)
    async with running(app) as pilot:
        screen = top(app)
        assert isinstance(screen, FleetScreen)
        ember = swarm.named("ember").id
        screen.grid.cursor = ember
        type_ahead(app, "m", *"stop", "enter")
        await until(pilot, lambda: bool(swarm.done), "the message")
        assert swarm.done == [Say(ember, "stop")]


async def test_what_is_pasted_is_one_message() -> None:
    swarm = make_fleet()
    app = make_app(swarm, TABLE)
    async with running(app) as pilot:
        ember = await open_message(app, swarm, pilot)
        app.post_message(events.Paste("one\r\ntwo\x1b[31m\r\nthree\r\n"))
        await until(pilot, lambda: "three" in seen(app), "the paste")
        assert is_open(app)
        await pilot.press("enter")
        await until(pilot, lambda: bool(swarm.done), "the message")
        assert swarm.done == [Say(ember, "one\ntwo␛[31m\nthree")]


async def test_nothing_is_not_sent_and_a_slip_throws_nothing_away() -> None:
    swarm = make_fleet()
    app = make_app(swarm, TABLE)
    async with running(app) as pilot:
        await open_message(app, swarm, pilot)
        await pilot.press("enter")
        assert "There is nothing in it yet." in seen(app)
        await pilot.press("x", "escape")
        assert is_open(app)
        assert "esc again" in seen(app)
        await pilot.press("escape")
        await until(pilot, lambda: not is_open(app), "it is left")
        await open_message(app, swarm, pilot)
        await pilot.press("escape")
        await until(pilot, lambda: not is_open(app), "it is left at once")
        assert not swarm.done


async def test_a_button_is_what_it_says() -> None:
    swarm = make_fleet()
    app = make_app(swarm, TABLE)
    async with running(app) as pilot:
        await open_message(app, swarm, pilot)
        await pilot.press("x", "tab", "tab", "enter")
        await until(pilot, lambda: "esc again" in seen(app), "the warning")
        await pilot.press("escape")
        await until(pilot, lambda: not is_open(app), "it is left")
        assert not swarm.done


async def test_what_is_too_long_stays_to_be_cut() -> None:
    swarm = make_fleet()
    app = make_app(swarm, TABLE)
    async with running(app) as pilot:
        await open_message(app, swarm, pilot)
        app.post_message(events.Paste("line of words\n" * 5000))
        await pilot.press("enter")
        await until(pilot, lambda: "65,536 can be delivered" in seen(app), "the reason")
        assert is_open(app)
        assert not swarm.done


async def test_who_is_asking_is_seen_with_the_question_while_one_answers() -> None:
    swarm = make_fleet()
    app = make_app(swarm, TABLE)
    async with running(app) as pilot:
        await pilot.press("home", "m")
        await until(pilot, lambda: "Message to moss" in seen(app), "the dialog")
        assert "review: 3 files changed, tests pass" in seen(app)


async def test_several_get_the_same_message() -> None:
    swarm = make_fleet()
    app = make_app(swarm, TABLE)
    async with running(app) as pilot:
        await pilot.press("a", "m")
        alive = {State.STARTING, State.RUNNING, State.ASKING, State.FROZEN, State.DONE}
        agents = {agent.id for agent in swarm.store.agents() if agent.state in alive}
        await until(pilot, lambda: f"Message to {len(agents)} agents" in seen(app), "the dialog")
        await pilot.press(*"stop", "enter")
        await until(pilot, lambda: len(swarm.done) == len(agents), "all of them")
        assert set(swarm.done) == {Say(agent, "stop") for agent in agents}


async def test_what_did_not_arrive_can_be_sent_again() -> None:
    swarm = make_fleet()
    app = make_app(swarm, TABLE)
    async with running(app) as pilot:
        ember = await open_message(app, swarm, pilot)
        swarm.failure = GuestUnreachable("The guest does not answer")
        await pilot.press(*"wait", "enter")
        await until(pilot, lambda: "does not answer" in seen(app), "the failure")
        swarm.failure = None
        swarm.done.clear()
        await open_message(app, swarm, pilot)
        await pilot.press("enter")
        await until(pilot, lambda: swarm.done == [Say(ember, "wait")], "the message")
        await until(pilot, lambda: "ember: message" in seen(app), "the outcome")
        await open_message(app, swarm, pilot)
        await pilot.press("enter")
        assert "There is nothing in it yet." in seen(app)


async def test_who_cannot_be_told_is_named_with_the_reason() -> None:
    swarm = make_fleet()
    app = make_app(swarm, TABLE)
    async with running(app) as pilot:
        screen = top(app)
        assert isinstance(screen, FleetScreen)
        screen.grid.cursor = swarm.named("wren").id
        await pilot.press("m")
        await until(pilot, lambda: "it is saved; a message needs" in seen(app), "the refusal")
        assert not is_open(app)
