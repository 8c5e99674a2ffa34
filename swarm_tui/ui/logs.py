"""Reading logs: the keys that all logs have, and the screen on which several are one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import ClassVar, Final, Literal

from rich.segment import Segment
from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType

from swarm_tui.errors import SwarmError, UsageError
from swarm_tui.journal import Said, Stamps, export, merge
from swarm_tui.model import AgentId
from swarm_tui.pattern import Pattern, compile_pattern
from swarm_tui.text import Safe, literal, sanitize
from swarm_tui.ui.actions import BY_ID
from swarm_tui.ui.bar import Bar
from swarm_tui.ui.field import Field
from swarm_tui.ui.figures import fit, plural, render_count
from swarm_tui.ui.ink import Ink, Line
from swarm_tui.ui.keys import bindings
from swarm_tui.ui.lines import Lines
from swarm_tui.ui.log import LogEntry, LogView, is_ask
from swarm_tui.ui.screen import Context, SwarmScreen

Asked = Literal["search", "keep", "export"]

_PLACEHOLDERS: Final[dict[Asked, str]] = {
    "search": "regular expression",
    "keep": "only lines that match this regular expression; empty: all",
    "export": "name of a new file; .jsonl for JSON lines",
}


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
        right = fit(self._right, min(len(self._right), max(0, width - 8)))
        room = max(0, width - len(right) - 4)
        left = fit(self._left, min(len(self._left), room))
        rule = "─" * max(0, width - len(left) - len(right) - 6)
        return [
            Segment("─ ", ink.line),
            Segment(left, ink.accent),
            Segment(f" {rule} ", ink.line),
        ], [Segment(right, ink.muted), Segment(" ─", ink.line)]


def standing(lines: Lines) -> str:
    """How lines are shown, for a title: what is sought, how far it is followed, how many."""
    parts = []
    if lines.filter:
        parts.append(f"&{lines.filter.text[:20]}")
    if lines.pattern:
        matches = plural(lines.matches, "match", "matches")
        parts.append(f"/{lines.pattern.text[:20]} {matches}")
    following = "following"
    parts.append(
        following if lines.is_following else f"{render_count(lines.below)} below, s: follow"
    )
    if isinstance(lines, LogView) and lines.stamps is not Stamps.CLOCK:
        parts.append(f"times: {lines.stamps}")
    parts.append(plural(lines.count, "line"))
    return " · ".join(parts)


class LogKeys(SwarmScreen):
    """A screen with a log on it, which may show other lines at times."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.prompt = Field(id="search", on_submit=self._answer)
        self._asked: Asked = "search"
        self._exporting: asyncio.Task[None] | None = None

    @property
    def log_view(self) -> LogView:
        raise NotImplementedError

    @property
    def lines(self) -> Lines:
        """What is shown now and the keys are about."""
        return self.log_view

    def close_prompt(self) -> bool:
        """Leave what is being typed, else the search, else the filter; False: there is none."""
        if self.prompt.display:
            self.prompt.display = False
            self.set_focus(self.lines)
        elif self.lines.pattern:
            self.log_view.stop()
            self.lines.search(None)
        elif self.lines.filter:
            self.lines.keep_only(None)
        else:
            return False
        return True

    def _ask(self, what: Asked, value: str) -> None:
        self._asked = what
        self.prompt.placeholder = _PLACEHOLDERS[what]
        self.prompt.display = True
        self.prompt.value = value
        self.prompt.cursor_position = len(value)
        self.set_focus(self.prompt)

    def do_search(self) -> None:
        self._ask("search", self.lines.pattern.text if self.lines.pattern else "")

    def do_keep(self) -> None:
        self._ask("keep", self.lines.filter.text if self.lines.filter else "")

    def do_export(self) -> None:
        names = list(self.log_view.names.values())
        whose = _plain(names[0]) if len(names) == 1 else f"{len(names)}-agents"
        at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self.context.now()))
        self._ask("export", str(Path.cwd() / f"swarm-log-{whose}-{at}.txt"))

    def _answer(self, text: str) -> None:
        value = text.strip()
        pattern: Pattern | None = None
        if self._asked != "export" and value:
            try:
                pattern = compile_pattern(value)
            except UsageError as error:
                self.refuse(error.title, error.detail or error.hint)
                return  # it can be mended where it stands
        self.prompt.display = False
        self.set_focus(self.lines)
        match self._asked:
            case "search":
                self.lines.search(pattern)
                if pattern and not self.lines.matches:
                    self._find(-1)
            case "keep":
                self.lines.keep_only(pattern)
            case "export" if value:
                self._export(Path(value).expanduser().absolute())

    def do_search_next(self) -> None:
        self._find(1)

    def do_search_previous(self) -> None:
        self._find(-1)

    def _find(self, direction: Literal[-1, 1]) -> None:
        lines = self.lines
        if not lines.pattern:
            self.footer.say("/ searches")
        elif direction < 0 and lines.seek(-1, lambda entry: entry.is_match):
            return
        elif direction < 0 and isinstance(lines, LogView) and lines.seek_back("match"):
            self.footer.say("searching older lines")
        elif not lines.find_next(direction):
            self.footer.say("not found")

    @on(LogView.Missed)
    def _say_nothing_found(self) -> None:
        self.footer.say("not found, not in older lines either")

    def do_follow(self) -> None:
        self.lines.follow(not self.lines.is_following)
        if self.lines.is_following:
            self.log_view.take(self.log_view.agents)

    def do_previous_ask(self) -> None:
        if not self.log_view.seek(-1, is_ask):
            is_older = self.log_view.seek_back("ask")
            self.footer.say("searching older lines" if is_older else "no ask before this")

    def do_next_ask(self) -> None:
        if not self.log_view.seek(1, is_ask):
            self.footer.say("no ask after this")

    def do_stamps(self) -> None:
        kinds = list(Stamps)
        view = self.log_view
        view.choose_stamps(kinds[(kinds.index(view.stamps) + 1) % len(kinds)])

    def _export(self, target: Path) -> None:
        if self._exporting and not self._exporting.done():
            self.refuse(literal("Another export is at work"), literal("Wait until it is done."))
            return
        logs, names = self.log_view.whole(), self.log_view.names
        self._exporting = asyncio.create_task(self._write(target, logs, names), name="export")

    async def _write(
        self, target: Path, logs: Sequence[Iterable[Said]], names: dict[AgentId, Safe]
    ) -> None:
        try:
            count = await asyncio.to_thread(lambda: export(target, merge(logs), names))
        except SwarmError as error:
            self.context.show_error(error)
            return
        self.app.notify(
            sanitize(str(target)),
            title=f"Exported {plural(count, 'line')}",
            timeout=10.0,
            markup=False,
        )


