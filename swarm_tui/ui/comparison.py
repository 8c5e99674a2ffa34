"""Two agents' work: the files that either changed, and what each did to one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, ClassVar, Final, Literal, NamedTuple

from rich.cells import cell_len
from rich.segment import Segment
from textual import on
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import Screen
from textual.widget import Widget

from swarm_tui.errors import SwarmError
from swarm_tui.handoff import Change
from swarm_tui.model import AgentId
from swarm_tui.review.comparison import Comparison, Likeness, Pairing
from swarm_tui.review.desk import Reading
from swarm_tui.store import Store
from swarm_tui.text import Safe, join, literal
from swarm_tui.ui.about import tell_file
from swarm_tui.ui.actions import BY_ID
from swarm_tui.ui.bar import Bar, Heading
from swarm_tui.ui.diffs import Diffs
from swarm_tui.ui.figures import fit, fit_right, plural
from swarm_tui.ui.ink import Ink, Line
from swarm_tui.ui.keys import bindings
from swarm_tui.ui.logs import PaneTitle
from swarm_tui.ui.page import Page
from swarm_tui.ui.patch import Patch
from swarm_tui.ui.rows import Rows
from swarm_tui.ui.screen import Context, SwarmScreen, top
from swarm_tui.ui.sheet import Para

_WIDE_CELLS: Final = 120
"""From so many on both diffs are beside each other."""
_FILES_AT_LEAST: Final = 3
_COUNT: Final = 11
_MARKS: Final = {
    Likeness.SAME: "same  ",
    Likeness.ONLY_A: "only A",
    Likeness.ONLY_B: "only B",
    Likeness.DIFFER: "differ",
}

Look = Literal["a", "b", "between"]


class _Side(NamedTuple):
    """One of the two: its letter, its work, and where it is shown."""

    letter: str
    reading: Reading
    diffs: Diffs
    title: PaneTitle
    patch: Patch

    @classmethod
    def make(cls, letter: str, reading: Reading) -> _Side:
        patch = Patch()
        patch.wants_split = False  # a half of the screen holds one text
        return cls(letter, reading, Diffs(reading), PaneTitle(), patch)


class _Files(Rows[Pairing]):
    """All files that either changed."""

    def __init__(self, pairings: Sequence[Pairing]) -> None:
        super().__init__(id="files", note=literal("neither changed anything"))
        self._rows = pairings

    def on_mount(self) -> None:
        self._resize()

    @property
    def place(self) -> int:
        return self._cursor

    def draw_row(self, row: Pairing, ink: Ink, width: int) -> tuple[Line, Line]:
        differs = row.likeness is Likeness.DIFFER
        style = ink.warning if differs else ink.muted if row.likeness is Likeness.SAME else ink.text
        return [
            Segment(f"{_MARKS[row.likeness]} ", style),
            Segment(f"{fit_right(_count(row.a), _COUNT)} ", ink.muted),
            Segment(f"{fit_right(_count(row.b), _COUNT)}  ", ink.muted),
            Segment(row.name, ink.text),
        ], []


class _Note(Bar):
    """From when each of them is, and whether the two began with the same."""

    def __init__(self, comparison: Comparison, store: Store, now: Callable[[], float]) -> None:
        super().__init__(id="note")
        self._comparison = comparison
        self._store = store
        self._now = now
        self.lines = 2 if comparison.is_of_one_base else 3

    def draw_line(self, y: int, ink: Ink, width: int) -> tuple[Line, Line]:
        if y == 2:
            told = "their bases differ: so may files that neither of them changed"
            return [Segment(f" {fit(told, width - 2)}", ink.warning)], []
        of = (self._comparison.of_a, self._comparison.of_b)[y]
        known = self._store.agent(of.agent)
        told = of.tell(known.state if known else None, self._now())
        review = f"  review {of.review}"
        room = max(0, width - 5 - cell_len(of.name) - cell_len(review))
        return [
            Segment(f" {'AB'[y]} ", ink.accent),
            Segment(f"{of.name} ", ink.strong),
            Segment(fit(told, room), ink.warning if of.why_then else ink.text),
        ], [Segment(f"{review} ", ink.faint)]


class CompareScreen(SwarmScreen):
    """It shows what was taken, which does not change; nothing can be done to an agent here."""

    PLACE = "compare"
    KEPT = ("help",)
    BINDINGS: ClassVar[list[BindingType]] = bindings("compare")

    def __init__(self, context: Context, comparison: Comparison) -> None:
        """It closes the comparison when it is left."""
        super().__init__(context)
        self._comparison = comparison
        self._head = Heading("compare")
        self._note = _Note(comparison, context.store, context.now)
        self._second = 0
        self._files = _Files(comparison.pairings)
        self._a = _Side.make("A", comparison.a)
        self._b = _Side.make("B", comparison.b)
        self._shown: Look = "a"
        """What was chosen; "a" and "b" are beside each other where there is room."""
        self._opening: asyncio.Task[None] | None = None

    def compose(self) -> ComposeResult:
        yield self._head
        yield self._note
        yield self._files
        with Horizontal(id="sides"):
            for side in (self._a, self._b):
                with Vertical(id=f"side-{side.letter.lower()}", classes="side"):
                    yield side.title
                    yield side.patch
        yield self.footer

    def on_mount(self) -> None:
        self._note.styles.height = self._note.lines
        self._lay()
        self._show_head()
        self.set_focus(self._a.patch)
        self._open()

    async def on_unmount(self) -> None:
        if self._opening:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        await self._comparison.close()

    def on_resize(self) -> None:
        self._lay()

    def _lay(self) -> None:
        height, width = self.app.size.height, self.app.size.width
        self._files.styles.height = max(
            _FILES_AT_LEAST, min(len(self._comparison.pairings), height // 4)
        )
        is_wide = width >= _WIDE_CELLS
        self.query_one("#side-a").display = self._shown != "b" or is_wide
        self.query_one("#side-b").display = self._shown == "b" or (
            is_wide and self._shown != "between"
        )

    def aims(self) -> Sequence[AgentId]:
        return []

    def current(self) -> AgentId | None:
        return None

    def tick(self, dirty: set[AgentId], *, hosts_changed: bool, rearranged: bool) -> None:
        if (second := int(self.context.now())) != self._second:
            self._second = second
            self._note.refresh()  # its ages move on

    def catch_up(self) -> None:
        self._show_head()

    def _show_head(self) -> None:
        whose = join((self._comparison.of_a.name, literal("and"), self._comparison.of_b.name))
        self._head.show(whose, literal(plural(len(self._comparison.pairings), "file")))

    # What is shown

    @on(Rows.Moved)
    def _open(self) -> None:
        if pairing := self._files.current:
            self._turn_to(pairing)
            self._read(pairing)

    def _read(self, pairing: Pairing) -> None:
        if self._opening:
            self._opening.cancel()
        self._opening = asyncio.create_task(self._show(pairing), name="compare")

    def _turn_to(self, pairing: Pairing) -> None:
        """Where only one of the two changed the file, keys are for that side, and it is seen."""
        if self._shown == "between":
            return
        if pairing.a is None or pairing.b is None:
            self._shown = "b" if pairing.a is None else "a"
            self._lay()
        if isinstance(self.focused, Patch):
            self.set_focus((self._b if self._shown == "b" else self._a).patch)

    async def _show(self, pairing: Pairing) -> None:
        if self._shown == "between":
            await self._show_between(pairing)
            return
        for side, change in ((self._a, pairing.a), (self._b, pairing.b)):
            name = side.reading.review.name
            side.title.show(f"{side.letter} {name}  {_what(change)}", _where(change))
            if change is None:
                text = join((name, literal("did not change this file")))
                side.patch.show(_say(side.letter, pairing, text, "muted"))
                continue
            try:
                diff = await side.diffs.get(change)
            except SwarmError as error:
                text = join((error.title, error.detail, error.hint), ": ")
                side.patch.show(_say(side.letter, pairing, text, "bad"))
                continue
            flags = [one for one in side.reading.review.flags if one.path == change.path]
            head = tell_file(change, flags, diff.note)
            side.patch.show(Page(f"{side.letter}-{change.key}", head, diff))

    async def _show_between(self, pairing: Pairing) -> None:
        title, patch = self._a.title, self._a.patch
        title.show("from A to B", pairing.name)
        if pairing.likeness is not Likeness.DIFFER:
            alike = pairing.likeness is Likeness.SAME
            told = "it is the same in both" if alike else "only one of them changed this file"
            patch.show(_say("between", pairing, literal(told), "muted"))
            return
        try:
            diff = await self._comparison.between(pairing)
        except SwarmError as error:
            text = join((error.title, error.detail, error.hint), ": ")
            patch.show(_say("between", pairing, text, "bad"))
            return
        patch.show(Page(f"between-{diff.change.key}", tell_file(diff.change, (), diff.note), diff))

    # Keys

    def do_change_over(self) -> None:
        is_wide = self.app.size.width >= _WIDE_CELLS
        looks: Sequence[Look] = ("a", "between") if is_wide else ("a", "b", "between")
        at = looks.index(self._shown) if self._shown in looks else 0
        self._shown = looks[(at + 1) % len(looks)]
        self._lay()
        if isinstance(self.focused, Patch):
            self.set_focus((self._b if self._shown == "b" else self._a).patch)
        if pairing := self._files.current:
            self._read(pairing)

    def _panes(self) -> Sequence[Widget]:
        """What can be moved in, in the order of tab."""
        return [self._files, *(one.patch for one in (self._a, self._b) if _is_seen(one.patch))]

    def do_pane(self) -> None:
        panes = self._panes()
        at = panes.index(self.focused) if self.focused in panes else 0
        self.set_focus(panes[(at + 1) % len(panes)])

    def do_next_file(self) -> None:
        self._go(1)

    def do_previous_file(self) -> None:
        self._go(-1)

    def _go(self, down: int) -> None:
        if 0 <= self._files.place + down < self._files.count:
            self._files.go(self._files.place + down)
        else:
            self.footer.say("the last file" if down > 0 else "the first one")

    @on(Patch.Left)
    def _next_change(self, event: Patch.Left) -> None:
        self._go(event.direction)

    def do_press(self) -> None:
        if isinstance(self.focused, Patch):
            self.focused.press()
        else:
            self.do_pane()

    def do_wrap(self) -> None:
        for side in (self._a, self._b):
            side.patch.choose_wrap()
        self.footer.say("long lines are wrapped" if self._a.patch.wraps else "long lines are cut")

    def do_whole(self) -> None:
        for side in (self._a, self._b):
            side.patch.choose_whole()

    def do_refresh(self) -> None:
        both = [self._comparison.of_a.agent, self._comparison.of_b.agent]
        self.dismiss()
        self.context.act(BY_ID["compare"], both, None)

    def do_back(self) -> None:
        self.dismiss()


class Comparisons:
    """What is compared outlives the screen on which it was asked for."""

    def __init__(
        self,
        app: App[Any],
        context: Context,
        start: Callable[[Coroutine[Any, Any, object], str], None],
        tell: Callable[[Safe, Safe], None],
    ) -> None:
        """`start` begins a job of the app, by name; `tell` shows a title and a sentence."""
        self._app = app
        self._swarm = context
        self._start = start
        self._tell = tell
        self._is_reading = False

    def open(self, a: AgentId, b: AgentId) -> None:
        """Take the work of both, and show it; one at a time."""
        if self._is_reading:
            top(self._app).footer.say("their work is being taken")
            return
        self._is_reading = True
        self._start(self._read(a, b, self._app.screen), "compare")

    async def _read(self, a: AgentId, b: AgentId, place: Screen[Any]) -> None:
        """`place` is where the person was; who has gone on since is told, not interrupted."""

        def say(step: Safe, _fraction: float | None) -> None:
            top(self._app).footer.say(step)

        try:
            comparison = await self._swarm.supervisor.comparison(a, b, say)
        finally:
            self._is_reading = False
        if self._app.screen is place:
            self._app.push_screen(CompareScreen(self._swarm, comparison))
            return
        await comparison.close()
        whose = join((comparison.of_a.name, literal("and"), comparison.of_b.name))
        self._tell(join((literal("Taken to be compared:"), whose)), literal("press c on them"))


def _is_seen(patch: Patch) -> bool:
    return isinstance(patch.parent, Widget) and bool(patch.parent.display)


def _say(letter: str, pairing: Pairing, text: Safe, role: Literal["muted", "bad"]) -> Page:
    return Page(f"{letter}-{role}-{pairing.name}", [Para(text, role)])


def _what(change: Change | None) -> str:
    return change.status if change else "as it was"


def _where(change: Change | None) -> str:
    return _count(change) if change else ""


def _count(change: Change | None) -> str:
    if change is None:
        return "-"
    if change.added is None or change.removed is None:
        return "no lines"
    return f"+{change.added:,} -{change.removed:,}"
