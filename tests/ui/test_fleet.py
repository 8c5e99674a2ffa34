"""The fleet screen: moving, choosing, and that a key never hits another agent than was meant."""

from __future__ import annotations

import pytest
from stand_in import (
    Clock,
    StandInSupervisor,
    make_app,
    make_fleet,
    running,
    seen,
    type_ahead,
    until,
)

from swarm_tui.command import Pause
from swarm_tui.fact import VmGone
from swarm_tui.model import AgentId, EventKind, HostState, State
from swarm_tui.store import History, Outage
from swarm_tui.text import literal
from swarm_tui.ui.app import Settings, SwarmApp
from swarm_tui.ui.fleet import FleetScreen
from swarm_tui.ui.grid import Grid, View
from swarm_tui.ui.screen import top

TABLE = Settings(view=View.TABLE)


def fleet(app: SwarmApp) -> FleetScreen:
    screen = top(app)
    assert isinstance(screen, FleetScreen)
    return screen


def grid(app: SwarmApp) -> Grid:
    return fleet(app).grid


def under_cursor(app: SwarmApp, swarm: StandInSupervisor) -> str:
    cursor = grid(app).cursor
    assert cursor
    return swarm.agent(cursor).name


def shown(app: SwarmApp) -> list[str]:
    roster = fleet(app).context.roster
    return [roster.agents[agent].name for section in roster.sections for agent in section.ids]


def quiet_swarm(*names: str) -> StandInSupervisor:
    swarm = StandInSupervisor()
    swarm.add_host()
    for name in names:
        swarm.add(name)
    return swarm


# Moving


async def test_arrows_and_hjkl_move_among_tiles() -> None:
    swarm = quiet_swarm("a1", "a2", "a3", "a4", "a5", "a6", "a7")
    app = make_app(swarm)
    async with running(app) as pilot:
        visited = []
        for key in ("l", "j", "h", "k", "right", "down", "left", "up", "end", "home"):
            await pilot.press(key)
            visited.append(under_cursor(app, swarm))
        assert visited == ["a2", "a4", "a3", "a1", "a2", "a4", "a3", "a1", "a7", "a1"]


async def test_news_that_come_while_it_closes_disturb_nobody() -> None:
    app = make_app(quiet_swarm("ember"), TABLE)
    async with running(app):
        pass
    assert not app.screen_stack
    app._tick()


async def test_a_page_is_what_can_be_seen() -> None:
    swarm = quiet_swarm(*(f"a{number}" for number in range(100)))
    app = make_app(swarm, TABLE)
    async with running(app) as pilot:
        await pilot.press("ctrl+d")
        assert under_cursor(app, swarm) == "a20"
        assert "a20" in seen(app)
        await pilot.press("ctrl+u")
        assert under_cursor(app, swarm) == "a0"


async def test_among_the_rows_of_a_table_l_opens_the_log() -> None:
    app = make_app(make_fleet(), TABLE)
    async with running(app) as pilot:
        assert "l logs" in seen(app)
        await pilot.press("l")
        await until(pilot, lambda: "─ log" in seen(app), "the log")
        await pilot.press("escape", "v")
        await until(pilot, lambda: "L logs" in seen(app), "the tiles' key for the log")


async def test_moving_goes_on_over_the_headings_of_groups() -> None:
    swarm = make_fleet()
    app = make_app(swarm)
    async with running(app) as pilot:
        await pilot.press("g", "home")
        visited = [under_cursor(app, swarm)]
        for _ in range(2):
            await pilot.press("j")
            visited.append(under_cursor(app, swarm))
        assert visited == ["pike", "moss", "quartz"]
        for _ in range(9):
            await pilot.press("j")
        last = under_cursor(app, swarm)
        await pilot.press("j")
        assert under_cursor(app, swarm) == last


# The cursor stands on an agent


