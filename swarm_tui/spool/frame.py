"""One batch of a guest's lines as bytes on disk, and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from swarm_tui.event import parse_event, render_event
from swarm_tui.model import EventBatch, EventKind, GuestEvent
from swarm_tui.text import sanitize

_MARK: Final = b"\x1e"
_MARK_CODE: Final = 0x1E


@dataclass(frozen=True)
class Frame:
    """What was heard from a guest at one moment; not parsed until its events are asked for."""

    offset: int
    """The byte of the guest's file after it."""
    heard: float
    """Unix seconds, later in each frame of one agent. 0: nobody noted it."""
    lines: int
    dropped: int
    """Lines that were heard and could not be kept."""
    body: bytes | None = None
    """The lines as they were written; None: a frame of the old format."""
    old: tuple[GuestEvent, ...] = ()
    is_ours: bool = False
    """Not of the guest's file."""

    @property
    def begin(self) -> int:
        """The byte of the guest's file before it."""
        return self.offset if self.is_ours else self.offset - len(self.body or b"")

    @cached_property
    def events(self) -> tuple[GuestEvent, ...]:
        if self.body is None:
            return self.old
        return tuple(parse_event(line, self.heard) for line in self.body.split(b"\n") if line)


def encode(batch: EventBatch, unwritten: int = 0) -> bytes:
    """A batch as a frame. `unwritten` lines before it could not be written."""
    body, dropped = batch.raw, unwritten
    if body is None:
        body = b"".join(render_event(event) + b"\n" for event in batch.events)
        dropped += batch.dropped
    if _MARK in body:
        body = body.replace(_MARK, b"?")
    lines = body.count(b"\n")
    if b"\n\n" in body or body.startswith(b"\n"):
        lines = sum(1 for line in body.split(b"\n") if line)
    header: dict[str, Any] = {
        "offset": batch.offset,
        "heard": batch.heard or 0.0,
        "bytes": len(body),
        "lines": lines,
        "dropped": dropped,
    }
    if batch.is_ours:
        header["is_ours"] = True
    return _MARK + json.dumps(header).encode() + b"\n" + body


def decode(content: bytes, start: int = 0) -> Iterator[tuple[int, Frame]]:
    """The whole frames from a place on, each with the place after it.

    It may begin in the middle of one. What is cut off at the end, and what was altered, is passed
    over.
    """
    place = start
    if place < len(content) and content[place] not in (_MARK_CODE, ord("{")):
        place = _resume(content, place)
    while place < len(content):
        end = content.find(b"\n", place)
        if end < 0:
            return
        if content[place] == _MARK_CODE:
            fields = _parse(content[place + 1 : end])
            size = _count(fields.get("bytes"), -1)
            body_end = end + 1 + size
            if size < 0 or (size and content[body_end - 1 : body_end] != b"\n"):
                if body_end > len(content) and size >= 0:
                    return  # cut off
                place = _resume(content, end)
                continue
            place = body_end
            yield place, _frame(fields, content[end + 1 : body_end])
        else:
            fields = _parse(content[place:end])
            place = end + 1
            if isinstance(fields.get("events"), list):
                yield place, _old_frame(fields)


def count_lines(content: bytes) -> int:
    """The lines in all frames; blank ones count where there are no old frames. Quick."""
    if not content.startswith(_MARK) or b'\n{"offset": ' in content:
        return sum(frame.lines for _, frame in decode(content))
    return content.count(b"\n") - content.count(_MARK)


def whole_bytes(content: bytes, start: int = 0) -> int:
    """Where the last whole frame from a place on ends."""
    return max((place for place, _ in decode(content, start)), default=start)


def _resume(content: bytes, place: int) -> int:
    """The next place at which a frame may begin: after an end of line."""
    mark = content.find(b"\n" + _MARK, place)
    if mark >= 0:
        return mark + 1
    end = content.find(b"\n", place)
    return len(content) if end < 0 else end + 1


def _parse(line: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _frame(fields: dict[str, Any], body: bytes) -> Frame:
    return Frame(
        _count(fields.get("offset")),
        _time(fields.get("heard")),
        _count(fields.get("lines")),
        _count(fields.get("dropped")),
        body,
        is_ours=fields.get("is_ours") is True,
    )


def _old_frame(fields: dict[str, Any]) -> Frame:
    events = [_old_event(raw) for raw in fields["events"] if isinstance(raw, list)]
    heard = max((event.at for event in events if event.at is not None), default=0.0)
    return Frame(
        _count(fields.get("offset")),
        heard,
        len(events),
        _count(fields.get("dropped")),
        old=tuple(events),
    )


def _old_event(fields: list[Any]) -> GuestEvent:
    kind, text, at, model, tokens_in, tokens_out = (fields + [None] * 6)[:6]
    return GuestEvent(
        kind=EventKind(kind) if kind in list(EventKind) else EventKind.OTHER,
        text=sanitize(str(text)),
        at=_time(at) if isinstance(at, int | float) else None,
        model=sanitize(str(model or "")),
        tokens_in=_count(tokens_in),
        tokens_out=_count(tokens_out),
    )


def _count(value: Any, otherwise: int = 0) -> int:
    is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return value if is_count else otherwise


def _time(value: Any) -> float:
    is_time = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_time and 0 <= value < 1e12 else 0.0
