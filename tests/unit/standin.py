"""Stand-ins for the ports, whose VMs live in a folder, so that they outlive the process.

A stand-in agent counts: each `World.tick` adds one to its memory and writes the same number to its
disk. Memory and disk that do not fit together, or a number that went back, show that state was
lost. Every call is recorded, and can be made to fail or to wait, before or after it took effect.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
import zlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4
from zlib import crc32

from swarm_tui import durable
from swarm_tui.errors import (
    AgentGone,
    GuestUnreachable,
    HostUnreachable,
    Refused,
    SnapshotError,
)
from swarm_tui.model import Address, AgentId, Capabilities, Counters, Hint, HostName, Power, Tag, Vm
from swarm_tui.ports import HostFacts, Needs, OnNamed, Order, Parent, Progress, Spawned
from swarm_tui.profile import Profile
from swarm_tui.text import literal, sanitize

HOST = HostName("local")
AGENT = AgentId("6f1c7b0e-0000-4000-8000-000000000001")


@dataclass
class Call:
    """What a call shall do besides its work."""

    before: BaseException | None = None
    """Raised instead of the work."""
    within: BaseException | None = None
    """Raised when a save is half-way: the VM stands still and the file is incomplete."""
    after: BaseException | None = None
    """Raised when the work is done: the answer was lost."""
    gate: asyncio.Event | None = None
    """Waited for before the work."""
    answer: asyncio.Event | None = None
    """Waited for after the work: the answer is long under way."""


@dataclass
class World:
    """All VMs of one stand-in host, in files below `root`."""

    root: Path
    host: HostName = HOST
    calls: list[str] = field(default_factory=list)
    plans: dict[str, Call] = field(default_factory=dict)
    """Call → what it shall do besides, until it is taken out of here."""
    memory_free: int | None = 4 << 30
    """Of the host, without what its VMs were given. None: it does not tell."""
    vm_memory: int = 256 << 20
    missing: dict[str, str] = field(default_factory=dict)
    """What the driver cannot do, and why."""
    is_tongue_tied: bool = False
    """It cannot tell the disks of a VM that is active."""
    on_step: Callable[[str], None] = lambda _: None
    """Told before and after each call takes effect."""
    hints: list[Callable[[Hint], None]] = field(default_factory=list)

    def add(
        self, agent: AgentId = AGENT, name: str = "ember", *, disks: int = 1, tag: Tag | None = None
    ) -> Vm:
        """A running VM, whose counter stands at 1."""
        self.root.mkdir(parents=True, exist_ok=True)
        paths = [self.root / f"{name}-{index}.img" for index in range(disks)]
        # Its own as long as it lives, also while it is saved and another one is made.
        port = 22000 + zlib.crc32(agent.encode()) % 40000
        address = Address("127.0.0.1", port, "ssh-ed25519 AAAA", Path("/key"))
        self._write(
            agent,
            {
                "name": name,
                "power": "running",
                "reason": "booted",
                "disks": [str(path) for path in paths],
                "created": (tag.created if tag else None) or 1000.0,
                "port": address.port,
                "base": tag.base if tag else "",
                "workspace": tag.address.workspace if tag and tag.address else "/workspace",
                "memory": {"counter": 0, "frozen": False, "clock": "right"},
            },
        )
        self.tick(agent)
        return self.vm(agent)

    def inbox(self, agent: AgentId = AGENT) -> Path:
        """Where the messages for an agent are."""
        return self.root / f"{agent}.inbox"

    def agents(self) -> list[AgentId]:
        return sorted(AgentId(path.stem) for path in self.root.glob("*.vm"))

    def state(self, agent: AgentId = AGENT) -> dict[str, Any]:
        try:
            raw: dict[str, Any] = json.loads((self.root / f"{agent}.vm").read_text())
        except FileNotFoundError as error:
            raise AgentGone("The VM is not there any more") from error
        return raw

    def change(self, agent: AgentId, **fields: object) -> None:
        self._write(agent, self.state(agent) | fields)

    def forget(self, agent: AgentId) -> None:
        (self.root / f"{agent}.vm").unlink(missing_ok=True)

    def vm(self, agent: AgentId = AGENT) -> Vm:
        raw = self.state(agent)
        return Vm(
            id=agent,
            name=sanitize(raw["name"]),
            host=self.host,
            power=Power(raw["power"]),
            memory_bytes=self.vm_memory,
            reason=sanitize(raw["reason"]),
            is_orphan=raw.get("is_orphan", False),
            is_left_behind=raw.get("is_left_behind", False),
            disks=None
            if self.is_tongue_tied and raw["power"] != "off"
            else tuple(Path(disk) for disk in raw["disks"]),
            tag=Tag(
                created=raw["created"],
                base=raw["base"],
                address=Address(
                    "127.0.0.1",
                    raw["port"],
                    "ssh-ed25519 AAAA",
                    Path("/key"),
                    workspace=raw["workspace"],
                ),
            ),
        )

    def tick(self, agent: AgentId = AGENT) -> int:
        """Let the agent work for a moment, if it can; its counter."""
        raw = self.state(agent)
        memory = raw["memory"]
        if raw["power"] == "running" and not memory["frozen"]:
            memory["counter"] += 1
            for disk in raw["disks"]:
                Path(disk).write_text(f"counter {memory['counter']}")
            self._write(agent, raw)
        return self.counter(agent)

    def counter(self, agent: AgentId = AGENT) -> int:
        """Where the agent stands; its disks must hold the same number."""
        raw = self.state(agent)
        counter: int = raw["memory"]["counter"]
        for disk in raw["disks"]:
            assert Path(disk).read_text().split() == ["counter", str(counter)], (
                "memory and disk do not fit"
            )
        return counter

    def is_working(self, agent: AgentId = AGENT) -> bool:
        before = self.counter(agent)
        return self.tick(agent) == before + 1

    def power(self, agent: AgentId = AGENT) -> Power:
        return self.vm(agent).power

    def begin_save(self, agent: AgentId, target: Path) -> None:
        """What a hypervisor has done half-way: the VM stands, a part of its memory is written."""
        if target.exists():
            raise Refused("Cannot save the VM", f"{target} exists already")
        if self.state(agent)["power"] == "off":
            raise Refused("The VM is not running")
        self.change(agent, power="paused", reason="saving")
        with durable.storage("save the memory"):
            target.write_text("half a")
        self.on_step("within save")

    def write_saved(self, agent: AgentId, target: Path) -> None:
        raw = self.state(agent)
        disks = [hashlib.sha256(Path(disk).read_bytes()).hexdigest() for disk in raw["disks"]]
        saved = {"agent": agent, "memory": raw["memory"], "disks": disks}
        with durable.storage("save the memory"):
            target.write_text(json.dumps(saved))

    def finish_save(self, agent: AgentId, target: Path) -> None:
        self.write_saved(agent, target)
        self.change(agent, power="off", reason="saved", memory=None, is_orphan=False)

    def restore(self, agent: AgentId, target: Path) -> None:
        raw = self.state(agent)
        if raw["power"] != "off":
            raise Refused("Cannot restore the VM", "it is active")
        saved = _read_saved(target)
        assert saved["agent"] == agent
        if not all(Path(disk).exists() for disk in raw["disks"]):
            raise SnapshotError("Cannot restore the VM", "a disk is missing")
        disks = [hashlib.sha256(Path(disk).read_bytes()).hexdigest() for disk in raw["disks"]]
        assert disks == saved["disks"], "restored on disks that are not of its memory"
        memory = saved["memory"] | {"clock": "late"}
        self.change(agent, power="running", reason="restored", memory=memory)

    def find(self, address: Address) -> AgentId:
        for agent in self.agents():
            raw = self.state(agent)
            if raw["port"] == address.port and raw["power"] == "running":
                return agent
        raise GuestUnreachable("The guest does not answer")

    def hint(self, hint: Hint) -> None:
        for on_hint in self.hints:
            on_hint(hint)

    async def begin(self, call: str) -> Call:
        self.calls.append(call)
        self.on_step(f"before {call}")
        plan = self.plans.get(call, Call())
        if plan.gate:
            await plan.gate.wait()
        if plan.before:
            raise plan.before
        return plan

    async def end(self, call: str, plan: Call) -> None:
        self.on_step(f"after {call}")
        if plan.answer:
            await plan.answer.wait()
        if plan.after:
            raise plan.after

    def _write(self, agent: AgentId, raw: dict[str, Any]) -> None:
        path = self.root / f"{agent}.vm"
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(raw))
        _rename(fresh, path)


_rename = os.rename
"""As it is, also where a test lets the product's own renames fail."""


