"""A screen whose rows are read again and again, at their own pace: others act, too."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import suppress
from typing import ClassVar

from swarm_tui.errors import SwarmError
from swarm_tui.model import AgentId
from swarm_tui.ui.screen import Context, SwarmScreen


class ReadingScreen(SwarmScreen):
    """What could not be read is told once. Of no agent that could be steered, unless it says so."""

    READ_S: ClassVar[float]
    """Seconds between two readings."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._is_read = False
        self._problem: SwarmError | None = None
        self._wanted = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    async def read(self) -> None:
        """Take in what is there now. Raises SwarmError."""
        raise NotImplementedError

    def show_read(self) -> None:
        """Show it, or that it cannot be read."""
        raise NotImplementedError

    def begin_reading(self) -> None:
        self._reading = asyncio.create_task(self._read_on(), name=f"read {self.PLACE}")

    def read_again(self) -> None:
        """Do not wait for the next reading: something was done."""
        self._wanted.set()

    def on_unmount(self) -> None:
        if self._reading:
            self._reading.cancel()

    def aims(self) -> Collection[AgentId]:
        return []

    def current(self) -> AgentId | None:
        return None

    def tick(self, dirty: set[AgentId], *, hosts_changed: bool, rearranged: bool) -> None:
        pass  # it is read at its own pace

    async def _read_on(self) -> None:
        while True:
            self._wanted.clear()
            problem: SwarmError | None = None
            try:
                await self.read()
                self._is_read = True
            except SwarmError as error:
                problem = error
            if problem and not self._problem:
                self.context.show_error(problem)
            self._problem = problem
            self.show_read()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), self.READ_S)
