"""Meeting a host for the first time: a login, to see which SSH key it shows."""

from __future__ import annotations

from pathlib import Path

import asyncssh

from swarm_tui.adapters.road.login import log_in
from swarm_tui.adapters.road.uri import parse
from swarm_tui.model import HostName
from swarm_tui.text import Safe, sanitize


async def greet(host: HostName, uri: str, trusted: Path) -> Safe:
    """Log in and out again; the fingerprint ("SHA256:…") of the key that the host has shown.

    Raises as `login.log_in`: HostKeyUnknown where nobody has vouched for that key.
    """
    connection = await log_in(host, parse(uri), trusted)
    try:
        key = connection.get_server_host_key()
        assert isinstance(key, asyncssh.SSHKey)  # it was checked
        return sanitize(key.get_fingerprint())
    finally:
        connection.abort()
        await connection.wait_closed()
