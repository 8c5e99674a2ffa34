"""The append-only record of what was done to which agent, by whom, and how it ended.

One JSON object a line: an intent before the act, an outcome after it. The intent is on the disk
before anything happens; if it cannot be written, nothing happens. An intent without an outcome
means that nobody knows how it ended. The lines are a chain: see `chain`.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from swarm_tui.audit.chain import Chain, Proof, parse
from swarm_tui.errors import AuditError, SwarmError
from swarm_tui.model import Agent, HostName, Verb
from swarm_tui.text import Safe, sanitize

_TAIL_BYTES: Final = 1 << 20
_DETAIL: Final = 20_000
"""Characters kept of what is said beside an act."""


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
    """The log of one home. Several processes may append to it."""

    def __init__(self, path: Path) -> None:
        self._chain = Chain(path)
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
        detail = str(fields.get("detail", ""))[:_DETAIL]
        self._chain.append({"at": round(time.time(), 3), **fields, "detail": detail})

    def recent(self, agent: str | None = None) -> Sequence[Entry]:
        """Entries of the file's last MiB, oldest first; all agents when `agent` is None.

        Raises AuditError when the file cannot be read.
        """
        entries = _entries(self._chain.lines(-_TAIL_BYTES))
        return [entry for entry in entries if agent in (None, entry.agent)]

    def since(self, at: float) -> Sequence[Entry]:
        """Entries of the whole file that began at `at` (Unix seconds) or later, oldest first.

        Raises AuditError when the file cannot be read.
        """
        return [entry for entry in _entries(self._chain.lines()) if entry.at >= at]

    def verify(self) -> Proof:
        """Check the whole log. Raises AuditError that says which line is the first wrong one."""
        return self._chain.verify()


def _entries(lines: Iterable[bytes]) -> Sequence[Entry]:
    """Acts with their outcomes. A line cut by a crash is passed over: its act is unfinished."""
    entries: dict[str, Entry] = {}
    for line in lines:
        raw = parse(line)
        if raw is None:
            continue
        entry = str(raw.get("id"))
        if raw.get("record") == "intent":
            entries[entry] = _entry(raw)
        elif raw.get("record") == "outcome" and entry in entries:
            entries[entry] = _concluded(entries[entry], raw)
    return list(entries.values())


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
