"""This process's own terminal (or pipes), lent to a guest for a shell.

Nothing here knows SSH: it reads keys and writes output without ever blocking the event loop, and
gives the terminal back as it was, whatever happens in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import locale
import os
import signal
import struct
import termios
import tty
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Final, Literal

from swarm_tui.adapters.escape import OutputFilter

CHUNK_BYTES: Final = 64 << 10
LEAVE_STATUS: Final = 255
"""Exit status after the escape keys, as ssh has it."""

_ENTER: Final = (b"\r", b"\n")

Size = tuple[int, int, int, int]
"""Columns, rows, width and height in pixels (0 where unknown)."""


class Terminal:
    """Standard input, output and error of this process. Use as a context manager, once.

    With a terminal on both input and output it is interactive: `lend` puts it into raw mode, and
    Enter ~ . leaves a session that hangs (Enter ~ ~ sends one ~), as in ssh. Otherwise bytes pass
    unchanged both ways.
    """

    def __init__(self, stdin: int = 0, stdout: int = 1, stderr: int = 2) -> None:
        self._stdin, self._stdout, self._stderr = stdin, stdout, stderr
        self.is_interactive: Final = os.isatty(stdin) and os.isatty(stdout)
        self.left_with: int | None = None
        """Exit status, once the person or a signal has ended the session from this side."""
        is_utf8 = locale.getencoding().lower().replace("-", "") == "utf8"
        self._filters = {
            file: OutputFilter(is_utf8=is_utf8) for file in (stdout, stderr) if os.isatty(file)
        }
        self._typed: Literal["start", "tilde", "line"] = "start"
        # One thread keeps the order, and a terminal that takes no output blocks only that one.
        self._writer = ThreadPoolExecutor(1, "terminal-out")
        self._reader = ThreadPoolExecutor(1, "terminal-in")

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._writer.shutdown()
        self._reader.shutdown()

    @property
    def kind(self) -> str:
        return os.environ.get("TERM") or "dumb"

    def size(self) -> Size:
        rows, columns, width, height = struct.unpack(
            "4H", fcntl.ioctl(self._stdout, termios.TIOCGWINSZ, bytes(8))
        )
        return columns or 80, rows or 24, width, height

    @contextlib.contextmanager
    def lend(self, on_size: Callable[[Size], None], on_leave: Callable[[], None]) -> Iterator[None]:
        """Raw mode, where there is a terminal; at every end it is restored.

        `on_size` is told each new size of the window; `on_leave` that the session must end, after
        `left_with` was set. Only in the main thread, because signals are handled meanwhile.
        """

        def leave(status: int) -> None:
            self.left_with = status
            on_leave()

        handlers: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGTERM: lambda: leave(128 + signal.SIGTERM),
            signal.SIGHUP: lambda: leave(128 + signal.SIGHUP),
        }
        saved = None
        if self.is_interactive:
            handlers[signal.SIGWINCH] = lambda: on_size(self.size())
            saved = termios.tcgetattr(self._stdin)
        try:
            with _signals(handlers):
                if self.is_interactive:
                    tty.setraw(self._stdin)
                yield
        finally:
            self._give_back(saved)

    async def read(self) -> bytes:
        """What was typed or piped in, as soon as there is any; empty at the end.

        Sets `left_with` when the person asked to leave, or the terminal is gone.
        """
        while self.left_with is None:
            data = await self._read_some()
            if not self.is_interactive:
                return data
            if not data:
                self.left_with = 128 + signal.SIGHUP
            elif keys := self._watch_for_escape(data):
                return keys
        return b""

    async def _read_some(self) -> bytes:
        try:
            await readable(self._stdin)
        except PermissionError:  # a plain file is always ready, and epoll refuses it
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._reader, os.read, self._stdin, CHUNK_BYTES)
        try:
            return os.read(self._stdin, CHUNK_BYTES)
        except OSError:  # a terminal that was hung up
            return b""

    async def write(self, data: bytes) -> None:
        """To standard output, filtered where that is a terminal; see `write_error`."""
        await self._put(self._stdout, data)

    async def write_error(self, data: bytes) -> None:
        """To standard error. Sets `left_with` when nobody reads the output any more."""
        await self._put(self._stderr, data)

    async def _put(self, file: int, data: bytes) -> None:
        if file in self._filters:
            data = self._filters[file].feed(data)
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._writer, _write, file, data)
        except OSError:
            self.left_with = 128 + signal.SIGPIPE

    def _give_back(self, saved: list[Any] | None) -> None:
        # A terminal that is gone needs nothing back.
        for file, output_filter in self._filters.items():
            with contextlib.suppress(OSError):
                self._writer.submit(_write, file, output_filter.restore()).result()
        if saved:
            with contextlib.suppress(termios.error):
                # FLUSH: a late answer to a guest's question must not be typed into the user's shell
                termios.tcsetattr(self._stdin, termios.TCSAFLUSH, saved)

    def _watch_for_escape(self, typed: bytes) -> bytes:
        """Take Enter ~ . and Enter ~ ~ out of what was typed."""
        if self._typed == "line" and b"~" not in typed:
            self._typed = "start" if typed[-1:] in _ENTER else "line"
            return typed
        sent = bytearray()
        for key in (typed[at : at + 1] for at in range(len(typed))):
            if self._typed == "tilde":
                if key == b".":
                    self.left_with = LEAVE_STATUS
                    return b""
                sent += key if key == b"~" else b"~" + key
            elif self._typed == "start" and key == b"~":
                self._typed = "tilde"  # held back: the next key decides what it means
                continue
            else:
                sent += key
            self._typed = "start" if key in _ENTER else "line"
        return bytes(sent)


@contextlib.contextmanager
def _signals(handlers: dict[signal.Signals, Callable[[], None]]) -> Iterator[None]:
    """Handle signals on the event loop; afterwards each has its earlier handler again.

    Not by `add_signal_handler`, which would forget a handler that the program has there.
    """
    loop = asyncio.get_running_loop()
    earlier = {}
    try:
        for number, handler in handlers.items():
            earlier[number] = signal.signal(
                number, lambda *_, handler=handler: loop.call_soon_threadsafe(handler)
            )
        yield
    finally:
        for number, handler_before in earlier.items():
            signal.signal(number, handler_before or signal.SIG_DFL)


async def readable(file: int) -> None:
    """Wait until there is something to read. Raises PermissionError for a plain file."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(file, wake)
    try:
        await ready
    finally:
        loop.remove_reader(file)


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
