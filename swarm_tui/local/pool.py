"""Agents made in advance: guests with their workspace, stopped before they are anybody.

    <folder>/pools/PROFILE/lock          held by the one process that fills the pool
    <folder>/pools/PROFILE/figures.json  how spawns of the profile went
    <folder>/pools/PROFILE/KEY/stem/     a guest with the workspace, and a checkpoint in its disk
    <folder>/pools/PROFILE/KEY/UUID/     a ready one: a copy of the stem, with a host key
    <folder>/pools/PROFILE/KEY/.UUID/    one that is being made, or that was cut off: nobody's

KEY changes with all that a ready one is made of. To claim one is to rename its folder: of two who
want the same, one finds it gone. Nothing here is a VM, takes memory, or is in a list of agents.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from swarm_tui.errors import Busy, SetupError, StorageFull
from swarm_tui.leftover import measure
from swarm_tui.local.forks import Template, read_template, write_template
from swarm_tui.local.home import HostKey
from swarm_tui.local.machine import Machine
from swarm_tui.outpost.programs import make_folder, replace, run, telling
from swarm_tui.profile import Profile
from swarm_tui.stock import Stock
from swarm_tui.text import sanitize

RESERVE_BYTES: Final = 1 << 30
"""What is left free on the disk for everything else."""
FIGURES: Final = 200
"""How many spawns of each way are remembered, the latest."""
STEM: Final = "stem"

_TEXTS: Final = ("definition.xml", "checkpoint.xml", "template.json", "host_key", "host_key.pub")
_PLAIN_NAME: Final = re.compile("[a-z0-9][a-z0-9._-]{0,63}")


class Way(StrEnum):
    """How an agent came to be."""

    HIT = "hit"  # it was ready
    COPY = "copy"  # of the stem, because none was ready
    MISS = "miss"  # made from the start


@dataclass(frozen=True, slots=True)
class Found:
    """What a new agent goes on from; its disk is in its folder."""

    template: Template
    host_key: HostKey
    way: Way


class Pool:
    """Those of one profile. Its calls block, and raise SetupError and StorageFull."""

    def __init__(self, pools: Path, profile: Profile) -> None:
        self.profile = profile
        self.folder = pools / _folder_name(str(profile.name))

    def claim(self, key: str, machine: Machine) -> Found | None:
        """Take a ready one, which becomes the machine's folder; None: there is none.

        The machine's folder must not be there. What is claimed is nobody else's, and not in the
        pool any more, whatever becomes of it.
        """
        for ready in self._ready(key):
            try:
                ready.rename(machine.folder)
            except FileNotFoundError:
                continue  # another one was quicker
            return self._open(machine.folder)
        return None

    def copy(
        self, key: str, machine: Machine, make_host_key: Callable[[], HostKey]
    ) -> Found | None:
        """As `claim`, but a copy of the stem; None while there is no stem."""
        stem = self.folder / key / STEM
        if not _is_whole(stem):
            return None
        template = read_template(stem)
        with telling("copy a ready agent"):
            make_folder(machine.folder, 0o711)
            _copy_disk(stem, machine.folder)
            return Found(template, make_host_key(), Way.COPY)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be the only one who fills or empties it. Raises Busy."""
        with telling("fill the pool"):
            make_folder(self.folder, 0o711)
        with _locked(self.folder / "lock") as is_ours:
            if not is_ours:
                raise Busy(
                    f"The pool of {self.profile.name} is being filled already",
                    "Another process is at it.",
                )
            yield

    def unfinished(self) -> Sequence[Path]:
        """Where stems were begun; a VM of each may be left. For who holds it."""
        stems = [folder / STEM for folder in _folders(self.folder)]
        return [stem for stem in stems if stem.exists() and not _is_whole(stem)]

    def sweep(self, key: str | None) -> int:
        """Remove leftovers and all that is not of this key; how many ready ones. For who holds it.

        Nobody else makes anything here, so what is half made was cut off.
        """
        gone = 0
        with telling("clear the pool"):
            for folder in _folders(self.folder):
                if folder.name != key:
                    gone += len(self._ready(folder.name))
                    hidden = folder.with_name(f".{folder.name}")  # nobody claims any of it now
                    shutil.rmtree(hidden, ignore_errors=True)
                    folder.rename(hidden)
            for path in (*self.folder.glob(".*"), *(self.folder / (key or "")).glob(".*")):
                shutil.rmtree(path, ignore_errors=True)
        return gone

    def lacks(self, key: str) -> int:
        """How many more are wanted."""
        return max(0, self.profile.ready - len(self._ready(key)))

    def stem(self, key: str) -> Path | None:
        """The folder of a stem that is whole; None: there is none yet."""
        stem = self.folder / key / STEM
        return stem if _is_whole(stem) else None

    def check_room(self, size_bytes: int) -> None:
        """Raise StorageFull unless that much more may be used."""
        free = shutil.disk_usage(self.folder).free
        if free < size_bytes + RESERVE_BYTES:
            raise StorageFull(
                "No room for more ready agents",
                f"{free >> 20} MiB are free where {self.folder} lies; "
                f"{(size_bytes + RESERVE_BYTES) >> 20} MiB are wanted.",
                "Let the profile's ready be less, or make room: swarm-tui gc --dry-run.",
            )

    def add(self, key: str, host_key: HostKey) -> None:
        """Make one more ready one of the stem. Cut off at any moment, it is not there."""
        stem = self.folder / key / STEM
        self.check_room(measure(stem))
        name = str(uuid.uuid4())
        making = self.folder / key / f".{name}"
        try:
            with telling("make a ready agent"):
                make_folder(making, 0o711)
                _copy_disk(stem, making, "nice")  # nobody waits for it
                replace(making / "host_key", host_key.private, 0o600)
                replace(making / "host_key.pub", host_key.public.encode(), 0o600)
                write_template(making, read_template(stem))
                _sync(making)
                making.rename(self.folder / key / name)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            raise

    def note(self, way: Way, seconds: float) -> None:
        """Count a spawn of the profile, and how long it took until SSH answered."""
        with telling("count a spawn"):
            make_folder(self.folder, 0o711)
            with _locked(self.folder / "figures.lock", is_patient=True):
                figures = self._figures()
                figures["profile"] = str(self.profile.name)
                figures[way] = _count(figures.get(way)) + 1
                name = "spawns_s" if way is Way.MISS else "claims_s"
                figures[name] = [*_seconds(figures.get(name)), round(seconds, 4)][-FIGURES:]
                replace(self.folder / "figures.json", json.dumps(figures).encode(), 0o600)

    def stock(self, key: str | None, *, is_known: bool = True) -> Stock:
        """How it stands; without a `key` all that is there counts as stale."""
        keys = [folder.name for folder in _folders(self.folder)]
        figures = self._figures()
        return Stock(
            profile=sanitize(str(self.profile.name)),
            wanted=self.profile.ready if is_known else None,
            ready=len(self._ready(key)) if key else 0,
            stale=sum(len(self._ready(other)) for other in keys if other != key),
            size_bytes=sum(measure(folder) for folder in _folders(self.folder)),
            hits=_count(figures.get(Way.HIT)),
            copies=_count(figures.get(Way.COPY)),
            misses=_count(figures.get(Way.MISS)),
            claims_s=_seconds(figures.get("claims_s")),
            spawns_s=_seconds(figures.get("spawns_s")),
        )

    def _ready(self, key: str) -> Sequence[Path]:
        return [path for path in _folders(self.folder / key) if path.name != STEM]

    def _open(self, folder: Path) -> Found:
        try:
            public = (folder / "host_key.pub").read_text()
            host_key = HostKey((folder / "host_key").read_bytes(), public)
        except OSError as error:
            raise SetupError("A ready agent cannot be read", f"{folder}: {error}") from error
        template = read_template(folder)
        for name in _TEXTS:  # a private key, for one
            (folder / name).unlink(missing_ok=True)
        return Found(template, host_key, Way.HIT)

    def _figures(self) -> dict[str, object]:
        try:
            figures = json.loads((self.folder / "figures.json").read_bytes())
        except (OSError, ValueError):
            return {}  # they are for looking at alone
        return figures if isinstance(figures, dict) else {}


