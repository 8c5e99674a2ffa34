"""How much all agents' logs may take, and what goes when they take more."""

from __future__ import annotations

import fcntl
import heapq
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from swarm_tui import durable
from swarm_tui.spool.frame import decode
from swarm_tui.spool.segment import Segment, segments
from swarm_tui.spool.writer import SEGMENT_BYTES

FEWEST_BYTES: Final = 64 << 10
"""No segment is closed before it has that much, however many agents share the quota."""
_PARTS: Final = 4
"""Of an agent's fair share, the open segment, which is never removed, takes at most such a part."""
_REMOVED: Final = "removed.json"
_LOCK: Final = ".quota.lock"


@dataclass(frozen=True, slots=True)
class Removed:
    """What the quota has cost an agent so far."""

    lines: int = 0
    size: int = 0
    """Bytes, as they were on disk."""


class Quota:
    """One bound for the logs of all agents below a folder.

    Whoever has the most loses its oldest segment, again and again until the rest fits: an agent
    below its fair share, the quota divided by the number of agents, never loses a line. Several
    processes may look after the same folder.
    """

    def __init__(self, root: Path, size: int) -> None:
        """`root` has a folder for each agent; `size` in bytes."""
        self._root = root
        self._size = size
        self.segment_bytes = SEGMENT_BYTES
        """At how many bytes a writer should close its segment; known after `enforce`."""

    def enforce(self) -> Removed:
        """Remove what is too much; what went this time. Raises StorageFull, SnapshotError."""
        with durable.storage("keep the agents' logs below their quota"):
            if not self._root.is_dir():
                return Removed()
            with self._alone() as is_alone:
                return self._remove() if is_alone else Removed()

    def _remove(self) -> Removed:
        logs = [segments(Path(entry.path)) for entry in os.scandir(self._root) if entry.is_dir()]
        logs = [log for log in logs if log]
        share = self._size // max(1, len(logs))
        self.segment_bytes = max(FEWEST_BYTES, min(SEGMENT_BYTES, share // _PARTS))
        sizes = [sum(segment.size for segment in log) for log in logs]
        excess = sum(sizes) - self._size
        biggest = [(-size, place) for place, size in enumerate(sizes)]
        heapq.heapify(biggest)
        lines = size = 0
        while excess > 0 and biggest:
            total, place = heapq.heappop(biggest)
            oldest = logs[place].pop(0)
            if oldest.is_open:
                continue  # it is all that this one has
            lost = _drop(oldest)
            lines, size, excess = lines + lost.lines, size + lost.size, excess - oldest.size
            if logs[place]:
                heapq.heappush(biggest, (total + oldest.size, place))
        return Removed(lines, size)

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Whether no other process does the same now."""
        handle = os.open(self._root / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(handle)


def removed(folder: Path) -> Removed:
    """What the quota took of one agent's log."""
    try:
        raw = json.loads((folder / _REMOVED).read_bytes())
        return Removed(int(raw["lines"]), int(raw["size"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Removed()  # it is a count for people, and nothing hangs on it


def _drop(segment: Segment) -> Removed:
    lines = segment.lines
    if lines is None:
        lines = sum(frame.lines for _, frame in decode(segment.content()))
    folder = segment.path.parent
    was = removed(folder)
    told = {"lines": was.lines + lines, "size": was.size + segment.size}
    segment.path.unlink(missing_ok=True)
    temporary = folder / f".{_REMOVED}.{os.getpid()}"
    temporary.write_text(json.dumps(told))
    os.rename(temporary, folder / _REMOVED)
    return Removed(lines, segment.size)
