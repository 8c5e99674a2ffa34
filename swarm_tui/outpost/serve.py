"""An outpost far away: takes calls on its standard input and answers them on its standard output.

The first message says where snapshots are kept there; "ready" answers it. Every other one is a
call with a number, and its answer bears that number; they come in the order in which they are done.
When the input ends, what had begun is finished, and nobody waits for its answer any more.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

from swarm_tui.errors import HostError, SwarmError
from swarm_tui.outpost import wire
from swarm_tui.outpost.desk import Desk
from swarm_tui.paths import locate, make_traversable

READY: Final = b"\0swarm-tui outpost 1\n"
"""Stands before the first answer: a login may print something of its own."""

_AT_ONCE: Final = 32


def main() -> None:
    """Serve until the input ends."""
    # A cut connection must not end what has begun.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    calls, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not come between the answers
    serve(calls, answers)


def serve(calls: BinaryIO, answers: BinaryIO) -> None:
    """As `main`, on any streams."""
    answers.write(READY)
    answers.flush()
    greeting = _receive(calls)
    if greeting is None:
        return
    post = _Post(answers)
    try:
        desk = _open_desk(greeting.get("snapshots"))
    except SwarmError as error:
        post.send({"number": 0, "error": wire.encode_error(error)})
        return
    post.send({"number": 0, "result": None})
    pool = ThreadPoolExecutor(_AT_ONCE)
    while message := _receive(calls):
        done = pool.submit(desk.answer, str(message["call"]), message["arguments"])
        done.add_done_callback(post.answering(int(message["number"])))
    pool.shutdown(cancel_futures=True)


def _open_desk(snapshots: str | None) -> Desk:
    data = make_traversable(locate().data)
    return Desk(data, Path(snapshots) if snapshots else data / "snapshots")


def _receive(calls: BinaryIO) -> Mapping[str, Any] | None:
    """The next message; None when there will be none."""
    header = calls.read(wire.LENGTH.size)
    if len(header) < wire.LENGTH.size:
        return None
    size = wire.length(header)
    content = calls.read(size)
    return wire.unpack(content) if len(content) == size else None


class _Post:
    """Sends answers, one at a time."""

    def __init__(self, answers: BinaryIO) -> None:
        self._answers = answers
        self._sending = threading.Lock()

    def send(self, message: Mapping[str, Any]) -> None:
        with self._sending, suppress(BrokenPipeError):  # then nobody waits for it any more
            self._answers.write(wire.pack(message))
            self._answers.flush()

    def answering(self, number: int) -> Callable[[Future[Any]], None]:
        """What answers the call of that number when it is done."""

        def answer(done: Future[Any]) -> None:
            if done.cancelled():
                return
            error = done.exception()
            try:
                self.send({"number": number, **_outcome(error, done)})
            except wire.Garbled as long:
                self.send({"number": number, **_outcome(long, done)})

        return answer


def _outcome(error: BaseException | None, done: Future[Any]) -> Mapping[str, Any]:
    if error is None:
        return {"result": done.result()}
    if not isinstance(error, SwarmError):
        error = HostError("The outpost failed at a call", f"{type(error).__name__}: {error}")
    return {"error": wire.encode_error(error)}
