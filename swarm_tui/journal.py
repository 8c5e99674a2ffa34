"""Several agents' logs as one, in the order of time, and as text or JSON.

A guest may claim any time for a line. We know when we read it, and when we had read all that was
there before it: the claim stands within these bounds, else the nearest of them does. So no guest
can put its lines before what was heard from it earlier, nor into the future, and what was written
while nobody listened still stands where it belongs. Lines of one guest never change their order.
"""

from __future__ import annotations

import heapq
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from swarm_tui import durable
from swarm_tui.amount import render_age
from swarm_tui.errors import UsageError
from swarm_tui.model import AgentId, EventKind, GuestEvent
from swarm_tui.spool import frames
from swarm_tui.text import Safe

DOUBTED_S: Final = 2.0
"""A claim that is so far from where the line stands is shown as doubted."""
_LATEST: Final = 253402300800.0


@dataclass(frozen=True, slots=True)
class Said:
    """One line of one agent, and where it stands in time (Unix seconds; 0: nobody knows)."""

    when: float
    agent: AgentId
    event: GuestEvent

    @property
    def is_doubted(self) -> bool:
        """Whether the guest claims a time that cannot be."""
        at = self.event.at
        return at is not None and abs(at - self.when) > DOUBTED_S


class Timeline:
    """Places the lines of one agent in time, one after the other."""

    def __init__(self, agent: AgentId) -> None:
        self._agent = agent
        self._earliest = 0.0
        self._heard = 0.0
        self._last = 0.0

    def place(self, event: GuestEvent) -> Said:
        at, heard = event.at, event.heard
        if heard is not None and heard != self._heard:
            self._earliest, self._heard = self._heard, heard
        if at is None:
            when = heard if heard is not None else self._last
        else:
            when = at if heard is None else min(at, heard)
        self._last = max(self._last, self._earliest, when)
        return Said(self._last, self._agent, event)


def spooled(agent: AgentId, folder: Path, since: float = 0.0) -> Iterator[Said]:
    """What is on disk of one agent, from a moment on. Raises SnapshotError."""
    timeline = Timeline(agent)
    for frame in frames(folder, since=since):
        for event in frame.events:
            said = timeline.place(event)
            if said.when >= since:
                yield said


def merge(logs: Iterable[Iterable[Said]]) -> Iterator[Said]:
    """All of them in the order of time, as they come; each is in that order already."""
    return heapq.merge(*logs, key=lambda said: said.when)


class Stamps(StrEnum):
    """What stands before a line."""

    CLOCK = "clock"
    RELATIVE = "relative"
    DATE = "date"
    CLAIMED = "claimed"
    """What the guest claims, as it claims it."""
    OFF = "off"


STAMP_CELLS: Final[Mapping[Stamps, int]] = {
    Stamps.CLOCK: 8,
    Stamps.RELATIVE: 5,
    Stamps.DATE: 19,
    Stamps.CLAIMED: 8,
    Stamps.OFF: 0,
}


def render_stamp(stamps: Stamps, said: Said, now: float) -> str:
    """Of `STAMP_CELLS` cells, in local time."""
    match stamps:
        case Stamps.CLOCK:
            return _local(said.when, "%H:%M:%S")
        case Stamps.RELATIVE:
            return render_age(now - said.when if said.when else None).rjust(5)
        case Stamps.DATE:
            return _local(said.when, "%Y-%m-%d %H:%M:%S")
        case Stamps.CLAIMED:
            return _local(said.event.at or 0.0, "%H:%M:%S")
        case Stamps.OFF:
            return ""


def _local(at: float, form: str) -> str:
    if not 0 < at < _LATEST:
        return "--:--:--".rjust(19 if "%d" in form else 8)
    return time.strftime(form, time.localtime(at))


def said_object(said: Said, name: str) -> dict[str, Any]:
    """A line for JSON."""
    event = said.event
    found: dict[str, Any] = {
        "agent": said.agent,
        "name": name,
        "when": said.when or None,
        "claimed": event.at,
        "heard": event.heard,
        "kind": event.kind,
        "text": event.text,
    }
    if event.kind is EventKind.USAGE:
        found |= {
            "model": event.model,
            "tokens_in": event.tokens_in,
            "tokens_out": event.tokens_out,
        }
    return found


def said_text(event: GuestEvent) -> str:
    """What a line says, for people."""
    if event.kind is EventKind.USAGE:
        return f"{event.tokens_in:,} tokens in, {event.tokens_out:,} out"
    return event.text


def export(target: Path, said: Iterable[Said], names: Mapping[AgentId, Safe]) -> int:
    """Write lines into a new file, as JSON lines if its name ends so, else as text; how many.

    Text is sanitized either way. Raises UsageError for a file that is there already or cannot be
    made, StorageFull or SnapshotError when it cannot be written to its end: then it is removed.
    """
    render: Callable[[Said], str] = _render_text(names)
    if target.suffix in (".jsonl", ".json"):
        render = _render_json(names)
    try:
        file = open(target, "x", encoding="utf-8", errors="replace")  # noqa: SIM115
    except FileExistsError as error:
        raise UsageError(
            "The file is there already", str(target), "Choose another name."
        ) from error
    except OSError as error:
        raise UsageError("The file cannot be made", f"{target}: {error.strerror}") from error
    count = 0
    try:
        with durable.storage("export the log"), file:
            for line in said:
                file.write(render(line))
                count += 1
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return count


def _render_text(names: Mapping[AgentId, Safe]) -> Callable[[Said], str]:
    width = max((len(name) for name in names.values()), default=0)

    def render(said: Said) -> str:
        stamp = _local(said.when, "%Y-%m-%d %H:%M:%S")
        name = names.get(said.agent, "").ljust(width)
        return f"{stamp} {name} {said.event.kind:6} {said_text(said.event)}\n"

    return render


def _render_json(names: Mapping[AgentId, Safe]) -> Callable[[Said], str]:
    return lambda said: json.dumps(said_object(said, names.get(said.agent, ""))) + "\n"
