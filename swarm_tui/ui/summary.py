"""The first lines of the fleet: who is how, how it is shown, and which hosts are not well."""

from __future__ import annotations

import time
from typing import Final

from rich.cells import cell_len
from rich.segment import Segment

from swarm_tui.amount import render_age
from swarm_tui.batch import Batch, Fate
from swarm_tui.model import Host, HostState
from swarm_tui.text import Safe, sanitize
from swarm_tui.ui.bar import Bar
from swarm_tui.ui.brief import tell_next_try
from swarm_tui.ui.figures import plural, render_count, wrap
from swarm_tui.ui.glyphs import STATE_GLYPHS
from swarm_tui.ui.ink import Ink, Line, Role
from swarm_tui.ui.roster import URGENCY
from swarm_tui.ui.screen import Context
from swarm_tui.views import Group, Order, View

_NOTICES_AT_MOST: Final = 3
"""Lines for hosts that are not up."""

_Row = tuple[tuple[str, Role], ...]


class Summary(Bar):
    """The first line: how many are in each state, how the list is shown, and the time."""

    def __init__(self, context: Context) -> None:
        super().__init__(id="summary")
        self._swarm = context
        self._shown: object = None
        self.selected = 0
        self.hidden = 0
        """Of those selected."""
        self.view: View | None = None
        """The one that was chosen last; told for as long as it is what is shown."""

    def update(self) -> None:
        """Draw again if anything on it changed."""
        roster = self._swarm.roster
        hosts = self._swarm.store.hosts()
        shown = (
            dict(roster.counts),
            (roster.order, roster.is_reversed, roster.grouped, roster.filter, len(roster)),
            self.view,
            (self.selected, self.hidden),
            [batch.counts for batch in self._swarm.batches if not batch.is_over],
            [host.state for host in hosts],
            int(self._swarm.now()) // 60,
        )
        if shown != self._shown:
            self._shown = shown
            self.refresh()

    def draw_line(self, y: int, ink: Ink, width: int) -> tuple[Line, Line]:
        right = self._right(ink, width)
        room = width - sum(segment.cell_length for segment in right)
        return self._left(ink, room), right

    def _left(self, ink: Ink, room: int) -> Line:
        counts = self._swarm.roster.counts
        present = [state for state in URGENCY if counts[state]]
        line: Line = [Segment(" ", ink.text)]
        room -= 1 + sum(len(f"◆ {counts[state]:,}  ") for state in present)
        for state in present:  # the words of the most urgent ones, as far as there is room
            line.append(
                Segment(f"{STATE_GLYPHS[state]} {render_count(counts[state])}", ink.states[state])
            )
            word = f" {state}"
            room -= len(word)
            line.append(Segment(f"{word if room >= 0 else ''}  ", ink.muted))
        if not present:
            line.append(Segment("no agents", ink.muted))
        return line

    def _right(self, ink: Ink, width: int) -> Line:
        roster = self._swarm.roster
        parts: Line = []
        for batch in self._swarm.batches:
            if not batch.is_over:
                parts += _progress(batch, ink)
        if self.selected:
            hidden = f", {render_count(self.hidden)} not shown" if self.hidden else ""
            parts.append(Segment(f"{render_count(self.selected)} selected{hidden}", ink.accent))
        if self.view and self.view.filter and self._is_as(self.view):
            told = f"{self.view.name} {render_count(len(roster))} shown"
            parts.append(Segment(told, ink.accent))
        elif roster.filter:
            shown = f"/{sanitize(roster.filter, max_cells=20)} {render_count(len(roster))} shown"
            parts.append(Segment(shown, ink.accent))
        if roster.order is not Order.ATTENTION or roster.is_reversed:
            arrow = " ↑" if roster.is_reversed else ""
            parts.append(Segment(f"by {roster.order}{arrow}", ink.muted))
        if roster.grouped and width >= 100:
            parts.append(Segment(f"grouped by {roster.grouped}", ink.muted))
        hosts = self._swarm.store.hosts()
        up = sum(host.state is HostState.UP for host in hosts)
        if hosts and (width >= 100 or up < len(hosts)):
            style = ink.muted if up == len(hosts) else ink.bad
            parts.append(Segment(f"{up}/{len(hosts)} hosts up", style))
        if self._swarm.banner:
            parts.append(Segment(self._swarm.banner, ink.warning))
        if width >= 60:
            clock = time.strftime("%H:%M", time.localtime(self._swarm.now()))
            parts.append(Segment(clock, ink.muted))
        line: Line = []
        for part in parts:
            line += [Segment("  ", ink.text), part]
        return [*line, Segment(" ", ink.text)]

    def _is_as(self, view: View) -> bool:
        """Whether the fleet is still shown as in this view."""
        roster = self._swarm.roster
        present = (roster.filter, roster.order, roster.is_reversed, roster.group)
        is_label = view.group is not Group.LABEL or view.label == roster.label
        return is_label and present == (view.filter, view.order, view.is_reversed, view.group)


