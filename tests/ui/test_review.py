"""The review screen: reading what an agent did, saying something about it, deciding."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from stand_in import StandInSupervisor, make_app, make_fleet, running, seen, until
from stand_in_reading import StandInReading, change_of, make_reading, make_sample
from textual.pilot import Pilot

from swarm_tui.errors import ReviewError, StorageFull
from swarm_tui.handoff import Comment
from swarm_tui.model import Agent
from swarm_tui.ui.app import SwarmApp
from swarm_tui.ui.fleet import FleetScreen
from swarm_tui.ui.review import ReviewScreen
from swarm_tui.ui.tree import order

SIZE = (120, 40)
PARSER = b"src/invoices/parser.py"


class Desk:
    """One review that is open on the screen."""

    def __init__(self, swarm: StandInSupervisor, reading: StandInReading) -> None:
        self.swarm = swarm
        self.reading = reading
        self.app: SwarmApp = make_app(swarm)

    @property
    def agent(self) -> Agent:
        return self.swarm.named("moss")

    def unmark_all(self) -> None:
        self.reading.said = replace(self.reading.said, viewed=frozenset())

    def view_all(self) -> None:
        review = self.reading.review
        for change in review.changes:
            self.reading.mark(change.key, is_viewed=True)
        self.reading.mark(review.about, is_viewed=True)


def make_desk(reading: StandInReading | None = None, *, is_taken: bool = True) -> Desk:
    """`is_taken`: the review is open already, and moss saved; else moss still asks for it."""
    swarm = make_fleet()
    moss = swarm.named("moss")
    reading = reading or make_sample(moss.id, moss.name)
    swarm.readings[moss.id] = reading
    if is_taken:
        swarm.save(moss, review=reading.review.number)
    swarm.store.take_dirty()
    return Desk(swarm, reading)


@asynccontextmanager
async def opened(desk: Desk, size: tuple[int, int] = SIZE, *keys: str) -> AsyncIterator[Pilot[Any]]:
    """The review of moss, which is opened at once: it was taken before."""
    async with running(desk.app, size) as pilot:
        find(desk)
        await pilot.press("r")
        await until(pilot, lambda: is_open(desk.app), "the review")
        await press(desk, pilot, *keys)
        yield pilot


def find(desk: Desk) -> None:
    """Put the fleet's cursor on moss."""
    fleet = desk.app.screen
    assert isinstance(fleet, FleetScreen)
    fleet.grid.move_to(desk.agent.id)


async def press(desk: Desk, pilot: Pilot[Any], *keys: str) -> None:
    for key in keys:
        desk.swarm.clock.pass_by(1)
        await pilot.press(key)
        await pilot.pause()


def is_open(app: SwarmApp) -> bool:
    return isinstance(app.screen, ReviewScreen) and "about this review" in seen(app)


def lines(app: SwarmApp) -> list[str]:
    return seen(app).split("\n")


def line_with(app: SwarmApp, text: str) -> str:
    found = [line for line in lines(app) if text in line]
    assert found, f"{text!r} is not on the screen:\n{seen(app)}"
    return found[0]


def to_file(desk: Desk, path: bytes) -> list[str]:
    """The keys that lead from the first page to a file."""
    paths = [change.path for change in order(desk.reading.review.changes)]
    return ["J"] * (paths.index(path) + 1)


# Reading


async def test_the_first_page_tells_what_is_reviewed_and_what_is_dangerous() -> None:
    desk = make_desk()
    async with opened(desk):
        shown = seen(desk.app)
        assert "the parser is three times as fast" in shown
        assert desk.reading.review.head in shown
        assert desk.reading.review.base in shown
        assert "3 flags, to be seen before an approval" in shown
        assert ".github/workflows/check.yml" in shown
        assert "Sum with sum()" in shown
        assert "viewed 0/7" in shown


async def test_files_show_their_lines_with_signs_and_numbers() -> None:
    desk = make_desk()
    async with opened(desk, SIZE, *to_file(desk, PARSER)):
        added = line_with(desk.app, "fullmatch(line)")
        assert " + " in added
        assert " 22 " in added
        removed = line_with(desk.app, "_LINE.match(line)")
        assert " - " in removed
        assert " 24 " in removed
        assert "17 unchanged lines" in seen(desk.app)


async def test_a_gap_opens_and_the_whole_file_shows() -> None:
    desk = make_desk()
    async with opened(desk, (120, 80), *to_file(desk, PARSER), "home") as pilot:
        assert "frozen=True" not in seen(desk.app)
        await press(desk, pilot, "enter")
        assert "frozen=True" in seen(desk.app)
        assert "17 unchanged lines" not in seen(desk.app)
        assert "4 unchanged lines" in seen(desk.app)
        await press(desk, pilot, "f")
        assert "unchanged lines" not in seen(desk.app)
        await press(desk, pilot, "f")
        assert "17 unchanged lines" in seen(desk.app)
        await press(desk, pilot, "plus")
        assert "unchanged lines" in seen(desk.app)
        assert "12 unchanged lines" in seen(desk.app)
        await press(desk, pilot, "minus", "minus")
        assert "20 unchanged lines" in seen(desk.app)


