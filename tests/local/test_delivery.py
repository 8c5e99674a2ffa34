"""What an agent's profile asks for, in real guests: sizes, repository, program, environment."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from swarm_tui.adapters.libvirt import LibvirtHypervisor
from swarm_tui.adapters.ssh import SshGuest
from swarm_tui.errors import GuestFailed
from swarm_tui.local.accel import Mode
from swarm_tui.local.daemon import ensure_daemon, stop_daemon
from swarm_tui.local.forks import Forks
from swarm_tui.local.home import Home
from swarm_tui.local.image import Image
from swarm_tui.local.swarm import LocalSwarm
from swarm_tui.model import HostName, Vm
from swarm_tui.ports import Order
from swarm_tui.profile import Profile
from swarm_tui.review.depot import Depot
from swarm_tui.text import Safe

pytestmark = pytest.mark.vm

ANSWER_S = 30.0
SECRET = "not for everybody's $(eyes) 'quoted'"


def ignore_progress(_step: Safe, _fraction: float | None) -> None:
    pass


@dataclass(frozen=True)
class Bed:
    folder: Path
    hypervisor: LibvirtHypervisor
    guest: SshGuest
    swarm: LocalSwarm
    depot: Depot

    async def spawn(self, order: Order) -> Vm:
        spawned = await self.swarm.spawn(order, ignore_progress)
        return await self.hypervisor.describe(spawned.agent)

    async def ask(self, vm: Vm, script: str) -> str:
        assert vm.tag.address
        done = await self.guest.run(vm.tag.address, script, timeout_s=ANSWER_S)
        assert done.exit_status == 0, done.stderr
        return done.stdout.decode()

    async def events(self, vm: Vm, until: str) -> list[Mapping[str, str]]:
        """What its guest has told, once an event of the kind is there."""
        script = f'until grep -q \'"kind":"{until}"\' /run/swarm/events.jsonl; do sleep 0.1; done'
        told = await self.ask(vm, f"{script}; cat /run/swarm/events.jsonl")
        return [json.loads(line) for line in told.splitlines()]


@pytest.fixture(scope="module")
def home(shared_home: Path) -> Iterator[tuple[Path, str]]:
    folder = shared_home / "delivery"
    folder.mkdir(mode=0o711)
    uri = ensure_daemon(folder)
    yield folder, uri
    stop_daemon(folder)


@pytest.fixture
async def bed(home: tuple[Path, str], image: Image, tmp_path: Path) -> AsyncIterator[Bed]:
    folder, uri = home
    hypervisor = LibvirtHypervisor(HostName("local"), uri)
    await hypervisor.open(lambda _: None)
    guest = SshGuest()
    own = Home(folder, hypervisor, guest)
    swarm = LocalSwarm(own, Forks(own, Mode.TCG), lambda _: image)
    try:
        yield Bed(folder, hypervisor, guest, swarm, Depot(tmp_path / "m", tmp_path / "a"))
    finally:
        await swarm.down()
        await guest.close()
        await hypervisor.close()


def make_repository(folder: Path) -> str:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.check_output(command, text=True, env=environment).strip()

    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    for role in ("AUTHOR", "COMMITTER"):
        environment |= {f"GIT_{role}_NAME": "owner", f"GIT_{role}_EMAIL": "owner@localhost"}
    folder.mkdir()
    git("init", "-q", "-b", "trunk")
    (folder / "sub").mkdir()
    (folder / "sub/tool").write_text("#!/bin/sh\necho tool\n")
    (folder / "sub/tool").chmod(0o755)
    (folder / "link").symlink_to("sub/tool")
    git("add", "-A")
    git("commit", "-qm", "First")
    (folder / "readme").write_text("read\n")
    git("add", "-A")
    git("commit", "-qm", "Second")
    return git("rev-parse", "HEAD")


async def test_a_profile_is_made_as_it_says(bed: Bed, tmp_path: Path) -> None:
    """One guest for all of it: it takes seconds."""
    commit = make_repository(tmp_path / "repository")
    source = await bed.depot.get(str(tmp_path / "repository"), "HEAD", ignore_progress)
    assert source.commit == commit
    script = (
        'echo "$1 in $PWD by $(id -un)"; printf %s "$KEY" >/tmp/key; swarm status there; exit 3'
    )
    profile = Profile(
        vcpus=2,
        memory_mib=384,
        disk_mib=1500,
        command=("sh", "-c", script, "sh", "it's {task}"),
    )
    order = Order("made", 'Sort "all"', (), profile, source, {"KEY": SECRET})
    vm = await bed.spawn(order)
    assert vm.tag.base == commit
    assert (vm.vcpus, vm.memory_bytes) == (2, 384 << 20)

    events = await bed.events(vm, "failed")
    told = [(event["kind"], event["text"]) for event in events]
    assert ("log", 'it\'s Sort "all" in /workspace by agent') in told
    assert ("status", "there") in told
    assert told[-1][0] == "failed"
    assert told[-1][1].startswith("exit status 3: ")
    assert await bed.ask(vm, "cat /tmp/key") == SECRET

    assert await bed.ask(vm, "grep -c ^processor /proc/cpuinfo") == "2\n"
    assert int(await bed.ask(vm, "df -m / | awk 'END { print $2 }'")) > 1300
    asked = (
        "cd /workspace && git status --porcelain && git log --format=%s && git remote && git branch"
    )
    assert await bed.ask(vm, f"su agent -c '{asked}'") == "Second\nFirst\n* trunk\n"
    assert await bed.ask(vm, "stat -c %U /workspace /workspace/sub/tool | uniq") == "agent\n"
    assert await bed.ask(vm, "/workspace/link") == "tool\n"

    # The secret is in the guest's memory for its user alone, and nowhere else.
    modes = await bed.ask(vm, "stat -c '%a %U' /run/swarm/environment /etc/swarm/program")
    assert modes == "600 agent\n600 agent\n"
    assert SECRET not in await bed.ask(vm, "ps w; cat /etc/swarm/*; cat /run/swarm/events.jsonl")
    assert SECRET not in await bed.hypervisor.definition(vm.id)
    files = [path for path in (bed.folder / "agents" / vm.id).rglob("*") if path.is_file()]
    held = await asyncio.to_thread(lambda: [p for p in files if SECRET.encode() in p.read_bytes()])
    assert [path.name for path in held] in ([], ["disk.qcow2"])


async def test_a_program_stands_still_when_it_is_frozen_and_is_done_when_it_ends(bed: Bed) -> None:
    script = "echo begun; until [ -e /tmp/go ]; do sleep 0.1; done; sleep 600 & echo well"
    vm = await bed.spawn(Order(profile=Profile(command=("sh", "-c", script))))
    assert vm.tag.address
    await bed.events(vm, "log")
    await bed.guest.freeze(vm.tag.address, ANSWER_S)
    await bed.ask(vm, "touch /tmp/go")
    assert await bed.ask(vm, "grep frozen /sys/fs/cgroup/swarm-agent/cgroup.events") == "frozen 1\n"
    assert "well" not in await bed.ask(vm, "cat /run/swarm/events.jsonl")
    await bed.guest.thaw(vm.tag.address, ANSWER_S)
    events = await bed.events(vm, "done")
    assert [event["text"] for event in events] == ["begun", "well", "well"]
    # What it left behind is ended, or nobody would know that it is over.
    assert await bed.ask(vm, "cat /sys/fs/cgroup/swarm-agent/cgroup.procs") == ""


async def test_what_cannot_be_delivered_leaves_nothing(bed: Bed, tmp_path: Path) -> None:
    make_repository(tmp_path / "repository")
    source = await bed.depot.get(str(tmp_path / "repository"), "HEAD", ignore_progress)
    content = source.archive.read_bytes()
    source.archive.write_bytes(content[: len(content) // 2])
    with pytest.raises(GuestFailed) as raised:
        await bed.spawn(Order(source=source))
    assert "repository" in raised.value.title
    left = [vm for vm in await bed.hypervisor.list() if str(bed.folder) in str(vm.disks)]
    assert left == []
    assert list((bed.folder / "agents").iterdir()) == []
