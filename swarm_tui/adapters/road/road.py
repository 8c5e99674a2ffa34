"""The road to one host: a single SSH connection, kept for as long as anybody holds it.

It carries the outpost's line, libvirt's own protocol and our SSH to the guests, the latter two as
UNIX sockets of this machine, in a folder that only we can enter: whoever connects to one speaks to
the host's daemon, or to a guest's SSH server. When the connection breaks, all of them end at once.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import asyncssh

from swarm_tui.adapters.road.line import Line
from swarm_tui.adapters.road.login import log_in
from swarm_tui.adapters.road.uri import parse
from swarm_tui.errors import DeadlineExceeded, HostDenied, HostUnreachable, SetupError, SwarmError
from swarm_tui.model import HostName, Vm
from swarm_tui.outpost.daemon import find_socket
from swarm_tui.outpost.process import measure
from swarm_tui.outpost.saved import exists

QUICK_S: Final = 15.0
"""For what a host does without waiting for anything."""
SOUND_S: Final = 5.0
"""How long a connection that stands may take to prove it."""
CLOSE_S: Final = 2.0

_PREFIX: Final = "swarm-tui-road-"
_LONGEST_PATH: Final = 80
"""Of a folder for sockets: with a name, a socket's path may have 107 bytes (unix(7))."""


class Road:
    """One host's connection: `hold` it to use it, and `let_go`.

    All calls belong to one event loop.
    """

    def __init__(
        self,
        host: HostName,
        uri: str,
        trusted: Path,
        *,
        snapshots: Path | None = None,
        guest_identity: Path | None = None,
    ) -> None:
        """`trusted`: a known_hosts file of our own, beside the user's; it need not exist.

        `snapshots` is a folder on the host; None: the outpost's own choice. `guest_identity` is a
        private key here for the guests; None: the one that each guest's tag names. Raises
        ConfigError.
        """
        self.host = host
        self._destination = parse(uri)
        self._trusted = trusted
        self._snapshots = snapshots
        self._guest_identity = guest_identity
        self._holders: set[object] = set()
        self._stretch: _Stretch | None = None
        self._building: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def hold(self, holder: object, *, is_doubted: bool = False) -> None:
        """See that there is a connection, and keep it for `holder`, who need not be new.

        `is_doubted`: one that stands must prove it, or is given up for all and made anew. Raises
        what `login.log_in` and `Line.open` raise.
        """
        self._loop = asyncio.get_running_loop()
        with ExitStack() as unless_held:
            if holder not in self._holders:
                self._holders.add(holder)
                unless_held.callback(self._holders.discard, holder)
            if self._building is None and (is_doubted or not self._stands()):
                self._building = asyncio.create_task(self._build(), name=f"road to {self.host}")
                self._building.add_done_callback(self._built)
            # Whoever comes while it is being built takes what comes of it, a failure too.
            if building := self._building:
                await asyncio.wait((building,))
                if building.cancelled():
                    raise self._not_connected()
                building.result()
            unless_held.pop_all()

    async def let_go(self, holder: object) -> None:
        """The last one closes it. Safe to call at any time, also twice."""
        self._holders.discard(holder)
        if not self._holders:
            if self._building:
                self._building.cancel()
                await asyncio.wait((self._building,))
            await self._tear_down()

    async def ask(
        self, call: Callable[..., Any], arguments: Sequence[object], deadline_s: float = QUICK_S
    ) -> Any:
        """Do one of `desk.NAMES` on the host."""
        return await self._standing().line.ask(call, arguments, deadline_s)

    def ask_from_thread(
        self, call: Callable[..., Any], arguments: Sequence[object], deadline_s: float
    ) -> Any:
        """As `ask`, from another thread than the event loop's; blocks."""
        if self._loop is None:
            raise self._not_connected()
        asked = self.ask(call, arguments, deadline_s)
        return asyncio.run_coroutine_threadsafe(asked, self._loop).result()

    async def libvirt_uri(self) -> str:
        """The host's libvirt as a URI of this machine, for as long as the connection stands.

        Raises HostUnreachable where no daemon listens, HostDenied where this login may not use it.
        """
        wanted = self._destination
        arguments = (wanted.driver, wanted.is_session, wanted.socket)
        daemon = await self.ask(find_socket, arguments)
        return wanted.through(await self._standing().forward_socket(daemon))

    async def exists(self, path: Path) -> bool:
        """Whether the host has something at that path."""
        return bool(await self.ask(exists, (path,)))

    def lead(self, vm: Vm) -> Vm:
        """The VM with its guest's address as it is reached from here: by way of this host."""
        address = vm.tag.address
        if address is None:
            return vm
        identity = self._guest_identity or address.identity
        address = replace(address, via=self.host, identity=identity)
        return replace(vm, tag=replace(vm.tag, address=address))

    async def way_to(self, host: str, port: int) -> Path:
        """A UNIX socket that leads to a TCP port, as the host reaches it."""
        return await self._standing().forward_port(host, port)

    def _stands(self) -> bool:
        return self._stretch is not None and not self._stretch.is_closed()

    def _standing(self) -> _Stretch:
        if self._stretch is None or self._stretch.is_closed():
            raise self._not_connected()
        return self._stretch

    def _not_connected(self) -> HostUnreachable:
        return HostUnreachable(f"Host {self.host} is out of reach", "it is not connected")

    async def _build(self) -> None:
        if self._stretch and await self._stretch.is_sound():
            return
        await self._tear_down()
        connection = await log_in(self.host, self._destination, self._trusted)
        try:
            line = await Line.open(self.host, connection, self._snapshots)
            self._stretch = _Stretch(self.host, connection, line, _make_folder())
        except (SwarmError, asyncio.CancelledError):
            connection.abort()
            raise
        if not self._holders:  # whoever asked for it has given up
            await self._tear_down()

    def _built(self, building: asyncio.Task[None]) -> None:
        self._building = None
        if not building.cancelled():
            building.exception()  # whoever asked was told, if anybody is left

    async def _tear_down(self) -> None:
        stretch, self._stretch = self._stretch, None
        if stretch:
            await stretch.close()


