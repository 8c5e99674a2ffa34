"""Opening a shell: in a tmux window beside us, else in our terminal while the app stands aside."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from textual.app import App, SuspendNotSupported

from swarm_tui.errors import SetupError, Unsupported

_PASSED_ON: Final = ("SWARM_TUI_", "XDG_", "LIBVIRT_")
"""Variables that a tmux server, which has an environment of its own, would not give the shell."""


def is_in_tmux(environ: Mapping[str, str]) -> bool:
    return bool(environ.get("TMUX"))


def tmux_command(argv: Sequence[str], name: str, environ: Mapping[str, str]) -> list[str]:
    """The command that opens a window running `argv`, without any shell in between.

    tmux expands formats in a window's name, among them `#(command)`: only plain characters of
    `name` are taken.
    """
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[:30] or "agent"
    passed = [
        word
        for key in sorted(environ)
        if key.startswith(_PASSED_ON)
        for word in ("-e", f"{key}={environ[key]}")
    ]
    words = ["-n", plain, *passed, "--", *argv]
    # A word that ends with a semicolon would end the command for tmux.
    return ["tmux", "new-window", *(re.sub(r";$", r"\;", word) for word in words)]


async def open_window(argv: Sequence[str], name: str, environ: Mapping[str, str]) -> None:
    """Open a tmux window that runs `argv`; returns when it is open. Raises SetupError."""
    command = tmux_command(argv, name, environ)
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            env=environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except OSError as error:
        raise SetupError(
            "tmux cannot be started",
            str(error),
            "Leave tmux, or unset TMUX: then the shell opens in this terminal.",
        ) from error
    output, _ = await process.communicate()
    if process.returncode:
        raise SetupError(
            "tmux opened no window",
            output.decode("utf-8", "replace").strip(),
            "Is this still the tmux session that TMUX names?",
        )


async def take_terminal(app: App[Any], argv: Sequence[str]) -> int:
    """Give the terminal to `argv` until it ends; the event loop goes on meanwhile.

    Returns its exit status. Raises SetupError when it cannot be started, and Unsupported where
    the terminal cannot be given away.
    """
    try:
        # Nothing may be drawn meanwhile: the thread that writes to the terminal is stopped, and
        # its queue would fill and block the event loop.
        with app.batch_update(), app.suspend(), _deaf_to_interrupts():
            try:
                process = await asyncio.create_subprocess_exec(*argv)
            except OSError as error:
                raise SetupError("The shell cannot be started", str(error)) from error
            status = await process.wait()
    except SuspendNotSupported as error:
        raise Unsupported(
            "This terminal cannot be given to a shell",
            hint="Run swarm-tui in tmux, or run `swarm-tui shell AGENT` in another terminal.",
        ) from error
    app.refresh(layout=True)
    return status


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Ctrl-C in the child's terminal is the child's: the terminal sends it to both of us.

    A handler is set instead of SIG_IGN, which the child would inherit.
    """
    was = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, was)
