"""The one database that all supervisors share: opened by its URL, migrated, cut off and found.

    sqlite:///FILE        one machine; WAL, every commit synced
    postgresql://…        a team; any libpq URI

Everything here blocks, and may be called from any thread but not from the event loop. The SQL is
what both understand, with `?` for parameters; TEXT, BIGINT, DOUBLE PRECISION and
BYTEA are its types.
"""

from swarm_tui.database.database import Database, open_database
from swarm_tui.database.transaction import Changes, Row, Transaction
from swarm_tui.database.watch import Watch

__all__ = ["Changes", "Database", "Row", "Transaction", "Watch", "open_database"]
