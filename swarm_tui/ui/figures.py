"""Numbers and text as they stand in cells: short, of known width, never a guess.

What nobody knows is None or NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Final

from rich.cells import cell_len, set_cell_size

from swarm_tui.amount import NOT_KNOWN

_LEVELS: Final = "▁▂▃▄▅▆▇█"


def render_percent(value: float | None) -> str:
    """At most five cells: "3%", "142%"; the value is clamped at 9999."""
    return NOT_KNOWN if value is None else f"{min(value, 9999):.0f}%"


def render_count(count: int) -> str:
    """With thousands marked: "1,234"."""
    return f"{count:,}"


def plural(count: int, noun: str, nouns: str = "") -> str:
    """A count and its noun, "12 agents"; `nouns` where that is not made with an s."""
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


def render_spark(samples: Sequence[float], width: int, top: float) -> str:
    """The last `width` samples as block characters, newest at the right; NaN leaves a gap.

    `top` is the value of a full block.
    """
    shown = samples[-width:] if width > 0 else samples[:0]
    scale = (len(_LEVELS) - 1) / top if top > 0 else 0.0
    last = len(_LEVELS) - 1
    line = "".join(
        " " if value != value else _LEVELS[min(last, max(0, round(value * scale)))]
        for value in shown
    )
    return line.rjust(width)


def render_chart(samples: Sequence[float], width: int, height: int, top: float) -> list[str]:
    """The last `width` samples as an area, `height` lines from top to bottom; NaN leaves a gap."""
    shown = samples[-width:]
    eighths = [
        -1
        if math.isnan(value)
        else round(min(max(value, 0.0), top) / top * height * 8)
        if top > 0
        else 0
        for value in shown
    ]
    lines = []
    for row in range(height - 1, -1, -1):
        cells = []
        for filled in eighths:
            above = filled - row * 8
            if filled < 0 or (above <= 0 and row > 0):
                cells.append(" ")
            else:
                cells.append(_LEVELS[min(8, max(1, above)) - 1])
        lines.append("".join(cells).rjust(width))
    return lines


def bar_cells(used: float | None, given: float | None, width: int) -> int:
    """How many of `width` cells of a bar are full; something in use fills at least one."""
    if not used or not given or width <= 0:
        return 0
    return max(1, min(width, round(used / given * width)))


@lru_cache(4096)
def _cut(text: str, width: int) -> str:
    if cell_len(text) <= width:
        return set_cell_size(text, width)
    return set_cell_size(set_cell_size(text, width - 1) + "…", width)


def fit(text: str, width: int) -> str:
    """Exactly `width` cells: padded on the right, or cut with an ellipsis."""
    if width <= 0:
        return ""
    if "\n" in text:  # safe text may have lines; a cell has one
        text = text.replace("\n", " ")
    if text.isascii():
        length = len(text)
        return text.ljust(width) if length <= width else text[: width - 1] + "…"
    return _cut(text, width)


def fit_right(text: str, width: int) -> str:
    """Exactly `width` cells, padded on the left; for short plain numbers."""
    return text.rjust(width) if len(text) <= width else fit(text, width)


def wrap(text: str, width: int) -> list[str]:
    """Break one line into pieces of at most `width` cells, at spaces where there are any near."""
    if width <= 0:
        return [text]
    if text.isascii():
        if len(text) <= width:
            return [text]
        breaks = [0]
        while len(text) - breaks[-1] > width:
            start = breaks[-1]
            space = text.rfind(" ", start + width // 2, start + width)
            breaks.append(start + width if space < 0 else space + 1)
        breaks.append(len(text))
        return [text[start:end] for start, end in pairwise(breaks)]
    pieces, start, used, space = [], 0, 0, 0
    for place, character in enumerate(text):
        cells = cell_len(character)
        if used + cells > width and place > start:
            end = space if space > start + width // 2 else place
            pieces.append(text[start:end])
            start, used = end, cell_len(text[end:place])
        used += cells
        if character == " ":
            space = place + 1
    return [*pieces, text[start:]]
