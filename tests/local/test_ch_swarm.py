"""A real local swarm under libvirt's Cloud Hypervisor driver, on the bench of `ch`."""

from __future__ import annotations

import asyncio
import json
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from ch.bench import Bench, NoDriver, find_driver

from swarm_tui.adapters.ch import ChHypervisor
from swarm_tui.adapters.ssh import SshGuest
from swarm_tui.errors import GuestUnreachable, Refused
from swarm_tui.local.cold import ColdBoots
from swarm_tui.local.home import Home
from swarm_tui.local.image import Image
from swarm_tui.local.swarm import LocalSwarm
from swarm_tui.model import Address, Completed, HostName, Power, Vm
from swarm_tui.outpost.local import LocalOutpost
from swarm_tui.outpost.network import kept_network
from swarm_tui.ports import Order
from swarm_tui.text import Safe

pytestmark = pytest.mark.vm

ANSWER_S = 30.0


def ignore_progress(_step: Safe, _fraction: float | None) -> None:
    pass


@dataclass(frozen=True)
class Bed:
    """A swarm in a folder of the tests' own."""

    bench: Bench
    home: Home
    image: Image

    @property
    def swarm(self) -> LocalSwarm:
        return LocalSwarm(self.home, ColdBoots(self.home, "auto"), lambda _: self.image)

    async def spawn(self, swarm: LocalSwarm, name: str = "", task: str = "") -> Vm:
        spawned = await swarm.spawn(Order(name, task), ignore_progress)
        return await self.home.hypervisor.describe(spawned.agent)

    async def ask(self, vm: Vm, script: str) -> str:
        assert vm.tag.address
        done = await self.home.guest.run(vm.tag.address, script, timeout_s=ANSWER_S)
        assert done.exit_status == 0, done.stderr
        return done.stdout.decode().strip()

    async def count(self, vm: Vm) -> int:
        return int(await self.ask(vm, "cat /run/swarm/counter"))

    def traces(self) -> list[str]:
        """What is left of agents on this machine: files, links, VMMs."""
        kept = kept_network(self.home.folder)
        links = json.loads(subprocess.check_output(["ip", "-json", "link", "show"]))
        own = [
            str(link["ifname"])
            for link in links
            if kept and kept.bridge in (link["ifname"], link.get("master"))
        ]
        return [*map(str, self.home.agents.glob("*")), *own, *map(str, self.bench.vmm_pids())]


@pytest.fixture
def bench() -> Iterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="ch-", dir="/var/tmp") as folder:
        try:
            bench = Bench(Path(folder) / "bench", find_driver())
        except NoDriver as reason:
            pytest.skip(str(reason))
        bench.start()
        yield bench
        bench.stop()


@pytest.fixture
async def bed(bench: Bench, image: Image) -> AsyncIterator[Bed]:
    folder = bench.folder.parent / "local"
    folder.mkdir(mode=0o711)
    outpost = LocalOutpost(bench.folder.parent / "ledger")
    hypervisor = ChHypervisor(HostName("local"), bench.uri, outpost)
    await hypervisor.open(lambda _: None)
    guest = SshGuest()
    bed = Bed(bench, Home(folder, hypervisor, guest), image)
    try:
        yield bed
    finally:
        await bed.swarm.down()
        await guest.close()
        await hypervisor.close()


async def test_agents_live_apart_are_saved_go_on_and_leave_nothing(bed: Bed) -> None:
    swarm, hypervisor = bed.swarm, bed.home.hypervisor
    tasks = ["Sort the imports", "Ümläuts & <tags>"]
    vms = await asyncio.gather(*(bed.spawn(swarm, task=task) for task in tasks))
    first, second = vms

    # Each is somebody, at an address of its own.
    assert [await bed.ask(vm, "hostname") for vm in vms] == [str(vm.name) for vm in vms]
    assert [await bed.ask(vm, "cat /run/swarm/task") for vm in vms] == tasks
    addresses = [vm.tag.address for vm in vms]
    assert all(addresses)
    network = kept_network(bed.home.folder)
    assert network
    assert {address.port for address in addresses if address} == {22}
    assert len({address.host for address in addresses if address}) == 2
    assert len({address.host_key for address in addresses if address}) == 2
    assert {vm.tag.base for vm in vms} == {bed.image.base_commit}
    with pytest.raises(Refused):
        await bed.spawn(swarm, str(first.name))

    # The other one cannot be reached, nor the host, whichever way is tried.
    assert second.tag.address
    for other in (second.tag.address.host, str(network.gateway)):
        tried = f"nc -w 2 {other} 22 </dev/null >/dev/null 2>&1 && echo open || echo shut"
        assert await bed.ask(first, tried) == "shut"

    # A save ends its VMM, and a restore goes on where it stood, at the same address.
    assert first.tag.address
    before = await bed.count(first)
    boot = await bed.ask(first, "cat /proc/sys/kernel/random/boot_id")
    await bed.home.guest.forget(first.tag.address)
    target = bed.home.folder / "memory"
    await hypervisor.save(first.id, target, ignore_progress)
    assert (await hypervisor.describe(first.id)).power is Power.OFF
    assert len(bed.bench.vmm_pids()) == 1
    third = bed.home.agents / first.id / "address"
    assert third.read_text().strip() == first.tag.address.host, "its address stays its own"
    await hypervisor.restore(first.id, target)
    await bed.home.guest.refresh(first.tag.address, ANSWER_S)
    after = await bed.count(first)
    assert after >= before
    await bed.ask(first, f"until [ $(cat /run/swarm/counter) -gt {after} ]; do sleep 0.1; done")
    assert await bed.ask(first, "cat /proc/sys/kernel/random/boot_id") == boot

    # Another process of the same person ends them all.
    assert len(bed.traces()) >= 7
    assert set(await bed.swarm.down()) == {vm.id for vm in vms}
    assert bed.traces() == []
    assert kept_network(bed.home.folder) is None
    assert await hypervisor.list() == []


class DeafGuest(SshGuest):
    """A stand-in for a guest that never answers."""

    async def run(
        self, address: Address, script: str, *, stdin: bytes = b"", timeout_s: float
    ) -> Completed:
        raise GuestUnreachable("nobody answers")


async def test_a_spawn_that_fails_leaves_nothing(bed: Bed) -> None:
    home = bed.home
    deaf = Home(home.folder, home.hypervisor, DeafGuest())
    swarm = LocalSwarm(deaf, ColdBoots(deaf, "auto"), lambda _: bed.image)
    with pytest.raises(GuestUnreachable):
        await swarm.spawn(Order(), ignore_progress)
    network = kept_network(home.folder)
    assert network
    assert bed.traces() == [network.bridge]
    assert await home.hypervisor.list() == []


async def test_a_spawn_that_is_cancelled_leaves_nothing(bed: Bed) -> None:
    reached = asyncio.Event()

    def on_progress(step: Safe, _fraction: float | None) -> None:
        if step.startswith("giving it a name"):
            reached.set()

    spawning = asyncio.create_task(bed.swarm.spawn(Order(), on_progress))
    await reached.wait()
    spawning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await spawning
    network = kept_network(bed.home.folder)
    assert network
    assert bed.traces() == [network.bridge]
    assert await bed.home.hypervisor.list() == []
