"""The fleet as tiles or as a table: a scrolled view of which only the visible lines are drawn.

The cursor stands on an agent, never on a place. Whoever acts on it asks `is_steady` first: when
the list moved under the cursor by itself, a key pressed a moment ago meant another agent.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Final

from rich.cells import cell_len
from rich.segment import Segment
from textual import events
from textual.binding import BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from swarm_tui.model import AgentId
from swarm_tui.store import Store
from swarm_tui.ui import tile
from swarm_tui.ui.bar import Bar, Inked
from swarm_tui.ui.figures import fit, plural
from swarm_tui.ui.glyphs import STATE_GLYPHS
from swarm_tui.ui.ink import Ink, Line, fit_line, ink_of
from swarm_tui.ui.keys import quiet
from swarm_tui.ui.roster import Roster, Section
from swarm_tui.ui.table import lay_out

GRACE_S: Final = 0.3
"""For so long keys that act are ignored after the list moved under the cursor by itself."""
_SPIN_EVERY: Final = 2
"""Ticks for which a spinner stands."""
_FEW: Final = 6
"""So many changed agents are drawn at once; more than these every `_WAVE_EVERY` ticks."""
_WAVE_EVERY: Final = 4


class View(StrEnum):
    TILES = "tiles"
    TABLE = "table"


@dataclass(frozen=True, slots=True)
class Band:
    """One section of the roster as lines of the view."""

    y: int
    has_heading: bool
    count: int

    @property
    def body(self) -> int:
        return self.y + self.has_heading


class TableHead(Bar):
    """The titles of the columns."""

    SURFACE = "background"

    def draw_line(self, y: int, ink: Ink, width: int) -> tuple[Line, Line]:
        return lay_out(width - 1).head(ink), []  # as wide as the table beside its scroll bar


class Grid(Inked, ScrollView, can_focus=True):
    """`show` and `tick` bring news; the screen reads `cursor` and `selected`."""

    BINDINGS: ClassVar[list[BindingType]] = [
        quiet("up,k", "move(0,-1)"),
        quiet("down,j", "move(0,1)"),
        quiet("left,h", "move(-1,0)"),
        quiet("right,l", "move(1,0)"),
        quiet("shift+up", "extend(0,-1)"),
        quiet("shift+down", "extend(0,1)"),
        quiet("shift+left", "extend(-1,0)"),
        quiet("shift+right", "extend(1,0)"),
        quiet("pageup,ctrl+u", "page(-1)"),
        quiet("pagedown,ctrl+d", "page(1)"),
        quiet("home", "end(0)"),
        quiet("end", "end(1)"),
    ]
    DEFAULT_CSS = """
    Grid { height: 1fr; overflow-x: hidden; overflow-y: scroll; scrollbar-size-vertical: 1; }
    """

    class Moved(Message):
        """Another agent is under the cursor, or others are selected."""

    class Opened(Message):
        """An agent was opened by a double click."""

    def __init__(
        self,
        store: Store,
        roster: Roster,
        *,
        view: View,
        now: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._store = store
        self._roster = roster
        self.view = view
        self.cursor: AgentId | None = None
        self.selected: set[AgentId] = set()
        self._anchor: AgentId | None = None
        """Where a range that is being selected began."""
        self._held: frozenset[AgentId] = frozenset()
        """What was selected before it."""
        self._now = now
        self._monotonic = monotonic
        self._disturbed_at = float("-inf")
        self._second = 0
        self._ticks = 0
        self._pending: set[AgentId] = set()
        self._sections: tuple[Section, ...] = ()
        """Those of the roster for which the bands were laid out."""
        self._bands: list[Band] = []
        self._tops: list[int] = []
        self._columns: list[tuple[int, int]] = [(0, tile.MIN_WIDTH)]
        self._drawn: dict[AgentId, list[Line]] = {}
        self._last_position = 0
        """Place of the cursor, for when its agent goes or moves."""
        self._placeholder = ("", "")

    # What the screen asks and tells

    def is_steady(self) -> bool:
        return self._monotonic() - self._disturbed_at >= GRACE_S

    def show(self, *, asked_for: bool = False) -> None:
        """The roster has another arrangement: lay out anew, with the cursor on its agent.

        `asked_for`: by the person, who then expects things to move.
        """
        was, was_at = self.cursor, self._last_position
        if self.cursor is None or self.cursor not in self._roster:
            self.cursor = self._roster.at(self._last_position)
        self.selected.intersection_update(self._roster.agents)
        self._arrange()
        has_moved = was is not None and (self.cursor, self._last_position) != (was, was_at)
        if has_moved and not asked_for:
            self._disturbed_at = self._monotonic()
        if self.cursor != was:
            self.post_message(self.Moved())

    def explain_nothing(self, headline: str, hint: str) -> None:
        """What to say where there is no agent to show."""
        if self._placeholder != (headline, hint):
            self._placeholder = (headline, hint)
            self.refresh()

    def choose_view(self, view: View) -> None:
        self.view = view
        self._arrange()

    def move_to(self, agent: AgentId) -> None:
        """Put the cursor on an agent, because a person said so."""
        was, self.cursor, self._anchor = self.cursor, agent, None
        self._disturbed_at = float("-inf")
        self._remember()
        self._scroll_to_cursor()
        self._redraw(other for other in (was, agent) if other)
        if was != agent:
            self.post_message(self.Moved())

    def toggle(self, agent: AgentId) -> None:
        self.select(self.selected ^ {agent})

    def select(self, agents: Iterable[AgentId]) -> None:
        changed = self.selected ^ set(agents)
        self.selected ^= changed
        self._redraw(changed)
        self.post_message(self.Moved())

    def tick(self, dirty: set[AgentId]) -> None:
        """Ten times a second: draw anew what changed, among what is seen.

        Where only numbers are others, and of many, they are drawn with the ages: once a second.
        """
        self._ticks += 1
        second = int(self._now())
        visible = self.in_sight()
        if second != self._second:  # ages move on
            self._second = second
            self._pending.clear()
            self._redraw(visible)
            return
        spins = self._ticks % _SPIN_EVERY == 0
        agents = self._roster.agents
        changed = [agent for agent in visible if agent in dirty]
        if len(changed) > _FEW:
            changed = [agent for agent in changed if agent in self._store.news]
        self._pending.update(changed)
        if len(self._pending) <= _FEW or self._ticks % _WAVE_EVERY == 0:
            pending, self._pending = self._pending, set()
        else:  # a wave of news: nobody sees three of them in a second
            pending = set()
        if spins:
            pending |= {agent for agent in visible if agent in agents and agents[agent].operation}
        self._redraw(pending)

    # Layout

    def _place(self, agent: AgentId | None) -> tuple[int, int] | None:
        position = self._roster.position(agent) if agent else None
        return None if position is None else self._roster.locate(position)

    def _remember(self) -> None:
        position = self._roster.position(self.cursor) if self.cursor else None
        self._last_position = position or 0

    @property
    def _height(self) -> int:
        return tile.HEIGHT if self.view is View.TILES else 1

    def _arrange(self) -> None:
        self._sections = self._roster.sections
        width = max(1, self.scrollable_content_region.width)
        self._columns = (
            _divide(width, self.size.height, [len(s.ids) for s in self._sections])
            if self.view is View.TILES
            else [(0, width)]
        )
        self._bands, y = [], 0
        for section in self._sections:
            band = Band(y, bool(section.title), len(section.ids))
            self._bands.append(band)
            y = band.body + -(-band.count // len(self._columns)) * self._height
        self._tops = [band.y for band in self._bands]
        self._drawn.clear()
        self.virtual_size = Size(width, y)
        self._remember()
        self._scroll_to_cursor()
        self.refresh()

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._drawn.clear()

    def on_resize(self) -> None:
        self._arrange()

    def _region(self, agent: AgentId) -> Region | None:
        """Where an agent is in the view, in virtual lines."""
        place = self._place(agent)
        if place is None or place[0] >= len(self._bands):
            return None
        section, index = place
        row, column = divmod(index, len(self._columns))
        x, width = self._columns[column]
        y = self._bands[section].body + row * self._height
        return Region(x, y, width, self._height)

    def _scroll_to_cursor(self) -> None:
        region = self._region(self.cursor) if self.cursor else None
        height = self.scrollable_content_region.height
        if region is None or height <= 0:
            return
        top = self.scroll_offset.y
        if self.cursor and self._last_position == 0:
            self.scroll_to(y=0, animate=False)  # with the heading above it
        elif region.y < top:
            self.scroll_to(y=region.y, animate=False)
        elif region.bottom > top + height:
            self.scroll_to(y=min(region.y, region.bottom - height), animate=False)

    def in_sight(self) -> list[AgentId]:
        """Those that are in sight, at least in part."""
        return list(self._visible())

    def _visible(self) -> Iterator[AgentId]:
        top = self.scroll_offset.y
        bottom = top + self.size.height
        per_row = len(self._columns)
        for band, section in zip(self._bands, self._sections, strict=True):
            first = max(0, (top - band.body) // self._height)
            last = -(-(bottom - band.body) // self._height)
            if last > 0:
                yield from section.ids[first * per_row : last * per_row]

    # Drawing

    def _redraw(self, agents: Iterable[AgentId]) -> None:
        """Draw agents again and repaint those of their lines that became others."""
        regions: list[Region] = []
        top = self.scroll_offset.y
        for agent in agents:
            was = self._drawn.pop(agent, None)
            region = self._region(agent)
            if was is None or region is None:
                if region:
                    regions.append(region.translate((0, -top)))
                continue
            lines = self._lines(agent, region.width)
            regions += [
                Region(region.x, region.y + row - top, region.width, 1)
                for row, line in enumerate(lines)
                if line != was[row]
            ]
        if regions:
            self.refresh(*regions)

    def _lines(self, agent_id: AgentId, width: int) -> list[Line]:
        if drawn := self._drawn.get(agent_id):
            return drawn
        agent = self._roster.agents.get(agent_id)
        is_cursor = agent_id == self.cursor
        is_table = self.view is View.TABLE
        ink = ink_of(self.app, "cursor") if is_cursor and is_table else self.ink
        if agent is None:  # gone since the roster was arranged
            return [[Segment(" " * width, ink.text)]] * self._height
        now, host = self._now(), self._store.host(agent.host)
        look = tile.Look(
            ink=ink,
            now=now,
            frame=self._ticks // _SPIN_EVERY,
            is_cursor=is_cursor,
            is_selected=agent_id in self.selected,
            shows_host=len(self._roster.hosts) > 1,
            stale_s=host.stale_s(now) if host else None,
        )
        history = self._store.history(agent_id)
        lines = (
            [lay_out(width).row(agent, history, look)]
            if is_table
            else tile.draw_tile(agent, history, width, look)
        )
        if len(self._drawn) > 1000:
            self._drawn.clear()
        self._drawn[agent_id] = lines
        return lines

    def render_line(self, y: int) -> Strip:
        line_y = y + self.scroll_offset.y
        width = self.scrollable_content_region.width
        number = bisect_right(self._tops, line_y) - 1
        if number < 0:
            return self._nothing(y, width)
        band, section = self._bands[number], self._sections[number]
        if line_y < band.body:
            return self._heading(number, width)
        row, line = divmod(line_y - band.body, self._height)
        first = row * len(self._columns)
        ids = section.ids[first : first + len(self._columns)]
        segments: Line = []
        x = 0
        for agent, (left, tile_width) in zip(ids, self._columns, strict=False):
            if left > x:
                segments.append(Segment(" " * (left - x), self.ink.text))
            segments += self._lines(agent, tile_width)[line]
            x = left + tile_width
        if x < width:
            segments.append(Segment(" " * (width - x), self.ink.text))
        return Strip(segments, max(width, x))

    def _nothing(self, y: int, width: int) -> Strip:
        ink, (headline, hint) = self.ink, self._placeholder
        middle = self.size.height // 2 - 1
        text, style = {middle: (headline, ink.strong), middle + 1: (hint, ink.muted)}.get(
            y, ("", ink.text)
        )
        text = fit(text, min(width, cell_len(text)))
        left = (width - cell_len(text)) // 2
        line = [Segment(" " * left, ink.text), Segment(text, style)] if text else []
        return Strip(fit_line(line, width, ink.text), width)

    def _heading(self, number: int, width: int) -> Strip:
        section, ink = self._sections[number], self.ink
        line: Line = [Segment(" ", ink.text)]
        if section.state:
            style = ink.states[section.state]
            line.append(Segment(f"{STATE_GLYPHS[section.state]} ", style))
        line += [
            Segment(section.title, ink.strong),
            Segment(f"  {plural(len(section.ids), 'agent')} ", ink.muted),
        ]
        used = sum(segment.cell_length for segment in line)
        line.append(Segment("─" * max(0, width - used - 1), ink.line))
        return Strip(fit_line(line, width, ink.text), width)

    # Moving

    def action_move(self, right: int, down: int) -> None:
        place = self._place(self.cursor)
        if place is None:
            return
        section, index = place
        if right:
            self._go(self._roster.start(section) + index + right)
            return
        per_row = len(self._columns)
        row, column = divmod(index, per_row)
        row += down
        rows = -(-self._bands[section].count // per_row)
        if row < 0 and section > 0:
            section -= 1
            row = -(-self._bands[section].count // per_row) - 1
        elif row >= rows and section + 1 < len(self._bands):
            section, row = section + 1, 0
        elif not 0 <= row < rows:
            return
        self._go_within(section, row * per_row + column)

    def action_extend(self, right: int, down: int) -> None:
        """Move, and select what lies between here and where that began."""
        anchor, start = self._anchor, self.cursor
        self.action_move(right, down)
        self._extend(anchor, start)

    def _extend(self, anchor: AgentId | None, start: AgentId | None) -> None:
        if anchor is None:
            anchor, self._held = start, frozenset(self.selected)
        if anchor and self.cursor and (span := self._roster.between(anchor, self.cursor)):
            self.select(self._held.union(span))
            self._anchor = anchor

    def action_page(self, direction: int) -> None:
        rows = max(1, self.size.height // self._height - 1)
        position = self._roster.position(self.cursor) if self.cursor else None
        if position is not None:
            self._go(position + direction * rows * len(self._columns))

    def action_end(self, last: int) -> None:
        self._go((len(self._roster) - 1) * last)

    def _go_within(self, section: int, index: int) -> None:
        index = min(index, self._bands[section].count - 1)
        self._go(self._roster.start(section) + index)

    def _go(self, position: int) -> None:
        if agent := self._roster.at(position):
            self.move_to(agent)

    def _agent_at(self, x: int, y: int) -> AgentId | None:
        line_y = y + self.scroll_offset.y
        number = bisect_right(self._tops, line_y) - 1
        if number < 0 or line_y < self._bands[number].body:
            return None
        row = (line_y - self._bands[number].body) // self._height
        for column, (left, width) in enumerate(self._columns):
            if left <= x < left + width:
                index = row * len(self._columns) + column
                ids = self._sections[number].ids
                return ids[index] if index < len(ids) else None
        return None

    def on_click(self, event: events.Click) -> None:
        agent = self._agent_at(event.x, event.y)
        if agent is None:
            return
        anchor, start = self._anchor, self.cursor
        self.move_to(agent)
        if event.ctrl:
            self.toggle(agent)
        elif event.shift:
            self._extend(anchor, start)
        elif event.chain == 2:
            self.post_message(self.Opened())


def _divide(width: int, height: int, sections: list[int]) -> list[tuple[int, int]]:
    """Columns of tiles as (x, width): as wide as all agents can be seen, else as many as fit."""
    most = max(1, (width + 1) // (tile.MIN_WIDTH + 1))
    fewest = min(most, -(-(width + 1) // (tile.MAX_WIDTH + 1)))
    headings = len(sections) if len(sections) > 1 else 0
    count = next(
        (
            count
            for count in range(fewest, most)
            if headings + sum(-(-agents // count) for agents in sections) * tile.HEIGHT <= height
        ),
        most,
    )
    each, spare = divmod(width - (count - 1), count)
    columns, x = [], 0
    for number in range(count):
        columns.append((x, each + (number < spare)))
        x += each + (number < spare) + 1
    return columns
