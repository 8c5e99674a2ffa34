"""What we keep of agents on disk across restarts of everything else: one folder an agent.

    <root>/<uuid>/record.json        the facts of `model.Record`, replaced atomically
    <root>/<uuid>/lock               held by the process that has a verb at work on the agent

Everything here blocks, briefly.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from swarm_tui import durable
from swarm_tui.errors import Busy, NotFound, SwarmError
from swarm_tui.model import AgentId, HostName, Record, SnapshotId, Verb
from swarm_tui.text import sanitize


class Catalogue:
    """The folder of all agents."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def records(self) -> Sequence[Record]:
        """Every record; a folder without one is left out. Raises SwarmError."""
        if not self._root.is_dir():
            return []
        found = (self.record(AgentId(folder.name)) for folder in sorted(self._root.iterdir()))
        return [record for record in found if record]

    def record(self, agent: AgentId) -> Record | None:
        """One record, None when there is none. Raises SwarmError when it cannot be read."""
        path = self.folder(agent) / "record.json"
        try:
            raw = json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise _unreadable(path, str(error)) from error
        if not isinstance(raw, dict):
            raise _unreadable(path, "it is not an object")
        return Record(
            id=agent,
            name=sanitize(str(raw.get("name", ""))),
            host=HostName(sanitize(str(raw.get("host", "")))),
            is_frozen=raw.get("is_frozen") is True,
            saved_in=SnapshotId(str(raw["saved_in"])) if raw.get("saved_in") else None,
            verb=Verb(raw["verb"]) if raw.get("verb") in set(Verb) else None,
            since=raw["since"] if isinstance(raw.get("since"), float) else None,
        )

    def write(self, record: Record) -> Record:
        """Replace the record, durably; returns it with `since` set to now. Raises StorageFull."""
        record = replace(record, since=time.time())
        content = {
            "name": record.name,
            "host": record.host,
            "is_frozen": record.is_frozen,
            "saved_in": record.saved_in,
            "verb": record.verb,
            "since": record.since,
        }
        with durable.storage("write the agent's record"):
            self._make_folder(record.id)
            durable.write(
                self.folder(record.id) / "record.json", json.dumps(content, indent=1).encode()
            )
        return record

    def remove(self, agent: AgentId) -> None:
        """Remove all that is kept of an agent."""
        if self.folder(agent).exists():
            with durable.storage("remove the agent's record"):
                shutil.rmtree(self.folder(agent))

    def stamps(self) -> Mapping[AgentId, int]:
        """When each record was last replaced, in ns; to notice the acts of other processes."""
        stamps: dict[AgentId, int] = {}
        try:
            entries = list(os.scandir(self._root))
        except FileNotFoundError:
            return stamps
        for entry in entries:
            try:
                status = os.stat(os.path.join(entry.path, "record.json"))
            except (FileNotFoundError, NotADirectoryError):
                continue
            stamps[AgentId(entry.name)] = status.st_mtime_ns
        return stamps

    @contextmanager
    def lock(self, agent: AgentId) -> Iterator[None]:
        """Hold the agent against verbs of this and other processes. Raises Busy."""
        with durable.storage("lock the agent"):
            self._make_folder(agent)
            handle = os.open(self.folder(agent) / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Busy(
                    "Another verb is at work on this agent",
                    "Another swarm-tui process holds it.",
                    "Wait until it is done, then try again.",
                ) from error
            yield
        finally:
            os.close(handle)

    def folder(self, agent: AgentId) -> Path:
        """The agent's folder; it may not exist. Raises NotFound for an id that is no name."""
        if not agent or "/" in agent or agent.startswith("."):
            raise NotFound("No such agent", repr(agent))
        return self._root / agent

    def _make_folder(self, agent: AgentId) -> None:
        # QEMU may run as another user and must pass through to the snapshots below.
        self.folder(agent).mkdir(parents=True, exist_ok=True, mode=0o711)


def _unreadable(path: Path, why: str) -> SwarmError:
    return SwarmError(
        "An agent's record cannot be read", f"{path}: {why}", "Mend or move that file away."
    )
