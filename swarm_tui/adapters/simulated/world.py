"""The state behind a simulated swarm: hosts, machines, and what happens to them."""

from __future__ import annotations

import asyncio
import math
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

from swarm_tui.adapters.domain import Definition, parse_definition
from swarm_tui.adapters.simulated.clock import Clock
from swarm_tui.adapters.simulated.life import Life
from swarm_tui.adapters.simulated.project import BASE, Project
from swarm_tui.adapters.simulated.script import Draws, fates
from swarm_tui.adapters.simulated.tasks import OWNERS, TASKS
from swarm_tui.errors import AgentGone, DeadlineExceeded, HostUnreachable, Refused, SwarmError
from swarm_tui.label import make_labels
from swarm_tui.model import Address, AgentId, Hint, HostName, Power, Tag, Vm
from swarm_tui.ports import Order
from swarm_tui.tag import render_tag
from swarm_tui.text import EMPTY, literal, sanitize

MEMORY: Final = 1 << 30
"""Of a new machine, bytes."""
BOOT_S: Final = 2.5
DEADLINE_S: Final = 10.0
"""Deadline of the calls that a libvirt host answers at once."""
LONG_DEADLINE_S: Final = 120.0
GRAIN_S: Final = 0.02
"""Waits end on multiples of this, so that many of them share one timer."""
SMALL_SWARM: Final = 500
"""Up to this many agents, each begins with a minute and a half of log behind it."""
LIVELY_SWARM: Final = 2000
"""Beyond this many agents each takes longer over its steps, so that all together say no more:
about 1,200 lines a second. Their figures change as often as ever."""

_LONG: Final = frozenset(
    {"save", "restore", "dump", "checkpoint", "fork", "spawn", "claim", "replenish"}
)
_PACE_S: Final = {
    "save": 0.6,
    "restore": 0.4,
    "dump": 0.1,
    "checkpoint": 0.1,
    "fork": 0.9,
    "spawn": 1.2,
    "claim": 0.4,
    "replenish": 1.5,
}
"""How long the slow calls take on a real local swarm."""
_LABELS: Final = tuple(map(make_labels, (["team=web"], ["team=core", "urgent"], ["team=core"], [])))
_IDS: Final = uuid.UUID("8e8a4a4e-1f0b-5d6c-9a57-5f6d1c0a7b11")


