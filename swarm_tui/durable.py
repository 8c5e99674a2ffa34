"""Files that are on the disk when a call returns: replace, move, copy, digest."""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from swarm_tui.errors import SnapshotError, StorageFull, SwarmError

_CHUNK: Final = 1 << 20
_BLOCK: Final = 1 << 16
_IN_MEMORY: Final = Path("/dev/shm")
_SECTOR: Final = 512
_SPARSE: Final = "sparse-sha256"
_NO_ROOM: Final = {
    "No space left on device": errno.ENOSPC,
    "Disk quota exceeded": errno.EDQUOT,
}
"""What `cp` says in the C locale."""


@contextmanager
def storage(what: str, failure: type[SwarmError] = SnapshotError) -> Iterator[None]:
    """Map the operating system's answers about storage: StorageFull or `failure`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(
                f"No room to {what}",
                str(error),
                "Free some space, or put snapshots elsewhere with snapshots.folder.",
            ) from error
        raise failure(f"Could not {what}", str(error)) from error


def write(path: Path, content: bytes, mode: int | None = None) -> None:
    """Replace a file: readers see the old or the new content, never a part.

    Without a `mode`, it has the one that any new file gets.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder that must not exist (0711: QEMU may run as another user), and its parents."""
    missing = [folder]
    while not missing[-1].parent.exists():
        missing.append(missing[-1].parent)
    folder.mkdir(parents=True, mode=0o711)
    for made in missing:
        sync_folder(made.parent)


def remove_folder(folder: Path) -> None:
    """Remove a folder with all that is in it. Not there is fine."""
    if folder.exists():
        shutil.rmtree(folder)


def has_memory(size_bytes: int) -> bool:
    """Whether so much can be put into the memory's own file system (Linux has one)."""
    try:
        file_system = os.statvfs(_IN_MEMORY)
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return False
    told = (line.split() for line in lines if line.startswith("MemAvailable:"))
    available = next((int(words[1]) << 10 for words in told), 0)
    return size_bytes <= min(available, file_system.f_bavail * file_system.f_frsize)


def make_in_memory(name: str) -> Path:
    """Make a folder there, which must not exist; see `make_folder`."""
    folder = _IN_MEMORY / f"swarm-tui-{name}"
    folder.mkdir(mode=0o711)
    return folder


def drop_in_memory(name: str) -> None:
    """Remove it with all that is in it. Not there is fine."""
    remove_folder(_IN_MEMORY / f"swarm-tui-{name}")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock: whoever else wants it waits. The kernel lets go of it when we die."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def digest(path: Path) -> str:
    """A digest of a file whose content is on the disk when this returns.

    "sha256:…" as everybody computes it. Of a file with holes "sparse-sha256:…": that of its size
    and, each after its position, of those blocks of 64 KiB that are not all zeros; where the holes
    are makes no difference to it. Both numbers are of 8 bytes, big endian.
    """
    status = path.stat()
    is_sparse = status.st_blocks * _SECTOR < status.st_size
    return _digest_data(path) if is_sparse else _digest_all(path)


def is_unchanged(path: Path, recorded: str) -> bool:
    """Whether a file has the content that `digest` was made of, wherever its holes are now."""
    is_sparse = recorded.startswith(f"{_SPARSE}:")
    return (_digest_data(path) if is_sparse else _digest_all(path)) == recorded


def _digest_all(path: Path) -> str:
    sha256 = hashlib.sha256()
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        while chunk := file.read(_CHUNK):
            sha256.update(chunk)
    return f"sha256:{sha256.hexdigest()}"


def _digest_data(path: Path) -> str:
    sha256 = hashlib.sha256()
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        size = os.fstat(file.fileno()).st_size
        sha256.update(size.to_bytes(8))
        position = 0
        while (position := _next_data(file.fileno(), position)) < size:
            block = os.pread(file.fileno(), _BLOCK, position)
            if block.count(0) != len(block):
                sha256.update(position.to_bytes(8) + block)
            position += _BLOCK
    return f"{_SPARSE}:{sha256.hexdigest()}"


def _next_data(handle: int, position: int) -> int:
    """Where the first block at or behind `position` begins that may hold more than a hole."""
    try:
        return max(position, os.lseek(handle, position, os.SEEK_DATA) // _BLOCK * _BLOCK)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return sys.maxsize  # a hole up to the end


def move(source: Path, target: Path) -> None:
    """Rename, or copy across file systems. Done already is fine."""
    if target.exists() and not source.exists():
        return
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        copy(source, target)
        source.unlink()


def copy(source: Path, target: Path) -> None:
    """Copy a disk, sharing blocks where the file system can, and keeping its holes.

    What earlier copies to `target` left behind when they were cut off is removed.
    """
    for stale in target.parent.glob(f".{glob.escape(target.name)}.*.copy"):
        stale.unlink()
    # A name of its own: after a crash an orphaned `cp` may still write to the one before.
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.copy")
    try:
        _cp(source, temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.rename(temporary, target)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def copy_quickly(source: Path, target: Path) -> None:
    """As `copy`, but on the disk only once somebody syncs it; a copy that fails may be left."""
    _cp(source, target)


def _cp(source: Path, target: Path) -> None:
    options = ["--reflink=auto", "--sparse=always", "--preserve=mode,ownership"]
    done = subprocess.run(
        ["cp", *options, "--", str(source), str(target)],
        capture_output=True,
        text=True,
        errors="replace",
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        check=False,
    )
    if done.returncode != 0:
        code = next((code for words, code in _NO_ROOM.items() if words in done.stderr), None)
        raise OSError(code or errno.EIO, done.stderr.strip())
