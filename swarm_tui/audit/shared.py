"""The logs of all supervisors in the store they share: each line of each file, and its head.

The file comes first: a line is on its disk, then in the store. What the store lacks of a file is
brought there by whoever appends next, in the file's order and once each, because the store knows
how far it has come. What the store has and a file has not was removed from that file.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from swarm_tui.audit.chain import Chain, Head, Line, link_of, parse
from swarm_tui.database import Database, Transaction
from swarm_tui.errors import AuditError
from swarm_tui.text import Safe, sanitize

_AT_ONCE: Final = 200
"""Lines that are brought in one transaction."""
_OLDER: Final = 5_000
"""Lines from before the chain that are brought, the newest."""


@dataclass(frozen=True, slots=True)
class Log:
    """A log that the store knows."""

    chain: str
    place: Safe
    """Its machine and file."""
    seq: int
    sha256: str


class Shared:
    """The store's side of one file, and of all others."""

    def __init__(self, database: Database, chain: Chain) -> None:
        self._database = database
        self._chain = chain
        self._place = f"{socket.gethostname()}:{chain.path.absolute()}"
        self._brought: Head | None = None

    def bring(self) -> None:
        """See that the store has every line of the file.

        Raises StoreError, StorageFull; AuditError when the store knows other lines of it.
        """
        head = self._chain.head()
        while head and head != self._brought:
            with self._database.write() as transaction:
                self._brought = self._bring_some(transaction, head)
            if self._brought.seq >= head.seq:
                return

    def _bring_some(self, transaction: Transaction, head: Head) -> Head:
        """How far the store is now."""
        transaction.run(
            "INSERT INTO logs (chain, place, seq, sha256) VALUES (?, ?, 0, '')"
            " ON CONFLICT (chain) DO NOTHING",
            head.chain,
            _text(self._place),
        )
        # It locks the row: no other process brings lines of this file meanwhile.
        transaction.run("UPDATE logs SET seq = seq WHERE chain = ?", head.chain)
        row = transaction.row("SELECT seq, sha256 FROM logs WHERE chain = ?", head.chain)
        known = Head(head.chain, *row) if row else Head(head.chain, 0, "")
        lines = self._chain.lines_from(known.seq)
        if known.seq:
            self._check(known, next((line for line in lines if line.seq == known.seq), None))
        fresh = [line for line in lines if line.seq > known.seq][:_AT_ONCE]
        if not fresh:
            return known
        older = [] if known.seq else [line for line in lines if line.seq < 1]
        for line in (*older[-_OLDER:], *fresh):
            _insert(transaction, head.chain, line)
        last = Head(head.chain, fresh[-1].seq, fresh[-1].sha256)
        transaction.run(
            "UPDATE logs SET seq = ?, sha256 = ? WHERE chain = ?", last.seq, last.sha256, last.chain
        )
        return last

    def _check(self, known: Head, line: Line | None) -> None:
        if line and line.sha256 == known.sha256:
            return
        what = "is another one in the file" if line else "is not in the file any more"
        raise AuditError(
            "The audit log is not what the store knows of it",
            f"{self._chain.path}: line number {known.seq:,}, known to the store, {what}.",
            "Keep the file as evidence: move it away. A new one is begun then; the store has all "
            "lines of the old one, and `swarm-tui audit --verify` tells of both.",
        )

    # Reading

    def logs(self) -> Sequence[Log]:
        """All that the store knows."""
        with self._database.read() as transaction:
            return _logs(transaction)

    def acts(self, agent: str | None, since: float | None, most: int) -> Sequence[bytes]:
        """Lines of the newest acts, each intent before its outcome."""
        where, values = ["record = 'intent'"], list[str | float]()
        if agent is not None:
            where.append("agent = ?")
            values.append(_text(agent))
        if since is not None:
            where.append("at >= ?")
            values.append(since)
        with self._database.read() as transaction:
            rows = transaction.rows(
                "SELECT intents.line, outcomes.line FROM"
                f" (SELECT * FROM log_lines WHERE {' AND '.join(where)}"
                " ORDER BY at DESC, chain, seq DESC LIMIT ?) AS intents"
                " LEFT JOIN log_lines AS outcomes"
                " ON outcomes.act = intents.act AND outcomes.record = 'outcome'"
                " AND outcomes.chain = intents.chain"
                " ORDER BY intents.at, intents.chain, intents.seq, outcomes.seq",
                *values,
                most,
            )
        return [str(line).encode() for row in rows for line in row if line is not None]

    def verify(self) -> Sequence[Log]:
        """Check all that the store has of all logs. Raises AuditError for what was altered."""
        with self._database.read() as transaction:
            logs = _logs(transaction)
            for log in logs:
                if problem := _check_lines(transaction, log):
                    raise AuditError(
                        "The audit log was altered in the store",
                        f"Log {log.chain} of {log.place}: {problem}.",
                        "The file on that machine has what was written.",
                    )
        return logs

    def is_here(self, log: Log) -> bool:
        """Whether it is, or was once, the log of this file."""
        return log.place == sanitize(_text(self._place))


def _insert(transaction: Transaction, chain: str, line: Line) -> None:
    raw: dict[str, Any] = parse(line.content) or {}
    at = raw.get("at")
    transaction.run(
        "INSERT INTO log_lines (chain, seq, record, act, agent, at, torn, line)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (chain, seq) DO NOTHING",
        chain,
        line.seq,
        _text(raw.get("record", "")),
        _text(raw.get("id", "")),
        _text(raw.get("agent", "")),
        float(at) if isinstance(at, int | float) and abs(at) < 1e11 else 0.0,
        line.torn.hex(),
        _text(line.content.decode("ascii", "backslashreplace")),
    )


def _text(value: object) -> str:
    """What any database takes as text."""
    return str(value).replace("\0", "\\u0000").encode("utf-8", "backslashreplace").decode()


def _logs(transaction: Transaction) -> Sequence[Log]:
    rows = transaction.rows("SELECT chain, place, seq, sha256 FROM logs ORDER BY place, chain")
    return [Log(str(row[0]), sanitize(str(row[1])), int(row[2]), str(row[3])) for row in rows]


def _check_lines(transaction: Transaction, log: Log) -> str:
    """What is wrong with a log's lines; empty when nothing is."""
    was: bytes | None = None
    seq = 0
    for number, torn, content in _read_lines(transaction, log.chain):
        link = link_of(parse(content))
        if number != seq + 1:
            return f"line number {seq + 1:,} is missing"
        if link is None or link[:2] != (log.chain, number):
            return f"line number {number:,} is not what was written"
        before = b"\n".join(part for part in (was, torn) if part)
        # What was before the first one may be of a file from before the chain.
        if was is not None and hashlib.sha256(before).hexdigest() != link[2]:
            return f"line number {seq:,} is not what was written"
        was, seq = content, number
    if seq != log.seq:
        return f"it ends at number {seq:,} instead of {log.seq:,}"
    if was is not None and hashlib.sha256(was).hexdigest() != log.sha256:
        return f"line number {seq:,} is not what was written"
    return ""


def _read_lines(transaction: Transaction, chain: str) -> Iterator[tuple[int, bytes, bytes]]:
    seq = 0
    while rows := transaction.rows(
        "SELECT seq, torn, line FROM log_lines WHERE chain = ? AND seq > ? ORDER BY seq LIMIT ?",
        chain,
        seq,
        _AT_ONCE,
    ):
        for row in rows:
            seq = int(row[0])
            try:
                torn = bytes.fromhex(str(row[1]))
            except ValueError:
                torn = b"?"
            yield seq, torn, str(row[2]).encode()
