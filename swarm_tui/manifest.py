"""What stands beside a snapshot's files: its manifest, its plan while it is made, and its label.

Whoever may write to the folder may have written them: what cannot be believed is damaged.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from swarm_tui.errors import SnapshotError
from swarm_tui.model import Cause, Origin
from swarm_tui.text import EMPTY, Safe, sanitize

MANIFEST: Final = "manifest.json"
PLAN: Final = "plan.json"
DEFINITION: Final = "definition.xml"
LABEL: Final = "label.json"
FORMAT: Final = 1


def damaged(folder: Path, what: str) -> SnapshotError:
    return SnapshotError(
        "The snapshot is not whole",
        f"{folder.name}: {what}.",
        f"Nothing was restored and nothing removed; look at {folder}.",
    )


def read_manifest(folder: Path) -> dict[str, Any]:
    manifest = _read_json(folder, MANIFEST)
    files = manifest.get("files")
    if not isinstance(files, dict) or not all(
        isinstance(entry, dict) and {"digest", "size"} <= entry.keys() for entry in files.values()
    ):
        raise damaged(folder, "its manifest does not list its files")
    return manifest


def read_plan(folder: Path) -> dict[str, Any]:
    # Between the manifest and the rename, a crash may have left either.
    is_planned = (folder / PLAN).exists()
    return _read_json(folder, PLAN if is_planned else MANIFEST)


def copies(plan: dict[str, Any]) -> bool:
    return plan.get("is_copied") is True


def read_origin(raw: object) -> Origin:
    """Of a manifest; what older ones do not tell is unknown."""
    told = raw if isinstance(raw, dict) else {}
    cause = told.get("cause")
    known = Cause(cause) if cause in tuple(Cause) else Cause.PAUSE
    return Origin(known, sanitize(str(told.get("told", ""))), sanitize(str(told.get("by", ""))))


def read_label(folder: Path) -> tuple[Safe, bool]:
    """A person's name and pin. A label that cannot be read holds the snapshot: it was wanted."""
    try:
        raw = json.loads((folder / LABEL).read_bytes())
    except FileNotFoundError:
        return EMPTY, False
    except (OSError, ValueError):
        return EMPTY, True
    if not isinstance(raw, dict):
        return EMPTY, True
    return sanitize(str(raw.get("title", ""))), raw.get("is_pinned") is not False


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    try:
        raw = json.loads((folder / name).read_bytes())
    except (OSError, ValueError) as error:
        raise damaged(folder, f"{name} cannot be read ({error})") from error
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise damaged(folder, f"{name} is of an unknown format")
    if not isinstance(raw.get("disks"), dict):
        raise damaged(folder, f"{name} does not name its disks")
    return raw
