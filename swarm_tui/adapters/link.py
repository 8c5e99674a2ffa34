"""SSH connections to guests, by asyncssh: dialled on demand, shared, and made anew when broken.

A guest is untrusted, and its SSH server is a part of it: its host key is pinned, nothing of the
user's own SSH set-up or agent is ever offered, nothing is forwarded, and whatever asyncssh makes of
hostile bytes ends as a GuestError. A guest that only its host reaches is called through the host's
own connection, which carries bytes and learns nothing of what they say.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import asyncssh

from swarm_tui.adapters.calls import Place, look_up
from swarm_tui.adapters.terminal import readable
from swarm_tui.errors import (
    DeadlineExceeded,
    GuestCut,
    GuestError,
    GuestUnreachable,
    HostError,
    HostKeyChanged,
    SetupError,
)
from swarm_tui.model import Address, HostName

SUPERVISOR: Final = "root"
DIAL_S: Final = 10.0
"""To connect where nobody said how long to wait."""

_HANDSHAKES: Final = 16
"""At the same time, for the guests behind one host: one costs milliseconds of the event loop."""
_HANDSHAKE_S: Final = 30.0
_CALL_AGAIN_S: Final = 0.5
_MOST_CALLS: Final = 4
"""At the same time to one guest: dropbear hangs up on more than 5 that have not logged in."""
LONGEST_CALL_S: Final = 10.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 0.5
_KEEPALIVE_S, _KEEPALIVES = 15, 3
_OPEN_CONNECT_FAILED: Final = 2
"""RFC 4254 5.1, and asyncssh's own answer for a connection that is gone."""
_REQUEST_FAILED: Final = 0xFFFFFFFF
"""asyncssh's own: the guest refused the command, or closed the channel before it took one."""
_NOTHING_BEGUN: Final = (_OPEN_CONNECT_FAILED, _REQUEST_FAILED)
_MOST_TRIES: Final = 3
_ROOM: Final = 8
"""Channels on one connection; OpenSSH takes 10 (MaxSessions)."""

_BROKEN_PROTOCOL: Final = (ValueError, LookupError, AssertionError, AttributeError, TypeError)
"""What asyncssh raises when a peer breaks the protocol in a way that it did not foresee."""


class _Closable(Protocol):
    def close(self) -> None: ...

    def get_exit_status(self) -> int | None: ...


class Way(Protocol):
    """A host's own connection, by which its guests are reached; `road.Road` is one.

    Its calls raise HostError and DeadlineExceeded.
    """

    async def hold(self, holder: object) -> None: ...

    async def let_go(self, holder: object) -> None: ...

    async def way_to(self, host: str, port: int) -> Path:
        """A UNIX socket of this machine that leads to a TCP port, as the host reaches it."""
        ...


_Channel = TypeVar("_Channel", bound=_Closable)

# asyncssh would log what a guest says to standard error, through the middle of a screen.
logging.getLogger("asyncssh").setLevel(logging.CRITICAL + 1)


@dataclass(slots=True, eq=False)
class _Line:
    """One connection, and how many of its channels are in use."""

    connection: asyncssh.SSHClientConnection
    room: int
    in_use: int = 0


@dataclass(slots=True, eq=False)
class _Link:
    """Our connections to one guest: as a rule a single one, which all supervision shares."""

    dialling: asyncio.Lock = field(default_factory=asyncio.Lock)
    lines: list[_Line] = field(default_factory=list)

    def find_room(self) -> _Line | None:
        self.lines = [line for line in self.lines if not line.connection.is_closed()]
        return next((line for line in self.lines if line.in_use < line.room), None)

    def give_back(self, line: _Line, *, is_sound: bool) -> None:
        """A channel is over; `is_sound` if the guest told that its command has ended."""
        line.in_use -= 1
        is_spare = not line.in_use and any(
            not other.in_use for other in self.lines if other is not line
        )
        if is_spare or not (is_sound or line.room > 1):
            line.connection.close()


