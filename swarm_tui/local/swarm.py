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
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from swarm_tui.errors import HostError, Refused, SwarmError, UsageError
from swarm_tui.label import Label
from swarm_tui.local.accel import Mode
from swarm_tui.local.guest import IDENTIFY, render_identity
from swarm_tui.local.home import Home, HostKey, end, template_id
from swarm_tui.local.machine import Machine
from swarm_tui.local.network import remove_network
from swarm_tui.local.programs import telling
from swarm_tui.local.project import ensure_project
from swarm_tui.model import Address, AgentId, Tag, Vm
from swarm_tui.person import login
from swarm_tui.ports import Hypervisor, Order, Progress, Spawned
from swarm_tui.tag import render_tag
from swarm_tui.text import literal, sanitize

ATTEMPTS: Final = 3

_NAME: Final = re.compile("[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


class Kind(Protocol):
    """How the VMs of a swarm come up."""

    answer_s: float
    """How long a VM that was started may take until it answers."""
    accel: Mode
    traits: Mapping[str, str]
    """What it is, for a report."""

    async def prepare(self, on_progress: Progress) -> None:
        """Have ready what all agents need; quick when it is. One call at a time."""
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

    def furnish(self, machine: Machine) -> HostKey:
        """Make its files, and the host key that it shall have. Blocks."""
        ...

    async def start(
        self, machine: Machine, address: Address, tag: str, on_progress: Progress
    ) -> Address:
        """Define and start it; returns `address`, with the host key it answers with at first."""
        ...


class LocalSwarm:
    """Makes and ends the agents of one folder, on one host; a `ports.Spawner`."""

    def __init__(self, home: Home, kind: Kind) -> None:
        self._home = home
        self._kind = kind
        self._is_prepared = False
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

    async def prepare(self, on_progress: Progress) -> None:
        """Have ready what all agents need. Raises SwarmError."""
        async with self._preparing:
            if not self._is_prepared:
                with telling("prepare the swarm"):
                    self._home.make_folders()
                await asyncio.to_thread(ensure_project, self._home.folder, self._home.image)
                await self._kind.prepare(on_progress)
                self._is_prepared = True

    async def spawn(self, order: Order, on_progress: Progress) -> Spawned:
        """Make an agent, as `ports.Spawner` says.

        Raises UsageError for a name that is no host name, and Refused for one that is taken.
        """
        began, name = time.monotonic(), order.name
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
                    await self._make(machine, order.task, order.labels, on_progress)
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

    async def _take_place(self, name: str, *, is_retry: bool) -> Machine:
        """A free name and place for a new agent, ours until it is no longer pending."""
        async with self._naming:
            vms = await self._home.hypervisor.list()
            names = {str(vm.name) for vm in vms} | {machine.name for machine in self._pending}
            if name in names:
                raise Refused(f"{name} exists already", hint="Choose another name.")
            agent = AgentId(str(uuid.uuid4()))
            chosen = name or _next_name(names, agent[:4] if is_retry else "")
            with telling("find a place for an agent"):
                machine = self._kind.seat(agent, chosen, vms, tuple(self._pending))
            self._pending.add(machine)
            return machine

    async def _make(
        self, machine: Machine, task: str, labels: tuple[Label, ...], on_progress: Progress
    ) -> None:
        furnishing = asyncio.ensure_future(asyncio.to_thread(self._furnish, machine))
        try:
            on_progress(literal("making its disk"), None)
            host_key = await asyncio.shield(furnishing)
            address = self._home.address(machine.host, machine.port, host_key.public)
            tag = self._render_tag(address, task, labels)
            first = await self._kind.start(machine, address, tag, on_progress)
            on_progress(literal("giving it a name and keys of its own"), None)
            await self._identify(machine, first, host_key.private, task)
        except BaseException:
            await asyncio.wait({furnishing})
            await asyncio.shield(self._undo(machine))
            raise

    def _furnish(self, machine: Machine) -> HostKey:
        with telling("make an agent's disk"):
            return self._kind.furnish(machine)

    def _render_tag(self, address: Address, task: str, labels: tuple[Label, ...]) -> str:
        return render_tag(
            Tag(
                task=sanitize(task),
                owner=sanitize(login()),
                created=time.time(),
                base=self._home.image.base_commit,
                address=address,
                labels=labels,
            )
        )

    async def _identify(self, machine: Machine, first: Address, host_key: bytes, task: str) -> None:
        identity = render_identity(machine.name, host_key, time.time(), task)
        try:
            await self._home.execute(first, f"exec {IDENTIFY}", identity, self._kind.answer_s)
        finally:
            # The next contact must find the agent's own key.
            await self._home.guest.forget(first)

    async def _undo(self, machine: Machine) -> None:
        """Leave nothing of an agent that came to nothing."""
        with suppress(SwarmError):  # the first failure is the one to tell
            await end(self._home.hypervisor, machine.id)
        await asyncio.to_thread(shutil.rmtree, machine.folder, ignore_errors=True)


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
