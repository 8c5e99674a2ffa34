"""The quota of all logs, full disks, and several processes at the same spool."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from swarm_tui import spool
from swarm_tui.errors import SwarmError
from swarm_tui.model import AgentId, EventBatch
from swarm_tui.spool import writer as writing

KIB = 1 << 10


def lines(number: int, count: int) -> EventBatch:
    """Lines that do not shrink much."""
    text = b"".join(b"%d %s\n" % (number * count + n, _noise(number, n)) for n in range(count))
    return EventBatch((), number + 1, 0, text, 1000.0 + number)


def _noise(number: int, n: int) -> bytes:
    return (pow(3, 1000 + number * 1009 + n * 31, 1 << 400)).to_bytes(50).hex().encode()


def fill(folder: Path, batches: int) -> None:
    with spool.Writer(folder) as writer:
        for number in range(batches):
            writer.append(lines(number, 100))
            writer.turn()


def sizes(root: Path) -> dict[str, int]:
    return {
        folder.name: sum(path.stat().st_size for path in folder.glob("*.gz"))
        for folder in root.iterdir()
        if folder.is_dir()
    }


def numbers(folder: Path) -> list[int]:
    return [int(event.text.split()[0]) for frame in spool.frames(folder) for event in frame.events]


def test_the_oldest_of_the_biggest_go_and_are_counted(tmp_path: Path) -> None:
    for name, batches in (("loud", 30), ("louder", 60), ("quiet", 3)):
        fill(tmp_path / name, batches)
    before = sizes(tmp_path)
    quota = 120 * KIB
    gone = spool.Quota(tmp_path, quota).enforce()
    after = sizes(tmp_path)
    assert sum(after.values()) <= quota
    assert sum(before.values()) - sum(after.values()) == gone.size
    assert after["quiet"] == before["quiet"]  # below its fair share
    assert abs(after["loud"] - after["louder"]) < 10 * KIB
    for name, batches in (("loud", 30), ("louder", 60)):
        kept = numbers(tmp_path / name)
        removed = spool.removed(tmp_path / name)
        assert removed.lines + len(kept) == batches * 100
        assert kept == list(range(removed.lines, batches * 100))  # the newest, without a hole
    assert spool.removed(tmp_path / "quiet") == spool.Removed()
    assert spool.Quota(tmp_path, quota).enforce() == spool.Removed()


def test_segments_shrink_where_many_share_the_quota(tmp_path: Path) -> None:
    for number in range(20):
        fill(tmp_path / f"agent-{number}", 1)
    quota = spool.Quota(tmp_path, 20 * 400 * KIB)
    quota.enforce()
    assert quota.segment_bytes == 100 * KIB


def test_what_is_there_counts_from_the_start(tmp_path: Path) -> None:
    for number in range(4):
        fill(tmp_path / f"agent-{number}", 20)
    assert sum(sizes(tmp_path).values()) > 100 * KIB
    for quota, segment_bytes in ((1600 * KIB, 100 * KIB), (100 * KIB, 64 * KIB)):
        _, writer = spool.Spool(tmp_path, quota).open(AgentId("agent-0"), 1 << 20)
        with closing(writer):
            assert writer.segment_bytes == segment_bytes
    assert sum(sizes(tmp_path).values()) <= 100 * KIB


async def test_a_log_that_is_written_stays_below_the_quota(tmp_path: Path) -> None:
    logs = spool.Spool(tmp_path, 64 * KIB)
    agent = AgentId("one")
    _, writer = logs.open(agent, 1 << 20)
    writer.segment_bytes = 10 * KIB
    with closing(writer):
        for number in range(100):
            await logs.append(writer, lines(number, 20))
            writer.segment_bytes = 10 * KIB
    assert sum(path.stat().st_size for path in (tmp_path / agent).iterdir()) < 100 * KIB
    kept = numbers(tmp_path / agent)
    assert kept[-1] == 1999
    assert spool.removed(tmp_path / agent).lines == 2000 - len(kept) > 0


def test_a_full_disk_is_told_once_and_what_was_not_written_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    was = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with spool.Writer(tmp_path) as writer:
        writer.append(lines(0, 10))
        size = (tmp_path / "events.jsonl").stat().st_size
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 500, was[1]))
            with pytest.raises(SwarmError, match="keep the agent's log"):
                writer.append(lines(1, 10))
            writer.append(lines(2, 10))  # nothing is raised again and again
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, was)
            signal.signal(signal.SIGXFSZ, ignored)
        assert (tmp_path / "events.jsonl").stat().st_size == size  # no half of a frame
        monkeypatch.setattr(writing, "TRY_AGAIN_S", 0.0)
        monkeypatch.setattr(writer, "_rests_until", 0.0)
        writer.append(lines(3, 10))
    first, second = spool.frames(tmp_path)
    assert (first.lines, first.dropped) == (10, 0)
    assert (second.lines, second.dropped) == (10, 20)


_OTHER = """
import sys
from pathlib import Path
from swarm_tui import spool
from swarm_tui.model import EventBatch
with spool.Writer(Path(sys.argv[1])) as writer:
    writer.append(EventBatch((), 7, 0, b"theirs\\n", 5.0))
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_two_processes_write_one_log_one_after_the_other(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _OTHER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdin
        assert other.stdout.readline() == b"ready\n"
        with spool.Writer(tmp_path) as writer:
            writer.append(EventBatch((), 7, 0, b"ours\n", 6.0))
            read = [event.text for event in spool.read(tmp_path)[0].events]
            assert read == ["theirs"]
            other.kill()
            other.wait()
            writer.append(EventBatch((), 14, 0, b"ours\n", 7.0))
    assert [event.text for event in spool.read(tmp_path)[0].events] == ["theirs", "ours"]
