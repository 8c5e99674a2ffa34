"""Logging in to a host by SSH, as the user would: ~/.ssh/config, keys, agent, jumps.

But never with a question, never to a host whose key nobody has vouched for, and with nothing
forwarded. asyncssh reads the user's configuration; jumps and known hosts are seen to here, because
by itself asyncssh checks no key where `UserKnownHostsFile none` stands.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import asyncssh

from swarm_tui.adapters.calls import in_thread, look_up
from swarm_tui.adapters.link import reason
from swarm_tui.adapters.road.uri import Destination
from swarm_tui.errors import ConfigError, HostDenied, HostKeyUnknown, HostUnreachable, SwarmError
from swarm_tui.model import HostName

LOGIN_S: Final = 15.0
"""For the connection and the login together; each jump has as much."""
KEEPALIVE_S: Final = 15
KEEPALIVES: Final = 3

_CONFIG: Final = Path("~/.ssh/config")
_KNOWN_HOSTS: Final = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
_GLOBAL_KNOWN_HOSTS: Final = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
_MOST_JUMPS: Final = 8
_PORT: Final = 22
_BROKEN_PROTOCOL: Final = (LookupError, AssertionError, AttributeError, TypeError, ValueError)
"""What asyncssh raises when a peer breaks the protocol in a way that it did not foresee."""


async def log_in(
    host: HostName, destination: Destination, trusted: Path
) -> asyncssh.SSHClientConnection:
    """A connection to the host, its key checked, logged in.

    `trusted` is a known_hosts file of our own. Raises HostUnreachable, HostDenied, ConfigError;
    HostKeyUnknown where only somebody's word for the key is missing.
    """
    hop = _Hop(destination.host, destination.port, destination.user, destination.identity)
    return await _Login(host, trusted).connect(hop, None, [])


@dataclass(frozen=True, slots=True)
class _Hop:
    """One login on the way, as it is written down; ~/.ssh/config may say more of it."""

    name: str
    port: int | None = None
    user: str | None = None
    identity: Path | None = None

    def options(self) -> dict[str, Any]:
        given = {"port": self.port, "username": self.user}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a host is dialled."""

    host: str
    port: int
    family: int

    async def dial(self) -> socket.socket:
        """The first of its addresses that takes a connection. Raises OSError."""
        loop = asyncio.get_running_loop()
        failure = OSError("it has no address")
        async with asyncio.timeout(LOGIN_S):
            for family, where in await look_up(self.host, self.port, self.family):
                with contextlib.ExitStack() as unless_connected:
                    caller = unless_connected.enter_context(
                        socket.socket(family, socket.SOCK_STREAM)
                    )
                    caller.setblocking(False)
                    try:
                        await loop.sock_connect(caller, where)
                    except OSError as error:
                        failure = error
                    else:
                        unless_connected.pop_all()
                        return caller
        raise failure


