"""SSH into a guest: an asyncssh server in this process stands in for it, its shells are real."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest

from swarm_tui.adapters.feed import KEPT_LINES
from swarm_tui.adapters.ssh import OUTPUT_BYTES, SshGuest
from swarm_tui.errors import (
    DeadlineExceeded,
    GuestError,
    GuestFailed,
    GuestUnreachable,
    HostKeyChanged,
    SetupError,
    UsageError,
)
from swarm_tui.model import Address, EventBatch, EventKind, GuestEvent, Message
from swarm_tui.text import sanitize

from .sshd import StandInGuest

LONG_S = 30.0
"""A deadline that only a hang reaches."""


@pytest.fixture
async def stand_in(tmp_path: Path) -> AsyncIterator[StandInGuest]:
    guest = StandInGuest(tmp_path / "guest")
    await guest.start()
    yield guest
    await guest.stop()


@pytest.fixture
async def guest(stand_in: StandInGuest) -> AsyncIterator[SshGuest]:
    connected = SshGuest(str(stand_in.run_folder), str(stand_in.folder / "refresh"))
    yield connected
    await connected.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(LONG_S):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in other processes
            await asyncio.sleep(0.01)


def append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)


def log_lines(first: int, last: int) -> bytes:
    return b"".join(
        json.dumps({"kind": "log", "text": f"line {number}"}).encode() + b"\n"
        for number in range(first, last)
    )


class Follower:
    """Follows a guest's events as the supervisor does: from where the last batch ended."""

    def __init__(self, guest: SshGuest, address: Address) -> None:
        self._guest, self._address = guest, address
        self.offset = 0
        self.events: list[GuestEvent] = []
        self.dropped = 0
        self.batches: list[EventBatch] = []
        self.failure: GuestError | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def texts(self) -> list[str]:
        return [str(event.text) for event in self.events]

    async def __aenter__(self) -> Follower:
        self.follow()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task
        self._task.cancel()
        await asyncio.wait([self._task])

    def follow(self) -> None:
        self.failure = None
        self._task = asyncio.create_task(self._follow())

    async def hear(self, count: int) -> list[str]:
        await until(lambda: self.failure or len(self.events) >= count)
        assert not self.failure, str(self.failure)
        return self.texts

    async def _follow(self) -> None:
        try:
            async with contextlib.aclosing(
                self._guest.events(self._address, self.offset)  # type: ignore[type-var]
            ) as batches:
                async for batch in batches:
                    self.batches.append(batch)
                    self.events += batch.events
                    self.dropped += batch.dropped
                    self.offset = batch.offset
        except GuestError as error:
            self.failure = error


class Forwarder:
    """A stand-in for QEMU's user-mode network: every connect succeeds, whoever listens inside.

    `lead` tells where the nth call leads: to a port, to nobody (None), or to a hang-up (0).
    """

    def __init__(self, lead: Callable[[int], int | None]) -> None:
        self._lead = lead
        self._calls = 0
        self._writers: list[asyncio.StreamWriter] = []
        self.port = 0

    async def __aenter__(self) -> Forwarder:
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        await self._server.wait_closed()  # since Python 3.12 this waits for every connection

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._calls += 1
        self._writers.append(writer)
        port = self._lead(self._calls)
        if port == 0:
            writer.close()
        elif port:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
            self._writers.append(inner_writer)
            await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


# Commands


async def test_a_script_runs_with_its_input_output_and_status(
    guest: SshGuest, stand_in: StandInGuest
) -> None:
    script = 'tr a-z A-Z; echo "it\'s $((6 * 7))" >&2; exit 3'
    done = await guest.run(stand_in.address, script, stdin=b"hello\n\x00\xff", timeout_s=LONG_S)
    assert (done.exit_status, done.stdout, done.stderr) == (3, b"HELLO\n\x00\xff", b"it's 42\n")
    assert not done.is_truncated
    assert stand_in.logins == ["root"]


async def test_a_command_that_a_signal_ends(guest: SshGuest, stand_in: StandInGuest) -> None:
    done = await guest.run(stand_in.address, "kill -TERM $$", timeout_s=LONG_S)
    assert done.exit_status == 128 + signal.SIGTERM


async def test_much_input_arrives_whole(guest: SshGuest, stand_in: StandInGuest) -> None:
    done = await guest.run(stand_in.address, "wc -c", stdin=bytes(5_000_000), timeout_s=LONG_S)
    assert done.stdout.strip() == b"5000000"


