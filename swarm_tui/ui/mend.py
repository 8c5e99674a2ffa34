"""Faults of Textual that are mended from outside, until they are there."""

from __future__ import annotations

import inspect
import os
import signal
import sys
import threading
from functools import lru_cache
from types import FrameType
from typing import Any

from textual._styles_cache import StylesCache
from textual.driver import Driver


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


def guard_continue(driver: Driver) -> None:
    """Let SIGCONT begin nothing that nobody ends; for a driver that is at work, in the main thread.

    A terminal that goes sends it together with SIGHUP, and anybody may send it after SIGSTOP. Each
    time Textual's handler starts one more thread that reads the terminal, besides the one that
    does: at the end only the last is waited for, and the other keeps the process for ever.
    """
    go_on = signal.getsignal(signal.SIGCONT)

    def guarded(number: int, frame: FrameType | None) -> None:
        if callable(go_on) and _has_terminal():
            if any(thread.name == "textual-input" for thread in threading.enumerate()):
                driver.disable_input()
            go_on(number, frame)

    signal.signal(signal.SIGCONT, guarded)


def leave_signals() -> None:
    """Once the app has ended: what its driver did at a signal must not be done any more."""
    for number in (signal.SIGCONT, signal.SIGTSTP):
        signal.signal(number, signal.SIG_DFL)


def _has_terminal() -> bool:
    try:
        os.tcgetpgrp(sys.__stdin__.fileno() if sys.__stdin__ else 0)
    except OSError:  # hung up
        return False
    return True
