"""What the stand-in must do for libvirt's CH driver, and what a guest's host counts of it.

All of it is true of Cloud Hypervisor, too, and is tried on that where it can run.
"""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from os import kill
from pathlib import Path
from typing import Any

import libvirt
import pytest

from swarm_tui.local.image import Image

from .bench import await_that
from .guest import BOOT_S, Guest
from .rig import SOON_S, Rig, await_state, open_rig, type_on

pytestmark = [pytest.mark.vm, pytest.mark.slow]

COUNT = "(n=0; while usleep 50000; do n=$((n+1)); echo $n >/run/count; done) >/dev/null 2>&1 &"
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"


@pytest.fixture(scope="module")
def rig(image: Image, image_cache: Path) -> Iterator[Rig]:
    with open_rig(image, image_cache) as rig:
        yield rig


@pytest.fixture(scope="module")
def guest(rig: Rig) -> Guest:
    """One that runs, for all tests that leave it so."""
    guest = rig.make("agent-1")
    rig.start(guest)
    return guest


def terminal_of(domain: Any, device: str = "serial") -> Path:
    match = re.search(rf"<{device} type='pty'[^>]*>\s*<source path='([^']+)'", domain.XMLDesc())
    assert match
    return Path(match[1])


def number_in(file: Path, name: str) -> int:
    match = re.search(rf"^{name}:\s+(\d+)", file.read_text(), re.MULTILINE)
    assert match
    return int(match[1])


def fails(ask: Callable[[], object]) -> bool:
    try:
        ask()
    except libvirt.libvirtError:
        return True
    return False


# A running guest


async def test_a_guest_answers_on_its_network_and_its_console(rig: Rig, guest: Guest) -> None:
    assert await guest.run("hostname") == "swarm-guest\n"
    domain = rig.domain(guest)
    assert domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING
    said = type_on(terminal_of(domain), "\n\necho sum=$((20+22))\n", until="sum=42")
    assert "agent@" in said


async def test_the_domains_id_is_the_process_that_runs_the_guest(rig: Rig, guest: Guest) -> None:
    await guest.run("true")
    domain = rig.domain(guest)
    process = Path(f"/proc/{domain.ID()}")
    assert (process / "comm").read_text() == "cloud-hyperviso\n"
    assert number_in(process / "smaps_rollup", "Rss") > 100 << 10
    assert f"/ch-{domain.ID()}-{guest.name}.libvirt-ch" in (process / "cgroup").read_text()
    written = number_in(process / "io", "write_bytes")
    await guest.run("dd if=/dev/urandom of=/root/noise bs=1M count=4 conv=fsync 2>/dev/null")
    assert number_in(process / "io", "write_bytes") - written >= 4 << 20


async def test_libvirt_counts_the_time_of_the_guests_cpu(rig: Rig, guest: Guest) -> None:
    await guest.run("true")
    domain = rig.domain(guest)
    before = domain.vcpus()[0][0][2]
    await guest.run("n=0; while [ $n -lt 20000 ]; do n=$((n+1)); done")
    assert domain.vcpus()[0][0][2] > before


async def test_the_api_counts_disk_and_network(rig: Rig, guest: Guest) -> None:
    await guest.run("true")
    before = rig.ask(guest, "GET", "vm.counters")[1]
    await guest.run("dd if=/dev/urandom of=/root/noise bs=1M count=2 conv=fsync 2>/dev/null")
    after = rig.ask(guest, "GET", "vm.counters")[1]
    assert after["_disk0"]["write_bytes"] - before["_disk0"]["write_bytes"] >= 2 << 20
    assert after["_disk0"]["read_bytes"] > 0
    assert after["net_0"]["rx_bytes"] > before["net_0"]["rx_bytes"]
    assert after["net_0"]["tx_frames"] > before["net_0"]["tx_frames"]


