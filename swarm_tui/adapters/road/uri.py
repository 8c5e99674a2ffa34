"""What a libvirt URI with "+ssh" says: where to log in, and which daemon to speak to there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from swarm_tui.adapters.connection import without_prompts
from swarm_tui.errors import ConfigError

SSH: Final = "+ssh"
_WAYS: Final = ("command", "netcat", "proxy")
"""Parameters for libvirt's own way through ssh, which is not ours."""


@dataclass(frozen=True, slots=True)
class Destination:
    """A login on a host, and a libvirt daemon there."""

    host: str
    """As ~/.ssh/config may name it."""
    port: int | None
    user: str | None
    identity: Path | None
    driver: str
    """libvirt's name of it in URIs: "qemu", "ch"."""
    path: str
    """ "/system" or "/session"."""
    socket: Path | None
    """The daemon's, where the URI names it."""

    @property
    def is_session(self) -> bool:
        return self.path == "/session"

    def through(self, socket: Path) -> str:
        """The URI of the same daemon by a socket of this machine."""
        return f"{self.driver}+unix://{self.path}?mode=direct&socket={quote(str(socket))}"


def parse(uri: str) -> Destination:
    """Raises ConfigError for a URI that leads nowhere, or not safely."""
    parts = urlsplit(without_prompts(uri))
    query = parse_qsl(parts.query.replace(";", "&"), keep_blank_values=True)
    wanted = {name.lower(): value for name, value in query}
    for way in _WAYS:
        if way in wanted:
            raise ConfigError(
                f"{way} in a libvirt URI is not supported",
                uri,
                "What ssh needs to get there belongs into ~/.ssh/config (ProxyJump, ProxyCommand).",
            )
    try:
        port = parts.port
    except ValueError as error:
        raise ConfigError("This libvirt URI has no proper port", uri) from error
    if not parts.hostname or parts.path not in ("/system", "/session"):
        raise ConfigError(
            "This libvirt URI names no host or no daemon",
            uri,
            'It looks like "ch+ssh://me@lab/system".',
        )
    return Destination(
        # Taken as it stands: in ~/.ssh/config the case of a name matters.
        host=_spelled(parts.netloc),
        port=port,
        user=unquote(parts.username) if parts.username else None,
        identity=Path(wanted["keyfile"]) if wanted.get("keyfile") else None,
        driver=parts.scheme.removesuffix(SSH),
        path=parts.path,
        socket=Path(wanted["socket"]) if wanted.get("socket") else None,
    )


def _spelled(netloc: str) -> str:
    place = netloc.rpartition("@")[2]
    if place.startswith("["):
        return place[1:].partition("]")[0]
    return unquote(place.partition(":")[0])
