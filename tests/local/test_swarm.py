"""A real local swarm: template, forks, and nothing left of them afterwards."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from swarm_tui.adapters.libvirt import LibvirtHypervisor
from swarm_tui.adapters.ssh import SshGuest
from swarm_tui.errors import (
    AgentGone,
    GuestUnreachable,
    HostKeyChanged,
    Refused,
    SwarmError,
    UsageError,
)
from swarm_tui.local import forks
from swarm_tui.local.accel import Mode
from swarm_tui.local.daemon import ensure_daemon, stop_daemon
from swarm_tui.local.forks import Forks
from swarm_tui.local.home import Home, Mould, template_id
from swarm_tui.local.image import Image
from swarm_tui.local.machine import Machine, render
from swarm_tui.local.swarm import LocalSwarm, bring_down, discard_files
from swarm_tui.model import Address, AgentId, Completed, HostName, Power, Vm
from swarm_tui.ports import Order, Parent
from swarm_tui.profile import Profile
from swarm_tui.tag import render_tag
from swarm_tui.text import Safe, literal

pytestmark = pytest.mark.vm

ANSWER_S = 30.0
HOST = HostName("local")


def ignore_progress(_step: Safe, _fraction: float | None) -> None:
    pass


@dataclass(frozen=True)
class Bed:
    """A swarm in a folder of the tests' own, on a host that others may use, too."""

    folder: Path
    image: Image
    hypervisor: LibvirtHypervisor
    guest: SshGuest
    swarm: LocalSwarm

    async def spawn(self, name: str = "", task: str = "") -> Vm:
        spawned = await self.swarm.spawn(Order(name, task), ignore_progress)
        return await self.hypervisor.describe(spawned.agent)

    async def ask(self, vm: Vm, script: str) -> str:
        assert vm.tag.address
        done = await self.guest.run(vm.tag.address, script, timeout_s=ANSWER_S)
        assert done.exit_status == 0, done.stderr
        return done.stdout.decode()

    async def own(self) -> list[Vm]:
        """Agents whose disks lie in the folder."""
        vms = await self.hypervisor.list()
        return [
            vm for vm in vms if any(disk.is_relative_to(self.folder) for disk in vm.disks or ())
        ]

    def made_ready_with(self, text: str) -> list[str]:
        """Files of templates and pools, disks with the memory in them too, that hold a text."""
        command = ["grep", "-rlaF", "-e", text, "pools", "templates"]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True)
        return done.stdout.splitlines()

    def processes(self) -> list[str]:
        """Command lines of processes that hold a file of the folder."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if (
                f"{self.folder}/agents/" in command
                or f"{self.folder}/templates/" in command
                or f"{self.folder}/pools/" in command
            ):
                found.append(command)
        return found


def make_swarm(home: Home, image: Image) -> LocalSwarm:
    return LocalSwarm(home, Forks(home, Mode.TCG), lambda _: image)


@pytest.fixture(scope="module")
def home(shared_home: Path) -> Iterator[tuple[Path, str]]:
    """A folder with a daemon to it; the template in it is made once for all tests here."""
    folder = shared_home / "local"
    folder.mkdir(mode=0o711)
    uri = ensure_daemon(folder)
    yield folder, uri
    stop_daemon(folder)


@pytest.fixture
async def bed(home: tuple[Path, str], image: Image) -> AsyncIterator[Bed]:
    folder, uri = home
    hypervisor = LibvirtHypervisor(HOST, uri)
    await hypervisor.open(lambda _: None)
    guest = SshGuest()
    local = make_swarm(Home(folder, hypervisor, guest), image)
    try:
        yield Bed(folder, image, hypervisor, guest, local)
    finally:
        await local.down()
        await guest.close()
        await hypervisor.close()


async def test_a_template_that_fails_leaves_no_vm_and_is_made_anew(bed: Bed) -> None:
    """The first of the tests, so that the others have what it makes anew."""
    deaf = make_swarm(Home(bed.folder, bed.hypervisor, DeafGuest()), bed.image)
    with pytest.raises(GuestUnreachable):
        await deaf.prepare(ignore_progress)
    assert bed.processes() == []
    able = make_swarm(Home(bed.folder, bed.hypervisor, bed.guest), bed.image)
    steps: list[Safe] = []
    await able.prepare(lambda step, _: steps.append(step))
    assert "booting the template" in steps
    again = make_swarm(Home(bed.folder, bed.hypervisor, bed.guest), bed.image)
    await again.prepare(lambda step, _: pytest.fail(step))


async def test_three_agents_are_each_somebody(bed: Bed) -> None:
    tasks = ["Sort the imports", "Mend the tests\nall of them", "Ümläuts & <tags>"]
    vms = await asyncio.gather(*(bed.spawn(task=task) for task in tasks))
    addresses = [vm.tag.address for vm in vms]
    assert all(addresses)
    assert len({address.port for address in addresses if address}) == 3
    assert len({address.host_key for address in addresses if address}) == 3
    assert [vm.power for vm in vms] == [Power.RUNNING] * 3
    assert {vm.tag.base for vm in vms} == {bed.image.base_commit}

    names = await asyncio.gather(*(bed.ask(vm, "hostname") for vm in vms))
    assert [name.strip() for name in names] == [str(vm.name) for vm in vms]
    assert len(set(names)) == 3
    machine_ids = await asyncio.gather(*(bed.ask(vm, "cat /etc/machine-id") for vm in vms))
    assert len(set(machine_ids)) == 3
    given = await asyncio.gather(*(bed.ask(vm, "cat /run/swarm/task") for vm in vms))
    assert [task.strip() for task in given] == tasks
    clocks = await asyncio.gather(*(bed.ask(vm, "date +%s") for vm in vms))
    assert max(map(int, clocks)) - min(map(int, clocks)) < ANSWER_S

    # Only its own key opens an agent.
    first, second, _ = addresses
    assert first
    assert second
    with pytest.raises(HostKeyChanged):
        await bed.guest.run(replace(first, host_key=second.host_key), "true", timeout_s=ANSWER_S)


async def test_what_was_saved_goes_on_where_it_stood(bed: Bed) -> None:
    vm = await bed.spawn()
    assert vm.tag.address
    boot = await bed.ask(vm, "cat /proc/sys/kernel/random/boot_id")
    before = int(await bed.ask(vm, "cat /run/swarm/counter"))
    await bed.guest.forget(vm.tag.address)
    target = bed.folder / "memory"
    await bed.hypervisor.save(vm.id, target, ignore_progress)
    assert (await bed.hypervisor.describe(vm.id)).power is Power.OFF
    assert [line for line in bed.processes() if vm.id in line] == []

    await bed.hypervisor.restore(vm.id, target)
    target.unlink()
    await bed.guest.refresh(vm.tag.address, ANSWER_S)
    after = int(await bed.ask(vm, "cat /run/swarm/counter"))
    assert after >= before
    await bed.ask(vm, f"until [ $(cat /run/swarm/counter) -gt {after} ]; do sleep 0.1; done")
    assert await bed.ask(vm, "cat /proc/sys/kernel/random/boot_id") == boot


async def test_a_guest_is_as_it_was_asked_for_is_counted_and_has_a_console(bed: Bed) -> None:
    vm = await bed.spawn()
    (command,) = [line for line in bed.processes() if vm.id in line]
    assert "tb-size=64" in command
    assert "accel tcg" in command
    snapshots = ["qemu-img", "snapshot", "-l", "--force-share", *map(str, vm.disks or ())]
    left = await asyncio.to_thread(lambda: subprocess.check_output(snapshots))
    assert left == b""

    counters = (await bed.hypervisor.counters())[vm.id]
    assert counters.cpu_ns
    assert counters.memory_given == 256 << 20
    assert counters.memory_used
    assert counters.memory_used < counters.memory_given
    assert counters.memory_host
    assert counters.disk_read is not None
    assert counters.net_received is None

    heard = b""
    async with bed.hypervisor.console(vm.id) as console:
        await console.write(b"\nexpr 6 '*' 7\n")
        async with asyncio.timeout(ANSWER_S):
            async for chunk in console.read():
                heard += chunk
                if b"42\r\n" in heard:
                    break
    assert str(vm.name).encode() in heard


async def test_down_leaves_nothing(bed: Bed) -> None:
    running, saved = await asyncio.gather(bed.spawn(), bed.spawn())
    await bed.hypervisor.save(saved.id, bed.folder / "memory", ignore_progress)
    neighbour = await _define_neighbour(bed)
    try:
        assert set(await bed.swarm.down()) == {running.id, saved.id}
        assert await bed.own() == []
        assert list((bed.folder / "agents").iterdir()) == []
        assert bed.processes() == []
        for vm in (running, saved):
            assert vm.tag.address
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((vm.tag.address.host, vm.tag.address.port))
        assert (await bed.hypervisor.describe(neighbour)).id == neighbour
        assert await bed.swarm.down() == []
    finally:
        await bed.hypervisor.undefine(neighbour)
        (bed.folder / "memory").unlink()


async def _define_neighbour(bed: Bed) -> AgentId:
    """Somebody else's agent on the same host, whose disk lies elsewhere."""
    agent = AgentId("00000000-0000-4000-8000-0000000000aa")
    machine = Machine(agent, "swarm-test-neighbour", bed.folder.parent / "elsewhere", 22099)
    definition = render(machine, Mould(bed.image), bed.image.initrd, Mode.TCG)
    vm = Vm(agent, literal("neighbour"), HOST, Power.OFF)
    tagged = definition.replace("<metadata/>", f"<metadata>{render_tag(vm.tag)}</metadata>")
    return await bed.hypervisor.define(tagged)


