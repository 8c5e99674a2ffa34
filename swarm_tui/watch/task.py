"""How watchers hand over what they saw, and how their tasks are started and end."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

from swarm_tui.fact import Fact

FIRST_BACK_OFF_S: Final = 0.5
LAST_BACK_OFF_S: Final = 30.0
FAULTS_KEPT: Final = 50

Apply = Callable[[Fact], bool]
OnFailure = Callable[[BaseException], None]
Start = Callable[[Coroutine[Any, Any, None], str, OnFailure | None], asyncio.Task[None]]
"""Starts a task under a name; its unexpected error is kept, and told to `OnFailure`."""


class Tasks:
    """Long ones, whose unexpected end is kept for the screen instead of vanishing."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self.faults: deque[BaseException] = deque(maxlen=FAULTS_KEPT)

    def start(
        self, work: Coroutine[Any, Any, None], name: str, on_failure: OnFailure | None = None
    ) -> asyncio.Task[None]:
        """As `Start` says."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)

        def note(ended: asyncio.Task[None]) -> None:
            self._tasks.discard(ended)
            error = self.note(ended)
            if error and on_failure:
                on_failure(error)

        task.add_done_callback(note)
        return task

    def note(self, ended: asyncio.Task[Any]) -> BaseException | None:
        """Keep the error that a task ended with, if it did."""
        error = None if ended.cancelled() else ended.exception()
        if error:
            self.faults.append(error)
        return error

    async def end(self) -> None:
        """Cancel all, and wait until they have ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
