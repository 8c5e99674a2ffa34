"""The form for new agents: what is typed, what is told of it, what is asked for."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from stand_in import StandInSupervisor, make_app, make_fleet, running, seen, until

from swarm_tui.command import Spawn
from swarm_tui.errors import StorageFull
from swarm_tui.label import make_labels
from swarm_tui.model import HostName
from swarm_tui.profile import Life, Profile
from swarm_tui.profiles import load
from swarm_tui.stock import Stock
from swarm_tui.text import literal
from swarm_tui.ui.app import Settings, SwarmApp
from swarm_tui.ui.grid import View

OWN = """
about = "mends what is broken"
image = "mender"
repository = "/srv/shop"
ref = "next"
command = ["mend", "--task={task}"]
ready = 2
[environment]
MENDER_KEY = { from = "MENDER_SECRET" }
[life]
ttl = "2h"
on_done = "end"
"""


def app_of(swarm: StandInSupervisor, folder: Path, image: str = "", **own: str) -> SwarmApp:
    for name, text in own.items():
        (folder / f"{name}.toml").write_text(text)
    settings = Settings(
        view=View.TABLE, profiles=lambda: load(folder).entries, find_image=lambda name: image
    )
    return make_app(swarm, settings)


def demo(folder: Path) -> Profile:
    return load(folder).find("demo")


async def test_of_many_profiles_the_one_under_the_cursor_is_always_seen(tmp_path: Path) -> None:
    own = {f"a{number}": "" for number in range(9)}  # before the one that it begins with
    app = app_of(make_fleet(), tmp_path, **own)
    async with running(app) as pilot:
        await pilot.press("n")
        await until(pilot, lambda: "▌ demo" in seen(app), "the first one")
        await pilot.press("end")
        await until(pilot, lambda: "▌ opencode" in seen(app), "the last one")
        await pilot.press("home")
        await until(pilot, lambda: "▌ a0" in seen(app), "the top")


async def test_one_agent_is_asked_for_in_a_few_keys_and_tells_how_it_went(tmp_path: Path) -> None:
    swarm = make_fleet()
    app = app_of(swarm, tmp_path)
    async with running(app) as pilot:
        await pilot.press("n")
        await until(pilot, lambda: "1 agent: the next free name" in seen(app), "the preview")
        await pilot.press("enter", *"sort", "tab", "enter", *"fig", "enter", "enter", *"a b=c")
        await pilot.press("enter", *"90m", "enter")
        await until(pilot, lambda: "fig answers after" in seen(app), "the outcome")
        profile = replace(demo(tmp_path), life=Life(ttl_s=5400.0))
        assert swarm.done == [Spawn(None, "fig", "sort", make_labels(["a", "b=c"]), profile)]
        assert not app._swarm.batches


async def test_several_are_one_batch_whose_failures_are_told(tmp_path: Path) -> None:
    swarm = make_fleet()
    swarm.gate = asyncio.Event()
    app = app_of(swarm, tmp_path)
    async with running(app, (100, 30)) as pilot:
        await pilot.press("n", "tab", "tab", "backspace", "3", "enter", *"fig", "ctrl+s")
        await until(pilot, lambda: "Being made" in seen(app), "the toast")
        await pilot.press("J")
        await until(pilot, lambda: "Make 3 agents: 3 at work" in seen(app), "the batch")
        swarm.failure = StorageFull("No room for a disk")
        swarm.gate.set()
        await until(pilot, lambda: seen(app).count("No room for a disk") == 3, "the end")
        assert "Make 3 agents: 3 failed" in seen(app)
        assert "fig-1" in seen(app)
        asked = [command for command in swarm.done if isinstance(command, Spawn)]
        assert [command.name for command in asked] == ["fig-1", "fig-2", "fig-3"]


async def test_what_is_wrong_is_told_beside_it_and_nothing_is_made(tmp_path: Path) -> None:
    swarm = make_fleet()
    app = app_of(swarm, tmp_path)
    async with running(app) as pilot:
        await pilot.press("n", "tab", "tab", "backspace", *"0", "enter", *"No", "enter", "enter")
        await pilot.press(*"=x", "enter", *"soon", "enter")
        await until(pilot, lambda: "mend what is marked above" in seen(app), "the refusal")
        for problem in (
            "from 1 to 200",
            "cannot be a host name",
            "“=x” is no label",
            "This is no time",
        ):
            assert problem in seen(app)
        assert swarm.done == []


async def test_a_profile_is_told_in_full_before_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MENDER_SECRET", "hush-hush")
    swarm = make_fleet()
    stock = Stock(literal("mender"), wanted=2, ready=1)
    swarm.stocks.seen = {HostName("local"): (stock,)}
    app = app_of(swarm, tmp_path, mender=OWN)
    async with running(app, (150, 40)) as pilot:
        await pilot.press("n", "home")
        for told in (
            "mends what is broken",
            "mender  built",
            "/srv/shop at next",
            "mend '--task={task}'",
            "MENDER_KEY from MENDER_SECRET",
            "after 2h00: paused to disk · done: ended",
            "local: 1 of 2",
        ):
            await until(pilot, lambda told=told: told in seen(app), told)  # type: ignore[misc]
        assert "hush-hush" not in seen(app)


@pytest.mark.parametrize(
    ("image", "secret", "told"),
    [("there is no image mender", "x", "there is no image"), ("", "", "MENDER_SECRET: not set")],
)
async def test_what_cannot_come_to_anything_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image: str, secret: str, told: str
) -> None:
    monkeypatch.setenv("MENDER_SECRET", secret)
    swarm = make_fleet()
    app = app_of(swarm, tmp_path, image, mender=OWN)
    async with running(app) as pilot:
        await pilot.press("n", "home")
        await until(pilot, lambda: "looking for it" not in seen(app), "the image")
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "task: missing" in seen(app), "the first refusal")
        await pilot.press("enter", *"mend", "ctrl+s")
        await until(pilot, lambda: told in seen(app).splitlines()[-2], "the refusal")
        assert swarm.done == []


async def test_a_broken_profile_is_listed_with_its_error_and_makes_nothing(tmp_path: Path) -> None:
    swarm = make_fleet()
    app = app_of(swarm, tmp_path, bad="memory_mb = 3\n")
    async with running(app) as pilot:
        await pilot.press("n", "home")
        await until(pilot, lambda: "unknown key" in seen(app), "the error")
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "The profile bad is not valid" in seen(app), "the refusal")
        assert swarm.done == []


async def test_the_host_is_chosen_among_those_that_can(tmp_path: Path) -> None:
    swarm = make_fleet()
    swarm.spawning_hosts = (HostName("local"), HostName("lab-2"))
    app = app_of(swarm, tmp_path)
    async with running(app) as pilot:
        await pilot.press("n", "tab", "tab", "tab", "tab", "right", "right")
        await until(pilot, lambda: "‹ lab-2 ›" in seen(app), "the choice")
        await pilot.press("ctrl+s")
        await until(pilot, lambda: bool(swarm.done), "the command")
        [command] = swarm.done
        assert isinstance(command, Spawn)
        assert command.host == "lab-2"


async def test_arrows_choose_a_profile_and_go_from_field_to_field(tmp_path: Path) -> None:
    swarm = make_fleet()
    app = app_of(swarm, tmp_path, mender=OWN)
    async with running(app) as pilot:
        await pilot.press("n")
        await until(pilot, lambda: "aider" in seen(app), "the profiles")
        await pilot.press("home", "down", "down")
        await until(pilot, lambda: "runs       claude" in seen(app), "the second shipped one")
        await pilot.press("tab", "tab", "down", *"fig", "up", "backspace", "2")
        await until(pilot, lambda: "2 agents: fig-1, fig-2" in seen(app), "the fields")


async def test_what_was_typed_is_not_lost_by_one_key(tmp_path: Path) -> None:
    swarm = make_fleet()
    app = app_of(swarm, tmp_path)
    async with running(app) as pilot:
        await pilot.press("n", "enter", *"sort", "escape")
        await until(pilot, lambda: "throws away what you typed" in seen(app), "the question")
        await pilot.press("escape")
        await until(pilot, lambda: len(app.screen_stack) == 2, "the fleet")
        assert swarm.done == []
