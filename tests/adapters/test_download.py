"""Output of a guest's command into a file, under a cap."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest

from swarm_tui.adapters.ssh import SshGuest
from swarm_tui.errors import (
    DeadlineExceeded,
    GuestFailed,
    GuestUnreachable,
    SetupError,
    UsageError,
)

from .sshd import LONG_S, StandInGuest, until


async def fetch(
    guest: SshGuest, stand_in: StandInGuest, script: str, target: Path, limit_bytes: int = 1 << 20
) -> list[int]:
    totals: list[int] = []
    await guest.download(
        stand_in.address,
        script,
        target,
        limit_bytes=limit_bytes,
        timeout_s=LONG_S,
        on_bytes=totals.append,
    )
    return totals


async def test_output_goes_into_a_file_as_it_is(
    guest: SshGuest, stand_in: StandInGuest, tmp_path: Path
) -> None:
    target = tmp_path / "pack"
    done = await guest.download(
        stand_in.address,
        "printf 'a\\000\\377'; cat; echo trouble >&2; exit 3",
        target,
        stdin=bytes(3_000_000),
        limit_bytes=4_000_000,
        timeout_s=LONG_S,
    )
    assert (done.exit_status, done.stdout, done.stderr) == (3, b"", b"trouble\n")
    assert target.read_bytes() == b"a\x00\xff" + bytes(3_000_000)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


async def test_it_tells_how_much_has_come(
    guest: SshGuest, stand_in: StandInGuest, tmp_path: Path
) -> None:
    totals = await fetch(guest, stand_in, "head -c 900000 /dev/zero", tmp_path / "pack")
    assert totals[-1] == 900_000
    assert totals == sorted(totals)


async def test_not_a_byte_beyond_the_limit(
    guest: SshGuest, stand_in: StandInGuest, tmp_path: Path
) -> None:
    target = tmp_path / "pack"
    await fetch(guest, stand_in, "head -c 1000 /dev/zero", target, 1000)
    assert target.stat().st_size == 1000
    with pytest.raises(GuestFailed, match="more than allowed"):
        await fetch(guest, stand_in, "head -c 1001 /dev/zero", target, 1000)
    assert not target.exists()


async def test_a_flood_is_stopped_and_the_guest_can_be_asked_again(
    guest: SshGuest, stand_in: StandInGuest, tmp_path: Path
) -> None:
    with pytest.raises(GuestFailed, match="more than allowed"):
        await fetch(guest, stand_in, "exec cat /dev/zero", tmp_path / "pack")
    await until(lambda: not stand_in.running)
    done = await guest.run(stand_in.address, "echo still there", timeout_s=LONG_S)
    assert done.stdout == b"still there\n"


async def test_what_was_there_before_is_replaced_and_never_followed(
    guest: SshGuest, stand_in: StandInGuest, tmp_path: Path
) -> None:
    precious, target = tmp_path / "precious", tmp_path / "pack"
    precious.write_text("mine")
    target.symlink_to(precious)
    await fetch(guest, stand_in, "echo theirs", target)
    assert target.read_text() == "theirs\n"
    assert precious.read_text() == "mine"


async def test_a_deadline_leaves_no_file(
    guest: SshGuest, stand_in: StandInGuest, tmp_path: Path
) -> None:
    with pytest.raises(DeadlineExceeded):
        await guest.download(
            stand_in.address,
            "echo some; exec sleep 60",
            tmp_path / "pack",
            limit_bytes=1000,
            timeout_s=0.5,
        )
    assert not (tmp_path / "pack").exists()
    await until(lambda: not stand_in.running)


async def test_a_cut_leaves_no_file(
    guest: SshGuest, stand_in: StandInGuest, tmp_path: Path
) -> None:
    target = tmp_path / "pack"
    fetching = asyncio.create_task(fetch(guest, stand_in, "echo some; exec sleep 60", target))
    await until(lambda: target.exists() and target.stat().st_size)
    await stand_in.cut()
    with pytest.raises(GuestUnreachable):
        await fetching
    assert not target.exists()


async def test_a_cancelled_one_leaves_no_file_and_nothing_running(
    guest: SshGuest, stand_in: StandInGuest, tmp_path: Path
) -> None:
    target = tmp_path / "pack"
    fetching = asyncio.create_task(fetch(guest, stand_in, "echo some; exec sleep 60", target))
    await until(lambda: target.exists() and target.stat().st_size)
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    assert not target.exists()
    await until(lambda: not stand_in.running)


async def test_a_file_that_cannot_be_made_is_told(
    guest: SshGuest, stand_in: StandInGuest, tmp_path: Path
) -> None:
    with pytest.raises(SetupError, match="cannot be written"):
        await fetch(guest, stand_in, "echo some", tmp_path / "missing" / "pack")


async def test_a_script_that_no_server_takes_is_refused_here(
    guest: SshGuest, stand_in: StandInGuest, tmp_path: Path
) -> None:
    with pytest.raises(UsageError):
        await fetch(guest, stand_in, ": " + "x" * 9000, tmp_path / "pack")
