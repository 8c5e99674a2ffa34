"""One agent as a box of seven lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style

from swarm_tui.amount import NOT_KNOWN, render_age, render_bytes
from swarm_tui.lifespan import is_nearly_over, tell_left
from swarm_tui.model import Agent, State, Usage
from swarm_tui.store import History
from swarm_tui.text import sanitize
from swarm_tui.ui.brief import STOPPED, age_of, cpu_figure, cpu_top, is_off, tell, usage_of
from swarm_tui.ui.figures import bar_cells, fit, render_spark
from swarm_tui.ui.glyphs import SELECTED, STATE_GLYPHS
from swarm_tui.ui.ink import Ink, Line, fit_line

HEIGHT: Final = 7
MIN_WIDTH: Final = 38
MAX_WIDTH: Final = 84
_FIGURE: Final = 11
"""Cells for the figure at the right end of a graph: "1.5G / 2.0G"."""


@dataclass(frozen=True, slots=True)
class Look:
    """All that the drawing of an agent depends on besides the agent itself."""

    ink: Ink
    now: float
    frame: int
    is_cursor: bool
    is_selected: bool
    shows_host: bool
    stale_s: float | None = None
    """For so long its host has not been heard; None: it has."""

    def is_old(self, agent: Agent) -> bool:
        """What is shown of the agent is not how it is now, for all we know."""
        return agent.state is State.LOST or self.stale_s is not None


def draw_tile(agent: Agent, history: History | None, width: int, look: Look) -> list[Line]:
    """`HEIGHT` lines of exactly `width` cells."""
    ink = look.ink
    edge = _edge(agent, look)
    left, right = ("┃", "┃") if look.is_cursor else ("│", "│")
    inner = width - 4

    def boxed(line: Line) -> Line:
        return [
            Segment(f"{left} ", edge),
            *fit_line(line, inner, ink.text),
            Segment(f" {right}", edge),
        ]

    content = [
        _state_line(agent, look),
        *_usage_lines(agent, history, inner, look),
        _last_line(agent, look),
    ]
    bottom = "┗" + "━" * (width - 2) + "┛" if look.is_cursor else "╰" + "─" * (width - 2) + "╯"
    return [
        _title_line(agent, width, look, edge),
        *(boxed(line) for line in content),
        [Segment(bottom, edge)],
    ]


def _edge(agent: Agent, look: Look) -> Style:
    if look.is_cursor:
        return look.ink.accent
    if agent.state in (State.ASKING, State.FAILED):
        return look.ink.states[agent.state]
    return look.ink.line


def _title_line(agent: Agent, width: int, look: Look, edge: Style) -> Line:
    ink = look.ink
    start, rule, end = ("┏", "━", "┓") if look.is_cursor else ("╭", "─", "╮")
    age = render_age(age_of(agent, look.now))
    name: str = agent.name or agent.id
    host = f" {sanitize(agent.host, max_cells=12)} " if look.shows_host else ""
    fixed = 9 + len(age) + (cell_len(host) + 1 if host else 0)
    name = fit(name, min(cell_len(name), width - fixed - 1))
    line = [
        Segment(f"{start}{SELECTED if look.is_selected else rule} ", edge),
        Segment(f"{STATE_GLYPHS[agent.state]} ", ink.states[agent.state]),
        Segment(name, ink.muted if look.is_old(agent) else ink.strong),
        Segment(" " + rule * (width - fixed - cell_len(name)), edge),
    ]
    if host:
        line += [Segment(host, ink.muted), Segment(rule, edge)]
    return [*line, Segment(f" {age}", ink.muted), Segment(f" {end}", edge)]


def _state_line(agent: Agent, look: Look) -> Line:
    ink = look.ink
    text, style = tell(agent, look.now, look.frame, ink, look.stale_s)
    line = [Segment(agent.state.value, ink.states[agent.state])]
    if is_nearly_over(agent, look.now):
        line += [Segment(" · ", ink.faint), Segment(tell_left(agent, look.now), ink.warning)]
    if text:
        line += [Segment(" · ", ink.faint), Segment(text, style)]
    return line


def _last_line(agent: Agent, look: Look) -> Line:
    """What the agent said last; its task where that has been said on the state's line."""
    ink = look.ink
    told, _ = tell(agent, look.now, look.frame, ink)
    if agent.last_line and agent.last_line != told:
        return [Segment(agent.last_line, ink.faint if agent.state is State.LOST else ink.muted)]
    if agent.tag.task:
        return [Segment("task ", ink.faint), Segment(agent.tag.task, ink.muted)]
    return []


def _usage_lines(agent: Agent, history: History | None, inner: int, look: Look) -> list[Line]:
    ink = look.ink
    graph = inner - 4 - 1 - _FIGURE
    label = ink.faint
    if is_off(agent):
        given = agent.vm.memory_bytes if agent.vm else None
        memory = f"{render_bytes(given)} when it runs" if given else ""
        return [
            [Segment("cpu ", label), Segment("off", ink.muted)],
            [Segment("mem ", label), Segment("free", ink.muted), Segment(f"  {memory}", label)],
            [Segment(" ", ink.text)],
        ]
    usage = usage_of(agent)
    dim = look.is_old(agent)
    samples = history.cpu_percent if history else ()
    given = usage.memory_given or (agent.vm.memory_bytes if agent.vm else None)
    filled = bar_cells(usage.memory_used, given, graph)
    return [
        [
            Segment("cpu ", label),
            Segment(
                render_spark(samples, graph, cpu_top(agent, history)), label if dim else ink.cpu
            ),
            _figure(cpu_figure(agent), ink, dim=dim),
        ],
        [
            Segment("mem ", label),
            *_bar(filled, graph, label if dim else ink.memory, ink.line),
            _figure(f"{render_bytes(usage.memory_used)} / {render_bytes(given)}", ink, dim=dim),
        ],
        _io_line(usage, inner, ink),
    ]


def _bar(filled: int, width: int, full: Style, empty: Style) -> Line:
    return [
        Segment(text, style)
        for text, style in (("━" * filled, full), ("╌" * (width - filled), empty))
        if text
    ]


def _figure(text: str, ink: Ink, *, dim: bool) -> Segment:
    style = ink.faint if dim or text.startswith((NOT_KNOWN, STOPPED)) else ink.text
    return Segment(" " + text.rjust(_FIGURE), style)


def _io_line(usage: Usage, inner: int, ink: Ink) -> Line:
    net = [*_rate("↓", usage.net_received_per_s, ink), *_rate(" ↑", usage.net_sent_per_s, ink)]
    disk = [*_rate("r", usage.disk_read_per_s, ink), *_rate(" w", usage.disk_written_per_s, ink)]
    gap = max(1, inner - 2 * (4 + 11))
    return [
        Segment("net ", ink.faint),
        *net,
        Segment(" " * gap + "dsk ", ink.faint),
        *disk,
    ]


def _rate(sign: str, rate: float | None, ink: Ink) -> Line:
    return [
        Segment(sign, ink.faint),
        Segment(render_bytes(rate).ljust(4), ink.faint if not rate else ink.muted),
    ]
