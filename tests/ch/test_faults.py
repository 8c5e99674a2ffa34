"""Everything that breaks under libvirt's Cloud Hypervisor driver: nothing is lost, and all is told.

The agents' VMs run a shell on their console; what it remembers is the state that must not be lost.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import libvirt
import pytest

from swarm_tui.command import Kill, Pause, Resume
from swarm_tui.errors import (
    DeadlineExceeded,
    HostError,
    HostUnreachable,
    Refused,
    SnapshotError,
    StorageFull,
    SwarmError,
)
from swarm_tui.model import AgentId, State

from .bench import Bench
from .desk import Desk, open_desk
from .settings import Kind, Moment

pytestmark = pytest.mark.vm

REMEMBER = "remembered=forty-two"
RECALL = "echo $remembered"


async def assert_remembers(desk: Desk, agent: AgentId) -> None:
    assert await desk.say(agent, RECALL) == "forty-two"


def vmms(bench: Bench) -> int:
    return len(bench.vmm_pids())


def kill_vmm(bench: Bench) -> None:
    (pid,) = bench.vmm_pids()
    os.kill(pid, signal.SIGKILL)


def snapshot_folder(desk: Desk, agent: AgentId) -> Path:
    (snapshot,) = desk.snapshots.ids(agent)
    return desk.folder / "snapshots" / agent / snapshot


# The daemon


async def test_a_daemon_that_dies_costs_nothing(desk: Desk) -> None:
    """With one agent at work and one saved; the one at work is an orphan then, and adopted."""
    saved = await desk.start_vm("saved")
    await desk.say(saved, REMEMBER)
    await desk.do(Pause(saved))
    working = await desk.start_vm("working")
    await desk.say(working, REMEMBER)
    desk.bench.kill()
    await desk.shows(working, "lost")
    desk.bench.start()
    await desk.shows(working, "running", "orphan")
    await desk.shows(saved, "saved")
    await desk.do(Resume(saved))
    await desk.shows(saved, "running")
    await assert_remembers(desk, saved)
    assert "adopted" in await desk.do(Resume(working))
    await desk.shows(working, "running")
    assert desk.agent(working).reason == ""
    await assert_remembers(desk, working)
    assert vmms(desk.bench) == 2


async def test_an_orphan_can_be_ended(desk: Desk) -> None:
    agent = await desk.start_vm("ember")
    desk.bench.restart()
    await desk.shows(agent, "running", "orphan")
    await desk.do(Kill(agent))
    assert vmms(desk.bench) == 0
    assert desk.supervisor.store.agent(agent) is None


async def test_an_orphan_is_not_started_a_second_time(desk: Desk) -> None:
    agent = await desk.start_vm("ember")
    await desk.say(agent, REMEMBER)
    desk.bench.restart()
    await desk.shows(agent, "running", "orphan")
    with pytest.raises(Refused):
        await desk.hypervisor.start(agent)
    assert vmms(desk.bench) == 1
    await desk.do(Pause(agent, is_quick=True))
    await desk.shows(agent, "paused")
    await desk.do(Resume(agent))
    await desk.do(Resume(agent))
    await assert_remembers(desk, agent)


async def test_a_daemon_that_dies_in_the_middle_of_a_save(desk: Desk) -> None:
    agent = await desk.start_vm("ember")
    await desk.say(agent, REMEMBER)
    desk.bench.set_fault("vm.snapshot", Kind.DELAY, moment=Moment.AFTER, seconds=1)
    pausing = asyncio.create_task(desk.do(Pause(agent)))
    await desk.until(lambda: any(desk.folder.rglob("state.json")), "its memory is being written")
    desk.bench.kill()
    with pytest.raises((HostUnreachable, DeadlineExceeded)):
        await pausing
    desk.bench.clear_faults()
    desk.bench.start()
    await desk.shows(agent, "paused", "cut off")
    await desk.do(Resume(agent))
    await desk.shows(agent, "running")
    await desk.do(Resume(agent))  # it is an orphan yet, and is adopted
    await assert_remembers(desk, agent)
    assert vmms(desk.bench) == 1


async def test_what_libvirt_leaves_behind_of_a_save_is_cleared_away(desk: Desk) -> None:
    """libvirt says that the VM is off, and a supervisor that died did not end its VMM."""
    agent = await desk.start_vm("ember")
    await desk.say(agent, REMEMBER)
    async with desk.as_if_it_died_pausing(agent) as draft:
        await asyncio.to_thread(raw_save, desk.bench, "ember", draft.memory)
    assert vmms(desk.bench) == 1
    await desk.shows(agent, "saved")
    assert vmms(desk.bench) == 0
    await desk.do(Resume(agent))
    await assert_remembers(desk, agent)


async def test_what_libvirt_leaves_behind_is_told_and_can_be_killed(desk: Desk) -> None:
    agent = await desk.start_vm("ember")
    await asyncio.to_thread(raw_destroy, desk.bench, "ember")
    await desk.shows(agent, "unknown", "goes on with its disk")
    with pytest.raises(Refused):
        await desk.hypervisor.start(agent)
    await desk.do(Kill(agent))
    assert vmms(desk.bench) == 0


def raw_save(bench: Bench, name: str, target: Path) -> None:
    """As anybody's virsh would."""
    connection = libvirt.open(bench.uri)
    connection.lookupByName(name).save(str(target))
    connection.close()


