"""Giving a person a shell, in a tmux window or in our own terminal."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from stand_in import make_app, make_fleet, running, seen, until
from terminal import Terminal

from swarm_tui.errors import SetupError
from swarm_tui.ui.shell import open_window, tmux_command

needs_tmux = pytest.mark.skipif(not shutil.which("tmux"), reason="tmux is not installed")

NASTY = [
    "a b",
    "$(touch x)",
    "`id`",
    "'\"\\",
    "#(touch y)",
    "#{pane_id}",
    "",
    ";",
    "x;",
    "\\;",
    "-n",
    "é",
]


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a tmux server of our own."""
    socket = str(tmp_path / "tmux")
    start = ["tmux", "-S", socket, "-f", "/dev/null", "new-session", "-d", "-P", "-F"]
    told = subprocess.run(
        [*start, "#{socket_path},#{pid},0", "sleep 60"], check=True, capture_output=True, text=True
    )
    yield {**os.environ, "TMUX": told.stdout.strip()}
    subprocess.run(["tmux", "-S", socket, "kill-server"], check=True)


def read(file: Path) -> str:
    return file.read_text() if file.exists() else ""


async def appears(file: Path) -> str:
    """What is written to a file, within five seconds."""
    async with asyncio.timeout(5):
        while True:
            if text := read(file):
                return text
            await asyncio.sleep(0.02)


def window_names(tmux: dict[str, str]) -> str:
    command = ["tmux", "list-windows", "-F", "#{window_name}"]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=tmux).stdout


@needs_tmux
async def test_a_window_gets_every_argument_as_it_is(tmux: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = "import sys; open(sys.argv[1], 'w').write(repr(sys.argv[2:]))"
    await open_window([sys.executable, "-c", script, str(out), *NASTY], "ember", tmux)
    assert await appears(out) == repr(NASTY)


@needs_tmux
async def test_a_hostile_name_runs_nothing(tmux: dict[str, str], tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    out = tmp_path / "out"
    write = ["sh", "-c", 'echo here > "$1"; sleep 30', "sh", str(out)]
    await open_window(write, f"#(touch {trap}) %H", tmux)
    await appears(out)
    assert "#(" not in await asyncio.to_thread(window_names, tmux)
    assert not trap.exists()


@needs_tmux
async def test_our_settings_reach_the_window(tmux: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    environ = {**tmux, "SWARM_TUI_HOME": "/some where/#(id)", "SECRET": "no"}
    script = 'echo "$SWARM_TUI_HOME|$SECRET" > "$1"'
    await open_window(["sh", "-c", script, "sh", str(out)], "ember", environ)
    assert (await appears(out)).strip() == "/some where/#(id)|"


@needs_tmux
async def test_a_dead_tmux_is_told(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="tmux opened no window"):
        await open_window(["true"], "ember", {**os.environ, "TMUX": f"{tmp_path}/none,1,0"})


def test_the_name_of_a_window_is_plain() -> None:
    command = tmux_command(["x"], "#(id) é", {})
    assert command[:4] == ["tmux", "new-window", "-n", "-id-"]


async def test_where_the_terminal_cannot_be_given_away_the_key_says_so() -> None:
    app = make_app(make_fleet())
    async with running(app, (100, 40)) as pilot:
        await pilot.press("x")
        await until(pilot, lambda: "cannot be given to a shell" in seen(app), "the toast")


CHILD = """
import asyncio, sys, time
sys.path.insert(0, {here!r})
from stand_in import Clock, EventKind, make_app, make_fleet
swarm = make_fleet()
async def main():
    app = make_app(swarm, argv=["sh", "-c", {shell!r}])
    async def go_on():
        for beat in range(10_000):
            await asyncio.sleep(0.02)
            open({beats!r}, "w").write(str(beat))
            for agent in swarm.store.agents():
                swarm.hear(agent.id, EventKind.LOG, f"beat {{beat}}")
            swarm.clock.pass_by(0.02)
    beating = asyncio.create_task(go_on())
    await app.run_async()
    beating.cancel()
asyncio.run(main())
"""


@contextmanager
def app_in_a_terminal(folder: Path, shell: str) -> Iterator[tuple[Terminal, Path]]:
    """The app at work, whose shell runs `shell`; the file counts up while its event loop runs."""
    beats = folder / "beats"
    beats.write_text("0")
    child = CHILD.format(here=str(Path(__file__).parent), beats=str(beats), shell=shell)
    terminal = Terminal([sys.executable, "-W", "ignore", "-c", child])
    try:
        terminal.until(lambda heard: b"next try" in heard and b"\x1b]0;2 ask " in heard)
        yield terminal, beats
        terminal.type(b"q")
        terminal.until(lambda heard: b"\x1b[?1049l" in heard)
    finally:
        terminal.end()


def test_the_supervisor_goes_on_while_a_shell_has_the_terminal(tmp_path: Path) -> None:
    with app_in_a_terminal(tmp_path, "echo in-the-shell; cat") as (terminal, beats):
        terminal.type(b"x")
        terminal.until(lambda heard: b"in-the-shell" in heard)
        began = int(beats.read_text() or 0)
        # Far more frames than a stopped writer's queue would take.
        heard = terminal.until(lambda _: int(beats.read_text() or 0) > began + 80)
        assert b"\x1b[" not in heard.replace(b"in-the-shell", b"")
        terminal.type(b"typed\n")
        terminal.until(lambda heard: heard.count(b"typed") == 2)
        terminal.type(b"\x04")  # the end of the shell
        terminal.until(lambda heard: b"\x1b[?1049h" in heard and b"moss" in heard)


def test_a_shell_gives_the_terminal_back_at_once_whatever_its_status(tmp_path: Path) -> None:
    with app_in_a_terminal(tmp_path, "echo in-the-shell; exit 3") as (terminal, _):
        terminal.type(b"x")
        terminal.until(
            lambda heard: (
                b"\x1b[?1049h" in heard.partition(b"in-the-shell")[2]
                and b"moss" in heard.partition(b"in-the-shell")[2]
            )
        )
