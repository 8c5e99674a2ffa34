"""The styles that lines are drawn with, made of the theme's variables, one set per background."""

from __future__ import annotations

from collections.abc import Mapping
from colorsys import hls_to_rgb
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

from rich.segment import Segment
from rich.style import Style
from textual.app import App
from textual.strip import Strip

from swarm_tui.model import State
from swarm_tui.ui.figures import fit

_NAMES: Final = 12

Line = list[Segment]
Role = Literal["text", "strong", "muted", "faint", "accent", "good", "warning", "bad", "cpu"]
"""An ink's name."""


@dataclass(frozen=True, slots=True)
class Ink:
    """Rich styles for one background. `muted` is for units and labels, `faint` for the rest."""

    text: Style
    strong: Style
    muted: Style
    faint: Style
    line: Style
    accent: Style
    match: Style
    good: Style
    warning: Style
    bad: Style
    cpu: Style
    memory: Style
    states: Mapping[State, Style]
    names: tuple[Style, ...]
    """Colours that tell names apart and mean nothing else."""


def ink_of(app: App[Any], surface: str = "background") -> Ink:
    """The ink of the app's present theme on one of its surfaces."""
    variables = app.theme_variables
    wanted = ("text-", "signal-", "graphs-", "state-", "surface-")
    return _mix(
        tuple((name, colour) for name, colour in variables.items() if name.startswith(wanted)),
        variables[f"surface-{surface}"],
    )


@lru_cache(32)
def _mix(variables: tuple[tuple[str, str], ...], background: str) -> Ink:
    colours = dict(variables)

    def ink(name: str, *, bold: bool = False) -> Style:
        return Style(color=colours[name], bgcolor=background, bold=bold)

    return Ink(
        text=ink("text-normal"),
        strong=ink("text-normal", bold=True),
        muted=ink("text-muted"),
        faint=ink("text-faint"),
        line=ink("surface-line"),
        accent=ink("text-accent", bold=True),
        match=Style(color=colours["text-normal"], bgcolor=colours["text-match"], bold=True),
        good=ink("signal-good"),
        warning=ink("signal-warning", bold=True),
        bad=ink("signal-bad", bold=True),
        cpu=ink("graphs-cpu"),
        memory=ink("graphs-memory"),
        states={
            state: ink(f"state-{state}", bold=state in (State.ASKING, State.FAILED))
            for state in State
        },
        names=tuple(
            Style(color=_shade(number / _NAMES, background), bgcolor=background)
            for number in range(_NAMES)
        ),
    )


def _shade(hue: float, background: str) -> str:
    """A colour that can be read on a background (#rrggbb)."""
    red, green, blue = (int(background[place : place + 2], 16) for place in (1, 3, 5))
    is_dark = 0.299 * red + 0.587 * green + 0.114 * blue < 128
    parts = hls_to_rgb(hue, 0.74 if is_dark else 0.30, 0.65)
    return "#" + "".join(f"{round(part * 255):02x}" for part in parts)


def draw(width: int, left: Line, right: Line | None = None, *, fill: Style) -> Strip:
    """A strip of exactly `width` cells: `left`, a gap, `right`; `left` is cut when need be."""
    right = right or []
    right_strip = Strip(right)
    room = width - right_strip.cell_length
    left_strip = Strip(left)
    if room < 0:
        return Strip(fit_line(right, width, fill), width)
    return Strip([*fit_line(list(left_strip), room, fill), *right_strip], width)


def fit_line(line: Line, width: int, fill: Style) -> Line:
    """The line padded with `fill`, or cut with an ellipsis, to exactly `width` cells."""
    fitted, used = [], 0
    for segment in line:
        if not segment.text:
            continue
        cells = segment.cell_length
        if used + cells > width:
            if used < width:
                fitted.append(Segment(fit(segment.text, width - used), segment.style))
            return fitted
        fitted.append(segment)
        used += cells
    if used < width:
        fitted.append(Segment(" " * (width - used), fill))
    return fitted
