"""A supervisor over stand-in hosts, with all our files in one folder."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import pytest

from swarm_tui.audit import Audit
from swarm_tui.catalogue import Catalogue, Claim, Pace
from swarm_tui.database import open_database, sqlite
from swarm_tui.lifecycle import Terms
from swarm_tui.model import AgentId, HostName, State, Verb
from swarm_tui.review.shelf import Shelf
from swarm_tui.site import Site, Timing
from swarm_tui.snapshot import Archive, Snapshots
from swarm_tui.spool import Spool
from swarm_tui.supervisor import Supervisor
from swarm_tui.text import literal
from swarm_tui.watch import record as record_watch

from .standin import AGENT, StandInHypervisor, StandInSpawner, World
from .standin_guest import StandInGuest

DEADLINE_S = 30.0


async def until(is_so: Callable[[], object], what: str = "") -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline, what or "it never came"
        await asyncio.sleep(0.002)


def hurry_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for the looks at the store."""
    monkeypatch.setattr(record_watch, "FIRST_BACK_OFF_S", 0.01)
    monkeypatch.setattr(record_watch, "TEND_S", 0.02)
    monkeypatch.setattr(record_watch, "GATHER_S", 0.0)
    monkeypatch.setattr(sqlite, "POLL_S", 0.01)


class WatchedCatalogue(Catalogue):
    """A real one that lets a test slip in between."""

    lab: Lab

    def claim(self, agent: AgentId, verb: Verb) -> Claim:
        slip_in, self.lab.before_claim = self.lab.before_claim, lambda: None
        slip_in()
        return super().claim(agent, verb)


class Lab:
    """A stand-in host with one agent, our folders, and a supervisor over it."""

    def __init__(self, home: Path, url: str = "", pace: Pace | None = None) -> None:
        """`url` is that of the shared store; by default it is a file beside all else."""
        self.home = home
        self.url = url or f"sqlite://{home}/store.db"
        self.pace = pace
        self.worlds = [World(home / "vms")]
        self.before_claim: Callable[[], object] = lambda: None
        """What another process does in the moment before a claim is made; once."""
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

    @cached_property
    def catalogue(self) -> Catalogue:
        """The test's own."""
        return self.open_catalogue()

    def open_catalogue(self, who: str = "", place: str = "") -> WatchedCatalogue:
        opened = WatchedCatalogue(
            open_database(self.url),
            self.home / "catalogue",
            who=who,
            place=place,
            pace=self.pace,
        )
        opened.lab = self
        return opened

    @property
    def audit(self) -> Audit:
        return Audit(self.home / "audit.jsonl")

    def make(
        self,
        *,
        is_following: bool = False,
        poll_s: float = 0.02,
        relist_s: float = 60.0,
        who: str = "",
        place: str = "",
        snapshots: Mapping[HostName, Archive] = MappingProxyType({}),
    ) -> Supervisor:
        """`who` and `place`: whom it acts for, and on which machine, if not on this one.

        `snapshots`: where hosts keep them that have a place of their own for it.
        """
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
            self.open_catalogue(who, place),
            Snapshots(self.home / "snapshots"),
            self.audit,
            Terms(
                Shelf(self.home / "reviews"),
                literal("ann@example.org"),
                None,
                self.home / "allowed_signers",
                1 << 20,
            ),
            timing=Timing(poll_s=poll_s, relist_s=relist_s),
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
