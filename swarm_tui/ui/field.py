"""One line to type into."""

from __future__ import annotations

from textual.widgets import Input


class Field(Input):
    """An input that takes no control or bidirectional characters, not even from a paste."""

    def __init__(self, *, id: str, placeholder: str = "", value: str = "") -> None:
        super().__init__(
            value,
            placeholder,
            id=id,
            compact=True,
            restrict=r"[^\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]*",
        )
        self.cursor_blink = False