async def test_a_suspended_guest_stands_still(rig: Rig, guest: Guest) -> None:
    began, up = time.monotonic(), float((await guest.run("cat /proc/uptime")).split()[0])
    domain = rig.domain(guest)
    domain.suspend()
    assert domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED
    assert rig.ask(guest, "GET", "vm.info")[1]["state"] == "Paused"
    status, messages = rig.ask(guest, "PUT", "vm.pause")
    assert (status, messages[:2]) == (500, ["Error from API", "The VM could not be paused"])
    await asyncio.sleep(1)  # passes on the host only
    domain.resume()
    assert rig.ask(guest, "GET", "vm.info")[1]["state"] == "Running"
    up = float((await guest.run("cat /proc/uptime")).split()[0]) - up
    assert time.monotonic() - began - up > 0.9


async def test_a_running_vm_cannot_be_snapshotted(rig: Rig, guest: Guest) -> None:
    await guest.run("true")
    status, messages = rig.ask(guest, "GET", "vm.snapshot")
    assert (status, messages) == (400, ["Bad Request"])
    status, messages = rig.ask(guest, "PUT", "vm.snapshot")
    assert status == 500
    assert messages[-1] == "Trying to snapshot while VM is running"
    assert rig.ask(guest, "PUT", "vm.fly")[0] == 404


async def test_a_disk_is_given_to_one_vm_only(rig: Rig, guest: Guest) -> None:
    await guest.run("true")
    other = rig.make("agent-2")
    with pytest.raises(libvirt.libvirtError, match="failed to boot guest VM"):
        rig.start(other, other.xml().replace(str(other.disk), str(guest.disk)))
    assert rig.domain(other).state()[0] == libvirt.VIR_DOMAIN_SHUTOFF
    assert await guest.run("echo unharmed") == "unharmed\n"


# Saved and restored


async def test_a_restored_guest_goes_on_and_its_connections_too(rig: Rig, guest: Guest) -> None:
    await guest.run(COUNT)
    boot = await guest.run(BOOT_ID)
    folder = rig.folder / "saved"
    domain = rig.domain(guest)
    pid = domain.ID()
    async with guest.connect() as connection:
        before = int(str((await connection.run("cat /run/count", check=True)).stdout))
        domain.save(str(folder))
        assert domain.state()[0] == libvirt.VIR_DOMAIN_SHUTOFF
        names = {path.name for path in folder.iterdir()}
        assert names == {"libvirt-save.xml", "config.json", "state.json", "memory-ranges"}
        rig.end_vmm(pid)
        rig.libvirt.restore(str(folder))
        after = int(str((await connection.run("cat /run/count", check=True)).stdout))
    assert after >= before
    assert await guest.run(BOOT_ID) == boot
    domain = rig.domain(guest)
    assert domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING
    assert domain.ID() != pid
    said = type_on(terminal_of(domain), "\n\necho sum=$((20+23))\n", until="sum=43")
    assert "agent@" in said


async def test_a_saved_vm_keeps_its_disk_until_its_vmm_ends(rig: Rig, guest: Guest) -> None:
    """Where no machined ends the VMM for libvirt; there, it has ended at once."""
    await guest.run("true")
    folder = rig.folder / "kept"
    domain = rig.domain(guest)
    pid = domain.ID()
    domain.save(str(folder))
    if pid in rig.bench.vmm_pids():
        with pytest.raises(libvirt.libvirtError, match="already locked"):
            rig.libvirt.restore(str(folder))
        rig.end_vmm(pid)
    rig.libvirt.restore(str(folder))
    assert await guest.run("echo back") == "back\n"


# The end of a guest


async def test_a_guest_that_reboots_is_another_one_in_the_same_process(
    rig: Rig, guest: Guest
) -> None:
    boot = await guest.run(BOOT_ID)
    pid = rig.domain(guest).ID()
    await guest.end("reboot")
    async with asyncio.timeout(BOOT_S):
        while await guest.run(BOOT_ID) == boot:
            pass
    domain = rig.domain(guest)
    assert (domain.state()[0], domain.ID()) == (libvirt.VIR_DOMAIN_RUNNING, pid)


async def test_libvirt_notices_a_guest_that_powers_off(rig: Rig, guest: Guest) -> None:
    await guest.run("true")
    domain = rig.domain(guest)
    pid = domain.ID()
    await guest.end("poweroff")
    await_state(domain, libvirt.VIR_DOMAIN_SHUTOFF)
    await_that(lambda: pid not in rig.bench.vmm_pids(), SOON_S, "the process ends")
    domain.create()
    assert await guest.run("echo again") == "again\n"


