"""A pseudo-terminal for tests: what a program writes to it, and keys for the program."""

from __future__ import annotations

import os
import pty
import select
import time
from collections.abc import Callable


class Terminal:
    """A program in a pseudo-terminal of its own."""

    def __init__(self, argv: list[str]) -> None:
        self.heard = b""
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.environ.update(TERM="xterm-256color", LINES="24", COLUMNS="80")
            os.execv(argv[0], argv)
        self._heard_something = select.poll()
        self._heard_something.register(self.master, select.POLLIN)

    def until(self, holds: Callable[[bytes], bool]) -> bytes:
        """What was heard from here on, once it holds; for at most ten seconds."""
        self.heard = b""
        deadline = time.monotonic() + 10
        while not holds(self.heard):
            assert time.monotonic() < deadline, self.heard[-2000:]
            if self._heard_something.poll(50):
                self.heard += os.read(self.master, 65536)
        return self.heard

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def end(self) -> None:
        """Hang up, and wait for the program's end."""
        os.close(self.master)
        os.waitpid(self.pid, 0)
