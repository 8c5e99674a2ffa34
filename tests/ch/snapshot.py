"""A saved VM: three files in a folder, named as Cloud Hypervisor names them.

`config.json` is the VM's configuration, `memory-ranges` what QEMU wrote (memory and devices) and
`state.json` says which version it is of, and how long `memory-ranges` must be.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from .hardware import Config


class SnapshotError(Exception):
    """Not a snapshot, or not a whole one, or not one to be restored here."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    folder: Path

    @property
    def memory(self) -> Path:
        return self.folder / "memory-ranges"

    def begin(self, config: Config, version: str) -> int:
        """A descriptor for the memory. Raises OSError, also where a file is there already."""
        _write_new(self.folder / "config.json", config)
        _write_new(self.folder / "state.json", {"version": version})
        return os.open(self.memory, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)

    def finish(self, version: str) -> None:
        # The real one is never shorter than the memory is; QEMU's reader stops before the rest.
        size = _read(self.folder / "config.json")["memory"]["size"]
        os.truncate(self.memory, max(size, self.memory.stat().st_size))
        state = {"version": version, "memory_bytes": self.memory.stat().st_size}
        (self.folder / "state.json").write_text(json.dumps(state))

    def read(self, version: str, *, needs_same_version: bool) -> Config:
        """The configuration. Raises SnapshotError, OSError."""
        config: Config = _read(self.folder / "config.json")
        state = _read(self.folder / "state.json")
        wanted, found = state.get("memory_bytes"), self.memory.stat().st_size
        if found != wanted:
            raise SnapshotError(f"{self.memory} has {found} bytes instead of {wanted}")
        if needs_same_version and state.get("version") != version:
            raise SnapshotError(f"it is of version {state.get('version')}, this is {version}")
        return config


def snapshot_of(url: str) -> Snapshot:
    """The snapshot in the folder of a file: URL. Raises SnapshotError."""
    parts = urlsplit(url)
    folder = Path(unquote(parts.path))
    if parts.scheme != "file" or not folder.is_dir():
        raise SnapshotError(f"{url} is not a folder")
    return Snapshot(folder)


def _write_new(path: Path, content: object) -> None:
    with open(path, "x") as file:
        json.dump(content, file)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise SnapshotError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise SnapshotError(f"{path} is no object")
    return content
