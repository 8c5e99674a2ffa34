"""A stand-in for a guest: an SSH server inside the test's own process.

The server, the pipes and the pseudo-terminals are real, and so are the shells that it starts; what
stands in is the machine: commands run on this one, in a folder of the test's.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal as signals
import struct
import termios
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import BinaryIO, cast

import asyncssh

from swarm_tui.model import Address

LONG_S = 60.0
"""A deadline that only a hang reaches."""


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(LONG_S):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in other processes
            await asyncio.sleep(0.01)


class StandInGuest:
    """Serves one client key; knows who logged in, and can misbehave."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run_folder = folder / "run"
        self.run_folder.mkdir(parents=True)
        self.host_key = asyncssh.generate_private_key("ssh-ed25519")
        self.client_key = asyncssh.generate_private_key("ssh-ed25519")
        self.identity = folder / "identity"
        self.client_key.write_private_key(self.identity)
        self.authorized = self.client_key.convert_to_public()
        self.logins: list[str] = []
        self.offered: list[str] = []
        """Fingerprints of all keys that clients offered."""
        self.running: set[asyncio.subprocess.Process] = set()
        """Commands that have not ended, whether or not their client is still there."""
        self.stdin_limit: int | None = None
        """Bytes of standard input after which a command sees its end."""
        self.version = "StandIn_1.0"
        """What it calls itself in its banner."""
        self.refusals = 0
        """How many commands it still refuses."""
        self.most_at_once = 0
        """Commands of one connection that ran at the same time."""
        self.port = 0
        self._connections: dict[asyncssh.SSHServerConnection, int] = {}
        self._commands: set[asyncio.Task[None]] = set()
        self._server: asyncssh.SSHAcceptor | None = None

    @property
    def events(self) -> Path:
        return self.run_folder / "events.jsonl"

    @property
    def address(self) -> Address:
        key = self.host_key.export_public_key().decode().strip()
        return Address("127.0.0.1", self.port, key, self.identity)

    @property
    def connections(self) -> int:
        return len(self._connections)

    async def start(self) -> None:
        """Listen; on the port of the time before, if there was one."""
        self._server = await asyncssh.create_server(
            lambda: _Login(self),
            "127.0.0.1",
            self.port,
            server_host_keys=[self.host_key],
            server_version=self.version,
            encoding=None,
            line_editor=False,
        )
        self.port = self._server.get_port()

    async def stop(self) -> None:
        """Listen no more, cut all, and end what still runs."""
        if self._server:
            self._server.close()
        await self.cut()
        if self._server:
            await self._server.wait_closed()
        for process in self.running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signals.SIGKILL)
        await asyncio.gather(*self._commands)

    async def cut(self) -> None:
        """Break every connection without a word."""
        for connection in list(self._connections):
            connection.abort()
            await connection.wait_closed()

    async def serve(self, command: _Command) -> None:
        """Run what a client asked for; it goes on when the client has gone, as on a real server."""
        shell = ["sh", "-c", command.command] if command.command else ["sh"]
        environment = os.environ | {"PATH": f"{self.folder}/bin:{os.environ['PATH']}"}
        serve = self._serve_terminal if command.term_type else self._serve_pipes
        task = asyncio.create_task(self._count(command, serve(command, shell, environment)))
        self._commands.add(task)
        task.add_done_callback(self._commands.discard)

    async def _count(self, command: _Command, serving: Awaitable[None]) -> None:
        connection = command.channel.get_connection()
        assert isinstance(connection, asyncssh.SSHServerConnection)
        self._connections[connection] += 1
        self.most_at_once = max(self.most_at_once, self._connections[connection])
        await serving
        if connection in self._connections:
            self._connections[connection] -= 1

    async def _serve_pipes(
        self, command: _Command, shell: list[str], environment: dict[str, str]
    ) -> None:
        async with _pipe() as (stdout, stdout_end), _pipe() as (stderr, stderr_end):
            process = await asyncio.create_subprocess_exec(
                *shell,
                stdin=asyncio.subprocess.PIPE,
                stdout=stdout_end.fileno(),
                stderr=stderr_end.fileno(),
                env=environment,
                start_new_session=True,
            )
            stdout_end.close()
            stderr_end.close()
            self.running.add(process)
            command.process = process
            feeding = asyncio.create_task(self._feed(command, process))
            with contextlib.suppress(OSError, asyncssh.Error):
                await asyncio.gather(_copy(stdout, command.stdout), _copy(stderr, command.stderr))
                _exit(command, await process.wait())
        # The pipes are closed by now: who still writes to a client that has gone gets SIGPIPE.
        feeding.cancel()
        await asyncio.wait([feeding])
        await process.wait()
        self.running.discard(process)

    async def _feed(self, command: _Command, process: asyncio.subprocess.Process) -> None:
        assert process.stdin
        fed = 0
        try:
            with contextlib.suppress(OSError, asyncssh.Error):
                while data := await command.stdin.read(65536):
                    if self.stdin_limit is not None:
                        data = data[: self.stdin_limit - fed]
                    fed += len(data)
                    process.stdin.write(data)
                    await process.stdin.drain()
                    if fed == self.stdin_limit:
                        break
        finally:
            process.stdin.close()

    async def _serve_terminal(
        self, command: _Command, shell: list[str], environment: dict[str, str]
    ) -> None:
        master, slave = os.openpty()
        _set_size(master, command.term_size)
        process = await asyncio.create_subprocess_exec(
            *("setsid", "--ctty", *shell),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment | {"TERM": command.term_type or "dumb", "PS1": "guest$ "},
        )
        os.close(slave)
        self.running.add(process)
        typing = asyncio.create_task(_type(command, master))
        with contextlib.suppress(OSError, asyncssh.Error):
            async for shown in _read_terminal(master):
                command.stdout.write(shown)
                await command.stdout.drain()
            _exit(command, await process.wait())
        typing.cancel()
        await asyncio.wait([typing])
        os.close(master)  # hangs up on what still runs there
        await process.wait()
        self.running.discard(process)


