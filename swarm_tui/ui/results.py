"""What was kept of agents that were ended, the newest first; their logs are read from the disk."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Final

from rich.segment import Segment
from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.worker import WorkType

from swarm_tui import spool
from swarm_tui.amount import NOT_KNOWN, render_age
from swarm_tui.errors import SwarmError
from swarm_tui.model import AgentId
from swarm_tui.profile import Occasion
from swarm_tui.results import Result, describe
from swarm_tui.text import EMPTY, Safe, join, literal, sanitize
from swarm_tui.ui.bar import Bar, Heading
from swarm_tui.ui.dialogs import read_dialog
from swarm_tui.ui.figures import fit, fit_right, plural, render_count
from swarm_tui.ui.ink import Ink, Line
from swarm_tui.ui.keys import bindings
from swarm_tui.ui.reading import ReadingScreen
from swarm_tui.ui.rows import Rows
from swarm_tui.ui.screen import Context

_READ_S: Final = 2.0
_WIDE: Final = 110
_DETAIL_LINES: Final = 9
_LABEL: Final = 11
_LOG_BYTES: Final = 256 << 10
_SIGNS: Final = {Occasion.DONE: "✓", Occasion.FAILED: "✗", Occasion.EXPIRED: "⌛"}
_PLAIN: Final = "·"


class _Results(Rows[Result]):
    """Lines of results. The cursor stays on its own when newer ones come."""

    NOTE = "faint"

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(id="results", note=literal("reading …"))
        self._now = now

    def show(self, results: Sequence[Result], note: Safe) -> None:
        """Newest first. Of none, the `note` stands there."""
        if (results, note) == (self._rows, self._note):
            return
        was = self.current.agent if self.current else ""
        self._rows, self._note = results, note
        places = {result.agent: place for place, result in enumerate(results)}
        self._cursor = places.get(AgentId(was), 0)
        self._resize()
        self.refresh()
        self.post_message(self.Moved())

    def draw_row(self, row: Result, ink: Ink, width: int) -> tuple[Line, Line]:
        sign = {Occasion.DONE: ink.good, Occasion.FAILED: ink.bad}.get(row.occasion, ink.warning)
        files = NOT_KNOWN if row.changes is None else plural(row.changes, "file")
        line = [
            Segment(f"{fit_right(render_age(self._now() - row.ended), 4)} ", ink.faint),
            Segment(f"{fit(row.occasion, 8)} ", sign),
            Segment(f"{fit(row.name, 16)} ", ink.strong),
            Segment(f"{fit(files, 9)} ", ink.text if row.changes else ink.faint),
        ]
        if width >= _WIDE:
            lived = f"{render_age(row.wall_s)} lived"
            tokens = f"{render_count(row.tokens_in + row.tokens_out)} tokens"
            line.append(Segment(f"{fit(lived, 12)} {fit(tokens, 13)} ", ink.muted))
        line.append(Segment(row.told or row.task, ink.muted))
        return line, [Segment(f" {fit(row.host, 12)}", ink.muted)] if width >= _WIDE else []


class _Detail(Bar):
    """The result under the cursor, as far as there is room; enter shows its log."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(id="detail")
        self._now = now
        self._facts: Sequence[tuple[str, Safe]] = ()

    def show(self, result: Result | None) -> None:
        wanted = ("why", "work", "reviewed", "said last", "task", "lived", "tokens", "missing")
        told = dict(describe(result, self._now())) if result else {}
        facts = [(label, told[label]) for label in wanted if label in told]
        if facts != self._facts:
            self._facts = facts
            self.refresh()

    def draw_line(self, y: int, ink: Ink, width: int) -> tuple[Line, Line]:
        if y >= len(self._facts):
            return [], []
        label, value = self._facts[y]
        return [
            Segment(f" {fit(label, _LABEL)}", ink.faint),
            Segment(fit(value, width - _LABEL - 2), ink.text),
        ], []


class ResultsScreen(ReadingScreen):
    """Of all agents that were ended, by anybody."""

    PLACE = "results"
    READ_S = _READ_S
    BINDINGS: ClassVar[list[BindingType]] = bindings("results")

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._head = Heading("results")
        self._rows = _Results(context.now)
        self._detail = _Detail(context.now)
        self._all: Sequence[Result] = ()

    def compose(self) -> ComposeResult:
        yield self._head
        yield self._rows
        yield self._detail
        yield self.footer

    def on_mount(self) -> None:
        self._detail.styles.height = _DETAIL_LINES
        self.begin_reading()
        self.set_focus(self._rows)

    def catch_up(self) -> None:
        self._show_detail()

    async def read(self) -> None:
        self._all = await asyncio.to_thread(self.context.supervisor.results.list)

    def show_read(self) -> None:
        problem = self._problem
        note = literal("no agent was ended so far" if self._is_read else "reading …")
        self._rows.show(self._all, problem.title if problem else note)
        stale = literal("cannot be read now") if problem else EMPTY
        told = join((stale, literal(plural(len(self._all), "result"))), " · ")
        self._head.show(literal("of ended agents"), told)

    @on(Rows.Moved)
    def _show_detail(self) -> None:
        self._detail.show(self._rows.current)

    def do_show_result(self) -> None:
        """All of it, with the end of its log."""
        result = self._rows.current
        if result is None:
            self.footer.say("no result")
            return

        async def show() -> None:  # made when it begins: it may be called off before
            await self._show(result)

        work: WorkType[None] = show
        self.run_worker(work, exclusive=True)

    async def _show(self, result: Result) -> None:
        facts = [
            sanitize(f"{label:<{_LABEL}}{value}", max_cells=2000)
            for label, value in describe(result, time.time())
        ]
        try:
            log = await asyncio.to_thread(_read_log, result)
        except SwarmError as error:
            log = error.title
        parts = (*facts, literal(" "), literal("The end of its log:"), log)
        self.app.push_screen(read_dialog(result.name, join(parts, "\n"), is_wide=True))

    def do_back(self) -> None:
        self.dismiss()


def _read_log(result: Result) -> Safe:
    """Raises SwarmError."""
    if not result.log or not Path(result.log).is_dir():
        return literal("it is on another machine, or was removed")
    batch, _ = spool.read(Path(result.log), _LOG_BYTES)
    said = [event.text for event in batch.events if event.text]
    return join(said or [literal("it said nothing")], "\n")