async def test_discarding_one_agent_leaves_the_others(bed: Bed) -> None:
    ended, kept = await asyncio.gather(bed.spawn(), bed.spawn())
    await bed.hypervisor.destroy(ended.id)
    await bed.hypervisor.undefine(ended.id)
    await bed.swarm.discard(ended)
    assert [disk for disk in ended.disks or () if disk.exists()] == []
    assert all(disk.exists() for disk in kept.disks or ())
    assert await bed.ask(kept, "hostname") == f"{kept.name}\n"
    await bed.swarm.discard(ended)


async def test_names_are_host_names_and_nobody_elses(bed: Bed) -> None:
    vm = await bed.spawn("builder")
    assert vm.name == "builder"
    with pytest.raises(Refused):
        await bed.spawn("builder")
    for name in ("Builder", "-builder", "a b", "../etc", "x" * 33):
        with pytest.raises(UsageError):
            await bed.spawn(name)
    assert [vm.id for vm in await bed.own()] == [vm.id]


async def test_a_name_that_a_stranger_has_is_not_taken(bed: Bed) -> None:
    """A VM without our tag is in no list of ours; libvirt refuses its name."""
    vm = await bed.spawn()
    await bed.swarm.down()
    agent = AgentId("00000000-0000-4000-8000-0000000000ab")
    stranger = Machine(agent, str(vm.name), bed.folder.parent / "elsewhere", 22099)
    await bed.hypervisor.define(render(stranger, Mould(bed.image), bed.image.initrd, Mode.TCG))
    try:
        again = await bed.spawn()
        assert again.name != vm.name
        assert await bed.ask(again, "hostname") == f"{again.name}\n"
        with pytest.raises(Refused):
            await bed.spawn(str(vm.name))
    finally:
        await bed.hypervisor.undefine(agent)


