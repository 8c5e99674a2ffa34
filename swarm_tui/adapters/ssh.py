"""Guests over SSH: what the supervisor asks of them, and a person's shell.

Nothing that a guest says is believed: sizes are capped, its output is parsed or passed on as
bytes, and what it wants to show goes through `sanitize` or, in a shell, `escape.OutputFilter`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, cast

import asyncssh

from swarm_tui.adapters import script as scripts
from swarm_tui.adapters.feed import Feed, Intake
from swarm_tui.adapters.link import DIAL_S, Links, Way, cut, mapped, place
from swarm_tui.adapters.sink import Memory, Sink, Spool, Upload
from swarm_tui.adapters.terminal import CHUNK_BYTES, Terminal
from swarm_tui.errors import DeadlineExceeded, GuestFailed, SwarmError, UsageError
from swarm_tui.model import Address, Completed, EventBatch, HostName, Message

BATCH_S: Final = 0.1
BATCH_BYTES: Final = 1 << 20
"""Read from one guest's event file in `BATCH_S`; faster ones wait, by SSH's own flow control."""

_WINDOW_BYTES: Final = 256 << 10
_CLOSE_S: Final = 5.0
_RESTART_PAUSE_S: Final = 0.5
_LONGEST_COMMAND: Final = 8900
"""Bytes; dropbear refuses more than 9000 (MAX_CMD_LEN in its sysoptions.h)."""
_LONGEST_REPORT: Final = 200
_EXCERPT_BYTES: Final = 350
_ENTROPY_BYTES: Final = 64
_MESSAGE_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_IUTF8: Final = 42
"""Terminal mode of RFC 8160: a backspace takes a whole character."""

_Channel = asyncssh.SSHClientChannel[bytes]


class SshGuest:
    """Implements `ports.Guest`.

    Calls with a deadline wait for a guest that does not answer yet, and raise GuestUnreachable
    when it never did, DeadlineExceeded when it did but was not done in time. HostKeyChanged and a
    refused login are raised at once: waiting does not heal them.
    """

    def __init__(
        self,
        run_folder: str = "/run/swarm",
        refresh_helper: str = "/usr/lib/swarm/refresh",
        ways: Mapping[HostName, Way] = MappingProxyType({}),
    ) -> None:
        """The first two are paths in the guests: the guest's side of the contract, and its clock
        setter. `ways` lead to the guests of hosts that are far away.
        """
        self._run_folder = run_folder
        self._refresh_helper = refresh_helper
        self._links = Links(ways)
        self._intake = Intake()

    async def events(self, address: Address, offset: int) -> AsyncIterator[EventBatch]:
        """Follow the guest's event file from a byte offset. Raises GuestError when cut.

        A batch is what came within 0.1 s, or 1 MiB; a guest that writes faster is slowed down. Of
        the lines beyond what all guests' logs may cost together (`feed.Intake`), log lines and the
        oldest first, a batch has the bytes only, and their count.
        """
        clock = asyncio.get_running_loop().time
        quiet_until = clock()
        is_first = True
        while True:
            feed = Feed(offset, self._intake)
            async with self._stream(address, scripts.FOLLOW, self._run_folder, offset) as stream:
                if is_first:  # it answers, even if it has nothing to say
                    yield EventBatch((), offset)
                is_first = False
                while chunk := await stream.read(CHUNK_BYTES):
                    feed.add(chunk)
                    taken = len(chunk)
                    while chunk and (left := quiet_until - clock()) > 0:
                        await asyncio.sleep(left if taken >= BATCH_BYTES else 0)
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout_at(quiet_until):
                                chunk = await stream.read(CHUNK_BYTES)
                                feed.add(chunk)
                                taken += len(chunk)
                    if feed.has_news:
                        yield await feed.take()
                        quiet_until = clock() + BATCH_S
                await stream.end(scripts.STARTED_ANEW)
            offset = 0
            await asyncio.sleep(_RESTART_PAUSE_S)  # a guest may do this for ever

    async def traffic(self, address: Address, interval_s: float) -> AsyncIterator[tuple[int, int]]:
        """Network totals (received, sent) in bytes, as the guest tells them, again and again."""
        async with self._stream(address, scripts.TRAFFIC, f"{interval_s:g}") as stream:
            rest = b""
            while chunk := await stream.read(_LONGEST_REPORT):
                *lines, rest = (rest + chunk).split(b"\n")
                rest = rest[-_LONGEST_REPORT:]
                for line in lines:
                    if totals := re.fullmatch(rb"(\d{1,19}) (\d{1,19})", line):
                        yield int(totals[1]), int(totals[2])
            await stream.end()

    async def freeze(self, address: Address, timeout_s: float) -> None:
        """Stop the agent's processes; returns when they stand still. Freezing twice is fine.

        Raises GuestFailed when they do not, or when the guest does not say which they are; they
        run on then.
        """
        await self._set_frozen(address, "1", "The agent could not be frozen", timeout_s)

    async def thaw(self, address: Address, timeout_s: float) -> None:
        """Let them go on. Thawing what runs is fine."""
        await self._set_frozen(address, "0", "The agent could not be thawed", timeout_s)

    async def refresh(self, address: Address, timeout_s: float) -> None:
        """After a restore: set the clock to now and stir fresh entropy into the RNG."""
        entropy = base64.b64encode(secrets.token_bytes(_ENTROPY_BYTES)) + b"\n"
        done = await self._execute(
            address,
            # Taken once the guest answers: waiting must not make the clock late.
            lambda: scripts.command(scripts.REFRESH, self._refresh_helper, round(time.time())),
            entropy,
            timeout_s,
        )
        _check(done, "The guest's clock and random numbers could not be refreshed")

    async def deliver(self, address: Address, message: Message, timeout_s: float) -> None:
        """Put a message into the inbox, atomically."""
        if not _MESSAGE_ID.fullmatch(message.id):
            raise UsageError("A message's id must be a plain word", message.id)
        fields = {"id": message.id, "kind": message.kind, "text": message.text}
        if message.verdict:
            fields["verdict"] = message.verdict
        content = json.dumps(fields).encode() + b"\n"
        command = scripts.command(scripts.DELIVER, self._run_folder, message.id, len(content))
        done = await self._execute(address, lambda: command, content, timeout_s)
        _check(done, "The message could not be put into the agent's inbox")

    async def run(
        self, address: Address, script: str, *, stdin: bytes = b"", timeout_s: float
    ) -> Completed:
        """Run a POSIX shell script as root; see `ports.Guest`.

        Of each output stream the first 1 MiB is kept and the rest is read and thrown away, so that
        the exit status is the true one. Raises UsageError for a script of more than about 8 KiB:
        the guest's SSH server may take no longer one. Data belongs into `stdin`.
        """
        command = _command(script)
        return await self._execute(address, lambda: command, stdin, timeout_s)

    async def download(
        self,
        address: Address,
        script: str,
        target: Path,
        *,
        stdin: bytes = b"",
        limit_bytes: int,
        timeout_s: float,
        on_bytes: Callable[[int], None] = lambda total: None,
    ) -> Completed:
        """As `run`, but standard output goes into `target`; see `ports.Guest`.

        `target` is removed whenever this raises. SetupError: it cannot be written.
        """
        command = _command(script)
        with Spool(target, limit_bytes, on_bytes) as spool:
            return await self._execute(address, lambda: command, stdin, timeout_s, spool)

    async def upload(
        self,
        address: Address,
        script: str,
        source: Path,
        *,
        timeout_s: float,
        on_bytes: Callable[[int], None] = lambda total: None,
    ) -> Completed:
        """As `run`, with standard input out of a file; see `ports.Guest`."""
        command = _command(script)
        with Upload(source, on_bytes) as stdin:
            return await self._execute(address, lambda: command, stdin, timeout_s)

    async def shell(self, address: Address, command: str | None, user: str | None) -> int:
        """Join this process's terminal to a login shell, or to `command`; its exit status.

        Has a connection of its own, which ends with it. Output for a terminal passes
        `escape.OutputFilter`; see `terminal.Terminal` for keys and signals. A session left by
        Enter ~ . returns 255. Call it in the main thread only.
        """
        deadline = asyncio.get_running_loop().time() + DIAL_S
        connection = await self._links.dial(
            address, user or address.user, deadline, is_patient=True
        )
        try:
            with Terminal() as terminal:
                return await _join(connection, command, terminal, address)
        finally:
            connection.close()
            await connection.wait_closed()

    async def forget(self, address: Address) -> None:
        """Drop the connection; who uses it is told that it was cut."""
        await self._links.forget(address)

    async def close(self) -> None:
        """Drop all connections, for good."""
        await self._links.close()

    async def _set_frozen(
        self, address: Address, wanted: str, failure: str, timeout_s: float
    ) -> None:
        # Half of the time is the guest's: it must be able to say that it failed.
        tenths = max(1, int(timeout_s * 5))
        command = scripts.command(scripts.FREEZE, wanted, self._run_folder, tenths)
        _check(await self._execute(address, lambda: command, b"", timeout_s), failure)

    async def _execute(
        self,
        address: Address,
        command: Callable[[], str],
        stdin: bytes | Upload,
        timeout_s: float,
        sink: Sink | None = None,
    ) -> Completed:
        """Run a command to its end, as soon as the guest answers."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        stdout = Memory()

        async def begin(connection: asyncssh.SSHClientConnection) -> _Capture:
            _, capture = await connection.create_session(
                lambda: _Capture(sink or stdout), command(), encoding=None, window=_WINDOW_BYTES
            )
            return cast(_Capture, capture)

        try:
            async with self._links.channel(address, deadline, begin, is_patient=True) as capture:
                with mapped(address):
                    capture.feed(stdin)
                async with asyncio.timeout_at(deadline):
                    await capture.ended.wait()
        except TimeoutError as late:
            raise DeadlineExceeded(
                "The guest did not finish in time",
                f"{place(address)} was not done after {timeout_s:g} s.",
                "Whether it still will be is unknown: look at the agent's state again.",
            ) from late
        if isinstance(capture.failure, SwarmError):
            raise capture.failure
        status = capture.get_returncode()
        if status is None:
            raise cut(address) from capture.failure
        return Completed(
            _exit_status(status),
            bytes(stdout.content),
            bytes(capture.stderr.content),
            stdout.is_truncated or capture.stderr.is_truncated,
        )

    @contextlib.asynccontextmanager
    async def _stream(
        self, address: Address, text: str, *words: str | float
    ) -> AsyncIterator[_Stream]:
        """A command of ours that talks until it is closed."""
        deadline = asyncio.get_running_loop().time() + DIAL_S

        async def begin(connection: asyncssh.SSHClientConnection) -> _Stream:
            stdin, stdout, _ = await connection.open_session(
                scripts.command(text, *words), encoding=None, window=_WINDOW_BYTES
            )
            return _Stream(cast(_Channel, stdin.channel), stdout, address)

        try:
            async with self._links.channel(address, deadline, begin) as stream:
                yield stream
        except TimeoutError as late:
            raise cut(address, "it takes no command") from late


