"""Writing one agent's log, by one process at a time."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from swarm_tui import durable
from swarm_tui.errors import SwarmError
from swarm_tui.model import EventBatch
from swarm_tui.spool.frame import decode, encode, whole_bytes
from swarm_tui.spool.segment import OLD, OPEN, Segment, close_name, pack, segments

SEGMENT_BYTES: Final = 4 << 20
_LOOK_BYTES: Final = 64 << 10
TRY_AGAIN_S: Final = 30.0
"""After a failure, e.g. on a full disk."""


class Writer:
    """Appends batches of one agent, as long as no other process does."""

    def __init__(self, folder: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._path = folder / OPEN
        self.segment_bytes = segment_bytes
        self._lock: int | None = None
        self._is_ours = False
        self._size = 0
        self._unwritten = 0
        self._rests_until = 0.0
        self._busy = threading.Lock()
        """Held while a thread writes: nobody may take the log over before that is done."""

    def __enter__(self) -> Self:
        """As `open`."""
        self.open()
        return self

    def open(self) -> None:
        """Become the writer if nobody else is. Raises StorageFull, SnapshotError."""
        with durable.storage("keep the agent's log"):
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o711)
            flags = os.O_RDWR | os.O_CREAT
            self._lock = os.open(self._path.with_suffix(".lock"), flags, 0o600)
        self._is_ours = self._take()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        with self._busy:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None
            self._is_ours = False

    @property
    def is_full(self) -> bool:
        """Whether the open segment should be closed: see `turn`."""
        return self._is_ours and self._size >= self.segment_bytes

    @property
    def is_resting(self) -> bool:
        """Whether what comes is only counted, because writing has failed a moment ago."""
        return time.monotonic() < self._rests_until

    def append(self, batch: EventBatch) -> None:
        """Add a batch, unless another process keeps this log.

        Raises StorageFull or SnapshotError once; what comes then is counted, and after a while
        writing is tried again. The count stands before what is written next.
        """
        with self._busy:
            self._append(batch)

    def _append(self, batch: EventBatch) -> None:
        if self.is_resting:
            self._unwritten += _lines(batch)
            return
        try:
            self._is_ours = self._is_ours or self._take()
            if not self._is_ours:
                return
            content = encode(batch, self._unwritten)
            with durable.storage("keep the agent's log"):
                self._write(content)
        except SwarmError:
            self._unwritten += _lines(batch)
            self._rests_until = time.monotonic() + TRY_AGAIN_S
            raise
        self._unwritten = 0

    def turn(self) -> None:
        """Close the open segment and compress it; takes as long as that.

        Raises StorageFull, SnapshotError; nothing is lost then.
        """
        with self._busy:
            self._turn()

    def _turn(self) -> None:
        if not self._is_ours:
            return
        with durable.storage("keep the agent's log"):
            content = self._path.read_bytes()
            lines = sum(frame.lines for _, frame in decode(content))
            number = max((segment.number for segment in self._closed()), default=0) + 1
            closed = self._path.with_name(close_name(number, lines))
            os.rename(self._path, closed)
            self._size = 0
            pack(closed)

    def _write(self, content: bytes) -> None:
        handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            size = os.fstat(handle).st_size
            rest = memoryview(content)
            try:
                while rest:
                    rest = rest[os.write(handle, rest) :]
            except OSError:
                os.ftruncate(handle, size)  # no half of a frame stays
                raise
            self._size = size + len(content)
        finally:
            os.close(handle)

    def _take(self) -> bool:
        """Take over the log if nobody has it, e.g. because the process that had it ended."""
        if self._lock is None:
            return False
        with durable.storage("keep the agent's log"):
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            self._mend()
        return True

    def _mend(self) -> None:
        """Cut off what the last writer did not write to its end: the guest is asked for it again.

        Packing that was cut off is done.
        """
        for left in self._path.parent.glob("log-*.packing"):
            left.unlink(missing_ok=True)
        for segment in self._closed():
            raw = segment.path.with_suffix(".raw")
            if segment.path.suffix == ".gz":
                raw.unlink(missing_ok=True)
            elif segment.path.name != OLD:
                pack(raw)
        try:
            self._size = self._path.stat().st_size
        except FileNotFoundError:
            self._size = 0
            return
        if not self._ends_whole():
            content = self._path.read_bytes()
            self._size = whole_bytes(content)
            os.truncate(self._path, self._size)

    def _ends_whole(self) -> bool:
        """Whether the last frame is there to its end; a look at the file's end, mostly."""
        with open(self._path, "rb") as file:
            file.seek(max(0, self._size - _LOOK_BYTES))
            tail = file.read()
        start = tail.rfind(b"\n\x1e") + 1
        return whole_bytes(tail, start) == len(tail)

    def _closed(self) -> list[Segment]:
        return [segment for segment in segments(self._path.parent) if not segment.is_open]


def _lines(batch: EventBatch) -> int:
    return batch.raw.count(b"\n") if batch.raw else len(batch.events) + batch.dropped
