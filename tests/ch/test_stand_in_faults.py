"""The stand-in's failures on demand: each does what it says, and is over when it is cleared."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from pathlib import Path

import libvirt
import pytest

from swarm_tui.local.image import Image

from .bench import await_that
from .guest import Guest
from .rig import SOON_S, Rig, open_rig
from .settings import Kind, Moment

pytestmark = [pytest.mark.vm, pytest.mark.slow]

ROOM = 1 << 20


@pytest.fixture(scope="module")
def rig(image: Image, image_cache: Path) -> Iterator[Rig]:
    with open_rig(image, image_cache) as rig:
        if not rig.bench.is_stand_in:
            pytest.skip("Cloud Hypervisor itself runs here, and fails when it likes")
        yield rig


@pytest.fixture(scope="module")
def guest(rig: Rig) -> Guest:
    """One that runs, for tests that leave it so."""
    guest = rig.make("agent-1")
    rig.start(guest)
    return guest


@pytest.fixture(autouse=True)
def no_faults(rig: Rig) -> Iterator[None]:
    yield
    rig.bench.clear_faults()


def test_a_vmm_that_hangs_answers_nothing_until_it_does(rig: Rig, guest: Guest) -> None:
    domain = rig.domain(guest)
    with ThreadPoolExecutor() as pool:
        with rig.bench.fault("vm.pause", Kind.HANG):
            suspended = pool.submit(domain.suspend)
            with pytest.raises(NotYet):
                suspended.result(timeout=0.5)
            pinged = pool.submit(rig.ask, guest, "GET", "vmm.ping")
            with pytest.raises(NotYet):
                pinged.result(timeout=0.5)
        suspended.result(SOON_S)
        assert pinged.result(SOON_S)[0] == 200
    assert domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED
    domain.resume()


def test_an_error_is_told_and_changes_nothing(rig: Rig, guest: Guest) -> None:
    domain = rig.domain(guest)
    with rig.bench.fault("vm.pause", Kind.ERROR, status=503, messages=("Not", "today")):
        assert rig.ask(guest, "PUT", "vm.pause") == (503, ["Not", "today"])
        with pytest.raises(libvirt.libvirtError, match="failed to suspend domain"):
            domain.suspend()
    assert domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING
    domain.suspend()
    domain.resume()


def test_an_error_can_come_after_the_deed(rig: Rig, guest: Guest) -> None:
    with rig.bench.fault("vm.pause", Kind.ERROR, moment=Moment.AFTER):
        assert rig.ask(guest, "PUT", "vm.pause")[0] == 500
    assert rig.ask(guest, "GET", "vm.info")[1]["state"] == "Paused"
    assert rig.ask(guest, "PUT", "vm.resume")[0] == 204


def test_a_delay_delays(rig: Rig, guest: Guest) -> None:
    began = time.monotonic()
    with rig.bench.fault("vmm.ping", Kind.DELAY, seconds=0.5):
        assert rig.ask(guest, "GET", "vmm.ping")[0] == 200
    assert time.monotonic() - began >= 0.5


def test_a_fault_can_be_one_vms_own(rig: Rig, guest: Guest) -> None:
    with rig.bench.fault("vmm.ping", Kind.ERROR, domain="agent-2"):
        assert rig.ask(guest, "GET", "vmm.ping")[0] == 200
    with rig.bench.fault("vmm.ping", Kind.ERROR, domain=guest.name):
        assert rig.ask(guest, "GET", "vmm.ping")[0] == 500


async def test_a_disk_that_fills_up_leaves_a_part_and_a_paused_vm(rig: Rig, guest: Guest) -> None:
    await guest.run("true")
    domain = rig.domain(guest)
    folder = rig.folder / "part"
    rig.bench.set_fault("vm.snapshot", Kind.FULL, moment=Moment.DURING, room_bytes=ROOM)
    with pytest.raises(libvirt.libvirtError, match="Failed to save domain"):
        domain.save(str(folder))
    assert (folder / "memory-ranges").stat().st_size == ROOM
    assert domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED
    domain.resume()
    assert await guest.run("echo unharmed") == "unharmed\n"


async def test_a_disk_that_is_really_full_does_the_same(rig: Rig, guest: Guest) -> None:
    await guest.run("true")
    domain = rig.domain(guest)
    folder = rig.folder / "full"
    folder.mkdir()
    _run_beside_virtchd(rig, "mount", "-t", "tmpfs", "-o", f"size={ROOM}", "none", str(folder))
    try:
        with pytest.raises(libvirt.libvirtError, match="Failed to save domain"):
            domain.save(str(folder))
        (answer,) = (a for a in rig.requests(guest, "vm.snapshot") if "No space" in str(a))
        assert answer["status"] == 500
    finally:
        domain.resume()
        _run_beside_virtchd(rig, "umount", str(folder))
    assert await guest.run("echo unharmed") == "unharmed\n"


def _run_beside_virtchd(rig: Rig, *command: str) -> None:
    """Run a command that sees the files that virtchd and its VMMs see."""
    pid = (rig.bench.folder / "virtchd.pid").read_text().strip()
    subprocess.run(["nsenter", "--mount", "--target", pid, *command], check=True)


async def test_a_vmm_can_crash_while_it_saves(rig: Rig, guest: Guest) -> None:
    await guest.run("sync")
    domain = rig.domain(guest)
    pid = domain.ID()
    folder = rig.folder / "crashed"
    rig.bench.set_fault("vm.snapshot", Kind.CRASH, moment=Moment.DURING, room_bytes=ROOM)
    with pytest.raises(libvirt.libvirtError, match="Failed to save domain"):
        domain.save(str(folder))
    await_that(lambda: pid not in rig.bench.vmm_pids(), SOON_S, "the VMM is gone")
    assert (folder / "memory-ranges").stat().st_size == ROOM
    domain.destroy()
    domain.create()


async def test_snapshots_of_other_versions_or_in_pieces_are_refused(rig: Rig, guest: Guest) -> None:
    await guest.run("true")
    folder, cut = rig.folder / "saved", rig.folder / "cut"
    domain = rig.domain(guest)
    pid = domain.ID()
    domain.save(str(folder))
    rig.end_vmm(pid)
    shutil.copytree(folder, cut)
    os.truncate(cut / "memory-ranges", ROOM)
    with pytest.raises(libvirt.libvirtError, match=f"has {ROOM} bytes instead of"):
        rig.libvirt.restore(str(cut))
    (cut / "state.json").unlink()
    with pytest.raises(libvirt.libvirtError, match=r"state\.json"):
        rig.libvirt.restore(str(cut))
    rig.bench.configure(version="53.0", refuses_other_versions=True)
    with pytest.raises(libvirt.libvirtError, match=r"it is of version 52\.0, this is 53\.0"):
        rig.libvirt.restore(str(folder))
    rig.bench.configure(version="52.0")
    for pid in rig.bench.vmm_pids():  # each waits for another VM, and nobody ends it
        rig.end_vmm(pid)
    rig.libvirt.restore(str(folder))
    assert await guest.run("echo back") == "back\n"


def test_the_process_of_the_guest_and_that_of_its_api_die_together(rig: Rig, guest: Guest) -> None:
    pid = rig.domain(guest).ID()
    (api,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    os.kill(int(api), signal.SIGKILL)
    await_that(lambda: pid not in rig.bench.vmm_pids(), SOON_S, "the guest's process ends")
