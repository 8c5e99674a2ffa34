"""A local swarm: one warm template, and agents forked from it.

    <folder>/keys/            our login key for the guests (0700)
    <folder>/templates/KEY/   disk with a checkpoint of a booted guest, and how to fork it
    <folder>/agents/UUID/     an agent's disk and the log of its console

A template is booted once for each image, QEMU, accelerator and size, up to the moment when its SSH
server answers. A fork takes a copy of its disk, goes on from the checkpoint within, and is then
made somebody of its own: host key, names, clock, randomness. The template's host key is pinned for
that first contact only.
"""

from __future__ import annotations

import asyncio
import fcntl
import getpass
import hashlib
import json
import os
import random
import re
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from swarm_tui.errors import (
    AgentGone,
    Busy,
    DeadlineExceeded,
    GuestFailed,
    HostError,
    Refused,
    SetupError,
    SwarmError,
    UsageError,
)
from swarm_tui.local.accel import QEMU, Mode
from swarm_tui.local.guest import IDENTIFY, dropbear_key, render_identity
from swarm_tui.local.image import Image, write_initrd
from swarm_tui.local.machine import LOOPBACK, Machine, render, rewrite
from swarm_tui.local.programs import make_folder, replace, run, telling
from swarm_tui.local.project import ensure_project
from swarm_tui.model import Address, AgentId, Tag, Vm
from swarm_tui.ports import Guest, Hypervisor, Progress, Spawned
from swarm_tui.tag import render_tag
from swarm_tui.text import literal, sanitize

BOOT_S: Final = 90.0
"""For a cold boot under software emulation on a busy machine."""
CONTACT_S: Final = 30.0
CLOSE_S: Final = 0.2
ATTEMPTS: Final = 3
PORTS: Final = range(22100, 32000)
"""Below those that the kernel gives out by itself (net.ipv4.ip_local_port_range)."""
WARM_UP: Final = "git -C /workspace status >/dev/null && sync"
"""What every agent does first; a fork finds it in its memory then."""

