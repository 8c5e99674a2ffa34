"""Immutable saved states of agents: memory, devices, disks and the definition, with digests.

    <root>/<uuid>/<id>/    memory, disk-0, disk-1…, definition.xml, manifest.json

A snapshot under way is `<id>.partial`. It becomes a snapshot only by the rename that follows the
manifest, when memory, disks and definition are all there, digested and on the disk. Its files are
never written again; it is removed by an explicit act or by the retention rule (`prune`).

Everything here blocks; callers run it in a thread.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from swarm_tui import durable
from swarm_tui.errors import SnapshotError
from swarm_tui.model import AgentId, Record, Snapshot, SnapshotId
from swarm_tui.text import sanitize

_MANIFEST: Final = "manifest.json"
_PLAN: Final = "plan.json"
_DEFINITION: Final = "definition.xml"
_MEMORY: Final = "memory"
_PARTIAL: Final = ".partial"
_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Draft:
    """A snapshot under way, in its own folder."""

    id: SnapshotId
    folder: Path

    @property
    def memory(self) -> Path:
        """Where the hypervisor shall write memory and devices (a file or a folder)."""
        return self.folder / _MEMORY


class Snapshots:
    """All snapshots below one root."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def ids(self, agent: AgentId) -> Sequence[SnapshotId]:
        """Complete snapshots, oldest first."""
        return [SnapshotId(name) for name in self._names(agent) if not name.endswith(_PARTIAL)]

    def read(self, agent: AgentId, snapshot: SnapshotId) -> Snapshot:
        """Read a snapshot's manifest. Raises SnapshotError when it is missing or unreadable."""
        folder = self._folder(agent) / snapshot
        raw = _read_manifest(folder)
        try:
            return Snapshot(
                id=snapshot,
                agent=AgentId(raw["agent"]),
                name=sanitize(str(raw["name"])),
                created=float(raw["created"]),
                size_bytes=sum(
                    (folder / name).stat().st_blocks * 512
                    for name in raw["files"]
                    if (folder / name).exists()
                ),
                hypervisor=str(raw["hypervisor"]),
                is_frozen=raw["is_frozen"] is True,
                digests={name: entry["digest"] for name, entry in raw["files"].items()},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(folder, f"its manifest lacks or garbles {error}") from error

    def draft(self, agent: AgentId) -> Draft:
        """Make an empty folder for a snapshot under way. Raises StorageFull."""
        now = time.time()
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now))
        snapshot = SnapshotId(f"{stamp}.{int(now % 1 * 1000):03}Z-{secrets.token_hex(3)}")
        folder = self._folder(agent) / f"{snapshot}{_PARTIAL}"
        with durable.storage("make a snapshot folder"):
            folder.mkdir(parents=True, mode=0o711)
        return Draft(snapshot, folder)

    def drafts(self, agent: AgentId) -> Sequence[Draft]:
        """Snapshots that were cut off under way, oldest first."""
        return [
            Draft(SnapshotId(name.removesuffix(_PARTIAL)), self._folder(agent) / name)
            for name in self._names(agent)
            if name.endswith(_PARTIAL)
        ]

    def plan(
        self, draft: Draft, record: Record, definition: str, hypervisor: str, disks: Sequence[Path]
    ) -> None:
        """Write down what the draft will hold, before the VM is stopped.

        With the plan on disk, a process that dies at any later point leaves enough behind to
        `seal` the draft or to put everything back.
        """
        with durable.storage("write the snapshot's definition"):
            durable.write(draft.folder / _DEFINITION, definition.encode())
            plan = {
                "format": _FORMAT,
                "agent": record.id,
                "name": record.name,
                "created": time.time(),
                "hypervisor": hypervisor,
                "is_frozen": record.is_frozen,
                "disks": {f"disk-{index}": str(disk) for index, disk in enumerate(disks)},
            }
            durable.write(draft.folder / _PLAN, json.dumps(plan, indent=1).encode())

    def seal(self, agent: AgentId, draft: Draft) -> Snapshot:
        """Make a draft a snapshot: take in the disks, digest, fsync, manifest, rename.

        The VM must be off. The disks move into the snapshot, so that nothing can start the VM on
        them behind its memory's back. Each step may be repeated after a crash.
        """
        plan = _read_plan(draft)
        with durable.storage("complete the snapshot"):
            for name, live in plan["disks"].items():
                durable.move(Path(live), draft.folder / name)
            names = sorted(
                str(path.relative_to(draft.folder))
                for path in draft.folder.rglob("*")
                if path.is_file() and path.name not in (_MANIFEST, _PLAN) and path.name[0] != "."
            )
            if not any(name.split("/")[0] == _MEMORY for name in names):
                raise _damaged(draft.folder, "it has no memory")
            with ThreadPoolExecutor(2) as pool:
                digests = list(pool.map(lambda name: durable.digest(draft.folder / name), names))
            files = {
                name: {"digest": digest, "size": (draft.folder / name).stat().st_size}
                for name, digest in zip(names, digests, strict=True)
            }
            durable.write(
                draft.folder / _MANIFEST, json.dumps(plan | {"files": files}, indent=1).encode()
            )
            (draft.folder / _PLAN).unlink()
            os.rename(draft.folder, draft.folder.with_name(draft.id))
            durable.sync_folder(draft.folder.parent)
        return self.read(agent, draft.id)

    def put_back(self, draft: Draft) -> None:
        """Undo what `seal` moved: the disks return to where the VM looks for them."""
        for name, live in _read_plan(draft)["disks"].items():
            if (draft.folder / name).exists():
                durable.move(draft.folder / name, Path(live))

    def discard(self, draft: Draft) -> None:
        """Remove a draft. It must hold no disk: that would be the agent's only one."""
        if any(path.name.startswith("disk-") for path in draft.folder.iterdir()):
            raise SnapshotError(
                "The unfinished snapshot holds the agent's disk",
                f"{draft.folder} is kept as it is.",
                "Resume the agent to take it up again.",
            )
        shutil.rmtree(draft.folder)

    def verify(self, agent: AgentId, snapshot: SnapshotId, hypervisor: str) -> None:
        """Check every file against the manifest, and who made it against who shall restore it.

        Raises SnapshotError that says what differs.
        """
        folder = self._folder(agent) / snapshot
        manifest = _read_manifest(folder)
        if manifest.get("agent") != agent:
            raise _damaged(folder, f"it is of another agent, {manifest.get('agent')}")
        if manifest.get("hypervisor") != hypervisor:
            raise SnapshotError(
                "The snapshot was made by another hypervisor version",
                f"Made by {manifest.get('hypervisor')}, this host runs {hypervisor}.",
                "Restore it on a host with the version that made it.",
            )
        files: dict[str, dict[str, Any]] = manifest["files"]
        for name, entry in files.items():
            path = folder / name
            if not path.is_file():
                raise _damaged(folder, f"{name} is missing")
            if path.stat().st_size != entry["size"]:
                raise _damaged(
                    folder, f"{name} has {path.stat().st_size} bytes instead of {entry['size']}"
                )
        with ThreadPoolExecutor(2) as pool:
            for name, digest in zip(
                files, pool.map(lambda name: durable.digest(folder / name), files), strict=True
            ):
                if digest != files[name]["digest"]:
                    raise _damaged(folder, f"the content of {name} was altered")

    def stage(self, agent: AgentId, snapshot: SnapshotId) -> Path:
        """Copy a verified snapshot's disks to where its VM looks for them.

        Returns the saved memory, to be restored. A disk that stands there already is an error:
        it might be newer than the snapshot.
        """
        folder = self._folder(agent) / snapshot
        for name, live in _read_manifest(folder)["disks"].items():
            if Path(live).exists():
                raise SnapshotError(
                    "A disk stands where the snapshot's disk must go",
                    f"{live} was written after the agent was paused.",
                    "Move it away if the snapshot is what you want.",
                )
            with durable.storage("copy the snapshot's disk"):
                durable.copy(folder / name, Path(live))
        return folder / _MEMORY

    def unstage(self, agent: AgentId, snapshot: SnapshotId) -> None:
        """Remove what `stage` copied, after a restore that failed. The snapshot stays."""
        for live in _read_manifest(self._folder(agent) / snapshot)["disks"].values():
            Path(live).unlink(missing_ok=True)

    def unstage_untouched(self, agent: AgentId, snapshot: SnapshotId) -> None:
        """Remove staged disks that no VM has written to; a disk that differs stays."""
        folder = self._folder(agent) / snapshot
        manifest = _read_manifest(folder)
        for name, live in manifest["disks"].items():
            path = Path(live)
            if path.exists() and durable.digest(path) == manifest["files"][name]["digest"]:
                path.unlink()

    def definition(self, agent: AgentId, snapshot: SnapshotId) -> str:
        return (self._folder(agent) / snapshot / _DEFINITION).read_text()

    def prune(self, agent: AgentId, keep: int, in_use: SnapshotId | None) -> Sequence[SnapshotId]:
        """The retention rule: of the snapshots that the agent does not stand on, keep `keep`.

        The newest stay; `in_use`, in which it is saved at present, is never removed.
        """
        spare = [snapshot for snapshot in self.ids(agent) if snapshot != in_use]
        doomed = spare[: max(0, len(spare) - keep)]
        for snapshot in doomed:
            folder = self._folder(agent) / snapshot
            # Renamed first: a half-removed snapshot must not look like one.
            grave = folder.with_name(f".{snapshot}.removed")
            with durable.storage("remove an old snapshot"):
                os.rename(folder, grave)
                shutil.rmtree(grave)
        return doomed

    def remove(self, agent: AgentId) -> None:
        """Remove all snapshots of an agent, finished or not."""
        if self._folder(agent).exists():
            shutil.rmtree(self._folder(agent))

    def _names(self, agent: AgentId) -> Sequence[str]:
        folder = self._folder(agent)
        if not folder.is_dir():
            return []
        return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))

    def _folder(self, agent: AgentId) -> Path:
        return self._root / agent


def _damaged(folder: Path, what: str) -> SnapshotError:
    return SnapshotError(
        "The snapshot is not whole",
        f"{folder.name}: {what}.",
        f"Nothing was restored and nothing removed; look at {folder}.",
    )


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        raw = json.loads((folder / _MANIFEST).read_bytes())
    except (OSError, ValueError) as error:
        raise _damaged(folder, f"its manifest cannot be read ({error})") from error
    if not isinstance(raw, dict) or raw.get("format") != _FORMAT:
        raise _damaged(folder, "its manifest is of an unknown format")
    return raw


def _read_plan(draft: Draft) -> dict[str, Any]:
    for name in (_PLAN, _MANIFEST):
        path = draft.folder / name
        if path.exists():
            try:
                plan = json.loads(path.read_bytes())
            except (OSError, ValueError) as error:
                raise _damaged(draft.folder, f"{name} cannot be read ({error})") from error
            if isinstance(plan, dict) and isinstance(plan.get("disks"), dict):
                return plan
    raise _damaged(draft.folder, "it has no plan")
