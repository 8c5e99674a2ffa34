"""Whatever fails or dies between two steps of a verb: no agent's state is lost."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from swarm_tui.errors import StorageFull, SwarmError
from swarm_tui.model import Power, Verb
from swarm_tui.snapshot import Snapshots

from .standin import AGENT
from .steps import file_steps, killed
from .workbench import Site, make_site


@pytest.fixture
def site(memory_path: Path) -> Site:
    return make_site(memory_path)


# The disk is full


@contextmanager
def failing(at: int, *, is_lasting: bool, apart: Path | None = None) -> Iterator[list[str]]:
    """Let the file operation number `at` fail, and with `is_lasting` all that need room after."""
    steps: list[str] = []

    def on_step(name: str) -> None:
        steps.append(name)
        needs_room = name.startswith(("mkdir", "fsync", "cp", "commit"))
        if len(steps) == at + 1 or (is_lasting and len(steps) > at and needs_room):
            code = errno.ENOSPC if needs_room else errno.EIO
            raise OSError(code, os.strerror(code))

    with file_steps(on_step, apart):
        yield steps


@pytest.mark.parametrize("is_lasting", [False, True], ids=["one-fails", "full-from-there"])
@pytest.mark.parametrize("is_apart", [False, True], ids=["one-disk", "two-disks"])
@pytest.mark.parametrize("verb", ["pause", "resume"])
async def test_no_file_operation_that_fails_loses_state(
    memory_path: Path, verb: str, is_apart: bool, is_lasting: bool
) -> None:
    at = 0
    while True:
        site = make_site(memory_path / str(at), disks=1)
        apart = site.home / "snapshots" if is_apart else None
        if verb == "resume":
            await site.pause()
        failure: SwarmError | None = None
        with failing(at, is_lasting=is_lasting, apart=apart) as steps:
            try:
                await getattr(site, verb)()
            except SwarmError as error:
                failure = error
        if len(steps) <= at:
            break
        where = f"step {at}, {steps[at]}: {failure!r}"
        assert failure is None or failure.title, where
        try:
            site.assert_truthful()
            if verb == "pause" and failure and not (site.record.verb or site.record.saved_in):
                assert site.world.power() is Power.RUNNING
                assert not site.world.state()["memory"]["frozen"], "the agent stopped"
                assert "nothing was lost" in failure.hint
                continue
            await site.bring_back()
            site.assert_working()
        except (AssertionError, SwarmError) as problem:
            raise AssertionError(where) from problem
        finally:
            at += 1
    assert at > 5


@pytest.fixture
def tiny_disk(memory_path: Path) -> Iterator[Path]:
    """A file system of its own with 256 KiB."""
    folder = memory_path / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a file system can be mounted by root only")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("what", ["memory", "disk"])
async def test_a_snapshot_that_finds_no_room(site: Site, tiny_disk: Path, what: str) -> None:
    """On a real full file system, which is another one than the agent's own."""
    [_, disk] = site.world.vm(AGENT).disks or ()
    if what == "disk":
        disk.write_bytes(disk.read_bytes().ljust(1 << 20))
    else:
        site.world.change(AGENT, memory=site.world.state()["memory"] | {"pad": "x" * (1 << 20)})
    size = disk.stat().st_size
    site.snapshots = Snapshots(tiny_disk)
    with pytest.raises(StorageFull) as raised:
        await site.pause()
    assert "Free some space" in raised.value.hint
    assert "nothing was lost" in raised.value.hint
    assert disk.stat().st_size == size
    assert not list((tiny_disk / AGENT).iterdir()), "what was begun takes up the room"
    site.assert_working()


# The process dies


def run_cut(
    home: Path, verb: Callable[[Site], Coroutine[Any, Any, object]], at: int, apart: bool
) -> tuple[bool, list[str]]:
    def work(on_step: Callable[[str], None]) -> None:
        site = Site(home)
        site.world.on_step = on_step
        with file_steps(on_step, home / "snapshots" if apart else None):
            asyncio.run(verb(site))

    return killed(work, at)


@pytest.mark.parametrize("is_apart", [False, True], ids=["one-disk", "two-disks"])
@pytest.mark.parametrize("verb", [Site.pause, Site.resume], ids=["pause", "resume"])
def test_no_crash_loses_state(
    memory_path: Path, verb: Callable[[Site], Coroutine[Any, Any, object]], is_apart: bool
) -> None:
    """A child process does the verb and is killed before each step in turn."""
    at = 0
    was_cut = True
    while was_cut:
        home = memory_path / str(at)
        site = make_site(home)
        if verb is Site.resume:
            asyncio.run(site.pause())
        site.catalogue.close()  # SQLite's connections must not go over a fork
        was_cut, steps = run_cut(home, verb, at, is_apart)
        try:
            asyncio.run(take_up(site, was_cut))
        except (AssertionError, SwarmError) as problem:
            raise AssertionError(f"killed at step {at} of {steps}") from problem
        at += 1
    assert at > 20


async def take_up(site: Site, was_cut: bool) -> None:
    if site.world.power() is Power.PAUSED and site.record.saving_in:
        # The hypervisor goes on with what the dead process had asked it for.
        [draft] = site.snapshots.drafts(AGENT)
        assert (await site.recover()).verb is Verb.PAUSE
        site.world.finish_save(AGENT, draft.memory)
    if not was_cut:
        site.assert_truthful()
        assert site.record.verb is None
    await site.bring_back()
    site.assert_working()


def test_a_kill_that_was_cut_off_can_be_done_again(memory_path: Path) -> None:
    at = 0
    was_cut = True
    while was_cut:
        home = memory_path / str(at)
        site = make_site(home)
        asyncio.run(site.pause())
        asyncio.run(site.resume())
        site.catalogue.close()
        was_cut, steps = run_cut(home, Site.kill, at, False)
        if was_cut and (site.vm() or site.catalogue.record(AGENT)):
            record = asyncio.run(site.recover())
            if site.vm() and site.world.power() is Power.RUNNING:
                assert record.verb is None, "it was not begun, so it must not show as cut off"
                assert site.world.is_working()
            else:
                assert record.verb in (Verb.KILL, None), steps
            asyncio.run(site.kill())
        assert site.vm() is None, steps
        assert site.catalogue.record(AGENT) is None, steps
        assert not site.snapshots.ids(AGENT), steps
        at += 1
    assert not list(site.world.root.iterdir())
