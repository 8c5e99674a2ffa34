"""The signs that stand beside words, and how all signs become ASCII on a terminal without UTF-8.

Everything draws in Unicode. On a plain terminal one line filter, through which every line of the
screen passes, puts ASCII in its place, cell for cell.
"""

from __future__ import annotations

import locale
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from swarm_tui.model import EventKind, State

STATE_GLYPHS: Final[Mapping[State, str]] = {
    State.STARTING: "◔",
    State.RUNNING: "●",
    State.ASKING: "◆",
    State.FROZEN: "◈",
    State.PAUSED: "◫",
    State.SAVED: "■",
    State.DONE: "✓",
    State.FAILED: "✗",
    State.LOST: "○",
    State.UNKNOWN: "?",
}
KIND_GLYPHS: Final[Mapping[EventKind, str]] = {
    EventKind.LOG: " ",
    EventKind.STATUS: "▸",
    EventKind.TOOL: "$",
    EventKind.USAGE: "Σ",
    EventKind.ASK: "◆",
    EventKind.DONE: "✓",
    EventKind.FAILED: "✗",
    EventKind.OTHER: "·",
}
SPINNER: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
SELECTED: Final = "»"

_PLAIN: Final = str.maketrans(
    {
        **dict(zip("◔●◆◈◫■✓✗○", ".*!%=s+xo", strict=True)),
        **dict(zip("▸Σ»·…↓↑→↵←", ">S>-.<>>^<", strict=True)),
        **dict(zip(SPINNER, "|/-\\|/-\\|/", strict=True)),
        **dict(zip("▁▂▃▄▅▆▇█", "_.-:=+*#", strict=True)),
        **dict.fromkeys("╭╮╰╯┌┐└┘├┤┬┴┼┏┓┗┛", "+"),
        **dict.fromkeys("─╌╴╶", "-"),
        **dict.fromkeys("━▔", "="),
        **dict.fromkeys("│┃▌▐▎▏▕▊▋┆", "|"),
        **dict.fromkeys("▀▄░▒▓", "#"),
        **dict.fromkeys("‘’“”", "'"),
        **dict(zip("⚑⋯✎‹›×", '!:"<>x', strict=True)),
        "–": "-",
        "—": "-",
    }
)


@lru_cache(8192)
def plain(text: str) -> str:
    """The same number of cells in ASCII; what has no likeness becomes "?"."""
    translated = text.translate(_PLAIN)
    if translated.isascii():
        return translated
    return "".join(
        character if character.isascii() else "?" * cell_len(character) for character in translated
    )


class PlainFilter(LineFilter):
    """Puts ASCII in the place of every other character of a line."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [
            segment if segment.text.isascii() else segment._replace(text=plain(segment.text))
            for segment in segments
        ]


def needs_plain(terminal: str) -> bool:
    """Whether a terminal (the value of TERM) under this locale cannot show our signs."""
    encoding = locale.getencoding().lower().replace("-", "")
    return encoding != "utf8" or terminal in {"linux", "dumb", "vt100", "vt220"}
