"""A person at a terminal, and a pipe where there is none: both run our side of a guest's shell."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import struct
import sys
import termios
from collections.abc import Sequence
from typing import Self

from swarm_tui.model import Address

DEADLINE_S = 60.0

PROGRAM = """
import asyncio, json, sys
from pathlib import Path
from swarm_tui.adapters.ssh import SshGuest
from swarm_tui.errors import SwarmError
from swarm_tui.model import Address
port, key, identity, command, user = json.loads(sys.argv[1])
try:
    address = Address("127.0.0.1", port, key, Path(identity))
    sys.exit(asyncio.run(SshGuest().shell(address, command, user)))
except SwarmError as error:
    print("ERROR", error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


def program(address: Address, command: str | None, user: str | None = None) -> Sequence[str]:
    """The command line of a process that opens a shell in the guest."""
    words = [address.port, address.host_key, str(address.identity), command, user]
    return (sys.executable, "-c", PROGRAM, json.dumps(words))


class Typist:
    """Sits at a pseudo-terminal in which a program runs, sees what is written, and types."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words
        self.seen = bytearray()

    async def __aenter__(self) -> Self:
        self._master, self._terminal = os.openpty()
        self.resize(70, 20)
        self._modes = termios.tcgetattr(self._terminal)
        asyncio.get_running_loop().add_reader(self._master, self._look)
        self.process = await asyncio.create_subprocess_exec(
            *("setsid", "--ctty", *self._words),
            stdin=self._terminal,
            stdout=self._terminal,
            stderr=self._terminal,
            env=os.environ | {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._master)
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        async with asyncio.timeout(DEADLINE_S):
            await self.process.wait()
        os.close(self._master)
        os.close(self._terminal)

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    async def see(self, wanted: bytes) -> bytes:
        """Wait until it is there; what was seen up to it, which is then forgotten."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                while wanted not in self.seen:  # noqa: ASYNC110 - another process writes it
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"{wanted!r} is not in {bytes(self.seen)!r}") from None
        end = self.seen.index(wanted) + len(wanted)
        before = bytes(self.seen[:end])
        del self.seen[:end]
        return before

    async def leaves_with(self, status: int) -> None:
        """The program ends so, and the terminal is what it was."""
        async with asyncio.timeout(DEADLINE_S):
            assert await self.process.wait() == status, bytes(self.seen)
        assert termios.tcgetattr(self._terminal) == self._modes

    def _look(self) -> None:
        self.seen += os.read(self._master, 65536)


class Person(Typist):
    """Sits at a shell in a guest."""

    def __init__(self, address: Address, command: str | None, user: str | None = None) -> None:
        super().__init__(program(address, command, user))


async def pipe(
    address: Address, command: str | None, typed: bytes = b""
) -> tuple[int, bytes, bytes]:
    """Run without a terminal; exit status, output and errors."""
    process = await asyncio.create_subprocess_exec(
        *program(address, command),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(DEADLINE_S):
        output, errors = await process.communicate(typed)
    assert process.returncode is not None
    return process.returncode, output, errors
