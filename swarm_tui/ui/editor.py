"""Writing a few lines: a comment, or the message of a verdict."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Static, TextArea
from textual.widgets.text_area import Edit, EditResult

from swarm_tui.text import Safe, sanitize
from swarm_tui.ui.actions import quiet

_KEYS = "ctrl+s  keep it"
_LEAVE = "esc  leave it"
_SURE = "esc again throws away what you typed; ctrl+s keeps it"


class Pad(TextArea):
    """Several lines to type into; nothing that could reach the terminal, not even from a paste."""

    def __init__(self, text: str, *, id: str) -> None:
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

    def edit(self, edit: Edit) -> EditResult:
        # All that is typed, pasted or inserted comes through here.
        edit.text = sanitize(edit.text.replace("\r\n", "\n").replace("\r", "\n"), lines="many")
        return super().edit(edit)


class CommentDialog(ModalScreen[str | None]):
    """Write or change a comment; None: leave it as it was. Typed text is not lost by one key."""

    BINDINGS: ClassVar[list[BindingType]] = [
        quiet("ctrl+s,ctrl+enter", "keep"),
        quiet("escape,ctrl+c", "leave"),
    ]

    def __init__(self, title: Safe, quote: Safe, text: str = "") -> None:
        """`quote` is the line that it is about; `text` what the comment says so far."""
        super().__init__()
        self._heading = title
        self._quote = quote
        self._pad = Pad(text, id="pad")
        self._before = self._pad.text
        self._is_sure = False

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog", classes="-comment"):
            yield Static(Content(self._heading), id="dialog-title")
            if self._quote.strip():
                yield Static(Content(self._quote.strip()), classes="item")
            yield self._pad
            yield Static(Content(""), id="dialog-problem")
            with Horizontal(id="dialog-keys"):
                yield Button(Content(_KEYS), id="keep", compact=True)
                yield Button(Content(_LEAVE), id="leave", compact=True)

    def on_mount(self) -> None:
        self.set_focus(self._pad)
        self._pad.move_cursor(self._pad.document.end)

    @on(TextArea.Changed)
    def _unsure(self) -> None:
        if self._is_sure:
            self._is_sure = False
            self.query_one("#dialog-problem", Static).update(Content(""))

    @on(Button.Pressed, "#keep")
    def action_keep(self) -> None:
        text = self._pad.text.strip()
        if text:
            self.dismiss(text)
        else:
            self.query_one("#dialog-problem", Static).update(Content("There is nothing in it yet."))

    @on(Button.Pressed, "#leave")
    def action_leave(self) -> None:
        if self._pad.text in (self._before, "") or self._is_sure:
            self.dismiss(None)
            return
        self._is_sure = True
        self.query_one("#dialog-problem", Static).update(Content(_SURE))
