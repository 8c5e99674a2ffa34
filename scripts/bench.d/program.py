"""A program in a terminal of its own (a pty): its start, its keys, its output, its cost."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import resource
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_PLACE_OR_MARK: Final = re.compile(rb"\x1b\[(\d+);\d+H|\xe2\x96\x8c|\xe2\x94\x8f")
"""A move of the terminal's cursor, or what marks the selected agent: ▌ in the table, ┏ on tiles."""
_NAME: Final = re.compile(r"┏. \S ([\w-]+)|▌.\S ([\w-]+)")
"""That mark, a mark of the selection or none, the glyph of the state, and the agent's name."""
_STYLE: Final = re.compile(r"\x1b\[[\d;]*m")
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class Program:
    """Runs a command in a pty of 200 columns and 50 lines and reads all that it writes."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        self._command = command
        self._environ = {
            **environ,
            "TERM": "xterm-256color",
            "COLORTERM": "truecolor",
            "LANG": "C.UTF-8",
        }
        self.output = b""
        """All that was written since the last `clear`."""

    def __enter__(self) -> Self:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
        self.started = time.perf_counter()
        self._process = subprocess.Popen(
            self._command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=self._environ,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.send_signal(signal.SIGTERM)
        end = time.perf_counter() + 10
        with contextlib.suppress(EOFError):
            while time.perf_counter() < end:  # it may wait until its last words are read
                self.read(0.1)
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    def clear(self) -> None:
        self.output = b""

    def press(self, key: str) -> None:
        os.write(self._master, key.encode())

    def read(self, seconds: float) -> bool:
        """Take in what comes next; False when nothing came within `seconds`.

        Raises EOFError when the program has ended.
        """
        if not select.select([self._master], [], [], max(0.0, seconds))[0]:
            return False
        try:
            self.output += os.read(self._master, 1 << 16)
        except OSError as error:
            raise EOFError(f"the program ended:\n{self.text()[-2000:]}") from error
        return True

    def drain(self, seconds: float) -> None:
        """Let it run for a while, and throw its output away."""
        end = time.perf_counter() + seconds
        while (rest := end - time.perf_counter()) > 0:
            self.read(rest)
            self.clear()

    def wait_for(self, wanted: re.Pattern[bytes], seconds: float) -> float:
        """When the output first matched. Raises TimeoutError."""
        end = time.perf_counter() + seconds
        while not wanted.search(self.output):
            if not self.read(end - time.perf_counter()):
                raise TimeoutError(f"{wanted.pattern!r} did not come:\n{self.text()[-2000:]}")
        return time.perf_counter()

    def wait_for_end(self, seconds: float) -> None:
        """Wait until the program has ended by itself. Raises TimeoutError."""
        end = time.perf_counter() + seconds
        try:
            while time.perf_counter() < end:
                self.read(0.1)
                self.clear()
        except EOFError:
            return
        raise TimeoutError("it did not end")

    def selected_row(self) -> int | None:
        """The screen's row on which the selected agent was last drawn, in the output so far."""
        row = found = None
        for match in _PLACE_OR_MARK.finditer(self.output):
            if match[1]:
                row = int(match[1])
            elif row is not None:
                found = row
        return found

    def selected_name(self) -> str | None:
        """The name of the selected agent as it was last drawn, in the output so far."""
        names = _NAME.findall(_STYLE.sub("", self.text()))
        return "".join(names[-1]) if names else None

    def text(self) -> str:
        return self.output.decode(errors="replace")

    @property
    def pid(self) -> int:
        return self._process.pid

    def code(self, seconds: float = 5.0) -> int | None:
        """Its exit code; None when it has not ended by then."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def cpu_seconds(self) -> float:
        """User and system time of the process and all of its threads."""
        return cpu_seconds(self._process.pid)

    def memory_mb(self) -> float:
        """Resident size, in 10^6 bytes."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found
        return int(found[1]) * 1024 / 1e6


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and all of its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


@dataclass(frozen=True)
class Run:
    """A whole process: seconds on the wall and on the CPU."""

    wall_s: float
    cpu_s: float


def run_whole(command: Sequence[str], environ: Mapping[str, str]) -> Run:
    """Run a command, its output thrown away. Raises RuntimeError when it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    done = subprocess.run(command, env=environ, capture_output=True, check=False)
    wall_s = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.decode(errors='replace')}")
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(wall_s, cpu_s)
