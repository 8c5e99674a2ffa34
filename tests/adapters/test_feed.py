"""The event file's bytes as events: whole, bounded, and never believed."""

from __future__ import annotations

import json

import pytest

from swarm_tui.adapters.feed import KEPT_LINES, QUIET_LINES, Feed, Intake
from swarm_tui.event import LONGEST_LINE_BYTES, parse_event, render_event
from swarm_tui.model import EventKind, GuestEvent
from swarm_tui.text import literal, sanitize


def line(kind: str = "log", text: str = "hello", **more: object) -> bytes:
    return json.dumps({"ts": 1700000000.5, "kind": kind, "text": text, **more}).encode() + b"\n"


async def texts(feed: Feed) -> list[str]:
    return [str(event.text) for event in (await feed.take()).events]


def test_a_line_of_the_contract() -> None:
    event = parse_event(line("usage", "", model="m-1", tokens_in=12, tokens_out=3).strip())
    assert event == GuestEvent(
        EventKind.USAGE, literal(""), 1700000000.5, literal("m-1"), tokens_in=12, tokens_out=3
    )


@pytest.mark.parametrize("kind", ["log", "status", "tool", "usage", "ask", "done"])
def test_every_kind_is_known(kind: str) -> None:
    assert parse_event(line(kind).strip()).kind == kind


@pytest.mark.parametrize(
    "junk",
    [
        b"not json at all",
        b"{",
        b"[]",
        b"null",
        b'"log"',
        b"123456789",
        b"NaN",
        b'{"kind": "log", "text": 12}',
        b'{"kind": "log", "text": null}',
        b'{"kind": "log", "text": ["a"]}',
        b'{"kind": "other", "text": "a"}',
        b'{"kind": "LOG", "text": "a"}',
        b'{"kind": ["log"], "text": "a"}',
        b'{"text": "no kind"}',
        b'{"kind": "log", "text": "\\ud800"',
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b"1" * 60_000,
        b'{"kind": "log", "text": "a", "ts": ' + b"9" * 5_000 + b"}",
        b"\xff\xfe\x00{",
        b"\x00" * 100,
        b"\xef\xbb\xbf{}",
    ],
)
def test_what_is_not_of_the_contract_is_shown_as_it_is(junk: bytes) -> None:
    event = parse_event(junk)
    assert event.kind is EventKind.OTHER
    assert event.text == sanitize(junk)
    assert event.at is None


@pytest.mark.parametrize(
    "number",
    ["NaN", "Infinity", "-Infinity", "1e400", "-1", "true", '"5"', "null", "[]", "1e15", "9" * 400],
)
def test_wrong_numbers_are_unknown(number: str) -> None:
    text = f'{{"kind":"usage","ts":{number},"tokens_in":{number},"tokens_out":{number}}}'
    event = parse_event(text.encode())
    assert (event.kind, event.at, event.tokens_in, event.tokens_out) == ("usage", None, 0, 0)


def test_text_is_made_safe() -> None:
    hostile = "\x1b]52;c;ZXZpbA==\x07\x9b31m‮evil\ud800​\ttab\nline"
    event = parse_event(line("status", hostile, model=hostile).strip())
    assert event.kind is EventKind.STATUS
    for shown in (event.text, event.model):
        assert sanitize(shown) == shown
        assert "\x1b" not in shown


async def test_lines_arrive_whole_however_they_are_cut() -> None:
    content = line(text="ä one") + b"\n" + line(text="two") + b"junk\r\n" + line(text="three")
    for size in (1, 2, 3, 7, 64, len(content)):
        feed = Feed(0)
        heard = []
        for start in range(0, len(content), size):
            feed.add(content[start : start + size])
            heard += await texts(feed)
        assert heard == ["ä one", "two", "junk", "three"]
        assert feed.offset == len(content)