class Links:
    """All connections to guests."""

    def __init__(self, ways: Mapping[HostName, Way]) -> None:
        """`ways` lead to guests whose address says `via`."""
        self._ways = ways
        self._links: dict[Address, _Link] = {}
        # Each host's apart: one that hangs in the middle of them holds up only its own guests.
        self._handshakes: dict[HostName | None, asyncio.Semaphore] = {}
        self._is_closed = False

    @contextlib.asynccontextmanager
    async def channel(
        self,
        address: Address,
        deadline: float,
        create: Callable[[asyncssh.SSHClientConnection], Awaitable[_Channel]],
        *,
        is_patient: bool = False,
    ) -> AsyncIterator[_Channel]:
        """A channel that `create` opens on a connection with room for it; closed afterwards.

        `is_patient`: dial until the deadline (of the loop's clock), for a guest that still starts.
        `create` runs again only when the guest has begun nothing. Raises GuestUnreachable,
        TimeoutError when the guest takes the channel too late, and GuestError when it takes none;
        at once what waiting does not heal, as HostKeyChanged and a refused login.
        """
        line, channel = await self._open(address, deadline, create, is_patient=is_patient)
        try:
            yield channel
        finally:
            channel.close()
            is_sound = channel.get_exit_status() is not None
            self._links[address].give_back(line, is_sound=is_sound)

    async def forget(self, address: Address) -> None:
        """Drop the connections; who uses them is told that they were cut."""
        link = self._links.get(address)
        for line in list(link.lines if link else ()):
            line.connection.close()
            await line.connection.wait_closed()

    async def close(self) -> None:
        """Drop all connections, for good."""
        self._is_closed = True
        for address in list(self._links):
            await self.forget(address)
        for way in self._ways.values():
            await way.let_go(self)

    async def dial(
        self, address: Address, user: str, deadline: float, *, is_patient: bool
    ) -> asyncssh.SSHClientConnection:
        """Connect and log in. `is_patient`: until the deadline, for a guest that still starts."""
        clock = asyncio.get_running_loop().time
        while True:
            try:
                return await self._dial_once(address, user, deadline, is_patient=is_patient)
            except GuestUnreachable:
                # It spoke, and was gone before the login: it may just be starting anew.
                if not is_patient or self._is_closed or clock() + _LONGEST_PAUSE_S >= deadline:
                    raise
            await asyncio.sleep(_LONGEST_PAUSE_S)

    async def _dial_once(
        self, address: Address, user: str, deadline: float, *, is_patient: bool
    ) -> asyncssh.SSHClientConnection:
        host_key = _parse_host_key(address)
        identity = await asyncio.to_thread(_read_identity, address.identity)
        clock = asyncio.get_running_loop().time
        try:
            find = await self._find(address, deadline)
            caller = await _call(find, deadline, is_patient=is_patient)
        except TimeoutError as late:
            raise _unreachable(address, "no SSH server speaks there") from late
        except OSError as error:
            raise _unreachable(address, reason(error)) from error
        with contextlib.ExitStack() as stack:
            stack.callback(caller.close)
            try:
                async with asyncio.timeout_at(min(deadline, clock() + _HANDSHAKE_S)):
                    async with self._handshakes_by(address.via):
                        with mapped(address, user):
                            connection = await asyncssh.connect(
                                address.host,
                                address.port,
                                sock=caller,
                                username=user,
                                **_options(host_key, identity),
                            )
            except TimeoutError as late:
                raise _unreachable(address, "its SSH server did not finish the login") from late
            if self._is_closed:
                connection.close()
                raise _unreachable(address, "we are closing")
            stack.pop_all()
            return connection

    def _handshakes_by(self, via: HostName | None) -> asyncio.Semaphore:
        return self._handshakes.setdefault(via, asyncio.Semaphore(_HANDSHAKES))

    async def _find(
        self, address: Address, deadline: float
    ) -> Callable[[], Awaitable[Sequence[Place]]]:
        """What tells where to call the guest. Raises GuestUnreachable, TimeoutError."""
        if address.via is None:
            return partial(look_up, address.host, address.port)
        if (way := self._ways.get(address.via)) is None:
            raise _unreachable(address, f"no connection to host {address.via} is configured")
        try:
            async with asyncio.timeout_at(deadline):
                await way.hold(self)
                socket_path = await way.way_to(address.host, address.port)
        except (HostError, DeadlineExceeded) as error:
            raise GuestUnreachable(
                "The guest cannot be reached over SSH", f"{place(address)}: {error}", error.hint
            ) from error

        async def find() -> Sequence[Place]:
            return [(socket.AF_UNIX, str(socket_path))]

        return find

    async def _open(
        self,
        address: Address,
        deadline: float,
        create: Callable[[asyncssh.SSHClientConnection], Awaitable[_Channel]],
        *,
        is_patient: bool,
    ) -> tuple[_Line, _Channel]:
        tries = 0
        while True:
            tries += 1
            line = await self._take(address, deadline, is_patient=is_patient)
            with contextlib.ExitStack() as unless_open:
                unless_open.callback(self._links[address].give_back, line, is_sound=False)
                with mapped(address):
                    try:
                        async with asyncio.timeout_at(deadline):
                            channel = await create(line.connection)
                        unless_open.pop_all()
                        return line, channel
                    except asyncssh.ChannelOpenError as error:
                        if tries == _MOST_TRIES or error.code not in _NOTHING_BEGUN:
                            raise
                        if error.code == _OPEN_CONNECT_FAILED:
                            line.connection.close()
            await asyncio.sleep(_FIRST_PAUSE_S)

    async def _take(self, address: Address, deadline: float, *, is_patient: bool) -> _Line:
        """A connection with room for one more channel; dialled, if need be, by one at a time."""
        link = self._links.setdefault(address, _Link())
        try:
            async with asyncio.timeout_at(deadline):
                await link.dialling.acquire()
        except TimeoutError as late:
            raise _unreachable(address, "another call is still connecting") from late
        try:
            line = link.find_room()
            if line is None:
                connection = await self.dial(address, SUPERVISOR, deadline, is_patient=is_patient)
                line = _Line(connection, _count_room(connection))
                link.lines.append(line)
            line.in_use += 1
            return line
        finally:
            link.dialling.release()