async def test_a_port_that_was_taken_meanwhile_is_given_up(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bed.swarm.prepare(ignore_progress)
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        ports = iter([taken])
        find = forks._free_port
        monkeypatch.setattr(forks, "_free_port", lambda used: next(ports, None) or find(used))
        vm = await bed.spawn()
    assert vm.tag.address
    assert vm.tag.address.port != taken
    assert [own.id for own in await bed.own()] == [vm.id]


class DeafGuest(SshGuest):
    """A stand-in for a guest that never answers."""

    async def run(
        self, address: Address, script: str, *, stdin: bytes = b"", timeout_s: float
    ) -> Completed:
        raise GuestUnreachable("nobody answers")


async def test_a_spawn_that_fails_leaves_nothing(bed: Bed) -> None:
    await bed.swarm.prepare(ignore_progress)
    deaf = make_swarm(Home(bed.folder, bed.hypervisor, DeafGuest()), bed.image)
    with pytest.raises(GuestUnreachable):
        await deaf.spawn(Order(), ignore_progress)
    assert await bed.own() == []
    assert list((bed.folder / "agents").iterdir()) == []
    assert bed.processes() == []


async def test_a_spawn_that_is_cancelled_leaves_nothing(bed: Bed) -> None:
    await bed.swarm.prepare(ignore_progress)
    reached = asyncio.Event()

    def on_progress(step: Safe, _fraction: float | None) -> None:
        if step.startswith("giving it a name"):
            reached.set()

    spawning = asyncio.create_task(bed.swarm.spawn(Order(), on_progress))
    await reached.wait()
    spawning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await spawning
    assert await bed.own() == []
    assert list((bed.folder / "agents").iterdir()) == []


async def test_down_needs_no_swarm_to_have_been_up(bed: Bed, tmp_path: Path) -> None:
    assert await bring_down(tmp_path, bed.hypervisor) == []


async def test_discards_only_below_its_folder(bed: Bed, tmp_path: Path) -> None:
    (tmp_path / "agents").mkdir()
    (tmp_path / "precious").mkdir()
    vm = Vm(AgentId("../precious"), literal("agent"), HOST, Power.OFF)
    with pytest.raises((ValueError, SwarmError)):
        await discard_files(tmp_path, vm)
    assert (tmp_path / "precious").exists()


async def test_ready_agents_are_claimed_each_as_somebody_of_its_own(bed: Bed) -> None:
    profile = Profile(name=literal("quick"), ready=2, labels=())
    secret = {"CANARY": f"canary-{uuid.uuid4().hex}"}
    order = Order(profile=profile, environment=secret)
    while await bed.swarm.replenish(order, ignore_progress):
        pass
    (stock,) = await bed.swarm.stocks([order])
    assert (stock.ready, stock.stale, stock.wanted) == (2, 0, 2)
    assert stock.size_bytes > 0
    # Kept on disk alone: none is a VM, or a process.
    assert await bed.own() == []
    assert bed.processes() == []
    assert bed.made_ready_with("/usr/lib/swarm/"), "what guests have in memory is not found at all"
    assert not bed.made_ready_with(secret["CANARY"])

    tasks = ["Sort the imports", "Mend the tests", "Write a page"]
    claims = [Order(task=task, profile=profile, environment=secret) for task in tasks]
    spawned = await asyncio.gather(*(bed.swarm.spawn(one, ignore_progress) for one in claims))
    vms = [await bed.hypervisor.describe(one.agent) for one in spawned]
    for script in ("hostname", "cat /etc/machine-id", "cat /etc/dropbear/host_key | sha256sum"):
        assert len({await bed.ask(vm, script) for vm in vms}) == 3, script
    assert [await bed.ask(vm, "hostname") for vm in vms] == [f"{vm.name}\n" for vm in vms]
    assert [await bed.ask(vm, "cat /run/swarm/task") for vm in vms] == tasks
    assert [str(vm.tag.task) for vm in vms] == tasks
    assert len({vm.tag.address.port for vm in vms if vm.tag.address}) == 3
    now = [int(await bed.ask(vm, "date +%s")) for vm in vms]
    assert max(abs(clock - time.time()) for clock in now) < ANSWER_S
    (stock,) = await bed.swarm.stocks([order])
    assert (stock.ready, stock.hits, stock.copies, stock.misses) == (0, 2, 1, 0)
    assert len(stock.claims_s) == 3
    for vm in vms:
        await bed.ask(vm, f"until grep -aqs {secret['CANARY']} /proc/[0-9]*/environ; do :; done")
    await bed.swarm.replenish(order, ignore_progress)
    assert not bed.made_ready_with(secret["CANARY"])
    assert await bed.swarm.drain(profile) == 1
    assert not [path for path in (bed.folder / "pools").glob("*/*") if path.is_dir()]


async def test_a_ready_agent_that_is_spoilt_is_replaced_by_one_made_from_the_start(
    bed: Bed,
) -> None:
    profile = Profile(name=literal("spoilt"), ready=1)
    await bed.swarm.replenish(Order(profile=profile), ignore_progress)
    (disk,) = [
        path for path in bed.folder.glob("pools/spoilt/*/*/disk.qcow2") if "stem" not in path.parts
    ]
    disk.write_bytes(b"no disk")
    spawned = await bed.swarm.spawn(Order(profile=profile), ignore_progress)
    assert [(vm.id, vm.name) for vm in await bed.own()] == [(spawned.agent, spawned.name)]
    assert [path.name for path in (bed.folder / "agents").iterdir()] == [spawned.agent]
    await bed.swarm.drain(profile)


async def test_a_pool_whose_filling_was_cut_off_has_no_vm_left_after_the_next(bed: Bed) -> None:
    profile = Profile(name=literal("cut"), ready=1)
    deaf = make_swarm(Home(bed.folder, bed.hypervisor, DeafGuest()), bed.image)
    with pytest.raises(GuestUnreachable):
        await deaf.replenish(Order(profile=profile), ignore_progress)
    assert bed.processes() == []
    assert list(bed.folder.glob("pools/cut/*/*")) == []

    # As after a kill: the VM is there, and its folder is half made.
    stem = bed.folder / "pools/cut/gone/stem"
    stem.mkdir(parents=True)
    machine = Machine(template_id(stem), "swarm-pool-cut", stem, 22098)
    await bed.hypervisor.define(
        render(machine, Mould(bed.image, memory_mib=64), bed.image.initrd, Mode.TCG)
    )
    await bed.swarm.replenish(Order(profile=profile), ignore_progress)
    with pytest.raises(AgentGone):
        await bed.hypervisor.definition(machine.id)
    assert not stem.exists()
    await bed.swarm.drain(profile)


async def test_forks_go_on_from_where_their_parent_stood_as_somebody_else(bed: Bed) -> None:
    vm = await bed.spawn(task="Sort the imports")
    ask = '{"ts":1,"kind":"ask","text":"may I?","ask":"review"}'
    freeze = "echo 1 >/sys/fs/cgroup/swarm-agent/cgroup.freeze"
    asked = f"{freeze}; echo '{ask}' >>/run/swarm/events.jsonl; echo here >/run/mark"
    await bed.ask(vm, asked)
    memory, disk = bed.folder / "kept-memory", bed.folder / "kept-disk"
    try:
        await bed.hypervisor.suspend(vm.id)
        await bed.hypervisor.dump(vm.id, memory)
        await asyncio.to_thread(shutil.copyfile, (vm.disks or ())[0], disk)
        await bed.hypervisor.resume(vm.id)
        definition = await bed.hypervisor.definition(vm.id)
        parent = Parent(vm.id, vm.name, vm.tag, definition, memory, [disk], True)
        named: list[str] = []

        async def note(agent: AgentId, name: Safe) -> None:
            named.append(str(name))

        tasks = ("", "Something else")
        made = await asyncio.gather(
            *(
                bed.swarm.fork(parent, f"fork-{number}", task, ignore_progress, note)
                for number, task in enumerate(tasks)
            )
        )
        forks = [await bed.hypervisor.describe(fork.agent) for fork in made]
        family = [vm, *forks]
        assert sorted(named) == ["fork-0", "fork-1"]
        assert [fork.tag.task for fork in forks] == ["Sort the imports", "Something else"]
        assert len({one.tag.address.host_key for one in family if one.tag.address}) == 3
        for told in ("hostname", "cat /etc/machine-id", "cat /sys/class/net/e*/address"):
            assert len({await bed.ask(one, told) for one in family}) == 3, told
        assert {await bed.ask(one, "cat /run/mark") for one in family} == {"here\n"}
        for fork in forks:
            begun, *rest = (await bed.ask(fork, "cat /run/swarm/events.jsonl")).splitlines()
            assert f"forked from {vm.name}" in begun
            assert rest[0] == ask
            assert "clean" in await bed.ask(
                fork, "git -C /workspace fsck --full 2>&1 && echo clean"
            )
            thawed = "grep -q 'frozen 0' /sys/fs/cgroup/swarm-agent/cgroup.events"
            await bed.ask(fork, f"until {thawed}; do sleep 0.1; done")
        assert "Something else" in await bed.ask(forks[1], "cat $(find /run/swarm/inbox -type f)")

        before = len(await bed.own())
        memory.write_bytes(memory.read_bytes()[:10_000_000])
        with pytest.raises(SwarmError):
            await bed.swarm.fork(parent, "torn", "", ignore_progress, note)
        assert len(await bed.own()) == before
        assert {path.name for path in (bed.folder / "agents").iterdir()} == {
            str(one.id) for one in family
        }
    finally:
        memory.unlink(missing_ok=True)
        disk.unlink(missing_ok=True)
