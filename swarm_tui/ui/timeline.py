"""An agent's past: its checkpoints, newest first, what holds each, and what was forked of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Final

from rich.segment import Segment
from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType

from swarm_tui.amount import render_age, render_bytes
from swarm_tui.command import Discard, Mark, Past, RollBack
from swarm_tui.inventory import Kept
from swarm_tui.model import Agent, AgentId, Snapshot, State
from swarm_tui.retention import forks, holds
from swarm_tui.text import EMPTY, Safe, join, literal, sanitize
from swarm_tui.ui.action import Action
from swarm_tui.ui.actions import BY_ID, at
from swarm_tui.ui.agent import AgentScreen
from swarm_tui.ui.bar import Bar, Footer, Heading
from swarm_tui.ui.dialogs import Confirm
from swarm_tui.ui.figures import fit, fit_right, plural, wrap
from swarm_tui.ui.glyphs import STATE_GLYPHS
from swarm_tui.ui.ink import Ink, Line
from swarm_tui.ui.keys import bindings
from swarm_tui.ui.naming import NameDialog
from swarm_tui.ui.question import Question
from swarm_tui.ui.reading import ReadingScreen
from swarm_tui.ui.rows import Rows
from swarm_tui.ui.screen import Context, OneAgentScreen
from swarm_tui.ui.verbs import Verbs

_READ_S: Final = 10.0
"""So often it is read anew without being asked: others act, too."""
_WIDE: Final = 110
_DETAIL_LINES: Final = 4
_DAY_S: Final = 86_400
_OF_A_SNAPSHOT: Final = ("roll-back", "fork-from", "mark-pin", "mark-name", "discard")
_OF_A_FORK: Final = ("show-fork", "compare")
_LABELS: Final = {"checkpoint": "checkpoint"}
"""Of what other footers have no room for."""
_STANDING: Final = {
    "missing": literal("gone from its host"),
    "unseen": literal("not looked for"),
}


@dataclass(frozen=True, slots=True)
class Point:
    """A line: a checkpoint or, below it, an agent that was forked from it."""

    kept: Kept
    needed: Safe
    """By what besides a person; empty: by nothing."""
    is_present: bool
    """The agent is saved in it."""
    fork: Agent | None = None

    @property
    def snapshot(self) -> Snapshot:
        return self.kept.snapshot

    @property
    def called(self) -> Safe:
        """Its name, else what it was made for."""
        snapshot = self.snapshot
        return snapshot.title or snapshot.origin.told or literal(snapshot.origin.cause)

    @property
    def held(self) -> Safe:
        """By whom or what."""
        pinned = literal("pinned") if self.snapshot.is_pinned else EMPTY
        named = literal("named") if self.snapshot.title else EMPTY
        return join((self.needed, pinned, named), ", ")


class _Points(Rows[Point]):
    """The cursor stays on its line when newer ones come, but for the newest."""

    NOTE = "faint"

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(id="points", note=literal("reading …"))
        self._now = now

    def show(self, points: Sequence[Point], note: Safe) -> None:
        """Newest first. Of none, the `note` stands there."""
        if (points, note) == (self._rows, self._note):
            return
        was = self.current
        self._rows, self._note = points, note
        places = {_key(point): place for place, point in enumerate(points)}
        # Never onto another by itself: of one that went, the cursor goes to the next older one.
        cursor = places.get(_key(was), self._cursor) if was else 0
        self._cursor = max(0, min(cursor, len(points) - 1))
        self._resize()
        self._scroll_to_cursor()
        self.refresh()
        self.post_message(self.Moved())

    def draw_row(self, row: Point, ink: Ink, width: int) -> tuple[Line, Line]:
        return _draw_fork(row.fork, ink) if row.fork else _draw(row, ink, width, self._now())


def _key(point: Point) -> tuple[str, str]:
    return point.snapshot.id, point.fork.id if point.fork else ""


def _draw(point: Point, ink: Ink, width: int, now: float) -> tuple[Line, Line]:
    snapshot, is_wide = point.snapshot, width >= _WIDE
    mark, style = ("*", ink.warning) if snapshot.is_pinned else (" ", ink.faint)
    if point.is_present:
        mark, style = STATE_GLYPHS[State.SAVED], ink.states[State.SAVED]
    line = [
        Segment(f"{_when(snapshot.created, now)} ", ink.muted),
        Segment(f"{mark} ", style),
        Segment(f"{fit(point.called, 32 if is_wide else 24)} ", ink.strong),
    ]
    by = snapshot.origin.by if is_wide else snapshot.origin.by.partition("@")[0]
    if is_wide:
        cause = snapshot.origin.told if snapshot.title else EMPTY
        line.append(Segment(f"{fit(cause or snapshot.origin.cause, 28)} ", ink.muted))
    line += [
        Segment(f"{fit_right(render_bytes(snapshot.size_bytes), 9)}  ", ink.text),
        Segment(f"{fit(by or '-', 14 if is_wide else 8)} ", ink.muted),
    ]
    if told := _STANDING.get(point.kept.standing):
        line.append(Segment(f"{told} ", ink.bad if point.kept.standing == "missing" else ink.faint))
    line.append(Segment(point.held, ink.text))
    return line, []


def _draw_fork(fork: Agent, ink: Ink) -> tuple[Line, Line]:
    return [
        Segment("         └ ", ink.faint),
        Segment(f"{STATE_GLYPHS[fork.state]} ", ink.states[fork.state]),
        Segment(f"{fit(fork.name, 22)} ", ink.strong),
        Segment(f"{fit(fork.state, 8)} ", ink.states[fork.state]),
        Segment(f"{fit(sanitize(fork.host), 12)} ", ink.muted),
        Segment(fork.tag.task, ink.muted),
    ], []


def _when(at: float, now: float) -> str:
    """Time of day; of what is older than a day, the date."""
    form = "%H:%M:%S" if abs(now - at) < _DAY_S else "%y-%m-%d"
    try:
        return time.strftime(form, time.localtime(at))
    except (OverflowError, ValueError, OSError):
        return "--:--:--"


class _Detail(Bar):
    """The line under the cursor in full."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(id="detail")
        self._now = now
        self._point: Point | None = None

    def show(self, point: Point | None) -> None:
        if point != self._point:
            self._point = point
            self.refresh()

    def draw_line(self, y: int, ink: Ink, width: int) -> tuple[Line, Line]:
        point = self._point
        if point is None:
            return [], []
        snapshot = point.snapshot
        if y == 0:
            age = render_age(self._now() - snapshot.created)
            by = f" by {snapshot.origin.by}" if snapshot.origin.by else ""
            told = snapshot.origin.told or snapshot.origin.cause
            called = f" “{snapshot.title}”" if snapshot.title else ""
            return [
                Segment(f" {sanitize(snapshot.id)}", ink.strong),
                Segment(called, ink.text),
                Segment(f" made {age} ago{by} for: {told}", ink.muted),
            ], []
        if y == 1:
            return [Segment(f" {sanitize(point.kept.digest) or 'digest n/a'}", ink.muted)], []
        if y == 2:
            made = sanitize(snapshot.hypervisor) or literal("hypervisor n/a")
            where = f"on {sanitize(point.kept.host)}"
            if standing := _STANDING.get(point.kept.standing):
                where = f"{where}, {standing}"
            return [Segment(f" {made} · {where}", ink.muted)], []
        held = f"held: {point.held}" if point.held else "held by nothing: a rule may remove it"
        return [Segment(f" {wrap(held, width - 2)[0]}", ink.text)], []


