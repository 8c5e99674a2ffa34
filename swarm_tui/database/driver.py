"""What a kind of database has to know for `Database`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from swarm_tui.database.transaction import Dialect
from swarm_tui.database.watch import Watch
from swarm_tui.errors import SwarmError
from swarm_tui.text import Safe


class Driver(Dialect, Protocol):
    """Its methods raise its library's own errors, of the class `failure`."""

    failure: type[Exception]
    folder: Path | None
    """That of the database's file; None where other machines may use it, too."""
    place: Safe
    """Where the database is, for people; without any secret."""

    def connect(self, *, is_first: bool) -> Any:
        """A connection in autocommit. `is_first`: the database may be new, and is then made."""
        ...

    def is_good(self, connection: Any) -> bool:
        """Whether a connection that was set aside still leads to the database. Asks no server."""
        ...

    def begin(self, connection: Any, *, is_writing: bool) -> None: ...

    def lock_schema(self, connection: Any) -> None:
        """Keep other processes from migrating until the transaction ends."""
        ...

    def has_table(self, connection: Any, name: str) -> bool: ...

    def watch(self) -> Watch: ...

    def explain(self, error: Exception) -> SwarmError:
        """The library's error in our words."""
        ...
