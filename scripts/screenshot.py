"""Draw the app's screen as SVG while it runs on a real local swarm: screenshot.py TARGET."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from swarm_tui import demo, rehearsal
from swarm_tui.bootstrap import make_supervisor
from swarm_tui.command import Pause
from swarm_tui.config import load
from swarm_tui.model import State
from swarm_tui.ui.app import Settings, SwarmApp

SIZE = (118, 26)
LIFE_S = 40.0
"""How long the agents work before the picture is taken, so that its graphs show something."""


async def draw() -> str:
    """The screen as SVG, with one agent paused to a snapshot."""
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
                return app.export_screenshot(title="swarm-tui")
    finally:
        await demo.down(loaded, is_json=False)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(asyncio.run(draw()))
