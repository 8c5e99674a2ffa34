"""One agent: its log, its graphs, all facts about it, and its serial console."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from typing import ClassVar, Literal

from rich.segment import Segment
from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical

from swarm_tui.amount import render_age
from swarm_tui.errors import SwarmError
from swarm_tui.model import Agent, AgentId, Link, State
from swarm_tui.text import EMPTY, literal, sanitize
from swarm_tui.ui.bar import Bar
from swarm_tui.ui.brief import age_of, tell
from swarm_tui.ui.console import LINES_AT_MOST, Transcript
from swarm_tui.ui.facts import Facts, Graphs, list_facts
from swarm_tui.ui.figures import plural
from swarm_tui.ui.glyphs import STATE_GLYPHS
from swarm_tui.ui.ink import Ink, Line
from swarm_tui.ui.keys import bindings
from swarm_tui.ui.lines import Entry, Lines
from swarm_tui.ui.log import LogView
from swarm_tui.ui.logs import LogKeys, PaneTitle, standing
from swarm_tui.ui.screen import Context

Pane = Literal["log", "details", "console"]


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


class AgentScreen(LogKeys):
    """One agent, on the whole screen."""

    PLACE = "agent"
    BINDINGS: ClassVar[list[BindingType]] = bindings("agent")

    def __init__(self, context: Context, agent: AgentId, *, log_alone: bool = False) -> None:
        super().__init__(context)
        self.agent_id = agent
        self.HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]
        self._head = Head(context, agent)
        self._graphs = Graphs()
        self._facts = Facts()
        self._title = PaneTitle()
        self._log = LogView(context, [agent], id="log")
        self._serial = Lines(id="console")
        self._pane: Pane = "log"
        self._log_alone = log_alone
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
        yield self.prompt
        yield self.footer

    def on_mount(self) -> None:
        self.prompt.display = False
        self._choose_pane("log")
        self.catch_up()

    def on_unmount(self) -> None:
        if self._reading:
            self._reading.cancel()

    def aims(self) -> Collection[AgentId]:
        return [agent] if (agent := self.current()) else []

    def current(self) -> AgentId | None:
        return self.agent_id if self.context.store.agent(self.agent_id) else None

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
        if self._log.is_mounted:
            self._log.take([self.agent_id])
        self._show_title()
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
            parent = agent.record.birth.parent if agent.record else None
            known = self.context.store.agent(parent) if parent else None
            name = known.name if known else EMPTY
            self._facts.show(list_facts(agent, host, self.context.now(), name))

    @on(Lines.Changed)
    def _show_title(self) -> None:
        lines = self.lines
        title = {"log": "log", "details": "details", "console": "serial console, read only"}
        agent = self._head.last_known
        link = ""
        is_cut = agent is not None and agent.link in (Link.DOWN, Link.CONNECTING)
        if self._pane == "log" and agent and is_cut:
            link = f" (link {agent.link})"
        told = "i: log" if self._pane == "details" else standing(lines)
        self._title.show(title[self._pane] + link + self._lost(), told)

    def _lost(self) -> str:
        is_told = self._pane == "log" and self._log.lost
        return f" · {plural(self._log.lost, 'line')} too fast to show" if is_told else ""

    # Panes

    @property
    def log_view(self) -> LogView:
        return self._log

    @property
    def lines(self) -> Lines:
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
        self.set_focus(self._facts if pane == "details" else self.lines)
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
        if self.close_prompt():
            return
        if self._pane != "log":
            self._choose_pane("log")
        else:
            self.dismiss()

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
        super().do_search()

    def do_keep(self) -> None:
        if self._pane == "details":
            self._choose_pane("log")
        super().do_keep()

    def do_previous_ask(self) -> None:
        self._choose_pane("log")
        super().do_previous_ask()

    def do_next_ask(self) -> None:
        self._choose_pane("log")
        super().do_next_ask()

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
