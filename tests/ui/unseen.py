"""Textual without what no test looks at: half of the time of the tests of screens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from textual._compositor import Compositor
from textual._context import visible_screen_stack
from textual.css.model import RuleSet
from textual.css.stylesheet import Stylesheet
from textual.geometry import Region
from textual.screen import Screen

_parse = Stylesheet._parse_rules
_render = Compositor.render_update
_parsed: dict[object, list[RuleSet]] = {}


def _parse_once(self: Stylesheet, css: str, *where: Any, **how: Any) -> list[RuleSet]:
    """Style sheets are the same in all apps: read once in a process, not once in an app."""
    key = (css, where, *how.items(), *self._variables.items())
    if key not in _parsed:
        _parsed[key] = _parse(self, css, *where, **how)
    return _parsed[key]


def _draw(
    self: Compositor,
    full: bool = False,
    screen_stack: list[Screen[Any]] | None = None,
    simplify: bool = False,
) -> object:
    """Widgets draw their lines, which are not put together: there is no terminal to send them to.

    `seen` and pictures put them together for themselves.
    """
    if full:
        return _render(self, full, screen_stack, simplify)
    visible_screen_stack.set(screen_stack or [])
    regions = self._dirty_regions.copy()
    self._dirty_regions.clear()
    if regions:
        for _ in self._get_renders(Region.from_union(regions).intersection(self.size.region)):
            pass
    return None


@contextmanager
def unseen() -> Iterator[None]:
    """Apps run so within; one at a time."""
    # Textual's pilot waits for idleness in steps of a fiftieth of a second, several times for each
    # key.
    with (
        patch("textual._wait.SLEEP_GRANULARITY", 0.004),
        patch.object(Stylesheet, "_parse_rules", _parse_once),
        patch.object(Compositor, "render_update", _draw),
    ):
        yield
