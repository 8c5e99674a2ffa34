"""One agent as one line, in as many columns as there is room for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from rich.segment import Segment
from rich.style import Style

from swarm_tui.amount import NOT_KNOWN, render_age, render_bytes
from swarm_tui.model import Agent, State, Usage
from swarm_tui.store import History
from swarm_tui.text import sanitize
from swarm_tui.ui.brief import age_of, cpu_figure, cpu_top, is_off, tell, usage_of
from swarm_tui.ui.figures import fit, fit_right, render_spark
from swarm_tui.ui.glyphs import SELECTED, STATE_GLYPHS
from swarm_tui.ui.ink import Ink, Line
from swarm_tui.ui.tile import Look

_GAP: Final = 2
_EDGE: Final = 4
"""Cells of the cursor bar, the selection mark and the state's glyph, before the first column."""
_EXTRA: Final = 50
_SPARE: Final = 24
"""Columns of that worth are shown only where so much room is left for what agents say."""


@dataclass(frozen=True, slots=True)
class Cell:
    agent: Agent
    usage: Usage
    history: History | None
    look: Look


@dataclass(frozen=True, slots=True)
class Column:
    """`worth` orders the columns: the lowest ones go first when there is little room."""

    title: str
    width: int
    worth: int
    draw: Callable[[Cell, int], tuple[str, Style]]
    align: Literal["left", "right"] = "left"
    grows: int = 0
    """Share of the room that is left over."""
    limit: int = 400


def _name(cell: Cell, _: int) -> tuple[str, Style]:
    ink = cell.look.ink
    return cell.agent.name or cell.agent.id, (
        ink.muted if cell.look.is_old(cell.agent) else ink.strong
    )


def _state(cell: Cell, _: int) -> tuple[str, Style]:
    return cell.agent.state.value, cell.look.ink.states[cell.agent.state]


def _age(cell: Cell, _: int) -> tuple[str, Style]:
    return render_age(age_of(cell.agent, cell.look.now)), cell.look.ink.muted


def _number(
    render: Callable[[float | None], str], value: Callable[[Usage], float | None]
) -> Callable[[Cell, int], tuple[str, Style]]:
    def draw(cell: Cell, _: int) -> tuple[str, Style]:
        ink = cell.look.ink
        number = value(cell.usage)
        if number is None:
            return ("off" if is_off(cell.agent) else NOT_KNOWN), ink.faint
        quiet = number < 1 or cell.look.is_old(cell.agent)
        return render(number), ink.faint if quiet else ink.text

    return draw


def _spark(cell: Cell, width: int) -> tuple[str, Style]:
    ink = cell.look.ink
    if is_off(cell.agent) or not cell.history:
        return "", ink.faint
    line = render_spark(cell.history.cpu_percent, width, cpu_top(cell.agent, cell.history))
    return line, ink.faint if cell.look.is_old(cell.agent) else ink.cpu


def _cpu(cell: Cell, _: int) -> tuple[str, Style]:
    ink = cell.look.ink
    quiet = cell.usage.cpu_percent is None or cell.look.is_old(cell.agent)
    return cpu_figure(cell.agent), ink.faint if quiet else ink.text


def _given(cell: Cell, _: int) -> tuple[str, Style]:
    vm = cell.agent.vm
    given = cell.usage.memory_given or (vm.memory_bytes if vm else None)
    return render_bytes(given), cell.look.ink.faint


def _host(cell: Cell, _: int) -> tuple[str, Style]:
    return sanitize(cell.agent.host), cell.look.ink.muted


def _task(cell: Cell, _: int) -> tuple[str, Style]:
    return cell.agent.tag.task, cell.look.ink.muted


def _doing(cell: Cell, _: int) -> tuple[str, Style]:
    agent, look = cell.agent, cell.look
    text, style = tell(agent, look.now, look.frame, look.ink, look.stale_s)
    if (
        agent.operation
        or look.stale_s is not None
        or agent.state in (State.ASKING, State.FAILED, State.LOST)
        or (agent.state is State.RUNNING and agent.reason)
    ):
        return text, style
    return agent.last_line or text, look.ink.muted


COLUMNS: Final = (
    Column("NAME", 12, 99, _name, grows=1, limit=24),
    Column("STATE", 8, 98, _state),
    Column("AGE", 5, 95, _age, "right"),
    Column("CPU", 7, 94, _cpu, "right"),
    Column("", 10, 80, _spark, grows=1, limit=40),
    Column("MEM", 4, 90, _number(render_bytes, lambda usage: usage.memory_used), "right"),
    Column("OF", 4, 75, _given, "right"),
    Column("NET ↓", 5, 70, _number(render_bytes, lambda usage: usage.net_received_per_s), "right"),
    Column("NET ↑", 5, 69, _number(render_bytes, lambda usage: usage.net_sent_per_s), "right"),
    Column("DSK R", 5, 60, _number(render_bytes, lambda usage: usage.disk_read_per_s), "right"),
    Column("DSK W", 5, 59, _number(render_bytes, lambda usage: usage.disk_written_per_s), "right"),
    Column("HOST", 10, 50, _host),
    Column("TASK", 20, 40, _task, grows=1, limit=36),
    Column("DOING", 20, 96, _doing, grows=6),
)


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns that fit a width, each with its own."""

    columns: tuple[tuple[Column, int], ...]
    width: int

    def head(self, ink: Ink) -> Line:
        line = [Segment(" " * _EDGE, ink.faint)]
        for column, width in self.columns:
            title = column.title
            fitted = fit_right(title, width) if column.align == "right" else fit(title, width)
            line.append(Segment(fitted + " " * _GAP, ink.faint))
        return line

    def row(self, agent: Agent, history: History | None, look: Look) -> Line:
        """Exactly `width` cells."""
        cell = Cell(agent, usage_of(agent), history, look)
        ink = look.ink
        line = [
            Segment("▌" if look.is_cursor else " ", ink.accent),
            Segment(SELECTED if look.is_selected else " ", ink.accent),
            Segment(f"{STATE_GLYPHS[agent.state]} ", ink.states[agent.state]),
        ]
        for column, width in self.columns:
            text, style = column.draw(cell, width)
            fitted = fit_right(text, width) if column.align == "right" else fit(text, width)
            line.append(Segment(fitted + " " * _GAP, style))
        used = _EDGE + sum(width + _GAP for _, width in self.columns)
        if used < self.width:
            line.append(Segment(" " * (self.width - used), ink.text))
        return line


@lru_cache(16)
def lay_out(width: int) -> Layout:
    """Take the worthiest columns that fit, then share what is left among those that grow."""
    taken: list[Column] = []
    left = width - _EDGE
    for column in sorted(COLUMNS, key=lambda column: -column.worth):
        spare = _SPARE if column.worth <= _EXTRA else 0
        if column.width + _GAP + spare > left:
            break
        taken.append(column)
        left -= column.width + _GAP
    widths = {column: column.width for column in taken}
    while left > 0:
        growing = [c for c in COLUMNS if c in widths and c.grows and widths[c] < c.limit]
        shares = sum(column.grows for column in growing)
        if not shares:
            break
        room = left
        for column in growing:
            more = min(max(1, room * column.grows // shares), column.limit - widths[column], left)
            widths[column] += more
            left -= more
    return Layout(tuple((column, widths[column]) for column in COLUMNS if column in widths), width)
