"""The logs of all agents in one folder, below one quota."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from swarm_tui.errors import NotFound
from swarm_tui.model import AgentId, EventBatch
from swarm_tui.spool.quota import Quota
from swarm_tui.spool.reading import read
from swarm_tui.spool.writer import Writer

_THREADS: Final = 2
"""One may compress while the other writes."""


class Spool:
    """Opens the logs of agents for this process."""

    def __init__(self, root: Path, quota_bytes: int) -> None:
        """`root` has a folder for each agent, the one in which its records are."""
        self._root = root
        self._quota = Quota(root, quota_bytes)
        self._enforcing = threading.Lock()
        self._is_measured = False
        self._threads = ThreadPoolExecutor(_THREADS, "spool")

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
        with self._enforcing:
            if not self._is_measured:  # how many share the quota decides how long segments may be
                self._quota.enforce()
                self._is_measured = True
        writer = Writer(folder, self._quota.segment_bytes)
        writer.open()  # first: who takes it over cuts off what was not written to its end
        return read(folder, max_bytes)[0], writer

    async def append(self, writer: Writer, batch: EventBatch) -> None:
        """Write, close the segment if it is full, and keep the quota; to the end, also if whoever
        waits is cancelled.

        Even a few bytes are written in a thread: a busy disk would hold up the screen. Raises
        StorageFull, SnapshotError.
        """
        loop = asyncio.get_running_loop()
        await asyncio.shield(loop.run_in_executor(self._threads, self._append, writer, batch))

    def _append(self, writer: Writer, batch: EventBatch) -> None:
        writer.append(batch)
        if not writer.is_full:
            return
        writer.turn()
        with self._enforcing:
            self._quota.enforce()
        writer.segment_bytes = self._quota.segment_bytes
