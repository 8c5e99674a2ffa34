"""Draw the app's screens as SVG while it runs on a real local swarm: screenshot.py FOLDER."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from textual.pilot import Pilot

from swarm_tui import demo, rehearsal
from swarm_tui.bootstrap import make_supervisor
from swarm_tui.command import Pause
from swarm_tui.config import load
from swarm_tui.model import State
from swarm_tui.supervisor import Supervisor
from swarm_tui.ui.app import Settings, SwarmApp
from swarm_tui.ui.review import ReviewScreen

SIZE = (118, 26)
REVIEW_SIZE = (150, 34)
REVIEW_S = 30.0
LIFE_S = 40.0
"""How long the agents work before the picture is taken, so that its graphs show something."""


async def draw(folder: Path) -> None:
    """The fleet, with one agent paused to a snapshot, and the review of one that asks."""
    loaded = rehearsal.apart(load(overrides={"local.agents": 4}))
    try:
        await demo.up(loaded, is_json=False)
        async with make_supervisor(loaded) as supervisor:
            await supervisor.connected(demo.CONNECT_S)
            app = SwarmApp(supervisor, Settings(), lambda agent: [])
            async with app.run_test(size=SIZE) as pilot:
                deadline = time.monotonic() + LIFE_S
                while time.monotonic() < deadline and not any(
                    agent.state is State.ASKING for agent in supervisor.store.agents()
                ):
                    await pilot.pause(0.2)
                running = [a for a in supervisor.store.agents() if a.state is State.RUNNING]
                await supervisor.do(Pause(running[-1].id))
                await pilot.pause(8)
                save(app, folder / "fleet.svg")
                await pilot.resize_terminal(*REVIEW_SIZE)
                await pilot.press("w", "r")
                await review(app, supervisor, pilot)
                save(app, folder / "review.svg")
    finally:
        await demo.down(loaded, is_json=False)


async def review(app: SwarmApp, supervisor: Supervisor, pilot: Pilot[int]) -> None:
    """Wait for the review, and comment on the first line that was added."""
    deadline = time.monotonic() + REVIEW_S
    while not isinstance(app.screen, ReviewScreen):
        assert time.monotonic() < deadline, "no review came up"
        await pilot.pause(0.2)
    await pilot.press("J", "space", "down", "down", "c")
    for character in "Say which definition: there are two.":
        await pilot.press("space" if character == " " else character)
    await pilot.press("ctrl+s")
    await pilot.pause(2)


def save(app: SwarmApp, target: Path) -> None:
    target.write_text(app.export_screenshot(title="swarm-tui"))


if __name__ == "__main__":
    asyncio.run(draw(Path(sys.argv[1])))