class _Command(asyncssh.SSHServerProcess[bytes]):
    """A command on its way; signals reach it also when its input has ended."""

    def __init__(self, guest: StandInGuest) -> None:
        super().__init__(lambda _: guest.serve(self), None, 3, False)
        self._guest = guest
        self.process: asyncio.subprocess.Process | None = None

    def exec_requested(self, command: str) -> bool:
        if self._guest.refusals:
            self._guest.refusals -= 1
            return False
        return super().exec_requested(command)

    def signal_received(self, signal: str) -> None:
        if self.process and self.process.returncode is None:
            self.process.send_signal(getattr(signals, f"SIG{signal}"))


class _Login(asyncssh.SSHServer):
    def __init__(self, guest: StandInGuest) -> None:
        self._guest = guest
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._guest._connections[conn] = 0

    def connection_lost(self, exc: Exception | None) -> None:
        if self._connection:
            del self._guest._connections[self._connection]

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        self._guest.offered.append(key.get_fingerprint())
        return key == self._guest.authorized

    def session_requested(self) -> _Command:
        return _Command(self._guest)

    def auth_completed(self) -> None:
        assert self._connection
        self._guest.logins.append(self._connection.get_extra_info("username"))


@contextlib.asynccontextmanager
async def _pipe() -> AsyncIterator[tuple[asyncio.StreamReader, BinaryIO]]:
    """What comes out of a pipe, and the end to write to."""
    loop = asyncio.get_running_loop()
    out, into = (os.fdopen(end, mode) for end, mode in zip(os.pipe(), ("rb", "wb"), strict=True))
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), out)
    try:
        yield reader, cast(BinaryIO, into)
    finally:
        transport.close()
        into.close()


async def _copy(source: asyncio.StreamReader, target: asyncssh.SSHWriter[bytes]) -> None:
    while data := await source.read(65536):
        target.write(data)
        await target.drain()


async def _type(command: _Command, master: int) -> None:
    with contextlib.suppress(OSError, asyncssh.Error):
        while True:
            try:
                typed = await command.stdin.read(65536)
            except asyncssh.TerminalSizeChanged as change:
                _set_size(master, change.term_size)
            else:
                if not typed:
                    return
                os.write(master, typed)


async def _read_terminal(master: int) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    while True:
        ready = loop.create_future()
        loop.add_reader(master, ready.set_result, None)
        try:
            await ready
        finally:
            loop.remove_reader(master)
        try:
            yield os.read(master, 65536)
        except OSError:  # the last process has closed its side
            return


def _set_size(master: int, size: tuple[int, int, int, int]) -> None:
    columns, rows, width, height = size
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, width, height))


def _exit(command: _Command, status: int) -> None:
    if status < 0:
        command.exit_with_signal(signals.Signals(-status).name.removeprefix("SIG"))
    else:
        command.exit(status)


class Forwarder:
    """A stand-in for QEMU's user-mode network: every connect succeeds, whoever listens inside.

    `lead` tells where the nth call leads: to a port, to nobody (None), or to a hang-up (0).
    """

    def __init__(self, lead: Callable[[int], int | None]) -> None:
        self._lead = lead
        self._calls = 0
        self._writers: list[asyncio.StreamWriter] = []
        self.port = 0

    async def __aenter__(self) -> Forwarder:
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        await self._server.wait_closed()  # since Python 3.12 this waits for every connection

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._calls += 1
        self._writers.append(writer)
        port = self._lead(self._calls)
        if port == 0:
            writer.close()
        elif port:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
            self._writers.append(inner_writer)
            await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
