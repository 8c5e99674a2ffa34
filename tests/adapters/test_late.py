"""A guest's adapter that is made when it is first needed does what the real one does."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

from swarm_tui.adapters.late import LateGuest
from swarm_tui.adapters.ssh import SshGuest
from swarm_tui.model import EventBatch, Message
from swarm_tui.ports import Guest

from .follower import log_lines
from .sshd import LONG_S, StandInGuest


async def test_it_is_made_once_and_only_when_it_is_needed(
    guest: SshGuest, stand_in: StandInGuest
) -> None:
    made = 0

    def make() -> Guest:
        nonlocal made
        made += 1
        return guest

    late = LateGuest(make)
    await late.forget(stand_in.address)
    await late.close()
    assert made == 0
    calls = [late.run(stand_in.address, f"echo {n}", timeout_s=LONG_S) for n in range(3)]
    told = await asyncio.gather(*calls)
    assert [completed.stdout for completed in told] == [b"0\n", b"1\n", b"2\n"]
    assert made == 1


async def test_streams_and_files_pass_through(
    guest: SshGuest, stand_in: StandInGuest, tmp_path: Path
) -> None:
    late = LateGuest(lambda: guest)
    stand_in.events.write_bytes(log_lines(0, 2))
    async with aclosing(late.events(stand_in.address, 0)) as batches:  # type: ignore[type-var]
        assert await anext(batches) == EventBatch((), 0), "it answers"
        assert len((await anext(batches)).events) == 2
    async with aclosing(late.traffic(stand_in.address, 0.1)) as readings:  # type: ignore[type-var]
        assert len(await anext(readings)) == 2
    target = tmp_path / "file"
    await late.download(
        stand_in.address, "echo all of it", target, limit_bytes=100, timeout_s=LONG_S
    )
    assert target.read_bytes() == b"all of it\n"
    await late.deliver(stand_in.address, Message("m-1", "message", "go on"), LONG_S)
    assert (stand_in.run_folder / "inbox" / "m-1.json").exists()


def test_the_app_starts_without_asyncssh() -> None:
    code = (
        "import sys\n"
        "from swarm_tui.bootstrap import make_supervisor, make_terms\n"
        "from swarm_tui.config import load\n"
        "import swarm_tui.ui.app, swarm_tui.supervisor\n"
        "make_terms(load())\n"
        "sys.exit('asyncssh' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