def _plain(name: str) -> str:
    return (
        "".join(sign if sign.isalnum() or sign in "-_." else "_" for sign in name)[:40] or "agent"
    )


class _Head(Bar):
    """Whose logs these are."""

    def __init__(self, context: Context) -> None:
        super().__init__(id="summary")
        self._swarm = context
        self.told: Safe = literal("")

    def draw_line(self, y: int, ink: Ink, width: int) -> tuple[Line, Line]:
        right = []
        if self._swarm.banner:
            right.append(Segment(f" {self._swarm.banner} ", ink.warning))
        if width >= 60:
            clock = time.strftime("%H:%M", time.localtime(self._swarm.now()))
            right.append(Segment(f" {clock} ", ink.muted))
        return [Segment(" logs ", ink.accent), Segment(self.told, ink.strong)], right


class LogScreen(LogKeys):
    """The logs of several agents as one."""

    PLACE = "logs"
    BINDINGS: ClassVar[list[BindingType]] = bindings("logs")

    def __init__(self, context: Context, agents: Sequence[AgentId]) -> None:
        super().__init__(context)
        self._log = LogView(context, agents, has_cursor=True, id="log")
        self._head = _Head(context)
        self._title = PaneTitle()
        self._second = 0

    def compose(self) -> ComposeResult:
        yield self._head
        yield self._title
        yield self._log
        yield self.prompt
        yield self.footer

    @property
    def log_view(self) -> LogView:
        return self._log

    def on_mount(self) -> None:
        self.prompt.display = False
        names = list(self._log.names.values())
        self._head.told = sanitize(f"{plural(len(names), 'agent')}: {', '.join(names[:30])}")
        self.set_focus(self._log)

    def aims(self) -> Collection[AgentId]:
        return [agent] if (agent := self.current()) else []

    def shown(self) -> Collection[AgentId]:
        return self._log.agents

    def current(self) -> AgentId | None:
        line = self._log.current
        agent = line.said.agent if isinstance(line, LogEntry) else None
        return agent if agent in self.context.roster.agents else None

    def tick(self, dirty: set[AgentId], *, hosts_changed: bool, rearranged: bool) -> None:
        self._log.take([agent for agent in self._log.agents if agent in dirty])
        second = int(self.context.now())
        if second != self._second:
            self._second = second
            self._log.pass_time()
            if second % 60 == 0:
                self._head.refresh()

    def catch_up(self) -> None:
        if self._log.is_mounted:
            self._log.take(self._log.agents)

    @on(Lines.Changed)
    def _show_title(self) -> None:
        lost = f" · {plural(self._log.lost, 'line')} too fast to show" if self._log.lost else ""
        self._title.show("log" + lost, standing(self._log))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return parameters != ("open", "enter") or self.focused is not self.prompt

    def do_open(self) -> None:
        if agent := self.current():
            self.context.act(BY_ID["open"], [agent], agent)
        else:
            self.footer.say("this agent is gone")

    def do_back(self) -> None:
        if not self.close_prompt():
            self.dismiss()
