"""What is typed faster than the screen can follow does what it would do typed slowly."""

from __future__ import annotations

from pathlib import Path

from stand_in import make_app, make_fleet, running, seen, type_ahead, until

from swarm_tui.profiles import load
from swarm_tui.ui.app import Settings
from swarm_tui.ui.editor import Pad
from swarm_tui.ui.field import Field


async def test_letters_and_the_keys_between_them_keep_their_order(tmp_path: Path) -> None:
    app = make_app(make_fleet(), Settings(profiles=lambda: load(tmp_path).entries))
    async with running(app, (120, 40)) as pilot:
        await pilot.press("n")
        await until(pilot, lambda: "New agents" in seen(app), "the form")
        type_ahead(app, "tab", *"sorx", "backspace", "t", "tab")
        type_ahead(app, "backspace", "3", "tab", *"fiz", "backspace", "g", "tab", "tab", *"a=b")
        await until(pilot, lambda: app.screen.query_one("#labels", Field).value == "a=b", "labels")
        assert app.screen.query_one("#task", Pad).text == "sort"
        assert app.screen.query_one("#count", Field).value == "3"
        assert app.screen.query_one("#name", Field).value == "fig"


async def test_keys_are_not_lost_with_the_field_that_one_of_them_takes_away() -> None:
    app = make_app(make_fleet(), Settings())
    async with running(app) as pilot:
        before = seen(app)
        type_ahead(app, "slash", *"fig", "enter", "escape", "question_mark")
        await until(pilot, lambda: "Keys" in seen(app), "the help")
        type_ahead(app, "escape", "slash", "escape")
        await until(pilot, lambda: seen(app) == before, "the fleet as it was")
