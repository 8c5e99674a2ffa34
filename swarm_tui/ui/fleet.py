"""The fleet: who waits for a human, and what everybody else is doing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import ClassVar, Final

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.widgets import Input

from swarm_tui import views
from swarm_tui.errors import UsageError
from swarm_tui.filter import complete
from swarm_tui.model import AgentId, HostState
from swarm_tui.text import literal
from swarm_tui.ui.actions import BY_ID
from swarm_tui.ui.field import Field
from swarm_tui.ui.grid import Grid, TableHead, View
from swarm_tui.ui.hint import Hint
from swarm_tui.ui.keys import bindings
from swarm_tui.ui.roster import Roster
from swarm_tui.ui.screen import Context, SwarmScreen
from swarm_tui.ui.summary import HostNotices, Summary
from swarm_tui.ui.views import ViewsDialog
from swarm_tui.views import Group, Order

_LABELS_AT_MOST: Final = 4
"""Keys of labels that grouping goes through."""


class FleetScreen(SwarmScreen):
    """All agents, as tiles or as a table."""

    PLACE = "fleet"
    BINDINGS: ClassVar[list[BindingType]] = bindings("fleet")

    def __init__(
        self, context: Context, view: View, file: Path, start: views.View = views.BUILT_IN[0]
    ) -> None:
        """`file` holds the person's own views; `start` is the one to begin with."""
        super().__init__(context)
        self._file = file
        self._start = start
        self._roster: Roster = context.roster
        self.grid = Grid(
            context.store, context.roster, view=view, now=context.now, monotonic=context.monotonic
        )
        self._head = TableHead(id="head")
        self._summary = Summary(context)
        self._hosts = HostNotices(context)
        self._input = Field(
            id="filter",
            placeholder="words  host:lab  state:asking  !word: not",
            on_submit=self._keep_filter,
        )
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
        self._take_view(self._start)

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
        keys = {"logs": "l" if self.grid.view is View.TABLE else "L"}
        self.show_keys(keys, [] if len(self.grid.selected) == 2 else ["compare"])

    def _show_summary(self) -> None:
        self._summary.selected = len(self.grid.selected)
        self._summary.hidden = sum(agent not in self._roster for agent in self.grid.selected)
        self._summary.update()

    def _explain_nothing(self) -> None:
        hosts = self.context.store.hosts()
        up = [host for host in hosts if host.state is HostState.UP]
        if self._roster.agents and self._roster.filter:
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

    def do_compare(self) -> None:
        selected = self._roster.in_order(self.grid.selected)
        if len(selected) == 2:
            self.context.act(BY_ID["compare"], selected, self.current())
        else:
            told = literal("Select exactly two agents first: space.")
            self.refuse(literal("Nothing to compare"), told)

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
        self._look(View.TABLE if self.grid.view is View.TILES else View.TILES)

    def _look(self, view: View) -> None:
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

    def do_views(self) -> None:
        self.app.push_screen(ViewsDialog(self._file, self._present()), self._take_view)

    def _present(self) -> views.View:
        """How the fleet is shown now."""
        roster = self._roster
        return views.View(
            "",
            roster.filter,
            roster.order,
            roster.is_reversed,
            roster.group,
            roster.label if roster.group is Group.LABEL else "",
            views.Look(self.grid.view.value),
        )

    def _take_view(self, view: views.View | None) -> None:
        if view is None:
            return
        if view.look:
            self._look(View(view.look.value))
        self._choose(
            order=view.order,
            is_reversed=view.is_reversed,
            group=view.group,
            label=view.label,
            filter=view.filter,
        )
        self._summary.view = view
        self._summary.update()

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

    def _keep_filter(self, text: str) -> None:
        problem = self._try_filter(text)
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
