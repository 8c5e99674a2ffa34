"""What is closed is forgotten."""

from __future__ import annotations

import gc
import weakref

from stand_in import make_app, make_fleet, running, until

from swarm_tui.ui.waiting import WaitingScreen


async def test_what_a_closed_screen_had_drawn_is_forgotten() -> None:
    app = make_app(make_fleet())
    async with running(app) as pilot:
        await pilot.press("W")
        await until(pilot, lambda: isinstance(app.screen, WaitingScreen), "the queue")
        drawn = weakref.ref(app.screen._styles_cache)
        await pilot.press("escape")

        def is_forgotten() -> bool:
            gc.collect()
            return drawn() is None

        await until(pilot, is_forgotten, "its end")
