"""Who did what to which agent, newest first; only the visible lines are drawn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import ClassVar, Final

from rich.segment import Segment
from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType

from swarm_tui.amount import render_age
from swarm_tui.audit import Entry, Outcome
from swarm_tui.model import AgentId
from swarm_tui.text import EMPTY, Safe, join, literal, sanitize
from swarm_tui.ui.bar import Bar, Heading
from swarm_tui.ui.figures import fit, plural, wrap
from swarm_tui.ui.ink import Ink, Line
from swarm_tui.ui.keys import bindings
from swarm_tui.ui.reading import ReadingScreen
from swarm_tui.ui.rows import Rows
from swarm_tui.ui.screen import Context

_DETAIL_LINES: Final = 3
_READ_S: Final = 1.0
_WIDE: Final = 110
_DAY_S: Final = 86_400
_SIGNS: Final = {Outcome.DONE: "✓", Outcome.FAILED: "✗", Outcome.UNKNOWN: "?", None: "…"}


class Acts(Rows[Entry]):
    """Lines of acts. The cursor stays on its act when newer ones come, but for the newest."""

    NOTE = "faint"

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(id="acts", note=literal("reading …"))
        self._now = now

    def show(self, acts: Sequence[Entry], note: Safe = EMPTY) -> None:
        """Newest first. Of none, the `note` stands there."""
        if (acts, note) == (self._rows, self._note):
            return
        was = self.current
        self._rows, self._note = acts, note
        places = {act.id: place for place, act in enumerate(acts)}
        is_followed = self._cursor == 0 or was is None
        cursor = 0 if is_followed else places.get(was.id if was else "", 0)
        self._resize()
        if cursor != self._cursor:
            self.scroll_to(y=self.scroll_offset.y + cursor - self._cursor, animate=False)
        self._cursor = cursor
        self.refresh()
        self.post_message(self.Moved())

    def draw_row(self, row: Entry, ink: Ink, width: int) -> tuple[Line, Line]:
        return _draw(row, ink, width, self._now())


def _draw(act: Entry, ink: Ink, width: int, now: float) -> tuple[Line, Line]:
    style = {Outcome.DONE: ink.good, Outcome.FAILED: ink.bad, None: ink.accent}
    line = [
        Segment(f"{_when(act.at, now)} ", ink.faint),
        Segment(f"{_SIGNS[act.outcome]} ", style.get(act.outcome, ink.warning)),
        Segment(f"{fit(act.verb, 9)} ", ink.text),
        Segment(f"{fit(act.name or '-', 14)} ", ink.strong),
    ]
    if width >= _WIDE:
        line.append(Segment(f"{fit(act.host, 12)} ", ink.muted))
    line.append(Segment(act.detail, ink.bad if act.outcome is Outcome.FAILED else ink.muted))
    room = 30 if width >= _WIDE else 18
    return line, [Segment(f" {fit(act.actor, room)}", ink.muted)]


def _when(at: float, now: float) -> str:
    """Time of day; of what is older than a day, the date."""
    form = "%H:%M:%S" if abs(now - at) < _DAY_S else "%y-%m-%d"
    try:
        return time.strftime(form, time.localtime(at))
    except (OverflowError, ValueError, OSError):
        return "--:--:--"


class _Detail(Bar):
    """The act under the cursor in full."""

    def __init__(self) -> None:
        super().__init__(id="detail")
        self._act: Entry | None = None

    def show(self, act: Entry | None) -> None:
        if act != self._act:
            self._act = act
            self.refresh()

    def draw_line(self, y: int, ink: Ink, width: int) -> tuple[Line, Line]:
        act = self._act
        if act is None:
            return [], []
        if y:
            pieces = [piece for line in act.detail.split("\n") for piece in wrap(line, width - 2)]
            rest = "…" if y == _DETAIL_LINES - 1 and len(pieces) >= _DETAIL_LINES else ""
            piece = pieces[y - 1] if y <= len(pieces) else ""
            return [Segment(f" {fit(piece + rest, width - 2)}", ink.text)], []
        took = f" in {render_age(act.ended - act.at)}" if act.ended else ""
        told = act.outcome.value if act.outcome else "not ended, or nobody knows how"
        return [
            Segment(f" {_when(act.at, act.at)} {act.verb} ", ink.strong),
            Segment(f"{act.name} on {act.host} ", ink.text) if act.name else Segment(""),
            Segment(f"by {act.actor}: {told}{took}", ink.muted),
        ], []


class AuditScreen(ReadingScreen):
    """Everybody's acts on all agents, or on one."""

    PLACE = "audit"
    READ_S = _READ_S
    BINDINGS: ClassVar[list[BindingType]] = bindings("audit")

    def __init__(self, context: Context, agent: AgentId | None = None) -> None:
        """`agent`: only what was done to this one, to begin with."""
        super().__init__(context)
        self._agent = agent
        self._head = Heading("acts")
        self._acts = Acts(context.now)
        self._detail = _Detail()
        self._all: Sequence[Entry] = ()

    def compose(self) -> ComposeResult:
        yield self._head
        yield self._acts
        yield self._detail
        yield self.footer

    def on_mount(self) -> None:
        self._detail.styles.height = _DETAIL_LINES
        self.begin_reading()
        self.set_focus(self._acts)

    def catch_up(self) -> None:
        self.show_read()

    async def read(self) -> None:
        acts = await asyncio.to_thread(self.context.supervisor.acts)
        self._all = list(reversed(acts))

    def show_read(self) -> None:
        acts = [act for act in self._all if self._agent is None or act.agent == str(self._agent)]
        note = literal("nothing was done yet" if self._is_read else "reading …")
        self._acts.show(acts, self._problem.title if self._problem else note)
        count = literal(plural(len(acts), "act"))
        stale = EMPTY
        if self._problem:
            stale = literal("cannot be read now")
        elif self.context.supervisor.audit.gap:
            stale = literal("the store is out of reach: only what was done from here")
        self._head.show(self._whose(), join((stale, count), " · "))

    def _whose(self) -> Safe:
        if self._agent is None:
            return literal("on all agents")
        known = self.context.store.agent(self._agent)
        named = next((act.name for act in self._all if act.agent == str(self._agent)), EMPTY)
        return join((literal("on"), known.name if known else named or sanitize(self._agent)))

    @on(Acts.Moved)
    def _show_detail(self) -> None:
        self._detail.show(self._acts.current)

    def do_only(self) -> None:
        """Between the acts on one agent and those on all."""
        act = self._acts.current
        if self._agent is not None:
            self._agent = None
        elif act and act.agent:
            self._agent = AgentId(act.agent)
        else:
            self.footer.say("this act was on no agent")
        self.show_read()

    def do_back(self) -> None:
        self.dismiss()
