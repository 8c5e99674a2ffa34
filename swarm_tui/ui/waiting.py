"""The queue: everything that waits for a human, over all hosts, the oldest first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import ClassVar, Final

from rich.segment import Segment
from rich.style import Style
from textual import events, on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.message import Message

from swarm_tui.amount import render_age
from swarm_tui.attention import SNOOZE_S, Attention, Kind, Need, summarize
from swarm_tui.errors import SwarmError
from swarm_tui.model import AgentId, State
from swarm_tui.text import Safe, literal, sanitize
from swarm_tui.ui.bar import Bar, Heading
from swarm_tui.ui.figures import fit, fit_right, plural, wrap
from swarm_tui.ui.glyphs import STATE_GLYPHS
from swarm_tui.ui.grid import GRACE_S
from swarm_tui.ui.ink import Ink, Line
from swarm_tui.ui.keys import bindings
from swarm_tui.ui.rows import Rows
from swarm_tui.ui.screen import Context, SwarmScreen

_GLYPHS: Final = {
    Kind.ASK: STATE_GLYPHS[State.ASKING],
    Kind.REVIEW: STATE_GLYPHS[State.SAVED],
    Kind.VERDICT: STATE_GLYPHS[State.SAVED],
    Kind.VERB: "!",
    Kind.FAILED: STATE_GLYPHS[State.FAILED],
    Kind.UNKNOWN: STATE_GLYPHS[State.UNKNOWN],
    Kind.HOST: STATE_GLYPHS[State.LOST],
    Kind.LIFE: "!",
    Kind.STOPPED: STATE_GLYPHS[State.PAUSED],
    Kind.FAULT: "!",
}
_WIDE: Final = 100
"""From so many cells on the owner has a column."""
_DETAIL_LINES: Final = 2


def _style(kind: Kind, ink: Ink) -> Style:
    match kind:
        case Kind.ASK:
            return ink.states[State.ASKING]
        case Kind.REVIEW | Kind.VERDICT:
            return ink.states[State.SAVED]
        case Kind.STOPPED:
            return ink.states[State.PAUSED]
        case Kind.UNKNOWN:
            return ink.states[State.UNKNOWN]
        case _:
            return ink.bad


class Queue(Rows[Need]):
    """Lines of needs. The cursor stays on its need."""

    class Opened(Message):
        """One was opened by a double click."""

    def __init__(
        self,
        attention: Attention,
        now: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        super().__init__(id="queue")
        self._attention = attention
        self._now = now
        self._monotonic = monotonic
        self._disturbed_at = float("-inf")

    def is_steady(self) -> bool:
        """False for a moment after another need came under the cursor by itself."""
        return self._monotonic() - self._disturbed_at >= GRACE_S

    def show(self, needs: Sequence[Need], note: Safe, *, asked_for: bool = False) -> None:
        """Others; `note` stands where there are none. `asked_for`: by the person."""
        was = self.current
        self._rows, self._note = needs, note
        places = {need.key: place for place, need in enumerate(needs)}
        cursor = places.get(was.key, self._cursor) if was else 0
        self._cursor = max(0, min(cursor, len(needs) - 1))
        self._resize()
        now = self.current
        if was and not asked_for and (now is None or now.key != was.key or now.kind != was.kind):
            self._disturbed_at = self._monotonic()
        self._scroll_to_cursor()
        self.refresh()
        self.post_message(self.Moved())

    def tick(self) -> None:
        """A second has passed: ages move on."""
        self.refresh()

    def go(self, line: int) -> None:
        """As always, because a person said so: what is under the cursor then is meant."""
        self._disturbed_at = float("-inf")
        super().go(line)

    def go_next(self) -> None:
        """To the next one, from the last to the first."""
        self.go((self._cursor + 1) % max(1, len(self._rows)))

    def on_click(self, event: events.Click) -> None:
        event.prevent_default()  # the base would go to the last one from the room below it
        line = event.y + self.scroll_offset.y
        if line < len(self._rows):
            self.go(line)
            if event.chain == 2:
                self.post_message(self.Opened())

    def draw_row(self, row: Need, ink: Ink, width: int) -> tuple[Line, Line]:
        is_snoozed = self._attention.is_snoozed(row.key)
        return _draw(row, ink, width, self._now(), is_snoozed=is_snoozed), []


def _draw(need: Need, ink: Ink, width: int, now: float, *, is_snoozed: bool) -> Line:
    age = render_age(None if need.since is None else now - need.since)
    is_wide = width >= _WIDE
    style = ink.faint if is_snoozed else _style(need.kind, ink)
    line = [
        Segment(f"{_GLYPHS[need.kind]} {fit(need.kind, 8)}", style),
        Segment(f"{fit_right(age, 5)}  ", ink.muted),
        Segment(f"{fit(need.name or '-', 20 if is_wide else 15)} ", ink.strong),
    ]
    if need.agent:
        line.append(Segment(f"{fit(sanitize(need.host or ''), 14 if is_wide else 9)} ", ink.muted))
        if is_wide:
            line.append(Segment(f"{fit(need.owner, 10)} ", ink.muted))
    reason = f"snoozed: {need.reason}" if is_snoozed else need.reason
    line.append(Segment(reason, ink.faint if is_snoozed else ink.text))
    return line


class _Detail(Bar):
    """The whole of a reason that does not fit its line."""

    def __init__(self) -> None:
        super().__init__(id="detail")
        self._need: Need | None = None

    def show(self, need: Need | None) -> None:
        if need != self._need:
            self._need = need
            self.refresh()

    def draw_line(self, y: int, ink: Ink, width: int) -> tuple[Line, Line]:
        need = self._need
        if need is None:
            return [], []
        pieces = wrap(need.reason, width - 2)
        piece = pieces[y] if y < len(pieces) else ""
        if y == _DETAIL_LINES - 1 and len(pieces) > _DETAIL_LINES:
            piece = f"{fit(piece, width - 3).rstrip()}…"
        return [Segment(f" {piece}", ink.text)], []


class WaitingScreen(SwarmScreen):
    """What waits, with the verbs that answer it."""

    PLACE = "waiting"
    KEPT = ("go", "review", "snooze", "help", "quit")
    BINDINGS: ClassVar[list[BindingType]] = bindings("waiting")

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._attention = context.attention
        self._head = Heading("waiting")
        self.queue = Queue(context.attention, context.now, context.monotonic)
        self._detail = _Detail()
        self._is_mine = False
        self._has_snoozed = False
        self._shown: tuple[int, bool, bool] | None = None
        self._second = 0
        self._reading: asyncio.Task[None] | None = None

    def compose(self) -> ComposeResult:
        yield self._head
        yield self.queue
        yield self._detail
        yield self.footer

    def on_mount(self) -> None:
        self._detail.styles.height = _DETAIL_LINES
        self.set_focus(self.queue)
        self._reading = asyncio.create_task(self._read_acts(), name="read acts")
        self.catch_up()

    def on_unmount(self) -> None:
        if self._reading:
            self._reading.cancel()

    async def _read_acts(self) -> None:
        """Verbs of others may have failed, too."""
        try:
            acts = await asyncio.to_thread(self.context.supervisor.acts)
        except SwarmError as error:
            self.context.show_error(error)
            return
        self._attention.hear_acts(acts, self.context.now())
        self._show()

    # What it shows

    @property
    def need(self) -> Need | None:
        return self.queue.current

    def aims(self) -> Collection[AgentId]:
        return [agent] if (agent := self.current()) else []

    def current(self) -> AgentId | None:
        return self.need.agent if self.need else None

    def is_steady(self) -> bool:
        return self.queue.is_steady()

    def tick(self, dirty: set[AgentId], *, hosts_changed: bool, rearranged: bool) -> None:
        second = int(self.context.now())
        if self._shown != self._wanted():
            self._show()
        elif second != self._second:
            self.queue.tick()
        if self.current() in dirty or hosts_changed:
            self.show_keys({})
        self._second = second

    def catch_up(self) -> None:
        self._show(asked_for=True)

    def _wanted(self) -> tuple[int, bool, bool]:
        return self._attention.version, self._is_mine, self._has_snoozed

    def _show(self, *, asked_for: bool = False) -> None:
        self._shown = self._wanted()
        needs = list(self._attention.needs(with_snoozed=self._has_snoozed))
        if self._is_mine:
            needs = [need for need in needs if need.is_for(self.context.person)]
        hidden = len(self._attention) - len(needs)
        note = "Nothing waits for you" + (f" but {hidden:,} that are not shown" if hidden else "")
        self.queue.show(needs, sanitize(note), asked_for=asked_for)
        counts: dict[Kind, int] = {}
        for need in needs:
            counts[need.kind] = counts.get(need.kind, 0) + 1
        snoozed = self._attention.snoozed
        right = [f"{snoozed:,} snoozed"] if snoozed else []
        right.append("mine" if self._is_mine else "all owners")
        self._head.show(summarize(counts) or literal("nothing"), sanitize(" · ".join(right)))
        self._show_detail()

    @on(Queue.Moved)
    def _show_detail(self) -> None:
        self._detail.show(self.need)
        self.show_keys({})

    # Actions

    @on(Queue.Opened)
    def _open(self) -> None:
        self.action_act("go")

    def do_go(self) -> None:
        if self.need:
            self.context.answer(self.need)

    def do_next_waiting(self) -> None:
        if self.queue.count > 1:
            self.queue.go_next()
        else:
            self.footer.say("nothing else waits" if self.need else "nothing waits")

    def do_snooze(self) -> None:
        need = self.need
        if need is None:
            self.footer.say("nothing waits")
        elif self._attention.is_snoozed(need.key):
            self._attention.wake(need.key)
        else:
            self._attention.snooze(need.key, self.context.now())
            self.footer.say("taken off" if need.is_over else f"snoozed for {render_age(SNOOZE_S)}")
        self._show(asked_for=True)

    def do_snoozed(self) -> None:
        self._has_snoozed = not self._has_snoozed
        self.footer.say(
            f"{plural(self._attention.snoozed, 'snoozed one')} "
            f"{'shown' if self._has_snoozed else 'hidden'}"
        )
        self._show(asked_for=True)

    def do_mine(self) -> None:
        self._is_mine = not self._is_mine
        self._show(asked_for=True)

    def do_back(self) -> None:
        self.dismiss()
