"""What was done to many agents at once: how far it is, who failed, and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Final

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from swarm_tui.batch import Batch, Fate, Item
from swarm_tui.errors import SwarmError
from swarm_tui.model import AgentId
from swarm_tui.text import sanitize
from swarm_tui.ui.facts import Fact, Facts
from swarm_tui.ui.figures import plural
from swarm_tui.ui.keys import quiet

_REFRESH_S: Final = 0.25
_FATES: Final = (Fate.DONE, Fate.FAILED, Fate.AT_WORK, Fate.WAITING, Fate.LEFT)


class BatchDialog(ModalScreen[Sequence[AgentId]]):
    """The last verb on many, and those before it; answers with agents to be selected."""

    BINDINGS: ClassVar[list[BindingType]] = [
        quiet("escape,q,J,ctrl+c", "close"),
        quiet("c", "call_off"),
        quiet("s", "select_failed"),
        quiet("left_square_bracket,h,left", "turn(-1)"),
        quiet("right_square_bracket,l,right", "turn(1)"),
        quiet("j,down", "scroll(1)"),
        quiet("k,up", "scroll(-1)"),
        quiet("pagedown,ctrl+d,space", "scroll(10)"),
        quiet("pageup,ctrl+u", "scroll(-10)"),
    ]

    def __init__(self, batches: Sequence[Batch]) -> None:
        super().__init__()
        self._batches = batches
        self._batch = batches[-1]
        self._facts = Facts()

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog", classes="-batch"):
            yield Static(Content(""), id="dialog-title")
            yield self._facts
            hint = "c call off what has not begun   s select the failed   h l others   esc close"
            yield Static(Content(hint), id="dialog-hint")

    def on_mount(self) -> None:
        self._show()
        self.set_interval(_REFRESH_S, self._show)

    def _show(self) -> None:
        batch, batches = self._batch, list(self._batches)
        place = batches.index(batch) + 1 if batch in batches else 0
        which = f"  ({place} of {len(batches)})" if len(batches) > 1 else ""
        counts = batch.counts
        told = ", ".join(f"{counts[fate]} {fate}" for fate in _FATES if counts.get(fate))
        title = f"{batch.word.capitalize()} {plural(len(batch.items), 'agent')}: {told}{which}"
        self.query_one("#dialog-title", Static).update(Content(title))
        self._facts.show(_tell(batch))

    def action_close(self) -> None:
        self.dismiss()

    def action_call_off(self) -> None:
        self._batch.call_off()
        self._show()

    def action_select_failed(self) -> None:
        failed = self._batch.having(Fate.FAILED)
        if failed and not self._batch.is_new:
            self.dismiss([item.id for item in failed if item.id])

    def action_turn(self, direction: int) -> None:
        batches = list(self._batches)
        place = batches.index(self._batch) if self._batch in batches else 0
        self._batch = batches[max(0, min(place + direction, len(batches) - 1))]
        self._facts.scroll_to(y=0, animate=False)
        self._show()

    def action_scroll(self, lines: int) -> None:
        self._facts.scroll_to(y=self._facts.scroll_offset.y + lines, animate=False)


def _tell(batch: Batch) -> Iterable[Fact]:
    """Those that failed first, each with its reason; the others by name."""
    for item in batch.having(Fate.FAILED):
        yield Fact("✗", _who(item), "bad")
        for part in _why(item):
            for line in part.split("\n"):
                yield Fact("", line, "text")
    for item in batch.having(Fate.AT_WORK) if batch.is_new else ():
        yield Fact(item.name, item.step, "muted")
    for item in batch.having(Fate.DONE) if batch.is_new else ():
        yield Fact("made", item.told, "good")
    rest = (Fate.WAITING, Fate.LEFT)
    for fate in rest if batch.is_new else (Fate.AT_WORK, *rest, Fate.DONE):
        items = batch.having(fate)
        if items:
            yield Fact(f"{fate}", ", ".join(map(_who, items)), "muted")


def _who(item: Item) -> str:
    return f"{item.name} on {sanitize(item.host)}" if item.host else item.name


def _why(item: Item) -> Iterable[str]:
    error = item.error
    if isinstance(error, SwarmError):
        return [part for part in (error.title, error.detail, error.hint) if part]
    return [sanitize(f"a fault of swarm-tui: {error!r}")]
