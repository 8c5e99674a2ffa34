"""One agent: its log, its graphs, all facts about it, and its serial console."""

from __future__ import annotations

import asyncio
import time
from itertools import islice
from typing import ClassVar, Final, Literal

from rich.segment import Segment
from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import Input

from swarm_tui.amount import render_age
from swarm_tui.errors import SwarmError
from swarm_tui.model import Agent, AgentId, EventKind, GuestEvent, Link, State
from swarm_tui.store import LOG_EVENTS
from swarm_tui.text import EMPTY, Safe, literal, sanitize
from swarm_tui.ui.bar import Bar
from swarm_tui.ui.brief import age_of, tell
from swarm_tui.ui.console import LINES_AT_MOST, Transcript
from swarm_tui.ui.facts import Facts, Graphs, list_facts
from swarm_tui.ui.field import Field
from swarm_tui.ui.figures import fit, plural, render_count
from swarm_tui.ui.glyphs import KIND_GLYPHS, STATE_GLYPHS
from swarm_tui.ui.ink import Ink, Line, Role
from swarm_tui.ui.keys import bindings
from swarm_tui.ui.lines import Entry, Lines
from swarm_tui.ui.screen import Context, OneAgentScreen

Pane = Literal["log", "details", "console"]

_ROLES: Final[dict[EventKind, Role]] = {
    EventKind.LOG: "text",
    EventKind.STATUS: "strong",
    EventKind.TOOL: "cpu",
    EventKind.USAGE: "faint",
    EventKind.ASK: "warning",
    EventKind.DONE: "good",
    EventKind.OTHER: "muted",
}


def make_entry(event: GuestEvent) -> Entry:
    """A guest's event as a line of the log: time, sign of its kind, text."""
    clock = "--:--:--"
    if event.at is not None and 0 <= event.at < 1e11:
        clock = time.strftime("%H:%M:%S", time.localtime(event.at))
    text = event.text
    if event.kind is EventKind.USAGE:
        text = literal(f"{event.tokens_in:,} tokens in, {event.tokens_out:,} out")
    role = _ROLES[event.kind]
    return Entry(f" {clock} {KIND_GLYPHS[event.kind]} ", text, role, "faint")


class Head(Bar):
    """Who it is and how it is, on the first line; below it what matters now, if anything."""

    def __init__(self, context: Context, agent: AgentId) -> None:
        super().__init__(id="summary")
        self._swarm = context
        self._agent_id = agent
        self._frame = 0
        self.last_known: Agent | None = None

    def update(self, frame: int) -> None:
        self._frame = frame
        self.refresh()

    def draw_line(self, y: int, ink: Ink, width: int) -> tuple[Line, Line]:
        agent = self.last_known
        if agent is None:
            return [Segment(" this agent is gone", ink.bad)], []
        now = self._swarm.now()
        state = ink.states[agent.state]
        if y == 0:
            clock = time.strftime("%H:%M", time.localtime(now))
            right = [Segment(f"  {sanitize(agent.host)}  ", ink.muted)] if width >= 60 else []
            if self._swarm.banner:
                right.append(Segment(f"{self._swarm.banner}  ", ink.warning))
            right.append(Segment(f"{clock} ", ink.muted))
            task = f"   {agent.tag.task}" if agent.tag.task else ""
            return [
                Segment(f" {STATE_GLYPHS[agent.state]} ", state),
                Segment(agent.name or agent.id, ink.strong),
                Segment(f"  {agent.state}", state),
                Segment(f" {render_age(age_of(agent, now))}", ink.muted),
                Segment(task, ink.faint),
            ], right
        if self._swarm.store.agent(self._agent_id) is None:
            return [Segment("   it is gone; this is what was last known. esc: back", ink.bad)], []
        host = self._swarm.store.host(agent.host)
        stale_s = host.stale_s(now) if host else None
        text, style = tell(agent, now, self._frame, ink, stale_s)
        return [Segment("   ", ink.text), Segment(text, style)], []


