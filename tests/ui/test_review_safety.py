"""A hostile review leaves the screen as plain characters only, whatever is looked at."""

from __future__ import annotations

from dataclasses import replace

import pytest
from stand_in import make_app, make_fleet, running, seen, until
from stand_in_reading import StandInReading, change_of, make_reading
from test_review import Desk, find, is_open, press
from test_safety import CORPUS, check, frame
from textual.widgets import TextArea

from swarm_tui.handoff import Comment, Commit, Flag, FlagKind
from swarm_tui.model import AgentId
from swarm_tui.text import sanitize
from swarm_tui.ui.app import Settings
from swarm_tui.ui.review import ReviewScreen

EVERYTHING = "\n".join(CORPUS).encode("utf-8", "surrogatepass")


def hostile_reading(name: str, agent: str) -> StandInReading:
    """All that a guest can write, in every place that it can write to."""
    texts: dict[str | bytes, tuple[bytes | None, bytes | None]] = {
        text.encode("utf-8", "surrogatepass") + b".py": (
            f"def a():\n    pass\n# old {number}\n".encode(),
            b"def a():\n" + EVERYTHING + b"\xff\xfe\n" + b"# new\n" * 3,
        )
        for number, text in enumerate(CORPUS)
    }
    texts |= {
        b"../../../etc/passwd": (None, EVERYTHING),
        b"/absolute//" + CORPUS[0].encode() + b"/x": (EVERYTHING, None),
        b"deep/" * 600 + b"x": (b"1\n", b"2\n"),
        b"binary": (b"\0", b"\0" + EVERYTHING),
        b"long.js": (b"", b"a('\x1b[31m" + b"\xe2\x80\xae[bold]x" * 20_000 + b"')\n"),
    }
    reading = make_reading(
        AgentId(agent),
        sanitize("".join(CORPUS)),
        texts,
        number=3,
        why="".join(CORPUS),
        extra=[
            Flag(kind, sanitize(text), path)
            for kind, text in zip(FlagKind, CORPUS, strict=False)
            for path in (b"", text.encode("utf-8", "surrogatepass") + b".py")
        ],
    )
    commits = tuple(
        Commit(text, sanitize(text), sanitize(text[::-1]), float("1e300")) for text in CORPUS
    )
    reading.of = replace(
        reading.of, name=sanitize(name), commits=commits, head=CORPUS[0], base=CORPUS[6]
    )
    for number, change in enumerate(reading.of.changes[: len(CORPUS)]):
        text = "\n".join((CORPUS[number], "".join(CORPUS)))
        reading.comment(Comment(f"a{number}", text, change.path, "new", 2, 3, CORPUS[number]))
        reading.comment(Comment(f"b{number}", text, change.path))
    reading.comment(Comment("c", "".join(CORPUS)))
    return reading


def hostile_desk(settings: Settings | None = None) -> Desk:
    swarm = make_fleet()
    moss = swarm.named("moss")
    reading = hostile_reading("moss", moss.id)
    reading.before = replace(reading.of, number=2)
    later = change_of(CORPUS[4], EVERYTHING, EVERYTHING[::-1])
    reading.later = (later,)
    reading.contents[later.key] = (EVERYTHING, EVERYTHING[::-1])
    swarm.readings[moss.id] = reading
    swarm.save(moss, review=3)
    swarm.store.take_dirty()
    desk = Desk(swarm, reading)
    desk.app = make_app(swarm, settings)
    return desk


@pytest.mark.parametrize("size", [(80, 24), (200, 60)])
async def test_every_page_is_safe(size: tuple[int, int]) -> None:
    desk = hostile_desk()
    async with running(desk.app, size) as pilot:
        find(desk)
        await pilot.press("r")
        await until(pilot, lambda: is_open(desk.app) or "deep/" in seen(desk.app), "the review")
        check(desk.app)
        for _ in desk.reading.review.changes:
            await press(desk, pilot, "J")
            check(desk.app)
            await press(desk, pilot, "f", "end", "w", "l")
            check(desk.app)
            await press(desk, pilot, "t", "w")
            check(desk.app)
        await press(desk, pilot, "b", "tab", "end", "home")
        check(desk.app)


async def test_dialogs_search_and_verdicts_are_safe() -> None:
    desk = hostile_desk()
    app = desk.app
    async with running(app, (140, 50)) as pilot:
        find(desk)
        await pilot.press("r")
        await until(pilot, lambda: is_open(app), "the review")
        await press(desk, pilot, "a")
        check(app)
        await press(desk, pilot, "i")
        await until(pilot, lambda: "only what changed since" in seen(app), "the comparison")
        check(app)
        await press(desk, pilot, "i", "J", "C")
        check(app)
        pad = app.screen.query_one("#pad", TextArea)
        for text in CORPUS:
            pad.insert(text)
            check(app)
        await press(desk, pilot, "ctrl+s", "D", "y", "slash", *"red", "enter")
        check(app)
        await press(desk, pilot, "X")
        check(app)
        await press(desk, pilot, "escape", "question_mark")
        check(app)
        await press(desk, pilot, "escape", "colon")
        await until(pilot, lambda: "send-back" in seen(app), "the palette")
        check(app)


async def test_the_agents_own_words_cannot_be_markup() -> None:
    desk = hostile_desk()
    async with running(desk.app, (200, 60)) as pilot:
        find(desk)
        await pilot.press("r")
        await until(pilot, lambda: is_open(desk.app), "the review")
        assert "[@click=app.bell]" in seen(desk.app)


async def test_a_plain_terminal_gets_ascii_only() -> None:
    desk = hostile_desk(Settings(is_plain=True))
    async with running(desk.app, (160, 50)) as pilot:
        find(desk)
        await pilot.press("r")
        await until(pilot, lambda: isinstance(desk.app.screen, ReviewScreen), "the review")
        for keys in ((), ("J",), ("J", "t"), ("w",), ("X",), ("escape", "question_mark")):
            await press(desk, pilot, *keys)
            assert frame(desk.app).isascii()


async def test_without_colours_signs_tell_what_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    desk = hostile_desk()
    async with running(desk.app, (120, 50)) as pilot:
        find(desk)
        await pilot.press("r")
        await until(pilot, lambda: is_open(desk.app), "the review")
        await press(desk, pilot, "J", "J", "J")
        drawn = [part for strip in desk.app.screen._compositor.render_strips() for part in strip]
        colours = {segment.style.color for segment in drawn if segment.style}
        shades = {colour.triplet for colour in colours if colour and colour.triplet}
        assert all(shade.red == shade.green == shade.blue for shade in shades)
        assert "▌" in seen(desk.app)
