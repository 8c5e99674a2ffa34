"""Pause, resume and kill, with each step failing or cut off in turn: no agent's state is lost."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from swarm_tui import durable
from swarm_tui.errors import (
    Busy,
    DeadlineExceeded,
    GuestFailed,
    GuestUnreachable,
    HostError,
    HostUnreachable,
    Refused,
    SnapshotError,
    StorageFull,
    SwarmError,
)
from swarm_tui.lifecycle import claimed
from swarm_tui.model import Capabilities, Power, Verb

from .standin import (
    AGENT,
    Call,
)
from .workbench import Site, make_site, quiet


@pytest.fixture
def site(memory_path: Path) -> Site:
    return make_site(memory_path)


async def test_pause_frees_the_ram_and_resume_goes_on_exactly(site: Site) -> None:
    done = await site.pause()
    assert "saved" in done
    assert site.world.power() is Power.OFF
    assert site.record.saved_in in site.snapshots.ids(AGENT)
    assert not list(site.world.root.glob("*.img")), "a saved VM could be started on its disks"
    assert await site.resume() == "goes on where it stood"
    site.assert_working()


async def test_an_agent_can_be_paused_again_and_again(site: Site) -> None:
    for _ in range(3):
        await site.pause()
        assert len(site.snapshots.ids(AGENT)) <= site.keep + 1
        await site.resume()
        assert len(site.snapshots.ids(AGENT)) == site.keep
    site.assert_working()


async def test_an_orphan_is_adopted_where_it_stands(site: Site) -> None:
    site.world.change(AGENT, is_orphan=True)
    assert await site.resume() == "adopted; goes on where it stood"
    assert not site.world.vm(AGENT).is_orphan
    site.assert_working()


async def test_an_orphan_that_cannot_be_saved_runs_on(site: Site) -> None:
    site.world.change(AGENT, is_orphan=True)
    site.world.plans["save"] = Call(before=StorageFull("No room to save the VM"))
    with pytest.raises(StorageFull):
        await site.resume()
    assert site.world.vm(AGENT).is_orphan
    site.assert_working()


async def test_an_orphan_that_cannot_be_restored_stays_saved(site: Site) -> None:
    site.world.change(AGENT, is_orphan=True)
    site.world.plans["restore"] = Call(before=HostError("The VMM does not start"))
    with pytest.raises(HostError) as caught:
        await site.resume()
    assert "still saved" in caught.value.hint
    site.assert_truthful()
    await site.bring_back()
    site.assert_working()


async def cut_after_save(site: Site) -> Path:
    """A pause that was cut off when libvirt had saved the VM and not ended its VMM."""
    site.world.plans["save"] = Call(after=HostUnreachable("Host local is out of reach"))
    with pytest.raises(HostUnreachable):
        await site.pause()
    site.world.plans.clear()
    site.world.change(AGENT, power="unknown", is_left_behind=True)
    (draft,) = site.snapshots.drafts(AGENT)
    return draft.memory


async def test_what_a_save_left_behind_is_ended_once_all_of_it_is_saved(site: Site) -> None:
    await cut_after_save(site)
    assert (await site.recover()).saved_in
    assert site.world.power() is Power.OFF
    site.world.change(AGENT, is_left_behind=False)
    await site.bring_back()
    site.assert_working()


async def test_what_was_left_behind_is_not_ended_while_its_memory_is_not_whole(
    site: Site,
) -> None:
    memory = await cut_after_save(site)
    memory.write_text("half a")
    record = await site.recover()
    assert site.world.power() is Power.UNKNOWN
    assert "destroy" not in site.world.calls
    assert record.verb is Verb.PAUSE


async def test_a_quickly_paused_agent_goes_on(site: Site) -> None:
    await site.lifecycle.hold(site.world.vm(AGENT), quiet)
    assert site.world.power() is Power.PAUSED
    await site.resume()
    site.assert_working()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", ["refused", "late", "cut"])
async def test_vcpus_that_do_not_go_on_are_told(site: Site, name: str, when: str) -> None:
    await site.lifecycle.hold(site.world.vm(AGENT), quiet)
    error = type(ERRORS[name])(ERRORS[name].title)
    setattr(site.world.plans.setdefault("resume", Call()), when, error)
    with pytest.raises(type(error)):
        await site.resume()
    assert error.hint
    site.assert_truthful()
    await site.bring_back()
    site.assert_working()


async def test_a_driver_that_forgets_vms_that_are_off_gets_the_definition_again(site: Site) -> None:
    await site.pause()
    site.world.forget(AGENT)
    await site.resume()
    site.assert_working()


# One step fails

STEPS = {
    "pause": ("freeze", "definition", "save", "check_saved"),
    "resume": ("describe", "restore", "refresh", "thaw"),
}
ERRORS = {
    "refused": HostError("It was refused"),
    "full": StorageFull("No room"),
    "late": DeadlineExceeded("No answer in time"),
    "cut": HostUnreachable("The host is out of reach"),
}
GUEST_ERRORS = {
    "refused": GuestFailed("It did not work"),
    "late": DeadlineExceeded("No answer in time"),
    "cut": GuestUnreachable("The guest does not answer"),
}


def failures(verb: str) -> Iterator[Any]:
    for call in STEPS[verb]:
        is_guest = call in ("freeze", "refresh", "thaw")
        for name, error in (GUEST_ERRORS if is_guest else ERRORS).items():
            for when in ("before", "within", "after"):
                if when == "within" and call != "save":
                    continue
                # Only an answer that never came can hide that it was done.
                if when == "after" and name not in ("late", "cut"):
                    continue
                yield pytest.param(call, when, error, id=f"{call}-{name}-{when}")


@pytest.mark.parametrize(("call", "when", "error"), failures("pause"))
async def test_a_step_of_pause_fails(site: Site, call: str, when: str, error: SwarmError) -> None:
    error = type(error)(error.title)
    setattr(site.world.plans.setdefault(call, Call()), when, error)
    if call == "freeze":
        assert error.title in await site.pause(), "the failure went unnoticed"
    else:
        with pytest.raises(type(error)) as raised:
            await site.pause()
        assert raised.value is error
        assert error.hint, "nobody is told how the agent stands now"
        if call == "definition" or not isinstance(error, DeadlineExceeded | HostUnreachable):
            site.assert_working()
    site.assert_truthful()
    site.world.plans.clear()
    if site.world.power() is Power.PAUSED:  # the host is still at it, although nobody answered
        [draft] = site.snapshots.drafts(AGENT)
        assert (await site.recover()).verb is Verb.PAUSE
        draft.memory.unlink()
        site.world.change(AGENT, power="running")
        site.world.begin_save(AGENT, draft.memory)
        site.world.finish_save(AGENT, draft.memory)
    await site.bring_back()
    site.assert_working()


@pytest.mark.parametrize(("call", "when", "error"), failures("resume"))
async def test_a_step_of_resume_fails(site: Site, call: str, when: str, error: SwarmError) -> None:
    error = type(error)(error.title)
    await site.pause()
    saved = site.record
    setattr(site.world.plans.setdefault(call, Call()), when, error)
    if call == "refresh" and isinstance(error, GuestFailed):
        assert error.title in await site.resume(), "the failure went unnoticed"
        assert site.world.is_working()
        return
    with pytest.raises(type(error)) as raised:
        await site.resume()
    assert raised.value is error
    assert error.hint, "nobody is told how the agent stands now"
    site.assert_truthful()
    assert site.snapshots.ids(AGENT), "the snapshot went before the agent was back"
    if site.world.power() is Power.OFF and not isinstance(
        error, DeadlineExceeded | HostUnreachable
    ):
        assert replace(site.record, since=saved.since) == saved, "it is saved as it was"
        assert not list(site.world.root.glob("*.img"))
    await site.bring_back()
    site.assert_working()


async def test_a_restore_that_comes_late_finds_its_disks(site: Site) -> None:
    """Nobody answered in time, but the host goes on: what it needs must not be tidied away."""
    await site.pause()
    site.world.plans["restore"] = Call(before=DeadlineExceeded("No answer in time"))
    with pytest.raises(DeadlineExceeded):
        await site.resume()
    site.world.plans.clear()
    await site.recover()
    [snapshot] = site.snapshots.ids(AGENT)
    site.world.restore(AGENT, site.home / "snapshots" / AGENT / snapshot / "memory")
    record = await site.recover()
    assert record.saved_in is None
    await site.resume()
    site.assert_working()


async def test_a_save_that_begins_late_loses_nothing(site: Site) -> None:
    """The call to save came back as late, and the VM still runs: it may yet be saved."""
    site.world.plans["save"] = Call(before=DeadlineExceeded("No answer in time"))
    with pytest.raises(DeadlineExceeded):
        await site.pause()
    [draft] = site.snapshots.drafts(AGENT)
    site.world.plans.clear()

    def begin_late(step: str) -> None:
        if step == "after describe" and site.world.power() is Power.RUNNING:
            site.world.on_step = lambda _: None
            site.world.begin_save(AGENT, draft.memory)

    site.world.on_step = begin_late
    record = await site.recover()
    assert record.verb is Verb.PAUSE, "it stands still now, and only the host can say what for"
    [aside] = site.snapshots.drafts(AGENT)
    site.world.finish_save(AGENT, aside.memory)
    await site.bring_back()
    site.assert_working()


async def test_a_vm_that_dies_while_it_is_saved_keeps_its_disk(site: Site) -> None:
    site.world.plans["save"] = Call(within=DeadlineExceeded("No answer in time"))
    with pytest.raises(DeadlineExceeded):
        await site.pause()
    site.world.change(AGENT, power="off", reason="destroyed", memory=None)
    site.world.plans.clear()
    with pytest.raises(SnapshotError, match="not whole") as raised:
        await site.recover()
    assert "disk is where it was" in raised.value.hint
    assert (site.record.verb, site.record.saved_in, site.record.is_frozen) == (None, None, False)
    assert len(list(site.world.root.glob("*.img"))) == 2
    with pytest.raises(SnapshotError, match="nothing to resume from"):
        await site.resume()


async def test_a_disk_that_changed_after_the_memory_was_saved_is_not_mated_with_it(
    site: Site,
) -> None:
    """Somebody booted the VM after our crash, and shut it down again."""
    site.world.plans["check_saved"] = Call(before=DeadlineExceeded("No answer in time"))
    with pytest.raises(DeadlineExceeded):
        await site.pause()
    site.world.plans.clear()
    [disk, _] = site.world.vm(AGENT).disks or ()
    now = disk.stat().st_mtime
    os.utime(disk, (now + 60, now + 60))
    with pytest.raises(SnapshotError, match="not whole"):
        await site.recover()
    assert disk.exists()
    assert site.snapshots.drafts(AGENT), "the memory is kept for whoever knows better"


async def test_a_vm_destroyed_from_outside_during_the_pause_is_told(site: Site) -> None:
    site.world.plans["save"] = Call(before=Refused("The VM is not running"))
    site.world.on_step = lambda step: (
        site.world.change(AGENT, power="off", reason="destroyed", memory=None)
        if step == "before save"
        else None
    )
    with pytest.raises(Refused) as raised:
        await site.pause()
    assert "The VM is off" in raised.value.hint
    assert len(list(site.world.root.glob("*.img"))) == 2


async def test_a_frozen_agent_stays_frozen_when_its_pause_fails(site: Site) -> None:
    site.world.change(AGENT, memory=site.world.state()["memory"] | {"frozen": True})
    site.catalogue.write(replace(site.record, is_frozen=True))
    site.world.plans["save"] = Call(before=HostError("It was refused"))
    with pytest.raises(HostError):
        await site.pause()
    assert site.record.is_frozen
    assert not site.world.is_working()


async def test_a_pause_forgets_the_snapshot_of_an_earlier_one(site: Site) -> None:
    """A record that was not written back must not bring back an old state."""
    await site.pause()
    old = site.record.saved_in
    await site.resume()
    site.assert_working()
    site.catalogue.write(replace(site.record, saved_in=old))
    site.world.plans["check_saved"] = Call(before=DeadlineExceeded("No answer in time"))
    with pytest.raises(DeadlineExceeded):
        await site.pause()
    await site.bring_back()
    site.assert_working()


async def test_a_kill_says_what_it_leaves(site: Site) -> None:
    site.world.plans["discard"] = Call(before=StorageFull("It did not work"))
    with pytest.raises(StorageFull) as raised:
        await site.kill()
    assert "left behind" in raised.value.hint
    assert str(site.home) in raised.value.hint


async def test_a_vm_whose_disks_are_not_known_is_not_paused_and_can_be_killed(site: Site) -> None:
    site.world.is_tongue_tied = True
    with pytest.raises(Busy, match="cannot be paused now"):
        await site.pause()
    site.assert_working()
    await site.kill()
    assert not list(site.world.root.iterdir())


async def test_a_graceful_kill_lets_the_guest_shut_down_first(site: Site) -> None:
    vm = site.world.vm()
    offs: list[Power] = []
    site.world.on_step = lambda step: (
        offs.append(site.world.power()) if step == "before destroy" else None
    )
    await site.lifecycle.kill(vm, site.record, quiet, is_graceful=True)
    assert offs == [Power.OFF]
    assert site.vm() is None


async def test_a_guest_that_is_out_of_reach_is_killed_without_grace(site: Site) -> None:
    site.world.plans["run"] = Call(before=GuestUnreachable("The guest does not answer"))
    vm = site.world.vm()
    site.world.plans["describe"] = Call(before=HostError("Its host is busy"))
    await site.lifecycle.kill(vm, site.record, quiet, is_graceful=True)
    assert site.vm() is None


async def test_a_kill_that_the_host_refuses_changes_nothing(site: Site) -> None:
    await site.pause()
    await site.resume()
    site.world.plans["destroy"] = Call(before=HostError("It was refused"))
    with pytest.raises(HostError):
        await site.kill()
    assert (await site.recover()).verb is None
    site.assert_working()
    assert site.snapshots.ids(AGENT)


async def test_a_verb_that_is_cancelled_keeps_its_lock_until_its_files_are_still(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E.g. a second Ctrl-C: another process must not begin while ours still moves files."""
    begun, go_on = threading.Event(), threading.Event()
    digest = durable.digest

    def slow_digest(path: Path) -> str:
        begun.set()
        assert go_on.wait(10)
        return digest(path)

    monkeypatch.setattr(durable, "digest", slow_digest)

    async def pause() -> None:
        async with claimed(site.catalogue, AGENT, Verb.PAUSE):
            await site.pause()

    pausing = asyncio.create_task(pause())
    assert await asyncio.to_thread(begun.wait, 10)
    for _ in range(3):
        pausing.cancel()
        await asyncio.sleep(0)
    assert site.catalogue.claimants()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await pausing
    assert not site.catalogue.claimants()
    await site.bring_back()
    site.assert_working()