class PaneTitle(Bar):
    """What the pane below shows, and how far it is followed."""

    SURFACE = "background"

    def __init__(self) -> None:
        super().__init__(id="title")
        self._left = ""
        self._right = ""

    def show(self, left: str, right: str) -> None:
        if (left, right) != (self._left, self._right):
            self._left, self._right = left, right
            self.refresh()

    def draw_line(self, y: int, ink: Ink, width: int) -> tuple[Line, Line]:
        room = max(0, width - len(self._right) - 4)
        left = fit(self._left, min(len(self._left), room))
        rule = "─" * max(0, width - len(left) - len(self._right) - 6)
        return [
            Segment("─ ", ink.line),
            Segment(left, ink.accent),
            Segment(f" {rule} ", ink.line),
        ], [Segment(self._right, ink.muted), Segment(" ─", ink.line)]


class AgentScreen(OneAgentScreen):
    """One agent, on the whole screen."""

    PLACE = "agent"
    BINDINGS: ClassVar[list[BindingType]] = bindings("agent")

    def __init__(self, context: Context, agent: AgentId, *, log_alone: bool = False) -> None:
        super().__init__(context, agent)
        self.HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]
        self._head = Head(context, agent)
        self._graphs = Graphs()
        self._facts = Facts()
        self._title = PaneTitle()
        self._log = Lines(id="log")
        self._serial = Lines(id="console")
        self._input = Field(id="search", placeholder="search")
        self._pane: Pane = "log"
        self._log_alone = log_alone
        self._seen_events = 0
        self._lost_events = 0
        self._second = 0
        self._ticks = 0
        self._reading: asyncio.Task[None] | None = None

    def compose(self) -> ComposeResult:
        yield self._head
        with Horizontal(id="body"):
            with Vertical(id="main"):
                yield self._graphs
                yield self._title
                yield self._log
                yield self._serial
            yield self._facts
        yield self._input
        yield self.footer

    def on_mount(self) -> None:
        self._input.display = False
        self._choose_pane("log")
        self.catch_up()

    def on_unmount(self) -> None:
        if self._reading:
            self._reading.cancel()

    # News

    def tick(self, dirty: set[AgentId], *, hosts_changed: bool, rearranged: bool) -> None:
        self._ticks += 1
        second = int(self.context.now())
        agent = self.context.store.agent(self.agent_id)
        is_at_work = agent is not None and agent.operation is not None
        if self.agent_id in dirty or hosts_changed:
            self.catch_up()
        elif second != self._second or (is_at_work and self._ticks % 2 == 0):
            self._show_head()
            self._show_facts()
        self._second = second

    def catch_up(self) -> None:
        self._show_head()
        self._show_facts()
        self._show_log()
        agent = self.context.store.agent(self.agent_id)
        if agent:
            self._graphs.show(agent, self.context.store.history(self.agent_id))
        self.show_keys({"logs": "l"})

    def _show_head(self) -> None:
        agent = self.context.store.agent(self.agent_id)
        self._head.last_known = agent or self._head.last_known
        known = self._head.last_known
        says = agent is None or (
            known is not None
            and bool(tell(known, self.context.now(), 0, self._head.ink)[0])
            and (known.operation is not None or known.state is not State.RUNNING or known.reason)
        )
        host = self.context.store.host(known.host) if known else None
        says = says or (host is not None and host.stale_s(self.context.now()) is not None)
        self._head.styles.height = 2 if says else 1
        self._head.update(self._ticks // 2)

    def _show_facts(self) -> None:
        agent = self._head.last_known
        if agent:
            host = self.context.store.host(agent.host)
            self._facts.show(list_facts(agent, host, self.context.now()))

    def _show_log(self) -> None:
        log = self.context.store.log(self.agent_id)
        fresh = log.total - self._seen_events
        if not fresh and log.lost == self._lost_events:
            self._show_title()
            return
        if fresh < 0:  # the store began anew
            self._log.clear()
            fresh = log.total
        count = min(fresh, len(log.events))
        events = list(islice(reversed(log.events), count))[::-1]
        self._seen_events, self._lost_events = log.total, log.lost
        self._log.add(
            [make_entry(event) for event in events],
            keep=LOG_EVENTS,
            note=_note(log.total - len(log.events), log.lost),
        )

    @on(Lines.Changed)
    def _show_title(self) -> None:
        lines = self._serial if self._pane == "console" else self._log
        title = {"log": "log", "details": "details", "console": "serial console, read only"}
        agent = self._head.last_known
        link = ""
        is_cut = agent is not None and agent.link in (Link.DOWN, Link.CONNECTING)
        if self._pane == "log" and agent and is_cut:
            link = f" (link {agent.link})"
        parts = []
        if self._pane == "details":
            parts.append("i: log")
        elif lines.needle:
            parts.append(f"/{lines.needle[:20]} {plural(lines.matches, 'match', 'matches')}")
        if self._pane != "details":
            below = lines.below
            parts.append(
                "following" if lines.is_following else f"{render_count(below)} below, s: follow"
            )
            parts.append(plural(lines.count, "line"))
        self._title.show(title[self._pane] + link, " · ".join(parts))

    # Panes

    @property
    def _lines(self) -> Lines:
        return self._serial if self._pane == "console" else self._log

    def _choose_pane(self, pane: Pane) -> None:
        self._pane = pane
        self.set_class(pane == "details", "-details")
        self.set_class(pane == "console", "-console")
        self.set_class(self._log_alone, "-alone")
        if pane == "console":
            self._read_console()
        elif self._reading:
            self._reading.cancel()
            self._reading = None
        self.set_focus(self._facts if pane == "details" else self._lines)
        self._show_title()

    def do_logs(self) -> None:
        if self._pane != "log":
            self._choose_pane("log")
            return
        self._log_alone = not self._log_alone
        self._choose_pane("log")

    def do_details(self) -> None:
        self._log_alone = False
        self._choose_pane("log" if self._pane == "details" else "details")

    def do_console(self) -> None:
        self._choose_pane("log" if self._pane == "console" else "console")

    def do_back(self) -> None:
        if self._input.display:
            self._input.display = False
            self._lines.search("")
            self.set_focus(self._lines)
        elif self._lines.needle:
            self._lines.search("")
        elif self._pane != "log":
            self._choose_pane("log")
        else:
            self.dismiss()

    def do_follow(self) -> None:
        self._lines.follow(not self._lines.is_following)

    def do_next_waiting(self) -> None:
        agent = self.context.roster.next_asking(self.agent_id)
        if agent is None or agent == self.agent_id:
            self.footer.say("nobody else waits for you" if agent else "nobody waits for you")
        else:
            self.app.switch_screen(AgentScreen(self.context, agent))

    # Searching

    def do_search(self) -> None:
        if self._pane == "details":
            self._choose_pane("log")
        self._input.display = True
        self._input.value = self._lines.needle
        self.set_focus(self._input)

    @on(Input.Submitted)
    def _search(self, event: Input.Submitted) -> None:
        self._input.display = False
        self._lines.search(sanitize(event.value.strip()))
        self.set_focus(self._lines)
        if self._lines.needle and not self._lines.matches:
            self.footer.say("not found")

    def do_search_next(self) -> None:
        self._find(1)

    def do_search_previous(self) -> None:
        self._find(-1)

    def _find(self, direction: Literal[-1, 1]) -> None:
        if not self._lines.needle:
            self.footer.say("/ searches")
        elif not self._lines.find_next(direction):
            self.footer.say("not found")

    # Console

    def _read_console(self) -> None:
        if self._reading is None or self._reading.done():
            self._serial.clear()
            self._reading = asyncio.create_task(self._follow_console(), name="console")

    async def _follow_console(self) -> None:
        transcript = Transcript()
        self._serial.add([Entry(" ", literal("connecting …"), "faint")], keep=LINES_AT_MOST)
        try:
            async with self.context.supervisor.console(self.agent_id) as console:
                async for data in console.read():
                    lines = [Entry(" ", line) for line in transcript.feed(data)]
                    if lines:
                        self._serial.add(lines, keep=LINES_AT_MOST)
                    self._serial.show_tail(transcript.unfinished)
            ended = literal("the console has closed")
        except SwarmError as error:
            ended = error.title
            if error.detail:
                self._serial.add([Entry(" ", error.title, "bad")], keep=LINES_AT_MOST)
                ended = error.detail
        rest = [Entry(" ", transcript.unfinished)] if transcript.unfinished else []
        self._serial.show_tail(EMPTY)
        self._serial.add([*rest, Entry(" ", ended, "bad")], keep=LINES_AT_MOST)


def _note(dropped: int, lost: int) -> Safe:
    told = []
    if dropped:
        told.append(f"{plural(dropped, 'earlier event')} not kept")
    if lost:
        told.append(f"{plural(lost, 'event')} came too fast to be read")
    return literal("          " + "; ".join(told)) if told else EMPTY