def _count_room(connection: asyncssh.SSHClientConnection) -> int:
    """How many commands at once a connection is good for.

    dropbear before 2024.86 closes a channel whose command is about to begin when another command
    of the connection ends, and may break the connection with it (its issue 321).
    """
    version = str(connection.get_extra_info("server_version", ""))
    dropbear = re.search(r"dropbear_(\d{4})\.(\d{1,3})", version)
    is_fragile = dropbear and (int(dropbear[1]), int(dropbear[2])) < (2024, 86)
    return 1 if is_fragile else _ROOM


def _options(host_key: asyncssh.SSHKey, identity: asyncssh.SSHKey) -> dict[str, Any]:
    """Exactly one key on each side, and nothing of the user's own set-up."""
    return {
        "config": None,
        # The trusted keys themselves: no host name or pattern is ever looked up.
        "known_hosts": ([host_key], [], []),
        "x509_trusted_certs": None,
        "x509_trusted_cert_paths": [],
        "client_keys": [identity],
        "agent_path": None,
        "preferred_auth": "publickey",
        "gss_host": None,
        "tunnel": None,
        "proxy_command": None,
        "keepalive_interval": _KEEPALIVE_S,
        "keepalive_count_max": _KEEPALIVES,
        "login_timeout": _HANDSHAKE_S,
        "utf8_decode_errors": "replace",
        "compression_algs": None,
    }


async def _call(
    find: Callable[[], Awaitable[Sequence[Place]]], deadline: float, *, is_patient: bool
) -> socket.socket:
    """A connection whose other end has begun to speak.

    Behind QEMU's port forwarding every connect succeeds, whether or not a guest listens, and one
    that was made too early is answered late or never: so it is made again and again, while the
    earlier ones wait on. Raises OSError where nobody listens (at the deadline, if `is_patient`),
    TimeoutError where nobody speaks.
    """
    clock = asyncio.get_running_loop().time
    calls: list[asyncio.Task[socket.socket]] = []
    failure: OSError | None = None
    pause_s, oldest_since = _FIRST_PAUSE_S, clock()
    try:
        async with asyncio.timeout_at(deadline):
            while True:
                calls.append(asyncio.create_task(_call_once(find)))
                await asyncio.wait(
                    calls, timeout=_CALL_AGAIN_S, return_when=asyncio.FIRST_COMPLETED
                )
                for call in [call for call in calls if call.done()]:
                    calls.remove(call)
                    try:
                        return call.result()
                    except OSError as error:
                        if not is_patient:
                            raise
                        failure = error
                        await asyncio.sleep(pause_s)
                        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
                if not calls or clock() - oldest_since > LONGEST_CALL_S:
                    oldest_since = clock()
                    await _hang_up(calls[:1])
                    del calls[:1]
                # The oldest is for a guest that is slow to speak, the others for an early one.
                if len(calls) == _MOST_CALLS:
                    await _hang_up(calls[1:2])
                    del calls[1]
    except TimeoutError:
        if failure and not calls:
            raise failure from None
        raise
    finally:
        await _hang_up(calls)


