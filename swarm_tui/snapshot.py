"""Immutable saved states of agents: memory, devices, disks and the definition, with digests.

    <root>/<uuid>/<id>/    memory, disk-0, disk-1…, definition.xml, manifest.json, label.json

A snapshot under way is `<id>.partial`. It becomes a snapshot only by the rename that follows the
manifest, when memory, disks and definition are all there, digested and on the disk. Its files are
never written again, but for the label, which holds a person's name and pin for it; it is removed by
an explicit act or by the retention rules (`retention`).

Of an agent that is paused the disks move into the snapshot. Of one that goes on (a checkpoint) they
are copied while its vCPUs stand still; the draft of such a one holds nothing that is not elsewhere.

Everything here blocks; callers run it in a thread. The caller holds the agent's lock. Failures of
the storage raise StorageFull or SnapshotError.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from swarm_tui import durable
from swarm_tui.errors import SnapshotError
from swarm_tui.manifest import (
    DEFINITION,
    FORMAT,
    LABEL,
    MANIFEST,
    PLAN,
    copies,
    damaged,
    read_label,
    read_manifest,
    read_origin,
    read_plan,
)
from swarm_tui.model import OF_PAUSE, AgentId, Origin, Record, Snapshot, SnapshotId
from swarm_tui.text import sanitize

_MEMORY: Final = "memory"
_PARTIAL: Final = ".partial"
_ASIDE: Final = ".aside"
"""A draft that is about to be removed, out of reach of a save that might still begin."""
_REMOVED: Final = ".removed"
_TORN_S: Final = 10.0
"""A hypervisor may close its disks a moment after it has written the memory."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A snapshot under way, in its own folder."""

    id: SnapshotId
    folder: Path

    @property
    def memory(self) -> Path:
        """Where the hypervisor shall write memory and devices (a file or a folder)."""
        return self.folder / _MEMORY


class Archive(Protocol):
    """Where agents' snapshots are: in a folder of this machine (`Snapshots`), or of their host.

    Each call is as in `Snapshots`. One that goes to another machine raises HostUnreachable and
    DeadlineExceeded, too; then nobody knows whether it was done, or still is being done.
    """

    def ids(self, agent: AgentId) -> Sequence[SnapshotId]: ...

    def read(self, agent: AgentId, snapshot: SnapshotId) -> Snapshot: ...

    def draft(self, agent: AgentId) -> Draft: ...

    def drafts(self, agent: AgentId) -> Sequence[Draft]: ...

    def has_memory(self, draft: Draft) -> bool: ...

    def plan(
        self,
        draft: Draft,
        record: Record,
        definition: str,
        hypervisor: str,
        disks: Sequence[Path],
        origin: Origin = OF_PAUSE,
        is_copied: bool = False,
    ) -> None: ...

    def room(self, agent: AgentId, disks: Sequence[Path]) -> int: ...

    def scratch(self, draft: Draft, size_bytes: int) -> Path: ...

    def take_in(self, draft: Draft, scratch: Path) -> None: ...

    def copy_disks(self, draft: Draft) -> None: ...

    def is_copied(self, draft: Draft) -> bool: ...

    def seal(self, agent: AgentId, draft: Draft) -> Snapshot: ...

    def is_torn(self, draft: Draft) -> bool: ...

    def put_back(self, draft: Draft) -> None: ...

    def set_aside(self, draft: Draft) -> Draft: ...

    def discard(self, draft: Draft) -> None: ...

    def verify(self, agent: AgentId, snapshot: SnapshotId, hypervisor: str) -> None: ...

    def stage(self, agent: AgentId, snapshot: SnapshotId) -> Path: ...

    def unstage(self, agent: AgentId, snapshot: SnapshotId) -> None: ...

    def definition(self, agent: AgentId, snapshot: SnapshotId) -> str: ...

    def parts(self, agent: AgentId, snapshot: SnapshotId) -> Sequence[Path]: ...

    def label(
        self, agent: AgentId, snapshot: SnapshotId, title: str, is_pinned: bool
    ) -> Snapshot: ...

    def prune(self, agent: AgentId, doomed: Sequence[SnapshotId]) -> Sequence[SnapshotId]: ...

    def remove(self, agent: AgentId) -> None: ...


