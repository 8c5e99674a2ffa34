"""The append-only record of what was done to which agent, by whom, and how it ended.

One JSON object a line: an intent before the act, an outcome after it. The intent is on the disk
before anything happens; if it cannot be written, nothing happens. An intent without an outcome
means that nobody knows how it ended.
"""

from __future__ import annotations

import asyncio
import fcntl
import getpass
import json
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from swarm_tui import durable
from swarm_tui.errors import AuditError, SwarmError
from swarm_tui.model import Agent, HostName, Verb
from swarm_tui.text import Safe, sanitize

_TAIL_BYTES: Final = 1 << 20


class Outcome(StrEnum):
    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Entry:
    """One act: its intent and, once there is one, its outcome."""

    id: str
    at: float
    actor: Safe
    verb: Safe
    agent: Safe
    name: Safe
    host: Safe
    detail: Safe
    outcome: Outcome | None
    ended: float | None


class Audit:
    """The file. Several processes may append to it: each holds its lock for a line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._actor = _actor()

    def intend(self, verb: Verb, *, agent: str, name: str, host: str, detail: str = "") -> str:
        """Write an intent, durably, and return its id. Raises AuditError."""
        entry = secrets.token_hex(8)
        self._append(
            {
                "id": entry,
                "record": "intent",
                "actor": self._actor,
                "verb": verb,
                "agent": agent,
                "name": name,
                "host": host,
                "detail": detail,
            }
        )
        return entry

    def conclude(self, entry: str, outcome: Outcome, detail: str = "") -> None:
        """Write how it ended. Raises AuditError."""
        self._append({"id": entry, "record": "outcome", "outcome": outcome, "detail": detail})

    async def around(
        self,
        verb: Verb,
        act: Callable[[], Awaitable[Safe]],
        *,
        agent: Agent | None,
        host: HostName,
        detail: str,
        is_unknown: Callable[[SwarmError], bool],
        on_fault: Callable[[AuditError], None],
    ) -> Safe:
        """Intent on disk, then the act, then its outcome. No intent, no act.

        `is_unknown` tells errors after which nobody knows whether it was done. An outcome that
        cannot be written is told to `on_fault`: the act is over by then.
        """
        entry = await asyncio.to_thread(
            self.intend,
            verb,
            agent=agent.id if agent else "",
            name=agent.name if agent else "",
            host=host,
            detail=detail,
        )

        async def conclude(outcome: Outcome, told: str) -> None:
            try:
                await asyncio.to_thread(self.conclude, entry, outcome, told)
            except AuditError as error:
                on_fault(error)

        try:
            done = await act()
        except SwarmError as error:
            await conclude(Outcome.UNKNOWN if is_unknown(error) else Outcome.FAILED, str(error))
            raise
        await conclude(Outcome.DONE, done)
        return done

    def _append(self, fields: dict[str, Any]) -> None:
        line = json.dumps({"at": round(time.time(), 3), **fields}, ensure_ascii=True) + "\n"
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            is_new = not self._path.exists()
            handle = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                # While another one writes, the file's size may be ahead of its last byte.
                fcntl.flock(handle, fcntl.LOCK_EX)
                size = os.fstat(handle).st_size
                if size and os.pread(handle, 1, size - 1) != b"\n":
                    line = "\n" + line  # a crash or a full disk cut the last one short
                if os.write(handle, line.encode()) != len(line):
                    raise OSError("the line was cut short")
                os.fsync(handle)
            finally:
                os.close(handle)
            if is_new:
                durable.sync_folder(self._path.parent)
        except OSError as error:
            raise AuditError(
                "The audit log cannot be written",
                f"{self._path}: {error}",
                "Nothing is done without its record: make room or mend the folder's permissions.",
            ) from error

    def recent(self, agent: str | None = None) -> Sequence[Entry]:
        """Entries of the file's last MiB, oldest first; all agents when `agent` is None.

        Raises AuditError when the file cannot be read.
        """
        try:
            with open(self._path, "rb") as file:
                file.seek(0, os.SEEK_END)
                start = max(0, file.tell() - _TAIL_BYTES)
                file.seek(start)
                lines = file.read().splitlines()[1 if start else 0 :]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise AuditError("The audit log cannot be read", f"{self._path}: {error}") from error
        entries: dict[str, Entry] = {}
        for line in lines:
            try:
                raw = json.loads(line)
            except ValueError:
                continue  # a line cut by a crash: its act shows as unfinished
            if not isinstance(raw, dict):
                continue
            entry = str(raw.get("id"))
            if raw.get("record") == "intent":
                entries[entry] = _entry(raw)
            elif raw.get("record") == "outcome" and entry in entries:
                entries[entry] = _concluded(entries[entry], raw)
        return [entry for entry in entries.values() if agent in (None, entry.agent)]


def _time(raw: dict[str, Any]) -> float:
    at = raw.get("at")
    return float(at) if isinstance(at, int | float) else 0.0


def _entry(raw: dict[str, Any]) -> Entry:
    def text(key: str) -> Safe:
        return sanitize(str(raw.get(key, "")))

    return Entry(
        id=text("id"),
        at=_time(raw),
        actor=text("actor"),
        verb=text("verb"),
        agent=text("agent"),
        name=text("name"),
        host=text("host"),
        detail=text("detail"),
        outcome=None,
        ended=None,
    )


def _concluded(entry: Entry, raw: dict[str, Any]) -> Entry:
    outcome = raw.get("outcome")
    return replace(
        entry,
        detail=sanitize(str(raw.get("detail", ""))) or entry.detail,
        outcome=Outcome(outcome) if outcome in list(Outcome) else Outcome.UNKNOWN,
        ended=_time(raw),
    )


def _actor() -> str:
    """Who acts: login name and machine, as the system knows them."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in some containers
        name = f"uid {os.getuid()}"
    return f"{name}@{socket.gethostname()}"
