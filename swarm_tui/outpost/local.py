"""The outpost of this machine: no connection, the same calls, in threads of this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from swarm_tui.model import AgentId
from swarm_tui.outpost.ledger import Ledger
from swarm_tui.outpost.process import end, holders, measure
from swarm_tui.outpost.saved import begin_save, check_saved, room
from swarm_tui.outpost.survey import survey
from swarm_tui.outpost.vmm import tell_vmm
from swarm_tui.premises import Footprint, Process, Survey

P = ParamSpec("P")
T = TypeVar("T")

_AT_ONCE: Final = 16
"""Calls; each waits for a VMM at most."""


class LocalOutpost:
    """Implements `ports.Outpost` for the machine that we are on."""

    def __init__(self, ledger: Path) -> None:
        """`ledger` is a folder of our own for the texts that are kept; made when it is needed."""
        self._ledger = Ledger(ledger)
        # Threads of its own: a VMM that hangs must not be in the way of other work on files.
        self._pool = ThreadPoolExecutor(_AT_ONCE, "outpost")

    async def open(self) -> None:
        """There is nothing to open."""

    async def close(self) -> None:
        """There is nothing to close."""

    async def measure(self, asked: Mapping[int, Sequence[str]]) -> Mapping[int, Footprint]:
        return await self._call(measure, asked)

    async def holders(self, files: Sequence[Path]) -> Mapping[Path, Process]:
        return await self._call(holders, files)

    async def end(self, process: Process) -> None:
        await self._call(end, process)

    async def tell_vmm(self, socket: Path, command: str, body: str, timeout_s: float) -> str:
        return await self._call(tell_vmm, socket, command, body, timeout_s)

    async def begin_save(self, folder: Path, definition: str) -> None:
        await self._call(begin_save, folder, definition)

    async def room(self, folder: Path) -> int:
        return await self._call(room, folder)

    async def survey(self, is_session: bool, named: Path | None, disks: Sequence[Path]) -> Survey:
        return await self._call(survey, is_session, named, disks)

    async def keep(self, agent: AgentId, name: str, content: str) -> Path:
        return await self._call(self._ledger.keep, agent, name, content)

    async def kept(self, name: str) -> Mapping[AgentId, str]:
        return await self._call(self._ledger.kept, name)

    async def drop(self, agent: AgentId, name: str | None = None) -> None:
        await self._call(self._ledger.drop, agent, name)

    async def check_saved(self, folder: Path) -> str:
        return await self._call(check_saved, folder)

    async def _call(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, partial(work, *args, **kwargs))