async def _hang_up(calls: Sequence[asyncio.Task[socket.socket]]) -> None:
    for call in calls:
        call.cancel()
    if calls:
        await asyncio.wait(calls)
    for call in calls:
        if not call.cancelled() and not call.exception():
            call.result().close()


async def _call_once(find: Callable[[], Awaitable[Sequence[Place]]]) -> socket.socket:
    loop = asyncio.get_running_loop()
    failure = OSError("it has no address")
    for family, where in await find():
        with contextlib.ExitStack() as stack:
            caller = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            caller.setblocking(False)
            try:
                await loop.sock_connect(caller, where)
                await readable(caller.fileno())
                if not caller.recv(1, socket.MSG_PEEK):
                    raise ConnectionResetError("it hung up before it said anything")
            except OSError as error:
                failure = error
            else:
                stack.pop_all()
                return caller
    raise failure


def _parse_host_key(address: Address) -> asyncssh.SSHKey:
    try:
        return asyncssh.import_public_key(address.host_key)
    except (asyncssh.KeyImportError, ValueError) as error:
        raise GuestError(
            "The host key on record for this guest cannot be read",
            f"{place(address)}: {error}",
            "Without it nobody can tell whether it is the right guest.",
        ) from error


def _read_identity(path: Path) -> asyncssh.SSHKey:
    try:
        return asyncssh.read_private_key(path)
    except (OSError, asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        raise SetupError(
            "Our SSH key for this guest cannot be read",
            f"{path}: {error}",
            "It must be a private key without a passphrase, readable by you.",
        ) from error


@contextlib.contextmanager
def mapped(address: Address, user: str = SUPERVISOR) -> Iterator[None]:
    """asyncssh's errors as ours. Only around calls into asyncssh; a deadline of ours passes."""
    try:
        yield
    except asyncssh.HostKeyNotVerifiable as error:
        raise _impostor(address) from error
    except asyncssh.KeyExchangeFailed as error:
        # It has no key of the pinned one's kind at all.
        if "host key" in error.reason.lower():
            raise _impostor(address) from error
        raise GuestError(
            "The guest speaks no SSH that we do", f"{place(address)}: {error.reason}"
        ) from error
    except asyncssh.PermissionDenied as error:
        raise GuestError(
            "The guest refuses our SSH key",
            f"{user}@{place(address)}: {error.reason}",
            "Its authorized_keys must hold the key that it was made with.",
        ) from error
    except asyncssh.ChannelOpenError as error:
        if error.code == _OPEN_CONNECT_FAILED:
            raise cut(address, error.reason) from error
        raise GuestError(
            "The guest takes no command over SSH", f"{place(address)}: {error.reason}"
        ) from error
    except asyncssh.DisconnectError as error:
        raise cut(address, error.reason) from error
    except OSError as error:
        if isinstance(error, TimeoutError) and error.errno is None:
            raise
        raise cut(address, reason(error)) from error
    except (asyncssh.Error, *_BROKEN_PROTOCOL) as error:
        raise GuestError(
            "The guest broke the SSH protocol", f"{place(address)}: {type(error).__name__}"
        ) from error


def place(address: Address) -> str:
    """Where the guest answers, for a message."""
    way = f" by way of {address.via}" if address.via else ""
    return f"{address.host}:{address.port}{way}"


def reason(error: OSError) -> str:
    """The system's own words; asyncio puts others into `strerror`, name look-up has only those."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    return error.strerror or str(error)


def _impostor(address: Address) -> HostKeyChanged:
    return HostKeyChanged(
        "The guest's SSH host key is not the one it was made with",
        f"Whoever answers at {place(address)} is another machine, or the guest changed its key.",
        "Nothing was sent. Trust it no more, or make the agent anew.",
    )


def _unreachable(address: Address, reason: str) -> GuestUnreachable:
    return GuestUnreachable(
        "The guest cannot be reached over SSH",
        f"{place(address)}: {reason}",
        "It may still be starting, or hang; its console may tell.",
    )


def cut(address: Address, reason: str = "") -> GuestUnreachable:
    """The error for a connection that ended while it was in use."""
    return GuestCut(
        "The SSH connection to the guest was cut",
        f"{place(address)}: {reason or 'it ended without a word'}",
    )
