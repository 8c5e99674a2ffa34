"""Choosing what is shown: the filter as it is typed, groups, sorting, views."""

from __future__ import annotations

from pathlib import Path

import pytest
from stand_in import Clock, StandInSupervisor, make_app, running, seen, until

from swarm_tui import views
from swarm_tui.errors import UsageError
from swarm_tui.model import EventKind
from swarm_tui.ui.app import Settings, SwarmApp
from swarm_tui.ui.grid import View
from swarm_tui.ui.roster import REST_S, Roster
from swarm_tui.ui.screen import top
from swarm_tui.views import Group, Order

TABLE = Settings(view=View.TABLE)


def mixed() -> StandInSupervisor:
    swarm = StandInSupervisor()
    for host in ("lab", "edge"):
        swarm.add_host(host)
    swarm.add("ash", host="lab", owner="ada", labels=["team=web", "urgent"])
    swarm.add("birch", host="edge", owner="bo", labels=["team=core"])
    swarm.add("cedar", host="edge", owner="ada", labels=["team=web"])
    swarm.add("dogwood", host="lab", owner="")
    return swarm


def names(roster: Roster) -> list[str]:
    return [roster.agents[agent].name for section in roster.sections for agent in section.ids]


def shown(app: SwarmApp) -> list[str]:
    return names(top(app).context.roster)


async def test_a_wrong_filter_says_why_and_keeps_the_last_good_list() -> None:
    app = make_app(mixed(), TABLE)
    async with running(app) as pilot:
        await pilot.press("slash", *"host:lab")
        await until(pilot, lambda: shown(app) == ["ash", "dogwood"], "those on lab")
        await pilot.press(*" stat:asking")
        await until(pilot, lambda: "There is no stat:" in seen(app), "what is wrong")
        assert shown(app) == ["ash", "dogwood"]
        await pilot.press("enter")
        assert "Did you mean state:?" in seen(app)
        await pilot.press("escape")
        assert len(shown(app)) == 4


async def test_tab_completes_what_is_typed() -> None:
    app = make_app(mixed(), TABLE)
    async with running(app) as pilot:
        await pilot.press("slash", *"la")
        await until(pilot, lambda: "tab label:" in seen(app), "the hint")
        await pilot.press("tab", *"team=w", "tab", "enter")
        assert sorted(shown(app)) == ["ash", "cedar"]
        assert "/label:team=web" in seen(app)


async def test_an_agent_enters_and_leaves_the_choice_as_it_changes() -> None:
    swarm = mixed()
    app = make_app(swarm, TABLE)
    async with running(app) as pilot:
        await pilot.press("slash", *"is:waiting", "enter")
        await until(pilot, lambda: shown(app) == [], "nobody")
        swarm.hear(swarm.named("cedar").id, EventKind.ASK, "look")
        swarm.clock.pass_by(2)
        await until(pilot, lambda: shown(app) == ["cedar"], "the one that asks")
        swarm.hear(swarm.named("cedar").id, EventKind.STATUS, "on it")
        swarm.clock.pass_by(2)
        await until(pilot, lambda: shown(app) == [], "nobody again")


async def test_g_goes_through_every_way_to_group() -> None:
    app = make_app(mixed(), TABLE)
    async with running(app) as pilot:
        said = []
        for _ in range(6):
            await pilot.press("g")
            said.append(top(app).context.roster.grouped)
        assert said == ["host", "state", "owner", "label team", "label urgent", ""]


async def test_the_other_way_round_is_told() -> None:
    app = make_app(mixed(), TABLE)
    async with running(app) as pilot:
        await pilot.press("o", "O")
        assert shown(app) == ["dogwood", "cedar", "birch", "ash"]
        assert "by name ↑" in seen(app)


def test_groups_by_a_text_have_those_without_it_last() -> None:
    roster = Roster(mixed().store)
    roster.choose(0.0, group=Group.OWNER)
    assert [(part.title, len(part.ids)) for part in roster.sections] == [
        ("ada", 2),
        ("bo", 1),
        ("no owner", 1),
    ]
    roster.choose(0.0, group=Group.LABEL, label="team")
    assert [part.title for part in roster.sections] == ["team=core", "team=web", "no team"]