async def test_the_cursor_stays_on_its_agent_when_the_order_changes() -> None:
    swarm = quiet_swarm("a1", "a2", "a3")
    app = make_app(swarm, TABLE)
    async with running(app) as pilot:
        await pilot.press("j")
        swarm.hear(swarm.named("a3").id, EventKind.ASK, "review")
        swarm.clock.pass_by(2)
        await until(pilot, lambda: shown(app) == ["a3", "a1", "a2"], "the new order")
        assert under_cursor(app, swarm) == "a2"


async def test_a_key_is_ignored_for_a_moment_after_the_list_moved_by_itself() -> None:
    swarm = quiet_swarm("a1", "a2", "a3")
    app = make_app(swarm, TABLE)
    async with running(app) as pilot:
        swarm.hear(swarm.named("a3").id, EventKind.ASK, "review")
        swarm.clock.pass_by(2)
        await until(pilot, lambda: shown(app)[0] == "a3", "the new order")
        await pilot.press("p")
        assert not swarm.done
        assert "the list moved: press again" in seen(app)
        swarm.clock.pass_by(0.4)
        await pilot.press("p")
        await until(pilot, lambda: swarm.done == [Pause(swarm.named("a1").id)], "the pause")


async def test_a_key_is_not_ignored_after_ones_own_move() -> None:
    swarm = quiet_swarm("a1", "a2", "a3")
    app = make_app(swarm, TABLE)
    async with running(app) as pilot:
        swarm.hear(swarm.named("a3").id, EventKind.ASK, "review")
        swarm.clock.pass_by(2)
        await until(pilot, lambda: shown(app)[0] == "a3", "the new order")
        await pilot.press("j", "p")
        await until(pilot, lambda: swarm.done == [Pause(swarm.named("a2").id)], "the pause")


async def test_the_neighbour_comes_under_the_cursor_when_an_agent_goes_and_is_spared() -> None:
    swarm = quiet_swarm("a1", "a2", "a3")
    app = make_app(swarm, TABLE)
    async with running(app) as pilot:
        await pilot.press("j")
        swarm.clock.pass_by(2)
        swarm.apply(VmGone(swarm.named("a2").id, 99))
        await until(pilot, lambda: shown(app) == ["a1", "a3"], "the shorter list")
        assert under_cursor(app, swarm) == "a3"
        await pilot.press("K")
        assert len(app.screen_stack) == 2
        swarm.clock.pass_by(0.4)
        await pilot.press("K")
        await until(pilot, lambda: "Kill a3?" in seen(app), "the question")


async def test_changes_far_from_the_cursor_do_not_hold_keys_back() -> None:
    swarm = quiet_swarm("a1", "a2", "a3")
    app = make_app(swarm, TABLE)
    async with running(app) as pilot:
        swarm.add("a9")
        swarm.clock.pass_by(2)
        await until(pilot, lambda: "a9" in shown(app), "the new agent")
        await pilot.press("p")
        await until(pilot, lambda: swarm.done == [Pause(swarm.named("a1").id)], "the pause")


# Choosing what is shown


async def test_a_filter_works_as_it_is_typed_and_goes_with_esc() -> None:
    swarm = make_fleet()
    app = make_app(swarm)
    async with running(app) as pilot:
        await pilot.press("slash", *"frozen")
        assert shown(app) == ["quartz"]
        await pilot.press("enter")
        assert grid(app).has_focus
        assert "/frozen 1 shown" in seen(app)
        await pilot.press("escape")
        assert len(shown(app)) == 12


async def test_keys_typed_into_the_filter_do_nothing_else() -> None:
    swarm = make_fleet()
    app = make_app(swarm)
    async with running(app) as pilot:
        await pilot.press("slash", *"pKx", "escape")
        assert not swarm.done
        assert len(app.screen_stack) == 2
        assert len(shown(app)) == 12


async def test_nothing_that_matches_is_said() -> None:
    app = make_app(make_fleet())
    async with running(app) as pilot:
        await pilot.press("slash", *"zzz", "enter")
        assert "No agent matches the filter" in seen(app)