class _Capture(asyncssh.SSHClientSession[bytes]):
    """A command and its output. Wait for `ended`; then `failure` tells why it did, if unusual."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.stderr = Memory()
        self.ended = asyncio.Event()
        self.failure: Exception | None = None
        """A SwarmError is our own: the sink took no more. Else the connection was cut."""
        self._is_over = False

    def connection_made(self, chan: _Channel) -> None:
        self._channel = chan
        self._stdin: Upload | None = None
        self._is_paused = False
        self.get_exit_status = chan.get_exit_status
        self.get_returncode = chan.get_returncode

    def feed(self, stdin: bytes | Upload) -> None:
        # A command may have ended by now, without a look at its input.
        with contextlib.suppress(BrokenPipeError):
            if isinstance(stdin, bytes):
                self._channel.write(stdin)
                self._channel.write_eof()
            else:
                self._stdin = stdin
                self._feed_on()

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        with contextlib.suppress(BrokenPipeError):
            self._feed_on()

    def _feed_on(self) -> None:
        """Give as much of a file as the guest takes now."""
        while self._stdin and not self._is_paused:
            try:
                piece = self._stdin.read()
            except SwarmError as unreadable:
                self.failure = unreadable
                self.ended.set()
                return
            if not piece:
                self._stdin = None
                self._channel.write_eof()
                return
            self._channel.write(piece)

    def close(self) -> None:
        """Let go of the command; one that has not ended is killed."""
        self._stdin = None
        if not self._is_over:
            with contextlib.suppress(OSError):
                self._channel.kill()
        self._channel.close()

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if datatype is not None:
            self.stderr.add(data)
        elif not self.failure:
            try:
                self._sink.add(data)
            except SwarmError as refusal:
                self.failure = refusal
                self.ended.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_over = True
        self._stdin = None
        self.failure = self.failure or exc
        self.ended.set()


@dataclass(frozen=True, slots=True)
class _Stream:
    _channel: _Channel
    _output: asyncssh.SSHReader[bytes]
    _address: Address

    async def read(self, most: int) -> bytes:
        """What there is, as soon as there is any; empty when the command ended or was cut."""
        with mapped(self._address):
            return await self._output.read(most)

    async def end(self, expected: int | None = None) -> None:
        """Tell, after the last byte, why it ended: raises unless by the `expected` exit status."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._channel.wait_closed(), _CLOSE_S)
        status = self._channel.get_exit_status()
        if status is None:
            raise cut(self._address)
        if status != expected:
            raise GuestFailed(
                "The guest stopped telling what happens in it",
                f"{place(self._address)}: exit status {status}",
            )

    def close(self) -> None:
        self._channel.close()

    def get_exit_status(self) -> int | None:
        return self._channel.get_exit_status()


