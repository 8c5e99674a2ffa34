"""Writing a few lines: a comment, a message to agents, or the message of a verdict."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Button, Static, TextArea
from textual.widgets.text_area import Edit, EditResult

from swarm_tui.review.verdict import MESSAGE_BYTES
from swarm_tui.text import Safe, sanitize
from swarm_tui.ui.keys import quiet

_LEAVE = "esc  leave it"


class Pad(TextArea):
    """Several lines to type into; nothing that could reach the terminal, not even from a paste.

    Some keys end it. They are taken from the same queue as what was typed before them: as bindings
    with priority they would overtake it, and a part of the text would be sent.
    """

    class Ended(Message):
        """One of the keys that end it was pressed; `text` is what had been typed by then."""

        def __init__(self, key: str, text: str) -> None:
            super().__init__()
            self.key = key
            self.text = text

    def __init__(self, text: str, *, id: str, ends: Collection[str] = ()) -> None:
        super().__init__(
            sanitize(text, lines="many"),
            id=id,
            soft_wrap=True,
            show_line_numbers=False,
            highlight_cursor_line=False,
            compact=True,
            tab_behavior="focus",
        )
        self.cursor_blink = False
        self._ends = ends

    async def _on_key(self, event: events.Key) -> None:
        if event.key in self._ends:
            event.stop()
            event.prevent_default()
            self.post_message(self.Ended(event.key, self.text))
        else:
            await super()._on_key(event)

    def edit(self, edit: Edit) -> EditResult:
        # All that is typed, pasted or inserted comes through here.
        edit.text = sanitize(edit.text.replace("\r\n", "\n").replace("\r", "\n"), lines="many")
        return super().edit(edit)


class CommentDialog(ModalScreen[str | None]):
    """Write or change a comment; None: leave it as it was. Typed text is not lost by one key."""

    BINDINGS: ClassVar[list[BindingType]] = [quiet("escape,ctrl+c", "leave")]
    ENDS: ClassVar[Collection[str]] = ("ctrl+s", "ctrl+enter")
    KEEP: ClassVar[str] = "ctrl+s  keep it"
    SURE: ClassVar[str] = "esc again throws away what you typed; ctrl+s keeps it"

    def __init__(self, title: Safe, quote: Safe, text: str = "") -> None:
        """`quote` is the line that it is about; `text` what the comment says so far."""
        super().__init__()
        self._heading = title
        self._quote = quote
        self._pad = Pad(text, id="pad", ends=self.ENDS)
        self._before = self._pad.text
        self._is_sure = False

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog", classes="-comment"):
            yield Static(Content(self._heading), id="dialog-title")
            if self._quote.strip():
                yield Static(Content(self._quote.strip()), classes="quote")
            yield self._pad
            yield Static(Content(""), id="dialog-problem")
            with Horizontal(id="dialog-keys"):
                yield Button(Content(self.KEEP), id="keep", compact=True)
                yield Button(Content(_LEAVE), id="leave", compact=True)

    def on_mount(self) -> None:
        self.set_focus(self._pad)
        self._pad.move_cursor(self._pad.document.end)

    @on(TextArea.Changed)
    def _unsure(self) -> None:
        if self._is_sure:
            self._is_sure = False
            self.query_one("#dialog-problem", Static).update(Content(""))

    @on(Pad.Ended)
    @on(Button.Pressed, "#keep")
    def action_keep(self) -> None:
        text = self._pad.text.strip()
        if problem := self.check(text):
            self.query_one("#dialog-problem", Static).update(Content(problem))
        else:
            self.dismiss(text)

    def check(self, text: str) -> str:
        """Why it cannot be kept; empty when it can."""
        return "" if text else "There is nothing in it yet."

    @on(Button.Pressed, "#leave")
    def action_leave(self) -> None:
        if self._pad.text in (self._before, "") or self._is_sure:
            self.dismiss(None)
            return
        self._is_sure = True
        self.query_one("#dialog-problem", Static).update(Content(self.SURE))


class MessageDialog(CommentDialog):
    """Write a message to agents. What was not sent before may stand in it already."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+j,shift+enter,alt+enter", "newline", show=False)
    ]
    ENDS = ("enter", "ctrl+s", "ctrl+enter")
    KEEP = "↵  send"
    SURE = "esc again throws away what you typed; ↵ sends it"

    def compose(self) -> ComposeResult:
        yield from super().compose()
        yield Static(Content("ctrl+j  a new line"), id="dialog-hint")

    def action_newline(self) -> None:
        self._pad.insert("\n")

    def check(self, text: str) -> str:
        size = len(text.encode())
        if size > MESSAGE_BYTES:
            return f"It has {size:,} bytes; {MESSAGE_BYTES:,} can be delivered."
        return super().check(text)
