"""The hosts: how each one is, what it has, what its agents take of it, and what it cannot do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from rich.segment import Segment
from rich.style import Style
from textual import events, on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from swarm_tui.amount import NOT_KNOWN, render_age, render_bytes
from swarm_tui.capacity import Load, measure
from swarm_tui.command import Spawn
from swarm_tui.filter import quote
from swarm_tui.model import AgentId, Host, HostName, HostState
from swarm_tui.placement import Forecast
from swarm_tui.stock import Stock, spread
from swarm_tui.text import join, sanitize
from swarm_tui.ui.bar import Bar, Inked
from swarm_tui.ui.brief import tell_next_try
from swarm_tui.ui.facts import Fact, Facts
from swarm_tui.ui.figures import fit, fit_right, plural
from swarm_tui.ui.glyphs import STATE_GLYPHS
from swarm_tui.ui.ink import Ink, Line, draw, fit_line, ink_of
from swarm_tui.ui.keys import bindings, quiet
from swarm_tui.ui.pen import CURSOR
from swarm_tui.ui.roster import URGENCY
from swarm_tui.ui.screen import Context, SwarmScreen

_VERBS: Final = {
    "spawn": "make agents",
    "save": "pause to disk",
    "restore": "resume from disk",
    "suspend": "quick pause",
    "console": "serial console",
    "fork": "fork, to make agents quickly",
}
"""Port methods that a host may lack → what a person calls them."""
_COUNTERS: Final = {
    "cpu_ns": "CPU",
    "memory_used": "memory used",
    "memory_given": "memory given",
    "memory_host": "memory on the host",
    "disk_read": "disk reads",
    "disk_written": "disk writes",
    "net_received": "network in",
    "net_sent": "network out",
}
ASKED: Final = 100
"""New agents for which room is looked for."""
_UNTOLD: Final = "not connected so far"


@dataclass(frozen=True, slots=True)
class Row:
    """One host with what its agents take."""

    host: Host
    load: Load

    def state(self, ink: Ink, now: float) -> tuple[str, Style]:
        host = self.host
        age = render_age(now - host.since)
        match host.state:
            case HostState.DOWN:
                return f"○ lost {age}", ink.bad
            case HostState.CONNECTING:
                return f"… connecting {age}", ink.muted
        stale_s = host.stale_s(now)
        if stale_s is not None:
            return f"◌ stale {render_age(stale_s)}", ink.warning
        return f"● up {age}", ink.good


def _driver(row: Row) -> str:
    able = row.host.capabilities
    return sanitize(f"{able.driver} {able.version}") if able else NOT_KNOWN


def _latency(seconds: float | None) -> str:
    if seconds is None:
        return NOT_KNOWN
    return f"{seconds * 1000:.0f}ms" if seconds < 10 else f"{seconds:.0f}s"


_Column = tuple[str, int, Callable[[Row, float], str]]
_COLUMNS: Final[Sequence[_Column]] = (
    ("CPUS", 4, lambda row, _: NOT_KNOWN if row.host.cpus is None else f"{row.host.cpus}"),
    ("MEM", 4, lambda row, _: render_bytes(row.host.memory_total)),
    ("FREE", 4, lambda row, _: render_bytes(row.host.memory_free)),
    ("GIVEN", 5, lambda row, _: render_bytes(row.load.memory_given)),
    ("TOOK", 5, lambda row, _: _latency(row.host.latency_s)),
    ("AGO", 4, lambda row, now: render_age(now - row.host.seen if row.host.seen else None)),
)
"""Title, width and text, right-aligned."""
_STATE_WIDTH: Final = 16
_DRIVER_WIDTH: Final = 12
_WIDE: Final = 100
"""From here on the driver has a column."""


class HostTable(Inked, ScrollView, can_focus=True):
    """One host a line. The cursor stands on a host, not on a place."""

    BINDINGS: ClassVar[list[BindingType]] = [
        quiet("up,k", "move(-1)"),
        quiet("down,j", "move(1)"),
        quiet("home", "move(-100000)"),
        quiet("end", "move(100000)"),
    ]
    DEFAULT_CSS = """
    HostTable { overflow-x: hidden; overflow-y: auto; scrollbar-size-vertical: 1; }
    """

    class Moved(Message):
        """Another host is under the cursor."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(id="host-table")
        self._now = now
        self._rows: Sequence[Row] = ()
        self._name: HostName | None = None

    @property
    def current(self) -> Row | None:
        return self._rows[self._place] if self._rows else None

    @property
    def _place(self) -> int:
        names = [row.host.name for row in self._rows]
        return names.index(self._name) if self._name in names else 0

    def show(self, rows: Sequence[Row]) -> None:
        self._rows = rows
        self.virtual_size = Size(self.size.width, len(rows))
        self.refresh()

    def action_move(self, down: int) -> None:
        if not self._rows:
            return
        place = max(0, min(self._place + down, len(self._rows) - 1))
        self._name = self._rows[place].host.name
        top, height = self.scroll_offset.y, self.size.height
        if not top <= place < top + height:
            self.scroll_to(y=place if place < top else place - height + 1, animate=False)
        self.refresh()
        self.post_message(self.Moved())

    def on_click(self, event: events.Click) -> None:
        self.action_move(event.y + self.scroll_offset.y - self._place)

    def render_line(self, y: int) -> Strip:
        number, width = y + self.scroll_offset.y, self.scrollable_content_region.width
        if number >= len(self._rows):
            return Strip(fit_line([], width, self.ink.text), width)
        is_cursor = number == self._place
        ink = ink_of(self.app, "cursor") if is_cursor else self.ink
        mark = Segment(CURSOR if is_cursor else " ", ink.accent)
        return draw(
            width, [mark, *_line(self._rows[number], ink, width, self._now())], fill=ink.text
        )