def key_of(template: str, commit: str, repository: str) -> str:
    """Changes with all that ready ones are made of: their template, and their workspace."""
    parts = "\0".join((template, commit, repository))
    return hashlib.sha256(parts.encode()).hexdigest()[:16]


def pools_in(pools: Path) -> Sequence[Profile]:
    """Profiles of which something is kept, by name alone."""
    found = []
    for folder in _folders(pools):
        try:
            name = json.loads((folder / "figures.json").read_bytes())["profile"]
        except (OSError, ValueError, KeyError, TypeError):
            name = folder.name
        found.append(Profile(name=sanitize(str(name))))
    return found


def _folder_name(profile: str) -> str:
    if _PLAIN_NAME.fullmatch(profile):
        return profile
    return "_" + hashlib.sha256(profile.encode()).hexdigest()[:16]


def _is_whole(folder: Path) -> bool:
    return (folder / "template.json").exists()  # the last that is written


def _folders(folder: Path) -> Sequence[Path]:
    """Those that are nobody's work in progress."""
    try:
        entries = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [path for path in entries if not path.name.startswith(".") and path.is_dir()]


def _copy_disk(source: Path, target: Path, *first: str) -> None:
    # Sharing its blocks, where the file system can.
    command = [*first, "cp", "--reflink=auto", "--sparse=always"]
    run([*command, str(source / "disk.qcow2"), str(target / "disk.qcow2")])


def _sync(folder: Path) -> None:
    """A power cut must not leave a ready one whose disk is empty."""
    for path in (*folder.iterdir(), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _count(raw: object) -> int:
    return raw if isinstance(raw, int) and raw >= 0 else 0


def _seconds(raw: object) -> tuple[float, ...]:
    if not isinstance(raw, list):
        return ()
    return tuple(float(one) for one in raw if isinstance(one, int | float))[-FIGURES:]


@contextmanager
def _locked(path: Path, *, is_patient: bool = False) -> Iterator[bool]:
    """Hold a lock between processes that the kernel lets go of when we die; whether we do."""
    with telling("lock the pool"):
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if is_patient else fcntl.LOCK_NB))
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(handle)
