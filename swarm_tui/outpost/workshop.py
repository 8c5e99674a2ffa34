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
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from swarm_tui import durable
from swarm_tui.errors import HostError, SetupError
from swarm_tui.outpost.accel import Accel, choose_accel
from swarm_tui.outpost.network import ensure_network, kept_network
from swarm_tui.outpost.programs import find, locked, run, telling
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


@dataclass(frozen=True, slots=True)
class Wiring:
    """The guests' network there, as `network.Network` tells it."""

    bridge: str
    addresses: str
    nameserver: str | None
    limits: Sequence[str]


class Workshop(Protocol):
    """Where the files of VMs are made: in a folder of this machine (`Workbench`), or on their host.

    Each call is as in `Workbench`. One that goes to another machine raises HostUnreachable and
    DeadlineExceeded, too; then nobody knows whether it was done, or still is being done.
    """

    def root(self) -> Path: ...

    def choose_accel(self, kernel: Path, initrd: Path, force: str) -> Accel: ...

    def make_folder(self, folder: Path) -> None: ...

    def has(self, path: Path) -> bool: ...

    def write(self, path: Path, content: str) -> None: ...

    def copy(self, source: Path, target: Path) -> None: ...

    def overlay(self, base: Path, target: Path) -> None: ...

    def extend(self, source: Path, target: Path, more: str) -> None: ...

    def remove(self, folder: Path) -> None: ...

    def room(self) -> int: ...

    def free_port(self, taken: Sequence[int]) -> int: ...

    def is_free(self, port: int) -> bool: ...

    def wire(self, wanted: str) -> Wiring: ...

    def take_address(self, folder: Path, taken: Sequence[str]) -> str: ...

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

    def write(self, path: Path, content: str) -> None:
        """For its owner alone: readers see the old or the new content, never a part."""
        with durable.storage("write a file", HostError):
            durable.write(self._own(path), content.encode(), 0o600)

    def copy(self, source: Path, target: Path) -> None:
        """A copy that shares its blocks with the source, where the file system can."""
        command = ["cp", "--reflink=auto", "--sparse=always"]
        with telling("copy a disk"):
            run([*command, str(self._own(source)), str(self._own(target))])

    def overlay(self, base: Path, target: Path) -> None:
        """A qcow2 disk, all of which is the raw disk `base` until it is written to."""
        command = [find("qemu-img") or "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw"]
        with telling("make a disk"):
            run([*command, "-b", str(self._own(base)), str(self._own(target))])

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

    # Addresses

    def wire(self, wanted: str) -> Wiring:
        """As `network.ensure_network`."""
        network = ensure_network(self.root(), wanted, lambda _: None)
        nameserver = str(network.nameserver) if network.nameserver else None
        return Wiring(network.bridge, str(network.addresses), nameserver, network.limits)

    def take_address(self, folder: Path, taken: Sequence[str]) -> str:
        """An address in the guests' network for as long as the agent's folder is there.

        The folder is made. Raises SetupError when all are given.
        """
        network = kept_network(self._root)
        if network is None:
            raise SetupError("The guests' network is not set up", str(self._root))
        with (
            durable.storage("take an address", HostError),
            locked(self._root / "addresses.lock", lambda _: None),
        ):
            given = {path.read_text().strip() for path in self._root.glob("agents/*/address")}
            given |= set(taken)
            address = next((own for own in network.guests if str(own) not in given), None)
            if address is None:
                raise SetupError(
                    "No address is free for a new agent",
                    f"All of {network.addresses} are given.",
                    "End an agent, or end them all and set local.network to a larger network.",
                )
            make_traversable(self._own(folder))
            durable.write(folder / "address", f"{address}\n".encode())
        return str(address)

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
