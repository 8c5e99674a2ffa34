"""An agent's processes are frozen and thawed over SSH, and nothing else is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from swarm_tui.adapters.ssh import SshGuest
from swarm_tui.errors import (
    GuestFailed,
)

from .sshd import LONG_S, StandInGuest, until


@pytest.fixture
async def agent(stand_in: StandInGuest) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process with a child, in a group of its own, that counts into a file."""
    count = stand_in.folder / "count"
    script = (
        f"n=0; (sleep 600 & wait) & while :; do n=$((n + 1)); echo $n >{count}; sleep 0.01; done"
    )
    process = await asyncio.create_subprocess_exec("sh", "-c", script, start_new_session=True)
    (stand_in.run_folder / "agent.pid").write_text(f"{process.pid}\n")
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def states(group: int) -> set[str]:
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, pgrp = stat.read_text().rpartition(") ")[2].split()[:3]
            if int(pgrp) == group and state != "Z":
                found.add(state)
    return found


async def test_freezing_stops_every_process_and_thawing_lets_them_go_on(
    guest: SshGuest, stand_in: StandInGuest, agent: asyncio.subprocess.Process
) -> None:
    count = stand_in.folder / "count"
    await until(count.exists)
    for _ in range(2):  # freezing twice is fine
        await guest.freeze(stand_in.address, LONG_S)
        assert states(agent.pid) == {"T"}
    stood_at = count.read_text()
    for _ in range(2):
        await guest.thaw(stand_in.address, LONG_S)
        assert "T" not in states(agent.pid)
    await until(lambda: count.read_text() not in ("", stood_at))


async def test_an_agent_that_has_ended_stands_still(
    guest: SshGuest, stand_in: StandInGuest
) -> None:
    ended = await asyncio.create_subprocess_exec("true")
    await ended.wait()
    (stand_in.run_folder / "agent.pid").write_text(str(ended.pid))
    await guest.freeze(stand_in.address, LONG_S)
    await guest.thaw(stand_in.address, LONG_S)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("agent.pid", b""),
        ("agent.pid", b"0"),
        ("agent.pid", b"1"),
        ("agent.pid", b"-1"),
        ("agent.pid", b"99999999999999999999"),
        ("agent.pid", b"$(touch owned)"),
        ("agent.pid", b"12; touch owned"),
        ("agent.pid", b"OWN"),
        ("agent.cgroup", b""),
        ("agent.cgroup", b"/etc"),
        ("agent.cgroup", b"/sys/fs/cgroup"),
        ("agent.cgroup", b"/sys/fs/cgroup/../../../etc"),
        ("agent.cgroup", b"/sys/fs/cgroup/a/.."),
        ("agent.cgroup", b"/sys/fs/cgroup/no-such-group"),
        ("agent.cgroup", b"/sys/fs/cgroup/$(touch owned)"),
        ("agent.cgroup", b"/sys/fs/cgroup/a\n/etc"),
        ("agent.cgroup", b"\xff\x00" * 10_000),
    ],
)
async def test_a_guest_cannot_name_what_is_not_its_agent(
    guest: SshGuest, stand_in: StandInGuest, name: str, content: bytes
) -> None:
    # This process's group is that of the stand-in's SSH server.
    content = content.replace(b"OWN", str(os.getpid()).encode())
    (stand_in.run_folder / name).write_bytes(content)
    with pytest.raises(GuestFailed, match="could not be frozen") as caught:
        await guest.freeze(stand_in.address, LONG_S)
    assert name in caught.value.detail
    assert "owned" not in os.listdir()


async def test_a_guest_that_names_nothing_to_freeze_says_so(
    guest: SshGuest, stand_in: StandInGuest
) -> None:
    with pytest.raises(GuestFailed, match="neither"):
        await guest.freeze(stand_in.address, LONG_S)
