"""Shells that persons have open in agents, told to all supervisors: no rule ends such an agent."""

from __future__ import annotations

import secrets
from collections.abc import Set
from typing import Final

from swarm_tui.database import Database
from swarm_tui.model import AgentId

BEAT_S: Final = 30.0
"""How often an open shell is told again."""
_HELD_S: Final = 100.0
"""So long after it was told last it counts as open: its process may have died."""


class Shells:
    """Methods block, and raise StoreError and StorageFull."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def open(self, agent: AgentId, who: str) -> str:
        """Returns its id, by which it is told again and closed."""
        shell = secrets.token_hex(8)
        with self._database.write() as transaction:
            until = transaction.now() + _HELD_S
            transaction.run("DELETE FROM shells WHERE until < ?", until - 2 * _HELD_S)
            transaction.run(
                "INSERT INTO shells (id, agent, who, until) VALUES (?, ?, ?, ?)",
                *(shell, agent, who, until),
            )
        return shell

    def beat(self, shell: str) -> None:
        """It is open still."""
        with self._database.write() as transaction:
            until = transaction.now() + _HELD_S
            transaction.run("UPDATE shells SET until = ? WHERE id = ?", until, shell)

    def close(self, shell: str) -> None:
        with self._database.write() as transaction:
            transaction.run("DELETE FROM shells WHERE id = ?", shell)

    def look(self) -> tuple[Set[AgentId], float]:
        """The agents in which one is open, and the time by which all supervisors agree."""
        with self._database.read() as transaction:
            now = transaction.now()
            rows = transaction.rows("SELECT agent FROM shells WHERE until >= ?", now)
        return {AgentId(str(row[0])) for row in rows}, now