async def test_changes_are_jumped_to_across_files() -> None:
    desk = make_desk()
    async with opened(desk, SIZE, *to_file(desk, PARSER)) as pilot:
        await press(desk, pilot, "j", "j")
        assert "change 3/3" in seen(desk.app)
        await press(desk, pilot, "j")
        await until(pilot, lambda: "tests/unit/test_parser.py  new" in seen(desk.app), "the next")
        await press(desk, pilot, "k")
        await until(pilot, lambda: "change 3/3" in seen(desk.app), "back to the last change")
        await press(desk, pilot, "k", "k")
        assert "change 1/3" in seen(desk.app)


async def test_what_has_no_lines_says_why() -> None:
    desk = make_desk()
    async with opened(desk, SIZE, *to_file(desk, b"docs/logo.png")):
        assert "binary: 8 Bytes -> 3 KiB" in seen(desk.app)
        assert "binary: its content is not shown" in seen(desk.app)


async def test_a_wide_screen_shows_both_sides_and_t_chooses() -> None:
    desk = make_desk()
    async with opened(desk, (170, 40), *to_file(desk, PARSER)) as pilot:
        both = line_with(desk.app, "_LINE.match(line)")
        assert "fullmatch(line)" in both
        await press(desk, pilot, "t")
        assert "fullmatch(line)" not in line_with(desk.app, "_LINE.match(line)")
        await press(desk, pilot, "t")
        assert "fullmatch(line)" in line_with(desk.app, "_LINE.match(line)")


async def test_long_lines_are_cut_shifted_and_wrapped() -> None:
    swarm = make_fleet()
    moss = swarm.named("moss")
    long = b"start " + b"middle " * 40 + b"finish"
    reading = make_reading(moss.id, moss.name, {"a.txt": (b"x\n", long + b"\n")}, number=3)
    desk = make_desk(reading)
    async with opened(desk, (80, 24), "J") as pilot:
        assert "start" in seen(desk.app)
        assert "finish" not in seen(desk.app)
        await press(desk, pilot, *["l"] * 30)
        assert "finish" in seen(desk.app)
        await press(desk, pilot, "w")
        assert "start" in seen(desk.app)
        assert "finish" in seen(desk.app)


async def test_a_file_that_cannot_be_read_says_so_and_the_others_still_open() -> None:
    desk = make_desk()
    desk.reading.failure = ReviewError("An object is missing", "4bf2", "Take the review again.")
    async with opened(desk, SIZE, "J") as pilot:
        await until(pilot, lambda: "An object is missing" in seen(desk.app), "the error")
        desk.reading.failure = None
        await press(desk, pilot, "J")
        await until(pilot, lambda: "docs/logo.png  modified" in seen(desk.app), "the next file")


async def test_a_slow_file_is_said_to_be_read_and_can_be_left() -> None:
    desk = make_desk()
    desk.reading.gate = asyncio.Event()
    async with opened(desk, SIZE, "J") as pilot:
        await until(pilot, lambda: "reading …" in seen(desk.app), "that it is read")
        await press(desk, pilot, "space", "c")  # nothing is done to what is not seen
        assert "it is not shown yet" in seen(desk.app)
        assert "viewed 0/7" in seen(desk.app)
        await press(desk, pilot, "K")
        assert "3 flags, to be seen" in seen(desk.app)
        desk.reading.gate.set()
        await press(desk, pilot, "J")
        await until(pilot, lambda: "make check" in seen(desk.app), "the file")


# Marks


async def test_space_marks_a_file_and_goes_to_the_next_unviewed_one() -> None:
    desk = make_desk()
    async with opened(desk, SIZE, "space", "space") as pilot:
        assert "viewed 1/7" in seen(desk.app)
        await until(pilot, lambda: "docs/logo.png  modified" in seen(desk.app), "the next file")
        assert "✓ M   check.yml" in seen(desk.app)
        await press(desk, pilot, "K", "space")
        assert "· M   check.yml" in seen(desk.app)
        assert "viewed 0/7" in seen(desk.app)
        await press(desk, pilot, *["space"] * 7)
        assert "viewed 7/7" in seen(desk.app)
        assert "flags seen 3/3" in seen(desk.app)


