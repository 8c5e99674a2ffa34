"""Who we are to other supervisors, and whether one of them lives.

A process that holds agents has a locked file. The kernel lets go of the lock at its death: who can
see the file knows at once. Who is elsewhere goes by the process's heartbeat in the store.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from swarm_tui import durable
from swarm_tui.errors import StoreError
from swarm_tui.person import actor

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Holder:
    """One process, as the store knows it."""

    process: str
    """Nobody else's, ever."""
    who: str
    """For people: "pat@lab"."""
    place: str
    """The same for all who see the same lock files, under the same kernel."""
    file: str
    """Name of its lock file there."""


class Lockfile:
    """This process's own, and the others' in the same folder."""

    def __init__(self, folder: Path, who: str = "", place: str = "") -> None:
        """`place`: where we are to pretend to be; by default it follows from the folder."""
        self._folder = folder
        self._who = who
        self._place = place
        self._handle: int | None = None
        self._holder: Holder | None = None

    def hold(self) -> Holder:
        """Who we are; from now on we are seen to live. Raises StorageFull, StoreError."""
        if self._holder:
            return self._holder
        with durable.storage("make a lock file for the store", StoreError):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._sweep()
            process = secrets.token_hex(8)
            # Locked before it has its name, so that nobody takes it for a dead one's.
            unnamed = self._folder / f".{process}"
            handle = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(handle, fcntl.LOCK_EX)
            os.rename(unnamed, self._folder / process)
            self._handle = handle
            self._holder = Holder(
                process, self._who or actor(), self._place or self.place(), process
            )
        return self._holder

    def is_own(self, process: str) -> bool:
        return self._holder is not None and self._holder.process == process

    def place(self) -> str:
        """Names the folder as every process of this kernel that sees it does."""
        status = self._folder.stat()
        return f"{_BOOT.read_text().strip()} {status.st_dev} {status.st_ino}"

    def is_near(self, place: str) -> bool:
        """Whether those who hold there can be judged by their lock files."""
        try:
            return place == (self._place or self.place())
        except OSError:
            return False

    def is_alive(self, file: str) -> bool:
        """Whether the process lives whose lock file it is; for one that is near."""
        if not file.isalnum():
            return False
        try:
            handle = os.open(self._folder / file, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except PermissionError:
            return True  # another user's; nobody can tell
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False

    def close(self) -> None:
        if self._handle is not None and self._holder is not None:
            (self._folder / self._holder.file).unlink(missing_ok=True)
            os.close(self._handle)
        self._handle = self._holder = None

    def _sweep(self) -> None:
        """Remove what dead processes left."""
        for path in self._folder.iterdir():
            if path.name.isalnum() and not self.is_alive(path.name):
                path.unlink(missing_ok=True)
