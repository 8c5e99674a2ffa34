"""One line to type into."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from textual.widgets import Input

_UNSEEN: Final = (
    r"\x00-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    r"\ud800-\uf8ff\ufe00-\ufe0f\ufeff\ufff0-\ufffb\U000e0000-\U0010ffff"
)


class Field(Input):
    """An input that takes no control, unseen or bidirectional character, not even from a paste."""

    def __init__(
        self,
        *,
        id: str,
        placeholder: str = "",
        value: str = "",
        on_submit: Callable[[str], None] | None = None,
    ) -> None:
        """`on_submit`: what becomes of the text; without it a `Submitted` is posted."""
        super().__init__(
            value,
            placeholder,
            id=id,
            compact=True,
            restrict=f"[^{_UNSEEN}]*",
        )
        self.cursor_blink = False
        self._on_submit = on_submit

    async def action_submit(self) -> None:
        if self._on_submit:
            self._on_submit(self.value)
        else:
            await super().action_submit()