@dataclass(frozen=True, slots=True)
class _Login:
    host: HostName
    trusted: Path

    async def connect(
        self, hop: _Hop, through: asyncssh.SSHClientConnection | None, behind: Sequence[str]
    ) -> asyncssh.SSHClientConnection:
        """`behind` are those that are to be reached by way of this one."""
        if len(behind) > _MOST_JUMPS:
            raise ConfigError(
                f"Host {self.host} is behind too many jumps",
                " behind ".join([*behind, hop.name]),
                "See ProxyJump in ~/.ssh/config.",
            )
        # Not in the event loop's threads, which all hosts share: a name may be asked for in it.
        jumps, known, place = await in_thread(partial(self._prepare, hop))
        with contextlib.ExitStack() as unless_connected:
            if through is None:
                for jump in jumps:
                    through = await self.connect(jump, through, [*behind, hop.name])
                    unless_connected.callback(through.close)
            connection = await self._connect(hop, through, known, place)
            if through:
                connection.set_tunnel(through)
            unless_connected.pop_all()
        return connection

    def _prepare(self, hop: _Hop) -> tuple[Sequence[_Hop], asyncssh.SSHKnownHosts, _Place | None]:
        """By which jumps it is reached, which hosts are known, and where to; reads files."""
        with self._mapped(hop.name):
            options = asyncssh.SSHClientConnectionOptions(
                host=hop.name, config=_config(), client_keys=None, known_hosts=b"", **hop.options()
            )
            known = _read_known_hosts(options.config, self.trusted)
            place = None
            if not (options.proxy_command or options.local_addr):  # else asyncssh dials
                place = _Place(options.host, options.port, options.family)
            return _jumps(options.config.get("ProxyJump")), known, place

    async def _connect(
        self,
        hop: _Hop,
        through: asyncssh.SSHClientConnection | None,
        known: asyncssh.SSHKnownHosts,
        place: _Place | None,
    ) -> asyncssh.SSHClientConnection:
        witness = _Witness(known)
        keys = {"client_keys": [str(hop.identity)]} if hop.identity else {}
        with self._mapped(hop.name, witness), contextlib.ExitStack() as unless_connected:
            caller = None
            if place and through is None:
                caller = await place.dial()
                unless_connected.callback(caller.close)
            connection = await asyncssh.connect(
                hop.name,
                config=_config(),
                sock=caller,
                tunnel=through,
                client_factory=lambda: witness,
                known_hosts=known,
                x509_trusted_certs=None,
                x509_trusted_cert_paths=[],
                # A key with a passphrase may be open in the user's agent.
                ignore_encrypted=True,
                agent_forwarding=False,
                x11_forwarding=False,
                connect_timeout=LOGIN_S,
                login_timeout=LOGIN_S,
                keepalive_interval=KEEPALIVE_S,
                keepalive_count_max=KEEPALIVES,
                utf8_decode_errors="replace",
                **keys,
                **hop.options(),
            )
            unless_connected.pop_all()
            return connection

    @contextlib.contextmanager
    def _mapped(self, name: str, witness: _Witness | None = None) -> Iterator[None]:
        """asyncssh's errors as ours."""
        try:
            yield
        except asyncssh.HostKeyNotVerifiable as error:
            raise self._distrusted(name, witness, error.reason) from error
        except asyncssh.KeyExchangeFailed as error:
            if "host key" in error.reason.lower():  # it has none of the kind that is known
                raise self._distrusted(name, witness, error.reason) from error
            raise self._unreachable(name, f"it speaks no SSH that we do: {error.reason}") from error
        except asyncssh.PermissionDenied as error:
            raise HostDenied(
                f"Host {self.host} does not let us in",
                f"{name}: {error.reason}",
                f"`ssh -o BatchMode=yes {name}` must work without a question; see the host's"
                " identity and user, ~/.ssh/config and your agent.",
            ) from error
        except asyncssh.ConfigParseError as error:
            raise ConfigError("~/.ssh/config cannot be read", str(error)) from error
        except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
            raise HostDenied(
                f"The key for host {self.host} cannot be used",
                str(error),
                "It must be a private key, without a passphrase or open in your SSH agent.",
            ) from error
        except TimeoutError as error:
            raise self._unreachable(name, f"no answer in {LOGIN_S:g} s") from error
        except OSError as error:
            raise self._unreachable(name, reason(error)) from error
        except (asyncssh.DisconnectError, asyncssh.ChannelOpenError) as error:
            raise self._unreachable(name, error.reason) from error
        except (asyncssh.Error, *_BROKEN_PROTOCOL) as error:
            raise self._unreachable(name, f"{type(error).__name__}: {error}") from error

    def _unreachable(self, name: str, why: str) -> SwarmError:
        return HostUnreachable(f"Host {self.host} is out of reach", f"{name}: {why}")

    def _distrusted(self, name: str, witness: _Witness | None, why: str) -> SwarmError:
        if witness is None or witness.entry is None or "revoked" in why:
            return HostDenied(
                f"Host {self.host} does not show the SSH key that it must",
                f"{name}: {why}",
                "Nothing was sent. Ask whoever looks after the host.",
            )
        if witness.is_other:
            return HostDenied(
                f"The SSH key of host {self.host} has changed",
                f"{name} shows {witness.told}, and another one is known.",
                "Nothing was sent. It may be another machine. If the change was meant, remove the "
                f"old key from your known_hosts ({self.trusted}, ~/.ssh/known_hosts) and run"
                " `swarm-tui host add` again.",
            )
        return HostKeyUnknown(
            f"The SSH key of host {self.host} is not known",
            f"{name} shows {witness.told}.",
            "Nothing was sent. Compare it with `ssh-keygen -lf /etc/ssh/ssh_host_…_key.pub` there;"
            " `swarm-tui host add` then trusts it.",
            witness.entry,
        )


class _Witness(asyncssh.SSHClient):
    """Sees the key of a host that known_hosts do not vouch for."""

    def __init__(self, known: asyncssh.SSHKnownHosts) -> None:
        self._known = known
        self.entry: str | None = None
        """The line for known_hosts by which it would be trusted."""
        self.told = ""
        self.is_other = False
        """Another key is known for that host."""

    def validate_host_public_key(
        self, host: str, addr: str, port: int, key: asyncssh.SSHKey
    ) -> bool:
        keys, authorities, *_ = self._known.match(host, addr, None if port == _PORT else port)
        self.is_other = bool(keys or authorities)
        self.told = f"{key.get_algorithm()} {key.get_fingerprint()}"
        place = host if port == _PORT else f"[{host}]:{port}"
        self.entry = f"{place} {key.export_public_key().decode().strip()}"
        return False


def _config() -> list[str]:
    path = _CONFIG.expanduser()
    return [str(path)] if path.is_file() else []


def _read_known_hosts(config: Any, trusted: Path) -> asyncssh.SSHKnownHosts:
    """All that the user, the machine and we know of hosts; a line that cannot be read says nothing.

    `UserKnownHostsFile none` means that the user's files vouch for nobody.
    """
    known = asyncssh.SSHKnownHosts()
    files = [
        *config.get("UserKnownHostsFile", _KNOWN_HOSTS),
        *config.get("GlobalKnownHostsFile", _GLOBAL_KNOWN_HOSTS),
        str(trusted),
    ]
    for file in files:
        try:
            text = Path(file).expanduser().read_text("utf-8", "replace")
        except (OSError, RuntimeError):
            continue
        for line in text.splitlines():
            with contextlib.suppress(ValueError):
                known.load(line)
    return known


def _jumps(written: object) -> Sequence[_Hop]:
    """ProxyJump of ssh_config(5): [user@]host[:port], several with commas."""
    if not isinstance(written, str):
        return []
    hops = []
    for jump in written.split(","):
        parts = re.fullmatch(
            r"(?:ssh://)?(?:(.+)@)?(?:\[([^]]+)\]|([^:@]+))(?::(\d{1,5}))?", jump.strip()
        )
        if parts is None:
            raise ConfigError("ProxyJump in ~/.ssh/config cannot be read", jump)
        hops.append(_Hop(parts[2] or parts[3], int(parts[4]) if parts[4] else None, parts[1]))
    return hops