async def test_an_unfinished_line_waits_and_is_read_again_after_a_reconnect() -> None:
    whole, half = line(text="whole"), line(text="half")
    feed = Feed(0)
    feed.add(whole + half[:10])
    assert await texts(feed) == ["whole"]
    assert feed.offset == len(whole)

    content = whole + half
    again = Feed(feed.offset)
    again.add(content[feed.offset - 1 :])
    assert await texts(again) == ["half"]
    assert again.offset == len(content)


async def test_an_offset_inside_a_line_begins_with_the_next_one() -> None:
    content = line(text="first") + line(text="second")
    feed = Feed(5)
    feed.add(content[4:])
    assert await texts(feed) == ["second"]


async def test_an_endless_line_is_told_once_and_fills_no_memory() -> None:
    feed = Feed(0)
    feed.add(line(text="before"))
    heard: list[GuestEvent] = []
    for _ in range(100):
        feed.add(b"x" * 65536)
        assert len(feed._line) <= 2 * LONGEST_LINE_BYTES
        heard += (await feed.take()).events
    assert [event.text for event in heard[:1]] == ["before"]
    (cut,) = heard[1:]
    assert cut.kind is EventKind.OTHER
    assert "64 KiB" in cut.text
    assert len(cut.text) < 1000

    # What is past is not asked for again, and the next line is a line.
    assert feed.offset >= 100 * 65536
    feed.add(b"\n" + line(text="after"))
    assert await texts(feed) == ["after"]


async def test_a_burst_keeps_the_newest_lines_and_counts_the_rest() -> None:
    feed = Feed(0)
    feed.add(b"".join(line(text=f"line {number}") for number in range(10 * KEPT_LINES)))
    batch = await feed.take()
    assert len(batch.events) == KEPT_LINES
    assert batch.events[-1].text == f"line {10 * KEPT_LINES - 1}"
    assert batch.dropped == 9 * KEPT_LINES
    assert (await feed.take()).dropped == 0


async def test_a_burst_of_log_lines_does_not_hide_what_matters_more() -> None:
    feed = Feed(0)
    feed.add(line("usage", "", tokens_in=7) + line("ask", "a review, please"))
    feed.add(b"".join(line(text=str(number)) for number in range(3 * KEPT_LINES)))
    batch = await feed.take()
    assert [event.kind for event in batch.events[:2]] == [EventKind.USAGE, EventKind.ASK]
    assert len(batch.events) + batch.dropped == 3 * KEPT_LINES + 2


async def test_a_flood_of_what_matters_is_bounded_too() -> None:
    feed = Feed(0)
    feed.add(line("ask", "again") * (5 * KEPT_LINES))
    batch = await feed.take()
    assert len(batch.events) == 2 * KEPT_LINES
    assert batch.dropped == 3 * KEPT_LINES


async def test_all_lines_are_in_the_batch_as_they_were_written() -> None:
    feed = Feed(0)
    content = b"\x1b[31m junk\n" + line(text="one") * (3 * KEPT_LINES)
    feed.add(content + b"unfinished")
    batch = await feed.take()
    assert batch.raw == content
    assert batch.events[0].missed == batch.dropped == 2 * KEPT_LINES + 1
    assert {event.heard for event in batch.events} == {batch.heard}


async def test_a_loud_guest_takes_nothing_from_a_quiet_one() -> None:
    now = 0.0
    intake = Intake(1000, lambda: now)
    loud, quiet = Feed(0, intake), Feed(0, intake)
    kept = 0
    for _ in range(20):
        now += 0.1
        loud.add(line(text="noise") * 5000)
        kept += len((await loud.take()).events)
        quiet.add(line(text="news") * QUIET_LINES)
        batch = await quiet.take()
        assert (len(batch.events), batch.dropped) == (QUIET_LINES, 0)
    assert kept <= 1000 + 20 * 100 + 20 * QUIET_LINES


def test_an_event_is_written_as_it_is_read() -> None:
    for written in (line("ask", "why\tnot"), line("usage", model="m", tokens_in=1, tokens_out=2)):
        event = parse_event(written.strip())
        assert parse_event(render_event(event)) == event
    junk = parse_event(b"plain \xff words")
    assert parse_event(render_event(junk)) == junk