async def _join(
    connection: asyncssh.SSHClientConnection,
    command: str | None,
    terminal: Terminal,
    address: Address,
) -> int:
    """Run a shell between a guest and a terminal; its exit status."""
    pty: dict[str, Any] = {"request_pty": False}
    if terminal.is_interactive:
        pty = {
            "request_pty": "force",
            "term_type": terminal.kind,
            "term_size": terminal.size(),
            "term_modes": {_IUTF8: 1},
        }
    with mapped(address):
        process = await connection.create_process(
            command, stderr=asyncssh.PIPE, encoding=None, window=_WINDOW_BYTES, **pty
        )
    # To leave, the connection is closed, not the channel: a guest that hangs confirms nothing.
    with terminal.lend(lambda size: process.change_terminal_size(*size), connection.close):
        showing = [
            asyncio.create_task(_show(process.stdout, terminal.write, terminal, connection)),
            asyncio.create_task(_show(process.stderr, terminal.write_error, terminal, connection)),
        ]
        typing = asyncio.create_task(_type(process, terminal, connection))
        try:
            await asyncio.wait(showing)
            await process.wait_closed()
        except asyncio.CancelledError:
            with contextlib.suppress(OSError):
                process.send_signal("INT")
            raise
        finally:
            connection.close()
            tasks = (*showing, typing)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
    failures = [error for task in tasks if not task.cancelled() and (error := task.exception())]
    if terminal.left_with is not None:
        return terminal.left_with
    with mapped(address):
        for failure in failures:
            raise failure
    if process.returncode is None:
        raise cut(address)
    return _exit_status(process.returncode)


