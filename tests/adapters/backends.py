"""Hosts on which the contract of `ports.Hypervisor` is tested; one entry of `BACKENDS` each."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from swarm_tui.adapters.connection import Deadlines
from swarm_tui.adapters.libvirt import LibvirtHypervisor
from swarm_tui.errors import AgentGone
from swarm_tui.local.daemon import ensure_daemon, stop_daemon
from swarm_tui.model import AgentId, Capabilities, Hint, HostName, Tag
from swarm_tui.ports import Hypervisor
from swarm_tui.tag import render_tag
from swarm_tui.text import literal

DATA = Path(__file__).with_name("data")
HOST = HostName("host")


@dataclass(frozen=True)
class Backend:
    """A host with VMs on it, connected."""

    hypervisor: Hypervisor
    capabilities: Capabilities
    hints: list[Hint]
    """Every hint since it was connected."""
    agent: AgentId
    """A VM with our tag that runs."""
    others: frozenset[AgentId]
    """Two more with our tag, in any state."""
    stranger: AgentId | None
    """A VM without our tag; None where the backend can have none."""
    spare: str
    """Definition of a VM with our tag that the host does not know yet."""
    folder: Path
    """Where the host may save to."""
    copy: Callable[[str, str], tuple[str, str]]
    """Definition and checkpoint → those of a new VM, with a copy of the disks."""
    silence: Callable[[], AbstractAsyncContextManager[Hypervisor]]
    """The same host by another connection, on which suspending `agent` gets no answer in time
    for as long as the context lasts."""


Make = Callable[[Path], AbstractAsyncContextManager[Backend]]


def new_id() -> AgentId:
    return AgentId(str(uuid.uuid4()))


# libvirt's own test driver


@asynccontextmanager
async def test_driver(folder: Path) -> AsyncIterator[Backend]:
    uri = f"test://{DATA / 'host.xml'}"
    hints: list[Hint] = []
    hypervisor = LibvirtHypervisor(HOST, uri)
    capabilities = await hypervisor.open(hints.append)
    agent, *others = (AgentId(f"00000000-0000-4000-8000-00000000000{number}") for number in "123")

    @asynccontextmanager
    async def silence() -> AsyncIterator[Hypervisor]:
        # This driver always answers, if not in no time at all.
        impatient = LibvirtHypervisor(HOST, uri, deadlines=Deadlines(act_s=0))
        await impatient.open(lambda _: None)
        yield impatient
        await impatient.close()

    try:
        yield Backend(
            hypervisor,
            capabilities,
            hints,
            agent,
            frozenset(others),
            AgentId("00000000-0000-4000-8000-00000000000f"),
            _fill(DATA / "test-agent.xml", NAME="spare", UUID=new_id()),
            folder,
            lambda *pair: _rename(*pair, source="agent-01", agent=agent),
            silence,
        )
    finally:
        await hypervisor.close()


# QEMU by a real libvirt daemon


@dataclass
class _Machines:
    """VMs of one test's own on a shared host, and their removal."""

    folder: Path
    prefix: str = field(default_factory=lambda: f"contract-{uuid.uuid4().hex[:8]}")
    made: list[AgentId] = field(default_factory=list)

    def definition(self, number: int, tag: str) -> str:
        name, agent = f"{self.prefix}-{number}", new_id()
        self.made.append(agent)
        values = {"NAME": name, "UUID": agent, "FOLDER": str(self.folder), "TAG": tag}
        return _fill(DATA / "qemu-agent.xml", **values)

    def make_disk(self, number: int) -> None:
        disk = self.folder / f"{self.prefix}-{number}.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "16M"], check=True)

    def copy(self, definition: str, checkpoint: str) -> tuple[str, str]:
        source = f"{self.prefix}-0"
        pair = _rename(definition, checkpoint, source=source, agent=self.made[0])
        self.made.append(AgentId(pair[0].split("<uuid>")[1].split("<")[0]))
        shutil.copy(self.folder / f"{source}.qcow2", self.folder / f"{source}-copy.qcow2")
        return pair

    async def remove(self, hypervisor: Hypervisor) -> None:
        for agent in self.made:
            try:
                await hypervisor.destroy(agent)
            except AgentGone:
                continue
            await hypervisor.undefine(agent)


@cache
def shared_daemon() -> str:
    """The URI of a daemon for all tests of this run, ended with it."""
    folder = tempfile.mkdtemp(dir="/var/tmp")
    atexit.register(_stop_daemon, Path(folder))
    return ensure_daemon(Path(folder))


def _stop_daemon(folder: Path) -> None:
    stop_daemon(folder)
    shutil.rmtree(folder)


@asynccontextmanager
async def qemu(_folder: Path) -> AsyncIterator[Backend]:
    async with AsyncExitStack() as stack:
        # Below /var/tmp: QEMU may run as a user of its own, who cannot pass pytest's folders.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp")))
        os.chmod(folder, 0o711)
        uri = shared_daemon()
        hints: list[Hint] = []
        hypervisor = LibvirtHypervisor(HOST, uri)
        capabilities = await hypervisor.open(hints.append)
        stack.push_async_callback(hypervisor.close)

        machines = _Machines(folder)
        stack.push_async_callback(machines.remove, hypervisor)
        tag = render_tag(Tag(task=literal("Idle in the firmware")))
        agent, *others = [
            await hypervisor.define(machines.definition(number, tag)) for number in range(3)
        ]
        stranger = await hypervisor.define(machines.definition(3, ""))
        machines.make_disk(0)
        await hypervisor.start(agent)

        @asynccontextmanager
        async def silence() -> AsyncIterator[Hypervisor]:
            impatient = LibvirtHypervisor(HOST, uri, deadlines=Deadlines(act_s=0.3, read_s=30))
            await impatient.open(lambda _: None)
            process = _qemu_process(agent)
            os.kill(process, signal.SIGSTOP)
            try:
                yield impatient
            finally:
                os.kill(process, signal.SIGCONT)
                await impatient.close()

        yield Backend(
            hypervisor,
            capabilities,
            hints,
            agent,
            frozenset(others),
            stranger,
            machines.definition(4, tag),
            folder,
            machines.copy,
            silence,
        )


def _qemu_process(agent: AgentId) -> int:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if agent.encode() in command and b"qemu-system" in command:
            return int(folder.name)
    raise LookupError(agent)


def _fill(template: Path, **values: str) -> str:
    text = template.read_text()
    for word, value in values.items():
        text = text.replace(word, value)
    return text


def _rename(definition: str, checkpoint: str, *, source: str, agent: AgentId) -> tuple[str, str]:
    """Both texts for a VM called `source`-copy with an id of its own."""
    copy = new_id()

    def rename(text: str) -> str:
        return text.replace(source, f"{source}-copy").replace(agent, copy)

    return rename(definition), rename(checkpoint)


BACKENDS: Mapping[str, Make] = {"test": test_driver, "qemu": qemu}
