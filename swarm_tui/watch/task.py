"""How watchers hand over what they saw, and how their tasks are started."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from swarm_tui.fact import Fact

FIRST_BACK_OFF_S: Final = 0.5
LAST_BACK_OFF_S: Final = 30.0

Apply = Callable[[Fact], bool]
OnFailure = Callable[[BaseException], None]
Start = Callable[[Coroutine[Any, Any, None], str, OnFailure | None], asyncio.Task[None]]
"""Starts a task under a name; its unexpected error is kept, and told to `OnFailure`."""
