"""Hostile text from guests, hosts and errors leaves no screen but as plain characters."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial

import pytest
from stand_in import Clock, StandInSupervisor, make_app, running, seen, until
from textual._compositor import LayoutUpdate

from swarm_tui.errors import SwarmError
from swarm_tui.fact import HostSeen
from swarm_tui.model import EventKind, HostName, HostState, Power
from swarm_tui.text import sanitize
from swarm_tui.ui.app import Settings, SwarmApp
from swarm_tui.ui.console import Transcript
from swarm_tui.ui.glyphs import PlainFilter, needs_plain, plain
from swarm_tui.ui.grid import View

CORPUS = (
    "\x1b]52;c;ZXZpbA==\x07",
    "\x1b]0;title\x1b\\",
    "\x9b31m\x9d8;;http://evil\x9c",
    "\x1b[2J\x1b[31;1mred\x1b[0m",
    "a\u202egnp.exe\u2066b\u2069",
    "zero\u200b\u200d\ufeffwidth",
    "[@click=app.bell]click[/] [bold red]loud[/bold red] [/] [",
    "$(reboot) `id` #(id)",
    "line\nbreak\r\ttab\x00\x08\x7f",
    "\U000e0041tags\ue000private",
    "日本語 é" + "\u0301" * 30,
)
FORBIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ue000-\uf8ff\U000e0000-\U000e007f]"
)
OUR_OWN = re.compile(r"\x1b\[[0-9;]*[mH]")
"""Colours and places: all that a frame may hold of escape sequences."""


def hostile_swarm() -> StandInSupervisor:
    swarm = StandInSupervisor(clock=Clock())
    swarm.add_host("local", missing={"save": CORPUS[6] + CORPUS[0]}, driver=CORPUS[2])
    for number in range(3):
        text = "".join(CORPUS[number::3])
        agent = swarm.add(text, task=text[::-1], reason=text, address=text, folder=text)
        kinds = list(EventKind)
        for kind in kinds:
            swarm.hear(agent, kind, text)
        swarm.hear(agent, kinds[number % len(kinds)], text)
        swarm.begin(agent, text)
    swarm.add_host("attic" + CORPUS[0] + CORPUS[6], HostState.DOWN, detail="".join(CORPUS))
    swarm.console_output = tuple(f"{text}\r\n".encode() for text in CORPUS)
    return swarm


def frame(app: SwarmApp) -> str:
    """What a full repaint would send to the terminal."""
    update = app.screen._compositor.render_update(full=True, screen_stack=app._background_screens)
    assert isinstance(update, LayoutUpdate)
    return update.render_segments(app.console)


def has_told(app: SwarmApp, count: int) -> bool:
    return len(app._notifications) >= count


def check(app: SwarmApp) -> None:
    sent = OUR_OWN.sub("", frame(app)).replace("\n", "")
    found = FORBIDDEN.search(sent)
    assert not found, repr(sent[max(0, found.start() - 40) : found.end() + 40])
    assert not FORBIDDEN.search(seen(app).replace("\n", ""))


@pytest.mark.parametrize("view", View)
async def test_the_fleet_is_safe(view: View) -> None:
    app = make_app(hostile_swarm(), Settings(view=view, banner=CORPUS[0] + CORPUS[6]))
    async with running(app, (200, 60)) as pilot:
        check(app)
        assert "[@click=app.bell]" in seen(app)  # literally, not as markup
        await pilot.press("g")
        check(app)
        await pilot.press("slash", *"click", "enter")
        check(app)


async def test_an_agent_is_safe() -> None:
    swarm = hostile_swarm()
    app = make_app(swarm)
    async with running(app, (200, 60)) as pilot:
        for number in range(3):
            await pilot.press(*["l"] * number, "enter")
            check(app)
            await pilot.press("escape", "home")
        await pilot.press("enter", "c")
        await until(pilot, lambda: "the console has closed" in seen(app), "the console")
        check(app)
        assert "␛]52;c;" in seen(app)


async def test_the_logs_of_all_are_safe() -> None:
    app = make_app(hostile_swarm())
    async with running(app, (200, 60)) as pilot:
        await pilot.press("a", "L")
        await until(pilot, lambda: "logs 3 agents" in seen(app), "the logs")
        check(app)
        assert "␛]52;c;" in seen(app)
        for keys in (("T",), ("slash", *"click|evil", "enter"), ("ampersand", *"[[]", "enter")):
            await pilot.press(*keys)
            check(app)


@pytest.mark.parametrize("size", [(80, 24), (200, 50)])
async def test_the_queue_is_safe(size: tuple[int, int]) -> None:
    swarm = hostile_swarm()
    for number, agent in enumerate(swarm.store.agents()):
        swarm.end(agent.id)
        swarm.hear(agent.id, EventKind.ASK, "".join(CORPUS[number::3]))
    app = make_app(swarm)
    async with running(app, size) as pilot:
        swarm.faults.append(SwarmError("".join(CORPUS), "".join(CORPUS)))
        await pilot.press("W")
        await until(pilot, lambda: "1 fault" in seen(app), "the fault")
        check(app)
        for _ in range(5):
            await pilot.press("j", "z", "Z")
            check(app)
        assert "␛]52;c;" in seen(app)


async def test_dialogs_and_toasts_are_safe() -> None:
    swarm = hostile_swarm()
    app = make_app(swarm)
    async with running(app, (120, 50)) as pilot:
        await pilot.press("K")  # refused: a verb is at work
        check(app)
        for agent in swarm.store.agents():
            swarm.end(agent.id)
        await until(pilot, lambda: "begins" not in seen(app), "the end of the verbs")
        for number in range(3):
            text = "".join(CORPUS[number::3])
            swarm.failure = SwarmError(text, text * 3, text)
            swarm.faults.append(swarm.failure)
            await until(pilot, partial(has_told, app, number + 1), "the toast")
            check(app)
            await pilot.press("e")
            check(app)
            await pilot.press("escape")
        swarm.faults.append(ValueError("".join(CORPUS)))
        await until(pilot, lambda: "A fault in swarm-tui itself" in seen(app), "the fault")
        check(app)
        await pilot.press("escape", "a", "K")
        await until(pilot, lambda: "Kill 3 agents?" in seen(app), "the question")
        check(app)
        await pilot.press("escape", "p")
        check(app)
        await pilot.press("question_mark")
        check(app)
        await pilot.press("escape", "colon")
        await until(pilot, lambda: "quick-pause" in seen(app), "the palette")
        check(app)


async def test_hosts_filters_and_what_failed_of_many_are_safe() -> None:
    swarm = hostile_swarm()
    host = swarm.store.host(HostName("local"))
    assert host
    every = sanitize("\n".join(CORPUS), lines="many")
    missing = {"cpus": CORPUS[0], "memory_free": CORPUS[6]}
    swarm.apply(HostSeen(replace(host, failure=every, failed_at=1.0, missing=missing)))
    app = make_app(swarm, Settings(view=View.TABLE))
    async with running(app, (120, 50)) as pilot:
        for keys in ("H", "end", "enter", "slash", "escape", "slash"):
            await pilot.press(keys)
            check(app)
        for text in ("host:", "name:", "label:", "owner:"):
            await pilot.press("ctrl+u", *text)
            check(app)
        await pilot.press("escape", "V", "s", "escape", "escape")
        check(app)
        for agent in swarm.store.agents():
            swarm.end(agent.id)
        await until(pilot, lambda: "begins" not in seen(app), "the end of the verbs")
        swarm.failure = SwarmError("".join(CORPUS), "\n".join(CORPUS), CORPUS[0])
        await pilot.press("a", "K")
        check(app)
        await pilot.press("3", "enter")
        await until(pilot, lambda: "3 failed" in seen(app), "the outcome")
        await pilot.press("J")
        check(app)


async def test_hostile_text_cannot_be_pasted_into_a_field() -> None:
    app = make_app(hostile_swarm())
    async with running(app) as pilot:
        await pilot.press("slash")
        for text in CORPUS:
            app.screen.query_one("#filter").insert_text_at_cursor(text)  # type: ignore[attr-defined]
            check(app)


def test_a_console_shows_controls_and_drops_only_whole_colours() -> None:
    transcript = Transcript()
    assert transcript.feed(b"\x1b[1;32mok\x1b[0m \x1b]0;x\x07\r\n") == ["ok ␛]0;x␇"]
    assert transcript.feed(b"10%\r100%\r\n") == ["100%"]
    assert transcript.feed(b"\xe2\x82") == []
    assert transcript.feed(b"\xac login: ") == []
    assert transcript.unfinished == "€ login: "
    nested = transcript.feed(b"\x1b\x1b[0m[31mred\n")
    assert nested == ["€ login: ␛[31mred"]
    flood = transcript.feed(b"x" * 100_000)
    assert len(flood) == 1
    assert len(flood[0]) <= 4096


# Terminals without UTF-8, and without colours


async def test_a_plain_terminal_gets_ascii_only() -> None:
    swarm = hostile_swarm()
    app = make_app(swarm, Settings(is_plain=True))
    async with running(app, (120, 50)) as pilot:
        for keys in ((), ("v",), ("enter",), ("escape", "question_mark"), ("escape", "n")):
            await pilot.press(*keys)
            assert frame(app).isascii()


async def test_without_colours_states_differ_by_sign_and_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    swarm = StandInSupervisor()
    swarm.add_host()
    swarm.add("one")
    swarm.add("two", power=Power.PAUSED)
    app = make_app(swarm, Settings(view=View.TABLE))
    async with running(app) as pilot:
        await pilot.pause()
        drawn = [segment for strip in app.screen._compositor.render_strips() for segment in strip]
        colours = {segment.style.color for segment in drawn if segment.style}
        shades = {colour.triplet for colour in colours if colour and colour.triplet}
        assert len(shades) > 1
        assert all(shade.red == shade.green == shade.blue for shade in shades)
        assert "● one" in seen(app)
        assert "◫ two" in seen(app)
        assert "running" in seen(app)
        assert "paused" in seen(app)


def test_signs_keep_their_width_in_ascii() -> None:
    assert plain("日本") == "????"
    assert plain("●◆╭─▁█") == "*!+-_#"
    assert isinstance(PlainFilter().enabled, bool)


@pytest.mark.parametrize(("terminal", "is_needed"), [("xterm-256color", False), ("linux", True)])
def test_a_bare_console_needs_ascii(
    terminal: str, is_needed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("locale.getencoding", lambda: "UTF-8")
    assert needs_plain(terminal) is is_needed


def test_another_encoding_needs_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("locale.getencoding", lambda: "ISO-8859-1")
    assert needs_plain("xterm-256color")
