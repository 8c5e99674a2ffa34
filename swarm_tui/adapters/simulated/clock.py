"""The time of a simulated swarm: the real one, or one that stands still until it is told to go."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """Where a simulated swarm reads the time, and waits."""

    def wall(self) -> float:
        """Unix seconds."""
        ...

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back."""
        ...

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        """Call once the monotonic time `when` has come, on the event loop."""
        ...


class RealClock:
    def wall(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        # asyncio's loops count in time.monotonic() too.
        asyncio.get_running_loop().call_at(when, callback)


class ManualClock:
    """Time that passes only by `advance`; for tests and screenshots."""

    def __init__(self, wall: float = 1_767_268_800.0) -> None:
        """`wall` is where it starts: by default noon (UTC) on 1 January 2026."""
        self._wall = wall
        self._monotonic = 0.0
        self._calls: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def wall(self) -> float:
        return self._wall + self._monotonic

    def monotonic(self) -> float:
        return self._monotonic

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        heapq.heappush(self._calls, (when, next(self._order), callback))

    def advance(self, seconds: float) -> None:
        """Let time pass; what falls due on the way is called at its moment, in order.

        Whoever waited goes on when the event loop runs next.
        """
        end = self._monotonic + seconds
        while self._calls and self._calls[0][0] <= end:
            when, _, callback = heapq.heappop(self._calls)
            self._monotonic = max(self._monotonic, when)
            callback()
        self._monotonic = end