def _progress(batch: Batch, ink: Ink) -> Line:
    counts = batch.counts
    ended = counts.get(Fate.DONE, 0) + counts.get(Fate.FAILED, 0)
    line = [
        Segment(f"{batch.word} {ended}/{len(batch.items) - counts.get(Fate.LEFT, 0)}", ink.accent)
    ]
    if failed := counts.get(Fate.FAILED):
        line.append(Segment(f"{failed} failed", ink.bad))
    return line


class HostNotices(Bar):
    """A few lines about the hosts that are not up or not heard: why, and what happens next."""

    def __init__(self, context: Context) -> None:
        super().__init__(id="hosts")
        self._swarm = context
        self._rows: list[_Row] = []

    def update(self) -> None:
        now = self._swarm.now()
        hosts = [
            host
            for host in self._swarm.store.hosts()
            if host.state is not HostState.UP or host.stale_s(now) is not None
        ]
        shown = hosts if len(hosts) <= _NOTICES_AT_MOST else hosts[: _NOTICES_AT_MOST - 1]
        rows: list[_Row] = []
        if outage := self._swarm.store.outage:
            name = sanitize("the shared store")
            rows += self._tell_loss(name, outage.since, outage.reason, _NOTICES_AT_MOST)
        for host in shown:
            rows += self._tell(host, _NOTICES_AT_MOST // len(hosts))
        if more := len(hosts) - len(shown):
            rows.append(((f" … and {plural(more, 'more host')} not up", "bad"),))
        if rows != self._rows:
            self._rows = rows
            self.display = bool(rows)
            self.styles.height = len(rows)
            self.refresh()

    def _tell(self, host: Host, lines: int) -> list[_Row]:
        """One line, or more where there is room for the whole of a long reason."""
        name = sanitize(host.name)
        if host.state is HostState.CONNECTING:
            said = f"  connecting to {host.uri}"
            return [((" … ", "muted"), (name, "text"), (said, "muted"))]
        now = self._swarm.now()
        stale_s = host.stale_s(now)
        if stale_s is not None:
            told = f"  connected, but not heard for {render_age(stale_s)}"
            told += f"  {host.detail}" if host.detail else ""
            return [((" ◌ ", "warning"), (name, "strong"), (told, "warning"))]
        return self._tell_loss(name, host.since, _reason(host, now), lines)

    def _tell_loss(self, name: Safe, since: float, detail: str, lines: int) -> list[_Row]:
        age = render_age(self._swarm.now() - since)
        head: _Row = ((" ○ ", "bad"), (name, "strong"), (f"  out of reach for {age}", "bad"))
        width = self.app.size.width - 4
        reason = detail.replace("\n", " ")
        if lines < 2 or sum(cell_len(text) for text, _ in head) + cell_len(reason) < width:
            return [(*head, (f"  {reason}", "text"))]
        pieces = wrap(reason, width)[: lines - 1]
        return [head, *(((f"   {piece}", "text"),) for piece in pieces)]

    def draw_line(self, y: int, ink: Ink, width: int) -> tuple[Line, Line]:
        row = self._rows[y] if y < len(self._rows) else ()
        return [Segment(text, getattr(ink, role)) for text, role in row], []


def _reason(host: Host, now: float) -> str:
    """Why it is out of reach, and when it is tried again."""
    if not host.reason:
        return host.detail
    return f"{host.reason} ({tell_next_try(host, now)})"