async def test_libvirt_notices_a_vmm_that_is_told_to_end(rig: Rig, guest: Guest) -> None:
    await guest.run("sync")
    domain = rig.domain(guest)
    pid = domain.ID()
    kill(pid, signal.SIGTERM)
    await_state(domain, libvirt.VIR_DOMAIN_SHUTOFF)
    await_that(lambda: pid not in rig.bench.vmm_pids(), SOON_S, "the process ends")
    domain.create()


async def test_a_shutdown_by_libvirt_lets_the_disk_go(rig: Rig, guest: Guest) -> None:
    """It pulls the plug, and the VMM may stay, without a VM."""
    await guest.run("sync")
    domain = rig.domain(guest)
    pid = domain.ID()
    domain.shutdown()
    await_state(domain, libvirt.VIR_DOMAIN_SHUTOFF)
    domain.create()
    assert await guest.run("echo again") == "again\n"
    rig.end_vmm(pid)


async def test_libvirt_does_not_notice_a_vmm_that_is_killed(rig: Rig, guest: Guest) -> None:
    await guest.run("sync")
    domain = rig.domain(guest)
    pid = domain.ID()
    kill(pid, signal.SIGKILL)
    await_that(lambda: fails(domain.vcpus), SOON_S, "its CPUs are gone")
    assert domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING
    domain.destroy()
    assert domain.state()[0] == libvirt.VIR_DOMAIN_SHUTOFF
    domain.create()


async def test_a_vm_goes_on_without_libvirts_daemon(rig: Rig, guest: Guest) -> None:
    await guest.run(COUNT)
    pid = rig.domain(guest).ID()
    rig.bench.kill()
    assert await guest.run("echo alone") == "alone\n"
    rig.bench.start()
    rig.connect()
    assert rig.libvirt.listAllDomains() == []
    assert pid in rig.bench.vmm_pids()
    assert rig.ask(guest, "GET", "vm.info")[1]["state"] == "Running"
    assert int(await guest.run("cat /run/count")) > 0
    rig.end_vmm(pid)


# Other devices


async def test_several_disks_queues_and_terminals(rig: Rig) -> None:
    """Disks come in their order; those of unknown type refuse writes to their first sector."""
    guest = rig.make("agent-3")
    spare, fixed = rig.folder / "spare.raw", rig.folder / "fixed.raw"
    for path, size in ((spare, 2 << 20), (fixed, 3 << 20)):
        path.write_bytes(bytes(size))
    serial = guest.folder / "serial"
    ports = f"<serial type='unix'><source mode='bind' path='{serial}'/></serial>"
    ports += "<console type='pty'><target type='virtio' port='0'/></console>"
    xml = guest.xml(vcpus=2, disks=[spare, fixed], serial=ports)
    last = "<target dev='vdc' bus='virtio'/>"
    xml = xml.replace(last, f"{last}<readonly/>")
    xml = xml.replace("<model type='virtio'/>", "<model type='virtio'/><driver queues='2'/>")
    domain = rig.start(guest, xml)
    sizes = await guest.run("cat /sys/block/vdb/size /sys/block/vdc/size /sys/block/vdc/ro")
    assert [int(word) for word in sizes.split()] == [4096, 6144, 1]
    assert await guest.run("nproc") == "2\n"
    assert len(domain.vcpus()[0]) == 2
    write = "dd if=/dev/zero of=/dev/vdb bs=512 count=1 conv=fsync oflag=direct seek={} 2>&1"
    assert "Input/output error" in await guest.run(f"{write.format(0)}; true")
    assert "1+0 records out" in await guest.run(write.format(2048))
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(SOON_S)
        line.connect(str(serial))
        line.sendall(b"\n\necho sum=$((20+24))\n")
        said = b""
        while b"sum=44" not in said:
            said += line.recv(4096)
    await guest.run("echo from-hvc0 >/dev/hvc0")
    assert "from-hvc0" in type_on(terminal_of(domain, "console"), "", until="from-hvc0")
    if rig.bench.is_stand_in:
        assert [line["descriptors"] for line in rig.requests(guest, "vm.add-net")] == [2]
    pid = domain.ID()
    domain.destroy()
    rig.end_vmm(pid)
