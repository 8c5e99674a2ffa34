"""What agents said, one or several in the order of time, followed live and read back from disk."""

from __future__ import annotations

import asyncio
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Literal

from rich.segment import Segment
from textual.message import Message

from swarm_tui.errors import SwarmError
from swarm_tui.journal import STAMP_CELLS, Said, Stamps, Timeline, render_stamp, said_text, spooled
from swarm_tui.model import AgentId, EventKind, GuestEvent
from swarm_tui.spool import Frame, account, frames, removed, segments
from swarm_tui.text import EMPTY, Safe, literal
from swarm_tui.ui.figures import fit, plural
from swarm_tui.ui.glyphs import KIND_GLYPHS
from swarm_tui.ui.ink import Ink, Line, Role
from swarm_tui.ui.lines import Entry, Lines
from swarm_tui.ui.screen import Context

LIVE_LINES: Final = 10_000
"""Kept while the end is followed."""
MOST_LINES: Final = 50_000
"""Kept while somebody reads further up."""
FIRST_LINES: Final = 2_000
"""Shown to begin with, of all agents together; the rest is on disk."""
_CHUNK_LINES: Final = 500
"""Read back from disk at a time, of one agent."""
_SEEK_LINES: Final = 5_000
"""The same, while something is sought."""
_COUNTED_AT_ONCE: Final = 50
"""Of more agents what is on disk is counted only when somebody scrolls up."""
_OVERLAP: Final = 100
"""Lines that are compared where a log on disk and in memory may tell the same."""
_NEAR_TOP: Final = 3
_NAME_CELLS: Final = 16

_ROLES: Final[dict[EventKind, Role]] = {
    EventKind.LOG: "text",
    EventKind.STATUS: "strong",
    EventKind.TOOL: "cpu",
    EventKind.USAGE: "faint",
    EventKind.ASK: "warning",
    EventKind.DONE: "good",
    EventKind.FAILED: "bad",
    EventKind.OTHER: "muted",
}


@dataclass(slots=True, eq=False)
class LogEntry(Entry):
    """A line of a log, or the place where some are missing."""

    said: Said = field(kw_only=True)
    is_gap: bool = False

    @property
    def when(self) -> float:
        return self.said.when


def _when(entry: Entry) -> float:
    assert isinstance(entry, LogEntry)
    return entry.said.when


@dataclass(slots=True)
class _Source:
    """How far one agent's log is in view."""

    agent: AgentId
    name: Safe
    timeline: Timeline
    seen: int = 0
    """Of the store's events, counted from the first ever."""
    edge: float = float("inf")
    """All that was heard later is in view; what was heard then may be so in part."""
    past: Iterator[Frame] | None = None
    """Goes on backwards from there."""
    has_older: bool = False
    first: float = float("inf")
    """When the oldest line in view, or held back, was said."""
    older: int = 0
    """Lines on disk that are not in view, as they were counted last."""


