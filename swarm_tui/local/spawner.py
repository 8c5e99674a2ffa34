"""What a supervisor makes its local agents by; the swarm behind it is set up at the first."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from swarm_tui.model import AgentId, Vm
from swarm_tui.ports import (
    Guest,
    Hypervisor,
    Needs,
    OnNamed,
    Order,
    Parent,
    Progress,
    Spawned,
)
from swarm_tui.profile import Profile
from swarm_tui.settings import Local
from swarm_tui.stock import Stock
from swarm_tui.text import Safe, sanitize

if TYPE_CHECKING:
    from swarm_tui.local.home import Home
    from swarm_tui.local.image import Image
    from swarm_tui.local.swarm import LocalSwarm
    from swarm_tui.outpost.workshop import Workshop

QEMU_OVERHEAD_MIB: Final = 128
"""What QEMU takes besides the guest's memory, at most; half of it for software emulation."""
CH_OVERHEAD_MIB: Final = 32


class LocalSpawner:
    """Makes agents on the local host; what they all need is seen to at the first."""

    def __init__(
        self, folder: Path, cache: Path, local: Local, hypervisor: Hypervisor, guest: Guest
    ) -> None:
        """`folder` is the swarm's own, `cache` where images are."""
        self._folder = folder
        self._cache = cache
        self._local = local
        self._hypervisor = hypervisor
        self._guest = guest
        self._swarm: LocalSwarm | None = None
        self._preparing = asyncio.Lock()

    def needs(self, profile: Profile) -> Needs:
        return _needs(self._hypervisor, profile, self._local)

    async def spawn(self, order: Order, on_progress: Progress, on_named: OnNamed) -> Spawned:
        swarm = await self._open_swarm(on_progress)
        return await swarm.spawn(order, on_progress, on_named)

    @property
    def unforking(self) -> str:
        if self._hypervisor.uri.startswith("ch"):
            return (
                "libvirt's driver for Cloud Hypervisor restores a VM only under the name and the"
                " address that it was saved with"
            )
        return ""

    async def fork(
        self, parent: Parent, name: str, task: str, on_progress: Progress, on_named: OnNamed
    ) -> Spawned:
        swarm = await self._open_swarm(on_progress)
        return await swarm.fork(parent, name, task, on_progress, on_named)

    async def replenish(self, order: Order, on_progress: Progress) -> bool:
        swarm = await self._open_swarm(on_progress)
        return await swarm.replenish(order, on_progress)

    async def stocks(self, orders: Sequence[Order]) -> Sequence[Stock]:
        swarm = await self._open_swarm(_unheard)
        return await swarm.stocks(orders)

    async def drain(self, profile: Profile) -> int:
        swarm = await self._open_swarm(_unheard)
        return await swarm.drain(profile)

    async def discard(self, vm: Vm) -> None:
        from swarm_tui.local.swarm import discard_files

        await discard_files(self._folder, vm)

    async def prepare(self, on_progress: Progress) -> LocalSwarm:
        """The swarm with its image built, and all ready to make agents of no profile."""
        swarm = await self._open_swarm(on_progress)
        await swarm.prepare(on_progress)
        return swarm

    async def _open_swarm(self, on_progress: Progress) -> LocalSwarm:
        async with self._preparing:
            if self._swarm is None:
                self._swarm = await self._make_swarm(on_progress)
        return self._swarm

    async def down(self) -> Sequence[AgentId]:
        """End every agent of the local swarm; returns their ids."""
        from swarm_tui.local.swarm import bring_down

        return await bring_down(self._folder, self._hypervisor)

    async def _make_swarm(self, on_progress: Progress) -> LocalSwarm:
        from swarm_tui.local.accel import choose_accel
        from swarm_tui.local.cold import ColdBoots
        from swarm_tui.local.driver import Driver, driver_of
        from swarm_tui.local.forks import Forks
        from swarm_tui.local.home import Home
        from swarm_tui.local.image import build_image, find_image
        from swarm_tui.local.swarm import LocalSwarm

        loop = asyncio.get_running_loop()

        def tell(step: str) -> None:
            loop.call_soon_threadsafe(on_progress, sanitize(step), None)

        cache, local = self._cache, self._local
        home = Home(self._folder, self._hypervisor, self._guest, local.memory_mib)

        def find(name: str) -> Image:
            return find_image(cache, name) if name else build_image(cache, tell)

        if driver_of(self._hypervisor.uri) is Driver.CH:
            return LocalSwarm(home, ColdBoots(home, local.network), find)
        image = await asyncio.to_thread(find, "")
        accel = await asyncio.to_thread(choose_accel, image, cache, local.accel)
        tell(f"{accel.mode}: {accel.reason}")
        return LocalSwarm(home, Forks(home, accel.mode), find)


class FarSpawner:
    """Makes agents on a host behind SSH, with all that the host needs brought there."""

    def __init__(self, home: Home, cache: Path, local: Local, workshop: Workshop) -> None:
        """`home` is a folder here, and says by which host its guests are reached.

        `cache` is where images are, `workshop` where the host has its files.
        """
        self._home = home
        self._cache = cache
        self._local = local
        self._workshop = workshop
        self._swarm: LocalSwarm | None = None

    def needs(self, profile: Profile) -> Needs:
        return _needs(self._home.hypervisor, profile, self._local)

    async def spawn(self, order: Order, on_progress: Progress, on_named: OnNamed) -> Spawned:
        return await self._open_swarm().spawn(order, on_progress, on_named)

    async def discard(self, vm: Vm) -> None:
        await self._open_swarm().discard(vm)

    def _open_swarm(self) -> LocalSwarm:
        from swarm_tui.local.far import FarBoots, FarColdBoots, Supplies
        from swarm_tui.local.image import build_image, find_image
        from swarm_tui.local.swarm import LocalSwarm

        def find(name: str) -> Image:
            return (
                find_image(self._cache, name) if name else build_image(self._cache, lambda _: None)
            )

        if self._swarm is None:
            supplies = Supplies(self._home, self._workshop)
            is_ch = self._home.hypervisor.uri.startswith("ch")
            kind = (
                FarColdBoots(supplies, self._local.network)
                if is_ch
                else FarBoots(supplies, self._local.accel)
            )
            self._swarm = LocalSwarm(self._home, kind, find, self._workshop)
        return self._swarm


def _needs(hypervisor: Hypervisor, profile: Profile, local: Local) -> Needs:
    guest_mib = profile.memory_mib or local.memory_mib
    is_ch = hypervisor.uri.startswith("ch")
    return Needs(guest_mib << 20, (CH_OVERHEAD_MIB if is_ch else QEMU_OVERHEAD_MIB) << 20)


def _unheard(_step: Safe, _fraction: float | None) -> None:
    pass
