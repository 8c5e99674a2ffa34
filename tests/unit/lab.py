"""A supervisor over stand-in hosts, with all our files in one folder."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import MappingProxyType

from swarm_tui.audit import Audit
from swarm_tui.catalogue import Catalogue, Stamp
from swarm_tui.lifecycle import Terms
from swarm_tui.model import AgentId, HostName, State
from swarm_tui.review.shelf import Shelf
from swarm_tui.site import Site, Timing
from swarm_tui.snapshot import Archive, Snapshots
from swarm_tui.spool import Spool
from swarm_tui.supervisor import Supervisor
from swarm_tui.text import literal

from .standin import AGENT, StandInHypervisor, StandInSpawner, World
from .standin_guest import StandInGuest

DEADLINE_S = 30.0


async def until(is_so: Callable[[], object], what: str = "") -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline, what or "it never came"
        await asyncio.sleep(0.002)


class WatchedCatalogue(Catalogue):
    """A real one that lets a test see, and slip in between."""

    def __init__(self, root: Path, lab: Lab) -> None:
        super().__init__(root)
        self._lab = lab

    def stamps(self) -> Mapping[AgentId, Stamp]:
        self._lab.looks += 1
        return super().stamps()

    @contextmanager
    def lock(self, agent: AgentId) -> Iterator[None]:
        slip_in, self._lab.before_lock = self._lab.before_lock, lambda: None
        slip_in()
        with super().lock(agent):
            yield


class Lab:
    """A stand-in host with one agent, our folders, and a supervisor over it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.worlds = [World(home / "vms")]
        self.looks = 0
        """How often supervisors looked through all records."""
        self.before_lock: Callable[[], object] = lambda: None
        """What another process does in the moment before a lock is taken; once."""
        if not self.world.agents():
            self.world.add()
        self.make_guest()

    @property
    def world(self) -> World:
        return self.worlds[0]

    def make_guest(self) -> None:
        self.guest = StandInGuest(*self.worlds)

    def add_host(self, name: str) -> World:
        world = World(self.home / name, HostName(name))
        self.worlds.append(world)
        self.make_guest()
        return world

    @property
    def catalogue(self) -> WatchedCatalogue:
        return WatchedCatalogue(self.home / "catalogue", self)

    @property
    def audit(self) -> Audit:
        return Audit(self.home / "audit.jsonl")

    def make(
        self,
        *,
        is_following: bool = False,
        relist_s: float = 60.0,
        snapshots: Mapping[HostName, Archive] = MappingProxyType({}),
    ) -> Supervisor:
        """`snapshots`: where hosts keep them that have a place of their own for it."""
        return Supervisor(
            [
                Site(
                    StandInHypervisor(world),
                    StandInSpawner(world),
                    self.home / "owner.git",
                    snapshots=snapshots.get(world.host),
                )
                for world in self.worlds
            ],
            self.guest,
            self.catalogue,
            Snapshots(self.home / "snapshots"),
            self.audit,
            Terms(
                Shelf(self.home / "reviews"),
                literal("ann@example.org"),
                None,
                self.home / "allowed_signers",
                1 << 20,
            ),
            timing=Timing(poll_s=0.02, relist_s=relist_s),
            is_following=is_following,
            logs=Spool(self.home / "catalogue", 1 << 30),
        )

    @asynccontextmanager
    async def running(self, *, is_following: bool = False) -> AsyncIterator[Supervisor]:
        async with self.make(is_following=is_following) as supervisor:
            try:
                await supervisor.connected(DEADLINE_S)
                yield supervisor
            finally:
                self.release()

    def release(self) -> None:
        """Let go on whatever waits, so that a test that failed does not hang as well."""
        for world in self.worlds:
            for plan in world.plans.values():
                for gate in (plan.gate, plan.answer):
                    if gate:
                        gate.set()

    def state(self, supervisor: Supervisor, agent: AgentId = AGENT) -> State | None:
        known = supervisor.store.agent(agent)
        return known.state if known else None
