"""What could go, and why: told before anything is removed."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from swarm_tui.text import Safe

SETTLED_S = 3600.0
"""What was touched within this time may still be somebody's work."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """One thing that nobody needs any more, for all that is known."""

    kind: str
    """"agent", "record", "log", "review", "spawn", "pool", "image", "snapshot", "file"."""
    name: Safe
    reason: Safe
    place: Safe
    """Path, or the name of its host."""
    size_bytes: int | None
    """On disk; None: nobody knows."""
    remove: Callable[[], Awaitable[object]] = field(compare=False, repr=False)
    """Remove it, once it was looked at again; raises SwarmError when it is needed by now."""


def measure(path: Path) -> int:
    """Bytes on disk of a file or folder; what cannot be read counts nothing."""
    total = 0
    folders = [path]
    while folders:
        try:
            here = folders.pop()
            status = here.lstat()
            total += status.st_blocks * 512
            if here.is_dir() and not here.is_symlink():
                folders += [Path(entry.path) for entry in os.scandir(here)]
        except OSError:
            continue
    return total


def newest(path: Path) -> float:
    """When anything in a folder changed last; 0 when it is not there."""
    latest = 0.0
    folders = [path]
    while folders:
        try:
            here = folders.pop()
            latest = max(latest, here.lstat().st_mtime)
            if here.is_dir() and not here.is_symlink():
                folders += [Path(entry.path) for entry in os.scandir(here)]
        except OSError:
            continue
    return latest
