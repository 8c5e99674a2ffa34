"""From the bytes of a guest's event file to batches of events, whatever the guest writes there."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from swarm_tui.event import LONGEST_LINE_BYTES, parse_event
from swarm_tui.model import EventBatch, GuestEvent

KEPT_LINES: Final = 2000
"""Most events of one batch, and as many again that are rarer than log lines."""
LINES_PER_S: Final = 10_000
"""Lines that all guests' logs together may cost the screen's process to read out, a second."""
QUIET_LINES: Final = 20
"""Lines of one batch that are always read out, however loud other guests are."""

_SLICE: Final = 100
"""Lines parsed before the loop gets a turn: one to two milliseconds."""
_RARE: Final = re.compile(rb'"(?:status|tool|usage|ask|done)"')


class Intake:
    """How much of all guests' logs is read out: so many lines a second, one slice at a time.

    What goes beyond is counted as dropped from memory; the bytes themselves are in the batch.
    """

    def __init__(
        self, lines_per_s: int = LINES_PER_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.turn = asyncio.Lock()
        """Held while a slice is parsed and until the loop has had its turn after it."""
        self._rate = lines_per_s
        self._clock = clock
        self._room = float(lines_per_s)
        self._filled = clock()
        self._heard = 0.0

    def grant(self, lines: int) -> int:
        """How many of a batch's lines may be read out now; at least the quiet guest's."""
        now = self._clock()
        self._room = min(self._rate, self._room + (now - self._filled) * self._rate)
        self._filled = now
        granted = min(lines, max(QUIET_LINES, int(self._room)))
        self._room = max(0.0, self._room - granted)
        return granted

    def hear(self) -> float:
        """The time of day, later each time it is asked: no two batches were heard at once."""
        self._heard = max(time.time(), self._heard + 1e-6)
        return self._heard


class Feed:
    """Takes chunks in, gives batches out; parses a bounded number of lines of bounded length."""

    def __init__(self, offset: int, intake: Intake | None = None) -> None:
        """Bytes begin at `offset`, or one byte before it unless it is 0.

        That byte tells whether a line begins at `offset`: a rest of a line is skipped. Without an
        `intake` to share, all that one batch may hold is read out.
        """
        self._intake = intake or Intake(1 << 30)
        self._position = max(0, offset - 1)
        self._is_skipping = offset > 0
        self._line = b""
        self._whole: list[bytes] = []
        """Whole lines, each with its end."""
        self._taken_to = offset

    @property
    def offset(self) -> int:
        """The byte after the last line taken in, where to go on after a reconnect."""
        return self._position if self._is_skipping else self._position - len(self._line)

    @property
    def has_news(self) -> bool:
        return self.offset > self._taken_to

    def add(self, chunk: bytes) -> None:
        self._position += len(chunk)
        if self._is_skipping:
            _, end, chunk = chunk.partition(b"\n")
            if not end:
                return
            self._is_skipping = False
        lines, end, rest = chunk.rpartition(b"\n")
        if end:
            self._whole.append(self._line + lines + end)
            self._line = rest
        else:
            self._line += rest
        if len(self._line) > LONGEST_LINE_BYTES:
            # Told at once: it may never end.
            self._whole.append(self._line[: LONGEST_LINE_BYTES + 1] + b"\n")
            self._line = b""
            self._is_skipping = True

    async def take(self) -> EventBatch:
        """All that came since the last time, parsed in slices so that the loop stays live.

        Of more lines than may be read out the newest are, and of the older ones those that change
        more than the log.
        """
        batch_offset = self._taken_to = self.offset
        raw = b"".join(self._whole)
        self._whole.clear()
        lines = [line for line in raw.split(b"\n") if line]
        older: list[bytes] = []
        if lines:
            room = min(KEPT_LINES, self._intake.grant(len(lines)))
            older, lines = lines[:-room], lines[-room:]
        rare = [line for line in older if _RARE.search(line)][-KEPT_LINES:]
        heard = self._intake.hear()
        events = await self._parse(rare, heard)
        newest = await self._parse(lines, heard)
        dropped = len(older) - len(rare)
        if dropped:
            newest[0] = replace(newest[0], missed=dropped)
        return EventBatch((*events, *newest), batch_offset, dropped, raw, heard)

    async def _parse(self, lines: list[bytes], heard: float) -> list[GuestEvent]:
        events: list[GuestEvent] = []
        for start in range(0, len(lines), _SLICE):
            async with self._intake.turn:
                events += [parse_event(line, heard) for line in lines[start : start + _SLICE]]
                await asyncio.sleep(0)
        return events
