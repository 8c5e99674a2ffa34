"""One transaction: what is asked and what is changed within it, and who is told at its end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Row = tuple[Any, ...]
Value = str | bytes | int | float | None


class Cursor(Protocol):
    """What both drivers' cursors have in common (PEP 249)."""

    @property
    def rowcount(self) -> int: ...

    def fetchall(self) -> Sequence[Any]: ...


@dataclass(frozen=True, slots=True)
class Changes:
    """What was touched since some moment."""

    seq: int
    """That of the newest change of all: the moment to ask from the next time."""
    keys: frozenset[tuple[str, str]]
    """(topic, key) of each."""
    is_all: bool = False
    """The moment asked from is not in this database's past: everything may have changed."""


class Dialect(Protocol):
    """In what the databases differ within a transaction."""

    clock: str
    """The expression for the database's own time, seconds since 1970."""
    notify: str
    """The statement that wakes those who listen; empty where they notice by themselves."""

    def run(self, connection: Any, sql: str, values: Sequence[Value]) -> Cursor: ...


class Transaction:
    """Given by `Database.read` and `Database.write`. Raises what those raise."""

    def __init__(self, dialect: Dialect, connection: Any) -> None:
        self._dialect = dialect
        self._connection = connection
        self._touched: dict[tuple[str, str], None] = {}

    def rows(self, sql: str, *values: Value) -> Sequence[Row]:
        return self._dialect.run(self._connection, sql, values).fetchall()

    def row(self, sql: str, *values: Value) -> Row | None:
        """The first row, None when there is none."""
        return next(iter(self.rows(sql, *values)), None)

    def run(self, sql: str, *values: Value) -> int:
        """Change something; returns how many rows."""
        return self._dialect.run(self._connection, sql, values).rowcount

    def now(self) -> float:
        """The database's clock, by which machines agree; seconds since 1970."""
        row = self.row(f"SELECT {self._dialect.clock}")
        assert row is not None
        return float(row[0])

    def touch(self, topic: str, key: str) -> None:
        """Have all supervisors told that this changed, once the transaction is committed."""
        self._touched[topic, key] = None

    def changes(self, since: int) -> Changes:
        """What was touched after `since`; 0 is before everything."""
        row = self.row("SELECT seq FROM feed")
        seq = int(row[0]) if row else 0
        if seq < since:  # an older copy of the database took its place
            return Changes(seq, frozenset(self._keys(0)), is_all=True)
        return Changes(seq, frozenset(self._keys(since)), is_all=since == 0)

    def _keys(self, since: int) -> Iterable[tuple[str, str]]:
        for topic, key in self.rows("SELECT topic, key FROM changes WHERE seq > ?", since):
            yield str(topic), str(key)

    def tell(self) -> None:
        """Write down what was touched. The last thing in a transaction: its row is everybody's.

        Because of that row, numbers come into sight in their order, and none is ever missed.
        """
        if not self._touched:
            return
        self.run("UPDATE feed SET seq = seq + 1")
        for topic, key in self._touched:
            self.run(
                "INSERT INTO changes (topic, key, seq) SELECT ?, ?, seq FROM feed WHERE TRUE"
                " ON CONFLICT (topic, key) DO UPDATE SET seq = excluded.seq",
                topic,
                key,
            )
        if self._dialect.notify:
            self.rows(self._dialect.notify)
