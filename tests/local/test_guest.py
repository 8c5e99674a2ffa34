"""The guest's side of the contract, in real guests."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest

from swarm_tui.local import guest
from swarm_tui.local.image import Image

from .machine import ANSWER_S, BOOT_S, Machine, boot, make_disk, make_key

pytestmark = pytest.mark.vm


class Keys:
    """Key pairs that the tests' guests use."""

    def __init__(self, folder: Path) -> None:
        self.client = folder / "client"
        self.template = folder / "template"
        for path in (self.client, self.template):
            make_key(path)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk with a checkpoint of `machine` as it was when its SSH server first answered."""
    return tmp_path_factory.mktemp("checkpoint") / "disk.qcow2"


@pytest.fixture(scope="module")
def machine(
    image: Image, keys: Keys, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    """A guest without an identity yet: its agent must not run."""
    folder = tmp_path_factory.mktemp("machine")
    disk = make_disk(image, folder / "disk.qcow2")
    running = boot(image, folder, disk, keys.client, keys.template)
    for line in ("stop", "savevm warm"):
        running.command(line)
    shutil.copyfile(disk, checkpoint)
    running.command("cont")
    yield running
    running.stop()


async def test_the_workspace_stands_at_the_base_commit(machine: Machine, image: Image) -> None:
    assert (await machine.run("git -C /workspace rev-parse HEAD")).strip() == image.base_commit
    assert await machine.run("cd /workspace && git status --porcelain", user="agent") == ""
    told = await machine.run("cd /workspace && python3 -S tests/run.py", user="agent")
    assert told.endswith(" passed, 0 failed\n")


async def test_the_agent_waits_for_an_identity(machine: Machine) -> None:
    assert await machine.run("cat /run/swarm/events.jsonl") == ""
    assert await machine.run("cat /run/swarm/counter") == "0\n"


async def test_the_agents_user_cannot_touch_what_is_the_supervisors(machine: Machine) -> None:
    attempts = (
        "echo /sys/fs/cgroup >/run/swarm/agent.cgroup",
        "echo 0 >/sys/fs/cgroup/swarm-agent/cgroup.freeze",
        "mv /run/swarm/events.jsonl /run/swarm/gone",
        "cat /etc/dropbear/host_key",
        ": >/run/swarm/go",
    )
    script = "\n".join(f"({attempt}) 2>/dev/null && echo '{attempt}'" for attempt in attempts)
    assert await machine.run(f"{script}\ntrue", user="agent") == ""


@pytest.mark.parametrize("terminal", ["xterm-256color", "tmux-256color", "screen-256color"])
async def test_a_shell_works_in_a_terminal(machine: Machine, terminal: str) -> None:
    async with machine.connect("agent") as connection:
        process = await connection.create_process(term_type=terminal, term_size=(80, 24))

        heard = ""

        async def until(text: str) -> None:
            nonlocal heard
            try:
                async with asyncio.timeout(ANSWER_S):
                    while text not in heard:
                        heard += await process.stdout.read(4096) or pytest.fail(f"end: {heard!r}")
            except TimeoutError:
                pytest.fail(f"no {text!r} in {heard!r}")
            heard = heard.partition(text)[2]

        await until("agent@")
        process.stdin.write("stty size; pwd\n")
        await until("24 80\r\n")
        await until("/workspace")
        process.change_terminal_size(132, 50)
        process.stdin.write("sh -c 'echo began; sleep 600'\n")
        await until("\rbegan\r\n")
        process.stdin.write("\x03")
        await until("agent@")
        process.stdin.write("stty size; echo grün\n")
        await until("50 132\r\n")
        await until("grün\r\n")
        process.stdin.write("clear\n")
        await until("\x1b[H\x1b[")
        process.stdin.write("git log\n")
        await until("Convert lengths")
        process.stdin.write("q\nexit 7\n")
        await asyncio.wait_for(process.wait_closed(), ANSWER_S)
        assert process.exit_status == 7


COUNT = "cat /run/swarm/counter"


async def test_an_identity_is_given_and_the_agent_starts(
    machine: Machine, keys: Keys, tmp_path: Path
) -> None:
    public = make_key(tmp_path / "own")
    own = guest.dropbear_key((tmp_path / "own").read_bytes())
    now = time.time() + 86400
    said = guest.render_identity("agent-07", own, now, "Teach it furlongs\nand grains")
    async with machine.connect() as earlier:
        done = await earlier.run(guest.IDENTIFY, input=said.decode(), timeout=ANSWER_S)
        assert (done.exit_status, done.stdout, done.stderr) == (0, "", "")
        with pytest.raises(asyncssh.HostKeyNotVerifiable):
            await machine.run("true")
        machine.host_key = public
        assert await machine.run("hostname; cat /etc/hostname") == "agent-07\nagent-07\n"
        # The connection that gave the identity goes on.
        assert (await earlier.run("hostname", timeout=ANSWER_S)).stdout == "agent-07\n"
        # Its program waits for that connection's end.
        assert await machine.run("cat /run/swarm/events.jsonl") == ""
    assert abs(int(await machine.run("date +%s")) - now) < 60
    assert len((await machine.run("cat /etc/machine-id")).strip()) == 32
    assert await machine.run("cat /run/swarm/task") == "Teach it furlongs\nand grains"
    await machine.wait_for("grep 'task: Teach it furlongs.nand grains' /run/swarm/events.jsonl")
    await machine.wait_for(f"test $({COUNT}) -ge 1")


async def test_a_frozen_agent_stands_still_and_goes_on_exactly(machine: Machine) -> None:
    told = await machine.run(
        """
        cd "$(cat /run/swarm/agent.cgroup)"
        echo 1 >cgroup.freeze
        until grep -q 'frozen 1' cgroup.events; do usleep 10000; done
        cat /run/swarm/counter; wc -c </run/swarm/events.jsonl
        sleep 1.3
        cat /run/swarm/counter; wc -c </run/swarm/events.jsonl
        echo 0 >cgroup.freeze
        sleep 1.2
        cat /run/swarm/counter
        """
    )
    stood, size, still, same, later = map(int, told.split())
    assert (still, same) == (stood, size)
    assert later - stood in (1, 2)


async def test_the_pid_file_names_the_agents_process_group(machine: Machine) -> None:
    told = await machine.run(
        """
        kill -STOP -$(cat /run/swarm/agent.pid)
        cat /run/swarm/counter; sleep 1.3; cat /run/swarm/counter
        kill -CONT -$(cat /run/swarm/agent.pid)
        """
    )
    stood, still = map(int, told.split())
    assert still == stood
    await machine.wait_for(f"test $({COUNT}) -gt {stood}")


async def test_a_killed_agent_is_started_again(machine: Machine) -> None:
    before = (await machine.run("cat /run/swarm/agent.pid")).strip()
    count = (await machine.run(COUNT)).strip()
    await machine.run(f"kill -KILL {before}")
    after = await machine.wait_for(f"cat /run/swarm/agent.pid | grep -vx {before}")
    members = await machine.wait_for("grep . /sys/fs/cgroup/swarm-agent/cgroup.procs")
    assert after.strip() in members.split()
    assert before not in members.split()
    await machine.wait_for(f"test $({COUNT}) -gt {count}")


async def test_refresh_sets_the_clock(machine: Machine) -> None:
    entropy = base64.b64encode(bytes(64)).decode()
    await machine.run(f"{guest.REFRESH} 2000000000", stdin=entropy)
    assert 0 <= int(await machine.run("date +%s")) - 2000000000 < 60
    done = await machine.attempt(f"{guest.REFRESH} never", stdin=entropy)
    assert done.exit_status != 0


async def test_forks_of_one_checkpoint_are_different_guests(
    image: Image, keys: Keys, machine: Machine, checkpoint: Path, tmp_path: Path
) -> None:
    facts = (
        "cat /etc/machine-id; hostname; head -c 32 /dev/urandom | base64; "
        "cat /proc/sys/kernel/random/uuid"
    )
    told = []
    for name in ("fork-1", "fork-2"):
        copy = tmp_path / f"{name}.qcow2"
        shutil.copyfile(checkpoint, copy)
        restored = ["-loadvm", "warm"]
        fork = boot(image, tmp_path / name, copy, keys.client, keys.template, restored)
        try:
            public = make_key(tmp_path / f"key-{name}")
            own = guest.dropbear_key((tmp_path / f"key-{name}").read_bytes())
            said = guest.render_identity(name, own, time.time())
            await fork.run(guest.IDENTIFY, stdin=said.decode())
            fork.host_key = public
            told.append((await fork.run(facts)).split())
        finally:
            fork.stop()
    assert all(len(facts) == 4 for facts in told)
    assert all(one != other for one, other in zip(*told, strict=True))


def test_the_console_gives_a_shell(machine: Machine) -> None:
    machine.type("\n", b"agent@")
    machine.type("echo $((6 * 7)) $PWD\n", b"42 /workspace\r\n")


async def test_an_identity_outlives_a_power_failure(machine: Machine) -> None:
    facts = "cat /etc/machine-id; hostname; git -C /workspace fsck 2>&1"
    before = await machine.run(facts)
    boot_id = await machine.run("cat /proc/sys/kernel/random/boot_id")
    machine.command("system_reset")
    deadline = time.monotonic() + BOOT_S
    now = boot_id
    while now == boot_id:  # the reset comes when QEMU finds the time
        assert time.monotonic() < deadline
        with contextlib.suppress(asyncssh.Error, OSError):
            async with asyncio.timeout(2):
                now = await machine.run("cat /proc/sys/kernel/random/boot_id")
    assert await machine.run(facts) == before
    await machine.wait_for(f"test $({COUNT}) -ge 1")


def test_the_power_button_shuts_down(machine: Machine) -> None:
    machine.command("system_powerdown")
    machine.process.wait(ANSWER_S)


# What the host makes for it


def test_only_a_plain_ed25519_key_is_taken(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="OpenSSH private key"):
        guest.dropbear_key(b"-----BEGIN NONSENSE-----\nAAAA\n-----END NONSENSE-----\n")
    with pytest.raises(ValueError, match="OpenSSH private key"):
        guest.dropbear_key(b"")
    for name, options, complaint in (
        ("locked", ["-t", "ed25519", "-N", "secret"], "passphrase"),
        ("ecdsa", ["-t", "ecdsa", "-N", ""], "ed25519"),
    ):
        path = tmp_path / name
        subprocess.run(["ssh-keygen", "-q", *options, "-f", str(path)], check=True)
        with pytest.raises(ValueError, match=complaint):
            guest.dropbear_key(path.read_bytes())


@pytest.mark.parametrize("name", ["", "two words", "a\nb", "ü", "x" * 64, "a=b;rm"])
def test_a_name_that_is_no_host_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="host name"):
        guest.render_identity(name, b"", 0.0)
