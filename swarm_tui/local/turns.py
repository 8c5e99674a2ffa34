"""Whose turn it is where agents are made: so many at once, and their programs after them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

BEGIN_S: Final = 30.0
"""The longest that an agent's program waits for other agents; a guest waits twice as long."""


class Turns:
    """Making an agent takes a processor for most of its time, so there is a turn for each.

    When twenty are made at once, the programs of the first would take the processors from the
    last: they begin when all are there.
    """

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(os.cpu_count() or 1)
        self._making = 0
        self._is_calm = asyncio.Event()
        self._beginning: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Make an agent, when it is its turn."""
        self._making += 1
        self._is_calm.clear()
        try:
            async with self._free:
                yield
        finally:
            self._making -= 1
            if not self._making:
                self._is_calm.set()

    def begin_later(self, begin: Callable[[], Awaitable[None]]) -> None:
        """Let a new agent's program begin, when no agent is being made or waits for its turn."""

        async def wait() -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(BEGIN_S):
                    await self._is_calm.wait()
            await begin()

        beginning = asyncio.create_task(wait())
        self._beginning.add(beginning)
        beginning.add_done_callback(self._beginning.discard)
