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


@pytest.mark.parametrize("cut", [1, 30, 70, 100, 130, 160])
def test_a_batch_that_a_crash_cut_off_is_asked_for_again(tmp_path: Path, cut: int) -> None:
    with spool.Writer(tmp_path) as writer:
        writer.append(batch("one", 10))
        size = (tmp_path / "events.jsonl").stat().st_size
        writer.append(batch("two", 20))
    with (tmp_path / "events.jsonl").open("r+b") as file:
        file.truncate(min(size + cut, file.seek(0, 2) - 1))
    assert texts(tmp_path) == ["one"]
    assert spool.read(tmp_path)[0].offset == 10  # where the guest is asked to go on
    with spool.Writer(tmp_path) as writer:
        writer.append(batch("two", 20))
    assert texts(tmp_path) == ["one", "two"]


def test_lines_are_kept_as_the_guest_wrote_them_and_read_safely(tmp_path: Path) -> None:
    raw = b'{"kind":"log","text":"\\u001b[31m red"}\n\x1b]52;c;x\x07 junk\n\x1e{"bytes": 5}\n\n'
    with spool.Writer(tmp_path) as writer:
        writer.append(EventBatch((), 100, 3, raw, 1234.5))
        writer.append(batch("after", 110))
    first, second = spool.frames(tmp_path)
    assert [event.text for event in first.events] == [
        "␛[31m red",
        "␛]52;c;x␇ junk",
        '?{"bytes": 5}',
    ]
    assert (first.lines, first.heard, first.dropped) == (3, 1234.5, 0)
    assert spool.account(tmp_path).lines == 5  # a blank one, too
    assert {event.heard for event in first.events} == {1234.5}
    assert second.events == batch("after", 0).events


def test_a_log_of_the_old_format_is_read_and_continued(tmp_path: Path) -> None:
    def old(number: int) -> str:
        event = ["log", f"old {number}", 100.0 + number, "", 0, 0]
        return json.dumps({"offset": number, "dropped": 0, "events": [event]}) + "\n"

    (tmp_path / "events.1.jsonl").write_text(old(1) + old(2))
    (tmp_path / "events.jsonl").write_text(old(3))
    with spool.Writer(tmp_path) as writer:
        writer.append(batch("new", 4))
        assert texts(tmp_path) == ["old 1", "old 2", "old 3", "new"]
        assert spool.account(tmp_path).lines == 4
        writer.turn()
        writer.append(batch("newer", 5))
    assert texts(tmp_path) == ["old 1", "old 2", "old 3", "new", "newer"]
    assert [frame.offset for frame in spool.frames(tmp_path, since=102.0)] == [2, 3]


def test_closed_segments_are_small_and_in_order(tmp_path: Path) -> None:
    with spool.Writer(tmp_path, segment_bytes=5000) as writer:
        for number in range(1000):
            writer.append(batch(f"line {number}", number))
            if writer.is_full:
                writer.turn()
    packed = list(tmp_path.glob("log-*.gz"))
    assert len(packed) > 10
    assert sum(path.stat().st_size for path in packed) < 1000 * 60
    assert texts(tmp_path) == [f"line {number}" for number in range(1000)]
    assert spool.account(tmp_path).lines == 1000
    back = [frame.offset for frame in spool.frames(tmp_path, is_backwards=True)]
    assert back == list(reversed(range(1000)))
    assert [frame.offset for frame in spool.frames(tmp_path, offset=997)] == [998, 999]


def test_packing_that_was_cut_off_is_done_by_the_next_writer(tmp_path: Path) -> None:
    with spool.Writer(tmp_path) as writer:
        writer.append(batch("one", 10))
    (tmp_path / "events.jsonl").rename(tmp_path / "log-00000001.1.raw")
    (tmp_path / "log-00000001.1.packing").write_bytes(b"half")
    assert texts(tmp_path) == ["one"]
    with spool.Writer(tmp_path) as writer:
        writer.append(batch("two", 20))
    assert [path.name for path in tmp_path.glob("log-*")] == ["log-00000001.1.gz"]
    assert texts(tmp_path) == ["one", "two"]


def test_a_part_is_read_from_its_end(tmp_path: Path) -> None:
    with spool.Writer(tmp_path) as writer:
        for number in range(100):
            writer.append(batch(f"line {number}", number))
    read, _ = spool.read(tmp_path, max_bytes=1000)
    assert read.events[-1].text == "line 99"
    assert 3 < len(read.events) < 20


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
