"""The files of which VMs are made, on the host on which they run.

    <root>/images/DIGEST/      images that were sent here; never changed
    <root>/templates/KEY/      guests that were booted once, to be forked
    <root>/agents/UUID/        what belongs to one agent

Everything here blocks, and touches nothing outside of `root`. Failures of the storage raise
StorageFull or HostError.
"""

from __future__ import annotations

import base64
import hashlib
import os
import random
import secrets
import shutil
import socket
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from swarm_tui import durable
from swarm_tui.errors import HostError, SetupError, StorageFull
from swarm_tui.outpost.accel import QEMU, Accel, choose_accel
from swarm_tui.paths import make_traversable

LOOPBACK: Final = "127.0.0.1"
PORTS: Final = range(22100, 32000)
"""Below those that the kernel gives out by itself (net.ipv4.ip_local_port_range)."""
PIECE: Final = 1 << 20
"""Bytes of a file that travel at once, before they are compressed."""
STALE_S: Final = 24 * 3600.0
"""What is half-sent and was not touched for so long is of somebody who died."""

_PARTIAL: Final = ".partial"
_ACCEL: Final = "accel.json"
_PACKAGES: Final = {"qemu-img": "qemu-utils", QEMU: "qemu-system-x86"}


@dataclass(frozen=True, slots=True)
class Tools:
    """By what VMs run there: whenever it changes, the memory of older ones is of no use."""

    qemu: str
    """Size and age of the program."""
    processor: str


class Workshop(Protocol):
    """Where the files of VMs are made: in a folder of this machine (`Workbench`), or on their host.

    Each call is as in `Workbench`. One that goes to another machine raises HostUnreachable and
    DeadlineExceeded, too; then nobody knows whether it was done, or still is being done.
    """

    def root(self) -> Path: ...

    def tools(self) -> Tools: ...

    def choose_accel(self, kernel: Path, initrd: Path, force: str) -> Accel: ...

    def make_folder(self, folder: Path) -> None: ...

    def has(self, path: Path) -> bool: ...

    def names(self, folder: Path) -> Sequence[str]: ...

    def read(self, path: Path) -> str: ...

    def write(self, path: Path, content: str) -> None: ...

    def copy(self, source: Path, target: Path) -> None: ...

    def overlay(self, base: Path, target: Path) -> None: ...

    def extend(self, source: Path, target: Path, more: str) -> None: ...

    def remove(self, folder: Path) -> None: ...

    def room(self) -> int: ...

    def free_port(self, taken: Sequence[int]) -> int: ...

    def is_free(self, port: int) -> bool: ...

    def begin(self, target: Path, size: int) -> Path: ...

    def put(self, partial: Path, offset: int, piece: str) -> None: ...

    def finish(self, partial: Path, target: Path, sha256: str) -> None: ...


