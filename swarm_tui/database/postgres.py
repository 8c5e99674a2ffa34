"""PostgreSQL, by psycopg 3: one database for a team."""

from __future__ import annotations

import math
import os
import select
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

import psycopg
from psycopg.conninfo import conninfo_to_dict

from swarm_tui.database.transaction import Cursor, Value
from swarm_tui.errors import StorageFull, StoreDamaged, StoreError, StoreUnreachable, SwarmError
from swarm_tui.text import Safe, sanitize

CHANNEL: Final = "swarm_tui"
_SCHEMA_LOCK: Final = 0x73776172  # "swar": any number that nobody else takes
_DEFAULTS: Final = {
    "application_name": "swarm-tui",
    "connect_timeout": "5",
    # A server that is cut off, rather than ended, is noticed within about ten seconds.
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
    "options": "-c lock_timeout=5s -c statement_timeout=10s"
    " -c idle_in_transaction_session_timeout=30s",
}
_BUSY: Final = ("40", "55P03", "57014")


class PostgresDriver:
    """Errors are psycopg's."""

    failure: type[Exception] = psycopg.Error
    clock = "extract(epoch FROM clock_timestamp())::double precision"
    notify = f"SELECT pg_notify('{CHANNEL}', '')"

    def __init__(self, url: str) -> None:
        self._given = url
        self.folder: Path | None = None
        self.place: Safe = sanitize(_place(url))

    def connect(self, *, is_first: bool) -> psycopg.Connection[Any]:
        given = conninfo_to_dict(self._given)
        missing = {key: value for key, value in _DEFAULTS.items() if key not in given}
        return psycopg.connect(self._given, autocommit=True, **cast("dict[str, Any]", missing))

    def is_good(self, connection: Any) -> bool:
        return not connection.closed

    def begin(self, connection: Any, *, is_writing: bool) -> None:
        kind = "" if is_writing else " ISOLATION LEVEL REPEATABLE READ READ ONLY"
        connection.execute(f"BEGIN{kind}")

    def lock_schema(self, connection: Any) -> None:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_SCHEMA_LOCK,))

    def run(self, connection: Any, sql: str, values: Sequence[Value]) -> Cursor:
        cursor: Cursor = connection.execute(sql.replace("%", "%%").replace("?", "%s"), values)
        return cursor

    def has_table(self, connection: Any, name: str) -> bool:
        # Not to_regclass(), which answers from a cache that may be older than the transaction.
        sql = (
            "SELECT 1 FROM pg_catalog.pg_tables"
            " WHERE tablename = %s AND schemaname = ANY (current_schemas(false))"
        )
        return connection.execute(sql, (name,)).fetchone() is not None

    def watch(self) -> PostgresWatch:
        return PostgresWatch(self)

    def explain(self, error: Exception) -> SwarmError:
        code: str = getattr(error, "sqlstate", None) or ""
        detail = f"{self.place}: {error}"
        if code == "53100":
            return StorageFull("No room in the store", detail, "Free some space on its server.")
        if code.startswith("XX"):
            return StoreDamaged("The store is damaged", detail, "Restore it from a backup.")
        if code.startswith("28") or code in ("42501", "3D000"):
            hint = "Ask its owner; a password belongs into ~/.pgpass, or a service file."
            return StoreError("The store lets us not in", detail, hint)
        if code == "25006":
            return StoreError("The store cannot be written", detail, "Is it a standby?")
        if code.startswith(_BUSY):
            return StoreUnreachable("The store is busy", detail, "Try again.")
        if not code or code.startswith(("08", "53", "57", "58")):
            hint = "Does its server run, is store.url right, and does ~/.pgpass let you in?"
            return StoreUnreachable("The store is out of reach", detail, hint)
        return StoreError("The store refused", f"{detail} ({code})")


class PostgresWatch:
    """Listens; nothing is asked while nothing happens."""

    def __init__(self, driver: PostgresDriver) -> None:
        self._driver = driver
        self._connection = driver.connect(is_first=False)
        self._connection.execute(f"LISTEN {CHANNEL}")
        self._alarm, self._bell = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def wait(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        try:
            while True:
                if list(self._connection.notifies(timeout=0)):
                    return True
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                poll = select.poll()  # select() knows no descriptor above 1,023
                poll.register(self._connection.fileno(), select.POLLIN)
                poll.register(self._alarm, select.POLLIN)
                if self._alarm in dict(poll.poll(math.ceil(left * 1000))):
                    os.read(self._alarm, 4096)
                    return False
        except psycopg.Error as error:
            raise self._driver.explain(error) from error

    def wake(self) -> None:
        os.write(self._bell, b"!")

    def close(self) -> None:
        self._connection.close()
        os.close(self._alarm)
        os.close(self._bell)


def _place(url: str) -> str:
    try:
        given = conninfo_to_dict(url)
    except psycopg.Error:
        return "postgresql"
    names = [str(given[key]) for key in ("service", "host", "dbname") if given.get(key)]
    return "/".join(["postgresql:/", *names])