async def _type(
    process: asyncssh.SSHClientProcess[bytes],
    terminal: Terminal,
    connection: asyncssh.SSHClientConnection,
) -> None:
    """What is typed goes to the guest, until its end; an end by the person ends the session."""
    with contextlib.ExitStack() as unless_it_goes_on:
        unless_it_goes_on.callback(connection.close)
        # A command that has ended, or closed its input, may still have output under way.
        with contextlib.suppress(BrokenPipeError):
            while typed := await terminal.read():
                process.stdin.write(typed)
                await process.stdin.drain()
            if terminal.left_with is not None:
                return
            process.stdin.write_eof()
        unless_it_goes_on.pop_all()


async def _show(
    source: asyncssh.SSHReader[bytes],
    put: Callable[[bytes], Awaitable[None]],
    terminal: Terminal,
    connection: asyncssh.SSHClientConnection,
) -> None:
    while shown := await source.read(CHUNK_BYTES):
        await put(shown)
        if terminal.left_with is not None:
            connection.close()


def _command(script: str) -> str:
    command = scripts.command(script)
    if len(command.encode()) > _LONGEST_COMMAND:
        raise UsageError("The script is too long for an SSH command", f"{len(script)} characters")
    return command


def _exit_status(returncode: int) -> int:
    """asyncssh tells a signal as its negative number, a shell as 128 + its number."""
    return 128 - returncode if returncode < 0 else returncode


def _check(done: Completed, failure: str) -> None:
    if done.exit_status:
        told = done.stderr[-_EXCERPT_BYTES:].decode("utf-8", "replace").strip()
        raise GuestFailed(failure, f"{told or 'it said nothing'} (exit status {done.exit_status})")
