"""Reading agents' logs back: the newest, from a moment on, or backwards from one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from swarm_tui.model import EventBatch, GuestEvent
from swarm_tui.spool.frame import Frame, count_lines, decode
from swarm_tui.spool.segment import OPEN, segments


def read(folder: Path, max_bytes: int = 1 << 20) -> tuple[EventBatch, float | None]:
    """The newest spooled events of an agent, and when the last was written (None: never).

    `max_bytes` are those of the lines, uncompressed. Raises SnapshotError when they cannot be read.
    """
    chosen: list[Frame] = []
    room = max_bytes
    for segment in reversed(segments(folder)):
        tail = room if segment.path.suffix != ".gz" else None
        content = segment.content(tail)
        found = [frame for _, frame in decode(content[-room:])]
        chosen[:0] = found
        room -= len(content)
        if room <= 0:
            break
    events: list[GuestEvent] = []
    for frame in chosen:
        events += frame.events
    written: float | None
    try:
        written = (folder / OPEN).stat().st_mtime
    except FileNotFoundError:
        written = next((frame.heard for frame in reversed(chosen) if frame.heard), None)
    offset = chosen[-1].offset if chosen else 0
    return EventBatch(tuple(events), offset, sum(frame.dropped for frame in chosen)), written


def frames(
    folder: Path, *, since: float = 0.0, offset: int | None = None, is_backwards: bool = False
) -> Iterator[Frame]:
    """What was heard at `since` or later, one segment in memory at a time; the newest first if
    `is_backwards`.

    With `offset`, frames that end at or before that byte of the guest's present file are left out.
    Raises SnapshotError.
    """
    listed = segments(folder)
    for segment in reversed(listed) if is_backwards else listed:
        found = [
            frame
            for _, frame in decode(segment.content())
            if frame.heard >= since and (offset is None or frame.offset > offset)
        ]
        if is_backwards:
            if not found and since:
                return
            found.reverse()
        yield from found


@dataclass(frozen=True, slots=True)
class Account:
    """What is on disk of an agent's log."""

    lines: int
    size: int
    """Bytes."""


def account(folder: Path) -> Account:
    """Counted, not guessed; the open segment is read for it. Raises SnapshotError."""
    lines = size = 0
    for segment in segments(folder):
        size += segment.size
        if segment.lines is None:
            lines += count_lines(segment.content())
        else:
            lines += segment.lines
    return Account(lines, size)
