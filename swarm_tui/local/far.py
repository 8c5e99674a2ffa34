"""Agents on a host behind SSH, made from here: all that the host needs is brought there.

    <workshop>/images/DIGEST/       the image's files, as they are here
    <workshop>/agents/UUID/         disk and initramfs of one agent, as its `Kind` names them

Each boots by itself. The key that opens the guests stays here; the host has its public half.
"""

from __future__ import annotations

import asyncio
import base64
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final

from swarm_tui.errors import HostError, StorageFull
from swarm_tui.lifecycle.ground import in_thread
from swarm_tui.local import cold
from swarm_tui.local.accel import Mode
from swarm_tui.local.disk import grow_disk
from swarm_tui.local.home import Home, HostKey, Mould
from swarm_tui.local.image import pack_keys
from swarm_tui.local.machine import Machine, render, rewrite
from swarm_tui.model import Address, AgentId, Vm
from swarm_tui.outpost.network import Network
from swarm_tui.outpost.programs import run, telling
from swarm_tui.outpost.workshop import Workshop, send
from swarm_tui.ports import Progress
from swarm_tui.text import literal, sanitize

BOOT_S: Final = 120.0
"""For a cold boot under software emulation, on a busy host that nobody here can see."""
SPARE: Final = 256 << 20
"""Bytes that stay free on the host's disk when an image has been sent."""

Tell = Callable[[str, float | None], None]
Supply = Callable[[Mould, Tell], None]


