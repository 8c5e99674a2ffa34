"""Calling a person when agents begin to wait: once, for all that begin together."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from unittest.mock import patch

import pytest
from stand_in import StandInSupervisor, make_app, make_fleet, running, seen, until
from terminal import Terminal
from textual import events

from swarm_tui.fact import VmGone
from swarm_tui.model import EventKind, HostState, Power
from swarm_tui.ui.notice import GATHER_S, LULL_S, REST_S, SETTLE_S, USUAL, How, Notices
from swarm_tui.ui.waiting import WaitingScreen

needs_tmux = pytest.mark.skipif(not shutil.which("tmux"), reason="tmux is not installed")


class Desk:
    """A person's desk: a swarm, and what its terminal is told."""

    def __init__(
        self,
        how: How = "desktop",
        environ: Mapping[str, str] | None = None,
        topics: Collection[str] = USUAL,
    ) -> None:
        self.swarm = StandInSupervisor()
        self.swarm.add_host()
        self.sees_queue = False
        self.notices = Notices(
            how, environ or {}, self.swarm.clock.now(), topics, lambda: self.sees_queue
        )

    def add(self, *names: str) -> None:
        for name in names:
            self.swarm.add(name)

    def ask(self, name: str, text: str = "why", *, before_s: float = 0.0) -> None:
        at = self.swarm.clock.now() - before_s
        self.swarm.hear(self.swarm.named(name).id, EventKind.ASK, text, at=at)

    def answer(self, name: str) -> None:
        self.swarm.hear(self.swarm.named(name).id, EventKind.STATUS, "answered: approve")

    def told(self, after_s: float = 0.0) -> str:
        """What is written to the terminal by now."""
        clock, store = self.swarm.clock, self.swarm.store
        for agent in store.take_dirty():
            self.notices.hear(agent, store.agent(agent), clock.now(), clock.monotonic())
        if store.take_hosts_changed():
            self.notices.hear_hosts(store.hosts(), clock.now(), clock.monotonic())
        clock.pass_by(after_s)
        notice = self.notices.take(clock.monotonic())
        return notice.terminal if notice else ""


@pytest.fixture
def desk() -> Desk:
    desk = Desk()
    desk.add("ember", "moss", "fern")
    desk.told(SETTLE_S)
    return desk


def test_one_that_asks_rings_once(desk: Desk) -> None:
    desk.ask("moss", "review: 3 files changed")
    assert desk.told() == "", "others may follow at once"
    told = desk.told(GATHER_S)
    assert told == "\x07\x1b]777;notify;swarm-tui;Agent moss asks: review: 3 files changed\x07"
    assert desk.told(REST_S) == ""


def test_several_together_are_told_together(desk: Desk) -> None:
    for name in ("ember", "moss", "fern"):
        desk.ask(name)
        assert desk.told(GATHER_S / 4) == ""
    told = desk.told(GATHER_S)
    assert told.count("\x07") == 2, "one bell, and one end of one notification"
    assert "3 agents ask for review: ember, moss, fern\x07" in told


def test_of_many_some_are_named() -> None:
    desk = Desk()
    desk.add(*(f"agent-{number}" for number in range(40)))
    desk.told(SETTLE_S)
    for number in range(40):
        desk.ask(f"agent-{number}")
    desk.told()
    told = desk.told(GATHER_S)
    assert "40 agents ask for review" in told
    assert "and 35 more" in told
    assert len(told) < 250


def test_the_same_ask_is_told_once_whatever_happens_to_its_host(desk: Desk) -> None:
    desk.ask("moss")
    assert not desk.told()
    assert desk.told(GATHER_S)
    desk.swarm.add_host("local", HostState.DOWN, detail="no route to host")
    desk.told(REST_S)
    desk.swarm.add_host("local")
    desk.swarm.set_power(desk.swarm.named("moss"), Power.PAUSED)
    desk.told(REST_S)
    desk.swarm.set_power(desk.swarm.named("moss"), Power.RUNNING)
    desk.told(REST_S)
    assert desk.told(REST_S) == ""


def test_the_next_ask_is_news_but_not_at_any_rate(desk: Desk) -> None:
    desk.ask("moss", "first")
    desk.told()
    assert "first" in desk.told(GATHER_S)
    for number in range(20):
        desk.ask("moss", f"again {number}")
        assert desk.told(REST_S / 40) == ""
    assert "again 19" in desk.told(REST_S)


def test_who_was_answered_before_it_was_told_is_not_told(desk: Desk) -> None:
    desk.ask("moss")
    desk.told()
    desk.answer("moss")
    assert desk.told(GATHER_S) == ""
    assert desk.told(GATHER_S) == ""


def test_who_has_gone_is_not_told(desk: Desk) -> None:
    desk.ask("moss")
    desk.told()
    desk.swarm.apply(VmGone(desk.swarm.named("moss").id, 1000))
    assert desk.told(GATHER_S) == ""