async def test_marks_of_another_session_show_up() -> None:
    desk = make_desk()
    async with opened(desk) as pilot:
        desk.reading.mark(desk.reading.review.changes[0].key, is_viewed=True)
        await until(pilot, lambda: "viewed 1/7" in seen(desk.app), "the mark")


async def test_drafts_that_cannot_be_read_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = make_desk()
    async with opened(desk, SIZE, "J") as pilot:

        def fail() -> None:
            raise ReviewError("The drafts cannot be read", "drafts.jsonl: it is a folder")

        monkeypatch.setattr(desk.reading, "drafts", fail)
        await until(pilot, lambda: "The drafts cannot be read" in seen(desk.app), "the toast")
        await press(desk, pilot, "space", "a", "escape")
        assert len(desk.app._notifications) == 2  # that, and the flags that were not seen


# Comments


async def test_a_comment_is_written_shown_changed_and_dropped() -> None:
    desk = make_desk()
    async with opened(desk, SIZE, *to_file(desk, PARSER), *["down"] * 4, "c") as pilot:
        assert "Comment on src/invoices/parser.py, line 21" in seen(desk.app)
        await press(desk, pilot, *"why", "enter", *"so", "ctrl+s")
        (comment,) = desk.reading.said.comments
        assert (comment.path, comment.side, comment.first, comment.last) == (PARSER, "new", 21, 21)
        assert comment.text == "why\nso"
        assert "filter(None, text.splitlines())" in comment.quote
        shown = lines(desk.app)
        at = next(i for i, line in enumerate(shown) if "comment on line 21" in line)
        assert "splitlines" in shown[at - 1]
        assert "why" in shown[at + 1]
        await press(desk, pilot, "c", *"!", "ctrl+s")
        assert desk.reading.said.comments[0].text == "why\nso!"
        assert "1 comment" in seen(desk.app)
        await press(desk, pilot, "D")
        assert "Remove the comment on src/invoices/parser.py, line 21?" in seen(desk.app)
        await press(desk, pilot, "y")
        assert not desk.reading.said.comments
        assert "comment on" not in seen(desk.app)


async def test_a_comment_on_a_range_of_removed_lines() -> None:
    desk = make_desk()
    keys = (*to_file(desk, PARSER), "V", "down", "down", "c")
    async with opened(desk, SIZE, *keys) as pilot:
        assert "line 21-23 of the old file" in seen(desk.app)
        await press(desk, pilot, *"no", "ctrl+s")
        (comment,) = desk.reading.said.comments
        assert (comment.side, comment.first, comment.last) == ("old", 21, 23)
        assert "comment on old lines 21-23" in seen(desk.app)


async def test_comments_on_a_file_and_on_all() -> None:
    desk = make_desk()
    async with opened(desk, SIZE, "C", *"all", "ctrl+s", "J", "C", *"file", "ctrl+s"):
        paths = [(comment.path, comment.first) for comment in desk.reading.said.comments]
        assert paths == [(b"", 0), (b".github/workflows/check.yml", 0)]
        assert "comment on the file as a whole" in seen(desk.app)


async def test_what_was_typed_is_not_lost_by_one_key() -> None:
    desk = make_desk()
    async with opened(desk, SIZE, *to_file(desk, PARSER), "c", *"dear", "escape") as pilot:
        assert "esc again throws away what you typed" in seen(desk.app)
        assert "dear" in seen(desk.app)
        await press(desk, pilot, "escape")
        assert isinstance(desk.app.screen, ReviewScreen)
        assert not desk.reading.said.comments


async def test_a_comment_that_cannot_be_kept_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = make_desk()

    def fail(comment: Comment) -> None:
        raise StorageFull("There is no room for the comment")

    monkeypatch.setattr(desk.reading, "comment", fail)
    async with opened(desk, SIZE, "J", "c", "x", "ctrl+s") as pilot:
        await until(pilot, lambda: "There is no room" in seen(desk.app), "the toast")


async def test_a_comment_on_hidden_lines_shows_them() -> None:
    desk = make_desk()
    desk.reading.comment(Comment("1", "frozen, why?", PARSER, "new", 13, 13))
    async with opened(desk, SIZE, *to_file(desk, PARSER)):
        shown = lines(desk.app)
        at = next(i for i, line in enumerate(shown) if "comment on line 13" in line)
        assert "class Invoice" in shown[at - 1]


# Searching


async def test_search_goes_through_all_lines_and_on_into_other_files() -> None:
    desk = make_desk()
    async with opened(desk, SIZE, "J", "slash", *"invoice", "enter") as pilot:
        await until(pilot, lambda: "__init__.py  modified" in seen(desk.app), "the next file")
        await press(desk, pilot, "n")
        await until(pilot, lambda: "parser.py  modified" in seen(desk.app), "the one after")
        assert "Reads invoices, one line at a time" in seen(desk.app)  # it was hidden
        await press(desk, pilot, "N")
        await until(pilot, lambda: "__init__.py  modified" in seen(desk.app), "back")
        await press(desk, pilot, "slash", *["backspace"] * 7, *"nowhere", "enter")
        await until(pilot, lambda: "not found" in seen(desk.app), "the notice")