def test_only_who_changed_is_asked_again() -> None:
    swarm = mixed()
    roster = Roster(swarm.store)
    roster.choose(0.0, filter="label:team=web", order=Order.NAME)
    clock = Clock()
    swarm.store.take_dirty()
    swarm.add("elm", labels=["team=web"])
    assert roster.absorb(swarm.store.take_dirty(), clock.monotonic() + REST_S)
    assert names(roster) == ["ash", "cedar", "elm"]


def test_a_wrong_filter_changes_nothing() -> None:
    roster = Roster(mixed().store)
    roster.choose(0.0, filter="host:lab", order=Order.NAME)
    with pytest.raises(UsageError):
        roster.choose(0.0, filter="host:", order=Order.HOST)
    assert (roster.filter, roster.order, names(roster)) == (
        "host:lab",
        Order.NAME,
        ["ash", "dogwood"],
    )


# Views


async def test_a_view_is_chosen_by_its_number_and_told() -> None:
    swarm = mixed()
    swarm.hear(swarm.named("cedar").id, EventKind.ASK, "look")
    app = make_app(swarm, TABLE)
    async with running(app, (100, 30)) as pilot:
        await pilot.press("V")
        await until(pilot, lambda: "2 waiting for me" in seen(app), "the list")
        await pilot.press("2")
        await until(pilot, lambda: shown(app) == ["cedar"], "the view")
        assert "waiting for me 1 shown" in seen(app)
        await pilot.press("O")
        assert "/is:waiting 1 shown" in seen(app), "it is that view no longer"


async def test_the_present_view_is_kept_and_comes_back(tmp_path: Path) -> None:
    file = tmp_path / "views.toml"
    app = make_app(mixed(), Settings(view=View.TABLE, views_file=file))
    async with running(app, (100, 30)) as pilot:
        await pilot.press("slash", *"host:lab", "enter", "o", "O", "g", "V", "s")
        await until(pilot, lambda: "Save as (host:lab · by name ↑" in seen(app), "the question")
        await pilot.press(*"my", "space", *"lab", "enter")
        await until(pilot, lambda: "5 my lab" in seen(app), "the new view")
        await pilot.press("1")
        await until(pilot, lambda: len(shown(app)) == 4, "everything")
        await pilot.press("v", "V", "5")
        await until(pilot, lambda: shown(app) == ["dogwood", "ash"], "the view")
        await until(pilot, lambda: "NAME" in seen(app), "as a table")
    (view,) = [view for view in views.read(file) if not view.is_built_in]
    app = make_app(mixed(), Settings(views_file=file, start=view))
    async with running(app, (100, 30)) as pilot:
        await until(pilot, lambda: shown(app) == ["dogwood", "ash"], "the view")
        await until(pilot, lambda: "my lab 2 shown" in seen(app), "its name")


async def test_a_view_is_renamed_and_removed(tmp_path: Path) -> None:
    file = tmp_path / "views.toml"
    views.save(file, views.View("lab", "host:lab"))
    app = make_app(mixed(), Settings(views_file=file))
    async with running(app, (100, 30)) as pilot:
        await pilot.press("V", "r")
        await until(pilot, lambda: "“everything” is built in" in seen(app), "the refusal")
        await pilot.press("k", "j", "j", "j", "j", "r", "ctrl+u", *"Rest", "enter")
        await until(pilot, lambda: "5 Rest" in seen(app), "the new name")
        await pilot.press("d", "escape", "d", "y")
        await until(pilot, lambda: "Rest" not in seen(app), "it is gone")
        assert len(views.read(file)) == len(views.BUILT_IN)


async def test_a_damaged_file_of_views_is_told_and_the_built_in_ones_work(tmp_path: Path) -> None:
    file = tmp_path / "views.toml"
    file.write_text("[views")
    app = make_app(mixed(), Settings(views_file=file))
    async with running(app, (100, 30)) as pilot:
        await pilot.press("V")
        await until(pilot, lambda: "cannot be used as it is" in seen(app), "what is wrong")
        await pilot.press("s", "x", "enter")
        await until(pilot, lambda: "until then nothing is written" in seen(app), "the refusal")
        await pilot.press("escape", "3")
        await until(pilot, lambda: "mine 0 shown" in seen(app), "a built-in view")
    assert file.read_text() == "[views"
