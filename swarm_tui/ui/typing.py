"""Keys take effect one after the other, however fast they come.

Textual gives a key to the widget that has the focus, and looks for its binding only when the key
has come up from there to the app (textual/app.py, 8.2). So of keys that arrive together, as they do
from a paste, a fast hand or a slow line, letters overtake those with a binding: "a", backspace, "b"
become nothing but "a", and what was typed after a tab goes into the field before it.
"""

from __future__ import annotations

import time
from collections import deque
from functools import partial
from typing import Any, Final

from textual import events, on
from textual.app import App
from textual.message import Message
from textual.timer import Timer
from textual.widget import Widget

_LOOK_S: Final = 0.05
_LONGEST_S: Final = 1.0
"""A widget that takes longer for a key does not hold up the others any more."""


class Passed(Message):
    """Follows a key on its way up: where this is, the key has been."""


class InOrder(App[None], inherit_bindings=False):
    """Lets the next key go only when the one before it has done what it does."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._typed: deque[events.Key | events.Paste] = deque()
        self._passing: Passed | None = None
        self._watch: Timer | None = None

    async def on_event(self, event: events.Event) -> None:
        if isinstance(event, (events.Key, events.Paste)) and not event.is_forwarded:
            self._typed.append(event)
            if self._passing is None:
                await self._let_go()
        else:
            await super().on_event(event)

    async def _let_go(self) -> None:
        while self._typed and self._passing is None:
            event = self._typed.popleft()
            target = self.focused or self.screen
            await super().on_event(event)
            passed = Passed()
            if event.is_forwarded and target.post_message(passed):
                self._passing = passed
                look = partial(self._look, target, passed, time.monotonic() + _LONGEST_S)
                self._watch = self.set_interval(_LOOK_S, look)

    @on(Passed)
    async def _has_passed(self, passed: Passed) -> None:
        if passed is self._passing:
            self._forget_key()
            await self._let_go()

    async def _look(self, target: Widget, passed: Passed, until: float) -> None:
        """What is taken from the screen passes nothing on."""
        is_lost = not target.is_running or time.monotonic() >= until
        if passed is self._passing and is_lost:
            self._forget_key()
            await self._let_go()

    def _forget_key(self) -> None:
        self._passing = None
        if self._watch:
            self._watch.stop()
            self._watch = None
