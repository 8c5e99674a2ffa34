"""A real terminal for tests: a program in tmux, its keys, and what its screen shows."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

DEADLINE_S = 30.0


class Terminal:
    """One tmux server of its own, with one window at first, in which a command runs."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        columns: int = 120,
        lines: int = 36,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._socket = f"swarm-test-{uuid.uuid4().hex[:8]}"
        self._size = ("-x", str(columns), "-y", str(lines))
        # The window stays after the program has ended, with its status on the screen.
        self._command = f"{shlex.join(command)}; echo exit status $?; exec sleep 600"
        self._environ = {**os.environ, **(environ or {}), "TERM": "tmux-256color"}
        self._environ.pop("TMUX", None)

    def __enter__(self) -> Self:
        self.tmux("-f", "/dev/null", "new-session", "-d", "-s", "test", *self._size, self._command)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        print(self.screen())  # pytest shows it when the test has failed
        subprocess.run(
            ["tmux", "-L", self._socket, "kill-server"], capture_output=True, check=False
        )

    def tmux(self, *arguments: str) -> str:
        done = subprocess.run(
            ["tmux", "-u", "-L", self._socket, *arguments],
            env=self._environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"tmux {arguments}: {done.stderr}"
        return done.stdout

    def press(self, *keys: str) -> None:
        """Send keys by tmux's names: "p", "Enter", "Escape", "C-c"."""
        for key in keys:
            self.tmux("send-keys", "-t", "test", key)

    def type(self, text: str) -> None:
        self.tmux("send-keys", "-t", "test", "-l", text)

    def screen(self) -> str:
        """What the current window shows, as plain text."""
        return self.tmux("capture-pane", "-p", "-t", "test")

    def windows(self) -> int:
        return len(self.tmux("list-windows", "-t", "test").splitlines())

    def exit_status(self) -> int | None:
        """The program's exit status, None while it runs."""
        found = re.search(r"^exit status (\d+)$", self.screen(), re.MULTILINE)
        return int(found[1]) if found else None

    def resize(self, columns: int, lines: int) -> None:
        self.tmux("resize-window", "-t", "test", "-x", str(columns), "-y", str(lines))

    def wait_for(self, wanted: str | Callable[[str], bool], timeout_s: float = DEADLINE_S) -> str:
        """Wait until the screen holds a text, or satisfies a condition; returns the screen."""
        deadline = time.monotonic() + timeout_s
        while True:
            screen = self.screen()
            if wanted in screen if isinstance(wanted, str) else wanted(screen):
                return screen
            assert time.monotonic() < deadline, f"not on the screen: {wanted}\n{screen}"
            time.sleep(0.05)
