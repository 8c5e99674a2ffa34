"""A filling that is killed, or finds the disk full, at any of its steps on the file system.

The steps are those that Python itself tells of (sys.addaudithook), in a process of their own.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from swarm_tui.errors import StorageFull
from swarm_tui.local.pool import STEM, Pool
from swarm_tui.profile import Profile
from swarm_tui.text import literal

from .test_pool import KEY, grow, host_key, seat

PROFILE = Profile(name=literal("quick"), ready=2)
STALE = "fedcba9876543210"
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
STEPS = frozenset(
    {
        *("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod"),
        *("os.scandir", "os.listdir", "subprocess.Popen", "shutil.rmtree"),
    }
)
FULL, FINE, WRONG = 28, 0, 1
"""How a filling ends."""


def set_up(folder: Path) -> Pool:
    """One is ready, and so is one that is stale; another was cut off before."""
    pool = Pool(folder / "pools", PROFILE)
    for key in (KEY, STALE):
        grow(pool, key)
        pool.add(key, host_key(ord(key[0])))
    (pool.folder / KEY / ".cut").mkdir()
    return pool


def fill(pool: Pool) -> None:
    with pool.held():
        pool.sweep(KEY)
        while pool.lacks(KEY):
            pool.add(KEY, host_key(os.getpid() * 10 + pool.lacks(KEY)))


def is_write(event: str, arguments: tuple[object, ...]) -> bool:
    """Whether it takes room on the disk."""
    flags = arguments[2] if event == "open" else 0
    return event in ("os.mkdir", "subprocess.Popen") or bool(
        isinstance(flags, int) and flags & WRITING
    )


def at(step: int, folder: Path, is_full: bool) -> Callable[[str, tuple[object, ...]], None]:
    """A hook that kills us before a step, or from there on lets nothing be written."""
    done = 0

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal done
        if event not in STEPS or str(folder) not in repr(arguments):
            return
        if is_full and not is_write(event, arguments):
            return
        done += 1
        if done >= step and is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        if done == step:
            os.kill(os.getpid(), signal.SIGKILL)

    return watch


def try_to_fill(pool: Pool, folder: Path, step: int, is_full: bool) -> int:
    """How it ended, as `subprocess` has it: below 0 is a signal."""
    child = os.fork()
    if child == 0:
        end = WRONG
        try:
            sys.addaudithook(at(step, folder, is_full))
            fill(pool)
            end = FINE
        except StorageFull:
            end = FULL
        finally:
            if end == WRONG:
                traceback.print_exc()
            os._exit(end)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def check(pool: Pool, folder: Path) -> None:
    """What can be claimed is whole and nobody else's; and the next filling leaves nothing over."""
    found = []
    for number in range(PROFILE.ready + 2):
        machine = seat(folder / "agents", number)
        if claimed := pool.claim(KEY, machine):
            assert (machine.folder / "disk.qcow2").read_bytes() == b"a guest"
            assert claimed.template.machine.folder == pool.folder / KEY / STEM
            found.append(claimed.host_key.private)
    assert len(found) == len(set(found)) <= PROFILE.ready
    assert all(key.startswith(b"private ") for key in found)
    fill(pool)
    assert [path.name for path in pool.folder.iterdir() if path.is_dir()] == [KEY]
    names = [path.name for path in (pool.folder / KEY).iterdir()]
    assert len(names) == PROFILE.ready + 1
    assert not [name for name in names if name.startswith(".")]


def cut_at_every_step(folder: Path, is_full: bool) -> None:
    step, end = 0, WRONG
    while end != FINE:
        step += 1
        own = folder / f"{step}"
        own.mkdir()
        pool = set_up(own)
        end = try_to_fill(pool, own, step, is_full)
        assert end in (FINE, FULL if is_full else -signal.SIGKILL), f"step {step}: {end}"
        if is_full:
            left = [path.name for path in (pool.folder / KEY).glob(".*")]
            assert left in ([], [".cut"]), f"step {step}: {left}"
        check(pool, own)
        shutil.rmtree(own)
    assert step > (5 if is_full else 20), "hardly anything was cut"


@pytest.mark.parametrize("is_full", [False, True], ids=["killed", "full"])
def test_at_whichever_step_a_filling_is_cut_nothing_wrong_is_claimed_and_nothing_is_left(
    memory_path: Path, is_full: bool
) -> None:
    context = multiprocessing.get_context("spawn")
    child = context.Process(target=cut_at_every_step, args=(memory_path, is_full))
    child.start()
    child.join(120)
    child.kill()
    assert child.exitcode == 0, "what the child wrote tells the step"