def raw_destroy(bench: Bench, name: str) -> None:
    connection = libvirt.open(bench.uri)
    connection.lookupByName(name).destroy()
    connection.close()


# The VMM


async def test_a_vmm_that_dies_is_told_and_can_be_cleared_away(desk: Desk) -> None:
    agent = await desk.start_vm("ember")
    kill_vmm(desk.bench)
    await desk.shows(agent, "failed", "its VMM has died")
    await desk.do(Kill(agent))
    assert desk.supervisor.store.agent(agent) is None


async def test_a_guest_that_powers_itself_off_is_told(desk: Desk) -> None:
    agent = await desk.start_vm("ember")
    await desk.say(agent, REMEMBER)
    async with desk.hypervisor.console(agent) as console:
        await console.write(b"busybox poweroff -f\n")
        await desk.shows(agent, "failed", "shut down")
    assert vmms(desk.bench) == 0


async def test_a_vmm_that_hangs_holds_up_nobody_else_and_can_be_killed(desk: Desk) -> None:
    hanging = await desk.start_vm("hanging")
    other = await desk.start_vm("other")
    await desk.say(other, REMEMBER)
    desk.bench.set_fault("vm.pause", Kind.HANG, domain="hanging")
    with pytest.raises(DeadlineExceeded):
        await desk.do(Pause(hanging, is_quick=True))
    await desk.shows(hanging, "unknown", "does not answer")
    await desk.do(Pause(other, is_quick=True))
    await desk.shows(other, "paused")
    await desk.do(Resume(other))
    await desk.shows(other, "running")
    await assert_remembers(desk, other)
    await desk.do(Kill(hanging))
    assert desk.supervisor.store.agent(hanging) is None
    assert vmms(desk.bench) == 1


# Saves


