"""From the bytes of a guest's event file to batches of events, whatever the guest writes there."""

from __future__ import annotations

import asyncio
import json
import re
from collections import deque
from typing import Any, Final

from swarm_tui.model import EventBatch, EventKind, GuestEvent
from swarm_tui.text import EMPTY, Safe, join, literal, sanitize

LONGEST_LINE_BYTES: Final = 64 << 10
KEPT_LINES: Final = 2000
"""Most events of one batch, and as many again that are rarer than log lines."""

_SLICE: Final = 100
"""Lines parsed before the loop gets a turn: one to three milliseconds."""
_EXCERPT_CELLS: Final = 400
_LATEST: Final = 253402300800.0
"""The year 10000, in Unix seconds: beyond it nothing can print a date."""
_MOST_TOKENS: Final = 10**12

_RARE: Final = re.compile(rb'"(?:status|tool|usage|ask|done)"')
_KINDS: Final = {str(kind): kind for kind in EventKind if kind is not EventKind.OTHER}
_CUT: Final = literal(f"(a line of more than {LONGEST_LINE_BYTES >> 10} KiB, cut)")

# Not strict: a raw tab inside a string is no reason to refuse a line.
_decode = json.JSONDecoder(strict=False).decode


class Feed:
    """Takes chunks in, gives batches out; holds a bounded number of lines of bounded length."""

    def __init__(self, offset: int) -> None:
        """Bytes begin at `offset`, or one byte before it unless it is 0.

        That byte tells whether a line begins at `offset`: a rest of a line is skipped.
        """
        self._position = max(0, offset - 1)
        self._is_skipping = offset > 0
        self._line = b""
        self._lines: deque[bytes] = deque()
        self._rare: deque[bytes] = deque()
        self._dropped = 0
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
        first, *others = chunk.split(b"\n")
        if not self._is_skipping:
            self._line += first
        for later in others:
            if not self._is_skipping:
                self._keep(self._line)
            self._is_skipping = False
            self._line = later
        if len(self._line) > LONGEST_LINE_BYTES:
            # Told at once: it may never end.
            self._keep(self._line)
            self._line = b""
            self._is_skipping = True

    async def take(self) -> EventBatch:
        """All that came since the last time, parsed in slices so that the loop stays live."""
        lines = [*self._rare, *self._lines]
        batch_offset, dropped = self.offset, self._dropped
        self._rare.clear()
        self._lines.clear()
        self._dropped, self._taken_to = 0, batch_offset
        events: list[GuestEvent] = []
        for start in range(0, len(lines), _SLICE):
            events += map(parse_event, lines[start : start + _SLICE])
            await asyncio.sleep(0)
        return EventBatch(tuple(events), batch_offset, dropped)

    def _keep(self, line: bytes) -> None:
        """Keep the newest lines; of the older ones those that change more than the log."""
        if not line:
            return
        self._lines.append(line[: LONGEST_LINE_BYTES + 1])
        if len(self._lines) > KEPT_LINES:
            oldest = self._lines.popleft()
            if _RARE.search(oldest):
                self._rare.append(oldest)
                if len(self._rare) <= KEPT_LINES:
                    return
                self._rare.popleft()
            self._dropped += 1


def parse_event(line: bytes) -> GuestEvent:
    """One line as an event. What is not of the contract becomes OTHER, with the line's text."""
    if len(line) > LONGEST_LINE_BYTES:
        excerpt = sanitize(line[: _EXCERPT_CELLS * 4], max_cells=_EXCERPT_CELLS)
        return GuestEvent(EventKind.OTHER, join((_CUT, excerpt)))
    try:
        fields = _decode(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return GuestEvent(EventKind.OTHER, sanitize(line.rstrip(b"\r")))
    match fields:
        case {"kind": str(word)} if word in _KINDS and isinstance(fields.get("text", ""), str):
            return GuestEvent(
                _KINDS[word],
                sanitize(fields.get("text", "")),
                _read_time(fields.get("ts")),
                _read_name(fields.get("model")),
                _read_count(fields.get("tokens_in")),
                _read_count(fields.get("tokens_out")),
            )
    return GuestEvent(EventKind.OTHER, sanitize(line.rstrip(b"\r")))


def _read_time(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < _LATEST else None


def _read_name(value: Any) -> Safe:
    return sanitize(value, max_cells=100) if isinstance(value, str) else EMPTY


def _read_count(value: Any) -> int:
    is_count = isinstance(value, int) and not isinstance(value, bool)
    return value if is_count and 0 <= value <= _MOST_TOKENS else 0
