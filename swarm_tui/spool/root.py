"""The logs of all agents in one folder, below one quota."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from swarm_tui.errors import NotFound
from swarm_tui.model import AgentId, EventBatch
from swarm_tui.spool.quota import Quota
from swarm_tui.spool.reading import read
from swarm_tui.spool.writer import Writer

_IN_PLACE_BYTES = 16 << 10
"""So much is written without a thread: that would take longer than the writing."""


class Spool:
    """Opens the logs of agents for this process."""

    def __init__(self, root: Path, quota_bytes: int) -> None:
        """`root` has a folder for each agent, the one in which its records are."""
        self._root = root
        self._quota = Quota(root, quota_bytes)
        self._enforcing = threading.Lock()

    def folder(self, agent: AgentId) -> Path:
        """The agent's folder; it may not exist. Raises NotFound for an id that is no name."""
        if not agent or "/" in agent or agent.startswith("."):
            raise NotFound("No such agent", repr(agent))
        return self._root / agent

    def open(self, agent: AgentId, max_bytes: int) -> tuple[EventBatch, Writer]:
        """The newest of what is there, and a writer that is open.

        Blocks. Raises StorageFull, SnapshotError.
        """
        folder = self.folder(agent)
        writer = Writer(folder, self._quota.segment_bytes)
        writer.open()  # first: who takes it over cuts off what was not written to its end
        return read(folder, max_bytes)[0], writer

    async def append(self, writer: Writer, batch: EventBatch) -> None:
        """Write, close the segment if it is full, and keep the quota; slow work in a thread.

        Raises StorageFull, SnapshotError.
        """
        if batch.raw is None or len(batch.raw) < _IN_PLACE_BYTES:
            writer.append(batch)
        else:
            await asyncio.to_thread(writer.append, batch)
        if writer.is_full:
            await asyncio.to_thread(self._turn, writer)

    def _turn(self, writer: Writer) -> None:
        writer.turn()
        with self._enforcing:
            self._quota.enforce()
        writer.segment_bytes = self._quota.segment_bytes