async def test_sorting_and_grouping_say_what_they_are() -> None:
    app = make_app(make_fleet())
    async with running(app, (120, 40)) as pilot:
        await pilot.press("o")
        assert "by name" in seen(app)
        assert shown(app)[:3] == ["cobalt", "ember", "fern"]
        await pilot.press("g")
        assert "grouped by host" in seen(app)
        assert "lab-2  4 agents" in seen(app)


async def test_w_goes_to_who_waits_even_past_a_filter() -> None:
    swarm = make_fleet()
    app = make_app(swarm)
    async with running(app) as pilot:
        await pilot.press("slash", *"ember", "enter", "w")
        assert under_cursor(app, swarm) == "moss"
        await pilot.press("w")
        assert under_cursor(app, swarm) == "fern"
        await pilot.press("w")
        assert under_cursor(app, swarm) == "moss"


async def test_what_is_typed_right_behind_enter_is_not_for_the_filter() -> None:
    swarm = make_fleet()
    app = make_app(swarm)
    async with running(app) as pilot:
        await pilot.press("slash", *"ember")
        type_ahead(app, "enter", "w", "w")
        await until(pilot, lambda: grid(app).cursor and under_cursor(app, swarm) == "fern")
        assert "ember" in seen(app)
        assert "emberw" not in seen(app)


async def test_w_says_when_nobody_waits() -> None:
    app = make_app(quiet_swarm("a1"))
    async with running(app) as pilot:
        await pilot.press("w")
        assert "nobody waits for you" in seen(app)


async def test_selecting_counts_and_esc_drops_it() -> None:
    app = make_app(make_fleet())
    async with running(app) as pilot:
        await pilot.press("space", "j", "space")
        assert "2 selected" in seen(app)
        await pilot.press("escape")
        assert "selected" not in seen(app)
        await pilot.press("a")
        assert "12 selected" in seen(app)
        await pilot.press("a")
        assert "selected" not in seen(app)


# The mouse


async def test_a_click_moves_a_double_click_opens() -> None:
    swarm = quiet_swarm("a1", "a2", "a3", "a4", "a5", "a6", "a7")
    app = make_app(swarm)
    async with running(app) as pilot:
        await pilot.click(Grid, offset=(45, 10))
        assert under_cursor(app, swarm) == "a4"
        await pilot.click(Grid, offset=(2, 2), control=True)
        assert "1 selected" in seen(app)
        await pilot.press("escape")
        await pilot.click(Grid, offset=(45, 3), times=2)
        await until(pilot, lambda: "─ log" in seen(app), "the agent's screen")
        assert " a2 " in seen(app).splitlines()[0]


async def test_keys_in_the_footer_can_be_clicked() -> None:
    app = make_app(make_fleet())
    async with running(app) as pilot:
        column = seen(app).splitlines()[-1].index("? help")
        await pilot.click("#footer", offset=(column, 0))
        await until(pilot, lambda: "Steer agents" in seen(app), "the list of keys")


async def test_a_click_beside_the_agents_does_nothing() -> None:
    swarm = quiet_swarm("a1")
    app = make_app(swarm, TABLE)
    async with running(app) as pilot:
        await pilot.click(Grid, offset=(5, 15))
        assert under_cursor(app, swarm) == "a1"


# Honest states


async def test_no_agents_is_no_empty_screen() -> None:
    swarm = StandInSupervisor()
    swarm.add_host()
    app = make_app(swarm)
    async with running(app) as pilot:
        assert "No agents yet" in seen(app)
        assert "n makes one" in seen(app)
        swarm.add("first")
        swarm.clock.pass_by(2)
        await until(pilot, lambda: "first" in seen(app), "the new agent")
        assert grid(app).cursor == swarm.named("first").id


async def test_that_the_store_is_out_of_reach_is_said_until_it_is_back() -> None:
    swarm = quiet_swarm("a1")
    app = make_app(swarm)
    async with running(app) as pilot:
        reason = literal("connection refused")
        swarm.store.note_outage(Outage(swarm.clock.now() - 65, reason, is_blind=False))
        told = "the shared store  out of reach for 1m"
        await until(pilot, lambda: told in seen(app), "the line")
        assert "connection refused" in seen(app)
        assert "a1" in seen(app), "what was known stays"
        swarm.store.note_outage(None)
        await until(pilot, lambda: "out of reach" not in seen(app), "the store is back")


