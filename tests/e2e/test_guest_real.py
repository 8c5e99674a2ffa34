"""SSH into a real guest: our image, its dropbear and busybox, in a bare QEMU."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from adapters.person import Person, pipe
from local.machine import Machine, boot, make_disk, make_key

from swarm_tui.adapters.ssh import SshGuest
from swarm_tui.errors import DeadlineExceeded, GuestFailed, GuestUnreachable, HostKeyChanged
from swarm_tui.local.image import build_image
from swarm_tui.model import Address, EventKind, GuestEvent, Message

pytestmark = pytest.mark.vm

LONG_S = 60.0
SHORT_S = 1.0
AS_AGENT = "su agent -s /bin/sh -c"


@pytest.fixture(scope="module")
def machine(image_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("guest")
    image = build_image(image_cache, lambda _: None)
    for name in ("identity", "host_key", "other_key"):
        make_key(folder / name)
    disk = make_disk(image, folder / "disk.qcow2")
    booted = boot(image, folder / "run", disk, folder / "identity", folder / "host_key")
    yield booted
    booted.stop()


@pytest.fixture
def address(machine: Machine) -> Address:
    return Address("127.0.0.1", machine.port, machine.host_key.strip(), machine.identity)


@pytest.fixture
async def guest() -> AsyncIterator[SshGuest]:
    connected = SshGuest()
    yield connected
    await connected.close()


async def run(guest: SshGuest, address: Address, script: str) -> str:
    done = await guest.run(address, script, timeout_s=LONG_S)
    assert done.exit_status == 0, f"{script}: {done}"
    return done.stdout.decode()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(LONG_S):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in another machine
            await asyncio.sleep(0.01)


class Follower:
    """Follows the events as the supervisor does, over every cut."""

    def __init__(self, guest: SshGuest, address: Address) -> None:
        self.events: list[GuestEvent] = []
        self.dropped = 0
        self.cuts = 0
        self.offset = 0
        self._task = asyncio.create_task(self._follow(guest, address))

    async def __aenter__(self) -> Follower:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _follow(self, guest: SshGuest, address: Address) -> None:
        while True:
            try:
                async for batch in guest.events(address, self.offset):
                    self.events += batch.events
                    self.dropped += batch.dropped
                    self.offset = batch.offset
            except GuestUnreachable:
                self.cuts += 1


async def test_commands_at_once_and_one_after_the_other(guest: SshGuest, address: Address) -> None:
    """dropbear 2022.83 breaks when commands of one connection begin and end together."""
    numbers = range(4)
    for _ in range(3):
        told = await asyncio.gather(*(run(guest, address, f"echo {number}") for number in numbers))
        assert told == [f"{number}\n" for number in numbers]
    done = await guest.run(address, "cat >&2; exit 3", stdin=b"\x00\xff" * 9, timeout_s=LONG_S)
    assert (done.exit_status, done.stdout, done.stderr) == (3, b"", b"\x00\xff" * 9)
    with pytest.raises(DeadlineExceeded):
        await guest.run(address, "exec sleep 1234", timeout_s=SHORT_S)
    assert "sleep 1234" not in await run(guest, address, "ps | grep -v grep")


async def test_another_host_key(guest: SshGuest, machine: Machine, address: Address) -> None:
    other = machine.identity.with_name("other_key.pub").read_text()
    wrong = Address(address.host, address.port, other, address.identity)
    with pytest.raises(HostKeyChanged):
        await guest.run(wrong, "true", timeout_s=LONG_S)


async def test_events_of_the_guests_own_helper_over_a_cut_and_a_new_file(
    guest: SshGuest, address: Address
) -> None:
    await run(guest, address, f"{AS_AGENT} 'swarm status one; swarm log \"two ä\x1b[1m\"'")
    async with Follower(guest, address) as follower:
        await until(lambda: len(follower.events) == 2)
        await run(guest, address, f"{AS_AGENT} 'swarm usage --model m --in 5 --out 7'")
        await until(lambda: len(follower.events) == 3)
        await guest.forget(address)
        await until(lambda: follower.cuts)
        ask = f"{AS_AGENT} 'swarm ask review please' >/dev/null 2>&1 & echo $! >/tmp/asking"
        await run(guest, address, ask)
        await until(lambda: len(follower.events) == 4)
        await run(guest, address, "kill $(cat /tmp/asking)")
        assert [event.kind for event in follower.events] == ["status", "log", "usage", "ask"]
        assert follower.events[1].text == "two ä␛[1m"
        assert (follower.events[2].tokens_in, follower.events[2].tokens_out) == (5, 7)

        await run(guest, address, "echo junk >/run/swarm/events.jsonl")
        await until(lambda: len(follower.events) == 5)
        assert follower.events[4] == GuestEvent(EventKind.OTHER, follower.events[4].text)
        await run(
            guest, address, "cd /run/swarm; echo new >n; mv n events.jsonl; chmod 666 events*"
        )
        await until(lambda: [str(event.text) for event in follower.events[4:]] == ["junk", "new"])
    followers = "ps | grep -v grep | grep -c events.jsonl"
    async with asyncio.timeout(LONG_S):
        while (await guest.run(address, followers, timeout_s=LONG_S)).stdout != b"0\n":  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def test_a_flood_of_lines_is_all_accounted_for(guest: SshGuest, address: Address) -> None:
    flood = """yes '{"kind":"log","text":"\\u001b[31m flood"}' | head -n 30000"""
    await run(guest, address, ": >/run/swarm/events.jsonl")
    async with Follower(guest, address) as follower:
        await run(guest, address, f"{flood} >>/run/swarm/events.jsonl")
        await run(guest, address, f"{AS_AGENT} 'swarm done'")
        await until(lambda: follower.events and follower.events[-1].kind is EventKind.DONE)
        assert len(follower.events) + follower.dropped == 30001
        assert {str(event.text) for event in follower.events[:-1]} == {"␛[31m flood"}


async def test_freezing_by_cgroup(guest: SshGuest, address: Address) -> None:
    count = "/tmp/count"
    loop = f"n=0; while :; do n=$((n + 1)); echo $n >{count}; usleep 10000; done"
    join = "echo 0 >/sys/fs/cgroup/swarm-agent/cgroup.procs"
    await run(guest, address, f"{join}; setsid sh -c '{loop}' </dev/null >/dev/null 2>&1 &")
    for _ in range(2):
        await guest.freeze(address, LONG_S)
        frozen = "grep '^frozen' /sys/fs/cgroup/swarm-agent/cgroup.events"
        assert await run(guest, address, frozen) == "frozen 1\n"
    stood_at = await run(guest, address, f"cat {count}")
    assert await run(guest, address, f"usleep 200000; cat {count}") == stood_at
    for _ in range(2):
        await guest.thaw(address, LONG_S)
    await run(guest, address, f'until [ "$(cat {count})" -gt {stood_at.strip()} ]; do :; done')
    await run(guest, address, "echo 1 >/sys/fs/cgroup/swarm-agent/cgroup.kill")


async def test_a_guest_that_names_the_wrong_cgroup(guest: SshGuest, address: Address) -> None:
    own, kept = "/run/swarm/agent.cgroup", "/run/swarm/kept"
    everything = "mkdir -p /sys/fs/cgroup/all; echo 0 >/sys/fs/cgroup/all/cgroup.procs"
    await run(guest, address, f"cp {own} {kept}; echo /sys/fs/cgroup/../../etc >{own}")
    with pytest.raises(GuestFailed, match="no plain path"):
        await guest.freeze(address, LONG_S)
    # The SSH server's own: freezing it would leave nobody to thaw it.
    listener = "for p in $(pidof dropbear); do echo $p >/sys/fs/cgroup/all/cgroup.procs; done"
    await run(guest, address, f"{everything}; {listener}; echo /sys/fs/cgroup/all >{own}")
    await guest.forget(address)
    with pytest.raises(GuestFailed, match="SSH server itself"):
        await guest.freeze(address, LONG_S)
    await run(guest, address, f"mv {kept} {own}")


async def test_an_answer_to_an_ask(guest: SshGuest, address: Address) -> None:
    asking = asyncio.create_task(
        guest.run(address, f"{AS_AGENT} 'swarm ask review why'", timeout_s=LONG_S)
    )
    await guest.deliver(address, Message("v-1", "verdict", 'fix ü\n"it"', "send-back"), LONG_S)
    answer = await asking
    assert (answer.exit_status, answer.stdout.decode()) == (10, 'fix ü\n"it"\n')


async def test_the_clock_is_set(guest: SshGuest, address: Address) -> None:
    await run(guest, address, "date -s @1000000000")
    await guest.refresh(address, LONG_S)
    assert abs(int(await run(guest, address, "date +%s")) - time.time()) < LONG_S


async def test_traffic_of_the_guest_grows(guest: SshGuest, address: Address) -> None:
    async with contextlib.aclosing(guest.traffic(address, 0.1)) as totals:  # type: ignore[type-var]
        first = await anext(totals)
        await run(guest, address, "cat >/dev/null")
        async with asyncio.timeout(LONG_S):
            async for received, sent in totals:
                if received > first[0] and sent > first[1]:
                    break


async def test_a_persons_shell(address: Address) -> None:
    async with Person(address, None) as person:
        await person.see(b"$ ")
        person.type(b'stty size; tty; id -un; echo "$TERM"\r')
        seen = await person.see(b"xterm-256color\r\n")
        for wanted in (b"20 70\r\n", b"/dev/pts/", b"agent\r\n"):
            assert wanted in seen
        person.resize(101, 33)
        person.type(b"until [ \"$(stty size)\" = '33 101' ]; do sleep 0.1; done; echo resi''zed\r")
        await person.see(b"resized")
        await person.see(b"$ ")
        person.type(b"sh -c \"echo star''ted; exec sleep 1000\"\r")
        await person.see(b"started")
        person.type(b"\x03")
        await person.see(b"$ ")
        person.type(b"exit 7\r")
        await person.leaves_with(7)
    async with Person(address, "kill -KILL $$", "root") as person:
        await person.leaves_with(128 + 9)
    every_byte = bytes(range(256)) * 1000
    assert await pipe(address, "cat; exit 5", every_byte) == (5, every_byte, b"")


async def test_a_guest_that_hangs_and_one_that_starts_again(
    guest: SshGuest, machine: Machine, address: Address
) -> None:
    await run(guest, address, "true")
    machine.command("stop")
    with pytest.raises(DeadlineExceeded):  # the connection is there, nobody answers
        await guest.run(address, "true", timeout_s=SHORT_S)
    await guest.forget(address)
    with pytest.raises(GuestUnreachable):  # the port takes calls, nobody speaks
        await guest.run(address, "true", timeout_s=SHORT_S)
    machine.command("cont")
    await run(guest, address, "true")

    boot_id = "cat /proc/sys/kernel/random/boot_id"
    before = await run(guest, address, boot_id)
    machine.command("system_reset")
    await guest.forget(address)
    assert await run(guest, address, boot_id) != before
