"""Waiting until it is known what there is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from swarm_tui.errors import HostUnreachable
from swarm_tui.watch.host import HostWatch


async def settled(
    watches: Iterable[HostWatch], timeout_s: float, is_enough: Callable[[], bool]
) -> None:
    """Wait until every host has been listed once, or `is_enough` of what is known by then.

    Raises the error of a host that is out of reach, unless it was enough without it.
    """
    watches = list(watches)
    waiting = {asyncio.ensure_future(watch.settled.wait()) for watch in watches}
    try:
        async with asyncio.timeout(timeout_s):
            while waiting and not is_enough():
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    except TimeoutError:
        pass  # told below, by the host that it is due to
    finally:
        for task in waiting:
            task.cancel()
    if is_enough():
        return
    for watch in watches:
        if watch.error:
            raise watch.error
        if not watch.settled.is_set():
            raise HostUnreachable(
                f"Host {watch.host} does not answer",
                f"Nothing was heard for {timeout_s:.0f} s.",
                "Run `swarm-tui doctor` to see what is missing.",
            )


async def relisted(watches: Iterable[HostWatch]) -> None:
    """Read everything again now; a host out of reach is tried at once. Raises the first error."""
    watches = list(watches)
    for watch in watches:
        if watch.error:
            watch.try_now()
    results = await asyncio.gather(
        *(watch.relist() for watch in watches if not watch.error), return_exceptions=True
    )
    for result in results:
        if isinstance(result, BaseException):
            raise result
