"""What guests told us, kept on disk, so that logs survive a restart and the next reader goes on
at the byte where the last one stopped.

One file an agent, one JSON line a batch of events, in two generations of bounded size. One process
at a time writes it; others only read. Text in it is sanitized already, and is sanitized again when
it is read, because files can be altered.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

from swarm_tui import durable
from swarm_tui.model import EventBatch, EventKind, GuestEvent
from swarm_tui.text import sanitize

MAX_BYTES: Final = 4 << 20
"""Size of one generation; at most twice this is kept for each agent."""


def read(folder: Path, max_bytes: int = 1 << 20) -> tuple[EventBatch, float | None]:
    """The newest spooled events of an agent, and when the last was written (None: never).

    Raises SnapshotError when they cannot be read.
    """
    events: list[GuestEvent] = []
    offset, dropped = 0, 0
    for raw in _lines(folder, max_bytes):
        spooled = raw.get("events")
        if isinstance(spooled, list):
            events.extend(_event(fields) for fields in spooled if isinstance(fields, list))
        offset = raw["offset"] if isinstance(raw.get("offset"), int) else offset
        dropped += raw["dropped"] if isinstance(raw.get("dropped"), int) else 0
    try:
        written = (folder / "events.jsonl").stat().st_mtime
    except FileNotFoundError:
        written = None
    return EventBatch(tuple(events), offset, dropped), written


class Writer:
    """Appends batches of one agent, as long as no other process does."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "events.jsonl"
        self._lock: int | None = None
        self._is_ours = False

    def __enter__(self) -> Self:
        """Raises StorageFull, SnapshotError."""
        with durable.storage("keep the agent's log"):
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o711)
            flags = os.O_RDWR | os.O_CREAT
            self._lock = os.open(self._path.with_suffix(".lock"), flags, 0o600)
        self._is_ours = self._take()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def append(self, batch: EventBatch) -> None:
        """Add a batch, unless another process keeps this log. Raises StorageFull, SnapshotError."""
        self._is_ours = self._is_ours or self._take()
        if not self._is_ours:
            return
        line = {
            "offset": batch.offset,
            "dropped": batch.dropped,
            "events": [
                [event.kind, event.text, event.at, event.model, event.tokens_in, event.tokens_out]
                for event in batch.events
            ],
        }
        with durable.storage("keep the agent's log"):
            with open(self._path, "ab") as file:
                file.write(json.dumps(line).encode() + b"\n")
                size = file.tell()
            if size > MAX_BYTES:
                os.replace(self._path, self._path.with_suffix(".1.jsonl"))

    def _take(self) -> bool:
        """Take over the log if nobody has it, e.g. because the process that had it ended."""
        if self._lock is None:
            return False
        with durable.storage("keep the agent's log"):
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            with open(self._path, "ab+") as file:
                if file.tell() and not _ends_line(file):
                    file.write(b"\n")  # its last writer was cut off in the middle of a line
        return True


def _ends_line(file: IO[bytes]) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _lines(folder: Path, max_bytes: int) -> Iterator[dict[str, Any]]:
    chunks: list[bytes] = []
    room = max_bytes
    for name in ("events.jsonl", "events.1.jsonl"):
        with durable.storage("read the agent's log"):
            try:
                chunks.insert(0, _tail(folder / name, room))
            except FileNotFoundError:
                continue
        room -= len(chunks[0])
        if room <= 0:
            break
    for line in b"".join(chunks).splitlines():
        try:
            raw = json.loads(line)
        except ValueError:
            continue  # the first line is cut where reading began, the last by a crash
        if isinstance(raw, dict):
            yield raw


def _tail(path: Path, max_bytes: int) -> bytes:
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - max_bytes))
        return file.read(max_bytes)


def _event(fields: list[Any]) -> GuestEvent:
    kind, text, at, model, tokens_in, tokens_out = (fields + [None] * 6)[:6]
    return GuestEvent(
        kind=EventKind(kind) if kind in list(EventKind) else EventKind.OTHER,
        text=sanitize(str(text)),
        at=at if isinstance(at, int | float) else None,
        model=sanitize(str(model or "")),
        tokens_in=tokens_in if isinstance(tokens_in, int) else 0,
        tokens_out=tokens_out if isinstance(tokens_out, int) else 0,
    )
