"""Files that are on the disk when a call returns: replace, move, copy, digest."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from swarm_tui.errors import SnapshotError, StorageFull

_CHUNK: Final = 1 << 20


@contextmanager
def storage(what: str) -> Iterator[None]:
    """Map the operating system's answers about storage: StorageFull or SnapshotError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(
                f"No room to {what}",
                str(error),
                "Free some space, or put snapshots elsewhere with snapshots.folder.",
            ) from error
        raise SnapshotError(f"Could not {what}", str(error)) from error


def write(path: Path, content: bytes) -> None:
    """Replace a file: readers see the old or the new content, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def digest(path: Path) -> str:
    """ "sha256:…" of a file whose content is on the disk when this returns."""
    sha256 = hashlib.sha256()
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        while chunk := file.read(_CHUNK):
            sha256.update(chunk)
    return f"sha256:{sha256.hexdigest()}"


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
    """Copy a disk, sharing blocks where the file system can, and keeping its holes."""
    temporary = target.with_name(f".{target.name}.copy")
    options = ["--reflink=auto", "--sparse=always", "--preserve=mode,ownership"]
    done = subprocess.run(
        ["cp", *options, "--", str(source), str(temporary)],
        capture_output=True,
        text=True,
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        check=False,
    )
    if done.returncode != 0:
        temporary.unlink(missing_ok=True)
        code = errno.ENOSPC if "No space left" in done.stderr else errno.EIO
        raise OSError(code, done.stderr.strip())
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.rename(temporary, target)
    sync_folder(target.parent)
