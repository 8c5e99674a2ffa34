"""The line above the footer while a filter is typed: what is wrong with it, or what may follow."""

from __future__ import annotations

from collections.abc import Sequence

from rich.segment import Segment

from swarm_tui.errors import UsageError
from swarm_tui.filter import KEYS, Completion
from swarm_tui.text import sanitize
from swarm_tui.ui.bar import Bar
from swarm_tui.ui.ink import Ink, Line


class Hint(Bar):
    """Shown beneath the input; `tab` takes the first completion."""

    def __init__(self) -> None:
        super().__init__(id="hint")
        self._problem: UsageError | None = None
        self.completions: Sequence[Completion] = ()

    def show(self, problem: UsageError | None, completions: Sequence[Completion]) -> None:
        self._problem, self.completions = problem, completions
        self.refresh()

    def draw_line(self, y: int, ink: Ink, width: int) -> tuple[Line, Line]:
        line: Line = [Segment(" ", ink.text)]
        if self._problem:
            line.append(Segment(self._problem.title, ink.bad))
            told = self._problem.detail or self._problem.hint
            if told and not self.completions:
                line.append(Segment(f"  {told}", ink.muted))
            line.append(Segment("  ", ink.text))
        if self.completions:
            line.append(Segment("tab ", ink.accent))
        for place, completion in enumerate(self.completions[:20]):
            shown = sanitize(completion.shown, max_cells=40)
            line.append(Segment(f"{shown} ", ink.text if place == 0 else ink.muted))
            about = KEYS.get(completion.shown.rstrip(":")) if completion.shown.endswith(":") else ""
            if about and len(self.completions) <= 2:
                line.append(Segment(f"{about}  ", ink.faint))
        return line, []
