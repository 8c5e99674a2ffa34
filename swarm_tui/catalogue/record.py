"""A record as the store has it, and as a file had it in earlier versions. Never guessed at."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Final

from swarm_tui.catalogue.birth import read_birth, render_birth
from swarm_tui.database import Transaction
from swarm_tui.errors import SwarmError
from swarm_tui.model import AgentId, HostName, Judgement, Record, SnapshotId, Verb
from swarm_tui.text import sanitize

FIELDS: Final = (
    "name",
    "host",
    "is_frozen",
    "saved_in",
    "saving_in",
    "verb",
    "review",
    "verdict",
    "since",
    "birth",
)
_COLUMNS: Final = ", ".join(("agent", *FIELDS))
SELECT: Final = f"SELECT {_COLUMNS} FROM records"
_INSERT: Final = (
    f"INSERT INTO records ({_COLUMNS}) VALUES ({', '.join('?' * (1 + len(FIELDS)))})"
    " ON CONFLICT (agent) DO "
)
_REPLACE: Final = f"UPDATE SET {', '.join(f'{field} = excluded.{field}' for field in FIELDS)}"


def read_row(row: tuple[Any, ...], place: str) -> Record:
    """Raises SwarmError when it holds what no record holds."""
    agent = AgentId(sanitize(str(row[0])))
    return _read(agent, dict(zip(FIELDS, row[1:], strict=True)), f"{place}, records, {agent}")


def read_file(agent: AgentId, path: Path) -> Record:
    """Raises SwarmError when it cannot be read, and FileNotFoundError."""
    try:
        raw = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise _unreadable(str(path), str(error)) from error
    if not isinstance(raw, dict):
        raise _unreadable(str(path), "it is not an object")
    return _read(agent, raw, str(path))


def insert(transaction: Transaction, record: Record) -> bool:
    """Add one that is not there; whether it was not."""
    return transaction.run(f"{_INSERT} NOTHING", *_values(record)) == 1


def replace_row(transaction: Transaction, record: Record) -> None:
    transaction.run(_INSERT + _REPLACE, *_values(record))


def _values(record: Record) -> tuple[str | int | float | None, ...]:
    return (
        record.id,
        record.name,
        record.host,
        int(record.is_frozen),
        record.saved_in,
        record.saving_in,
        record.verb,
        record.review,
        record.verdict,
        record.since,
        render_birth(record.birth),
    )


def _read(agent: AgentId, raw: dict[str, Any], where: str) -> Record:
    since = raw.get("since")
    try:
        return Record(
            id=agent,
            name=sanitize(str(raw.get("name", ""))),
            host=HostName(sanitize(str(raw.get("host", "")))),
            is_frozen=raw.get("is_frozen") in (True, 1),
            saved_in=_snapshot(raw.get("saved_in")),
            saving_in=_snapshot(raw.get("saving_in")),
            verb=None if raw.get("verb") is None else Verb(raw["verb"]),
            review=_number(raw.get("review")),
            verdict=None if raw.get("verdict") is None else Judgement(raw["verdict"]),
            since=since if isinstance(since, int | float) and math.isfinite(since) else None,
            birth=read_birth(raw.get("birth")),
        )
    except ValueError as error:
        # Read as if nothing were there, it would be overwritten, and the state behind it lost.
        raise _unreadable(where, str(error)) from error


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


def _unreadable(where: str, why: str) -> SwarmError:
    return SwarmError("An agent's record cannot be read", f"{where}: {why}", "Mend or remove it.")
