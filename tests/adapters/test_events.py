"""A guest's event file, followed over SSH through cuts, floods and junk."""

from __future__ import annotations

import json
from pathlib import Path

from swarm_tui.adapters.feed import KEPT_LINES
from swarm_tui.adapters.ssh import SshGuest
from swarm_tui.errors import (
    GuestUnreachable,
)
from swarm_tui.model import EventKind
from swarm_tui.text import sanitize

from .follower import Follower, append, log_lines
from .sshd import LONG_S, StandInGuest, until


async def test_events_that_are_there_come_at_once_and_new_ones_follow(
    guest: SshGuest, stand_in: StandInGuest
) -> None:
    stand_in.events.write_bytes(log_lines(0, 3))
    async with Follower(guest, stand_in.address) as follower:
        assert await follower.hear(3) == ["line 0", "line 1", "line 2"]
        append(stand_in.events, b'{"kind":"ask","text":"a review"}\n')
        await follower.hear(4)
        assert follower.events[3].kind is EventKind.ASK
        assert follower.offset == stand_in.events.stat().st_size


async def test_a_file_that_is_not_there_yet_is_waited_for(
    guest: SshGuest, stand_in: StandInGuest
) -> None:
    async with Follower(guest, stand_in.address) as follower:
        await until(lambda: stand_in.running)
        append(stand_in.events, log_lines(0, 1))
        assert await follower.hear(1) == ["line 0"]


async def test_after_a_cut_nothing_is_lost_or_doubled(
    guest: SshGuest, stand_in: StandInGuest
) -> None:
    async def cut(follower: Follower) -> None:
        await stand_in.cut()
        await until(lambda: follower.failure)
        assert isinstance(follower.failure, GuestUnreachable)
        follower.follow()

    half = log_lines(12, 13)
    stand_in.events.write_bytes(log_lines(0, 10))
    async with Follower(guest, stand_in.address) as follower:
        await follower.hear(10)
        for count in (10, 11):
            await cut(follower)
            # Only who has heard something is surely there to be cut off again.
            append(stand_in.events, log_lines(count, count + 1))
            await follower.hear(count + 1)
        append(stand_in.events, half[:7])
        await cut(follower)
        append(stand_in.events, half[7:] + log_lines(13, 30))
        assert await follower.hear(30) == [f"line {number}" for number in range(30)]
        assert len(stand_in.logins) == 4


async def test_a_truncated_or_replaced_file_is_read_from_its_start(
    guest: SshGuest, stand_in: StandInGuest
) -> None:
    stand_in.events.write_bytes(log_lines(0, 5))
    async with Follower(guest, stand_in.address) as follower:
        await follower.hear(5)
        stand_in.events.write_bytes(log_lines(5, 7))
        await follower.hear(7)
        fresh = stand_in.run_folder / "fresh"
        fresh.write_bytes(log_lines(7, 20))
        fresh.rename(stand_in.events)
        assert await follower.hear(20) == [f"line {number}" for number in range(20)]
        assert follower.offset == stand_in.events.stat().st_size


async def test_a_file_shorter_than_the_offset_is_a_new_one(
    guest: SshGuest, stand_in: StandInGuest
) -> None:
    stand_in.events.write_bytes(log_lines(0, 2))
    follower = Follower(guest, stand_in.address)
    follower.offset = 1_000_000
    async with follower:
        assert await follower.hear(2) == ["line 0", "line 1"]


async def test_following_ends_in_the_guest_too(guest: SshGuest, stand_in: StandInGuest) -> None:
    stand_in.events.write_bytes(log_lines(0, 1))
    async with Follower(guest, stand_in.address) as follower:
        await follower.hear(1)
        await stand_in.cut()  # a silent file: nothing is ever written to the broken pipe
        await until(lambda: not stand_in.running)
    async with Follower(guest, stand_in.address) as follower:
        await follower.hear(1)
    await until(lambda: not stand_in.running)


async def test_junk_between_events_is_shown_and_harmless(
    guest: SshGuest, stand_in: StandInGuest
) -> None:
    junk = [b"\x1b]52;c;ZXZpbA==\x07", b"[" * 5000, b'{"kind":1}', b"\xff\x00", b"}{", b"NaN"]
    stand_in.events.write_bytes(b"\n".join([*junk, log_lines(0, 1)]))
    async with Follower(guest, stand_in.address) as follower:
        await follower.hear(len(junk) + 1)
        assert [event.kind for event in follower.events] == [*["other"] * len(junk), "log"]
        assert follower.texts[:-1] == [sanitize(line) for line in junk]


async def test_a_flood_is_bounded_sanitized_and_delays_nobody(
    guest: SshGuest, stand_in: StandInGuest
) -> None:
    hostile = json.dumps({"kind": "log", "text": "\x1b[31m\x1b]0;evil\x07 " + "x" * 80}).encode()
    count = 60_000
    stand_in.events.write_bytes((hostile + b"\n") * count)
    async with Follower(guest, stand_in.address) as follower:
        await until(lambda: follower.events)
        done = await guest.run(stand_in.address, "echo meanwhile", timeout_s=LONG_S)
        assert done.stdout == b"meanwhile\n"
        assert follower.offset < stand_in.events.stat().st_size
        append(stand_in.events, b'{"kind":"ask","text":"last"}\n')
        await until(lambda: follower.events[-1].text == "last")
    assert len(follower.events) + follower.dropped == count + 1
    assert max(len(batch.events) for batch in follower.batches) <= 2 * KEPT_LINES
    assert {str(event.text) for event in follower.events[:-1]} == {f"␛[31m␛]0;evil␇ {'x' * 80}"}


async def test_an_endless_line_is_cut_and_what_follows_is_heard(
    guest: SshGuest, stand_in: StandInGuest
) -> None:
    stand_in.events.write_bytes(b"x" * 3_000_000)
    async with Follower(guest, stand_in.address) as follower:
        await follower.hear(1)
        assert "cut" in follower.texts[0]
        await until(lambda: follower.offset == 3_000_000)
        append(stand_in.events, b"the end of it\n" + log_lines(0, 1))
        assert (await follower.hear(2))[1:] == ["line 0"]


async def test_traffic_is_told_again_and_again(guest: SshGuest, stand_in: StandInGuest) -> None:
    totals = guest.traffic(stand_in.address, 0.05)
    seen = [await anext(totals) for _ in range(3)]
    await totals.aclose()  # type: ignore[attr-defined]
    counted = read_network_counters()
    assert seen == sorted(seen)
    assert seen[0][0] <= sum(int(fields[0]) for fields in counted)
    assert seen[0][1] <= sum(int(fields[8]) for fields in counted)


def read_network_counters() -> list[list[str]]:
    """Of each network of this machine but the loopback."""
    lines = [line.split(":") for line in Path("/proc/net/dev").read_text().splitlines()[2:]]
    return [counters.split() for name, counters in lines if name.strip() != "lo"]