class Supplies:
    """Moulds whose images lie on the host."""

    def __init__(self, home: Home, workshop: Workshop) -> None:
        self.home = home
        self.workshop = workshop
        self.root = Path("/")
        """The workshop's, once anything was got ready."""
        self._there: dict[Mould, Mould] = {}
        self._preparing: defaultdict[Mould, asyncio.Lock] = defaultdict(asyncio.Lock)

    def __getitem__(self, mould: Mould) -> Mould:
        """The mould as it lies there; it was got ready."""
        return self._there[mould]

    async def get_ready(self, mould: Mould, on_progress: Progress, also: Supply) -> None:
        """Have the image there: some messages when it is, else it is sent.

        `also` is done with the mould as it lies there, in a thread, before its disk is sent.
        """
        async with self._preparing[mould]:
            if mould not in self._there:
                loop = asyncio.get_running_loop()

                def tell(step: str, fraction: float | None) -> None:
                    loop.call_soon_threadsafe(on_progress, sanitize(step), fraction)

                self._there[mould] = await in_thread(self._supply, mould, also, tell)

    def furnish(self, machine: Machine, mould: Mould, initrd: Path) -> HostKey:
        """Write the initramfs that gives the guest its first keys. Blocks."""
        home = self.home
        host_key = home.make_host_key()
        keys = pack_keys(home.login_key(), host_key.private)
        self.workshop.extend(self[mould].image.initrd, initrd, base64.b64encode(keys).decode())
        return host_key

    def _supply(self, mould: Mould, also: Supply, tell: Tell) -> Mould:
        workshop, image = self.workshop, mould.image
        self.root = workshop.root()
        name = f"{image.digest}-{mould.disk_mib}" if mould.disk_mib else image.digest
        there = replace(image, folder=self.root / "images" / name)
        for part in (image.kernel, image.kernel_elf, image.initrd):
            send(workshop, part, there.folder / part.name)
        supplied = replace(mould, image=there)
        also(supplied, tell)
        if not workshop.has(there.base):
            self._send_disk(mould, there.base, tell)
        return supplied

    def _send_disk(self, mould: Mould, target: Path, tell: Tell) -> None:
        host = self.home.via
        with tempfile.TemporaryDirectory(dir=self.home.folder) as folder, telling("send the disk"):
            disk = mould.image.base
            if mould.disk_mib:
                disk = Path(folder) / disk.name
                run(["cp", "--reflink=auto", "--sparse=always", str(mould.image.base), str(disk)])
                grow_disk(disk, mould.disk_mib)
            told = os.stat(disk)
            needed, free = told.st_blocks * 512 + SPARE, self.workshop.room()
            if free < needed:
                raise StorageFull(
                    f"No room for the image on host {host}",
                    f"{self.root} has {free >> 20} MiB; {needed >> 20} MiB are needed.",
                )

            percent = -1

            def on_sent(sent: int) -> None:
                nonlocal percent
                if percent != (percent := 100 * sent // max(1, told.st_size)):
                    tell(f"sending the image to {host}", percent / 100)

            send(self.workshop, disk, target, on_sent)


class FarBoots:
    """How the VMs of a swarm come up under QEMU on a host behind SSH; a `swarm.Kind`."""

    answer_s = BOOT_S
    traits: Mapping[str, str] = {"driver": "qemu"}

    def __init__(self, supplies: Supplies, wanted: str) -> None:
        """`wanted`: the setting local.accel."""
        self.accel = Mode.TCG
        self._supplies = supplies
        self._wanted = wanted

    async def prepare(self, mould: Mould, on_progress: Progress) -> None:
        await self._supplies.get_ready(mould, on_progress, self._choose_accel)

    def _choose_accel(self, mould: Mould, tell: Tell) -> None:
        image = mould.image
        accel = self._supplies.workshop.choose_accel(image.kernel, image.initrd, self._wanted)
        tell(f"{accel.mode}: {accel.reason}", None)
        self.accel = accel.mode

    def seat(
        self, agent: AgentId, name: str, vms: Sequence[Vm], pending: Sequence[Machine]
    ) -> Machine:
        # Ports of saved agents are free now, and will be needed when they come back.
        taken = [vm.tag.address.port for vm in vms if vm.tag.address]
        taken += [machine.port for machine in pending]
        port = self._supplies.workshop.free_port(taken)
        return Machine(agent, name, self._supplies.root / "agents" / agent, port)

    def is_displaced(self, machine: Machine) -> bool:
        with suppress(HostError):  # then it is out of reach: no other try helps
            return not self._supplies.workshop.is_free(machine.port)
        return False

    def furnish(self, machine: Machine, mould: Mould) -> HostKey:
        workshop = self._supplies.workshop
        workshop.make_folder(machine.folder)
        workshop.overlay(self._supplies[mould].image.base, machine.disk)
        return self._supplies.furnish(machine, mould, _initrd(machine))

    async def start(
        self, machine: Machine, mould: Mould, address: Address, tag: str, on_progress: Progress
    ) -> Address:
        hypervisor = self._supplies.home.hypervisor
        plain = render(machine, self._supplies[mould], _initrd(machine), self.accel)
        await hypervisor.define(rewrite(plain, machine, machine, tag))
        on_progress(literal("booting it"), None)
        await hypervisor.start(machine.id)
        return address


class FarColdBoots:
    """How they come up under Cloud Hypervisor there; a `swarm.Kind`. See `cold.ColdBoots`."""

    answer_s = BOOT_S
    accel = Mode.KVM
    traits: Mapping[str, str] = {"driver": "ch"}

    def __init__(self, supplies: Supplies, addresses: str) -> None:
        """`addresses`: the setting local.network."""
        self._supplies = supplies
        self._wanted = addresses
        self._made: Network | None = None

    async def prepare(self, mould: Mould, on_progress: Progress) -> None:
        await self._supplies.get_ready(mould, on_progress, self._wire)

    def _wire(self, _: Mould, tell: Tell) -> None:
        wiring = self._supplies.workshop.wire(self._wanted)
        nameserver = IPv4Address(wiring.nameserver) if wiring.nameserver else None
        self._made = Network(wiring.bridge, IPv4Network(wiring.addresses), nameserver)
        for line in (f"the agents' network is {wiring.addresses}", *wiring.limits):
            tell(line, None)

    def seat(
        self, agent: AgentId, name: str, vms: Sequence[Vm], pending: Sequence[Machine]
    ) -> Machine:
        folder = self._supplies.root / "agents" / agent
        taken = [vm.tag.address.host for vm in vms if vm.tag.address]
        address = self._supplies.workshop.take_address(folder, taken)
        return Machine(agent, name, folder, cold.SSH, address)

    def is_displaced(self, machine: Machine) -> bool:
        return False  # its address is reserved

    def furnish(self, machine: Machine, mould: Mould) -> HostKey:
        self._supplies.workshop.copy(self._supplies[mould].image.base, cold.disk_of(machine))
        return self._supplies.furnish(machine, mould, cold.initrd_of(machine))

    async def start(
        self, machine: Machine, mould: Mould, address: Address, tag: str, on_progress: Progress
    ) -> Address:
        hypervisor = self._supplies.home.hypervisor
        assert self._made is not None  # prepared
        on_progress(literal("booting it"), None)
        await hypervisor.define(cold.render(machine, self._supplies[mould], self._made, tag))
        await hypervisor.start(machine.id)
        return address


def _initrd(machine: Machine) -> Path:
    return machine.folder / "initrd.img"