class Snapshots:
    """All snapshots below one root of this machine; an `Archive`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def ids(self, agent: AgentId) -> Sequence[SnapshotId]:
        """Complete snapshots, oldest first."""
        return [
            SnapshotId(name)
            for name in self._names(agent)
            if not name.endswith((_PARTIAL, _ASIDE, _REMOVED))
        ]

    def read(self, agent: AgentId, snapshot: SnapshotId) -> Snapshot:
        """Read a snapshot's manifest. Raises SnapshotError when it is missing or unreadable."""
        folder = self._folder(agent) / snapshot
        raw = read_manifest(folder)
        title, is_pinned = read_label(folder)
        return Snapshot(
            id=snapshot,
            agent=AgentId(str(raw.get("agent"))),
            name=sanitize(str(raw.get("name"))),
            created=raw["created"] if isinstance(raw.get("created"), float) else 0.0,
            size_bytes=sum(_occupied(folder / name) for name in raw["files"]),
            hypervisor=str(raw.get("hypervisor")),
            is_frozen=raw.get("is_frozen") is True,
            digests={name: entry["digest"] for name, entry in raw["files"].items()},
            origin=read_origin(raw.get("origin")),
            title=title,
            is_pinned=is_pinned,
        )

    def draft(self, agent: AgentId) -> Draft:
        """Make an empty folder for a snapshot under way."""
        now = time.time()
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now))
        snapshot = SnapshotId(f"{stamp}.{int(now % 1 * 1000):03}Z-{secrets.token_hex(3)}")
        folder = self._folder(agent) / f"{snapshot}{_PARTIAL}"
        with durable.storage("make a snapshot folder"):
            durable.make_folder(folder)
        return Draft(snapshot, folder)

    def drafts(self, agent: AgentId) -> Sequence[Draft]:
        """Snapshots that were cut off under way, oldest first."""
        return [
            Draft(SnapshotId(name.removesuffix(suffix)), self._folder(agent) / name)
            for name in self._names(agent)
            for suffix in (_PARTIAL, _ASIDE)
            if name.endswith(suffix)
        ]

    def has_memory(self, draft: Draft) -> bool:
        """Whether anything was written where the memory belongs."""
        with durable.storage("look at the unfinished snapshot"):
            return draft.memory.exists()

    def plan(
        self,
        draft: Draft,
        record: Record,
        definition: str,
        hypervisor: str,
        disks: Sequence[Path],
        origin: Origin = OF_PAUSE,
        is_copied: bool = False,
    ) -> None:
        """Write down what the draft will hold, before the VM is stopped.

        With the plan on disk, a process that dies at any later point leaves enough behind to
        `seal` the draft or to put everything back. `is_copied`: the disks are those of a VM that
        goes on with them.
        """
        with durable.storage("write the snapshot's definition"):
            durable.write(draft.folder / DEFINITION, definition.encode())
            plan = {
                "format": FORMAT,
                "agent": record.id,
                "name": record.name,
                "created": time.time(),
                "hypervisor": hypervisor,
                "is_frozen": record.is_frozen,
                "disks": {f"disk-{index}": str(disk) for index, disk in enumerate(disks)},
                "origin": {"cause": origin.cause, "told": origin.told, "by": origin.by},
                "is_copied": is_copied,
            }
            durable.write(draft.folder / PLAN, json.dumps(plan, indent=1).encode())

    def room(self, agent: AgentId, disks: Sequence[Path]) -> int:
        """Bytes that would be free beside whole copies of these disks; below 0: there is no room.

        Copies may share blocks with the originals, and take less then.
        """
        with durable.storage("see how much room there is"):
            folder = self._folder(agent)
            system = os.statvfs(next(one for one in (folder, *folder.parents) if one.exists()))
        return system.f_bavail * system.f_frsize - sum(_occupied(disk) for disk in disks)

    def scratch(self, draft: Draft, size_bytes: int) -> Path:
        """Where memory is written while the vCPUs stand still: in memory, where there is room.

        A disk would be waited for. Then `take_in` what was written; `discard` removes it, too.
        """
        if not durable.has_memory(2 * size_bytes):
            return draft.memory
        with durable.storage("make room for its memory"):
            return durable.make_in_memory(draft.id) / _MEMORY

    def take_in(self, draft: Draft, scratch: Path) -> None:
        """Bring the memory to the draft, wherever it was written; `seal` syncs it."""
        if scratch != draft.memory:
            with durable.storage("keep its memory"):
                durable.move(scratch, draft.memory)
                durable.drop_in_memory(draft.id)

    def copy_disks(self, draft: Draft) -> None:
        """Take in copies of the disks of a VM whose vCPUs stand still; `seal` syncs them."""
        with durable.storage("copy the agent's disk"):
            for name, live in read_plan(draft.folder)["disks"].items():
                durable.copy_quickly(Path(live), draft.folder / name)

    def is_copied(self, draft: Draft) -> bool:
        """Whether the draft is that of a VM that goes on: it holds nothing of its own."""
        with durable.storage("look at the unfinished snapshot"):
            is_planned = any((draft.folder / name).exists() for name in (PLAN, MANIFEST))
        return is_planned and copies(read_plan(draft.folder))

    def seal(self, agent: AgentId, draft: Draft) -> Snapshot:
        """Make a draft a snapshot: take in the disks, digest, fsync, manifest, rename.

        The VM must be off. The disks move into the snapshot, so that nothing can start the VM on
        them behind its memory's back. Each step may be repeated after a crash. Of copied disks
        nothing moves, and the VM may run.
        """
        plan = read_plan(draft.folder)
        with durable.storage("complete the snapshot"):
            for name, live in plan["disks"].items() if not copies(plan) else ():
                durable.move(Path(live), draft.folder / name)
            names = _files(draft.folder)
            digests = _digests(draft.folder, names)
            files = {
                name: {"digest": digest, "size": (draft.folder / name).stat().st_size}
                for name, digest in zip(names, digests, strict=True)
            }
            manifest = plan | {"files": files}
            _check_parts(draft.folder, manifest)
            durable.write(draft.folder / MANIFEST, json.dumps(manifest, indent=1).encode())
            (draft.folder / PLAN).unlink(missing_ok=True)
            os.rename(draft.folder, draft.folder.with_name(draft.id))
            durable.sync_folder(draft.folder.parent)
        return self.read(agent, draft.id)

    def is_torn(self, draft: Draft) -> bool:
        """Whether a disk was written after the memory: restored, they would not fit together."""
        with durable.storage("look at the unfinished snapshot"):
            written = (
                (draft.folder / name).stat().st_mtime
                for name in _files(draft.folder)
                if _is_memory(name)
            )
            saved = max(written, default=0.0)
            disks = (Path(live) for live in read_plan(draft.folder)["disks"].values())
            return any(disk.exists() and disk.stat().st_mtime > saved + _TORN_S for disk in disks)

    def put_back(self, draft: Draft) -> None:
        """Undo what `seal` moved: the disks return to where the VM looks for them."""
        with durable.storage("put the disks back"):
            for kept, live in _held(draft):
                if live.exists():
                    # A move between file systems was cut off after its copy.
                    _check_untouched(live, durable.digest(kept))
                    kept.unlink()
                else:
                    durable.move(kept, live)

    def set_aside(self, draft: Draft) -> Draft:
        """Rename a draft, so that a save which might still begin finds no folder to write to."""
        aside = draft.folder.with_name(f"{draft.id}{_ASIDE}")
        with durable.storage("remove the unfinished snapshot"):
            os.rename(draft.folder, aside)
        return Draft(draft.id, aside)

    def discard(self, draft: Draft) -> None:
        """Remove a draft. Raises SnapshotError if it holds the only copy of a disk."""
        with durable.storage("remove the unfinished snapshot"):
            durable.drop_in_memory(draft.id)
            for kept, live in _held(draft):
                if not live.exists():
                    raise SnapshotError(
                        "The unfinished snapshot holds the agent's disk",
                        f"{kept} is kept; {live} is not there.",
                    )
            durable.remove_folder(draft.folder)

    def verify(self, agent: AgentId, snapshot: SnapshotId, hypervisor: str) -> None:
        """Check every file against the manifest, and who made it against who shall restore it.

        Raises SnapshotError that says what differs.
        """
        folder = self._folder(agent) / snapshot
        manifest = read_manifest(folder)
        if manifest.get("agent") != agent:
            raise damaged(folder, f"it is of another agent, {manifest.get('agent')}")
        if manifest.get("hypervisor") != hypervisor:
            raise SnapshotError(
                "The snapshot was made by another hypervisor version",
                f"Made by {manifest.get('hypervisor')}, this host runs {hypervisor}.",
                "Restore it on a host with the version that made it.",
            )
        _check_parts(folder, manifest)
        files: dict[str, dict[str, Any]] = manifest["files"]
        with durable.storage("check the snapshot"):
            for name, entry in files.items():
                path = folder / name
                if not path.is_file():
                    raise damaged(folder, f"{name} is missing")
                if path.stat().st_size != entry["size"]:
                    raise damaged(
                        folder, f"{name} has {path.stat().st_size} bytes instead of {entry['size']}"
                    )
            with ThreadPoolExecutor(2) as pool:
                paths = (folder / name for name in files)
                digests = (str(entry["digest"]) for entry in files.values())
                same = list(pool.map(durable.is_unchanged, paths, digests))
            for name, is_same in zip(files, same, strict=True):
                if not is_same:
                    raise damaged(folder, f"the content of {name} was altered")

    def stage(self, agent: AgentId, snapshot: SnapshotId) -> Path:
        """Copy a verified snapshot's disks to where its VM looks for them.

        Returns the saved memory, to be restored. A disk that stands there already and differs is
        an error: it might be newer than the snapshot. What it leaves behind when it fails is for
        `unstage`.
        """
        folder = self._folder(agent) / snapshot
        manifest = read_manifest(folder)
        with durable.storage("copy the snapshot's disk"):
            for name, live in manifest["disks"].items():
                path = Path(live)
                if path.exists():
                    _check_untouched(path, manifest["files"][name]["digest"])
                else:
                    durable.copy(folder / name, path)
        return folder / _MEMORY

    def parts(self, agent: AgentId, snapshot: SnapshotId) -> Sequence[Path]:
        """The saved memory, then the disks in the definition's order; only to be read."""
        folder = self._folder(agent) / snapshot
        disks = read_manifest(folder)["disks"]
        return [folder / _MEMORY, *(folder / f"disk-{index}" for index in range(len(disks)))]

    def unstage(self, agent: AgentId, snapshot: SnapshotId) -> None:
        """Remove what `stage` copied and no VM has written to. The snapshot stays."""
        folder = self._folder(agent) / snapshot
        manifest = read_manifest(folder)
        with durable.storage("remove the snapshot's copied disk"):
            for name, live in manifest["disks"].items():
                path = Path(live)
                if path.exists() and durable.is_unchanged(path, manifest["files"][name]["digest"]):
                    path.unlink()

    def definition(self, agent: AgentId, snapshot: SnapshotId) -> str:
        with durable.storage("read the snapshot's definition"):
            return (self._folder(agent) / snapshot / DEFINITION).read_text()

    def label(self, agent: AgentId, snapshot: SnapshotId, title: str, is_pinned: bool) -> Snapshot:
        """Give it a person's name and pin, in place of those that it had."""
        folder = self._folder(agent) / snapshot
        read_manifest(folder)
        with durable.storage("label the snapshot"):
            label = {"format": FORMAT, "title": title, "is_pinned": is_pinned}
            durable.write(folder / LABEL, json.dumps(label).encode())
        return self.read(agent, snapshot)

    def prune(self, agent: AgentId, doomed: Sequence[SnapshotId]) -> Sequence[SnapshotId]:
        """Remove some; those that are not there are no problem. Returns those that were."""
        there = [snapshot for snapshot in self.ids(agent) if snapshot in doomed]
        with durable.storage("remove an old snapshot"):
            for snapshot in there:
                folder = self._folder(agent) / snapshot
                # Renamed first: a half-removed snapshot must not look like one.
                os.rename(folder, folder.with_name(f"{snapshot}{_REMOVED}"))
            for name in self._names(agent):
                if name.endswith(_REMOVED):
                    durable.remove_folder(self._folder(agent) / name)
        return there

    def remove(self, agent: AgentId) -> None:
        """Remove all snapshots of an agent, finished or not."""
        with durable.storage("remove the agent's snapshots"):
            for draft in self.drafts(agent):
                durable.drop_in_memory(draft.id)
            durable.remove_folder(self._folder(agent))

    def _names(self, agent: AgentId) -> Sequence[str]:
        with durable.storage("look at the snapshots"):
            try:
                return sorted(os.listdir(self._folder(agent)))
            except FileNotFoundError:
                return []

    def _folder(self, agent: AgentId) -> Path:
        return self._root / agent