def test_what_was_asked_before_the_start_is_no_news() -> None:
    desk = Desk()
    desk.add("ember", "moss")
    desk.ask("ember", before_s=300)
    assert desk.told(GATHER_S) == ""
    desk.ask("moss")
    desk.told()
    told = desk.told(GATHER_S)
    assert "moss" in told
    assert "ember" not in told


def test_a_late_guest_with_a_slow_clock_is_heard_all_the_same(desk: Desk) -> None:
    desk.ask("moss", before_s=3600)
    desk.told()
    assert "moss" in desk.told(GATHER_S)


@pytest.mark.parametrize(("how", "expected"), [("bell", "\x07"), ("off", "")])
def test_it_can_be_kept_down(how: How, expected: str) -> None:
    desk = Desk(how)
    desk.add("moss")
    desk.told(SETTLE_S)
    desk.ask("moss")
    desk.told()
    assert desk.told(GATHER_S) == expected


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"TERM": "xterm-kitty"}, "\x1b]777;notify;swarm-tui;Agent moss asks: why\x07"),
        ({"TERM_PROGRAM": "iTerm.app"}, "\x1b]9;Agent moss asks: why\x07"),
        ({"LC_TERMINAL": "iTerm2"}, "\x1b]9;Agent moss asks: why\x07"),
        (
            {"TMUX": "/tmp/t,1,0", "TERM_PROGRAM": "tmux"},
            "\x1bPtmux;\x1b\x1b]777;notify;swarm-tui;Agent moss asks: why\x07\x1b\\",
        ),
    ],
    ids=["most", "iTerm2", "iTerm2 elsewhere", "tmux"],
)
def test_the_terminal_is_told_in_its_own_way(environ: dict[str, str], expected: str) -> None:
    desk = Desk(environ=environ)
    desk.add("moss")
    desk.told(SETTLE_S)
    desk.ask("moss")
    desk.told()
    assert desk.told(GATHER_S) == "\x07" + expected


@pytest.mark.parametrize(
    "text",
    [
        "a;b;c",
        "x\x07\x1b]52;c;ZXZpbA==\x07",
        "\x9c\x9d0;t",
        "<img src=http://evil/>&amp;",
        "\u202egnp",
        "y\n" * 50,
        "z" * 5000,
    ],
)
def test_a_guest_gets_nothing_but_words_out(desk: Desk, text: str) -> None:
    desk.ask("moss", text)
    desk.told()
    told = desk.told(GATHER_S)
    body = re.fullmatch("\x07\x1b]777;notify;swarm-tui;(Agent moss asks: [^\x07]*)\x07", told)
    assert body
    assert not set(body[1]) & set(map(chr, [*range(32), *range(127, 160), *map(ord, ";<>&\u202e")]))
    assert len(body[1]) <= 160


def test_a_failure_is_told_and_what_is_done_only_if_wanted(desk: Desk) -> None:
    desk.swarm.set_power(desk.swarm.named("moss"), Power.CRASHED)
    desk.swarm.hear(desk.swarm.named("fern").id, EventKind.DONE, "all of it")
    desk.told()
    assert "Agent moss failed: the guest crashed\x07" in desk.told(GATHER_S)
    assert desk.told(REST_S) == ""
    wanting = Desk(topics=("done",))
    wanting.add("fern", "moss")
    wanting.told(SETTLE_S)
    wanting.swarm.hear(wanting.swarm.named("fern").id, EventKind.DONE, "all of it")
    wanting.ask("moss")
    wanting.told()
    assert "Agent fern is done: all of it\x07" in wanting.told(GATHER_S)


def test_what_had_failed_before_is_no_news() -> None:
    desk = Desk()
    desk.swarm.add("moss", power=Power.CRASHED)
    desk.told(SETTLE_S)
    assert desk.told(GATHER_S) == ""


def test_a_host_is_told_of_when_it_is_lost_and_not_when_it_never_was_there(desk: Desk) -> None:
    desk.swarm.add_host("attic", HostState.DOWN, detail="no route")
    desk.told()
    assert desk.told(GATHER_S) == ""
    desk.swarm.add_host("local", HostState.DOWN, detail="connection reset")
    desk.told()
    assert "Host local is out of reach: connection reset\x07" in desk.told(GATHER_S)


def test_different_things_are_counted_in_one_line(desk: Desk) -> None:
    desk.ask("moss")
    desk.ask("ember")
    desk.swarm.set_power(desk.swarm.named("fern"), Power.CRASHED)
    desk.told()
    told = desk.told(GATHER_S)
    assert "swarm-tui;2 ask, 1 failed: " in told
    assert all(name in told for name in ("moss", "ember", "fern"))


