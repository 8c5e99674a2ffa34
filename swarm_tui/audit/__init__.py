"""The append-only record of what was done to which agent, by whom, and how it ended.

One JSON object a line: an intent before the act, an outcome after it. The intent is on the disk
before anything happens; if it cannot be written, nothing happens. An intent without an outcome
means that nobody knows how it ended. The lines are a chain: see `chain`. Where there is a store,
an intent is in it, too, before anything happens, and all supervisors see each other's acts.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from swarm_tui.audit.chain import Chain, Proof, parse
from swarm_tui.audit.shared import Log, Shared
from swarm_tui.database import Database
from swarm_tui.errors import AuditError, StorageFull, StoreError, SwarmError
from swarm_tui.model import Agent, HostName
from swarm_tui.person import actor
from swarm_tui.text import Safe, sanitize

_TAIL_BYTES: Final = 1 << 20
_RECENT: Final = 500
_MOST: Final = 100_000
_RETRY_S: Final = 3.0
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


@dataclass(frozen=True, slots=True)
class Whole:
    """What holds of the log and of all others that the store knows."""

    proof: Proof
    others: Sequence[Log]
    """Logs of other homes, and earlier ones of this home whose file was moved away."""


class Audit:
    """The log of one home. Several processes may append to it."""

    def __init__(self, path: Path, database: Database | None = None) -> None:
        """`database`: None, nobody else acts."""
        self._chain = Chain(path)
        self._shared = Shared(database, self._chain) if database else None
        self._actor = actor()
        self._last: tuple[object, str | None, Sequence[Entry]] | None = None
        """What was read last: acts are looked at again and again while they are shown."""
        self.lag: SwarmError | None = None
        """Why the store lacks something of the log at present; `catch_up` brings it."""
        self.gap: SwarmError | None = None
        """Why the acts of others were missing when acts were read last."""

    def intend(self, verb: str, *, agent: str, name: str, host: str, detail: str = "") -> str:
        """Write an intent, durably, and return its id. `verb` is a Verb, or "gc".

        Raises AuditError: then do nothing.
        """
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
        try:
            self.catch_up()
        except (StoreError, StorageFull) as error:
            with suppress(AuditError):
                nothing = "not recorded in the store, so nothing was done"
                self.conclude(entry, Outcome.FAILED, nothing)
            raise AuditError(
                "The act cannot be recorded in the store",
                str(error),
                "Nothing is done without its record. Try again when the store is back.",
            ) from error
        return entry

    def conclude(self, entry: str, outcome: Outcome, detail: str = "") -> None:
        """Write how it ended. Raises AuditError.

        When the store is out of reach, `lag` says so, and it comes there with what is next.
        """
        self._append({"id": entry, "record": "outcome", "outcome": outcome, "detail": detail})
        with suppress(StoreError, StorageFull):
            self.catch_up()

    def catch_up(self) -> None:
        """Bring to the store what it lacks of the log. Raises StoreError, StorageFull, AuditError.

        AuditError: the store knows lines that the log has not.
        """
        if self._shared is None:
            return
        try:
            self._shared.bring()
        except SwarmError as error:
            self.lag = error
            raise
        self.lag = None

    async def keep_up(self, on_fault: Callable[[SwarmError], None]) -> None:
        """Bring what an earlier process left, then whatever the store lacks, again and again.

        Each time that it goes wrong anew is told to `on_fault` once.
        """
        is_first, is_told = True, False
        while True:
            if is_first or self.lag:
                try:
                    await asyncio.to_thread(self.catch_up)
                    is_told = False
                except SwarmError as error:
                    if not is_told:
                        on_fault(error)
                    is_told = True
            is_first = False
            await asyncio.sleep(_RETRY_S)

    async def around(
        self,
        verb: str,
        act: Callable[[], Awaitable[Safe]],
        *,
        agent: Agent | None,
        host: HostName,
        detail: str,
        is_unknown: Callable[[SwarmError], bool],
        on_fault: Callable[[AuditError], None],
        on_end: Callable[[Entry], None],
    ) -> Safe:
        """Intent on disk, then the act, then its outcome. No intent, no act.

        `is_unknown` tells errors after which nobody knows whether it was done. An outcome that
        cannot be written is told to `on_fault`: the act is over by then. `on_end` has the whole.
        """
        began, (whose, name) = time.time(), (agent.id, agent.name) if agent else ("", "")
        entry = await asyncio.to_thread(
            self.intend,
            verb,
            agent=whose,
            name=name,
            host=host,
            detail=detail,
        )

        async def conclude(outcome: Outcome, told: str) -> None:
            try:
                await asyncio.to_thread(self.conclude, entry, outcome, told)
            except AuditError as error:
                on_fault(error)
            raw = {"id": entry, "at": began, "actor": self._actor, "verb": verb, "agent": whose}
            raw |= {"name": name, "host": host, "detail": detail}
            on_end(_concluded(_entry(raw), {"outcome": outcome, "detail": told, "at": time.time()}))

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
        """The newest acts of everybody, oldest first; on all agents when `agent` is None.

        When the store is out of reach they are those of this home, and `gap` says so.

        Raises AuditError when the log cannot be read.
        """
        stamp = self._stamp()
        if stamp is None or self._last is None or self._last[:2] != (stamp, agent):
            own = [
                entry
                for entry in _entries(self._chain.lines(-_TAIL_BYTES))
                if agent in (None, entry.agent)
            ]
            acts = self._joined(own, agent, None, _RECENT)
            self._last = None if self.gap else (stamp, agent, acts)
            return acts
        self.gap = None
        return self._last[2]

    def _stamp(self) -> Sequence[object] | None:
        """Another one whenever something was written; None when nobody can tell."""
        try:
            return (self._chain.size(), self._shared.logs() if self._shared else ())
        except (StoreError, StorageFull):
            return None

    def since(self, at: float) -> Sequence[Entry]:
        """As `recent`, all that began at `at` (Unix seconds) or later."""
        own = [entry for entry in _entries(self._chain.lines()) if entry.at >= at]
        return self._joined(own, None, at, _MOST)

    def _joined(
        self, own: Sequence[Entry], agent: str | None, since: float | None, most: int
    ) -> Sequence[Entry]:
        """What the store has, with what it has not yet of our own."""
        if self._shared is None:
            return own[-most:]
        try:
            found = {entry.id: entry for entry in _entries(self._shared.acts(agent, since, most))}
        except (StoreError, StorageFull) as error:
            self.gap = error
            return own[-most:]
        self.gap = None
        for entry in own:
            known = found.get(entry.id)
            if known is None or known.outcome is None:
                found[entry.id] = entry
        return sorted(found.values(), key=lambda entry: entry.at)[-most:]

    def verify(self) -> Whole:
        """Check the whole log, and all that the store has of all logs.

        Raises AuditError that says which line is the first wrong one, and StoreError.
        """
        proof = self._chain.verify()
        if self._shared is None:
            return Whole(proof, ())
        self.catch_up()
        logs = self._shared.verify()
        here = proof.head.chain if proof.head else None
        gone = [log for log in logs if self._shared.is_here(log)]
        if here is None and gone:
            raise AuditError(
                "The audit log is gone",
                f"{self._chain.path} holds no line of it; the store knows {gone[-1].seq:,}.",
                "`swarm-tui audit` still shows them, from the store.",
            )
        return Whole(proof, [log for log in logs if log.chain != here])


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
