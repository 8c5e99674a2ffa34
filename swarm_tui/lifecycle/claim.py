"""Acting on an agent only while it is ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

from swarm_tui.catalogue import Catalogue, Claim
from swarm_tui.lifecycle.ground import ended
from swarm_tui.model import AgentId, Verb

T = TypeVar("T")


@asynccontextmanager
async def claimed(catalogue: Catalogue, agent: AgentId, verb: Verb) -> AsyncIterator[Claim]:
    """Hold the agent against verbs of this and other processes. Raises Busy, StoreError."""
    # In the loop's own threads: a host's, in which its files are worked on, may hang.
    loop = asyncio.get_running_loop()
    claims: list[Claim] = []

    def take() -> None:
        claims.append(catalogue.claim(agent, verb))

    try:
        await ended(loop.run_in_executor(None, take))  # also when cancelled, all is known
        yield claims[0]
    finally:
        for claim in claims:
            await ended(loop.run_in_executor(None, claim.release))


def fenced(target: T, check: Callable[[], None]) -> T:
    """`target`, each of whose calls first makes sure by `check` that it may be made."""
    return cast(T, _Fence(target, check))


class _Fence:
    def __init__(self, target: object, check: Callable[[], None]) -> None:
        self._target = target
        self._check = check

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self._check()
            return found(*args, **kwargs)

        return call
