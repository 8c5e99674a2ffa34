"""The app in a real terminal on real VMs: the day of a person who supervises."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .conftest import Swarm, names, wait_until
from .terminal import Terminal

pytestmark = pytest.mark.vm


@pytest.fixture
def screen(swarm: Swarm) -> Iterator[Terminal]:
    with Terminal(swarm.program, environ=swarm.environ) as terminal:
        for name in names(swarm.agents()):
            terminal.wait_for(name)
        yield terminal


def choose(terminal: Terminal, name: str) -> None:
    """Bring one agent under the cursor, alone on the screen."""
    terminal.press("/")
    terminal.type(name)
    terminal.press("Enter")
    terminal.wait_for(lambda screen: name in screen and screen.count("╭") + screen.count("┏") <= 1)


def test_pause_resume_shell_and_kill(swarm: Swarm, screen: Terminal) -> None:
    first, second, third = names(swarm.agents())
    before = swarm.counter(first)
    choose(screen, first)

    screen.press("p")
    screen.wait_for(lambda text: "saved" in text and "saving" not in text)
    wait_until(lambda: not swarm.vmm_processes(first), "its RAM is free")

    screen.press("u")
    screen.wait_for("running")
    assert swarm.counter(first) >= before
    after = swarm.counter(first)
    wait_until(lambda: swarm.counter(first) > after, "the counter goes on")

    screen.press("x")
    wait_until(lambda: screen.windows() == 2, "a window with a shell")
    screen.wait_for("$")
    screen.type("echo hello-$((40+2))")
    screen.press("Enter")
    screen.wait_for("hello-42")
    screen.type("exit")
    screen.press("Enter")
    wait_until(lambda: screen.windows() == 1, "the shell's window closes")
    screen.wait_for(first)

    screen.press("Escape")
    choose(screen, third)
    screen.press("K")
    screen.wait_for(third)
    screen.press("y")
    wait_until(lambda: third not in names(swarm.agents()), "the agent is gone")
    screen.press("Escape")
    screen.wait_for(lambda text: third not in text and second in text)

    screen.press("q")
    wait_until(lambda: screen.exit_status() == 0, "the app ends well")


def test_the_shell_outside_of_tmux_takes_the_terminal_and_gives_it_back(swarm: Swarm) -> None:
    name = names(swarm.agents())[0]
    with Terminal(["env", "-u", "TMUX", *swarm.program], environ=swarm.environ) as screen:
        screen.wait_for(name)
        choose(screen, name)
        screen.press("x")
        screen.wait_for("$")
        screen.type("stty size; sleep 100")
        screen.press("Enter")
        screen.wait_for("36 120")
        screen.press("C-c")
        screen.resize(100, 30)
        screen.type("stty size")
        screen.press("Enter")
        screen.wait_for("30 100")
        screen.type("exit 3")
        screen.press("Enter")
        screen.wait_for(lambda text: "running" in text and name in text)


def test_the_screen_is_usable_at_80_by_24(swarm: Swarm) -> None:
    name = names(swarm.agents())[0]
    with Terminal(swarm.program, columns=80, lines=24, environ=swarm.environ) as screen:
        screen.wait_for(name)
        screen.press("v")
        screen.wait_for(lambda text: "NAME" in text and name in text)
        screen.press("?")
        screen.wait_for("pause")
        screen.press("Escape")
        screen.press("Enter")
        screen.wait_for("log")
        screen.press("Escape")
        screen.wait_for("NAME")
