"""SSH keys of hosts that somebody here has vouched for: a known_hosts file of our own.

Each line ends with the place that it was trusted for, as the host's URI names it, so that it can go
when that host goes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from contextlib import suppress
from pathlib import Path

from swarm_tui import durable
from swarm_tui.errors import ConfigError
from swarm_tui.paths import make_private
from swarm_tui.text import Safe, sanitize

_MODE = 0o600


def fingerprint(entry: str) -> Safe:
    """ "SHA256:…" of the key in a line of known_hosts, as `ssh-keygen -l` shows it.

    Raises ConfigError for what is no such line.
    """
    try:
        key = base64.b64decode(entry.split()[2], validate=True)
    except (IndexError, binascii.Error) as error:
        raise ConfigError("Not a line of a known_hosts file", entry) from error
    return sanitize("SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("="))


def vouch(file: Path, entry: str, place: str) -> None:
    """Trust the key of `entry` from now on, for `place`. Raises ConfigError, StorageFull."""
    pattern, kind, key = entry.split()[:3]
    _rewrite(file, [*_lines(file), f"{pattern} {kind} {key} {place}"])


def withdraw(file: Path, place: str) -> int:
    """Trust what was trusted for `place` no more; how many keys went."""
    lines = _lines(file)
    kept = [line for line in lines if line.startswith("#") or line.split()[3:] != [place]]
    if len(kept) < len(lines):
        _rewrite(file, kept)
    return len(lines) - len(kept)


def _lines(file: Path) -> list[str]:
    with durable.storage("read the known hosts", ConfigError), suppress(FileNotFoundError):
        return file.read_text("utf-8", "replace").splitlines()
    return []


def _rewrite(file: Path, lines: list[str]) -> None:
    if not file.parent.exists():
        make_private(file.parent)
    with durable.storage("write the known hosts", ConfigError):
        durable.write(file, "".join(f"{line}\n" for line in lines).encode(), _MODE)