# Since the last review


async def test_only_what_changed_since_the_last_review() -> None:
    desk = make_desk()
    first = b"a = 1\nb = 2\n"
    change = change_of(PARSER, first, b"a = 1\nb = 3\n")
    desk.reading.before = replace(desk.reading.of, number=2)
    desk.reading.later = (change,)
    desk.reading.contents[change.key] = (first, b"a = 1\nb = 3\n")
    async with opened(desk, SIZE, "i") as pilot:
        await until(pilot, lambda: "only what changed since review 2" in seen(desk.app), "it")
        await until(pilot, lambda: "b = 3" in seen(desk.app), "the file")
        assert "check.yml" not in seen(desk.app)
        await press(desk, pilot, "c")
        assert "a line of the last review" in seen(desk.app)
        await press(desk, pilot, "space")
        whole = next(each for each in desk.reading.review.changes if each.path == PARSER)
        assert whole.key in desk.reading.said.viewed
        await press(desk, pilot, "i")
        assert "check.yml" in seen(desk.app)
        assert "only what changed" not in seen(desk.app)


@pytest.mark.parametrize("key", ["a", "exclamation_mark"])
async def test_a_flag_in_a_file_without_changes_since_is_gone_to_all_the_same(key: str) -> None:
    desk = make_desk()
    first, then = b"a = 1\nb = 2\n", b"a = 1\nb = 3\n"
    change = change_of(PARSER, first, then)
    desk.reading.before = replace(desk.reading.of, number=2)
    desk.reading.later = (change,)
    desk.reading.contents[change.key] = (first, then)
    async with opened(desk, SIZE, "i") as pilot:
        await until(pilot, lambda: "only what changed since review 2" in seen(desk.app), "it")
        await press(desk, pilot, key)
        await until(pilot, lambda: "check.yml  modified" in seen(desk.app), "the flagged file")
        assert "curl -s https://example.org" in seen(desk.app)
        assert "only what changed" not in seen(desk.app)


async def test_without_an_earlier_review_there_is_nothing_to_compare() -> None:
    desk = make_desk()
    async with opened(desk, SIZE, "i"):
        assert "no earlier review" in seen(desk.app)


# The tree


async def test_a_file_is_opened_by_a_click_and_by_enter() -> None:
    desk = make_desk()
    async with opened(desk) as pilot:
        row = next(y for y, line in enumerate(lines(desk.app)) if "old.md" in line)
        await pilot.click(offset=(8, row))
        await until(pilot, lambda: "Nobody needs this" in seen(desk.app), "the file")
        await press(desk, pilot, "tab", "down", "down", "enter")
        await until(pilot, lambda: "access.py  modified" in seen(desk.app), "two further")


async def test_a_narrow_screen_shows_files_instead_of_the_diff() -> None:
    desk = make_desk()
    async with opened(desk, (80, 24)) as pilot:
        assert "check.yml                " not in seen(desk.app)
        await press(desk, pilot, "b")
        assert "parser.py                " in seen(desk.app)
        assert "it asks" not in seen(desk.app)
        await press(desk, pilot, "escape")
        assert "it asks" in seen(desk.app)
        await press(desk, pilot, "b", "down", "enter")
        await until(pilot, lambda: "make check" in seen(desk.app), "the file")


async def test_a_narrow_footer_tells_all_that_leads_to_a_verdict() -> None:
    desk = make_desk()
    async with running(desk.app, (80, 24)) as pilot:
        find(desk)
        await pilot.press("r")
        await until(pilot, lambda: isinstance(desk.app.screen, ReviewScreen), "the review")
        footer = lines(desk.app)[-1]
        for key in ("a approve", "s send back", "X reject", "c comment", "space viewed", "! flags"):
            assert key in footer
        assert "? help" in footer


async def test_a_click_sets_the_cursor_and_opens_a_gap() -> None:
    desk = make_desk()
    async with opened(desk, SIZE, *to_file(desk, PARSER)) as pilot:
        row = next(y for y, line in enumerate(lines(desk.app)) if "fullmatch" in line)
        await pilot.click(offset=(70, row))
        await press(desk, pilot, "c")
        assert "parser.py, line 22" in seen(desk.app)
        await press(desk, pilot, "escape")
        row = next(y for y, line in enumerate(lines(desk.app)) if "17 unchanged" in line)
        await pilot.click(offset=(70, row))
        await pilot.pause()
        assert "17 unchanged" not in seen(desk.app)