def test_however_much_happens_it_is_told_at_a_bounded_rate(desk: Desk) -> None:
    told = 0
    for number in range(100):
        desk.add(f"agent-{number}")
        desk.told()
        desk.ask(f"agent-{number}")
        told += bool(desk.told(0.5))
    assert told <= 100 * 0.5 / LULL_S + 1


def test_who_sees_the_queue_is_not_called(desk: Desk) -> None:
    desk.sees_queue = True
    desk.ask("moss")
    desk.told()
    assert desk.told(GATHER_S) == ""
    desk.sees_queue = False
    assert desk.told(REST_S) == "", "it was seen"
    desk.ask("ember")
    desk.told()
    assert "ember" in desk.told(GATHER_S)


async def test_the_queue_is_known_to_be_seen_only_where_the_terminal_tells_its_focus() -> None:
    swarm = make_fleet()
    app = make_app(swarm)
    async with running(app) as pilot:
        await pilot.press("W")
        await until(pilot, lambda: isinstance(app.screen, WaitingScreen), "the queue")
        assert not app._sees_queue()
        app.post_message(events.AppFocus())
        await until(pilot, app._sees_queue, "the focus")
        app.post_message(events.AppBlur())
        await until(pilot, lambda: not app._sees_queue(), "the blur")
        app.post_message(events.AppFocus())
        await pilot.press("escape")
        assert not app._sees_queue()


async def test_the_app_calls_when_an_agent_begins_to_wait() -> None:
    swarm = make_fleet()
    app = make_app(swarm)
    with patch.object(app, "_write_terminal") as write:
        async with running(app) as pilot:
            swarm.clock.pass_by(SETTLE_S)
            swarm.hear(swarm.named("ember").id, EventKind.ASK, "which name?")
            await until(pilot, lambda: "3 asking" in seen(app), "the new state")

            def written() -> list[str]:
                return [str(call.args[0]) for call in write.call_args_list]

            assert not [text for text in written() if "777" in text]
            swarm.clock.pass_by(GATHER_S)
            await until(pilot, lambda: any("777" in text for text in written()), "the call")
            (call,) = [text for text in written() if "777" in text]
            assert "Agent ember asks: which name?" in call
            assert any("\x1b]0;3 ask · 1 failed · 1 host" in text for text in written())
            # Those who asked before are on the screen, and that is all.
            assert not [text for text in written() if "moss" in text or "fern" in text]


# In a real terminal

CHILD = """
import asyncio, sys
sys.path.insert(0, {here!r})
from stand_in import EventKind, make_app, make_fleet
swarm = make_fleet()
async def main():
    app = make_app(swarm)
    async def go_on():
        while not app.is_running:
            await asyncio.sleep(0.02)
        swarm.clock.pass_by(10)
        for name in ("ember", "juniper"):
            swarm.hear(swarm.named(name).id, EventKind.ASK, "why")
        while True:
            await asyncio.sleep(0.02)
            swarm.clock.pass_by(0.02)
    going_on = asyncio.create_task(go_on())
    await app.run_async()
    going_on.cancel()
asyncio.run(main())
"""
CALL = b"\x07\x1b]777;notify;swarm-tui;2 agents ask for review: ember, juniper\x07"


def child() -> list[str]:
    code = CHILD.format(here=str(Path(__file__).parent))
    return [sys.executable, "-W", "ignore", "-c", code]


def test_a_terminal_hears_it() -> None:
    terminal = Terminal(child())
    try:
        terminal.until(lambda heard: CALL in heard)
        terminal.type(b"q")
        terminal.until(lambda heard: b"\x1b[?1049l" in heard)
    finally:
        terminal.end()


class Tmux:
    """A tmux server of our own, with a window that is in front."""

    def __init__(self, folder: Path) -> None:
        self.command = ["tmux", "-S", str(folder / "tmux"), "-f", "/dev/null"]
        self.run("new-session", "-d", "-s", "work", "sleep 600")

    def run(self, *words: str) -> str:
        command = [*self.command, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    server = Tmux(tmp_path)
    yield server
    server.run("kill-server")


@needs_tmux
def test_tmux_flags_the_window(tmux: Tmux) -> None:
    tmux.run("new-window", "-d", "-t", "work", "-n", "swarm", *child())
    deadline = time.monotonic() + 10
    while tmux.run("display", "-p", "-t", "work:swarm", "#{window_bell_flag}") != "1":
        assert time.monotonic() < deadline, tmux.run("capture-pane", "-p", "-t", "work:swarm")
        time.sleep(0.05)


@needs_tmux
def test_tmux_hands_on_the_notification(tmux: Tmux) -> None:
    tmux.run("set", "-g", "allow-passthrough", "on")
    outer = Terminal([shutil.which("tmux") or "", *tmux.command[1:], "attach", "-t", "work"])
    try:
        outer.until(lambda heard: b"[work]" in heard)
        tmux.run("new-window", "-t", "work", *child())
        outer.until(lambda heard: CALL[1:] in heard)
    finally:
        outer.end()