class StandInHypervisor:
    """Implements `ports.Hypervisor` on a `World`."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.is_open = False
        self._on_hint: Callable[[Hint], None] | None = None

    @property
    def host(self) -> HostName:
        return self.world.host

    @property
    def uri(self) -> str:
        return "standin:///"

    async def open(self, on_hint: Callable[[Hint], None]) -> Capabilities:
        plan = await self.world.begin("open")
        self.is_open = True
        self._on_hint = on_hint
        self.world.hints.append(on_hint)
        await self.world.end("open", plan)
        return Capabilities("STANDIN", "1.0", missing=self.world.missing)

    async def close(self) -> None:
        self.is_open = False
        if self._on_hint in self.world.hints:
            self.world.hints.remove(self._on_hint)

    async def list(self) -> Sequence[Vm]:
        plan = await self._begin("list")
        vms = [self.world.vm(agent) for agent in self.world.agents()]
        await self.world.end("list", plan)
        return vms

    async def describe(self, agent: AgentId) -> Vm:
        plan = await self._begin("describe")
        vm = self.world.vm(agent)
        await self.world.end("describe", plan)
        return vm

    async def definition(self, agent: AgentId) -> str:
        plan = await self._begin("definition")
        raw = self.world.state(agent)
        await self.world.end("definition", plan)
        return json.dumps({"id": agent} | raw | {"memory": None, "power": "off"})

    async def counters(self) -> Mapping[AgentId, Counters]:
        plan = await self._begin("counters")
        now = asyncio.get_running_loop().time()
        active = [agent for agent in self.world.agents() if self.world.power(agent) != Power.OFF]
        await self.world.end("counters", plan)
        return {agent: Counters(now, cpu_ns=int(now * 1e9)) for agent in active}

    async def facts(self) -> HostFacts:
        plan = await self._begin("facts")
        await self.world.end("facts", plan)
        return HostFacts(
            cpus=2,
            memory_free=self.world.memory_free,
            missing={} if self.world.memory_free else {"memory_free": "it does not tell"},
        )

    async def define(self, definition: str) -> AgentId:
        plan = await self._begin("define")
        raw = json.loads(definition)
        agent = AgentId(raw.pop("id"))
        self.world._write(agent, raw)
        await self.world.end("define", plan)
        return agent

    async def undefine(self, agent: AgentId) -> None:
        plan = await self._begin("undefine")
        self.world.forget(agent)
        await self.world.end("undefine", plan)

    async def start(self, agent: AgentId) -> None:
        plan = await self._begin("start")
        memory = {"counter": 0, "frozen": False, "clock": "right"}
        self.world.change(agent, power="running", reason="booted", memory=memory)
        await self.world.end("start", plan)

    async def suspend(self, agent: AgentId) -> None:
        plan = await self._begin("suspend")
        self._active(agent)
        self.world.change(agent, power="paused", reason="by a user")
        await self.world.end("suspend", plan)

    async def resume(self, agent: AgentId) -> None:
        plan = await self._begin("resume")
        self._active(agent)
        self.world.change(agent, power="running", reason="resumed")
        await self.world.end("resume", plan)

    async def destroy(self, agent: AgentId) -> None:
        plan = await self._begin("destroy")
        self.world.change(agent, power="off", reason="destroyed", memory=None)
        await self.world.end("destroy", plan)

    async def save(self, agent: AgentId, target: Path, on_progress: Progress) -> None:
        plan = await self._begin("save")
        on_progress(literal("saving memory"), 0.5)
        self.world.begin_save(agent, target)
        if plan.within:
            raise plan.within
        self.world.finish_save(agent, target)
        await self.world.end("save", plan)

    async def check_saved(self, target: Path) -> None:
        plan = await self._begin("check_saved")
        _read_saved(target)
        await self.world.end("check_saved", plan)

    async def restore(self, agent: AgentId, target: Path) -> None:
        plan = await self._begin("restore")
        self.world.restore(agent, target)
        await self.world.end("restore", plan)

    async def dump(self, agent: AgentId, target: Path) -> None:
        plan = await self._begin("dump")
        if self.world.power(agent) is not Power.PAUSED:
            raise Refused("Cannot save the VM and keep it", "suspend it first")
        if plan.within:
            raise plan.within
        self.world.write_saved(agent, target)
        await self.world.end("dump", plan)

    async def checkpoint(self, agent: AgentId) -> str:
        raise NotImplementedError

    async def fork(self, definition: str, checkpoint: str) -> AgentId:
        raise NotImplementedError

    @asynccontextmanager
    async def console(self, agent: AgentId) -> AsyncIterator[StandInConsole]:
        yield StandInConsole()

    async def _begin(self, call: str) -> Call:
        if not self.is_open:
            raise HostUnreachable("The host is out of reach", "it is not connected")
        return await self.world.begin(call)

    def _active(self, agent: AgentId) -> None:
        if self.world.state(agent)["power"] == "off":
            raise Refused("The VM is not running")


class StandInConsole:
    async def read(self) -> AsyncIterator[bytes]:
        yield b"login: "

    async def write(self, data: bytes) -> None:
        raise NotImplementedError


def _read_saved(target: Path) -> dict[str, Any]:
    try:
        raw: dict[str, Any] = json.loads(target.read_text())
    except (OSError, ValueError) as error:
        raise SnapshotError("The saved memory is not whole", str(error)) from error
    return raw


class StandInSpawner:
    """Implements `ports.Spawner` on a `World`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._begun = 0

    def needs(self, profile: Profile) -> Needs:
        return Needs(self._world.vm_memory, 0)

    async def spawn(self, order: Order, on_progress: Progress, on_named: OnNamed) -> Spawned:
        self._begun = max(self._begun, len(self._world.agents())) + 1
        count = self._begun
        where = 0x8000 if self._world.host == HOST else crc32(self._world.host.encode()) & 0xFFF
        agent = AgentId(f"6f1c7b0e-0000-4000-{where:04x}-{count:012}")
        name = order.name or f"agent-{count}"
        await on_named(agent, sanitize(name))
        plan = await self._world.begin("spawn")
        vm = self._world.add(agent, name, tag=Tag(created=time.time()))
        await self._world.end("spawn", plan)
        return Spawned(vm.id, vm.name, 0.5)

    unforking = ""

    async def fork(
        self, parent: Parent, name: str, task: str, on_progress: Progress, on_named: OnNamed
    ) -> Spawned:
        assert parent.memory.exists()
        agent = AgentId(str(uuid4()))  # one that came to nothing is being mended under its own
        await on_named(agent, sanitize(name))
        plan = await self._world.begin("spawn")
        vm = self._world.add(agent, name, tag=Tag(created=time.time()))
        await self._world.end("spawn", plan)
        return Spawned(vm.id, vm.name, 0.5)

    async def discard(self, vm: Vm) -> None:
        plan = await self._world.begin("discard")
        for disk in vm.disks or ():
            disk.unlink(missing_ok=True)
        await self._world.end("discard", plan)