async def test_a_command_may_leave_its_input_unread(
    guest: SshGuest, stand_in: StandInGuest
) -> None:
    done = await guest.run(stand_in.address, "exit 4", stdin=bytes(3_000_000), timeout_s=LONG_S)
    assert done.exit_status == 4


async def test_output_is_capped_and_the_status_is_still_true(
    guest: SshGuest, stand_in: StandInGuest
) -> None:
    script = "head -c 3000000 /dev/zero; echo problem >&2; exit 5"
    done = await guest.run(stand_in.address, script, timeout_s=LONG_S)
    assert (len(done.stdout), done.stderr, done.exit_status) == (OUTPUT_BYTES, b"problem\n", 5)
    assert done.is_truncated


async def test_a_deadline_ends_the_command(guest: SshGuest, stand_in: StandInGuest) -> None:
    with pytest.raises(DeadlineExceeded):
        await guest.run(stand_in.address, "exec sleep 60", timeout_s=0.5)
    await until(lambda: not stand_in.running)
    done = await guest.run(stand_in.address, "echo still there", timeout_s=LONG_S)
    assert done.stdout == b"still there\n"


async def test_a_script_that_no_server_takes_is_refused_here(
    guest: SshGuest, stand_in: StandInGuest
) -> None:
    with pytest.raises(UsageError):
        await guest.run(stand_in.address, ": " + "x" * 9000, timeout_s=LONG_S)


# Connections


async def run_at_once(guest: SshGuest, stand_in: StandInGuest, count: int) -> None:
    address = stand_in.address
    await asyncio.gather(*(guest.run(address, "sleep 0.1", timeout_s=LONG_S) for _ in range(count)))


async def test_all_who_need_a_guest_share_one_connection(
    guest: SshGuest, stand_in: StandInGuest
) -> None:
    stand_in.events.write_bytes(log_lines(0, 1))
    async with Follower(guest, stand_in.address) as follower:
        await run_at_once(guest, stand_in, 5)
        await follower.hear(1)
    await run_at_once(guest, stand_in, 5)
    assert stand_in.logins == ["root"]
    assert stand_in.most_at_once > 1


async def test_a_connection_takes_no_more_commands_than_servers_allow(
    guest: SshGuest, stand_in: StandInGuest
) -> None:
    await run_at_once(guest, stand_in, 25)
    assert stand_in.most_at_once <= 10  # OpenSSH's MaxSessions
    await until(lambda: stand_in.connections == 1)  # the others are let go


async def test_an_old_dropbear_gets_one_command_at_a_time_on_a_connection(
    guest: SshGuest, stand_in: StandInGuest
) -> None:
    await stand_in.stop()
    stand_in.version = "dropbear_2022.83"
    await stand_in.start()
    stand_in.events.write_bytes(log_lines(0, 1))
    async with Follower(guest, stand_in.address) as follower:
        await follower.hear(1)
        await run_at_once(guest, stand_in, 5)
        logins = len(stand_in.logins)
        for _ in range(5):
            await guest.run(stand_in.address, "true", timeout_s=LONG_S)
    assert len(stand_in.logins) == logins
    assert stand_in.most_at_once == 1


async def test_a_command_that_was_not_begun_is_asked_for_again(
    guest: SshGuest, stand_in: StandInGuest
) -> None:
    stand_in.refusals = 2
    done = await guest.run(stand_in.address, "echo begun", timeout_s=LONG_S)
    assert done.stdout == b"begun\n"
    stand_in.refusals = 100
    with pytest.raises(GuestError, match="takes no command") as caught:
        await guest.run(stand_in.address, "true", timeout_s=LONG_S)
    assert not isinstance(caught.value, GuestUnreachable)


async def test_a_cut_connection_is_made_anew(guest: SshGuest, stand_in: StandInGuest) -> None:
    for _ in range(3):
        await guest.run(stand_in.address, "true", timeout_s=LONG_S)
        await stand_in.cut()
    assert len(stand_in.logins) == 3


async def test_a_cut_during_a_command_is_told(guest: SshGuest, stand_in: StandInGuest) -> None:
    running = asyncio.create_task(guest.run(stand_in.address, "sleep 60", timeout_s=LONG_S))
    await until(lambda: stand_in.running)
    await stand_in.cut()
    with pytest.raises(GuestUnreachable, match="cut"):
        await running