class LogView(Lines):
    """The log of some agents. Older lines come from the spool as one scrolls up.

    What is in memory is bounded: while the end is followed the oldest lines go, and while older
    ones are read the newest.
    """

    class Missed(Message):
        """What was sought is nowhere, not even on disk."""

    def __init__(
        self,
        context: Context,
        agents: Sequence[AgentId],
        *,
        has_cursor: bool = False,
        id: str | None = None,
    ) -> None:
        super().__init__(has_cursor=has_cursor, id=id)
        self._swarm = context
        self._sources = {
            agent: _Source(agent, known.name if known else EMPTY, Timeline(agent))
            for agent in agents
            for known in [context.roster.agents.get(agent)]
        }
        names = [len(source.name) for source in self._sources.values()]
        self._name_cells = min(_NAME_CELLS, max(names, default=0)) if len(agents) > 1 else 0
        self.stamps = Stamps.CLOCK
        self.lost = 0
        """Lines that came too fast to be shown, since this is open."""
        self._held: list[Entry] = []
        """Older than what is known of every agent: shown once the others' lines are there."""
        self._removed = 0
        self._job: asyncio.Task[None] | None = None
        self._is_counted = False
        self._is_cut = False
        """The newest lines have gone for older ones: the end is not in view."""

    @property
    def agents(self) -> Collection[AgentId]:
        return self._sources.keys()

    @property
    def names(self) -> dict[AgentId, Safe]:
        return {source.agent: source.name for source in self._sources.values()}

    def on_mount(self) -> None:
        self.take(self.agents)
        if len(self._sources) <= _COUNTED_AT_ONCE or not self._entries:
            self._reach_back()

    def on_unmount(self) -> None:
        self.stop()

    def stop(self) -> None:
        """Read no further back for now."""
        if self._job:
            self._job.cancel()
            self._job = None

    # News

    def take(self, agents: Iterable[AgentId]) -> None:
        """Take in what these have said since the last time."""
        if self.is_following and self._is_cut:
            self._begin_anew()
            self._reach_back()
            agents = self.agents
        if self._is_cut or (not self.is_following and self.count >= MOST_LINES):
            self._is_cut = True
            return  # what is read stays
        fresh: list[LogEntry] = []
        for agent in agents:
            if source := self._sources.get(agent):
                fresh += self._take(source)
        if not fresh:
            return
        if len(self._sources) > 1:
            fresh.sort(key=_when)
        keep = LIVE_LINES if self.is_following else MOST_LINES
        if self._entries and fresh[0].when < _when(self._entries[-1]):
            place = bisect_right(self._entries, fresh[0].when, key=_when)
            self.amend(place, sorted([*self._entries[place:], *fresh], key=_when))
            fresh = []
        self.add(fresh, keep=keep)
        self._tell_older()

    def _begin_anew(self) -> None:
        self.stop()
        self.clear()
        self._held.clear()
        self._is_cut = self._is_counted = False
        for source in self._sources.values():
            self._sources[source.agent] = _Source(source.agent, source.name, Timeline(source.agent))

    def _take(self, source: _Source) -> list[LogEntry]:
        log = self._swarm.store.log(source.agent)
        if log.total < source.seen:  # the store began anew
            source.seen = 0
        is_first = source.edge == float("inf")
        count = min(log.total - source.seen, len(log.events), LIVE_LINES)
        if is_first:
            begin_with = LIVE_LINES if self._swarm.supervisor.logs is None else FIRST_LINES
            count = min(count, max(20, begin_with // len(self._sources)))
        missed = 0 if is_first else log.total - source.seen - count
        source.seen = log.total
        entries: list[LogEntry] = []
        for event in list(islice(reversed(log.events), count))[::-1]:
            said = source.timeline.place(event)
            if is_first:
                is_first, source.edge, source.first = False, event.heard or 0.0, said.when
            elif missed + event.missed:
                entries.append(self._gap(said, missed + event.missed))
            missed = 0
            entries.append(_entry(said))
        return entries

    def _gap(self, said: Said, missed: int) -> LogEntry:
        self.lost += missed
        where = "they are on disk" if self._swarm.supervisor.logs else "they are not kept"
        text = literal(f"… {plural(missed, 'line')} came too fast to be shown; {where}")
        return LogEntry("", text, "faint", said=said, is_gap=True)

    def _drop(self, count: int) -> None:
        for entry in self._entries[: max(0, count)]:
            assert isinstance(entry, LogEntry)
            source = self._sources[entry.said.agent]
            source.edge, source.past = entry.said.event.heard or 0.0, None
            source.has_older = self._swarm.supervisor.logs is not None
            source.first = entry.when
            source.older += not entry.is_gap
        if count > 0:
            self._held.clear()
        super()._drop(count)

    # Reading back

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if new_value < old_value and new_value <= _NEAR_TOP and not self._is_settling:
            self._reach_back()

    def action_scroll_by(self, rows: int) -> None:
        super().action_scroll_by(rows)
        if rows < 0 and self.scroll_offset.y <= _NEAR_TOP:
            self._reach_back()

    def action_first(self) -> None:
        self.is_following = False
        super().action_first()
        self._reach_back()

    def seek_back(self, what: Literal["ask", "match"]) -> bool:
        """Read older lines until one of a kind is there, and go to it; False: there are none."""
        if self._swarm.supervisor.logs is None:
            return False
        if self._is_counted and not any(source.has_older for source in self._sources.values()):
            return False
        self.is_following = False
        self.stop()
        self._reach_back(what)
        return True

    def _reach_back(self, what: Literal["ask", "match"] | None = None) -> None:
        if self._swarm.supervisor.logs and (self._job is None or self._job.done()):
            self._job = asyncio.create_task(self._load(what), name="read back")

    async def _load(self, what: Literal["ask", "match"] | None) -> None:
        """Load a screenful, or until something is found."""
        try:
            if not self._is_counted:
                await asyncio.to_thread(self._count)
                self._is_counted = True
                self._hold()
            goal = len(self._rows) + 2 * max(10, self.size.height)
            is_needed = what is not None or not self.is_following or self.count < 100
            while is_needed:
                older = [source for source in self._sources.values() if source.has_older]
                if not older:
                    if what:
                        self.post_message(self.Missed())
                    break
                source = max(older, key=lambda source: source.first)
                lines = _SEEK_LINES if what else _CHUNK_LINES
                past, edge = source.past or self._older_than(source), source.edge
                source.past = None  # who is cancelled meanwhile begins at the edge again
                found = await asyncio.to_thread(_read_back, source.agent, past, lines)
                if source.edge != edge:
                    # What is in view has changed, and these do not join it any more.
                    is_needed = not self.is_following
                    continue
                source.past = past
                self._place(source, found)
                if what and self.seek(-1, is_ask if what == "ask" else _is_match):
                    break
                self._cut_newest()
                is_needed = what is not None or len(self._rows) < goal
        except SwarmError as error:
            for source in self._sources.values():
                source.has_older = False
            self._swarm.show_error(error)
        self._tell_older()

    def _count(self) -> None:
        """Count what is on disk."""
        logs = self._swarm.supervisor.logs
        assert logs
        view = dict.fromkeys(self._sources, 0)
        for entry in list(self._entries):
            assert isinstance(entry, LogEntry)
            view[entry.said.agent] += not entry.is_gap
        self._removed = 0
        for source in self._sources.values():
            folder = logs.folder(source.agent)
            self._removed += removed(folder).lines
            source.older = max(0, account(folder).lines - view[source.agent])
            source.has_older = source.older > 0

    def _cut_newest(self) -> None:
        if self.count > MOST_LINES and not self.is_following:
            self.amend(MOST_LINES, [])
            self._is_cut = True

    def _older_than(self, source: _Source) -> Iterator[Frame]:
        logs = self._swarm.supervisor.logs
        assert logs
        edge = source.edge
        newest_first = frames(logs.folder(source.agent), is_backwards=True)
        return (frame for frame in newest_first if frame.heard <= edge)

    def _place(self, source: _Source, found: list[Said]) -> None:
        """Put older lines of one agent where they belong."""
        if not found:
            source.has_older, source.older = False, 0
            self._hold()
            return
        newest = found[-1].event.heard
        if newest != source.edge and source.first != float("inf"):
            # Another process keeps this log, and heard the same lines at moments of its own.
            own = [_event(e) for e in self._entries if _event(e)[0] == source.agent]
            found = found[: len(found) - _overlap(found, [event for _, event in own[:_OVERLAP]])]
            if not found:
                return
        partly = [entry for entry in self._entries if _is_of(entry, source.agent, newest)]
        if partly:  # a part of what was heard at that moment: now all of it is here
            end = self._entries.index(partly[-1]) + 1
            stay = [entry for entry in self._entries[:end] if entry not in partly]
            self.splice(end, stay)
        self._held = [entry for entry in self._held if not _is_of(entry, source.agent, newest)]
        self._held += map(_entry, found)
        source.edge, source.first = found[0].event.heard or 0.0, found[0].when
        source.older = max(0, source.older - len(found) + len(partly))
        self._hold()

    def _hold(self) -> None:
        """Show the lines from the moment on from which every agent's are known, no older ones."""
        floor = max(
            (source.first for source in self._sources.values() if source.has_older),
            default=-float("inf"),
        )
        place = bisect_left(self._entries, floor, key=_when)
        if place and place < len(self._entries):
            self._held += self._entries[:place]
            self.splice(place, [])
        ready = [entry for entry in self._held if _when(entry) >= floor]
        if ready:
            self._held = [entry for entry in self._held if _when(entry) < floor]
            latest = max(map(_when, ready))
            place = bisect_right(self._entries, latest, key=_when)
            self.splice(place, sorted([*ready, *self._entries[:place]], key=_when))

    def _tell_older(self) -> None:
        """What is not in view, above the first line."""
        told = []
        if self._swarm.supervisor.logs is None:
            logs = [self._swarm.store.log(agent) for agent in self._sources]
            if gone := sum(log.total - len(log.events) for log in logs):
                told.append(f"{plural(gone, 'earlier event')} not kept")
        else:
            if older := sum(source.older for source in self._sources.values()):
                told.append(f"{plural(older, 'older line')} on disk")
            if self._removed:
                told.append(f"{plural(self._removed, 'older line')} removed by the quota")
        self.note(literal(f" {'; '.join(told)}") if told else EMPTY)

    # The whole log

    def whole(self) -> list[Iterator[Said]]:
        """All that is known of each agent, from disk or, if nothing is kept, from memory."""
        logs = self._swarm.supervisor.logs
        found = []
        for agent in self._sources:
            if logs and segments(logs.folder(agent)):
                found.append(spooled(agent, logs.folder(agent)))
            else:
                timeline = Timeline(agent)
                events = list(self._swarm.store.log(agent).events)
                found.append(map(timeline.place, events))
        return found

    # Drawing

    def choose_stamps(self, stamps: Stamps) -> None:
        self.stamps = stamps
        self.lay_out()

    def pass_time(self) -> None:
        """A second has passed: ages are others now."""
        if self.stamps is Stamps.RELATIVE:
            self.refresh()

    def lead_cells(self) -> int:
        stamp = STAMP_CELLS[self.stamps]
        return 3 + stamp + bool(stamp) + self._name_cells + 2 * bool(self._name_cells)

    def lead(self, entry: Entry, ink: Ink) -> Line:
        assert isinstance(entry, LogEntry)
        said = entry.said
        cells = STAMP_CELLS[self.stamps]
        stamp = " " * cells if entry.is_gap else render_stamp(self.stamps, said, self._swarm.now())
        doubt = "?" if said.is_doubted and cells and not entry.is_gap else " "
        line = [Segment(f" {stamp}{doubt if cells else ''}", ink.faint)]
        if self._name_cells:
            shade = ink.names[zlib.crc32(said.agent.encode()) % len(ink.names)]
            name = self._sources[said.agent].name
            line.append(Segment(f" {fit(name, self._name_cells)} ", shade))
        sign = " " if entry.is_gap else KIND_GLYPHS[said.event.kind]
        return [*line, Segment(f"{sign} ", ink.faint)]


def _read_back(agent: AgentId, past: Iterator[Frame], lines: int) -> list[Said]:
    """The next older lines, in their order; none when there are no more."""
    chosen: list[Frame] = []
    count = 0
    while count < lines and (frame := next(past, None)):
        chosen.append(frame)
        count += frame.lines
    timeline = Timeline(agent)
    return [timeline.place(event) for frame in reversed(chosen) for event in frame.events]


def _overlap(older: Sequence[Said], newer: Sequence[GuestEvent]) -> int:
    """How many lines end the older ones and begin the newer ones."""
    for count in range(min(len(older), len(newer)), 0, -1):
        if [said.event for said in older[-count:]] == list(newer[:count]):
            return count
    return 0


def _event(entry: Entry) -> tuple[AgentId, GuestEvent]:
    assert isinstance(entry, LogEntry)
    return entry.said.agent, entry.said.event


def _entry(said: Said) -> LogEntry:
    event = said.event
    text = event.text
    if event.kind is EventKind.USAGE:
        text = literal(said_text(event))
    return LogEntry("", text, _ROLES[event.kind], said=said)


def _is_of(entry: Entry, agent: AgentId, heard: float | None) -> bool:
    assert isinstance(entry, LogEntry)
    return entry.said.agent == agent and entry.said.event.heard == heard


def is_ask(entry: Entry) -> bool:
    return (
        isinstance(entry, LogEntry) and entry.said.event.kind is EventKind.ASK and not entry.is_gap
    )


def _is_match(entry: Entry) -> bool:
    return entry.is_match