@contextmanager
def small_disk(folder: Path, size_mib: int) -> Iterator[None]:
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs"]
    subprocess.run(["mount", *options, str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


async def test_a_disk_that_fills_up_during_a_save(desk: Desk) -> None:
    agent = await desk.start_vm("ember")
    await desk.say(agent, REMEMBER)
    with small_disk(desk.folder / "snapshots", 20):
        with pytest.raises(StorageFull) as caught:
            await desk.do(Pause(agent))
        assert "nothing was lost" in caught.value.hint
        await desk.shows(agent, "running")
        assert list((desk.folder / "snapshots").rglob("memory*")) == []
    await assert_remembers(desk, agent)
    await desk.do(Pause(agent))
    await desk.do(Resume(agent))
    await assert_remembers(desk, agent)


async def test_a_vmm_that_dies_during_a_save_keeps_its_disk(desk: Desk) -> None:
    agent = await desk.start_vm("ember")
    with (
        desk.bench.fault("vm.snapshot", Kind.CRASH, moment=Moment.DURING, room_bytes=1 << 20),
        pytest.raises(HostError),
    ):
        await desk.do(Pause(agent))
    await desk.shows(agent, "failed")
    assert (desk.folder / "ember.raw").exists()
    assert vmms(desk.bench) == 0


def remove(file: Path) -> None:
    file.unlink()


def shorten(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 4096 if file.stat().st_size > 4096 else 0)


@pytest.mark.parametrize("damage", [remove, shorten])
async def test_a_damaged_save_is_refused_and_kept(
    desk: Desk, damage: Callable[[Path], None]
) -> None:
    agent = await desk.start_vm("ember")
    await desk.say(agent, REMEMBER)
    await desk.do(Pause(agent))
    memory = snapshot_folder(desk, agent) / "memory"
    for name in ("memory-ranges", "state.json", "config.json", "libvirt-save.xml"):
        whole = (memory / name).read_bytes()
        damage(memory / name)
        with pytest.raises(SnapshotError, match="not whole"):
            await desk.do(Resume(agent))
        await desk.shows(agent, "saved")
        assert vmms(desk.bench) == 0
        (memory / name).write_bytes(whole)
    await desk.do(Resume(agent))
    await assert_remembers(desk, agent)


async def test_a_definition_that_differs_from_the_saved_one(desk: Desk) -> None:
    agent = await desk.start_vm("ember")
    await desk.say(agent, REMEMBER)
    await desk.do(Pause(agent))
    definition = await desk.hypervisor.definition(agent)
    await desk.hypervisor.define(definition.replace("131072", "262144"))
    with pytest.raises(SnapshotError, match="definition") as caught:
        await desk.do(Resume(agent))
    assert "memory" in caught.value.detail
    await desk.shows(agent, "saved")
    await desk.hypervisor.define(definition)
    await desk.do(Resume(agent))
    await assert_remembers(desk, agent)


async def test_a_save_of_another_version(desk: Desk) -> None:
    agent = await desk.start_vm("ember")
    await desk.say(agent, REMEMBER)
    await desk.do(Pause(agent))
    for version, is_same in (("53.0", False), ("52.0", True)):
        desk.bench.kill()
        await desk.shows(agent, "lost")
        desk.bench.configure(version=version)
        desk.bench.start()
        await desk.shows(agent, "saved")
        if is_same:
            break
        with pytest.raises(SnapshotError, match="another hypervisor version"):
            await desk.do(Resume(agent))
    await desk.do(Resume(agent))
    await assert_remembers(desk, agent)


# Several at once


async def test_two_supervisors_never_act_twice(desk: Desk) -> None:
    agent = await desk.start_vm("ember")
    await desk.say(agent, REMEMBER)
    async with open_desk(desk.bench, desk.image, desk.folder) as second:
        for command, state in ((Pause(agent), State.SAVED), (Resume(agent), State.RUNNING)):
            done = await asyncio.gather(
                desk.do(command), second.do(command), return_exceptions=True
            )
            failed = [outcome for outcome in done if isinstance(outcome, BaseException)]
            assert len(failed) == 1, [str(error) for error in failed]
            assert isinstance(failed[0], Refused)
            await desk.shows(agent, state)
            await second.shows(agent, state)
        await assert_remembers(desk, agent)
        assert vmms(desk.bench) == 1
        await second.do(Kill(agent))
        await desk.until(
            lambda: desk.supervisor.store.agent(agent) is None, "the other one sees it gone"
        )
    assert not [error for error in desk.supervisor.take_faults() if isinstance(error, SwarmError)]