class Workbench:
    """Implements `Workshop` in a folder of this machine."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def root(self) -> Path:
        """The folder, which is made where it is not there. Raises SetupError, StorageFull."""
        for folder in (self._root, *(self._root / name for name in ("agents", "images"))):
            make_traversable(folder)
        return make_traversable(self._root / "templates").parent

    def tools(self) -> Tools:
        """Raises SetupError where there is no QEMU."""
        with durable.storage("look at QEMU", HostError):
            program = os.stat(_find(QEMU))
            lines = Path("/proc/cpuinfo").read_text().splitlines()[:30]
        told = "".join(line for line in lines if line.startswith(("model name", "flags")))
        processor = hashlib.sha256(told.encode()).hexdigest()
        return Tools(f"{program.st_size} {program.st_mtime_ns}", processor)

    def choose_accel(self, kernel: Path, initrd: Path, force: str) -> Accel:
        """As `accel.choose_accel`; the answer is kept here."""
        return choose_accel(self._own(kernel), self._own(initrd), self._root / _ACCEL, force)

    # Files

    def make_folder(self, folder: Path) -> None:
        """Others reach a file in it by name but cannot list it: QEMU may run as another user."""
        make_traversable(self._own(folder))

    def has(self, path: Path) -> bool:
        with durable.storage("look for a file", HostError):
            return self._own(path).exists()

    def names(self, folder: Path) -> Sequence[str]:
        """What is in a folder; nothing, where it is not there."""
        with durable.storage("list a folder", HostError), suppress(FileNotFoundError):
            return sorted(os.listdir(self._own(folder)))
        return []

    def read(self, path: Path) -> str:
        with durable.storage("read a file", HostError):
            return self._own(path).read_text()

    def write(self, path: Path, content: str) -> None:
        """For its owner alone: readers see the old or the new content, never a part."""
        with durable.storage("write a file", HostError):
            durable.write(self._own(path), content.encode(), 0o600)

    def copy(self, source: Path, target: Path) -> None:
        """A copy that shares its blocks with the source, where the file system can."""
        command = ["cp", "--reflink=auto", "--sparse=always"]
        _run([*command, str(self._own(source)), str(self._own(target))])

    def overlay(self, base: Path, target: Path) -> None:
        """A qcow2 disk, all of which is the raw disk `base` until it is written to."""
        command = [_find("qemu-img"), "create", "-q", "-f", "qcow2", "-F", "raw"]
        _run([*command, "-b", str(self._own(base)), str(self._own(target))])

    def extend(self, source: Path, target: Path, more: str) -> None:
        """A copy of a small file with more behind it (base64), for its owner alone."""
        with durable.storage("write a file", HostError):
            content = self._own(source).read_bytes() + base64.b64decode(more)
            durable.write(self._own(target), content, 0o600)

    def remove(self, folder: Path) -> None:
        """A folder with all that is in it. Not there is fine."""
        with durable.storage("remove a folder", HostError), suppress(FileNotFoundError):
            shutil.rmtree(self._own(folder))

    def room(self) -> int:
        """Free bytes."""
        with durable.storage("look for room", HostError):
            return shutil.disk_usage(self.root()).free

    # Ports

    def free_port(self, taken: Sequence[int]) -> int:
        """Random: another swarm on this machine looks for one, too."""
        avoided = frozenset(taken)
        for port in random.sample(PORTS, 1000):
            if port not in avoided and self.is_free(port):
                return port
        raise SetupError("No port is free for a new agent", f"tried a thousand of {PORTS}")

    def is_free(self, port: int) -> bool:
        """Whether nobody listens on it."""
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as QEMU does
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                return False
        return True

    # Files that come from elsewhere

    def begin(self, target: Path, size: int) -> Path:
        """Make room for a file of `size` bytes, all of it a hole so far; returns where it grows."""
        partial = self._own(target).with_name(f"{target.name}.{secrets.token_hex(4)}{_PARTIAL}")
        with durable.storage("take a file in", HostError):
            make_traversable(partial.parent)
            for old in partial.parent.glob(f"*{_PARTIAL}"):
                if time.time() - old.stat().st_mtime > STALE_S:
                    old.unlink(missing_ok=True)
            with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "wb") as file:
                file.truncate(size)
                os.fchmod(file.fileno(), 0o644)
        return partial

    def put(self, partial: Path, offset: int, piece: str) -> None:
        """Write a piece: base64 of what zlib made of at most `PIECE` bytes."""
        unpacker = zlib.decompressobj()
        try:
            content = unpacker.decompress(base64.b64decode(piece, validate=True), PIECE)
        except (ValueError, zlib.error) as error:
            raise HostError("A piece of a file was damaged on its way", str(error)) from error
        with durable.storage("take a file in", HostError), open(self._own(partial), "r+b") as file:
            file.seek(offset)
            file.write(content)

    def finish(self, partial: Path, target: Path, sha256: str) -> None:
        """Let it be `target`, if it is what was sent. Raises HostError if it is not."""
        with durable.storage("take a file in", HostError):
            with open(self._own(partial), "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                os.fsync(file.fileno())
            if digest != sha256:
                partial.unlink()
                raise HostError("A file was damaged on its way", str(target))
            os.rename(partial, self._own(target))
            durable.sync_folder(target.parent)

    def _own(self, path: Path) -> Path:
        if not path.is_relative_to(self._root) or ".." in path.parts or path == self._root:
            raise HostError("That is no file of the workshop", str(path))
        return path


def send(
    workshop: Workshop, source: Path, target: Path, on_sent: Callable[[int], None] = lambda _: None
) -> None:
    """Send a file there, unless it is there; its holes stay holes. Blocks.

    `on_sent` is told the bytes that have been dealt with so far.
    """
    if workshop.has(target):
        return
    with durable.storage("read a file to be sent", SetupError), open(source, "rb") as file:
        partial = workshop.begin(target, os.fstat(file.fileno()).st_size)
        for offset, content in _pieces(file.fileno()):
            packed = base64.b64encode(zlib.compress(content, 1)).decode()
            workshop.put(partial, offset, packed)
            on_sent(offset + len(content))
        file.seek(0)
        workshop.finish(partial, target, hashlib.file_digest(file, "sha256").hexdigest())


def _pieces(file: int) -> Iterator[tuple[int, bytes]]:
    """Where something is written, and what."""
    end, offset = os.fstat(file).st_size, 0
    while offset < end:
        try:
            offset = os.lseek(file, offset, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole follows (lseek(2))
            return
        hole = os.lseek(file, offset, os.SEEK_HOLE)
        while offset < hole:
            content = os.pread(file, min(PIECE, hole - offset), offset)
            if content.strip(b"\0"):
                yield offset, content
            offset += len(content)


def _find(program: str) -> str:
    """Its path, also where an ordinary user's PATH does not lead. Raises SetupError."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    found = shutil.which(program, path=path)
    if found is None:
        raise SetupError(
            f"{program} is not installed there",
            hint=f"apt-get install --no-install-recommends {_PACKAGES[program]}",
        )
    return found


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={**os.environ, "LC_ALL": "C"},
        umask=0o022,
        check=False,
    )
    if done.returncode == 0:
        return
    words = done.stderr.decode("utf-8", "replace").strip()
    if "No space left on device" in words or "Disk quota exceeded" in words:
        raise StorageFull("No room for a disk", words)
    raise HostError("A disk could not be made", f"{command[0]}: {words}")
