"""A libvirt stream as a `ports.Console`.

libvirt calls back on its own thread when the stream is readable or writable; output hops to the
event loop, and reading stops while too much of it waits there, so that a guest that floods its
console costs bounded memory.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final

from swarm_tui.errors import HostError

CHUNK_BYTES: Final = 16 << 10
CHUNKS: Final = 64
"""Chunks that may wait for the reader."""

# virStreamEventType
_READABLE: Final = 1
_WRITABLE: Final = 2
_ERROR: Final = 4
_HANGUP: Final = 8
_WOULD_BLOCK: Final = -2


class StreamConsole:
    """Both ends of a non-blocking virStream that is connected to a console."""

    def __init__(self, library_error: type[Exception]) -> None:
        """`library_error` is libvirt's exception; this module does not import libvirt."""
        self._stream: Any = None
        self._library_error = library_error
        self._loop = asyncio.get_running_loop()
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._lock = threading.Lock()
        self._waiting = 0  # chunks on their way to the reader; under the lock, as all below
        self._unsent = bytearray()
        self._sent = asyncio.Event()
        self._is_over = False

    def listen(self, stream: Any) -> None:
        """Begin to read `stream`, which is non-blocking. Blocking: for a thread."""
        self._stream = stream
        self._stream.eventAddCallback(_READABLE | _ERROR | _HANGUP, self._on_stream, None)

    def abort(self) -> None:
        """Let go of the stream. Blocking: for a thread."""
        if self._stream is None:
            return
        with suppress(self._library_error):
            self._stream.eventRemoveCallback()
        with suppress(self._library_error):
            self._stream.abort()

    def end(self) -> None:
        """No more output: readers and writers that wait are let go."""
        with self._lock:
            self._is_over = True
        self._chunks.put_nowait(None)
        self._sent.set()

    async def read(self) -> AsyncIterator[bytes]:
        while (chunk := await self._chunks.get()) is not None:
            with self._lock:
                self._waiting -= 1
                if self._waiting == CHUNKS - 1:
                    self._update()
            yield chunk
        self._chunks.put_nowait(None)  # for the next reader, who shall not wait for ever

    async def write(self, data: bytes) -> None:
        with self._lock:
            if self._is_over:
                raise HostError("The console is closed", "the VM stopped, or another took it over")
            self._unsent += data
            self._sent.clear()
            self._update()
        await self._sent.wait()

    def _update(self) -> None:
        """Say what we wait for; local to libvirt, no round trip. Under the lock."""
        wanted = _ERROR | _HANGUP
        wanted |= _READABLE if self._waiting < CHUNKS else 0
        wanted |= _WRITABLE if self._unsent else 0
        with suppress(self._library_error):  # the callback is gone: the stream has ended
            self._stream.eventUpdateCallback(wanted)

    def _on_stream(self, stream: Any, events: int, _opaque: None) -> None:
        """On libvirt's thread."""
        try:
            if events & _WRITABLE:
                self._send(stream)
            if events & (_READABLE | _HANGUP):
                is_open = self._receive(stream, events)
            else:
                is_open = not events & _ERROR
        except self._library_error:
            is_open = False
        if not is_open:
            with suppress(self._library_error):
                stream.eventRemoveCallback()
            self._hop(self.end)

    def _send(self, stream: Any) -> None:
        with self._lock:
            if self._unsent:
                count = stream.send(bytes(self._unsent))
                del self._unsent[: max(0, count)]
            if not self._unsent:
                self._hop(self._sent.set)
            self._update()

    def _receive(self, stream: Any, events: int) -> bool:
        """Pass on what is there; whether there will be more."""
        chunk = stream.recv(CHUNK_BYTES)
        if chunk == _WOULD_BLOCK:
            return not events & _HANGUP
        if not chunk:
            return False
        with self._lock:
            self._waiting += 1
            self._update()
        self._hop(self._chunks.put_nowait, chunk)
        return True

    def _hop(self, work: Any, *arguments: object) -> None:
        with suppress(RuntimeError):  # the event loop is gone, and so is everybody who read
            self._loop.call_soon_threadsafe(work, *arguments)