def _held(draft: Draft) -> Sequence[tuple[Path, Path]]:
    """The disks that a draft has taken in, each with its place outside of it."""
    if not any(draft.folder.glob("disk-*")):
        return []
    plan = read_plan(draft.folder)
    if copies(plan):
        return []
    disks = [(draft.folder / name, Path(live)) for name, live in plan["disks"].items()]
    return [(kept, live) for kept, live in disks if kept.exists()]


def _files(folder: Path) -> Sequence[str]:
    """What a manifest lists: all that lies in the folder but manifest, plan and cut-off copies."""
    names = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if name not in (MANIFEST, PLAN, LABEL) and name[0] != ".")


def _is_memory(name: str) -> bool:
    return name.split("/")[0] == _MEMORY  # a file or a folder, as the driver likes


def _occupied(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0  # `verify` is who complains


def _digests(folder: Path, names: Sequence[str]) -> Sequence[str]:
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda name: durable.digest(folder / name), names))


def _check_parts(folder: Path, manifest: dict[str, Any]) -> None:
    """Raise SnapshotError unless memory, definition and every disk are among its files."""
    files = manifest["files"]
    for part in (DEFINITION, *manifest["disks"]):
        if part not in files:
            raise damaged(folder, f"it lacks {part}")
    if not any(_is_memory(name) for name in files):
        raise damaged(folder, "it has no memory")


def _check_untouched(disk: Path, digest: str) -> None:
    if not durable.is_unchanged(disk, digest):
        raise SnapshotError(
            "A disk stands where the snapshot's disk must go",
            f"{disk} was written after the agent was paused.",
            "Move it away if the snapshot is what you want.",
        )