async def test_a_refused_port_is_told_at_the_deadline(guest: SshGuest) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # not listening
        address = _made_address(unused.getsockname()[1], key)
        with pytest.raises(GuestUnreachable, match="refused"):
            await guest.run(address, "true", timeout_s=0.3)
        with pytest.raises(GuestUnreachable, match="refused"):
            await anext(guest.events(address, 0))


async def test_a_guest_that_starts_late_is_waited_for(
    guest: SshGuest, stand_in: StandInGuest
) -> None:
    address = stand_in.address
    await stand_in.stop()
    waiting = asyncio.create_task(guest.run(address, "echo up", timeout_s=LONG_S))
    with pytest.raises(GuestUnreachable):  # surely down
        await guest.run(address, "true", timeout_s=0.2)
    await stand_in.start()
    assert (await waiting).stdout == b"up\n"


async def test_a_port_that_never_says_anything_is_not_a_guest(guest: SshGuest) -> None:
    async with Forwarder(lambda _: None) as silent:
        address = _made_address(silent.port, asyncssh.generate_private_key("ssh-ed25519"))
        with pytest.raises(GuestUnreachable, match="no SSH server speaks"):
            await guest.run(address, "true", timeout_s=0.5)


async def test_a_forwarded_port_answers_before_its_guest_does(
    guest: SshGuest, stand_in: StandInGuest
) -> None:
    async with Forwarder(lambda call: {1: None, 2: 0}.get(call, stand_in.port)) as forwarder:
        address = replace(stand_in.address, port=forwarder.port)
        done = await guest.run(address, "echo reached", timeout_s=LONG_S)
        assert done.stdout == b"reached\n"
        await guest.close()


async def test_another_host_key_is_never_spoken_to(guest: SshGuest, stand_in: StandInGuest) -> None:
    for kind in ("ssh-ed25519", "ecdsa-sha2-nistp256"):
        other = asyncssh.generate_private_key(kind).export_public_key().decode()
        address = replace(stand_in.address, host_key=other)
        async with asyncio.timeout(LONG_S / 2):  # at once: waiting does not heal it
            with pytest.raises(HostKeyChanged) as caught:
                await guest.run(address, "true", timeout_s=10 * LONG_S)
        assert f":{stand_in.port}" in caught.value.detail
        assert caught.value.hint
    assert stand_in.offered == []


async def test_a_refused_key_is_told_at_once(guest: SshGuest, stand_in: StandInGuest) -> None:
    stand_in.authorized = asyncssh.generate_private_key("ssh-ed25519").convert_to_public()
    async with asyncio.timeout(LONG_S / 2):
        with pytest.raises(GuestError, match="refuses our SSH key") as caught:
            await guest.run(stand_in.address, "true", timeout_s=10 * LONG_S)
    assert not isinstance(caught.value, GuestUnreachable)


async def test_keys_that_cannot_be_read_are_told(guest: SshGuest, stand_in: StandInGuest) -> None:
    missing = replace(stand_in.address, identity=stand_in.folder / "missing")
    with pytest.raises(SetupError, match="cannot be read"):
        await guest.run(missing, "true", timeout_s=LONG_S)
    with pytest.raises(GuestError, match="host key on record"):
        await guest.run(replace(stand_in.address, host_key="junk"), "true", timeout_s=LONG_S)


