"""What we keep of agents on disk across restarts of everything else: one folder an agent.

    <root>/<uuid>/record.json        the facts of `model.Record`, replaced atomically
    <root>/<uuid>/lock               held by the process that has a verb at work on the agent

Everything here blocks: reads briefly, `write` as long as the disk takes to sync.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from swarm_tui import durable
from swarm_tui.errors import Busy, NotFound, SwarmError
from swarm_tui.model import AgentId, HostName, Judgement, Record, SnapshotId, Verb
from swarm_tui.text import sanitize

_RECORD: Final = "record.json"

Stamp = tuple[int, int]
"""Tells one version of a record's file from the next: when it was written, and its inode."""


class Catalogue:
    """The folder of all agents."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def records(self, on_error: Callable[[SwarmError], None] | None = None) -> Sequence[Record]:
        """Every record; a folder without one is left out.

        One that cannot be read is told to `on_error` and left out; without it, SwarmError is
        raised.
        """
        found = []
        for agent in sorted(self.stamps()):
            try:
                record = self.record(agent)
            except SwarmError as error:
                if on_error is None:
                    raise
                on_error(error)
            else:
                found += [record] if record else []
        return found

    def record(self, agent: AgentId) -> Record | None:
        """One record, None when there is none. Raises SwarmError when it cannot be read."""
        path = self.folder(agent) / _RECORD
        try:
            raw = json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise _unreadable(path, str(error)) from error
        if not isinstance(raw, dict):
            raise _unreadable(path, "it is not an object")
        try:
            since = raw.get("since")
            return Record(
                id=agent,
                name=sanitize(str(raw.get("name", ""))),
                host=HostName(sanitize(str(raw.get("host", "")))),
                is_frozen=raw.get("is_frozen") is True,
                saved_in=_snapshot(raw.get("saved_in")),
                saving_in=_snapshot(raw.get("saving_in")),
                verb=None if raw.get("verb") is None else Verb(raw["verb"]),
                review=_number(raw.get("review")),
                verdict=None if raw.get("verdict") is None else Judgement(raw["verdict"]),
                since=since if isinstance(since, int | float) and math.isfinite(since) else None,
            )
        except ValueError as error:
            # Read as if nothing were there, it would be overwritten, and the state behind it lost.
            raise _unreadable(path, str(error)) from error

    def write(self, record: Record) -> Record:
        """Replace the record, durably; returns it with `since` set. Raises StorageFull."""
        was = self.record(record.id)
        if was is None or (was.is_frozen, was.saved_in) != (record.is_frozen, record.saved_in):
            record = replace(record, since=time.time())
        else:
            record = replace(record, since=was.since)
        content = {
            "name": record.name,
            "host": record.host,
            "is_frozen": record.is_frozen,
            "saved_in": record.saved_in,
            "saving_in": record.saving_in,
            "verb": record.verb,
            "review": record.review,
            "verdict": record.verdict,
            "since": record.since,
        }
        with durable.storage("write the agent's record"):
            self._make_folder(record.id)
            durable.write(self.folder(record.id) / _RECORD, json.dumps(content, indent=1).encode())
        return record

    def remove(self, agent: AgentId) -> None:
        """Remove all that is kept of an agent."""
        folder = self.folder(agent)
        with durable.storage("remove the agent's record"):
            if folder.exists():
                (folder / _RECORD).unlink(missing_ok=True)
                durable.sync_folder(folder)
        # The rest is its log, to which another process may be writing in this very moment.
        shutil.rmtree(folder, ignore_errors=True)

    def stamps(self) -> Mapping[AgentId, Stamp]:
        """The version of each record's file; to notice the acts of other processes."""
        stamps: dict[AgentId, Stamp] = {}
        with durable.storage("read the agents' records"):
            try:
                names = os.listdir(self._root)
            except FileNotFoundError:
                return stamps
            for name in names:
                try:
                    status = os.stat(f"{self._root}/{name}/{_RECORD}")
                except (FileNotFoundError, NotADirectoryError):
                    continue
                stamps[AgentId(name)] = (status.st_mtime_ns, status.st_ino)
        return stamps

    @contextmanager
    def lock(self, agent: AgentId) -> Iterator[None]:
        """Hold the agent against verbs of this and other processes. Raises Busy."""
        with durable.storage("lock the agent"):
            self._make_folder(agent)
            handle = os.open(self.folder(agent) / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            with durable.storage("lock the agent"):
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise Busy(
                        "Another verb is at work on this agent",
                        "Its lock is held, by this or another swarm-tui process.",
                        "Wait until it is done, then try again.",
                    ) from error
            yield
        finally:
            os.close(handle)

    def is_locked(self, agent: AgentId) -> bool:
        """Whether a verb is at work on the agent, in whatever process.

        A verb that begins in the very moment of asking may meet Busy: ask only where a record
        says that a verb is in flight.
        """
        if not (self.folder(agent) / "lock").exists():
            return False
        try:
            with self.lock(agent):
                return False
        except Busy:
            return True

    def folder(self, agent: AgentId) -> Path:
        """The agent's folder; it may not exist. Raises NotFound for an id that is no name."""
        if not agent or "/" in agent or agent.startswith("."):
            raise NotFound("No such agent", repr(agent))
        return self._root / agent

    def _make_folder(self, agent: AgentId) -> None:
        self.folder(agent).mkdir(parents=True, exist_ok=True, mode=0o711)


def _snapshot(raw: object) -> SnapshotId | None:
    """Raises ValueError for what is no name of a snapshot's folder."""
    if raw is None:
        return None
    if not isinstance(raw, str) or not raw or "/" in raw or raw.startswith("."):
        raise ValueError(f"{raw!r} is no snapshot")
    return SnapshotId(raw)


def _number(raw: object) -> int | None:
    """Raises ValueError for what is no number of a review."""
    if raw is None:
        return None
    if not isinstance(raw, int) or isinstance(raw, bool) or raw < 1:
        raise ValueError(f"{raw!r} is no review")
    return raw


def _unreadable(path: Path, why: str) -> SwarmError:
    return SwarmError(
        "An agent's record cannot be read", f"{path}: {why}", "Mend or move that file away."
    )
