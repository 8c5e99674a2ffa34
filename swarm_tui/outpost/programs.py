"""Other programs and the file system, with their failures told as SetupError and StorageFull."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from swarm_tui.errors import SetupError, StorageFull

PROGRAMS: Final[Mapping[str, str]] = {
    "apt-get": "apt",
    "apt-cache": "apt",
    "dpkg-deb": "dpkg",
    "tar": "tar",
    "git": "git",
    "mke2fs": "e2fsprogs",
    "lz4": "lz4",
    "zstd": "zstd",
    "fakeroot": "fakeroot",
}
"""Program that an image build runs → the Debian package that holds it."""
_PACKAGES: Final[Mapping[str, str]] = {
    **PROGRAMS,
    "qemu-img": "qemu-utils",
    "resize2fs": "e2fsprogs",
}

Say = Callable[[str], None]
"""Told what is going on, in a few words."""

_NONE: Final[Mapping[str, str]] = {}


class Failed(Exception):
    """A program ended with an exit status other than 0."""

    def __init__(self, program: str, stderr: str) -> None:
        self.stderr = stderr
        super().__init__(f"{program}: {stderr}")


def find(program: str) -> str | None:
    """Its path, also where an ordinary user's PATH does not lead."""
    return shutil.which(program, path=_path())


def missing_programs() -> Sequence[str]:
    """Programs of `PROGRAMS` that are not installed; root needs no fakeroot."""
    return [
        name
        for name in PROGRAMS
        if not find(name) and not (name == "fakeroot" and os.getuid() == 0)
    ]


def require_programs() -> None:
    """Raise SetupError when a program is not installed, with all of them and the cure."""
    if missing := missing_programs():
        raise _missing(missing)


def environment(variables: Mapping[str, str] = _NONE) -> Mapping[str, str]:
    """For programs whose words we read: English, with the system's folders in PATH."""
    return {**os.environ, "PATH": _path(), "LC_ALL": "C", **variables}


def _path() -> str:
    """PATH with the folders of system programs, which an ordinary user's lacks on Debian."""
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def run(
    command: Sequence[str],
    *,
    stdin: bytes = b"",
    cwd: Path | None = None,
    variables: Mapping[str, str] = _NONE,
) -> bytes:
    """Standard output of a program; `variables` are added to its environment.

    Raises Failed, SetupError (not installed), StorageFull.
    """
    try:
        done = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            cwd=cwd,
            env=environment(variables),
            umask=0o022,
            check=False,
        )
    except FileNotFoundError as error:
        raise _missing([command[0]]) from error
    if done.returncode != 0:
        raise failure(command[0], done.stderr)
    return done.stdout


def failure(program: str, stderr: bytes) -> Failed | StorageFull:
    """The error for a program that failed with these last words."""
    words = stderr.decode("utf-8", "replace").strip()
    if "No space left on device" in words or "Disk quota exceeded" in words:
        return StorageFull(f"No room for {program}", words)
    return Failed(program, words or "it failed without a word")


def _missing(names: Sequence[str]) -> SetupError:
    packages = sorted({_PACKAGES.get(name, name) for name in names})
    return SetupError(
        "Not installed, and needed for a local swarm: " + ", ".join(names),
        hint="apt-get install --no-install-recommends " + " ".join(packages),
    )


def make_folder(folder: Path, mode: int = 0o755) -> None:
    """Make it, and what is missing above it, whatever the umask: QEMU may run as another user."""
    if not folder.exists():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        folder.chmod(mode)


def replace(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file so that readers see the old or the new content, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(content)
    temporary.rename(path)


@contextmanager
def telling(what: str) -> Iterator[None]:
    """Tell failures of programs and of storage as "could not `what`"."""
    try:
        yield
    except Failed as error:
        raise SetupError(f"Could not {what}", str(error)) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"No room to {what}", str(error)) from error
        raise SetupError(f"Could not {what}", str(error)) from error


@contextmanager
def locked(path: Path, say: Say) -> Iterator[None]:
    """Hold a lock that the kernel lets go of when we die."""
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another process that is at it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
