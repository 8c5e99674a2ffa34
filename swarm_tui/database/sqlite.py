"""SQLite: one file for all supervisors of one machine."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from swarm_tui.database.transaction import Cursor, Value
from swarm_tui.errors import StorageFull, StoreDamaged, StoreError, StoreUnreachable, SwarmError
from swarm_tui.text import Safe, sanitize

BUSY_S: Final = 5.0
"""How long a transaction waits for those of others."""
POLL_S: Final = 0.25
"""How often it is looked at for what others did: nobody tells."""

_UNREACHABLE: Final = {
    "SQLITE_BUSY": "Somebody else holds it locked.",
    "SQLITE_LOCKED": "Somebody else holds it locked.",
    "SQLITE_CANTOPEN": "Its file cannot be opened.",
    "SQLITE_IOERR": "Its disk does not answer.",
    "SQLITE_PROTOCOL": "Somebody else holds it locked.",
}
_UNWRITABLE: Final = ("SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH")
_DAMAGED: Final = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_SCHEMA")

_File = tuple[int, int]


class _Connection(sqlite3.Connection):
    file: _File | None = None


class SqliteDriver:
    """Errors are sqlite3's, and OSError's where its file is made."""

    failure: type[Exception] = sqlite3.Error
    # unixepoch() knows fractions since SQLite 3.42 only; a day has 86,400 s.
    clock = "(julianday('now') - 2440587.5) * 86400.0"
    notify = ""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.folder: Path | None = path.parent
        self.place: Safe = sanitize(str(path))

    def connect(self, *, is_first: bool) -> _Connection:
        if is_first:
            self._make()
        before = self._file()
        connection = sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=BUSY_S,
            isolation_level=None,
            check_same_thread=False,
            factory=_Connection,
        )
        try:
            if is_first:
                _use_wal(connection)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
        except sqlite3.Error:
            connection.close()
            raise
        connection.file = before
        return connection

    def _make(self) -> None:
        """For its owner alone; SQLite gives its other files the same mode."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            # One that may only be read is opened all the same, and told at the first write.
            if not self._path.exists():
                raise sqlite3.OperationalError(f"{self._path}: {error.strerror}") from error

    def _file(self) -> _File | None:
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def is_good(self, connection: Any) -> bool:
        # What is written into a file that was removed or replaced would be lost.
        return connection.file is not None and connection.file == self._file()

    def begin(self, connection: Any, *, is_writing: bool) -> None:
        connection.execute("BEGIN IMMEDIATE" if is_writing else "BEGIN")

    def lock_schema(self, connection: Any) -> None:
        """Whoever writes is alone anyway."""

    def run(self, connection: Any, sql: str, values: Sequence[Value]) -> Cursor:
        cursor: Cursor = connection.execute(sql, values)
        return cursor

    def has_table(self, connection: Any, name: str) -> bool:
        sql = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
        return connection.execute(sql, (name,)).fetchone() is not None

    def watch(self) -> SqliteWatch:
        return SqliteWatch(self)

    def explain(self, error: Exception) -> SwarmError:
        code: str = getattr(error, "sqlite_errorname", "") or ""
        detail = f"{self.place}: {error}"
        if code.startswith("SQLITE_FULL"):
            return StorageFull("No room in the store", detail, "Free some space.")
        if code.startswith(_DAMAGED):
            return StoreDamaged(
                "The store is damaged",
                detail,
                "Keep a copy of the file, then mend it with `sqlite3 FILE .recover`, or restore it "
                "from a backup.",
            )
        if code.startswith(_UNWRITABLE):
            hint = "Mend the permissions of the file and of its folder."
            return StoreError("The store cannot be written", detail, hint)
        why = next((why for name, why in _UNREACHABLE.items() if code.startswith(name)), "")
        if why or not code:
            hint = "See who else uses that file, and whether its disk is well."
            return StoreUnreachable("The store is out of reach", f"{detail}. {why}", hint)
        return StoreError("The store refused", f"{detail} ({code})")


def _use_wal(connection: sqlite3.Connection) -> None:
    """The file stays so. SQLite itself does not wait for another who does the same now."""
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname != "SQLITE_BUSY" or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


class SqliteWatch:
    """Looks at `PRAGMA data_version`: it changes when another connection has committed."""

    def __init__(self, driver: SqliteDriver) -> None:
        self._driver = driver
        self._connection = driver.connect(is_first=False)
        self._version = self._look()
        self._woken = threading.Event()

    def wait(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while True:
            version = self._safe_look()
            if version != self._version:
                self._version = version
                return True
            left = deadline - time.monotonic()
            if left <= 0 or self._woken.is_set():
                self._woken.clear()
                return False
            self._woken.wait(min(POLL_S, left))

    def _safe_look(self) -> int:
        if not self._driver.is_good(self._connection):
            raise StoreUnreachable("The store is out of reach", f"{self._driver.place} is gone")
        try:
            return self._look()
        except sqlite3.Error as error:
            raise self._driver.explain(error) from error

    def _look(self) -> int:
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def wake(self) -> None:
        self._woken.set()

    def close(self) -> None:
        self._connection.close()