async def test_that_there_is_no_host_at_all_is_said() -> None:
    app = make_app(StandInSupervisor())
    async with running(app):
        assert "No host is configured" in seen(app)
        assert "swarm-tui demo" in seen(app)


async def test_a_host_out_of_reach_says_why_and_when_it_is_tried_again() -> None:
    swarm = quiet_swarm("a1")
    app = make_app(swarm)
    async with running(app) as pilot:
        assert "out of reach" not in seen(app)
        swarm.add_host("local", HostState.DOWN, detail="connection refused; next try in 4 s")
        await until(pilot, lambda: "connection refused; next try in 4 s" in seen(app), "the line")
        assert "lost · last seen" in seen(app)
        swarm.add_host("local")
        await until(pilot, lambda: "out of reach" not in seen(app), "the host is back")


async def test_a_long_reason_of_a_lone_host_is_told_in_full() -> None:
    swarm = StandInSupervisor()
    why = "Failed to connect socket to '/run/user/1000/libvirt/libvirt-sock': No such file"
    swarm.add_host("local", HostState.DOWN, detail=f"{why}; next try in 8 s")
    app = make_app(swarm)
    async with running(app):
        assert "next try in 8 s" in seen(app)
        assert "No host can be reached" in seen(app)


async def test_unknown_numbers_are_not_zero() -> None:
    app = make_app(quiet_swarm("a1"), TABLE)
    async with running(app, (160, 24)):
        row = next(line for line in seen(app).splitlines() if "a1" in line)
        assert row.count("n/a") == 6
        assert "0%" not in row


async def test_a_verb_at_work_shows_its_step() -> None:
    swarm = make_fleet()
    app = make_app(swarm)
    async with running(app, (120, 40)) as pilot:
        swarm.begin(swarm.named("ember").id, "saving memory", 0.43)
        await until(pilot, lambda: "pause 43%: saving" in seen(app), "the step")


async def test_the_first_line_counts_every_state() -> None:
    app = make_app(make_fleet())
    async with running(app, (160, 40)):
        first = seen(app).splitlines()[0]
        for state, count in ((State.ASKING, 2), (State.RUNNING, 4), (State.SAVED, 1)):
            assert f"{count} {state}" in first


async def test_columns_go_by_worth_when_there_is_little_room() -> None:
    for width, present, absent in (
        (60, ("NAME", "STATE", "AGE"), ("TASK", "HOST", "NET")),
        (80, ("NAME", "STATE", "MEM", "DOING"), ("TASK", "HOST")),
        (200, ("NET ↓", "DSK W", "HOST", "TASK", "DOING"), ()),
    ):
        app = make_app(make_fleet(), TABLE)
        async with running(app, (width, 24)):
            head = next(line for line in seen(app).splitlines() if "NAME" in line)
            assert all(title in head for title in present)
            assert not any(title in head for title in absent)


async def test_only_what_is_seen_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    swarm = quiet_swarm(*(f"a{number}" for number in range(300)))
    app = make_app(swarm, TABLE)
    async with running(app) as pilot:
        asked: set[AgentId] = set()
        history = swarm.store.history

        def note(agent: AgentId) -> History | None:
            asked.add(agent)
            return history(agent)

        monkeypatch.setattr(swarm.store, "history", note)
        for agent in swarm.store.agents():
            swarm.hear(agent.id, EventKind.LOG, "working")
        await until(pilot, lambda: seen(app).count("working") == 21, "the new lines")
        assert len(asked) == 21


async def test_every_line_of_every_tile_is_as_wide_as_the_next() -> None:
    clock = Clock()
    for width in (60, 79, 80, 81, 120, 250):
        app = make_app(make_fleet(clock))
        async with running(app, (width, 60)):
            view = grid(app)
            for y in range(view.size.height):
                assert view.render_line(y).cell_length == view.scrollable_content_region.width
