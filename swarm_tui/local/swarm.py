"""A local swarm: agents in VMs of their own, made one like the other and then somebody each.

How a VM comes up differs between hypervisors (`Kind`). Then each agent is given what it is alone:
host key, names, clock, randomness.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace as replace_fields
from functools import partial
from pathlib import Path
from typing import Final, ParamSpec, Protocol, TypeVar

from swarm_tui.errors import HostError, Refused, SwarmError, Unsupported, UsageError
from swarm_tui.lifecycle.ground import in_thread
from swarm_tui.local.accel import Mode
from swarm_tui.local.copies import branch
from swarm_tui.local.delivery import deliver
from swarm_tui.local.forks import Forks
from swarm_tui.local.guest import IDENTIFY, Program, render_identity, render_program
from swarm_tui.local.home import Home, HostKey, Mould, end, template_id
from swarm_tui.local.image import Image
from swarm_tui.local.machine import Machine
from swarm_tui.local.pool import STEM, Found, Pool, Way, key_of, pools_in
from swarm_tui.local.project import ensure_project
from swarm_tui.local.turns import Turns
from swarm_tui.model import Address, AgentId, Tag, Vm
from swarm_tui.outpost.network import remove_network
from swarm_tui.outpost.programs import telling
from swarm_tui.outpost.workshop import Workbench, Workshop
from swarm_tui.person import login
from swarm_tui.ports import Hypervisor, OnNamed, Order, Parent, Progress, Spawned
from swarm_tui.profile import PLAIN, Profile
from swarm_tui.stock import Stock
from swarm_tui.tag import render_tag
from swarm_tui.text import EMPTY, Safe, literal, sanitize

ATTEMPTS: Final = 3

NOBODY: Final = "<pool xmlns='urn:swarm-tui:pool:1'/>"
"""Instead of a tag: what has none is in no list of agents."""
UNREADY: Final = literal(
    "Cloud Hypervisor cannot fork: each agent boots for itself, under its own name"
)

P = ParamSpec("P")
T = TypeVar("T")
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
        """A place for a new agent that none of the others has. Blocks.

        `vms` are all agents of the host, `pending` those that are about to be.
        """
        ...

    def is_displaced(self, machine: Machine) -> bool:
        """Whether somebody else took its place meanwhile, so that another try may help. Blocks."""
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


class _Unfit(Exception):
    """An agent that came out of a pool came to nothing."""

    def __init__(self, reason: SwarmError) -> None:
        self.reason = reason
        super().__init__(str(reason))


class LocalSwarm:
    """Makes and ends the agents of one folder, on one host; a `ports.Spawner`.

    A spawn goes place → furnish → start → deliver → identify: what is the same for all agents of
    a profile is done before the last step, by which one is somebody and its program begins.
    """

    def __init__(
        self,
        home: Home,
        kind: Kind,
        find: Callable[[str], Image],
        workshop: Workshop | None = None,
    ) -> None:
        """`find` gives an image by its name or digest, the own one by an empty name. It blocks.

        `workshop` is where agents' files are; None: in the home's folder.
        """
        self._home = home
        self._workshop: Workshop = workshop or Workbench(home.folder)
        self._kind = kind
        self._find = find
        self._own: Image | None = None
        self._preparing = asyncio.Lock()
        self._naming = asyncio.Lock()
        self._pending: set[Machine] = set()
        self._turns = Turns()
        self._forks = kind if isinstance(kind, Forks) else None

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
        _check_name(name)
        program = render_program(order.profile.command, order.task, order.environment)
        mould = await self.prepare(on_progress, order.profile)
        pool = self._pool(order.profile) if order.profile.ready and self._forks else None
        agent, way, is_claiming = AgentId(str(uuid.uuid4())), Way.MISS, pool is not None
        async with self._turns.turn():
            is_retry, turn = False, time.monotonic()
            for attempt in range(1, ATTEMPTS + 1):
                machine = await self._take_place(agent, name, on_named, is_retry=is_retry)
                try:
                    way = await self._make(
                        machine, mould, order, program, on_progress, pool if is_claiming else None
                    )
                    break
                except _Unfit as unfit:
                    is_claiming = False  # what was claimed is gone; one made from the start may do
                    if attempt == ATTEMPTS:
                        raise unfit.reason from unfit
                except (HostError, Refused) as error:
                    # Somebody outside of this process may have been quicker.
                    is_name_taken = isinstance(error, Refused) and not name
                    if attempt == ATTEMPTS or not (
                        is_name_taken or await in_thread(self._kind.is_displaced, machine)
                    ):
                        raise
                    is_retry = True
                finally:
                    self._pending.discard(machine)
        done = time.monotonic()
        if pool:
            with suppress(SwarmError):  # the agent is there, counted or not
                await asyncio.to_thread(pool.note, way, done - turn)
        return Spawned(machine.id, sanitize(machine.name), done - began)

    async def fork(
        self, parent: Parent, name: str, task: str, on_progress: Progress, on_named: OnNamed
    ) -> Spawned:
        """As `ports.Forker` says."""
        began = time.monotonic()
        _check_name(name)
        async with self._turns.turn():
            agent = AgentId(str(uuid.uuid4()))
            machine = await self._take_place(agent, name, on_named, is_retry=False)
            try:
                await branch(self._home, parent, machine, task, self._kind.answer_s, on_progress)
            except BaseException:
                await asyncio.shield(self._undo(machine))
                raise
            finally:
                self._pending.discard(machine)
        return Spawned(agent, sanitize(machine.name), time.monotonic() - began)

    async def replenish(self, order: Order, on_progress: Progress) -> bool:
        """Make one more ready agent, as `stock.Stocker` says."""
        if self._forks is None:
            raise Unsupported("No agents can be kept ready on this host", UNREADY)
        mould = await self.prepare(on_progress, order.profile)
        pool = self._pool(order.profile)
        key = await asyncio.to_thread(self._pool_key, mould, order)
        with ExitStack() as stack:
            await self._hold(stack, pool, key)
            if not await asyncio.to_thread(pool.lacks, key):
                return False
            if not await asyncio.to_thread(pool.stem, key):
                await self._grow(pool, key, mould, order, on_progress)
            on_progress(literal("copying a ready agent"), None)
            host_key = await asyncio.to_thread(self._home.make_host_key)
            await _whole(pool.add, key, host_key)
            return await asyncio.to_thread(pool.lacks, key) > 0

    async def stocks(self, orders: Sequence[Order]) -> Sequence[Stock]:
        """As `ports.Spawner` says."""
        found = []
        known = {order.profile.name for order in orders}
        for order in orders:
            key = await self._present_key(order)
            stock = await asyncio.to_thread(self._pool(order.profile).stock, key)
            found.append(replace_fields(stock, missing=EMPTY if self._forks else UNREADY))
        for profile in await asyncio.to_thread(pools_in, self._pools):
            if profile.name not in known:
                tell = self._pool(profile).stock
                found.append(await asyncio.to_thread(tell, None, is_known=False))
        return found

    async def drain(self, profile: Profile) -> int:
        """Remove what is kept ready of a profile, as `stock.Stocker` says."""
        with ExitStack() as stack:
            return await self._hold(stack, self._pool(profile), None)

    async def _hold(self, stack: ExitStack, pool: Pool, key: str | None) -> int:
        """Be alone with a pool in which nothing is left but what is of `key`; how many went."""
        await asyncio.to_thread(stack.enter_context, pool.held())
        for stem in await asyncio.to_thread(pool.unfinished):
            await end(self._home.hypervisor, template_id(stem))  # of an attempt that was killed
        return await _whole(pool.sweep, key)

    async def _grow(
        self, pool: Pool, key: str, mould: Mould, order: Order, on_progress: Progress
    ) -> None:
        """Make what ready agents are copied from: a guest with the workspace, and nobody yet."""
        assert self._forks is not None
        home, folder = self._home, pool.folder / key / STEM
        agent = template_id(folder)
        vms = await home.hypervisor.list()
        seat = self._forks.seat(agent, f"swarm-pool-{agent[:8]}", vms, tuple(self._pending))
        machine = replace_fields(seat, folder=folder)
        try:
            await asyncio.to_thread(pool.check_room, mould.memory_mib << 20)
            on_progress(literal("starting a guest to make ready agents of"), None)
            host_key = await _whole(self._furnish_stem, machine, mould)
            address = home.address(machine.host, machine.port, host_key.public)
            first = await self._forks.start(machine, mould, address, NOBODY, on_progress)
            if order.source:
                await deliver(home, first, order.source, on_progress)
            on_progress(literal("keeping its memory"), None)
            await self._forks.keep(machine, first)
        except BaseException:
            await asyncio.shield(self._undo(machine))
            raise

    def _furnish_stem(self, machine: Machine, mould: Mould) -> HostKey:
        with telling("make a ready agent's disk"):
            shutil.rmtree(machine.folder, ignore_errors=True)
            return self._kind.furnish(machine, mould)

    def _pool(self, profile: Profile) -> Pool:
        return Pool(self._pools, profile)

    @property
    def _pools(self) -> Path:
        return self._home.folder / "pools"

    def _pool_key(self, mould: Mould, order: Order) -> str:
        assert self._forks is not None
        source = order.source
        commit, repository = (source.commit, str(source.repository)) if source else ("", "")
        return key_of(self._forks.key(mould), commit, repository)

    async def _present_key(self, order: Order) -> str | None:
        """Of what would be claimed now; None where that cannot be told."""
        if self._forks is None or (order.profile.repository and order.source is None):
            return None
        try:
            mould = await self._choose_mould(order.profile)
            return await asyncio.to_thread(self._pool_key, mould, order)
        except SwarmError:  # of an image that is gone, nothing would be claimed
            return None

    async def discard(self, vm: Vm) -> None:
        """Remove the files of an agent that is undefined by now. Raises HostError, StorageFull."""
        await in_thread(self._remove_files, AgentId(str(uuid.UUID(vm.id))))

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
                pending = tuple(self._pending)
                machine = await in_thread(self._kind.seat, agent, chosen, vms, pending)
            self._pending.add(machine)
            return machine

    async def _make(
        self,
        machine: Machine,
        mould: Mould,
        order: Order,
        program: Program,
        on_progress: Progress,
        pool: Pool | None,
    ) -> Way:
        key = await asyncio.to_thread(self._pool_key, mould, order) if pool else ""
        furnishing = asyncio.ensure_future(in_thread(self._furnish, machine, mould, pool, key))
        way = Way.MISS
        try:
            on_progress(literal("making its disk"), None)
            host_key, way = await asyncio.shield(furnishing)
            address = self._home.address(machine.host, machine.port, host_key.public)
            tag = _render_tag(address, order, mould)
            first = await self._kind.start(machine, mould, address, tag, on_progress)
            try:
                if order.source and way is Way.MISS:
                    await deliver(self._home, first, order.source, on_progress)
                on_progress(literal("giving it a name and keys of its own"), None)
                identity = render_identity(
                    machine.name, host_key.private, time.time(), order.task, program
                )
                await self._home.execute(first, IDENTIFY, identity, self._kind.answer_s)
            except BaseException:
                await self._home.guest.forget(first)
                raise
            # Its program waits for the end of this connection.
            if first == address:  # later on it would be cut under the hands of others
                await self._home.guest.forget(first)
            else:
                self._turns.begin_later(partial(self._home.guest.forget, first))
            return way
        except BaseException as error:
            await asyncio.wait({furnishing})
            await asyncio.shield(self._undo(machine))
            if isinstance(error, SwarmError) and way is not Way.MISS:
                raise _Unfit(error) from error
            raise

    def _furnish(
        self, machine: Machine, mould: Mould, pool: Pool | None, key: str
    ) -> tuple[HostKey, Way]:
        found: Found | None = None
        if pool and self._forks:
            try:
                found = pool.claim(key, machine)
                found = found or pool.copy(key, machine, self._home.make_host_key)
            except SwarmError:  # it is spoilt; one is made from the start
                shutil.rmtree(machine.folder, ignore_errors=True)
        with telling("make an agent's disk"):
            if found and self._forks:
                self._forks.adopt(machine, found.template)
            host_key = found.host_key if found else self._kind.furnish(machine, mould)
            # So that nobody removes the image while there are agents of it.
            self._workshop.write(machine.folder / "image", f"{mould.image.digest}\n")
            return host_key, found.way if found else Way.MISS

    async def _undo(self, machine: Machine) -> None:
        """Leave nothing of an agent that came to nothing."""
        try:
            await end(self._home.hypervisor, machine.id)
        except SwarmError:
            # The first failure is the one to tell. The VM may run on its disk: whoever was told
            # of the agent's name ends both, once its host is in reach.
            return
        with suppress(SwarmError):
            await in_thread(self._workshop.remove, machine.folder)

    def _remove_files(self, agent: AgentId) -> None:
        self._workshop.remove(self._workshop.root() / "agents" / agent)


async def _whole(work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """What blocks, in a thread; a cancel waits for its end, so that nothing goes on behind us."""
    working = asyncio.ensure_future(asyncio.to_thread(work, *arguments, **named))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait({working})
        raise


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
    for template in (*(folder / "templates").glob("*/"), *(folder / "pools").glob("*/*/stem/")):
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


def _check_name(name: str) -> None:
    if name and not _NAME.fullmatch(name):
        raise UsageError(
            f"{name} cannot be a host name",
            hint="Up to 32 letters (lower case), digits and hyphens.",
        )


def _next_name(taken: set[str], suffix: str) -> str:
    number = 1
    while (plain := f"agent-{number:02}") in taken:
        number += 1
    return f"{plain}-{suffix}" if suffix else plain
