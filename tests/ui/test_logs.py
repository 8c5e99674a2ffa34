"""The logs of several agents as one, read back from disk, searched, filtered and exported."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from stand_in import Clock, StandInSupervisor, make_app, make_fleet, running, seen, until
from textual.pilot import Pilot

from swarm_tui import spool
from swarm_tui.fact import GuestHeard
from swarm_tui.model import AgentId, EventBatch, EventKind, GuestEvent
from swarm_tui.text import sanitize
from swarm_tui.ui import log as log_module
from swarm_tui.ui.app import SwarmApp
from swarm_tui.ui.log import LogView
from swarm_tui.ui.logs import LogScreen
from swarm_tui.ui.screen import top


def view(app: SwarmApp) -> LogView:
    screen = top(app)
    assert isinstance(screen, LogScreen)
    return screen.log_view


def rows(app: SwarmApp) -> list[str]:
    """The lines of the log, without times."""
    found = [row[10:].strip() for row in seen(app).splitlines() if row[3:4] == ":"]
    return [" ".join(row.split()) for row in found]


def three(clock: Clock | None = None) -> StandInSupervisor:
    swarm = StandInSupervisor(clock=clock or Clock())
    swarm.add_host()
    for name in ("ada", "bob", "cyd"):
        swarm.add(name)
    return swarm


async def open_all(pilot: Pilot[None], app: SwarmApp) -> None:
    await pilot.press("a", "L")
    await until(pilot, lambda: isinstance(top(app), LogScreen), "the merged log")


async def test_lines_of_all_stand_in_the_order_of_time_with_names() -> None:
    swarm = three()
    for number in range(9):
        agent = swarm.named(("ada", "bob", "cyd")[number * 2 % 3])
        swarm.hear(agent.id, EventKind.LOG, f"line {number}")
        swarm.clock.pass_by(1)
    app = make_app(swarm)
    async with running(app) as pilot:
        await open_all(pilot, app)
        names = ("ada", "bob", "cyd")
        assert rows(app) == [f"{names[n * 2 % 3]} line {n}" for n in range(9)]
        assert "logs 3 agents: ada, bob, cyd" in seen(app)
        swarm.hear(swarm.named("bob").id, EventKind.LOG, "news")
        await until(pilot, lambda: rows(app)[-1] == "bob news", "what comes")
        # A line that comes late stands where it belongs.
        swarm.hear(swarm.named("cyd").id, EventKind.LOG, "late", at=swarm.clock.now() - 7.5)
        await until(pilot, lambda: "cyd late" in rows(app), "what comes late")
        assert rows(app).index("cyd late") == 8  # after its own line before
        assert {name: len({_colour(app, name)}) for name in names} == dict.fromkeys(names, 1)


def _colour(app: SwarmApp, name: str) -> object:
    strips = [view(app).render_line(y) for y in range(view(app).size.height)]
    found = {seg.style for strip in strips for seg in strip if seg.text.strip() == name}
    assert len(found) == 1
    return found.pop()


def hear(swarm: StandInSupervisor, name: str, text: str, *, at: float | None, heard: float) -> None:
    event = GuestEvent(EventKind.LOG, sanitize(text), at, heard=heard)
    batch = EventBatch((event,), 0, 0, None, heard)
    swarm.apply(GuestHeard(swarm.named(name).id, batch))


async def test_a_guest_that_lies_about_time_cannot_move_its_lines_far() -> None:
    swarm = three()
    now = swarm.clock.now()
    hear(swarm, "ada", "one", at=now, heard=now + 0.1)
    hear(swarm, "bob", "two", at=now + 1, heard=now + 1.1)
    hear(swarm, "ada", "ago", at=5.0, heard=now + 2.1)
    hear(swarm, "bob", "three", at=now + 3, heard=now + 3.1)
    hear(swarm, "ada", "ahead", at=now + 99999, heard=now + 4.1)
    hear(swarm, "bob", "none", at=None, heard=now + 5)
    app = make_app(swarm)
    async with running(app) as pilot:
        await open_all(pilot, app)
        said = [row.split()[1] for row in rows(app)]
        # "ago" stands at the moment up to which the log had been read before it was heard.
        assert said == ["one", "ago", "two", "three", "ahead", "none"]
        doubted = [row.split()[2] for row in seen(app).splitlines() if "?" in row[:11]]
        assert doubted == ["ago", "ahead"]
        await pilot.press("T", "T", "T")
        assert "times: claimed" in seen(app)
        assert any(row.startswith(" 00:00:05") for row in seen(app).splitlines())
        await pilot.press("T")
        assert "13:00:0" not in "".join(seen(app).splitlines()[2:-2])
        await pilot.press("T", "T")
        await until(pilot, lambda: " 0s" in seen(app), "ages")
        swarm.clock.pass_by(65)
        await until(pilot, lambda: " 1m" in seen(app), "ages pass by themselves")
        await pilot.press("T")
        assert "2026-11-23 13:00:01" in seen(app)


async def test_enter_opens_the_agent_of_the_line() -> None:
    swarm = three()
    for name in ("ada", "bob", "cyd"):
        swarm.hear(swarm.named(name).id, EventKind.LOG, f"this is {name}")
        swarm.clock.pass_by(1)
    app = make_app(swarm)
    async with running(app) as pilot:
        await open_all(pilot, app)
        await pilot.press("k", "enter")
        await until(pilot, lambda: "● bob" in seen(app), "the agent")
        await pilot.press("escape")
        await until(pilot, lambda: "logs 3 agents" in seen(app), "the logs again")
        assert not view(app).is_following
        await pilot.press("j", "enter")
        await until(pilot, lambda: "● cyd" in seen(app), "the agent of the last line")


async def test_a_filter_shows_only_what_matches_and_what_comes_later_too() -> None:
    swarm = three()
    ada, bob = swarm.named("ada").id, swarm.named("bob").id
    for number in range(50):
        swarm.hear(ada if number % 2 else bob, EventKind.LOG, f"test {number} passed")
        swarm.clock.pass_by(1)
    swarm.hear(ada, EventKind.LOG, "Error: no such file")
    app = make_app(swarm)
    async with running(app) as pilot:
        await open_all(pilot, app)
        await pilot.press("ampersand", *"error|7 passed", "enter")
        wanted = ["ada test 7 passed", "ada test 17 passed", "ada test 27 passed"]
        wanted += ["ada test 37 passed", "ada test 47 passed", "ada Error: no such file"]
        assert rows(app) == wanted
        assert "&error|7 passed" in seen(app)
        swarm.hear(bob, EventKind.LOG, "nothing of it")
        swarm.hear(bob, EventKind.LOG, "another ERROR")
        await until(pilot, lambda: rows(app) == [*wanted, "bob another ERROR"], "what comes")
        await pilot.press("slash", *"Error", "enter")
        assert "/Error 1 match" in seen(app)
        await pilot.press("escape", "escape", "end")
        assert "test 49 passed" in seen(app)
        assert isinstance(top(app), LogScreen)


async def test_a_bad_expression_says_what_is_wrong_and_can_be_mended() -> None:
    swarm = three()
    swarm.hear(swarm.named("ada").id, EventKind.LOG, "a" * 3000)
    app = make_app(swarm)
    async with running(app) as pilot:
        await open_all(pilot, app)
        await pilot.press("slash", *"(a+", "enter")
        await until(pilot, lambda: "missing ): (a+" in seen(app), "what is wrong")
        await pilot.press(*")+$x", "enter")
        await until(pilot, lambda: "/(a+)+$x 0 matches" in seen(app), "an answer")


async def test_asks_are_jumped_between() -> None:
    swarm = three()
    ada, bob = swarm.named("ada").id, swarm.named("bob").id
    for number in range(200):
        kind = EventKind.ASK if number in (20, 90, 150) else EventKind.LOG
        swarm.hear(bob if number == 90 else ada, kind, f"event {number}")
        swarm.clock.pass_by(1)
    app = make_app(swarm)
    async with running(app) as pilot:
        await open_all(pilot, app)
        for key, wanted in (
            ("left_square_bracket", "event 150"),
            ("left_square_bracket", "event 90"),
            ("left_square_bracket", "event 20"),
            ("left_square_bracket", "no ask before this"),
            ("right_square_bracket", "event 90"),
        ):
            await pilot.press(key)
            await until(pilot, lambda wanted=wanted: wanted in seen(app), wanted)  # type: ignore[misc]
        current = view(app).current
        assert current
        assert current.text == "event 90"


# From disk


def spooled(swarm: StandInSupervisor, root: Path, name: str, count: int, *, step: float) -> AgentId:
    """An agent with a log on disk, of which the newest ten lines are in memory."""
    swarm.logs = spool.Spool(root, 1 << 30)
    agent = swarm.named(name).id
    begun = swarm.clock.now() - count * step
    batches = []
    with spool.Writer(swarm.logs.folder(agent), 4000) as writer:
        for number in range(count):
            text = f"{name} {number}"
            heard = begun + number * step
            kind = "ask" if number == 5 else "log"
            raw = json.dumps({"ts": heard - 0.2, "kind": kind, "text": text}).encode() + b"\n"
            event = GuestEvent(EventKind(kind), sanitize(text), heard - 0.2, heard=heard)
            batch = EventBatch((event,), number, 0, raw, heard)
            batches.append(batch)
            writer.append(batch)
            if writer.is_full:
                writer.turn()
    for batch in batches[-10:]:
        swarm.apply(GuestHeard(agent, batch))
    return agent


async def test_older_lines_come_from_disk_as_one_scrolls_up(tmp_path: Path) -> None:
    swarm = three()
    spooled(swarm, tmp_path, "ada", 1500, step=1.0)
    spooled(swarm, tmp_path, "bob", 300, step=5.0)
    app = make_app(swarm)
    async with running(app, (100, 40)) as pilot:
        await open_all(pilot, app)
        await until(pilot, lambda: view(app).count >= 50, "a screenful")
        await until_home(pilot, app, "ada ada 0")
        entries = [str(entry.text) for entry in view(app).shown]
        assert len(entries) == 1800
        for name, count in (("ada", 1500), ("bob", 300)):
            own = [entry for entry in entries if entry.startswith(name)]
            assert own == [f"{name} {number}" for number in range(count)]  # each once, in order
        times = [entry.when for entry in view(app).shown]  # type: ignore[attr-defined]
        assert times == sorted(times)


async def test_what_is_read_stays_in_place_while_older_lines_come(tmp_path: Path) -> None:
    swarm = three()
    spooled(swarm, tmp_path, "ada", 3000, step=1.0)
    app = make_app(swarm)
    async with running(app, (100, 40)) as pilot:
        await open_all(pilot, app)
        await until(pilot, lambda: view(app).count >= 50, "a screenful")
        before = view(app).count
        await pilot.press("home")
        first = rows(app)[0]
        await until(pilot, lambda: view(app).count > before, "older lines")
        await until(pilot, lambda: rows(app)[0] == first, "the same first line")


async def test_searching_and_asks_go_on_into_what_is_on_disk(tmp_path: Path) -> None:
    swarm = three()
    spooled(swarm, tmp_path, "ada", 3000, step=1.0)
    app = make_app(swarm)
    async with running(app, (100, 40)) as pilot:
        await open_all(pilot, app)
        await pilot.press("slash", *"ada 77$", "enter")
        await until(pilot, lambda: "ada ada 77" in rows(app), "the match on disk")
        await pilot.press("escape", "left_square_bracket")
        await until(pilot, lambda: "ada ◆ ada 5" in rows(app), "the ask on disk")


async def test_what_the_quota_removed_and_what_came_too_fast_is_counted(tmp_path: Path) -> None:
    swarm = three()
    ada = spooled(swarm, tmp_path, "ada", 2000, step=1.0)
    assert swarm.logs
    gone = spool.Quota(tmp_path, 20_000).enforce()
    assert gone.lines > 100
    now = swarm.clock.now()
    events = tuple(
        GuestEvent(EventKind.LOG, sanitize(text), now, heard=now, missed=missed)
        for text, missed in (("before", 0), ("after", 4300))
    )
    swarm.apply(GuestHeard(ada, EventBatch(events, 9999, 4300, None, now)))
    app = make_app(swarm)
    async with running(app, (100, 40)) as pilot:
        await open_all(pilot, app)
        shown = rows_and_gaps(app)
        place = shown.index("ada before")
        gap = "ada … 4,300 lines came too fast to be shown; they are on disk"
        assert shown[place : place + 3] == ["ada before", gap, "ada after"]
        assert "4,300 lines too fast to show" in seen(app)
        await until_home(pilot, app, f"{gone.lines:,} older lines removed by the quota")


async def until_home(pilot: Pilot[None], app: SwarmApp, wanted: str) -> None:
    """Press home until something is seen, for at most five seconds."""
    deadline = time.monotonic() + 5
    while wanted not in " ".join(seen(app).split()):
        assert time.monotonic() < deadline, f"never came to pass: {wanted}"
        await pilot.press("home")
        await pilot.pause(0.02)


def rows_and_gaps(app: SwarmApp) -> list[str]:
    return [" ".join(row[10:-1].split()) for row in seen(app).splitlines()]


async def test_memory_is_bounded_while_the_end_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "LIVE_LINES", 400)
    swarm = three()
    spooled(swarm, tmp_path, "ada", 300, step=1.0)
    ada = swarm.named("ada").id
    app = make_app(swarm)
    async with running(app, (100, 40)) as pilot:
        await open_all(pilot, app)
        for number in range(1000):
            now = swarm.clock.now() + number / 100
            event = GuestEvent(EventKind.LOG, sanitize(f"fresh {number}"), now, heard=now)
            swarm.apply(GuestHeard(ada, EventBatch((event,), number, 0, None, now)))
        await until(pilot, lambda: "fresh 999" in seen(app), "the end")
        assert view(app).count <= 400


async def test_a_log_that_another_process_keeps_is_joined_without_doubles(tmp_path: Path) -> None:
    swarm = three()
    swarm.logs = spool.Spool(tmp_path, 1 << 30)
    ada = swarm.named("ada").id
    now = swarm.clock.now()
    with spool.Writer(swarm.logs.folder(ada)) as writer:
        for number in range(300):
            at = now - 300 + number
            event = GuestEvent(EventKind.LOG, sanitize(f"ada {number}"), at)
            # They read it a moment sooner than we do.
            writer.append(EventBatch((event,), number, 0, None, at + 0.1))
            if number >= 250:
                ours = GuestEvent(EventKind.LOG, event.text, at, heard=at + 0.25)
                swarm.apply(GuestHeard(ada, EventBatch((ours,), number, 0, None, at + 0.25)))
    app = make_app(swarm)
    async with running(app, (100, 40)) as pilot:
        await open_all(pilot, app)
        await until_home(pilot, app, "ada ada 0")
        entries = [str(entry.text) for entry in view(app).shown]
        assert entries == [f"ada {number}" for number in range(300)]


async def test_memory_is_bounded_while_older_lines_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "MOST_LINES", 1200)
    swarm = three()
    ada = spooled(swarm, tmp_path, "ada", 4000, step=1.0)
    app = make_app(swarm)
    async with running(app, (100, 40)) as pilot:
        await open_all(pilot, app)
        await until_home(pilot, app, "ada ada 0")
        assert view(app).count <= 1200
        now = swarm.clock.now()
        event = GuestEvent(EventKind.LOG, sanitize("the very end"), now, heard=now)
        swarm.apply(GuestHeard(ada, EventBatch((event,), 4001, 0, None, now)))
        await pilot.press("s")
        await until(pilot, lambda: "the very end" in seen(app), "the end again")
        await until(pilot, lambda: "ada ada 3999" in rows(app), "and what is before it")
        await pilot.press("slash", *"nowhere", "enter")
        await until(pilot, lambda: "not in older lines either" in seen(app), "the answer")
        assert view(app).count <= 1200


# Export


async def test_the_whole_log_is_exported_and_nothing_is_overwritten(tmp_path: Path) -> None:
    swarm = three()
    spooled(swarm, tmp_path / "logs", "ada", 1500, step=1.0)
    spooled(swarm, tmp_path / "logs", "bob", 300, step=5.0)
    swarm.hear(swarm.named("cyd").id, EventKind.LOG, "\x1b]0;evil\x07 \u202e in memory only")
    app = make_app(swarm)
    async with running(app, (100, 40)) as pilot:
        await open_all(pilot, app)
        told = "Exported 1,801 lines"
        for count, name in enumerate(("all.txt", "all.jsonl"), 1):
            target = tmp_path / name
            await pilot.press("E")
            app.screen.query_one("#search").value = str(target)  # type: ignore[attr-defined]
            await pilot.press("enter")
            await until(pilot, lambda count=count: seen(app).count(told) == count, told)  # type: ignore[misc]
            assert str(target)[:20] in seen(app), "where it is: a long path is wrapped anywhere"
        lines = (tmp_path / "all.txt").read_text().splitlines()
        assert len(lines) == 1801
        assert "\x1b" not in "".join(lines)
        assert lines == sorted(lines, key=lambda line: line[:19])
        assert lines[-1].endswith("␛]0;evil␇ \ufffd in memory only")
        objects = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
        assert [o["name"] for o in objects].count("bob") == 300
        assert objects[0]["kind"] == "log"
        await pilot.press("E")
        app.screen.query_one("#search").value = str(tmp_path / "all.txt")  # type: ignore[attr-defined]
        await pilot.press("enter")
        await until(pilot, lambda: "The file is there already" in seen(app), "the refusal")
        assert (tmp_path / "all.txt").read_text().splitlines() == lines


async def test_an_agents_own_log_has_the_same_powers(tmp_path: Path) -> None:
    swarm = make_fleet()
    ember = swarm.named("ember").id
    for number in range(100):
        swarm.hear(ember, EventKind.LOG, f"step {number}")
    app = make_app(swarm)
    async with running(app, (100, 40)) as pilot:
        await pilot.press("w", "enter", "left_square_bracket")
        await until(pilot, lambda: "◆" in seen(app), "the ask")
        await pilot.press("ampersand", *"passed", "enter")
        await until(pilot, lambda: "&passed" in seen(app), "the filter")
        await pilot.press("T", "T")
        await until(pilot, lambda: "2026-11-23" in seen(app), "the date")
        await pilot.press("E")
        app.screen.query_one("#search").value = str(tmp_path / "one.txt")  # type: ignore[attr-defined]
        await pilot.press("enter")
        await until(pilot, lambda: "Exported" in seen(app), "the export")
