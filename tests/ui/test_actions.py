"""The one table of actions is whole, and everything in it is done by somebody."""

from __future__ import annotations

import pytest
from stand_in import make_app, make_fleet, running

from swarm_tui.model import Verb
from swarm_tui.ui.action import Place
from swarm_tui.ui.actions import ACTIONS, BY_ID, at
from swarm_tui.ui.acts import AuditScreen
from swarm_tui.ui.agent import AgentScreen
from swarm_tui.ui.comparison import CompareScreen
from swarm_tui.ui.fleet import FleetScreen
from swarm_tui.ui.hosts import HostsScreen
from swarm_tui.ui.keys import bindings, key_names, render_keys_markdown
from swarm_tui.ui.logs import LogScreen
from swarm_tui.ui.results import ResultsScreen
from swarm_tui.ui.review import ReviewScreen
from swarm_tui.ui.screen import SwarmScreen
from swarm_tui.ui.timeline import TimelineScreen
from swarm_tui.ui.waiting import WaitingScreen

SCREENS: dict[Place, type[SwarmScreen]] = {
    "fleet": FleetScreen,
    "agent": AgentScreen,
    "logs": LogScreen,
    "review": ReviewScreen,
    "audit": AuditScreen,
    "hosts": HostsScreen,
    "waiting": WaitingScreen,
    "results": ResultsScreen,
    "timeline": TimelineScreen,
    "compare": CompareScreen,
}


def test_ids_are_unique_and_verbs_keep_their_word() -> None:
    assert len(BY_ID) == len(ACTIONS)
    for action in ACTIONS:
        if action.verb:
            assert action.verb.value in action.id


def test_every_verb_has_a_key() -> None:
    # Comparing is of two, and shows what there is of those whom policy refuses it for.
    assert {action.verb for action in ACTIONS if action.verb} == set(Verb) - {Verb.COMPARE}


@pytest.mark.parametrize("place", SCREENS)
def test_no_key_means_two_things_on_one_screen(place: Place) -> None:
    keys = [key for action in at(place) if action.is_bound for key in action.keys]
    assert len(keys) == len(set(keys))
    assert len(bindings(place)) == len(keys)


@pytest.mark.parametrize("place", SCREENS)
async def test_everything_that_can_be_pressed_is_done_by_somebody(place: Place) -> None:
    app = make_app(make_fleet())
    async with running(app) as pilot:
        screen = SCREENS[place]
        posted: list[str] = []
        for action in at(place):
            if hasattr(screen, f"do_{action.id.replace('-', '_')}") or not action.is_bound:
                continue
            # What the screen does not do itself the app must know: else the key would be dead.
            posted.append(action.id)
            depth = len(app.screen_stack)
            told = {note.identity for note in app._notifications}
            app.act(action, [], None)
            await pilot.pause()
            footer = app.screen_stack[1].query_one("#footer").render_line(0).text
            is_heard = (
                len(app.screen_stack) > depth
                or {note.identity for note in app._notifications} - told
                or "so far" in footer
                or action.id in {"refresh", "quit", "open", "logs", "shell", "timeline"}
            )
            assert is_heard, action.id
            while len(app.screen_stack) > 2:
                app.pop_screen()
            if action.id == "quit":
                break
        assert ("pause" if place in ("fleet", "agent", "waiting") else "help") in posted


def test_the_readme_table_names_every_key() -> None:
    table = render_keys_markdown()
    for action in ACTIONS:
        assert action.help in table
        for key in key_names(action).split():
            assert f"`{key}`" in table
