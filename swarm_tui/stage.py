"""The app on this terminal, over a supervisor."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from swarm_tui.config import Loaded
from swarm_tui.errors import SwarmError
from swarm_tui.model import AgentId
from swarm_tui.supervisor import Supervisor

if TYPE_CHECKING:
    from swarm_tui.profiles import Entry


def run_app(
    supervisor: Supervisor,
    loaded: Loaded,
    shell_argv: Callable[[AgentId], list[str]],
    banner: str = "",
    view: str = "",
    more: Sequence[Entry] = (),
) -> int:
    """Show the screen until the person leaves; returns the exit code.

    `shell_argv` gives the command that joins a terminal to an agent's shell; `view` is the name of
    the one to begin with, and `more` are profiles besides those in files. Raises NotFound,
    ConfigError.
    """
    from swarm_tui import profiles, views

    gc.disable()  # until the app has started: nearly all that is made until then stays
    from swarm_tui.person import login
    from swarm_tui.ui.app import Settings, SwarmApp
    from swarm_tui.ui.glyphs import needs_plain
    from swarm_tui.ui.grid import View

    ui = loaded.config.ui
    is_plain = needs_plain(os.environ.get("TERM", "")) if ui.ascii == "auto" else ui.ascii == "yes"
    settings = Settings(
        theme=ui.theme,
        view=View(ui.view),
        themes=(ui.themes,),
        banner=banner,
        notify=ui.notify,
        notify_about=ui.notify_about,
        notify_command=ui.notify_command,
        is_plain=is_plain,
        person=login(),
        profiles=lambda: [*more, *profiles.load(loaded.paths.profiles).entries],
        find_image=partial(_find_image, loaded.paths.cache),
        views_file=loaded.paths.views,
        start=views.find(loaded.paths.views, view) if view else views.BUILT_IN[0],
    )

    async def run() -> int:
        async with supervisor:
            app = SwarmApp(supervisor, settings, shell_argv)
            for number in (signal.SIGTERM, signal.SIGHUP):
                # A closed terminal, say: verbs at work come to their end, and we leave in order.
                ended = partial(app.exit, return_code=128 + number)
                asyncio.get_running_loop().add_signal_handler(number, ended)
            try:
                await app.run_async()
            finally:
                app.leave_terminal()
            return app.return_code or 0

    return asyncio.run(run())


def _find_image(cache: Path, name: str) -> str:
    """Why it cannot be used; empty: it can."""
    from swarm_tui.local.image import find_image

    try:
        find_image(cache, name)
    except SwarmError as error:
        return f"{error.title}: {error.hint}"
    return ""
