"""Files on this side of a guest's command: its output under a cap, and its input in pieces."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol

from swarm_tui.errors import GuestFailed, SetupError, StorageFull

OUTPUT_BYTES: Final = 1 << 20
"""Kept of each output stream that does not go into a file."""
PIECE_BYTES: Final = 256 << 10


class Sink(Protocol):
    """Where standard output goes."""

    def add(self, data: bytes) -> None:
        """Raises SwarmError when it takes no more: then the command is stopped."""
        ...


class Memory:
    """Keeps the first `OUTPUT_BYTES`."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.is_truncated = False

    def add(self, data: bytes) -> None:
        room = OUTPUT_BYTES - len(self.content)
        self.content += data[:room]
        self.is_truncated = self.is_truncated or len(data) > room


class Spool:
    """A new file for its owner alone, of at most `limit_bytes`; removed when the block raises."""

    def __init__(self, target: Path, limit_bytes: int, on_bytes: Callable[[int], None]) -> None:
        self._target = target
        self._limit_bytes = limit_bytes
        self._on_bytes = on_bytes
        self._total = 0

    def __enter__(self) -> Spool:
        with self._mapped():
            self._target.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            self._handle = os.open(self._target, flags, 0o600)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._handle)
        if error:
            self._target.unlink(missing_ok=True)

    def add(self, data: bytes) -> None:
        if self._total + len(data) > self._limit_bytes:
            raise GuestFailed(
                "The guest sends more than allowed",
                f"It was stopped after {self._limit_bytes:,} bytes.",
            )
        with self._mapped():
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._handle, rest) :]
        self._total += len(data)
        self._on_bytes(self._total)

    @contextlib.contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            detail = f"{self._target}: {error.strerror}"
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageFull("No room for what the guest sends", detail) from error
            raise SetupError("What the guest sends cannot be written", detail) from error


class Upload:
    """A file that is sent in pieces, as the other side takes them."""

    def __init__(self, source: Path, on_bytes: Callable[[int], None]) -> None:
        self._source = source
        self._on_bytes = on_bytes
        self._total = 0

    def __enter__(self) -> Upload:
        with self._mapped():
            self._handle = os.open(self._source, os.O_RDONLY)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)

    def read(self) -> bytes:
        """The next piece; empty at the end."""
        with self._mapped():
            piece = os.read(self._handle, PIECE_BYTES)
        self._total += len(piece)
        self._on_bytes(self._total)
        return piece

    @contextlib.contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            detail = f"{self._source}: {error.strerror}"
            raise SetupError("What is to be sent cannot be read", detail) from error
