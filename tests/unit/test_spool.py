"""Guests' logs on disk: they survive us, in bounded space, written by one process at a time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swarm_tui import spool
from swarm_tui.errors import SwarmError
from swarm_tui.model import EventBatch, EventKind, GuestEvent
from swarm_tui.text import literal


def batch(text: str, offset: int, dropped: int = 0) -> EventBatch:
    event = GuestEvent(EventKind.USAGE, literal(text), 12.5, literal("m-1"), 100, 20)
    return EventBatch((event,), offset, dropped)


def texts(folder: Path) -> list[str]:
    return [event.text for event in spool.read(folder)[0].events]


def test_what_was_spooled_is_read_again(tmp_path: Path) -> None:
    assert spool.read(tmp_path) == (EventBatch((), 0, 0), None)
    with spool.Writer(tmp_path) as writer:
        writer.append(batch("one", 10))
        writer.append(batch("two", 25, dropped=3))
    read, written = spool.read(tmp_path)
    assert read.events == batch("one", 0).events + batch("two", 0).events
    assert (read.offset, read.dropped) == (25, 3)
    assert written is not None


def test_only_one_writes_and_the_next_takes_over(tmp_path: Path) -> None:
    with spool.Writer(tmp_path) as first, spool.Writer(tmp_path) as second:
        first.append(batch("one", 10))
        second.append(batch("one", 10))
        assert texts(tmp_path) == ["one"]
        first.__exit__(None, None, None)
        second.append(batch("two", 20))
    assert texts(tmp_path) == ["one", "two"]


def test_a_line_that_was_cut_off_costs_only_itself(tmp_path: Path) -> None:
    with spool.Writer(tmp_path) as writer:
        writer.append(batch("one", 10))
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"offset": 20, "eve')
    with spool.Writer(tmp_path) as writer:
        writer.append(batch("three", 30))
    assert texts(tmp_path) == ["one", "three"]
    assert spool.read(tmp_path)[0].offset == 30


def test_it_stays_small_and_keeps_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "MAX_BYTES", 5000)
    with spool.Writer(tmp_path) as writer:
        for number in range(1000):
            writer.append(batch(f"line {number}", number))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 11_000
    kept = texts(tmp_path)
    assert kept[-1] == "line 999"
    assert len(kept) > 30
    assert kept == [f"line {number}" for number in range(1000 - len(kept), 1000)]


def test_a_part_is_read_from_its_end(tmp_path: Path) -> None:
    with spool.Writer(tmp_path) as writer:
        for number in range(100):
            writer.append(batch(f"line {number}", number))
    read, _ = spool.read(tmp_path, max_bytes=1000)
    assert read.events[-1].text == "line 99"
    assert 5 < len(read.events) < 20


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "7",
        '{"events": 7}',
        '{"events": {"a": 1}}',
        '{"events": [7, null, "x"]}',
        '{"events": [[]], "offset": "far", "dropped": []}',
        '{"events": [[[], {}, "when", [], "many", null, 1, 2]]}',
    ],
)
def test_an_altered_file_is_harmless(tmp_path: Path, line: str) -> None:
    (tmp_path / "events.jsonl").write_text(line + "\n")
    read, _ = spool.read(tmp_path)
    assert all(event.kind is EventKind.OTHER for event in read.events)
    assert read.offset == 0


def test_text_is_made_safe_again(tmp_path: Path) -> None:
    line = {"offset": 1, "events": [["log", "\x1b[2J\u202e", None, "\x9b", 0, 0]]}
    (tmp_path / "events.jsonl").write_text(json.dumps(line) + "\n")
    [event] = spool.read(tmp_path)[0].events
    assert event.text == "␛[2J\ufffd"
    assert event.model == "\ufffd"


def test_trouble_with_the_disk_is_told(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").mkdir()
    with pytest.raises(SwarmError):
        spool.read(tmp_path)
    with pytest.raises(SwarmError), spool.Writer(tmp_path):
        pytest.fail("it would write into a folder")
