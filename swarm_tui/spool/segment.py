"""The files that an agent's log consists of."""

from __future__ import annotations

import gzip
import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from swarm_tui import durable

OPEN: Final = "events.jsonl"
OLD: Final = "events.1.jsonl"
_CLOSED: Final = re.compile(r"log-(\d{8})\.(\d+)\.(gz|raw)")
_LEVEL: Final = 1
"""zlib's quickest: logs shrink to a tenth with it, and hardly more with the others."""
MOST_BYTES: Final = 64 << 20
"""No segment has more than this; one that was altered to unpack to more is cut there."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One file; `number` orders them, the open one is last."""

    path: Path
    number: int
    lines: int | None
    """None: not known without reading it."""
    size: int
    """Bytes on disk."""

    @property
    def is_open(self) -> bool:
        return self.path.name == OPEN

    def content(self, tail: int | None = None) -> bytes:
        """All of it, or as much from its end; empty when it was removed meanwhile.

        Raises SnapshotError.
        """
        with durable.storage("read the agent's log"):
            try:
                if self.path.suffix == ".gz":
                    return _unpack(self.path)
                with open(self.path, "rb") as file:
                    if tail is not None:
                        size = file.seek(0, os.SEEK_END)
                        file.seek(max(0, size - tail))
                    return file.read(tail if tail is not None else MOST_BYTES)
            except FileNotFoundError:
                packed = self.path.with_suffix(".gz")  # it may have been closed or packed meanwhile
                return _unpack(packed) if packed != self.path and packed.exists() else b""


def segments(folder: Path) -> list[Segment]:
    """The oldest first. Raises SnapshotError."""
    found: dict[int, Segment] = {}
    last: list[Segment] = []
    with durable.storage("read the agent's log"):
        try:
            entries = list(os.scandir(folder))
        except (FileNotFoundError, NotADirectoryError):
            return []
        for entry in entries:
            closed = _CLOSED.fullmatch(entry.name)
            if not closed and entry.name not in (OPEN, OLD):
                continue
            try:
                size = entry.stat().st_size
            except FileNotFoundError:
                continue
            path = folder / entry.name
            if closed:
                number = int(closed[1])
                # Both are there when packing was cut off before the raw one was removed.
                if number not in found or closed[3] == "gz":
                    found[number] = Segment(path, number, int(closed[2]), size)
            elif entry.name == OLD:
                found[0] = Segment(path, 0, None, size)
            else:
                last.append(Segment(path, 10**9, None, size))
    return [*(found[number] for number in sorted(found)), *last]


def close_name(number: int, lines: int) -> str:
    return f"log-{number:08}.{lines}.raw"


def pack(path: Path) -> Path:
    """Compress a closed segment; readers see it whole at any moment. Raises OSError."""
    packed = path.with_suffix(".gz")
    temporary = path.with_suffix(".packing")
    try:
        with open(temporary, "wb") as file:
            file.write(gzip.compress(path.read_bytes(), _LEVEL, mtime=0))
        os.rename(temporary, packed)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    path.unlink(missing_ok=True)
    return packed


def _unpack(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            return file.read(MOST_BYTES)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise OSError(f"{path}: {error}") from error
