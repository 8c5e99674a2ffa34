"""One stand-in agent on one host, with all our files about it in one folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from swarm_tui.catalogue import Catalogue
from swarm_tui.database import open_database
from swarm_tui.errors import AgentGone
from swarm_tui.lifecycle import Timeline
from swarm_tui.model import Capabilities, Cause, Origin, Power, Record, Vm
from swarm_tui.retention import Keeping, Retention
from swarm_tui.snapshot import Snapshots
from swarm_tui.text import Safe, literal

from .standin import AGENT, HOST, StandInHypervisor, StandInSpawner, World
from .standin_guest import StandInGuest

STANDS_AT = 5
"""Where the agent's counter is when a test begins."""


def quiet(_step: Safe, _fraction: float | None) -> None:
    pass


@dataclass
class Site:
    """One agent on one host, with all our files about it, in one folder."""

    home: Path
    records: list[Record] = field(default_factory=list)
    stands_at: int = STANDS_AT
    url: str = ""
    """Of the shared store; by default a file beside all else."""

    def __post_init__(self) -> None:
        self.world = World(self.home / "vms")
        self.hypervisor = StandInHypervisor(self.world)
        self.hypervisor.is_open = True
        store = open_database(self.url or f"sqlite://{self.home}/store.db")
        self.catalogue = Catalogue(store, self.home / "catalogue")
        self.snapshots = Snapshots(self.home / "snapshots")
        self.keep = 1
        self.missing: dict[str, str] = {}
        """What the driver cannot do, and why."""

    @property
    def lifecycle(self) -> Timeline:
        return Timeline(
            hypervisor=self.hypervisor,
            capabilities=Capabilities("STANDIN", "1.0", missing=self.missing),
            guest=StandInGuest(self.world),
            catalogue=self.catalogue,
            snapshots=self.snapshots,
            spawner=StandInSpawner(self.world),
            retention=Retention(Keeping(keep=self.keep)),
            on_record=self.records.append,
        )

    @property
    def record(self) -> Record:
        return self.catalogue.record(AGENT) or Record(AGENT, literal("ember"), HOST)

    def vm(self) -> Vm | None:
        try:
            return self.world.vm(AGENT)
        except AgentGone:
            return None

    async def pause(self) -> Safe:
        return await self.lifecycle.pause(self.world.vm(AGENT), self.record, quiet)

    async def resume(self) -> Safe:
        return await self.lifecycle.resume(self.vm(), self.record, quiet)

    async def checkpoint(self) -> Safe:
        origin = Origin(Cause.CHECKPOINT)
        vm = self.world.vm(AGENT)
        return await self.lifecycle.checkpoint(vm, self.record, origin, "", quiet)

    async def roll_back(self) -> Safe:
        """To the oldest."""
        chosen, *_ = self.snapshots.ids(AGENT)
        return await self.lifecycle.roll_back(self.vm(), self.record, chosen, quiet)

    async def kill(self) -> Safe:
        return await self.lifecycle.kill(self.vm(), self.record, quiet)

    async def recover(self) -> Record:
        return await self.lifecycle.recover(self.record)

    async def bring_back(self) -> None:
        """What a later process does: mend what was cut off, and let the agent go on."""
        self.world.plans.clear()
        if self.record.verb:
            await self.recover()
        if self.world.power() is not Power.RUNNING or self.record.is_frozen:
            await self.resume()

    def assert_working(self) -> None:
        """It goes on exactly where it stood, and our files tell so."""
        assert self.world.counter() == self.stands_at
        assert self.world.is_working()
        self.stands_at += 1
        record = self.record
        assert (record.verb, record.saved_in, record.saving_in) == (None, None, None)
        assert not record.is_frozen
        drafts = self.snapshots.drafts(AGENT)
        assert not [path for draft in drafts for path in draft.folder.iterdir()]
        assert self.world.state()["memory"]["clock"] == "right"

    def assert_truthful(self) -> None:
        """What the record says without a verb in flight is so."""
        record = self.record
        if record.verb:
            return  # shown as cut off; `recover` decides
        if self.world.power() is Power.OFF:
            assert record.saved_in in self.snapshots.ids(AGENT)
            return
        assert record.saved_in is None
        # Frozen in the record and not in fact is mended by a resume; the other way nobody would.
        assert record.is_frozen or not self.world.state()["memory"]["frozen"]


def make_site(home: Path, disks: int = 2) -> Site:
    site = Site(home)
    site.world.add(disks=disks)
    while site.world.tick() < STANDS_AT:
        pass
    return site
