"""One agent's screen: log, search, details, console."""

from __future__ import annotations

from stand_in import StandInSupervisor, make_app, make_fleet, running, seen, type_ahead, until

from swarm_tui.errors import HostUnreachable
from swarm_tui.fact import LinkChanged, VmGone
from swarm_tui.model import EventKind, Link
from swarm_tui.store import LOG_EVENTS
from swarm_tui.ui.agent import AgentScreen
from swarm_tui.ui.app import SwarmApp
from swarm_tui.ui.lines import Lines
from swarm_tui.ui.screen import top


def one_agent(lines: int = 0) -> StandInSupervisor:
    swarm = StandInSupervisor()
    swarm.add_host()
    agent = swarm.add("ember", task="make it fast")
    for number in range(lines):
        swarm.hear(agent, EventKind.LOG, f"line {number}")
    return swarm


def log(app: SwarmApp) -> Lines:
    screen = top(app)
    assert isinstance(screen, AgentScreen)
    return screen.query_one("#log", Lines)


async def test_kinds_of_events_stand_apart() -> None:
    swarm = one_agent()
    ember = swarm.named("ember").id
    for kind in EventKind:
        swarm.hear(ember, kind, f"this is {kind}")
    app = make_app(swarm)
    async with running(app, (100, 30)) as pilot:
        await pilot.press("enter")
        await until(pilot, lambda: "this is other" in seen(app), "the log")
        rows = seen(app).splitlines()
        for sign, said in (("▸", "status"), ("$", "tool"), ("◆", "ask"), ("✓", "done")):
            assert any(f"13:00:00 {sign} this is {said}" in row for row in rows)
        assert any("Σ 0 tokens in, 0 out" in row for row in rows)


async def test_the_log_is_followed_until_one_scrolls_up_and_again_at_the_end() -> None:
    swarm = one_agent(100)
    ember = swarm.named("ember").id
    app = make_app(swarm)
    async with running(app) as pilot:
        await pilot.press("enter")
        await until(pilot, lambda: "line 99" in seen(app), "the end of the log")
        await pilot.press("k", "k")
        assert "2 below, s: follow" in seen(app)
        swarm.hear(ember, EventKind.LOG, "line 100")
        await until(pilot, lambda: "3 below" in seen(app), "the count of what is below")
        assert "line 97" in seen(app)
        assert "line 98" not in seen(app)
        await pilot.press("s")
        assert "line 100" in seen(app)
        assert "following" in seen(app)
        await pilot.press("home", "end")
        assert log(app).is_following


async def test_what_is_read_stays_in_place_when_old_lines_go() -> None:
    swarm = one_agent(LOG_EVENTS)
    ember = swarm.named("ember").id
    app = make_app(swarm)
    async with running(app) as pilot:
        await pilot.press("enter")
        await until(pilot, lambda: f"line {LOG_EVENTS - 1}" in seen(app), "the log")
        await pilot.press("pageup", "pageup", "pageup")
        first = next(row for row in seen(app).splitlines() if " line " in row)
        for number in range(5):
            swarm.hear(ember, EventKind.LOG, f"fresh {number}")
        await until(pilot, lambda: log(app).count == LOG_EVENTS, "the fresh lines")
        await until(
            pilot,
            lambda: first == next(row for row in seen(app).splitlines() if " line " in row),
            "the same first line",
        )


async def test_what_is_not_kept_is_counted() -> None:
    swarm = one_agent(LOG_EVENTS + 1234)
    app = make_app(swarm)
    async with running(app) as pilot:
        await pilot.press("enter", "home")
        await until(pilot, lambda: "1,234 earlier events not kept" in seen(app), "the count")
        assert "line 1234" in seen(app)
        assert "2,000 lines" in seen(app)


async def test_long_lines_are_wrapped_whole() -> None:
    swarm = one_agent()
    words = " ".join(f"word{number}" for number in range(60))
    swarm.hear(swarm.named("ember").id, EventKind.LOG, words)
    app = make_app(swarm)
    async with running(app) as pilot:
        await pilot.press("enter")
        await until(
            pilot, lambda: all(word in seen(app) for word in words.split()), "the whole line"
        )


async def test_searching_finds_marks_and_goes_round() -> None:
    swarm = one_agent(300)
    app = make_app(swarm)
    async with running(app) as pilot:
        await pilot.press("enter", "slash", *"line 12", "enter")
        await until(pilot, lambda: "/line 12 11 matches" in seen(app), "the count")
        assert "line 129" in seen(app)
        await pilot.press("n")
        assert "line 12" in seen(app)
        await pilot.press("N")
        assert "line 129" in seen(app)
        marked = [
            segment.text
            for y in range(log(app).size.height)
            for segment in log(app).render_line(y)
            if segment.style == log(app).ink.match
        ]
        assert marked
        assert set(marked) == {"line 12"}
        await pilot.press("escape")
        assert "matches" not in seen(app)
        assert len(app.screen_stack) == 3


