"""Agents under QEMU: a warm template of each mould, and forks of it.

    <folder>/templates/KEY/   disk with a checkpoint of a booted guest, and how to fork it

A template is booted once for each image, size, QEMU and accelerator, up to the moment when its SSH
server answers. A fork takes a copy of its disk and goes on from the checkpoint within. Until it is
somebody of its own, it has the template's host key.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import random
import shutil
import socket
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from swarm_tui.errors import Busy, DeadlineExceeded, SetupError
from swarm_tui.local.accel import QEMU, Mode
from swarm_tui.local.disk import grow_disk
from swarm_tui.local.home import Home, HostKey, Mould, end, template_id
from swarm_tui.local.image import write_initrd
from swarm_tui.local.machine import LOOPBACK, Machine, render, rewrite
from swarm_tui.model import Address, AgentId, Vm
from swarm_tui.outpost.programs import make_folder, replace, run, telling
from swarm_tui.ports import Progress
from swarm_tui.text import literal

BOOT_S: Final = 90.0
"""For a cold boot under software emulation on a busy machine."""
CONTACT_S: Final = 30.0
CLOSE_S: Final = 0.2
UNUSED_S: Final = 86400.0
"""A template that was not used for longer than this, and of which no agent is left, goes."""
PORTS: Final = range(22100, 32000)
"""Below those that the kernel gives out by itself (net.ipv4.ip_local_port_range)."""
WARM_UP: Final = "git -C /workspace status >/dev/null 2>&1; sync"
"""What every agent does first; a fork finds it in its memory then."""


@dataclass(frozen=True, slots=True)
class Template:
    """A guest stopped at the moment when it is ready, in the disk of `machine`."""

    machine: Machine
    definition: str
    checkpoint: str
    host_key: str
    """Public, as all its forks present it until they have one of their own."""


class Forks:
    """How the VMs of a swarm come up under QEMU; a `swarm.Kind`."""

    answer_s = CONTACT_S

    def __init__(self, home: Home, accel: Mode) -> None:
        self.accel = accel
        self.traits: Mapping[str, str] = {"driver": "qemu", "accel": accel}
        self._home = home
        self._templates: dict[Mould, Template] = {}
        self._adopted: dict[AgentId, Template] = {}
        self._preparing: defaultdict[Mould, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def prepare(self, mould: Mould, on_progress: Progress) -> None:
        """Have its template ready: some milliseconds when it is kept, else one boot.

        Those of several moulds are made side by side.
        """
        async with self._preparing[mould]:
            known = self._templates.get(mould)
            # Another process may have found it unused.
            if known is None or not _facts(known.machine.folder).exists():
                known = self._templates[mould] = await self._load_template(mould, on_progress)
            with telling("use the template"):
                os.utime(known.machine.folder)

    def seat(
        self, agent: AgentId, name: str, vms: Sequence[Vm], pending: Sequence[Machine]
    ) -> Machine:
        # Ports of saved agents are free now, and will be needed when they come back.
        ports = {vm.tag.address.port for vm in vms if vm.tag.address}
        ports |= {machine.port for machine in pending}
        return Machine(agent, name, self._home.agents / agent, _free_port(ports))

    def is_displaced(self, machine: Machine) -> bool:
        return not _is_free(machine.port)

    def furnish(self, machine: Machine, mould: Mould) -> HostKey:
        make_folder(machine.folder, 0o711)
        # A copy that shares its blocks with the template, where the file system can.
        command = ["cp", "--reflink=auto", "--sparse=always"]
        run([*command, str(self._templates[mould].machine.disk), str(machine.disk)])
        return self._home.make_host_key()

    async def start(
        self, machine: Machine, mould: Mould, address: Address, tag: str, on_progress: Progress
    ) -> Address:
        template = self._adopted.pop(machine.id, None) or self._templates[mould]
        on_progress(literal("starting from the template's memory"), None)
        await self._home.hypervisor.fork(
            rewrite(template.definition, template.machine, machine, tag),
            rewrite(template.checkpoint, template.machine, machine, tag),
        )
        return self._home.address(address.host, address.port, template.host_key)

    def adopt(self, machine: Machine, template: Template) -> None:
        """Start this machine, whose disk is there, from a checkpoint that its disk holds."""
        self._adopted[machine.id] = template

    async def keep(self, machine: Machine, address: Address) -> None:
        """Stop a guest that is nobody yet, and keep it in its folder as a template. It is ended.

        `address` is where it answers. Raises SwarmError.
        """
        home, hypervisor = self._home, self._home.hypervisor
        try:
            await home.execute(address, WARM_UP, b"", BOOT_S)
            await home.guest.forget(address)
            # Else every fork would inherit the end of our connection.
            await asyncio.sleep(CLOSE_S)
            await hypervisor.suspend(machine.id)
            definition = await hypervisor.definition(machine.id)
            checkpoint = await hypervisor.checkpoint(machine.id)
        finally:
            await home.guest.forget(address)
            await asyncio.shield(end(hypervisor, machine.id))
        kept = Template(machine, definition, checkpoint, address.host_key)
        await asyncio.to_thread(write_template, machine.folder, kept)

    def key(self, mould: Mould) -> str:
        """Changes whenever what was made of the mould could not be used any more. Blocks."""
        return self._key(mould, self._home.login_key())

    async def _load_template(self, mould: Mould, on_progress: Progress) -> Template:
        templates = self._home.folder / "templates"
        with telling("prepare the template"):
            make_folder(templates, 0o711)
            authorized = await asyncio.to_thread(self._home.login_key)
            folder = templates / self._key(mould, authorized)
            # Shared by all who make a template, held alone by who removes those without use.
            async with _locked(templates / "lock", is_shared=True), _locked(_lock_of(folder)):
                is_made = _facts(folder).exists()
                if not is_made:
                    loop = asyncio.get_running_loop()
                    began = loop.time()
                    await self._make_template(mould, folder, authorized, on_progress)
                    made = f"the template is ready after {loop.time() - began:.1f} s"
                    on_progress(literal(made), None)
                template = read_template(folder)
            if not is_made:
                await self._prune_templates()
        return template

    def _key(self, mould: Mould, authorized: str) -> str:
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
            mould.image.digest,
            render(nobody, mould, Path("/"), self.accel),
            f"{program.st_size} {program.st_mtime_ns}",
            # The guest sees the host's own processor under KVM.
            _processor() if self.accel is Mode.KVM else "",
            authorized,
            f"{mould.disk_mib or ''}",
        ]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    async def _make_template(
        self, mould: Mould, folder: Path, authorized: str, on_progress: Progress
    ) -> None:
        home, hypervisor = self._home, self._home.hypervisor
        agent = template_id(folder)
        await end(hypervisor, agent)  # of an attempt that was killed
        machine = Machine(agent, f"swarm-template-{agent[:8]}", folder, _free_port(set()))
        initrd = folder / "initrd.img"
        on_progress(literal("making the template's disk"), None)
        host_key = await asyncio.to_thread(
            self._furnish_template, machine, mould, initrd, authorized
        )
        address = home.address(LOOPBACK, machine.port, host_key.public)
        try:
            await hypervisor.define(render(machine, mould, initrd, self.accel))
            on_progress(literal("booting the template"), None)
            await hypervisor.start(agent)
            on_progress(literal("keeping the template's memory"), None)
            await self.keep(machine, address)
        finally:
            await home.guest.forget(address)
            await asyncio.shield(end(hypervisor, agent))

    def _furnish_template(
        self, machine: Machine, mould: Mould, initrd: Path, authorized: str
    ) -> HostKey:
        shutil.rmtree(machine.folder, ignore_errors=True)
        make_folder(machine.folder, 0o711)
        base = mould.image.base
        if mould.disk_mib:
            base = machine.folder / "base.raw"
            run(["cp", "--reflink=auto", "--sparse=always", str(mould.image.base), str(base)])
            grow_disk(base, mould.disk_mib)
        command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw"]
        run([*command, "-b", str(base), str(machine.disk)])
        host_key = self._home.make_host_key()
        write_initrd(mould.image, initrd, authorized, host_key.private)
        return host_key

    async def _prune_templates(self) -> None:
        """Remove templates but for ours and those from which an agent, or a ready one, still boots.

        Whoever makes one meanwhile keeps us from it: there will be another time.
        """
        hypervisor = self._home.hypervisor
        templates = self._home.folder / "templates"
        kept = {known.machine.folder for known in self._templates.values()}
        async with _locked(templates / "lock", is_patient=False) as is_ours:
            if not is_ours:
                return
            vms = await hypervisor.list()
            try:
                definitions = [await hypervisor.definition(vm.id) for vm in vms]
            except (Busy, DeadlineExceeded):
                return  # one of them may need any template
            for ready in self._home.folder.glob("pools/*/*/*/definition.xml"):
                with telling("look what is kept ready"), suppress(FileNotFoundError):  # claimed
                    definitions.append(ready.read_text())
            for folder in templates.glob("*/"):
                age_s = time.time() - folder.stat().st_mtime
                is_used = folder in kept or any(f"{folder}/" in text for text in definitions)
                if not is_used and age_s > UNUSED_S:
                    await asyncio.to_thread(shutil.rmtree, folder)
                    _lock_of(folder).unlink(missing_ok=True)


def write_template(folder: Path, template: Template) -> None:
    """Keep it in a folder: its machine's own, or one with a copy of its disk. Blocks."""
    machine = template.machine
    replace(folder / "definition.xml", template.definition.encode(), 0o600)
    replace(folder / "checkpoint.xml", template.checkpoint.encode(), 0o600)
    facts = {
        "id": machine.id,
        "name": machine.name,
        "folder": str(machine.folder),
        "port": machine.port,
        "host_key": template.host_key,
    }
    # The last one: whatever is in the folder is complete when this is.
    replace(_facts(folder), json.dumps(facts).encode(), 0o600)


def _facts(folder: Path) -> Path:
    return folder / "template.json"


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def read_template(folder: Path) -> Template:
    """Raises SetupError. Blocks."""
    try:
        facts = json.loads(_facts(folder).read_text())
        own = Path(facts.get("folder", folder))
        machine = Machine(AgentId(facts["id"]), facts["name"], own, facts["port"])
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
async def _locked(
    path: Path, *, is_shared: bool = False, is_patient: bool = True
) -> AsyncIterator[bool]:
    """Hold a lock between processes that the kernel lets go of when we die; whether we do."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    kind = fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX
    try:
        if is_patient:
            await asyncio.to_thread(fcntl.flock, handle, kind)
            yield True
        else:
            try:
                fcntl.flock(handle, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
    finally:
        os.close(handle)