def _name_width(width: int) -> int:
    return 20 if width >= _WIDE else 12


def _head(ink: Ink, width: int) -> Line:
    titles = [f" {fit('HOST', _name_width(width))} {fit('STATE', _STATE_WIDTH)} "]
    if width >= _WIDE:
        titles.append(f"{fit('DRIVER', _DRIVER_WIDTH)} ")
    titles += [f"{fit_right(title, size)} " for title, size, _ in _COLUMNS]
    return [Segment("".join([*titles, " AGENTS"]), ink.faint)]


def _line(row: Row, ink: Ink, width: int, now: float) -> Line:
    state, style = row.state(ink, now)
    line = [
        Segment(f"{fit(sanitize(row.host.name), _name_width(width))} ", ink.strong),
        Segment(f"{fit(state, _STATE_WIDTH)} ", style),
    ]
    if width >= _WIDE:
        line.append(Segment(f"{fit(_driver(row), _DRIVER_WIDTH)} ", ink.muted))
    is_old = row.host.state is not HostState.UP or row.host.stale_s(now) is not None
    for _, size, text in _COLUMNS:
        told = text(row, now)
        quiet_style = ink.faint if is_old or told == NOT_KNOWN else ink.text
        line.append(Segment(f"{fit_right(told, size)} ", quiet_style))
    line.append(Segment(f" {row.load.agents:>3,} ", ink.text if row.load.agents else ink.faint))
    return line + [
        Segment(f" {STATE_GLYPHS[each]}{row.load.states[each]}", ink.states[each])
        for each in sorted(row.load.states, key=URGENCY.__getitem__)
    ]


