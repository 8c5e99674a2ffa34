"""Connections and transactions, whichever the database is."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from swarm_tui.database.driver import Driver
from swarm_tui.database.migration import Migration, migrate, shipped
from swarm_tui.database.transaction import Transaction
from swarm_tui.database.watch import Watch
from swarm_tui.errors import UsageError
from swarm_tui.text import Safe

_KEPT: Final = 4
"""Connections that are kept for the next who needs one."""


class Database:
    """Opened at its first use, and again whenever it was lost. For any thread.

    All methods raise StoreError (its subclasses tell whether it is out of reach, damaged or
    newer than this program) and StorageFull.
    """

    def __init__(self, driver: Driver, migrations: tuple[Migration, ...] | None = None) -> None:
        """`migrations`: None, those of this program."""
        self._driver = driver
        self._migrations = migrations
        self._free: list[Any] = []
        self._closings = 0
        """Who took a connection before the last of them does not put it back."""
        self._guard = threading.Lock()
        self._opening = threading.Lock()
        self._is_open = False
        # Whoever forgets to close it must not keep its files open.
        weakref.finalize(self, _close_all, self._free, driver.failure)

    @property
    def place(self) -> Safe:
        """Where it is, for people."""
        return self._driver.place

    @property
    def folder(self) -> Path | None:
        """Where its file is; None for a server, which other machines may use, too."""
        return self._driver.folder

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """Everything that is read within is of one moment."""
        with self._transaction(is_writing=False) as transaction:
            yield transaction

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """All of it is on the disk when this ends, or nothing of it. Not to be nested."""
        with self._transaction(is_writing=True) as transaction:
            yield transaction
            transaction.tell()

    def check(self) -> None:
        """Raises, as all do, unless something could be written now."""
        with self.write():
            pass

    def watch(self) -> Watch:
        """Notice the acts of other processes."""
        self._open()
        with self._explained():
            return self._driver.watch()

    def close(self) -> None:
        """Let go of all connections. The next use opens it again."""
        with self._guard:
            free = list(self._free)
            self._free.clear()
            self._closings += 1
        _close_all(free, self._driver.failure)

    @contextmanager
    def _transaction(self, *, is_writing: bool) -> Iterator[Transaction]:
        self._open()
        with self._explained():
            closings = self._closings
            connection = self._begin(is_writing)
            try:
                yield Transaction(self._driver, connection)
                connection.execute("COMMIT")
            except BaseException as error:
                if isinstance(error, self._driver.failure) or not self._roll_back(connection):
                    self._drop(connection)
                else:
                    self._put_back(connection, closings)
                raise
            self._put_back(connection, closings)

    def _begin(self, is_writing: bool) -> Any:
        """A connection on which a transaction has begun; one that died in disuse is replaced."""
        while connection := self._take():
            try:
                self._driver.begin(connection, is_writing=is_writing)
            except self._driver.failure:
                is_dead = not self._driver.is_good(connection)
                self._drop(connection)
                if is_dead:
                    continue
                raise
            return connection
        connection = self._driver.connect(is_first=False)
        try:
            self._driver.begin(connection, is_writing=is_writing)
        except self._driver.failure:
            self._drop(connection)
            raise
        return connection

    def _open(self) -> None:
        """Make and migrate it, once a process."""
        if self._is_open:
            return
        with self._opening:
            if self._is_open:
                return
            with self._explained():
                closings = self._closings
                connection = self._driver.connect(is_first=True)
                try:
                    wanted = shipped() if self._migrations is None else self._migrations
                    migrate(self._driver, connection, wanted)
                except BaseException:
                    self._drop(connection)
                    raise
                self._put_back(connection, closings)
            self._is_open = True

    def _take(self) -> Any:
        while True:
            with self._guard:
                if not self._free:
                    return None
                connection = self._free.pop()
            if self._driver.is_good(connection):
                return connection
            self._drop(connection)

    def _put_back(self, connection: Any, closings: int) -> None:
        with self._guard:
            if len(self._free) < _KEPT and closings == self._closings:
                self._free.append(connection)
                return
        self._drop(connection)

    def _roll_back(self, connection: Any) -> bool:
        try:
            connection.execute("ROLLBACK")
        except self._driver.failure:
            return False
        return True

    def _drop(self, connection: Any) -> None:
        _close_all([connection], self._driver.failure)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except self._driver.failure as error:
            raise self._driver.explain(error) from error


def _close_all(connections: list[Any], failure: type[Exception]) -> None:
    for connection in connections:
        with suppress(failure):  # it is of no more use anyway
            connection.close()


def open_database(url: str, migrations: tuple[Migration, ...] | None = None) -> Database:
    """Nothing is opened before it is used. Raises UsageError for a URL of another kind."""
    kind, separator, rest = url.partition("://")
    if kind == "sqlite" and separator and rest.startswith("/"):
        from swarm_tui.database.sqlite import SqliteDriver

        return Database(SqliteDriver(Path(rest)), migrations)
    if kind in ("postgresql", "postgres") and separator:
        from swarm_tui.database.postgres import PostgresDriver

        return Database(PostgresDriver(url), migrations)
    raise UsageError("There is no such store", url, "Use sqlite:///FILE or postgresql://…")
