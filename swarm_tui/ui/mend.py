"""Faults of Textual that are mended from outside, until they are there."""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import Any

from textual._styles_cache import StylesCache


def let_widgets_go() -> None:
    """Let a widget that was removed be forgotten, with all the lines that it had drawn.

    `StylesCache.get_inner_outer` (textual/_styles_cache.py, 8.2) is written as a class method, but
    is none: its `lru_cache` keeps the last 1,024 widgets that were drawn. Each holds its lines:
    about 100 kB for a screen that was opened and closed again.
    """
    kept = inspect.getattr_static(StylesCache, "get_inner_outer")
    if not isinstance(kept, classmethod):
        fresh: Any = classmethod(lru_cache(1024)(kept.__wrapped__))  # type: ignore[arg-type]
        StylesCache.get_inner_outer = fresh  # type: ignore[method-assign]
