"""SSH into a guest: an asyncssh server in this process stands in for it, its shells are real."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest

from swarm_tui.adapters.link import LONGEST_CALL_S
from swarm_tui.adapters.sink import OUTPUT_BYTES
from swarm_tui.adapters.ssh import SshGuest
from swarm_tui.errors import (
    DeadlineExceeded,
    GuestError,
    GuestFailed,
    GuestUnreachable,
    HostKeyChanged,
    SetupError,
    UsageError,
)
from swarm_tui.model import Address, Message

from .follower import Follower, hear_some, log_lines
from .sshd import LONG_S, Forwarder, StandInGuest, until

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
        # Sooner than the first call would be given up.
        done = await guest.run(address, "echo reached", timeout_s=LONGEST_CALL_S - 1)
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
    (own / "config").write_text(
        f"Host *\n  ProxyCommand touch {tmp_path}/proxied\n  User me\n  Ciphers 3des-cbc\n"
    )
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
    await hear_some(stream)
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


async def test_a_message_that_was_read_is_not_delivered_again(
    guest: SshGuest, stand_in: StandInGuest
) -> None:
    message = Message("m-1", "verdict", "once", "approve")
    await guest.deliver(stand_in.address, message, LONG_S)
    inbox = stand_in.run_folder / "inbox"
    (inbox / "read").mkdir()
    (inbox / "m-1.json").rename(inbox / "read" / "m-1.json")
    await guest.deliver(stand_in.address, message, LONG_S)
    assert [path.name for path in inbox.iterdir()] == ["read"]


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