def tell_host(row: Row, now: float, room: Forecast, stocks: Sequence[Stock] = ()) -> Iterable[Fact]:
    """All that is known of one host; of what is not known, why.

    `room`: what would become of `ASKED` plain agents there; `stocks`: what is kept ready there.
    """
    host, load = row.host, row.load
    able = host.capabilities
    yield Fact("uri", host.uri)
    yield from _tell_state(host, now)
    if host.failure:
        at = f"{render_age(now - host.failed_at)} ago" if host.failed_at else ""
        first, *rest = host.failure.split("\n")
        yield Fact("last error", first, "bad" if host.state is HostState.DOWN else "muted", at)
        for line in rest:
            yield Fact("", line)
    untold = "" if able else _UNTOLD
    yield _known("driver", f"{able.driver} {able.version}" if able else None, untold)
    yield _known("libvirt", (able.library or None) if able else None, untold)
    yield Fact("", "", source="Capacity")
    why = host.missing if able else dict.fromkeys(("cpus", "memory_total", "memory_free"), _UNTOLD)
    given = plural(load.vcpus_given, "vCPU")
    yield _known("cpus", None if host.cpus is None else f"{host.cpus}", why.get("cpus", ""))
    total = None if host.memory_total is None else render_bytes(host.memory_total)
    free = None if host.memory_free is None else render_bytes(host.memory_free)
    yield _known("memory", total, why.get("memory_total", ""))
    yield _known("  free", free, why.get("memory_free", ""))
    more = f", and that of {plural(load.untold, 'VM')} that does not tell" if load.untold else ""
    yield Fact(
        "  given", f"{render_bytes(load.memory_given)} and {given} to agents that are on{more}"
    )
    yield _tell_room(room)
    yield Fact("agents", f"{load.agents}")
    for state in sorted(load.states, key=URGENCY.__getitem__):
        yield Fact("", f"{STATE_GLYPHS[state]} {load.states[state]} {state}", "muted")
    yield from _tell_stocks(stocks)
    yield Fact("", "", source="Can do")
    if able is None:
        yield Fact("", NOT_KNOWN, "faint", _UNTOLD)
        return
    yield from _tell_abilities(able.missing, able.sources)


def _tell_stocks(stocks: Sequence[Stock]) -> Iterable[Fact]:
    if stocks:
        yield Fact("", "", source="Ready agents")
    for one in stocks:
        wanted = "no profile" if one.wanted is None else f"of {one.wanted}"
        stale = f", {one.stale} stale" if one.stale else ""
        told = f"{one.ready} {wanted}{stale}; {render_bytes(one.size_bytes)} on disk"
        yield Fact(one.profile, told, "muted" if one.missing else "text", one.missing)
        if claims := spread(one.claims_s):
            yield Fact("  claimed", f"{claims}", source=f"{one.hits} ready, {one.copies} copied")
        if spawns := spread(one.spawns_s):
            yield Fact("  made", f"{spawns}", source=f"{one.misses} from the start")


def _tell_room(room: Forecast) -> Fact:
    if room.placed:
        first, count = room.placed[0], len(room.placed)
        if first.free is None:
            return Fact("  room", NOT_KNOWN, "faint", "it is not known how much is free")
        each = render_bytes(first.needs.total)
        more = "" if room.error else "or more "
        told = f"for {count} {more}new agent{'' if count == 1 else 's'} of {each} each"
        free = f"{render_bytes(first.free)} are promised to nobody"
        return Fact("  room", told, source=f"{free}; what stays free: supervisor.reserve_mib")
    error = room.error
    return Fact(
        "  room",
        "for no new agent",
        "warning",
        join((error.title, error.detail), ": ") if error else "",
    )


def _tell_state(host: Host, now: float) -> Iterable[Fact]:
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(host.since))
    stale_s = host.stale_s(now)
    match host.state:
        case HostState.DOWN:
            yield Fact("state", f"lost since {since}", "bad", tell_next_try(host, now))
        case HostState.CONNECTING:
            yield Fact("state", f"connecting since {since}", "muted")
        case _ if stale_s is not None:
            told = f"stale: connected, but not heard for {render_age(stale_s)}"
            yield Fact("state", told, "warning", host.detail)
        case _:
            yield Fact("state", f"up since {since}", "good")
    if host.seen is None:
        yield Fact("reading", NOT_KNOWN, "faint", "none so far")
    else:
        took = f"took {_latency(host.latency_s)}, one each {host.poll_s:g} s"
        yield Fact("reading", f"{render_age(now - host.seen)} ago", source=took)


def _known(label: str, value: str | None, why: str) -> Fact:
    if value is None:
        return Fact(label, NOT_KNOWN, "faint", why or "the driver does not tell it")
    return Fact(label, value)


