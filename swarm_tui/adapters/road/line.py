"""The outpost's process on a host far away, and our calls to it.

What it answers is read as hostile: capped, and checked by the types of what was asked.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import asyncssh

from swarm_tui.errors import (
    DeadlineExceeded,
    HostDenied,
    HostError,
    HostUnreachable,
    SetupError,
    SwarmError,
)
from swarm_tui.model import HostName
from swarm_tui.outpost import luggage, wire
from swarm_tui.outpost.desk import NAMES
from swarm_tui.outpost.serve import READY

START_S: Final = 20.0

_NO_PROGRAM: Final = (126, 127)
_EXCERPT_BYTES: Final = 2000
_LOST: Final = (asyncio.IncompleteReadError, asyncssh.Error, OSError)


class Line:
    """One outpost process. It ends with its connection, or when it answers nonsense."""

    def __init__(self, host: HostName, process: asyncssh.SSHClientProcess[bytes]) -> None:
        self._host = host
        self._process = process
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._ended: str | None = None
        """Why it answers no more."""
        self._reading: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls, host: HostName, connection: asyncssh.SSHClientConnection, snapshots: Path | None
    ) -> Line:
        """Start it; `snapshots` is where it keeps them, None: its own choice.

        Raises SetupError where Python is missing or too old, HostDenied where no command runs.
        """
        try:
            async with asyncio.timeout(START_S):
                process = await connection.create_process(
                    luggage.command(), encoding=None, request_pty=False
                )
                line = cls(host, process)
                await line._begin(snapshots)
        except TimeoutError as late:
            raise DeadlineExceeded(
                f"Host {host} does not answer",
                f"our program did not start there within {START_S:g} s",
            ) from late
        except asyncssh.ChannelOpenError as error:
            raise HostDenied(f"Host {host} runs no command for us", error.reason) from error
        except _LOST as error:
            raise _cut(host, str(error)) from error
        return line

    async def ask(
        self, call: Callable[..., Any], arguments: Sequence[object], deadline_s: float
    ) -> Any:
        """Do one of `desk.NAMES` there. Raises what it raises there, HostUnreachable when cut."""
        if self._ended is not None:
            raise _cut(self._host, self._ended)
        number = next(self._numbers)
        message = {
            "number": number,
            "call": NAMES[call],
            "arguments": wire.encode_arguments(arguments),
        }
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            async with asyncio.timeout(deadline_s):
                with suppress(*_LOST):  # then whoever reads the answers knows it, too
                    self._process.stdin.write(wire.pack(message))
                    await self._process.stdin.drain()
                raw = await answer
        except TimeoutError:
            raise DeadlineExceeded(
                f"Host {self._host} does not answer",
                f"asked for {NAMES[call]}, no answer in {deadline_s:g} s; the outcome is unknown",
            ) from None
        finally:
            del self._waiting[number]
        try:
            return wire.decode_result(call, raw)
        except wire.Garbled as error:
            raise HostError(f"Host {self._host} answered nonsense", str(error)) from error

    async def close(self) -> None:
        """Let it end; what it does, it finishes."""
        self._process.close()
        if self._reading:
            await self._reading

    async def _begin(self, snapshots: Path | None) -> None:
        stdin, stdout = self._process.stdin, self._process.stdout
        stdin.write(luggage.archive())
        stdin.write(wire.pack({"snapshots": wire.encode(snapshots)}))
        try:
            await stdout.readuntil(READY)
            first = await self._receive()
            refusal = wire.decode_error(first["error"]) if "error" in first else None
        except (asyncio.IncompleteReadError, wire.Garbled) as error:
            said = error.partial if isinstance(error, asyncio.IncompleteReadError) else b""
            raise await self._not_started(bytes(said)) from error
        if refusal:
            self._process.close()
            raise refusal
        self._reading = asyncio.create_task(self._read(), name=f"answers of {self._host}")

    async def _read(self) -> None:
        """Hand every answer to whoever waits for it, until there are no more."""
        try:
            while True:
                self._hand(await self._receive())
        except wire.Garbled as error:
            self._ended = f"it answered nonsense: {error}"
            self._process.close()
        except _LOST:
            self._ended = await self._last_words()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(_cut(self._host, self._ended))

    def _hand(self, message: Any) -> None:
        number = wire.decode(int, message.get("number"))
        answer = self._waiting.get(number)
        if answer is None or answer.done():
            return  # nobody waits for it any more
        if "error" in message:
            answer.set_exception(wire.decode_error(message["error"]))
        else:
            answer.set_result(message.get("result"))

    async def _receive(self) -> Any:
        stdout = self._process.stdout
        size = wire.length(await stdout.readexactly(wire.LENGTH.size))
        return wire.unpack(await stdout.readexactly(size))

    async def _last_words(self) -> str:
        """The end of what it said on its standard error."""
        with suppress(*_LOST, TimeoutError):
            async with asyncio.timeout(1):
                said = await self._process.stderr.read(_EXCERPT_BYTES * 10)
                return said[-_EXCERPT_BYTES:].decode("utf-8", "replace").strip()
        return ""

    async def _not_started(self, said: bytes) -> SwarmError:
        self._process.close()
        words = await self._last_words()
        with suppress(TimeoutError, *_LOST):
            async with asyncio.timeout(1):
                await self._process.wait_closed()
        status = self._process.exit_status
        if status in _NO_PROGRAM or (status and "not found" in words):
            return SetupError(
                f"Host {self._host} has no python3",
                words,
                "swarm-tui needs Python 3.11 or newer there: install python3 on the host.",
            )
        if status == luggage.OLD_PYTHON:
            return SetupError(
                f"The Python of host {self._host} is too old",
                said.decode("utf-8", "replace").strip(),
                "swarm-tui needs Python 3.11 or newer as python3 there.",
            )
        told = words or said[-_EXCERPT_BYTES:].decode("utf-8", "replace").strip()
        return HostDenied(
            f"Host {self._host} runs no command for us",
            told or "it ended without a word",
            "The login must have a shell; `ssh HOST python3 --version` must work.",
        )


def _cut(host: HostName, why: str) -> HostUnreachable:
    return HostUnreachable(f"The SSH connection to host {host} was cut", why)
