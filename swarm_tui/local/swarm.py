"""A local swarm: agents in VMs of their own, made one like the other and then somebody each.

How a VM comes up differs between hypervisors (`Kind`). Then each agent is given what it is alone:
host key, names, clock, randomness.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from swarm_tui.errors import HostError, Refused, SwarmError, UsageError
from swarm_tui.local.accel import Mode
from swarm_tui.local.delivery import deliver
from swarm_tui.local.guest import IDENTIFY, Program, render_identity, render_program
from swarm_tui.local.home import Home, HostKey, Mould, end, template_id
from swarm_tui.local.image import Image
from swarm_tui.local.machine import Machine
from swarm_tui.local.network import remove_network
from swarm_tui.local.programs import replace, telling
from swarm_tui.local.project import ensure_project
from swarm_tui.model import Address, AgentId, Tag, Vm
from swarm_tui.person import login
from swarm_tui.ports import Hypervisor, OnNamed, Order, Progress, Spawned
from swarm_tui.profile import PLAIN, Profile
from swarm_tui.tag import render_tag
from swarm_tui.text import Safe, literal, sanitize

ATTEMPTS: Final = 3

_NAME: Final = re.compile("[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


class Kind(Protocol):
    """How the VMs of a swarm come up."""

    answer_s: float
    """How long a VM that was started may take until it answers."""
    accel: Mode
    traits: Mapping[str, str]
    """What it is, for a report."""

    async def prepare(self, mould: Mould, on_progress: Progress) -> None:
        """Have ready what all agents of the mould need; quick when it is."""
        ...

    def seat(
        self, agent: AgentId, name: str, vms: Sequence[Vm], pending: Sequence[Machine]
    ) -> Machine:
        """A place for a new agent that none of the others has; does not block for long.

        `vms` are all agents of the host, `pending` those that are about to be.
        """
        ...

    def is_displaced(self, machine: Machine) -> bool:
        """Whether somebody else took its place meanwhile, so that another try may help."""
        ...

    def furnish(self, machine: Machine, mould: Mould) -> HostKey:
        """Make its files, and the host key that it shall have. Blocks."""
        ...

    async def start(
        self, machine: Machine, mould: Mould, address: Address, tag: str, on_progress: Progress
    ) -> Address:
        """Define and start it; returns `address`, with the host key it answers with at first."""
        ...


async def _unheard(agent: AgentId, name: Safe) -> None:
    pass


class LocalSwarm:
    """Makes and ends the agents of one folder, on one host; a `ports.Spawner`.

    A spawn goes place → furnish → start → deliver → identify: what is the same for all agents of
    a profile is done before the last step, by which one is somebody and its program begins.
    """

    def __init__(self, home: Home, kind: Kind, find: Callable[[str], Image]) -> None:
        """`find` gives an image by its name or digest, the own one by an empty name. It blocks."""
        self._home = home
        self._kind = kind
        self._find = find
        self._own: Image | None = None
        self._preparing = asyncio.Lock()
        self._naming = asyncio.Lock()
        self._pending: set[Machine] = set()
        self._slots = asyncio.Semaphore(os.cpu_count() or 1)

    @property
    def accel(self) -> Mode:
        return self._kind.accel

    @property
    def traits(self) -> Mapping[str, str]:
        return self._kind.traits

    async def prepare(self, on_progress: Progress, profile: Profile = PLAIN) -> Mould:
        """Have ready what all agents of a profile need. Raises SwarmError."""
        mould = await self._choose_mould(profile)
        await self._kind.prepare(mould, on_progress)
        return mould

    async def spawn(
        self, order: Order, on_progress: Progress, on_named: OnNamed = _unheard
    ) -> Spawned:
        """Make an agent, as `ports.Spawner` says.

        Raises UsageError for a name that is no host name, and Refused for one that is taken.
        """
        began, name = time.monotonic(), order.name
        if name and not _NAME.fullmatch(name):
            raise UsageError(
                f"{name} cannot be a host name",
                hint="Up to 32 letters (lower case), digits and hyphens.",
            )
        program = render_program(order.profile.command, order.task, order.environment)
        mould = await self.prepare(on_progress, order.profile)
        agent = AgentId(str(uuid.uuid4()))
        async with self._slots:
            for attempt in range(1, ATTEMPTS + 1):
                machine = await self._take_place(agent, name, on_named, is_retry=attempt > 1)
                try:
                    await self._make(machine, mould, order, program, on_progress)
                    break
                except (HostError, Refused) as error:
                    # Somebody outside of this process may have been quicker.
                    is_name_taken = isinstance(error, Refused) and not name
                    if attempt == ATTEMPTS or not (
                        is_name_taken or self._kind.is_displaced(machine)
                    ):
                        raise
                finally:
                    self._pending.discard(machine)
        return Spawned(machine.id, sanitize(machine.name), time.monotonic() - began)

    async def discard(self, vm: Vm) -> None:
        await discard_files(self._home.folder, vm)

    async def down(self) -> Sequence[AgentId]:
        """End all agents of this swarm and remove what they left; returns their ids."""
        return await bring_down(self._home.folder, self._home.hypervisor)

    async def _choose_mould(self, profile: Profile) -> Mould:
        async with self._preparing:
            with telling("prepare the swarm"):
                self._home.make_folders()
            image = None if profile.image else self._own
            if image is None:
                image = await asyncio.to_thread(self._find, profile.image)
            if not profile.image:
                self._own = image
            if image.base_commit and not profile.repository:
                await asyncio.to_thread(ensure_project, self._home.folder, image)
        memory_mib = profile.memory_mib or self._home.memory_mib
        return Mould(image, profile.vcpus, memory_mib, profile.disk_mib)

    async def _take_place(
        self, agent: AgentId, name: str, on_named: OnNamed, *, is_retry: bool
    ) -> Machine:
        """A free name and place for a new agent, ours until it is no longer pending."""
        async with self._naming:
            vms = await self._home.hypervisor.list()
            names = {str(vm.name) for vm in vms} | {machine.name for machine in self._pending}
            if name in names:
                raise Refused(f"{name} exists already", hint="Choose another name.")
            chosen = name or _next_name(names, agent[:4] if is_retry else "")
            await on_named(agent, sanitize(chosen))
            with telling("find a place for an agent"):
                machine = self._kind.seat(agent, chosen, vms, tuple(self._pending))
            self._pending.add(machine)
            return machine

    async def _make(
        self, machine: Machine, mould: Mould, order: Order, program: Program, on_progress: Progress
    ) -> None:
        furnishing = asyncio.ensure_future(asyncio.to_thread(self._furnish, machine, mould))
        try:
            on_progress(literal("making its disk"), None)
            host_key = await asyncio.shield(furnishing)
            address = self._home.address(machine.host, machine.port, host_key.public)
            tag = _render_tag(address, order, mould)
            first = await self._kind.start(machine, mould, address, tag, on_progress)
            try:
                if order.source:
                    await deliver(self._home, first, order.source, on_progress)
                on_progress(literal("giving it a name and keys of its own"), None)
                identity = render_identity(
                    machine.name, host_key.private, time.time(), order.task, program
                )
                await self._home.execute(first, f"exec {IDENTIFY}", identity, self._kind.answer_s)
            finally:
                # The next contact must find the agent's own key.
                await self._home.guest.forget(first)
        except BaseException:
            await asyncio.wait({furnishing})
            await asyncio.shield(self._undo(machine))
            raise

    def _furnish(self, machine: Machine, mould: Mould) -> HostKey:
        with telling("make an agent's disk"):
            host_key = self._kind.furnish(machine, mould)
            # So that nobody removes the image while there are agents of it.
            replace(machine.folder / "image", f"{mould.image.digest}\n".encode())
            return host_key

    async def _undo(self, machine: Machine) -> None:
        """Leave nothing of an agent that came to nothing."""
        try:
            await end(self._home.hypervisor, machine.id)
        except SwarmError:
            # The first failure is the one to tell. The VM may run on its disk: whoever was told
            # of the agent's name ends both, once its host is in reach.
            return
        await asyncio.to_thread(shutil.rmtree, machine.folder, ignore_errors=True)


def _render_tag(address: Address, order: Order, mould: Mould) -> str:
    source = order.source
    return render_tag(
        Tag(
            task=sanitize(order.task),
            owner=sanitize(login()),
            created=time.time(),
            base=source.commit if source else mould.image.base_commit,
            address=address,
            labels=order.labels,
        )
    )


async def bring_down(folder: Path, hypervisor: Hypervisor) -> Sequence[AgentId]:
    """End all agents whose disks lie below `folder`, saved ones too, and remove their files.

    Their network goes with the last of them. Other VMs are never touched, templates are kept.
    Returns the ids of the ended ones.
    """
    agents = folder / "agents"
    others = set()
    ended = []
    for vm in await hypervisor.list():
        if not _is_own(agents, vm):
            others.add(str(vm.id))
            continue
        await end(hypervisor, vm.id)
        ended.append(vm.id)
    for template in (folder / "templates").glob("*/"):
        await end(hypervisor, template_id(template))
    await asyncio.to_thread(_remove_all, agents, others)
    if not others & {path.name for path in agents.glob("*")}:
        await asyncio.to_thread(remove_network, folder)
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


def _remove_all(agents: Path, kept: set[str]) -> None:
    """Also what a spawn that was killed has left behind."""
    with telling("remove the agents' files"), suppress(FileNotFoundError):
        for folder in agents.iterdir():
            if folder.name not in kept:
                shutil.rmtree(folder)


def _next_name(taken: set[str], suffix: str) -> str:
    number = 1
    while (plain := f"agent-{number:02}") in taken:
        number += 1
    return f"{plain}-{suffix}" if suffix else plain
