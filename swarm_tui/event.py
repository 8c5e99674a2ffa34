"""One line of a guest's event file: what is read out of it, whatever the guest wrote there."""

from __future__ import annotations

import json
from typing import Any, Final

from swarm_tui.model import EventKind, GuestEvent
from swarm_tui.text import EMPTY, Safe, join, literal, sanitize

LONGEST_LINE_BYTES: Final = 64 << 10

_EXCERPT_CELLS: Final = 400
_LATEST: Final = 253402300800.0
"""The year 10000, in Unix seconds: beyond it nothing can print a date."""
_MOST_TOKENS: Final = 10**12
_KINDS: Final = {str(kind): kind for kind in EventKind if kind is not EventKind.OTHER}
_CUT: Final = literal(f"(a line of more than {LONGEST_LINE_BYTES >> 10} KiB, cut)")

# Not strict: a raw tab inside a string is no reason to refuse a line.
_decode = json.JSONDecoder(strict=False).decode


def parse_event(line: bytes, heard: float | None = None) -> GuestEvent:
    """One line as an event. What is not of the contract becomes OTHER, with the line's text."""
    if len(line) > LONGEST_LINE_BYTES:
        excerpt = sanitize(line[: _EXCERPT_CELLS * 4], max_cells=_EXCERPT_CELLS)
        return GuestEvent(EventKind.OTHER, join((_CUT, excerpt)), heard=heard)
    try:
        fields = _decode(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return GuestEvent(EventKind.OTHER, sanitize(line.rstrip(b"\r")), heard=heard)
    match fields:
        case {"kind": str(word)} if word in _KINDS and isinstance(fields.get("text", ""), str):
            return GuestEvent(
                _KINDS[word],
                sanitize(fields.get("text", "")),
                _read_time(fields.get("ts")),
                _read_name(fields.get("model")),
                _read_count(fields.get("tokens_in")),
                _read_count(fields.get("tokens_out")),
                heard,
            )
    return GuestEvent(EventKind.OTHER, sanitize(line.rstrip(b"\r")), heard=heard)


def render_event(event: GuestEvent) -> bytes:
    """An event as the line that it may have been read from, without an end of line."""
    if event.kind is EventKind.OTHER:
        return event.text.encode()
    fields: dict[str, Any] = {"kind": event.kind, "text": event.text}
    if event.at is not None:
        fields["ts"] = event.at
    if event.kind is EventKind.USAGE:
        fields |= {
            "model": event.model,
            "tokens_in": event.tokens_in,
            "tokens_out": event.tokens_out,
        }
    return json.dumps(fields, separators=(",", ":")).encode()


def _read_time(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < _LATEST else None


def _read_name(value: Any) -> Safe:
    return sanitize(value, max_cells=100) if isinstance(value, str) else EMPTY


def _read_count(value: Any) -> int:
    is_count = isinstance(value, int) and not isinstance(value, bool)
    return value if is_count and 0 <= value <= _MOST_TOKENS else 0