_NAME: Final = re.compile("[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Template:
    """A guest stopped at the moment when it is ready, in the disk of `machine`."""

    machine: Machine
    definition: str
    checkpoint: str
    host_key: str
    """Public, as all its forks present it until they have one of their own."""


@dataclass(frozen=True, slots=True)
class HostKey:
    private: bytes
    """In dropbear's format."""
    public: str


class LocalSwarm:
    """Makes and ends the agents of one folder, on one host; a `ports.Spawner`."""

    def __init__(
        self,
        folder: Path,
        image: Image,
        accel: Mode,
        hypervisor: Hypervisor,
        guest: Guest,
        *,
        memory_mib: int = 256,
    ) -> None:
        """`folder` must be reachable (o+x) for QEMU's user; `hypervisor` is open when used."""
        self.accel = accel
        self._folder = folder
        self._image = image
        self._hypervisor = hypervisor
        self._guest = guest
        self._memory_mib = memory_mib
        self._template: Template | None = None
        self._preparing = asyncio.Lock()
        self._naming = asyncio.Lock()
        self._pending: set[Machine] = set()
        self._slots = asyncio.Semaphore(os.cpu_count() or 1)

    @property
    def _identity(self) -> Path:
        return self._folder / "keys/id_ed25519"

    async def prepare(self, on_progress: Progress) -> None:
        """Have the template ready: some milliseconds when it is kept, else one boot.

        Raises SwarmError.
        """
        async with self._preparing:
            if self._template is None:
                await asyncio.to_thread(ensure_project, self._folder, self._image)
                self._template = await self._load_template(on_progress)

    async def spawn(self, name: str, task: str, on_progress: Progress) -> Spawned:
        """Make an agent, as `ports.Spawner` says.

        Raises UsageError for a name that is no host name, and Refused for one that is taken.
        """
        began = time.monotonic()
        if name and not _NAME.fullmatch(name):
            raise UsageError(
                f"{name} cannot be a host name",
                hint="Up to 32 letters (lower case), digits and hyphens.",
            )
        await self.prepare(on_progress)
        async with self._slots:
            for attempt in range(1, ATTEMPTS + 1):
                machine = await self._take_place(name, is_retry=attempt > 1)
                try:
                    await self._fork(machine, task, on_progress)
                    break
                except (HostError, Refused) as error:
                    # Somebody outside of this process may have been quicker.
                    is_name_taken = isinstance(error, Refused) and not name
                    if attempt == ATTEMPTS or not (is_name_taken or not _is_free(machine.port)):
                        raise
                finally:
                    self._pending.discard(machine)
        return Spawned(machine.id, sanitize(machine.name), time.monotonic() - began)

    async def discard(self, vm: Vm) -> None:
        await discard_files(self._folder, vm)

    async def down(self) -> Sequence[AgentId]:
        """End all agents of this swarm and remove what they left; the template is kept.

        Returns the ids of the ended ones.
        """
        return await bring_down(self._folder, self._hypervisor)

    # Forks

    async def _take_place(self, name: str, *, is_retry: bool) -> Machine:
        """A free name and port for a new agent, ours until it is no longer pending."""
        async with self._naming:
            vms = await self._hypervisor.list()
            names = {str(vm.name) for vm in vms} | {machine.name for machine in self._pending}
            # Ports of saved agents are free now, and will be needed when they come back.
            ports = {vm.tag.address.port for vm in vms if vm.tag.address}
            ports |= {machine.port for machine in self._pending}
            if name in names:
                raise Refused(f"{name} exists already", hint="Choose another name.")
            agent = AgentId(str(uuid.uuid4()))
            chosen = name or _next_name(names, agent[:4] if is_retry else "")
            folder = self._folder / "agents" / agent
            machine = Machine(agent, chosen, folder, _free_port(ports))
            self._pending.add(machine)
            return machine

    async def _fork(self, machine: Machine, task: str, on_progress: Progress) -> None:
        template = self._template
        assert template is not None  # prepared
        on_progress(literal("copying the template"), None)
        furnishing = asyncio.ensure_future(asyncio.to_thread(self._furnish, machine, template))
        try:
            host_key = await asyncio.shield(furnishing)
            on_progress(literal("starting from the template's memory"), None)
            await self._run(machine, template, host_key, task)
            on_progress(literal("giving it a name and keys of its own"), None)
            await self._identify(machine, template, host_key.private, task)
        except BaseException:
            await asyncio.wait({furnishing})
            await asyncio.shield(self._undo(machine))
            raise

    def _furnish(self, machine: Machine, template: Template) -> HostKey:
        with telling("make an agent's disk"):
            make_folder(machine.folder, 0o711)
            # A copy that shares its blocks with the template, where the file system can.
            command = ["cp", "--reflink=auto", "--sparse=always"]
            run([*command, str(template.machine.disk), str(machine.disk)])
            return _make_host_key(self._identity.parent)

    async def _run(
        self, machine: Machine, template: Template, host_key: HostKey, task: str
    ) -> None:
        tag = render_tag(
            Tag(
                task=sanitize(task),
                owner=sanitize(_login_name()),
                created=time.time(),
                base=self._image.base_commit,
                address=self._address(machine, host_key.public),
            )
        )
        await self._hypervisor.fork(
            rewrite(template.definition, template.machine, machine, tag),
            rewrite(template.checkpoint, template.machine, machine, tag),
        )

    async def _identify(
        self, machine: Machine, template: Template, host_key: bytes, task: str
    ) -> None:
        first = self._address(machine, template.host_key)
        identity = render_identity(machine.name, host_key, time.time(), task)
        try:
            await self._execute(first, f"exec {IDENTIFY}", identity, CONTACT_S)
        finally:
            # The next contact must find the agent's own key.
            await self._guest.forget(first)

    async def _undo(self, machine: Machine) -> None:
        """Leave nothing of an agent that came to nothing."""
        with suppress(SwarmError):  # the first failure is the one to tell
            await _end(self._hypervisor, machine.id)
        await asyncio.to_thread(shutil.rmtree, machine.folder, ignore_errors=True)

    # The template

    async def _load_template(self, on_progress: Progress) -> Template:
        with telling("prepare the template"):
            for name, mode in (("keys", 0o700), ("templates", 0o711), ("agents", 0o711)):
                make_folder(self._folder / name, mode)
            async with _locked(self._folder / "templates/lock"):
                authorized = await asyncio.to_thread(self._login_key)
                folder = self._folder / "templates" / self._key(authorized)
                if not (folder / "template.json").exists():
                    began = time.monotonic()
                    await self._make_template(folder, authorized, on_progress)
                    await self._prune_templates(folder)
                    made = f"the template is ready after {time.monotonic() - began:.1f} s"
                    on_progress(literal(made), None)
                return _read_template(folder)

    def _login_key(self) -> str:
        """The public key line of our login key, which is made at first."""
        if not self._identity.exists():
            _make_key(self._identity)
        return self._identity.with_suffix(".pub").read_text()

    def _key(self, authorized: str) -> str:
        """A name that changes whenever a template could not be used any more."""
        qemu = shutil.which(QEMU)
        if qemu is None:
            raise SetupError(
                "QEMU is not installed",
                hint="apt-get install --no-install-recommends qemu-system-x86",
            )
        program = os.stat(qemu)
        nobody = Machine(AgentId(str(uuid.UUID(int=0))), "", Path("/"), 0)
        parts = [
            self._image.digest,
            render(nobody, self._image, Path("/"), self.accel, self._memory_mib),
            f"{program.st_size} {program.st_mtime_ns}",
            # The guest sees the host's own processor under KVM.
            _processor() if self.accel is Mode.KVM else "",
            authorized,
        ]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    async def _make_template(self, folder: Path, authorized: str, on_progress: Progress) -> None:
        agent = _template_id(folder)
        await _end(self._hypervisor, agent)  # of an attempt that was killed
        machine = Machine(agent, f"swarm-template-{agent[:8]}", folder, _free_port(set()))
        initrd = folder / "initrd.img"
        on_progress(literal("making the template's disk"), None)
        host_key = await asyncio.to_thread(self._furnish_template, machine, initrd, authorized)
        address = self._address(machine, host_key.public)
        try:
            await self._hypervisor.define(
                render(machine, self._image, initrd, self.accel, self._memory_mib)
            )
            on_progress(literal("booting the template"), None)
            await self._hypervisor.start(agent)
            await self._execute(address, WARM_UP, b"", BOOT_S)
            await self._guest.forget(address)
            # Else every fork would inherit the end of our connection.
            await asyncio.sleep(CLOSE_S)
            on_progress(literal("keeping the template's memory"), None)
            await self._hypervisor.suspend(agent)
            definition = await self._hypervisor.definition(agent)
            checkpoint = await self._hypervisor.checkpoint(agent)
        finally:
            await self._guest.forget(address)
            await asyncio.shield(_end(self._hypervisor, agent))
        await asyncio.to_thread(_write_template, machine, definition, checkpoint, host_key.public)

    def _furnish_template(self, machine: Machine, initrd: Path, authorized: str) -> HostKey:
        shutil.rmtree(machine.folder, ignore_errors=True)
        make_folder(machine.folder, 0o711)
        command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw"]
        run([*command, "-b", str(self._image.base), str(machine.disk)])
        host_key = _make_host_key(self._identity.parent)
        write_initrd(self._image, initrd, authorized, host_key.private)
        return host_key

    async def _prune_templates(self, kept: Path) -> None:
        """Remove templates of older images, but for those from which an agent still boots."""
        vms = await self._hypervisor.list()
        try:
            definitions = [await self._hypervisor.definition(vm.id) for vm in vms]
        except (Busy, DeadlineExceeded):
            return  # one of them may need any template; there will be another time
        for folder in kept.parent.iterdir():
            is_used = folder == kept or any(f"{folder}/" in text for text in definitions)
            if folder.is_dir() and not is_used:
                await asyncio.to_thread(shutil.rmtree, folder)

    # Both

    def _address(self, machine: Machine, host_key: str) -> Address:
        return Address(LOOPBACK, machine.port, host_key, self._identity)

    async def _execute(self, address: Address, script: str, stdin: bytes, limit_s: float) -> None:
        done = await self._guest.run(address, script, stdin=stdin, timeout_s=limit_s)
        if done.exit_status != 0:
            complaint = done.stderr.decode("utf-8", "replace")
            raise GuestFailed("A new guest could not be set up", f"{script}: {complaint}")


async def bring_down(folder: Path, hypervisor: Hypervisor) -> Sequence[AgentId]:
    """End all agents whose disks lie below `folder`, saved ones too, and remove their files.

    Other VMs are never touched. Returns the ids of the ended ones.
    """
    agents = folder / "agents"
    others = set()
    ended = []
    for vm in await hypervisor.list():
        if not _is_own(agents, vm):
            others.add(str(vm.id))
            continue
        await _end(hypervisor, vm.id)
        ended.append(vm.id)
    for template in (folder / "templates").glob("*/"):
        await _end(hypervisor, _template_id(template))
    await asyncio.to_thread(_remove_all, agents, others)
    return ended


def _is_own(agents: Path, vm: Vm) -> bool:
    if vm.disks is None:
        return (agents / vm.id).is_dir()
    return any(disk.is_relative_to(agents) for disk in vm.disks)


async def discard_files(folder: Path, vm: Vm) -> None:
    """Remove the files of an agent that is undefined by now; only ever below `folder`."""
    own = folder / "agents" / str(uuid.UUID(vm.id))
    with telling("remove an agent's files"), suppress(FileNotFoundError):
        await asyncio.to_thread(shutil.rmtree, own)


async def _end(hypervisor: Hypervisor, agent: AgentId) -> None:
    with suppress(AgentGone):
        await hypervisor.destroy(agent)
    await hypervisor.undefine(agent)


def _remove_all(agents: Path, kept: set[str]) -> None:
    """Also what a spawn that was killed has left behind."""
    with telling("remove the agents' files"), suppress(FileNotFoundError):
        for folder in agents.iterdir():
            if folder.name not in kept:
                shutil.rmtree(folder)


def _template_id(folder: Path) -> AgentId:
    """The same for each attempt at it, so that a killed one can be found and ended."""
    return AgentId(str(uuid.uuid5(uuid.NAMESPACE_URL, str(folder))))


def _write_template(machine: Machine, definition: str, checkpoint: str, host_key: str) -> None:
    replace(machine.folder / "definition.xml", definition.encode(), 0o600)
    replace(machine.folder / "checkpoint.xml", checkpoint.encode(), 0o600)
    facts = {
        "id": machine.id,
        "name": machine.name,
        "port": machine.port,
        "host_key": host_key,
    }
    # The last one: whatever is in the folder is complete when this is.
    replace(machine.folder / "template.json", json.dumps(facts).encode(), 0o600)


def _read_template(folder: Path) -> Template:
    try:
        facts = json.loads((folder / "template.json").read_text())
        machine = Machine(AgentId(facts["id"]), facts["name"], folder, facts["port"])
        return Template(
            machine,
            (folder / "definition.xml").read_text(),
            (folder / "checkpoint.xml").read_text(),
            facts["host_key"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SetupError(
            "The template of the local swarm cannot be read",
            f"{folder}: {error}",
            f"Remove {folder}; it is made anew at the next spawn.",
        ) from error


def _make_host_key(private_folder: Path) -> HostKey:
    with tempfile.TemporaryDirectory(dir=private_folder) as folder:
        path = Path(folder) / "host_key"
        _make_key(path)
        return HostKey(
            dropbear_key(path.read_bytes()), path.with_suffix(".pub").read_text().strip()
        )


def _make_key(path: Path) -> None:
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "swarm-tui", "-f", str(path)])


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run us as a number without a name
        return str(os.getuid())


def _next_name(taken: set[str], suffix: str) -> str:
    number = 1
    while (plain := f"agent-{number:02}") in taken:
        number += 1
    return f"{plain}-{suffix}" if suffix else plain


def _free_port(taken: set[int]) -> int:
    """Random: another swarm on this machine looks for one, too."""
    for port in random.sample(PORTS, 1000):
        if port not in taken and _is_free(port):
            return port
    raise SetupError("No port is free for a new agent", f"tried a thousand of {PORTS}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as QEMU does
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return "".join(line for line in lines[:30] if line.startswith(("model name", "flags")))


@asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    """Hold a lock between processes that the kernel lets go of when we die."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        await asyncio.to_thread(fcntl.flock, handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
