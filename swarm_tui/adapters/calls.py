"""Blocking calls that can neither be cancelled nor given a time-out, made to keep deadlines.

Each call runs in a daemon thread of its own. A thread that overruns is abandoned: it keeps its
slot until its library lets go of it, and never holds up the event loop or the end of the program
(a `ThreadPoolExecutor` would be joined at exit).
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

from swarm_tui.errors import DeadlineExceeded, HostUnreachable
from swarm_tui.model import HostName

T = TypeVar("T")

_MOST_HANGING: Final = 4
_HANGING_S: Final = 60.0
"""How long until one more, when so many hang."""

Place = tuple[int, str | tuple[Any, ...]]
"""A socket's family and an address of it."""


def in_thread(work: Callable[[], T]) -> asyncio.Future[T]:
    """Begin `work` in a daemon thread; the future belongs to the running event loop."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    # Looked at here, because whoever asked may be gone by then.
    future.add_done_callback(lambda done: done.cancelled() or done.exception())

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # one of the two is given

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - not handled here, only carried over
            failure = error
        with suppress(RuntimeError):  # the event loop is gone, and so is everybody who asked
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, daemon=True, name="swarm-call").start()
    return future


async def look_up(host: str, port: int, family: int = 0) -> Sequence[Place]:
    """Where a name leads to. Raises OSError.

    In a thread of its own: the event loop's threads are few, and names that no server answers for
    would take them all.
    """
    ask = partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM)
    try:
        found = ask(flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        found = await in_thread(ask)
    return [(kind, where) for kind, _, _, _, where in found]


class Tries:
    """Tries to connect to one host, which nobody can call off: each may hang as long as it likes.

    Every one that hangs keeps a thread and a socket. So the more there are, the longer until the
    next: a host that never answers costs about ten of them in a day.
    """

    def __init__(self, host: HostName) -> None:
        self._host = host
        self._hanging = 0
        self._next_at = 0.0

    def begin(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """As `in_thread`. Raises HostUnreachable while too many hang."""
        now = time.monotonic()
        if self._hanging >= _MOST_HANGING and now < self._next_at:
            raise HostUnreachable(
                f"Host {self._host} does not answer",
                f"{self._hanging} tries to connect still wait for it",
            )
        self._hanging += 1
        self._next_at = now + _HANGING_S * 2 ** (self._hanging - _MOST_HANGING)
        future = in_thread(work)
        future.add_done_callback(self._ended)
        return future

    def _ended(self, _future: asyncio.Future[Any]) -> None:
        self._hanging -= 1


class Calls:
    """The calls in flight on one connection."""

    def __init__(self, host: HostName, *, studies: int = 2) -> None:
        """`studies`: how many calls may hang at a time before no more are made of their kind."""
        self._host = host
        self._ended: str | None = None
        # A libvirt daemon serves five calls of a client at a time (max_client_requests). These
        # lanes fill it, so that a long save never blocks a look, and nothing blocks a destroy.
        self.quick = asyncio.Semaphore(2)
        self.long = asyncio.Semaphore(2)
        self.reserve = asyncio.Semaphore(1)
        # Besides, for what a VM that hangs may hold up: when all others are taken these wait in
        # the daemon, and the others never wait for them.
        self.study = asyncio.Semaphore(studies)

    @property
    def ended(self) -> bool:
        return self._ended is not None

    def end(self, why: str) -> None:
        """Let no further call begin; the first reason stays."""
        if self._ended is None:
            self._ended = why

    async def call(
        self, doing: str, work: Callable[[], T], *, lane: asyncio.Semaphore, deadline_s: float
    ) -> T:
        """Run `work` when its lane has a slot.

        The deadline holds for the wait and then again for the call. Raises DeadlineExceeded,
        HostUnreachable after `end`, and whatever `work` raises.
        """
        self._check()
        try:
            async with asyncio.timeout(deadline_s):
                await lane.acquire()
        except TimeoutError:
            raise DeadlineExceeded(
                f"Host {self._host} does not answer",
                f"asked to {doing}; not begun, because earlier calls still wait for an answer",
            ) from None
        future = in_thread(work)
        future.add_done_callback(lambda _: lane.release())
        try:
            async with asyncio.timeout(deadline_s):
                return await asyncio.shield(future)
        except TimeoutError:
            raise DeadlineExceeded(
                f"Host {self._host} does not answer",
                f"asked to {doing}, no answer in {deadline_s:g} s; the outcome is unknown",
            ) from None

    def _check(self) -> None:
        if self._ended is not None:
            raise HostUnreachable(f"Host {self._host} is out of reach", self._ended)
