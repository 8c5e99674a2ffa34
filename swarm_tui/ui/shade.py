"""The styles of code in a diff: what a word is, on the ground of what happened to its line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final, Literal

from rich.segment import Segment
from rich.style import Style
from textual.app import App
from textual.color import Color

from swarm_tui.ui.ink import Line

Ground = Literal["plain", "added", "removed", "panel"]
Span = tuple[int, int, str]
"""[start, end) of a line's text, and the role of what stands there."""

_GROUNDS: Final[Mapping[str, str]] = {
    "plain": "surface-background",
    "panel": "surface-surface",
    "added": "diff-added",
    "removed": "diff-removed",
    "added-word": "diff-added-word",
    "removed-word": "diff-removed-word",
}
_CURSOR_SHARE: Final = 0.45
"""How much of the cursor's colour is mixed into the ground of a changed line."""


class Shades:
    """Styles of one theme, each made once."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self._made: dict[tuple[str, str, bool, bool], Style] = {}

    def style(
        self, role: str, ground: str = "plain", *, is_cursor: bool = False, is_bold: bool = False
    ) -> Style:
        """`role` is a theme's variable ("text-muted", "syntax-string"); `ground` one of ours."""
        key = (role, ground, is_cursor, is_bold)
        style = self._made.get(key)
        if style is None:
            style = self._made[key] = Style(
                color=self._variables[role], bgcolor=self._ground(ground, is_cursor), bold=is_bold
            )
        return style

    def match(self) -> Style:
        """What was searched for."""
        return Style(
            color=self._variables["text-normal"], bgcolor=self._variables["text-match"], bold=True
        )

    def _ground(self, ground: str, is_cursor: bool) -> str:
        colour = self._variables[_GROUNDS[ground]]
        if not is_cursor:
            return colour
        cursor = self._variables["surface-cursor"]
        if ground in ("plain", "panel"):
            return cursor
        return Color.parse(colour).blend(Color.parse(cursor), _CURSOR_SHARE).hex


def shades_of(app: App[Any]) -> Shades:
    """Those of the app's present theme."""
    variables = app.theme_variables
    names = ("surface-", "text-", "signal-", "diff-", "syntax-")
    return _mix(tuple((name, variables[name]) for name in variables if name.startswith(names)))


@lru_cache(8)
def _mix(variables: tuple[tuple[str, str], ...]) -> Shades:
    return Shades(dict(variables))


def colour(
    text: str,
    ground: Ground,
    shades: Shades,
    *,
    spans: Sequence[Span] = (),
    words: Sequence[tuple[int, int]] = (),
    matches: Sequence[tuple[int, int]] = (),
    is_cursor: bool = False,
) -> Line:
    """A line of code as segments. `words` differ from the other side; `matches` are found ones.

    Ranges may be anything; what lies outside of the text is left out.
    """
    plain = shades.style("text-normal", ground, is_cursor=is_cursor)
    if not (spans or words or matches):
        return [Segment(text, plain)] if text else []
    length = len(text)
    cuts = {0, length}
    for start, end in (*((start, end) for start, end, _ in spans), *words, *matches):
        if 0 <= start < end:
            cuts.update((min(start, length), min(end, length)))
    line: Line = []
    for start, end in pairwise(sorted(cuts)):
        if _is_in(start, matches):
            style = shades.match()
        else:
            is_word = ground in ("added", "removed") and _is_in(start, words)
            role = next((role for first, last, role in spans if first <= start < last), "")
            style = shades.style(
                f"syntax-{role}" if role else "text-normal",
                f"{ground}-word" if is_word else ground,
                is_cursor=is_cursor,
                is_bold=is_word,
            )
        line.append(Segment(text[start:end], style))
    return line


def _is_in(place: int, ranges: Sequence[tuple[int, int]]) -> bool:
    return any(start <= place < end for start, end in ranges)
