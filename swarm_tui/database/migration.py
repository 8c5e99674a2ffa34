"""The database's schema in numbered steps, of which a program brings those that it knows.

`schema/NNNN_what.sql` is step NNNN. All steps that are missing are taken in one transaction: they
are all there or none is. Two processes that migrate at once take turns. (Not by yoyo or its like:
their lock is a row, which a process that is killed leaves behind for a person to remove, and each
of their steps is a transaction of its own.)
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from swarm_tui.database.transaction import Transaction
from swarm_tui.errors import StoreNewer

if TYPE_CHECKING:
    from swarm_tui.database.driver import Driver

_SCHEMA: Final = Path(__file__).parent / "schema"
_TABLE: Final = "schema_steps"


@dataclass(frozen=True, slots=True)
class Migration:
    """One step: `number` from 1, without gaps."""

    number: int
    name: str
    statements: tuple[str, ...]


@cache
def shipped() -> tuple[Migration, ...]:
    """The steps of this program, in order."""
    found = []
    for path in sorted(_SCHEMA.glob("[0-9]*_*.sql")):
        number, _, name = path.stem.partition("_")
        lines = [line for line in path.read_text().splitlines() if not line.startswith("--")]
        statements = re.split(r";\s*(?:\n|$)", "\n".join(lines))
        found.append(Migration(int(number), name, tuple(s for s in statements if s.strip())))
    return tuple(found)


def migrate(driver: Driver, connection: Any, migrations: tuple[Migration, ...]) -> None:
    """Bring the schema to what the program knows. Raises StoreNewer, and the driver's errors."""
    newest = max((step.number for step in migrations), default=0)
    if _version(driver, connection, newest) == newest:
        return
    driver.begin(connection, is_writing=True)
    try:
        driver.lock_schema(connection)
        _take_steps(driver, connection, migrations, newest)
        connection.execute("COMMIT")
    except BaseException:
        with suppress(driver.failure):  # the connection is dropped then, which does the same
            connection.execute("ROLLBACK")
        raise


def _take_steps(
    driver: Driver, connection: Any, migrations: tuple[Migration, ...], newest: int
) -> None:
    at = _version(driver, connection, newest)  # another process may have been quicker
    transaction = Transaction(driver, connection)
    if not driver.has_table(connection, _TABLE):
        transaction.run(
            f"CREATE TABLE {_TABLE} (number BIGINT PRIMARY KEY, name TEXT NOT NULL,"
            " taken DOUBLE PRECISION NOT NULL)"
        )
    for step in migrations:
        if step.number <= at:
            continue
        for statement in step.statements:
            transaction.run(statement)
        transaction.run(
            f"INSERT INTO {_TABLE} (number, name, taken) VALUES (?, ?, {driver.clock})",
            step.number,
            step.name,
        )


def _version(driver: Driver, connection: Any, newest: int) -> int:
    """Raises StoreNewer when it is beyond `newest`."""
    if not driver.has_table(connection, _TABLE):
        return 0
    row = Transaction(driver, connection).row(f"SELECT max(number) FROM {_TABLE}")
    at = int(row[0]) if row and row[0] is not None else 0
    if at > newest:
        raise StoreNewer(
            "The store is of a newer version of swarm-tui",
            f"{driver.place} is at step {at} of its schema, this program knows {newest}.",
            "Use the newer program here, too; nothing was changed.",
        )
    return at
