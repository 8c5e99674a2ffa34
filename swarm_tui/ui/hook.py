"""A person's own program, called with what is to be told: one at a time, for a bounded time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

from swarm_tui.errors import SetupError, SwarmError
from swarm_tui.ui.notice import Notice

LIMIT_S: Final = 10.0
"""A program that takes longer is ended."""


class Hook:
    """The line comes on standard input and in SWARM_NOTICE, never as a part of the command."""

    def __init__(
        self,
        argv: Sequence[str],
        start: Callable[[Coroutine[Any, Any, None]], None],
        on_failure: Callable[[SwarmError], None],
        *,
        limit_s: float = LIMIT_S,
    ) -> None:
        """`start` runs a job; `on_failure` is told once, until it has worked again."""
        self._argv = argv
        self._start = start
        self._on_failure = on_failure
        self._limit_s = limit_s
        self._next: Notice | None = None
        self._is_at_work = False
        self._has_failed = False

    def call(self, notice: Notice) -> None:
        """Run it now, or once the one that runs has ended; of those that wait the last is told."""
        if not self._argv:
            return
        self._next = notice
        if not self._is_at_work:
            self._is_at_work = True
            self._start(self._work())

    async def _work(self) -> None:
        try:
            while notice := self._next:
                self._next = None
                await self._run(notice)
        finally:
            self._is_at_work = False

    async def _run(self, notice: Notice) -> None:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                env={**os.environ, **_describe(notice)},
                start_new_session=True,  # so that all of it can be ended
            )
        except OSError as error:
            self._fail(f"{self._argv[0]}: {error.strerror}", error)
            return
        try:
            async with asyncio.timeout(self._limit_s):
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    await process.communicate(f"{notice.line}\n".encode())
                status = await process.wait()
        except TimeoutError as error:
            self._fail(f"{self._argv[0]} did not end within {self._limit_s:.0f} s", error)
            return
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if status != 0:
            self._fail(f"{self._argv[0]} ended with {status}", None)
        else:
            self._has_failed = False

    def _fail(self, why: str, cause: BaseException | None) -> None:
        if self._has_failed:
            return
        self._has_failed = True
        error = SetupError("The command for notices fails", why, "See ui.notify_command.")
        error.__cause__ = cause
        self._on_failure(error)


def _describe(notice: Notice) -> Mapping[str, str]:
    counts = {f"SWARM_{topic.upper()}": str(count) for topic, count in notice.counts.items()}
    return {
        "SWARM_ASKS": "0",
        "SWARM_FAILURES": "0",
        "SWARM_DONE": "0",
        **counts,
        "SWARM_NOTICE": notice.line,
    }
