"""Where an agent's log stood at an earlier moment, to which the agent was set back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from swarm_tui.model import GuestEvent
from swarm_tui.spool.frame import Frame
from swarm_tui.spool.reading import frames

LATE_S: Final = 60.0
"""Lines that were written before that moment may have been heard so much later."""
_TAIL: Final = 500
"""Events that tell how an agent stands."""


@dataclass(frozen=True, slots=True)
class Recall:
    """What had been heard by then."""

    offset: int = 0
    """The byte of the guest's file, as it was then, after what had been heard for sure."""
    events: tuple[GuestEvent, ...] = ()
    """The last of these."""
    after: bytes = b""
    """Lines that were heard next: the first of them may have been written before that moment."""


def recall(folder: Path, to: float) -> Recall:
    """What had been heard at `to` (Unix seconds). Raises SnapshotError when it cannot be read."""
    late: list[Frame] = []
    before: list[Frame] = []
    count, limit = 0, 0
    for frame in frames(folder, is_backwards=True):
        if frame.heard > to + LATE_S:
            continue
        if frame.heard > to:
            late.append(frame)
        elif not before or frame.offset <= limit:  # else it was given up by an earlier way back
            before.append(frame)
            limit = frame.begin
            count += frame.lines
            if count >= _TAIL or limit <= 0:
                break
    offset = before[0].offset if before else 0
    events = tuple(event for frame in reversed(before) for event in frame.events)
    after, place = b"", offset
    for frame in reversed(late):
        if frame.is_ours or frame.begin != place:
            break  # something is missing between, or the agent was set back
        after += frame.body or b""
        place = frame.offset
    return Recall(offset, events[-_TAIL:], after)


def known_bytes(raw: bytes, after: bytes) -> int:
    """How many of the bytes that a guest tells are lines that were heard from it before."""
    same = next(
        (place for place, (one, other) in enumerate(zip(raw, after, strict=False)) if one != other),
        min(len(raw), len(after)),
    )
    return raw[:same].rfind(b"\n") + 1