@dataclass(slots=True)
class _Stretch:
    """One connection, from login to its end."""

    host: HostName
    connection: asyncssh.SSHClientConnection
    line: Line
    folder: Path
    sockets: dict[object, Path] = field(default_factory=dict)

    def is_closed(self) -> bool:
        return self.connection.is_closed()

    async def is_sound(self) -> bool:
        """Whether it still carries; one that was cut without a word only seems to stand."""
        try:
            await self.line.ask(measure, [{}], SOUND_S)
        except (HostUnreachable, DeadlineExceeded):
            return False
        return True

    async def forward_socket(self, path: Path) -> Path:
        """A daemon's socket. Raises HostDenied where the host's SSH server does not forward it."""
        try:
            async with asyncio.timeout(QUICK_S):
                _, writer = await self.connection.open_unix_connection(str(path))
                writer.close()
        except asyncssh.ChannelOpenError as error:
            raise HostDenied(
                f"The SSH server of host {self.host} does not lead to {path}",
                error.reason,
                "Its sshd_config must have AllowStreamLocalForwarding and no DisableForwarding.",
            ) from error
        except (OSError, asyncssh.Error) as error:
            raise HostUnreachable(
                f"The SSH connection to host {self.host} was cut", str(error)
            ) from error
        return await self._forward(
            path, lambda here: self.connection.forward_local_path(str(here), str(path))
        )

    async def forward_port(self, host: str, port: int) -> Path:
        return await self._forward(
            (host, port),
            lambda here: self.connection.forward_local_path_to_port(str(here), host, port),
        )

    async def _forward(
        self, where: object, listen: Callable[[Path], Awaitable[asyncssh.SSHListener]]
    ) -> Path:
        if where not in self.sockets:
            here = self.folder / str(len(self.sockets))
            self.sockets[where] = here
            await listen(here)
        return self.sockets[where]

    async def close(self) -> None:
        self.connection.close()
        with suppress(TimeoutError, OSError, asyncssh.Error):
            async with asyncio.timeout(CLOSE_S):
                await self.line.close()
                await self.connection.wait_closed()
        self.connection.abort()
        shutil.rmtree(self.folder, ignore_errors=True)


def _make_folder() -> Path:
    """For sockets, ours alone, with a short path; what killed processes left of theirs is removed.

    Raises SetupError.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    places = [place for place in (runtime, tempfile.gettempdir()) if os.access(place, os.W_OK)]
    place = next((place for place in places if len(os.fsencode(place)) < _LONGEST_PATH), "/tmp")
    try:
        for folder in Path(place).glob(f"{_PREFIX}*"):
            with suppress(FileNotFoundError):  # somebody was quicker
                if folder.lstat().st_uid == os.geteuid() and _is_abandoned(folder):
                    shutil.rmtree(folder, ignore_errors=True)
        return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
    except OSError as error:
        raise SetupError("No folder for our sockets can be made", str(error)) from error


def _is_abandoned(folder: Path) -> bool:
    """Whether nobody serves the sockets in it; one without any may be new."""
    found = list(folder.iterdir())
    return bool(found) and not any(map(_is_served, found))


def _is_served(path: Path) -> bool:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except OSError:
            return True  # busy, or nothing that we know
    return True
