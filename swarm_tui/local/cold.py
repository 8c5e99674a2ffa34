"""Agents under Cloud Hypervisor: each boots by itself, on a disk and at an address of its own.

    <folder>/agents/UUID/address    taken for as long as the folder is there
    <folder>/agents/UUID/disk.raw   a copy of the image's disk
    <folder>/agents/UUID/initrd.img gives the guest its first keys; for root alone

libvirt's driver for Cloud Hypervisor has no checkpoints, so there is nothing to fork from. Its
devices are few, and their options fewer: what is in `render` is all that it accepts and we need
(src/ch/ch_domain.c, chValidateDomainDeviceDef, and ch_monitor.c).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from swarm_tui.errors import SetupError
from swarm_tui.local.accel import Mode
from swarm_tui.local.disk import grow_disk
from swarm_tui.local.guest import render_arguments
from swarm_tui.local.home import Home, HostKey, Mould
from swarm_tui.local.image import COMMAND_LINE, write_initrd
from swarm_tui.local.machine import Machine
from swarm_tui.model import Address, AgentId, Vm
from swarm_tui.outpost.network import Network, ensure_network, mac_of
from swarm_tui.outpost.programs import locked, make_folder, replace, run
from swarm_tui.ports import Progress
from swarm_tui.text import literal, sanitize

BOOT_S: Final = 90.0
"""Under the best of conditions it takes one; this is for a host that has too much to do."""
SSH: Final = 22


class ColdBoots:
    """How the VMs of a swarm come up under Cloud Hypervisor; a `swarm.Kind`."""

    answer_s = BOOT_S
    accel = Mode.KVM
    traits: Mapping[str, str] = {"driver": "ch"}

    def __init__(self, home: Home, addresses: str) -> None:
        """`addresses`: the setting local.network."""
        self._home = home
        self._wanted = addresses
        self._made: Network | None = None
        self._preparing = asyncio.Lock()

    async def prepare(self, mould: Mould, on_progress: Progress) -> None:
        """Have the network ready, and say what it lacks."""
        async with self._preparing:
            await self._ensure_network(on_progress)

    async def _ensure_network(self, on_progress: Progress) -> None:
        if self._made is None:
            loop = asyncio.get_running_loop()

            def say(step: str) -> None:
                loop.call_soon_threadsafe(on_progress, sanitize(step), None)

            network = await asyncio.to_thread(ensure_network, self._home.folder, self._wanted, say)
            on_progress(sanitize(f"the agents' network is {network.addresses}"), None)
            for limit in network.limits:
                on_progress(sanitize(limit), None)
            await asyncio.to_thread(self._home.login_key)
            self._made = network

    def seat(
        self, agent: AgentId, name: str, vms: Sequence[Vm], pending: Sequence[Machine]
    ) -> Machine:
        folder = self._home.agents / agent
        with locked(self._home.folder / "addresses.lock", lambda _: None):
            taken = set(self._taken(vms))
            address = next((own for own in self._network.guests if str(own) not in taken), None)
            if address is None:
                raise SetupError(
                    "No address is free for a new agent",
                    f"All of {self._network.addresses} are given.",
                    "End an agent, or end them all and set local.network to a larger network.",
                )
            make_folder(folder, 0o700)
            replace(folder / "address", f"{address}\n".encode())
        return Machine(agent, name, folder, SSH, str(address))

    def _taken(self, vms: Sequence[Vm]) -> Iterator[str]:
        """Also by agents that are saved, and by those that other processes are about to make."""
        for vm in vms:
            if vm.tag.address:
                yield vm.tag.address.host
        for path in self._home.agents.glob("*/address"):
            yield path.read_text().strip()

    def is_displaced(self, machine: Machine) -> bool:
        return False  # its address is reserved

    def furnish(self, machine: Machine, mould: Mould) -> HostKey:
        home, disk = self._home, disk_of(machine)
        # A copy that shares its blocks with the image, where the file system can.
        run(["cp", "--reflink=auto", "--sparse=always", str(mould.image.base), str(disk)])
        disk.chmod(0o600)
        if mould.disk_mib:
            grow_disk(disk, mould.disk_mib)
        host_key = home.make_host_key()
        write_initrd(mould.image, initrd_of(machine), home.login_key(), host_key.private)
        return host_key

    async def start(
        self, machine: Machine, mould: Mould, address: Address, tag: str, on_progress: Progress
    ) -> Address:
        hypervisor = self._home.hypervisor
        on_progress(literal("booting it"), None)
        await hypervisor.define(render(machine, mould, self._network, tag))
        await hypervisor.start(machine.id)
        return address

    @property
    def _network(self) -> Network:
        assert self._made is not None  # prepared
        return self._made


def render(machine: Machine, mould: Mould, network: Network, tag: str) -> str:
    """The definition of an agent's VM.

    The VMM is the daemon's own choice, the one whose version it knows. The kernel is an ELF file:
    all versions of Cloud Hypervisor boot those.
    """
    own = IPv4Address(machine.host)
    said = render_arguments(network.interface(own), network.gateway, network.nameserver)
    return f"""\
<domain type='kvm'>
  <name>{machine.name}</name>
  <uuid>{machine.id}</uuid>
  <metadata>{tag}</metadata>
  <memory unit='MiB'>{mould.memory_mib}</memory>
  <vcpu>{mould.vcpus}</vcpu>
  <os>
    <type arch='x86_64'>hvm</type>
    <kernel>{escape(str(mould.image.kernel_elf))}</kernel>
    <initrd>{escape(str(initrd_of(machine)))}</initrd>
    <cmdline>{COMMAND_LINE} {said}</cmdline>
  </os>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <disk type='file' device='disk'>
      <driver type='raw'/>
      <source file={quoteattr(str(disk_of(machine)))}/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <interface type='bridge'>
      <mac address='{mac_of(own)}'/>
      <source bridge='{network.bridge}'/>
      <target dev='{_tap(machine)}'/>
      <model type='virtio'/>
      <port isolated='yes'/>
    </interface>
    <serial type='pty'><target port='0'/></serial>
  </devices>
</domain>
"""


def disk_of(machine: Machine) -> Path:
    """Its root disk (raw)."""
    return machine.folder / "disk.raw"


def initrd_of(machine: Machine) -> Path:
    """Its own initramfs, with keys."""
    return machine.folder / "initrd.img"


def _tap(machine: Machine) -> str:
    """Unlike any other's, and as long as the kernel allows (15).

    One of our own: a VMM that its daemon has forgotten still holds it, so that the same agent
    cannot be started beside.
    """
    return f"swt{machine.id.replace('-', '')[:12]}"
