"""Locks on disk images as Cloud Hypervisor holds them from 46.0 on (block/src/fcntl.rs)."""

from __future__ import annotations

import fcntl
import os
import struct
from typing import Final

_FLOCK: Final = struct.Struct("@hhqqi0q")
"""Of x86-64: type, whence, start, length (0: all of it), pid (0 for these locks)."""


def open_locked(path: str, *, is_readonly: bool) -> int:
    """A descriptor that holds the lock of a disk until it is closed everywhere.

    Raises BlockingIOError when a VMM has the disk already, OSError when it cannot be opened.
    """
    fd = os.open(path, os.O_RDONLY if is_readonly else os.O_RDWR)
    kind = fcntl.F_RDLCK if is_readonly else fcntl.F_WRLCK
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, 0, 0, 0))
    except OSError:
        os.close(fd)
        raise
    return fd