@dataclass(slots=True)
class Site:
    """One simulated host."""

    name: HostName
    uri: str
    address: str
    """Of its guests; a name that can never be resolved (RFC 2606)."""
    is_lost: bool = False
    held: int = 0
    """Bytes of memory that its VMs have taken, as they were counted last."""
    machines: dict[AgentId, Machine] = field(default_factory=dict)
    listeners: list[Callable[[Hint], None]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Machine:
    """One simulated VM."""

    site: Site
    vm: Vm
    life: Life
    raw_name: str
    is_frozen: bool = False
    is_cut: bool = False
    """SSH into it is refused."""
    boots_until: float = 0.0
    link: object = field(default_factory=object)
    """Another one whenever SSH connections into the guest break."""
    console: object = field(default_factory=object)
    """Another one whenever somebody takes the console."""
    waiting: set[asyncio.Future[None]] = field(default_factory=set)

    @property
    def is_running(self) -> bool:
        return self.vm.power is Power.RUNNING

    @property
    def is_active(self) -> bool:
        return self.vm.power in (Power.RUNNING, Power.PAUSED)


class World:
    """All hosts and machines. Every change of a machine's power goes through `turn`."""

    def __init__(
        self,
        agents: int,
        seed: int,
        clock: Clock,
        hosts: int,
        speed: float,
        tick_s: float,
        project: Project | None,
    ) -> None:
        self.clock = clock
        self.project = project
        self.delays: dict[str, float] = {}
        self.sites = [_make_site(index) for index in range(hosts)]
        self._seed = seed
        self._speed = speed
        self._tick_s = tick_s
        self._kept = 64 if agents <= SMALL_SWARM else 8
        self._past_s = 90.0 if agents <= SMALL_SWARM else 10.0
        self._calm = max(1.0, agents / LIVELY_SWARM)
        self._failures: dict[str, list[SwarmError]] = {}
        self._by_address: dict[tuple[str, int], Machine] = {}
        self._slots: dict[int, list[asyncio.Future[None]]] = {}
        self._born = 0
        self._addresses = 0
        self._promised: set[str] = set()
        """Names of machines that are about to be."""
        for index, fate in enumerate(fates(agents)):
            self._populate(self.sites[index * hosts // agents], index, fate)

    # Making machines

    def _populate(self, site: Site, index: int, fate: str) -> None:
        draws = Draws(self._seed * 1_000_003 + index)
        task = TASKS[index % len(TASKS)]
        again = index // len(TASKS)
        name = f"{task.slug}-{again + 1}" if again else task.slug
        lived = draws.uniform(300.0, 18_000.0)
        # Who waits for a person may have waited long; that costs nothing to catch up with.
        past_s = draws.uniform(20.0, 400.0) if fate in ("asking", "done") else self._past_s
        life = self._make_life(index, fate, lived)
        tag = Tag(
            task=literal(task.text),
            owner=literal(OWNERS[draws.whole(0, len(OWNERS) - 1)]),
            created=round(self.clock.wall() - lived - past_s, 3),
            base=BASE,
            address=self._next_address(site),
            labels=_LABELS[index % len(_LABELS)],
        )
        gib = (1, 1, 2, 4)[draws.whole(0, 3)]
        machine = self._add(site, self._next_id(), name, tag, gib << 30, max(1, gib // 2), life)
        self.turn(machine, Power.RUNNING, "booted", past_s=past_s)

    @contextmanager
    def naming(self, wanted: str) -> Iterator[tuple[AgentId, str]]:
        """Who the next machine will be; nobody else gets the name meanwhile. Raises Refused."""
        taken = {machine.vm.name for machine in self.machines()} | self._promised
        if wanted in taken:
            raise Refused("Cannot make the agent", f"there is one named {wanted} already")
        name = wanted or self._free_name()
        self._promised.add(name)
        try:
            yield self._next_id(), name
        finally:
            self._promised.discard(name)

    def spawn(
        self, site: Site, agent: AgentId, name: str, order: Order, memory: int, vcpus: int
    ) -> Machine:
        """A new machine, on and booting."""
        tag = Tag(
            task=sanitize(order.task),
            owner=literal(OWNERS[0]),
            created=round(self.clock.wall(), 3),
            base=BASE,
            address=self._next_address(site),
            labels=order.labels,
        )
        life = self._make_life(self._born - 1, "asks", 0.0)
        machine = self._add(site, agent, name, tag, memory, vcpus, life)
        machine.boots_until = self.clock.monotonic() + BOOT_S / self._speed
        self.hint(machine, "defined")
        self.turn(machine, Power.RUNNING, "booted", "started")
        return machine

    def fork(
        self,
        site: Site,
        agent: AgentId,
        name: str,
        tag: Tag,
        definition: Definition,
        life: Life,
    ) -> Machine:
        """A new machine that goes on with a life, at an address of its own."""
        own = replace(
            tag,
            owner=literal(OWNERS[0]),
            created=round(self.clock.wall(), 3),
            address=self._next_address(site),
        )
        memory = definition.memory_bytes or MEMORY
        machine = self._add(site, agent, name, own, memory, definition.vcpus or 1, life)
        self.hint(machine, "defined")
        self.turn(machine, Power.RUNNING, "from snapshot", "started", "resumed")
        return machine

    def define(self, site: Site, xml: str) -> Machine:
        """Make the VM of a definition known, off; one that is known gets the new definition."""
        definition = parse_definition(xml)
        known = site.machines.get(definition.id)
        if known:
            known.vm = _vm_of(definition, site, known.vm.power)
            self._by_address_of(known)
        else:
            life = self._make_life(self._born, "works", 0.0)
            vm = _vm_of(definition, site, Power.OFF)
            known = self._enter(Machine(site, vm, life, vm.name))
            self._born += 1
        self.hint(known, "defined")
        return known

    def undefine(self, machine: Machine) -> None:
        del machine.site.machines[machine.vm.id]
        address = machine.vm.tag.address
        if address and self._by_address.get((address.host, address.port)) is machine:
            del self._by_address[address.host, address.port]
        self.cut(machine)
        self.hint(machine, "undefined")

    def renew(self, machine: Machine) -> None:
        """A cold boot: a fresh /run, and a life that begins anew, on the same disk."""
        life = self._make_life(self._born, "works", 0.0, machine.life.task)
        life.inherit(machine.life)
        machine.life = life
        self._born += 1
        machine.is_frozen = False
        machine.boots_until = self.clock.monotonic() + BOOT_S / self._speed

    def rename(self, machine: Machine, raw_name: str) -> None:
        """Somebody else gave the VM another name."""
        machine.raw_name = raw_name
        machine.vm = replace(machine.vm, name=sanitize(raw_name))
        self.hint(machine, "defined")

    def definition(self, machine: Machine) -> str:
        vm = machine.vm
        domain = ET.Element("domain", {"type": "simulated"})
        for tag, text in (("name", machine.raw_name), ("uuid", vm.id)):
            ET.SubElement(domain, tag).text = text
        ET.SubElement(domain, "metadata").append(ET.fromstring(render_tag(vm.tag)))
        ET.SubElement(domain, "memory", {"unit": "KiB"}).text = str((vm.memory_bytes or 0) >> 10)
        ET.SubElement(domain, "vcpu").text = str(vm.vcpus)
        return ET.tostring(domain, encoding="unicode")

    def _make_life(self, index: int, fate: str, lived: float, task: int | None = None) -> Life:
        return Life(
            self._seed * 7_368_787 + index,
            index if task is None else task,
            fate=fate,
            lived=lived,
            speed=self._speed,
            tick_s=self._tick_s,
            kept=self._kept,
            calm=self._calm,
        )

    def _add(
        self,
        site: Site,
        agent: AgentId,
        name: str,
        tag: Tag,
        memory_bytes: int,
        vcpus: int,
        life: Life,
    ) -> Machine:
        vm = Vm(
            id=agent,
            name=sanitize(name),
            host=site.name,
            power=Power.OFF,
            memory_bytes=memory_bytes,
            vcpus=vcpus,
            tag=tag,
        )
        return self._enter(Machine(site, vm, life, name))

    def _enter(self, machine: Machine) -> Machine:
        machine.site.machines[machine.vm.id] = machine
        self._by_address_of(machine)
        return machine

    def _by_address_of(self, machine: Machine) -> None:
        address = machine.vm.tag.address
        if address:
            self._by_address[address.host, address.port] = machine

    def _next_id(self) -> AgentId:
        self._born += 1
        return AgentId(str(uuid.uuid5(_IDS, f"{self._seed}/{self._born}")))

    def _next_address(self, site: Site) -> Address:
        self._addresses += 1  # not the agents: many may be named before the first is there
        return Address(
            host=site.address,
            port=1 + (self._addresses - 1) % 65_535,
            host_key="ssh-ed25519 simulated",
            identity=Path("/nonexistent/simulated"),
        )

    def _free_name(self) -> str:
        taken = {machine.vm.name for machine in self.machines()} | self._promised
        return next(
            name
            for round_ in range(1, 1 << 16)
            for task in TASKS
            if (name := task.slug if round_ == 1 else f"{task.slug}-{round_}") not in taken
        )

    # Finding machines

    def machines(self) -> Iterator[Machine]:
        for site in self.sites:
            yield from site.machines.values()

    def machine(self, agent: AgentId) -> Machine:
        """Raises AgentGone."""
        for site in self.sites:
            if agent in site.machines:
                return site.machines[agent]
        raise gone()

    def machine_at(self, address: Address) -> Machine | None:
        return self._by_address.get((address.host, address.port))

    # What happens to them

    def turn(
        self, machine: Machine, power: Power, reason: str, *hints: str, past_s: float = 0.0
    ) -> None:
        """Put a machine into a power state, and hint it; `past_s` ago it began to run."""
        was_active = machine.is_active
        machine.vm = replace(machine.vm, power=power, reason=literal(reason) if reason else EMPTY)
        self.pace(machine, past_s)
        if was_active and not machine.is_active:
            self.cut(machine)
            machine.console = object()
        self.poke(machine)
        for hint in hints:
            self.hint(machine, hint)

    def pace(self, machine: Machine, past_s: float = 0.0) -> None:
        """Let the life go on or stand still, as the machine's state wants it."""
        now = self.clock.monotonic()
        if machine.vm.power is Power.RUNNING and not machine.is_frozen:
            ahead = max(0.0, machine.boots_until - now) - past_s
            machine.life.go(now + ahead, self.clock.wall() + ahead)
        else:
            machine.life.halt(now)
        self.poke(machine)

    def live(self, machine: Machine) -> None:
        """Catch up with the time; a life that ended in a crash takes its VM with it."""
        machine.life.live(self.clock.monotonic())
        if machine.life.has_crashed and machine.vm.power is Power.RUNNING:
            self.turn(machine, Power.CRASHED, "guest panic", "crashed", "stopped")

    def cut(self, machine: Machine) -> None:
        """Break all SSH connections into the guest."""
        machine.link = object()
        self.poke(machine)

    def hint(self, machine: Machine, kind: str) -> None:
        if not machine.site.is_lost:
            self.tell(machine.site, Hint(machine.vm.id, kind))

    def tell(self, site: Site, hint: Hint) -> None:
        for listener in list(site.listeners):
            # As from a library's thread: never from inside of the call that caused it.
            asyncio.get_running_loop().call_soon(listener, hint)

    # Time and faults

    async def gate(self, call: str, site: Site) -> None:
        """Begin a call on a host: take its time, then its fault, if one was asked for."""
        await self.sleep(call)
        if site.is_lost:
            raise unreachable(site)
        self.fail(call)

    def fail(self, call: str) -> None:
        """Raise the next fault that was asked for."""
        if failures := self._failures.get(call):
            raise failures.pop(0)

    def fail_next(self, call: str, error: SwarmError) -> None:
        self._failures.setdefault(call, []).append(error)

    def set_real_pace(self) -> None:
        """Let slow calls take the time that they take on a real swarm."""
        self.delays.update(_PACE_S)

    async def sleep(self, call: str, on_fraction: Callable[[float], None] | None = None) -> None:
        """Take the call's time. Raises DeadlineExceeded when that is too long."""
        seconds = self.delays.get(call, 0.0)
        deadline_s = LONG_DEADLINE_S if call in _LONG else DEADLINE_S
        begun = self.clock.monotonic()
        for share in (0.0, 0.2, 0.4, 0.6, 0.8) if on_fraction else ():
            await self.until(begun + min(seconds, deadline_s) * share)
            if on_fraction:
                on_fraction(share)
        await self.until(begun + min(seconds, deadline_s))
        if seconds > deadline_s:
            raise DeadlineExceeded(
                "The simulated host does not answer",
                f"asked to {call}, no answer in {deadline_s:g} s; the outcome is unknown",
            )

    async def until(self, when: float) -> None:
        if when > self.clock.monotonic():
            await self._wake_at(when)

    async def change(self, machine: Machine) -> None:
        """Wait until something happened to a machine or in its life."""
        due = machine.life.due()
        future = (
            asyncio.get_running_loop().create_future() if due == math.inf else self._wake_at(due)
        )
        machine.waiting.add(future)
        try:
            await future
        finally:
            machine.waiting.discard(future)

    def poke(self, machine: Machine) -> None:
        """Wake whoever waits for a machine."""
        for future in machine.waiting:
            if not future.done():
                future.set_result(None)

    def _wake_at(self, when: float) -> asyncio.Future[None]:
        """Done when the time has come; all waits of one moment share a timer."""
        now = self.clock.monotonic()
        slot = 1 + math.floor(max(now, when) / GRAIN_S)
        future = asyncio.get_running_loop().create_future()
        if slot in self._slots:
            self._slots[slot].append(future)
        else:
            self._slots[slot] = [future]
            self.clock.call_at(slot * GRAIN_S, partial(self._ring, slot))
        return future

    def _ring(self, slot: int) -> None:
        for future in self._slots.pop(slot):
            if not future.done():
                future.set_result(None)


def gone() -> AgentGone:
    return AgentGone("The VM is not there any more", "no simulated agent has this id")


def unreachable(site: Site) -> HostUnreachable:
    return HostUnreachable(
        f"Host {site.name} is out of reach",
        "the simulated host was taken away",
        "It comes back by itself, or by find_host.",
    )


def _make_site(index: int) -> Site:
    number = str(index + 1) if index else ""
    return Site(
        name=HostName(f"simulated-{number}" if number else "simulated"),
        uri=f"simulated:///{number}",
        address=f"simulated{number}.invalid",
    )


def _vm_of(definition: Definition, site: Site, power: Power) -> Vm:
    return Vm(
        id=definition.id,
        name=definition.name,
        host=site.name,
        power=power,
        memory_bytes=definition.memory_bytes,
        vcpus=definition.vcpus,
        disks=definition.disks,
        tag=definition.tag or Tag(),
    )