async def test_searching_for_what_is_not_there_says_so() -> None:
    app = make_app(one_agent(3))
    async with running(app) as pilot:
        await pilot.press("enter", "n")
        assert "/ searches" in seen(app)
        await pilot.press("slash", *"zebra", "enter")
        assert "not found" in seen(app)


async def test_details_tell_each_number_with_its_source() -> None:
    swarm = make_fleet()
    app = make_app(swarm)
    async with running(app, (80, 50)) as pilot:
        await pilot.press("w", "enter", "i")
        await until(pilot, lambda: "guest balloon" in seen(app), "the details")
        text = " ".join(seen(app).split())
        assert "fern" in text
        assert "owner hanne" in text
        assert "QEMU 7.2.22" in text
        assert "agent@127.0.0.1:2208 link up" in text
        assert "cpu 148% libvirt cpu.time" in text
        await pilot.press("i")
        await until(pilot, lambda: "─ log" in seen(app), "the log again")


async def test_on_a_wide_screen_details_stand_beside_the_log() -> None:
    app = make_app(make_fleet())
    async with running(app, (140, 40)) as pilot:
        await pilot.press("enter")
        await until(pilot, lambda: "guest balloon" in seen(app), "the details")
        assert "─ log" in seen(app)
        await pilot.press("l")
        await until(pilot, lambda: "guest balloon" not in seen(app), "the log alone")


async def test_the_console_is_read_and_its_end_is_said() -> None:
    swarm = one_agent()
    swarm.console_output = (b"[0.1] booting\r\n\x1b[32m OK \x1b[0m ss", b"hd\r\nlog", b"in: ")
    app = make_app(swarm)
    async with running(app) as pilot:
        await pilot.press("enter", "c")
        await until(pilot, lambda: "the console has closed" in seen(app), "the end")
        assert "serial console, read only" in seen(app)
        assert "[0.1] booting" in seen(app)
        assert " OK  sshd" in seen(app)
        assert "login: " in seen(app)
        await pilot.press("escape")
        await until(pilot, lambda: "─ log" in seen(app), "the log again")


async def test_a_console_that_cannot_be_opened_says_why() -> None:
    swarm = one_agent()
    swarm.console_failure = HostUnreachable("The connection is lost", "no route to host")
    app = make_app(swarm)
    async with running(app) as pilot:
        await pilot.press("enter", "c")
        await until(pilot, lambda: "no route to host" in seen(app), "the reason")
        assert "The connection is lost" in seen(app)


async def test_a_cut_link_is_told() -> None:
    swarm = one_agent(3)
    app = make_app(swarm)
    async with running(app) as pilot:
        await pilot.press("enter")
        swarm.apply(LinkChanged(swarm.named("ember").id, Link.DOWN))
        await until(pilot, lambda: "log (link down)" in seen(app), "the link")


async def test_an_agent_that_goes_is_said_to_be_gone() -> None:
    swarm = one_agent(3)
    app = make_app(swarm)
    async with running(app) as pilot:
        await pilot.press("enter")
        swarm.apply(VmGone(swarm.named("ember").id, 99))
        await until(pilot, lambda: "it is gone" in seen(app), "the word of it")
        await pilot.press("p")
        await until(pilot, lambda: "no agent is selected" in seen(app), "the refusal")
        await pilot.press("escape")
        swarm.clock.pass_by(2)
        await until(pilot, lambda: "No agents yet" in seen(app), "the fleet")


async def test_w_goes_from_one_who_waits_to_the_next() -> None:
    swarm = make_fleet()
    app = make_app(swarm)
    async with running(app) as pilot:
        await pilot.press("enter", "w")
        await until(pilot, lambda: " fern " in seen(app).splitlines()[0], "the next one")
        await pilot.press("escape")
        await until(pilot, lambda: len(app.screen_stack) == 2, "the fleet")


async def test_keys_typed_before_the_screen_is_there_do_no_harm() -> None:
    app = make_app(make_fleet())
    async with running(app) as pilot:
        for key in ("c", "i", "l", "w", "n", "s", "slash", "question_mark", "colon", "K"):
            type_ahead(app, "enter", key, key)
            await pilot.pause()
            while len(app.screen_stack) > 2:
                type_ahead(app, "escape", "escape")
                await pilot.pause()
        assert app.is_running
        assert "asking" in seen(app)