def _tell_abilities(missing: Mapping[str, str], sources: Mapping[str, str]) -> Iterable[Fact]:
    names = {**_VERBS, **_COUNTERS}
    for name, why in missing.items():
        yield Fact("✗", names.get(name, name), "faint", why)
    for name, word in names.items():
        if name not in missing:
            yield Fact("✓", word, "text", sources.get(name, ""))


class HostsScreen(SwarmScreen):
    """All hosts in one table, and below it the one under the cursor in full."""

    PLACE = "hosts"
    BINDINGS: ClassVar[list[BindingType]] = [
        *bindings("hosts"),
        quiet("pageup,ctrl+u", "page(-1)"),
        quiet("pagedown,ctrl+d", "page(1)"),
    ]

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.add_class("-hosts")
        self._summary = HostSummary(context)
        self._titles = HostTitles()
        self._table = HostTable(context.now)
        self._facts = Facts()
        self._second = 0

    def compose(self) -> ComposeResult:
        yield self._summary
        yield self._titles
        yield self._table
        yield self._facts
        yield self.footer

    def on_mount(self) -> None:
        self.set_focus(self._table)
        self.catch_up()

    def aims(self) -> Sequence[AgentId]:
        return []

    def current(self) -> AgentId | None:
        return None

    def on_resize(self) -> None:
        self._lay_out()

    def tick(self, dirty: set[AgentId], *, hosts_changed: bool, rearranged: bool) -> None:
        second = int(self.context.now())
        if second != self._second:  # readings come as often, and ages move on
            self._second = second
            self.catch_up()

    def catch_up(self) -> None:
        loads = measure(self.context.roster.agents.values())
        hosts = self.context.store.hosts()
        self._table.show([Row(host, loads.get(host.name, Load())) for host in hosts])
        self._summary.refresh()
        self._lay_out()
        self._show_facts()

    def _lay_out(self) -> None:
        rows = len(self.context.store.hosts())
        self._table.styles.height = max(1, min(rows, (self.size.height - 4) // 2))

    @on(HostTable.Moved)
    def _show_facts(self) -> None:
        row = self._table.current
        if row is None:
            self._facts.show(())
            return
        room = self.context.supervisor.foresee(Spawn(row.host.name), ASKED)
        stocks = self.context.supervisor.stocks.seen.get(row.host.name, ())
        self._facts.show(tell_host(row, self.context.now(), room, stocks))

    # Actions

    def do_back(self) -> None:
        self.dismiss()

    def do_show_agents(self) -> None:
        row = self._table.current
        if row is None:
            return
        chosen = quote("host", row.host.name)
        self.context.roster.choose(self.context.monotonic(), filter=chosen)
        self.dismiss()

    def action_page(self, direction: int) -> None:
        step = max(1, self._facts.size.height - 1)
        self._facts.scroll_to(y=self._facts.scroll_offset.y + direction * step, animate=False)


class HostTitles(Bar):
    """The titles of the columns."""

    SURFACE = "background"

    def draw_line(self, y: int, ink: Ink, width: int) -> tuple[Line, Line]:
        return _head(ink, width), []


class HostSummary(Bar):
    """How many hosts there are, and how they are."""

    def __init__(self, context: Context) -> None:
        super().__init__(id="summary")
        self._swarm = context

    def draw_line(self, y: int, ink: Ink, width: int) -> tuple[Line, Line]:
        hosts, now = self._swarm.store.hosts(), self._swarm.now()
        line: Line = [Segment(f" {plural(len(hosts), 'host')} ", ink.strong)]
        lost = sum(host.state is HostState.DOWN for host in hosts)
        stale = sum(host.stale_s(now) is not None for host in hosts)
        for count, word, style in ((lost, "lost", ink.bad), (stale, "stale", ink.warning)):
            if count:
                line.append(Segment(f" {count} {word} ", style))
        clock = time.strftime("%H:%M", time.localtime(now))
        return line, [
            Segment(f"{self._swarm.banner}  ", ink.warning),
            Segment(f"{clock} ", ink.muted),
        ]