class TimelineScreen(OneAgentScreen, ReadingScreen):
    """The checkpoints of one agent, and what can be done with each."""

    PLACE = "timeline"
    READ_S = _READ_S
    KEPT = ("roll-back", "discard", "help", "quit")
    BINDINGS: ClassVar[list[BindingType]] = bindings("timeline")

    def __init__(self, context: Context, agent: AgentId, verbs: Verbs) -> None:
        super().__init__(context, agent)
        here = [replace(one, label=_LABELS.get(one.id, one.label)) for one in at(self.PLACE)]
        self.footer = Footer(here, kept=self.KEPT, id="footer")
        self._verbs = verbs
        self._head = Heading("timeline")
        self._points = _Points(context.now)
        self._detail = _Detail(context.now)
        self._kept: Sequence[Kept] = ()
        self._was_at_work = False
        self._second = 0
        known = context.store.agent(agent)
        self._whose = known.name if known else sanitize(agent)

    def compose(self) -> ComposeResult:
        yield self._head
        yield self._points
        yield self._detail
        yield self.footer

    def on_mount(self) -> None:
        self._detail.styles.height = _DETAIL_LINES
        self.begin_reading()
        self.set_focus(self._points)

    def tick(self, dirty: set[AgentId], *, hosts_changed: bool, rearranged: bool) -> None:
        if (second := int(self.context.now())) != self._second:
            self._second = second
            self._detail.refresh()  # its age moves on
        if self.agent_id not in dirty and not hosts_changed:
            return
        known = self.context.store.agent(self.agent_id)
        is_at_work = known is not None and known.operation is not None
        if self._was_at_work and not is_at_work:
            self.read_again()
        self._was_at_work = is_at_work
        self._tell()
        self.show_keys({})

    def catch_up(self) -> None:
        self.show_read()

    # What it shows

    async def read(self) -> None:
        self._kept, problem = await self.context.supervisor.past(self.agent_id)
        self._is_read = True
        if problem:  # what is known is shown all the same
            raise problem

    def show_read(self) -> None:
        note = literal("no checkpoint yet: S takes one" if self._is_read else "reading …")
        self._points.show(self._arrange(), self._problem.title if self._problem else note)
        self._tell()
        self._show_detail()

    def _arrange(self) -> Sequence[Point]:
        agents = {agent.id: agent for agent in self.context.store.agents()}
        known = agents.get(self.agent_id)
        records = [agent.record for agent in agents.values() if agent.record]
        needed = holds(known.record if known else None, records)
        present = known.record.saved_in if known and known.record else None
        below = forks(self.agent_id, records)
        points = []
        for kept in reversed(self._kept):
            snapshot = kept.snapshot.id
            point = Point(kept, needed.get(snapshot, EMPTY), snapshot == present)
            points.append(point)
            points += [
                Point(kept, point.needed, point.is_present, agents[record.id])
                for record in below.get(snapshot, ())
            ]
        return points

    def _tell(self) -> None:
        known = self.context.store.agent(self.agent_id)
        of = join((literal("of"), known.name if known else self._whose))
        if known is None:
            of = join((of, literal("which is gone")), ", ")
        elif known.operation:
            of = join((of, literal(known.operation.verb), known.operation.step), " · ")
        else:
            of = join((of, literal(known.state)), " · ")
        stale = literal("as last known") if self._problem else EMPTY
        size = sum(kept.snapshot.size_bytes for kept in self._kept)
        count = literal(plural(len(self._kept), "checkpoint"))
        on_disk = literal(f"{render_bytes(size)} on disk") if self._kept else EMPTY
        told = join((stale, count, on_disk), " · ")
        self._head.show(of, told if self._is_read or self._problem else EMPTY)

    @on(Rows.Moved)
    def _show_detail(self) -> None:
        self._detail.show(self._points.current)
        self.show_keys({})

    def show_keys(self, keys: dict[str, str], denied: Collection[str] = ()) -> None:
        refused = {action.id for action in at(self.PLACE) if self._why_not(action)}
        self.footer.show(frozenset(refused).union(denied), keys)

    def _why_not(self, action: Action) -> Safe:
        """Why it cannot be done to what is under the cursor now; empty: it can."""
        point = self._points.current
        if action.id in _OF_A_FORK:
            return EMPTY if point and point.fork else literal("this line is no fork")
        if action.id not in _OF_A_SNAPSHOT:
            return EMPTY
        if point is None:
            return literal("there is no checkpoint")
        if point.fork:
            return literal("this line is a fork; the checkpoint is above it")
        if denied := self.context.deny(action, self.current()):
            return denied.reason
        if point.kept.standing == "missing":
            return literal("it is gone from its host")
        if action.id == "discard" and point.needed:
            return point.needed
        if action.id == "roll-back" and point.is_present:
            return literal("the agent is saved in it; resume it")
        return EMPTY

    # Actions

    def _chosen(self, action: Action) -> Point | None:
        """What is under the cursor, after telling why it cannot be done to that."""
        if why := self._why_not(action):
            self.refuse(literal(f"Cannot {action.label} now"), why)
            return None
        return self._points.current

    def _do(self, action: Action, command: Past) -> None:
        self._verbs.do(action, command, self.read_again)

    def _ask(self, action: Action, question: Question, command: Past) -> None:
        def answered(is_yes: bool | None) -> None:
            if is_yes:
                self._do(action, command)

        self.app.push_screen(Confirm(question, self.context.monotonic), answered)

    def do_roll_back(self) -> None:
        action = BY_ID["roll-back"]
        if (point := self._chosen(action)) is None:
            return
        known = self.context.store.agent(self.agent_id)
        record = known.record if known else None
        if record and record.saved_in:
            present = literal(f"What it is now stays saved in {record.saved_in}.")
        else:
            present = literal("What it is now is saved first, and can be rolled back to.")
        age = render_age(self.context.now() - point.snapshot.created)
        lines = [present, literal(f"It goes on from where it stood {age} ago.")]
        if record and record.review is not None:
            lines.append(literal(f"Its open review {record.review} becomes void."))
        title = join((literal("Roll"), self._whose, literal("back?")))
        question = Question(title, [self._describe(point)], lines, "roll back")
        self._ask(action, question, RollBack(self.agent_id, point.snapshot.id))

    def do_discard(self) -> None:
        action = BY_ID["discard"]
        if (point := self._chosen(action)) is None:
            return
        lines = [literal("It goes for good; there is no way back to it then.")]
        if point.held:
            lines.append(join((literal("Somebody wanted it kept: it is"), point.held)))
        title = join((literal("Discard a checkpoint of"), join((self._whose, literal("?")), "")))
        question = Question(title, [self._describe(point)], lines, "discard", is_grave=True)
        self._ask(action, question, Discard(self.agent_id, point.snapshot.id))

    def _describe(self, point: Point) -> Safe:
        snapshot = point.snapshot
        when = sanitize(_when(snapshot.created, self.context.now()))
        size = literal(render_bytes(snapshot.size_bytes))
        return join((when, point.called, size, sanitize(snapshot.id)), " · ")

    def do_fork_from(self) -> None:
        action = BY_ID["fork-from"]
        if point := self._chosen(action):
            self._verbs.fork(action, [self.agent_id], point.snapshot.id, self._describe(point))

    def do_checkpoint(self) -> None:
        self._verbs.checkpoint(BY_ID["checkpoint"], [self.agent_id])

    def do_mark_pin(self) -> None:
        action = BY_ID["mark-pin"]
        if point := self._chosen(action):
            snapshot = point.snapshot
            is_pinned = not snapshot.is_pinned
            self._do(action, Mark(self.agent_id, snapshot.id, snapshot.title, is_pinned))

    def do_mark_name(self) -> None:
        action = BY_ID["mark-name"]
        if (point := self._chosen(action)) is None:
            return
        snapshot = point.snapshot

        def answered(name: str | None) -> None:
            if name is not None and name != snapshot.title:
                self._do(action, Mark(self.agent_id, snapshot.id, name, snapshot.is_pinned))

        asked = literal("Name the checkpoint")
        self.app.push_screen(NameDialog(asked, self._describe(point), snapshot.title), answered)

    def do_show_fork(self) -> None:
        point = self._points.current
        if point and point.fork:
            self.app.push_screen(AgentScreen(self.context, point.fork.id))
        else:
            self.footer.say("this line is no fork")

    def do_compare(self) -> None:
        action = BY_ID["compare"]
        if (point := self._chosen(action)) and point.fork:
            self.context.act(action, [self.agent_id, point.fork.id], self.agent_id)

    def do_refresh(self) -> None:
        self.read_again()
        self.footer.say("reading")

    def do_back(self) -> None:
        self.dismiss()