async def test_nothing_of_the_users_own_set_up_is_used(
    guest: SshGuest, stand_in: StandInGuest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = tmp_path / "home/.ssh"
    own.mkdir(parents=True)
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(own / "id_ed25519")
    (own / "config").write_text(f"Host *\n  ProxyCommand touch {tmp_path}/proxied\n  User me\n")
    asked: list[object] = []
    agent = await asyncio.start_unix_server(lambda *call: asked.append(call), tmp_path / "agent")
    monkeypatch.setenv("HOME", str(own.parent))
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
    await guest.run(stand_in.address, "true", timeout_s=LONG_S)
    assert stand_in.logins == ["root"]
    assert set(stand_in.offered) == {stand_in.client_key.get_fingerprint()}
    assert not asked
    assert not (tmp_path / "proxied").exists()
    agent.close()
    await agent.wait_closed()


async def test_forgetting_and_closing_leave_nothing_behind(stand_in: StandInGuest) -> None:
    tasks, files = asyncio.all_tasks(), set(os.listdir("/proc/self/fd"))
    guest = SshGuest(str(stand_in.run_folder))
    stream = guest.events(stand_in.address, 0)
    stand_in.events.write_bytes(log_lines(0, 1))
    await anext(stream)
    running = asyncio.create_task(guest.run(stand_in.address, "sleep 60", timeout_s=LONG_S))
    await until(lambda: len(stand_in.running) == 2)
    await guest.forget(stand_in.address)
    with pytest.raises(GuestUnreachable):
        await anext(stream)
    with pytest.raises(GuestUnreachable):
        await running
    await guest.run(stand_in.address, "true", timeout_s=LONG_S)
    await guest.close()
    await guest.close()
    with pytest.raises(GuestUnreachable):
        await guest.run(stand_in.address, "true", timeout_s=LONG_S)
    for process in list(stand_in.running):
        os.killpg(process.pid, signal.SIGKILL)
    await until(lambda: asyncio.all_tasks() <= tasks)
    await until(lambda: set(os.listdir("/proc/self/fd")) <= files)


# The event file


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
    half = log_lines(20, 21)
    stand_in.events.write_bytes(log_lines(0, 10))
    async with Follower(guest, stand_in.address) as follower:
        await follower.hear(10)
        append(stand_in.events, log_lines(10, 20) + half[:7])
        await follower.hear(20)
        for logins in (2, 3):
            await stand_in.cut()
            await until(lambda: follower.failure)
            assert isinstance(follower.failure, GuestUnreachable)
            follower.follow()
            await until(lambda logins=logins: len(stand_in.logins) == logins)  # type: ignore[misc]
        append(stand_in.events, half[7:] + log_lines(21, 30))
        assert await follower.hear(30) == [f"line {number}" for number in range(30)]


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


# Freezing


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


# Inbox and clock


async def test_a_message_is_there_as_a_whole(guest: SshGuest, stand_in: StandInGuest) -> None:
    message = Message("m-1", "verdict", 'Grüße\n"quoted" \x1b', "approve")
    for _ in range(2):  # again is fine: it is the same file
        await guest.deliver(stand_in.address, message, LONG_S)
    (delivered,) = (stand_in.run_folder / "inbox").iterdir()
    assert delivered.name == "m-1.json"
    assert json.loads(delivered.read_bytes()) == {
        "id": "m-1",
        "kind": "verdict",
        "text": message.text,
        "verdict": "approve",
    }


async def test_a_message_that_is_cut_on_its_way_is_not_there_at_all(
    guest: SshGuest, stand_in: StandInGuest
) -> None:
    stand_in.stdin_limit = 1000
    with pytest.raises(GuestFailed, match="cut on its way"):
        await guest.deliver(stand_in.address, Message("m-1", "message", "x" * 5000), LONG_S)
    assert list((stand_in.run_folder / "inbox").iterdir()) == []


@pytest.mark.parametrize("name", ["", "../m", "a/b", ".hidden", "a b", "$(id)", "x" * 200])
async def test_a_message_cannot_leave_the_inbox(
    guest: SshGuest, stand_in: StandInGuest, name: str
) -> None:
    with pytest.raises(UsageError):
        await guest.deliver(stand_in.address, Message(name, "message", "text"), LONG_S)
    assert stand_in.logins == []


@pytest.mark.parametrize("helper", ["refresh", "bin/date"])
async def test_refreshing_sets_the_clock_to_now_and_brings_entropy(
    guest: SshGuest, stand_in: StandInGuest, helper: str
) -> None:
    # The stand-in has a helper or a `date` that only writes down what it is told.
    told = stand_in.folder / "told"
    stand_in_command = stand_in.folder / helper
    stand_in_command.parent.mkdir(exist_ok=True)
    stand_in_command.write_text(f'#!/bin/sh\necho "$@" >{told}\ncat >>{told}\n')
    stand_in_command.chmod(0o755)
    begun = int(time.time())
    await guest.refresh(stand_in.address, LONG_S)
    words, *entropy = told.read_text().split("\n")
    assert begun - 1 <= int(words.removeprefix("-s @")) <= time.time() + 1
    if helper == "refresh":
        assert len(entropy[0]) >= 64


def _made_address(port: int, key: asyncssh.SSHKey) -> Address:
    folder = Path(os.environ["SWARM_TUI_HOME"])
    folder.mkdir(parents=True, exist_ok=True)
    key.write_private_key(folder / "identity")
    return Address("127.0.0.1", port, key.export_public_key().decode(), folder / "identity")