# Snapshots that should not be trusted


async def test_a_snapshot_of_another_version_is_refused_and_kept(site: Site) -> None:
    await site.pause()
    other = replace(site.lifecycle, capabilities=Capabilities("STANDIN", "2.0"))
    with pytest.raises(SnapshotError, match="another hypervisor version") as raised:
        await other.resume(site.vm(), site.record, quiet)
    assert "STANDIN 1.0" in raised.value.detail
    assert "STANDIN 2.0" in raised.value.detail
    await site.resume()
    site.assert_working()


async def test_a_disk_in_the_way_is_not_overwritten(site: Site) -> None:
    await site.pause()
    [disk, _] = site.world.vm(AGENT).disks or ()
    disk.write_text("somebody's newer work")
    with pytest.raises(SnapshotError, match="A disk stands"):
        await site.resume()
    assert disk.read_text() == "somebody's newer work"
    disk.unlink()
    await site.resume()
    site.assert_working()


async def test_a_resume_that_finds_no_room_for_the_second_disk_leaves_no_first(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.pause()
    copy = durable.copy

    def full_at_second(source: Path, target: Path) -> None:
        if source.name == "disk-1":
            raise OSError(errno.ENOSPC, "No space left on device")
        copy(source, target)

    monkeypatch.setattr(durable, "copy", full_at_second)
    with pytest.raises(StorageFull):
        await site.resume()
    assert not list(site.world.root.glob("*.img")), "the saved VM could be started on a lone disk"
    monkeypatch.undo()
    await site.resume()
    site.assert_working()


async def test_every_step_of_a_pause_is_told(site: Site) -> None:
    steps: list[str] = []
    await site.lifecycle.pause(
        site.world.vm(AGENT), site.record, lambda step, _: steps.append(step)
    )
    assert steps == ["freezing the agent", "saving memory", "saving memory", "checking and syncing"]
    told = [(record.verb, record.is_frozen, record.saved_in) for record in site.records]
    assert told[:2] == [(Verb.PAUSE, False, None), (Verb.PAUSE, True, None)]
    assert told[-1] == (None, True, site.record.saved_in)


async def test_the_manifest_names_every_file(site: Site) -> None:
    await site.pause()
    [snapshot] = site.snapshots.ids(AGENT)
    read = site.snapshots.read(AGENT, snapshot)
    assert set(read.digests) == {"memory", "disk-0", "disk-1", "definition.xml"}
    folder = site.home / "snapshots" / AGENT / snapshot
    assert json.loads((folder / "manifest.json").read_text())["hypervisor"] == "STANDIN 1.0"
