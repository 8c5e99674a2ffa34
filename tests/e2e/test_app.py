"""The app in a real terminal on real VMs: the day of a person who supervises."""

from __future__ import annotations

import re
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
    # In the first line and on its tile: the filter's own, which would take the next key, is gone.
    terminal.wait_for(
        lambda screen: screen.count(name) == 2 and screen.count("╭") + screen.count("┏") <= 1
    )


def show_all(terminal: Terminal, chosen: str) -> None:
    """Leave the filter, and wait until it is left: a key right after Escape would be Alt."""
    terminal.press("Escape")
    terminal.wait_for(lambda text: f"/{chosen}" not in text)


def says_yes(terminal: Terminal) -> bool:
    terminal.press("y")
    return "leave it" not in terminal.screen()


def state_of(text: str) -> str | None:
    """The state on the chosen agent's tile."""
    found = re.search(r"^┃ (\w+)", text, re.MULTILINE)
    return found[1] if found else None


def test_pause_resume_shell_and_kill(swarm: Swarm, screen: Terminal) -> None:
    first, second, *_ = names(swarm.agents())
    third = swarm.json("spawn")["agents"][0]["name"]
    before = swarm.counter(first)
    choose(screen, first)

    screen.press("p")
    screen.wait_for(lambda text: state_of(text) == "saved" and "pause:" not in text)
    wait_until(lambda: not swarm.vmm_processes(first), "its RAM is free")

    screen.press("u")
    screen.wait_for(lambda text: state_of(text) in ("running", "asking"))
    swarm.goes_on(first, before)

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

    show_all(screen, first)
    choose(screen, third)
    screen.press("K")
    screen.wait_for(f"Kill {third}?")
    # A yes that comes before the question could be read is no answer; a person gives it again.
    wait_until(lambda: says_yes(screen), "the question is answered")
    wait_until(lambda: third not in names(swarm.agents()), "the agent is gone")
    show_all(screen, third)
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
        screen.type("stty size; sleep 86399")
        screen.press("Enter")
        screen.wait_for("36 120")
        # bash may miss a Ctrl-C that comes before its child runs.
        listing = ("shell", name, "--", "ps")
        wait_until(lambda: "sleep 86399" in swarm.run(*listing).stdout, "the command runs")
        screen.press("C-c")
        screen.wait_for(lambda text: text.rstrip().endswith("$"))
        screen.resize(100, 30)
        screen.type("stty size")
        screen.press("Enter")
        screen.wait_for("30 100")
        screen.type("exit 3")
        screen.press("Enter")
        screen.wait_for(lambda text: state_of(text) is not None and name in text)


def tiles(screen: str) -> list[tuple[str, str]]:
    """Glyph and name of each agent on the screen, in its order."""
    return re.findall(r"[╭┏][─━] (\S) (\S+) ", screen)


def test_who_asks_stands_before_the_others_and_w_goes_there(swarm: Swarm, idle: str) -> None:
    def stands_first(screen: str) -> bool:
        glyphs = [glyph for glyph, _ in tiles(screen)]
        return ("◆", idle) in tiles(screen) and "◆" not in glyphs[glyphs.count("◆") :]

    def goes_there() -> bool:
        terminal.press("w")
        return f"┏━ ◆ {idle} " in terminal.screen()

    def age_counts() -> bool:
        ages.update(re.findall(rf"◆ {idle} [─━]+ (\w+) ", terminal.screen()))
        return len(ages) > 1

    ages: set[str] = set()
    with Terminal(swarm.program, environ=swarm.environ) as terminal:
        terminal.wait_for(idle)
        ask = "swarm ask review 'please look' </dev/null >/dev/null 2>&1 &"
        assert swarm.run("shell", idle, "--", ask).returncode == 0
        terminal.wait_for("please look")
        terminal.wait_for(stands_first)
        wait_until(goes_there, "the cursor is on it")
        wait_until(age_counts, "its age counts")
        swarm.json("message", idle, "not yet")  # no verdict: it goes on asking
        terminal.wait_for(stands_first)


def test_the_screen_is_usable_at_80_by_24(swarm: Swarm) -> None:
    name = names(swarm.agents())[0]
    with Terminal(swarm.program, columns=80, lines=24, environ=swarm.environ) as screen:
        screen.wait_for(name)
        screen.press("v")
        screen.wait_for(lambda text: "NAME" in text and name in text)
        screen.press("?")
        screen.wait_for("Keys of swarm-tui")
        screen.press("Escape")
        # Until it is closed: a key right after Escape would be Alt.
        screen.wait_for(lambda text: "Keys of swarm-tui" not in text)
        screen.press("Enter")
        screen.wait_for(lambda text: "─ log ─" in text and "NAME" not in text)
        screen.press("Escape")
        screen.wait_for(lambda text: "NAME" in text and name in text)
