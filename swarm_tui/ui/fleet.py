"""The fleet: who waits for a human, and what everybody else is doing."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from typing import ClassVar, Final

from rich.cells import cell_len
from rich.segment import Segment
from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.widgets import Input

from swarm_tui.amount import render_age
from swarm_tui.batch import Batch, Fate
from swarm_tui.errors import UsageError
from swarm_tui.filter import complete
from swarm_tui.model import AgentId, Host, HostState
from swarm_tui.text import sanitize
from swarm_tui.ui.bar import Bar
from swarm_tui.ui.field import Field
from swarm_tui.ui.figures import plural, render_count, wrap
from swarm_tui.ui.glyphs import STATE_GLYPHS
from swarm_tui.ui.grid import Grid, TableHead, View
from swarm_tui.ui.hint import Hint
from swarm_tui.ui.ink import Ink, Line, Role
from swarm_tui.ui.keys import bindings
from swarm_tui.ui.roster import URGENCY, Group, Order, Roster
from swarm_tui.ui.screen import Context, SwarmScreen

_NOTICES_AT_MOST: Final = 3
"""Lines for hosts that are not up."""

_LABELS_AT_MOST: Final = 4
"""Keys of labels that grouping goes through."""

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

    def update(self) -> None:
        """Draw again if anything on it changed."""
        roster = self._swarm.roster
        hosts = self._swarm.store.hosts()
        shown = (
            dict(roster.counts),
            (roster.order, roster.is_reversed, roster.grouped, roster.filter, len(roster)),
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
        if roster.filter:
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
        stale_s = host.stale_s(self._swarm.now())
        if stale_s is not None:
            told = f"  connected, but not heard for {render_age(stale_s)}"
            told += f"  {host.detail}" if host.detail else ""
            return [((" ◌ ", "warning"), (name, "strong"), (told, "warning"))]
        age = render_age(self._swarm.now() - host.since)
        head: _Row = ((" ○ ", "bad"), (name, "strong"), (f"  out of reach for {age}", "bad"))
        width = self.app.size.width - 4
        reason = host.detail.replace("\n", " ")
        if lines < 2 or sum(cell_len(text) for text, _ in head) + cell_len(reason) < width:
            return [(*head, (f"  {reason}", "text"))]
        pieces = wrap(reason, width)[: lines - 1]
        return [head, *(((f"   {piece}", "text"),) for piece in pieces)]

    def draw_line(self, y: int, ink: Ink, width: int) -> tuple[Line, Line]:
        row = self._rows[y] if y < len(self._rows) else ()
        return [Segment(text, getattr(ink, role)) for text, role in row], []


class FleetScreen(SwarmScreen):
    """All agents, as tiles or as a table."""

    PLACE = "fleet"
    BINDINGS: ClassVar[list[BindingType]] = bindings("fleet")

    def __init__(self, context: Context, view: View) -> None:
        super().__init__(context)
        self._roster: Roster = context.roster
        self.grid = Grid(
            context.store, context.roster, view=view, now=context.now, monotonic=context.monotonic
        )
        self._head = TableHead(id="head")
        self._summary = Summary(context)
        self._hosts = HostNotices(context)
        self._input = Field(id="filter", placeholder="words  host:lab  state:asking  !word: not")
        self._hint = Hint()
        self._known: Mapping[str, Iterable[str]] = {}
        """What there was to filter by when the filter was opened."""
        self._second = 0

    def compose(self) -> ComposeResult:
        yield self._summary
        yield self._hosts
        yield self._head
        yield self.grid
        yield self._input
        yield self._hint
        yield self.footer

    def on_mount(self) -> None:
        self._input.display = self._hint.display = False
        self._head.display = self.grid.view is View.TABLE
        self.set_focus(self.grid)
        self.catch_up()

    def aims(self) -> Collection[AgentId]:
        if self.grid.selected:
            return self.grid.selected
        return [self.grid.cursor] if self.grid.cursor else []

    def shown(self) -> Collection[AgentId]:
        return self.grid.in_sight()

    def current(self) -> AgentId | None:
        return self.grid.cursor

    def is_steady(self) -> bool:
        return bool(self.grid.selected) or self.grid.is_steady()

    def drop_selection(self) -> None:
        self.grid.select(())

    def take_selection(self, agents: Collection[AgentId]) -> None:
        self.grid.select(agent for agent in agents if agent in self._roster.agents)

    def on_resize(self) -> None:
        self._hosts.update()

    # News

    def tick(self, dirty: set[AgentId], *, hosts_changed: bool, rearranged: bool) -> None:
        if rearranged:
            self.grid.show()
        else:
            self.grid.tick(dirty)
        second = int(self.context.now())
        if hosts_changed or second != self._second:
            self._second = second
            self._hosts.update()
            self._explain_nothing()
        if dirty or hosts_changed:
            self._show_keys()
        self._show_summary()

    def catch_up(self) -> None:
        self.grid.show(asked_for=True)
        self._hosts.update()
        self._explain_nothing()
        self._show_keys()
        self._show_summary()

    @on(Grid.Moved)
    def _show_targets(self) -> None:
        self._show_keys()
        self._show_summary()

    def _show_keys(self) -> None:
        self.show_keys({"logs": "l" if self.grid.view is View.TABLE else "L"})

    def _show_summary(self) -> None:
        self._summary.selected = len(self.grid.selected)
        self._summary.hidden = sum(agent not in self._roster for agent in self.grid.selected)
        self._summary.update()

    def _explain_nothing(self) -> None:
        hosts = self.context.store.hosts()
        up = [host for host in hosts if host.state is HostState.UP]
        if self._roster.agents:
            told = ("No agent matches the filter", "esc shows all of them")
        elif up:
            makes = self.context.supervisor.spawners()
            told = ("No agents yet", "n makes one" if makes else "swarm-tui spawn makes one")
        elif not hosts:
            told = ("No host is configured", "swarm-tui demo brings up a local swarm")
        elif any(host.state is HostState.CONNECTING for host in hosts):
            told = ("Connecting", "agents appear as their host answers")
        else:
            told = ("No host can be reached", "it is tried again and again; swarm-tui doctor")
        self.grid.explain_nothing(*told)

    # Actions

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if parameters == ("logs", "l"):  # among tiles it moves right; a table has nothing there
            return self.grid.view is View.TABLE
        if parameters == ("complete", "tab"):
            return self.focused is self._input
        return parameters != ("open", "enter") or self.focused is not self._input

    def do_back(self) -> None:
        if self.focused is self._input or (self._roster.filter and not self.grid.selected):
            self._close_filter()
            self._choose(filter="")
        else:
            self.drop_selection()

    def do_filter(self) -> None:
        self._input.display = self._hint.display = True
        self._input.value = self._roster.filter
        self._input.cursor_position = len(self._input.value)
        self._known = self._roster.known()
        self._hint.show(None, complete(self._input.value, self._known))
        self.set_focus(self._input)

    def do_select(self) -> None:
        if self.grid.cursor:
            self.grid.toggle(self.grid.cursor)

    def do_select_all(self) -> None:
        shown = {agent for section in self._roster.sections for agent in section.ids}
        selected = self.grid.selected
        self.grid.select(selected - shown if selected >= shown else selected | shown)

    def do_invert(self) -> None:
        shown = {agent for section in self._roster.sections for agent in section.ids}
        self.grid.select(self.grid.selected ^ shown)

    def do_view(self) -> None:
        view = View.TABLE if self.grid.view is View.TILES else View.TILES
        self._head.display = view is View.TABLE
        self.grid.choose_view(view)
        self._show_keys()

    def do_sort(self) -> None:
        orders = list(Order)
        self._choose(order=orders[(orders.index(self._roster.order) + 1) % len(orders)])
        self.footer.say(f"sorted by {self._roster.order}")

    def do_reverse(self) -> None:
        self._choose(is_reversed=not self._roster.is_reversed)
        self.footer.say("the last first" if self._roster.is_reversed else "the first first")

    def do_group(self) -> None:
        roster = self._roster
        keys = roster.label_keys()[:_LABELS_AT_MOST]
        groups: list[tuple[Group, str]] = [(each, "") for each in Group if each is not Group.LABEL]
        groups += [(Group.LABEL, key) for key in keys]
        now = (roster.group, roster.label if roster.group is Group.LABEL else "")
        group, label = groups[(groups.index(now) + 1) % len(groups) if now in groups else 0]
        self._choose(group=group, label=label)
        self.footer.say(f"grouped by {grouped}" if (grouped := roster.grouped) else "not grouped")

    def do_next_waiting(self) -> None:
        agent = self._roster.next_asking(self.grid.cursor)
        if agent is None:
            self.footer.say("nobody waits for you")
            return
        if agent not in self._roster:
            self._choose(filter="")
        self.grid.move_to(agent)

    def _choose(
        self,
        *,
        order: Order | None = None,
        is_reversed: bool | None = None,
        group: Group | None = None,
        label: str | None = None,
        filter: str | None = None,
    ) -> None:
        self._roster.choose(
            self.context.monotonic(),
            order=order,
            is_reversed=is_reversed,
            group=group,
            label=label,
            filter=filter,
        )
        self.catch_up()

    def _close_filter(self) -> None:
        self._input.display = self._hint.display = False
        self.set_focus(self.grid)

    @on(Input.Changed)
    def _filter_as_typed(self, event: Input.Changed) -> None:
        if self._input.display:
            self._hint.show(self._try_filter(event.value), complete(event.value, self._known))

    def _try_filter(self, text: str) -> UsageError | None:
        """Show what it lets through. If it is wrong: what is, and then all but its last word hold.

        If those are wrong as well, the last good list stays.
        """
        problem = None
        for part in (text, text.rpartition(" ")[0]):
            try:
                if part != self._roster.filter:
                    self._choose(filter=part)
            except UsageError as error:
                problem = problem or error
            else:
                break
        return problem

    @on(Input.Submitted)
    def _keep_filter(self, event: Input.Submitted) -> None:
        problem = self._try_filter(event.value)
        if problem:
            self._hint.show(problem, ())
        else:
            self._close_filter()

    def do_complete(self) -> None:
        if self.focused is self._input and self._hint.completions:
            self._input.value = self._hint.completions[0].text
            self._input.cursor_position = len(self._input.value)

    @on(Grid.Opened)
    def _open(self) -> None:
        self.action_act("open")
