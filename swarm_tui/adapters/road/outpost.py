"""The outpost of a host far away, and the snapshots that are kept there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, TypeVar, cast

from swarm_tui.adapters.road.road import QUICK_S, Road
from swarm_tui.model import OF_PAUSE, AgentId, Origin, Record, Snapshot, SnapshotId
from swarm_tui.outpost import process as kernel
from swarm_tui.outpost import saved, vmm
from swarm_tui.outpost import survey as sight
from swarm_tui.outpost.ledger import Ledger
from swarm_tui.premises import Footprint, Process, Survey
from swarm_tui.snapshot import Draft, Snapshots

P = ParamSpec("P")
T = TypeVar("T")

READ_S: Final = 60.0
"""For what reads through a saved state."""
MOVE_S: Final = 3600.0
"""For what moves, copies or digests memory and disks, however large."""


class RemoteOutpost:
    """Implements `ports.Outpost` for the host at the end of a road."""

    def __init__(self, road: Road) -> None:
        self._road = road

    async def open(self) -> None:
        await self._road.hold(self, is_doubted=True)

    async def close(self) -> None:
        await self._road.let_go(self)

    async def measure(self, asked: Mapping[int, Sequence[str]]) -> Mapping[int, Footprint]:
        return await self._ask(QUICK_S, kernel.measure, asked)

    async def holders(self, files: Sequence[Path]) -> Mapping[Path, Process]:
        return await self._ask(QUICK_S, kernel.holders, files)

    async def end(self, process: Process) -> None:
        await self._ask(QUICK_S + kernel.END_S, kernel.end, process)

    async def tell_vmm(self, socket: Path, command: str, body: str, timeout_s: float) -> str:
        return await self._ask(QUICK_S + timeout_s, vmm.tell_vmm, socket, command, body, timeout_s)

    async def begin_save(self, folder: Path, definition: str) -> None:
        await self._ask(READ_S, saved.begin_save, folder, definition)

    async def room(self, folder: Path) -> int:
        return await self._ask(QUICK_S, saved.room, folder)

    async def survey(self, is_session: bool, named: Path | None, disks: Sequence[Path]) -> Survey:
        return await self._ask(READ_S, sight.survey, is_session, named, disks)

    async def keep(self, agent: AgentId, name: str, content: str) -> Path:
        return cast(Path, await self._road.ask(Ledger.keep, (agent, name, content)))

    async def kept(self, name: str) -> Mapping[AgentId, str]:
        return cast(Mapping[AgentId, str], await self._road.ask(Ledger.kept, (name,)))

    async def drop(self, agent: AgentId, name: str | None = None) -> None:
        await self._road.ask(Ledger.drop, (agent, name))

    async def check_saved(self, folder: Path) -> str:
        return await self._ask(READ_S, saved.check_saved, folder)

    async def _ask(
        self, deadline_s: float, call: Callable[P, T], *args: P.args, **_: P.kwargs
    ) -> T:
        return cast(T, await self._road.ask(call, args, deadline_s))


class RemoteSnapshots:
    """Implements `snapshot.Archive`, in a folder of the host at the end of a road.

    Everything here blocks, and must be called from another thread than the event loop's. Besides
    the errors of `Snapshots` it raises HostUnreachable and DeadlineExceeded; what had begun goes
    on to its end on the host.
    """

    def __init__(self, road: Road) -> None:
        self._road = road

    def ids(self, agent: AgentId) -> Sequence[SnapshotId]:
        return self._ask(Snapshots.ids, agent)

    def read(self, agent: AgentId, snapshot: SnapshotId) -> Snapshot:
        return self._ask(Snapshots.read, agent, snapshot)

    def draft(self, agent: AgentId) -> Draft:
        return self._ask(Snapshots.draft, agent)

    def drafts(self, agent: AgentId) -> Sequence[Draft]:
        return self._ask(Snapshots.drafts, agent)

    def has_memory(self, draft: Draft) -> bool:
        return self._ask(Snapshots.has_memory, draft)

    def plan(
        self,
        draft: Draft,
        record: Record,
        definition: str,
        hypervisor: str,
        disks: Sequence[Path],
        origin: Origin = OF_PAUSE,
        is_copied: bool = False,
    ) -> None:
        arguments = (draft, record, definition, hypervisor, disks, origin, is_copied)
        self._ask(Snapshots.plan, *arguments)

    def room(self, agent: AgentId, disks: Sequence[Path]) -> int:
        return self._ask(Snapshots.room, agent, disks)

    def copy_disks(self, draft: Draft) -> None:
        self._ask(Snapshots.copy_disks, draft)

    def scratch(self, draft: Draft, size_bytes: int) -> Path:
        return self._ask(Snapshots.scratch, draft, size_bytes)

    def take_in(self, draft: Draft, scratch: Path) -> None:
        self._ask(Snapshots.take_in, draft, scratch)

    def is_copied(self, draft: Draft) -> bool:
        return self._ask(Snapshots.is_copied, draft)

    def seal(self, agent: AgentId, draft: Draft) -> Snapshot:
        return self._ask(Snapshots.seal, agent, draft)

    def is_torn(self, draft: Draft) -> bool:
        return self._ask(Snapshots.is_torn, draft)

    def put_back(self, draft: Draft) -> None:
        self._ask(Snapshots.put_back, draft)

    def set_aside(self, draft: Draft) -> Draft:
        return self._ask(Snapshots.set_aside, draft)

    def discard(self, draft: Draft) -> None:
        self._ask(Snapshots.discard, draft)

    def verify(self, agent: AgentId, snapshot: SnapshotId, hypervisor: str) -> None:
        self._ask(Snapshots.verify, agent, snapshot, hypervisor)

    def stage(self, agent: AgentId, snapshot: SnapshotId) -> Path:
        return self._ask(Snapshots.stage, agent, snapshot)

    def parts(self, agent: AgentId, snapshot: SnapshotId) -> Sequence[Path]:
        return self._ask(Snapshots.parts, agent, snapshot)

    def unstage(self, agent: AgentId, snapshot: SnapshotId) -> None:
        self._ask(Snapshots.unstage, agent, snapshot)

    def definition(self, agent: AgentId, snapshot: SnapshotId) -> str:
        return self._ask(Snapshots.definition, agent, snapshot)

    def label(self, agent: AgentId, snapshot: SnapshotId, title: str, is_pinned: bool) -> Snapshot:
        return self._ask(Snapshots.label, agent, snapshot, title, is_pinned)

    def prune(self, agent: AgentId, doomed: Sequence[SnapshotId]) -> Sequence[SnapshotId]:
        return self._ask(Snapshots.prune, agent, doomed)

    def remove(self, agent: AgentId) -> None:
        self._ask(Snapshots.remove, agent)

    def _ask(self, call: Callable[Concatenate[Snapshots, P], T], *args: P.args, **_: P.kwargs) -> T:
        return cast(T, self._road.ask_from_thread(call, args, MOVE_S))
