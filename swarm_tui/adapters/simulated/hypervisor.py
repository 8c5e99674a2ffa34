"""The simulated swarm's side of `ports.Hypervisor`."""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from swarm_tui.adapters.simulated.life import Life
from swarm_tui.adapters.simulated.world import (
    Machine,
    Site,
    World,
    gone,
    unreachable,
)
from swarm_tui.durable import storage
from swarm_tui.errors import (
    HostError,
    HostUnreachable,
    Refused,
    SnapshotError,
    StorageFull,
    SwarmError,
)
from swarm_tui.model import AgentId, Capabilities, Counters, Hint, HostName, Power, Vm
from swarm_tui.ports import HostFacts, Progress
from swarm_tui.text import literal

VERSION: Final = "1"
_COUNTERS: Final = tuple(name for name in Counters.__slots__ if name != "monotonic")
_FORMAT: Final = "swarm-tui simulated memory 1"
_CPUS: Final = 32
_SLICE: Final = 500
"""Readings made before the loop gets a turn, so that ten thousand agents delay no key."""
_LEAST_MEMORY: Final = 64 << 30


class SimulatedHypervisor:
    """One connection to one simulated host."""

    def __init__(self, world: World, site: Site) -> None:
        self._world = world
        self._site = site
        self._on_hint: Callable[[Hint], None] | None = None

    @property
    def host(self) -> HostName:
        return self._site.name

    @property
    def uri(self) -> str:
        return self._site.uri

    async def open(self, on_hint: Callable[[Hint], None]) -> Capabilities:
        await self.close()
        await self._world.gate("open", self._site)
        self._on_hint = on_hint
        self._site.listeners.append(on_hint)
        return Capabilities(
            driver="simulated",
            version=VERSION,
            sources=dict.fromkeys(_COUNTERS, "simulated: no machine runs here"),
        )

    async def close(self) -> None:
        if self._on_hint in self._site.listeners:
            self._site.listeners.remove(self._on_hint)
        self._on_hint = None

    async def list(self) -> Sequence[Vm]:
        await self._begin("list")
        return [machine.vm for machine in self._site.machines.values()]

    async def describe(self, agent: AgentId) -> Vm:
        machine = await self._find("describe", agent)
        self._world.live(machine)
        return machine.vm

    async def definition(self, agent: AgentId) -> str:
        return self._world.definition(await self._find("definition", agent))

    async def counters(self) -> Mapping[AgentId, Counters]:
        await self._begin("counters")
        readings: dict[AgentId, Counters] = {}
        machines = list(self._site.machines.items())
        for start in range(0, len(machines), _SLICE):
            now = self._world.clock.monotonic()
            for agent, machine in machines[start : start + _SLICE]:
                vm = machine.vm
                if vm.power is Power.RUNNING or vm.power is Power.PAUSED:
                    readings[agent] = machine.life.counters(now, vm.memory_bytes)
                    if machine.life.has_crashed:
                        self._world.live(machine)
            await asyncio.sleep(0)
        self._site.held = sum(reading.memory_host or 0 for reading in readings.values())
        return readings

    async def facts(self) -> HostFacts:
        await self._begin("facts")
        machines = self._site.machines.values()
        total = max(_LEAST_MEMORY, 2 * sum(machine.vm.memory_bytes or 0 for machine in machines))
        return HostFacts(cpus=_CPUS, memory_total=total, memory_free=total - self._site.held)

    async def define(self, definition: str) -> AgentId:
        await self._begin("define")
        return self._world.define(self._site, definition).vm.id

    async def undefine(self, agent: AgentId) -> None:
        await self._begin("undefine")
        machine = self._site.machines.get(agent)
        if machine and machine.is_active:
            raise Refused("Cannot forget the VM", "it is running; stop it first")
        if machine:
            self._world.undefine(machine)

    async def start(self, agent: AgentId) -> None:
        machine = await self._find("start", agent)
        if machine.is_active:
            raise Refused("Cannot start the VM", "it is running already")
        self._world.renew(machine)
        self._world.turn(machine, Power.RUNNING, "booted", "started")

    async def suspend(self, agent: AgentId) -> None:
        machine = await self._find("suspend", agent)
        if not machine.is_active:
            raise Refused("Cannot suspend the VM", "it is not running")
        if machine.vm.power is Power.RUNNING:
            self._world.turn(machine, Power.PAUSED, "by a user", "suspended")

    async def resume(self, agent: AgentId) -> None:
        machine = await self._find("resume", agent)
        if not machine.is_active:
            raise Refused("Cannot resume the VM", "it is not running")
        if machine.vm.power is Power.PAUSED:
            self._world.turn(machine, Power.RUNNING, "resumed", "resumed")

    async def destroy(self, agent: AgentId) -> None:
        machine = await self._find("destroy", agent)
        if machine.is_active:
            self._world.turn(machine, Power.OFF, "destroyed", "stopped")

    async def save(self, agent: AgentId, target: Path, on_progress: Progress) -> None:
        machine = await self._find("describe", agent)
        if not machine.is_active:
            raise Refused("Cannot save the VM", "it is not running")
        if _exists(target):
            raise Refused("Cannot save the VM", f"{target} exists already")
        before = machine.vm
        self._world.turn(machine, Power.PAUSED, "saving", "suspended")
        try:
            await self._world.sleep(
                "save", lambda share: on_progress(literal("saving memory"), share)
            )
            self._check(machine)
            content = self._dump(machine)
            try:
                self._world.fail("save")
            except SwarmError:
                _write(target, content[: len(content) // 2])
                raise
            _write(target, content)
        except BaseException:
            if before.power is Power.RUNNING and machine.vm.power is Power.PAUSED:
                self._world.turn(machine, Power.RUNNING, before.reason, "resumed")
            raise
        on_progress(literal("saving memory"), 1.0)
        self._world.turn(machine, Power.OFF, "saved", "stopped")

    async def check_saved(self, target: Path) -> None:
        await self._begin("check_saved")
        read_saved(target)

    async def restore(self, agent: AgentId, target: Path) -> None:
        machine = await self._find("restore", agent)
        saved = read_saved(target)
        if saved["agent"] != agent:
            raise SnapshotError(
                "The saved memory is of another agent", f"{target} is of {saved['agent']}."
            )
        if machine.is_active:
            raise Refused("Cannot restore the VM", "it is running")
        self._load(machine, saved)
        self._world.turn(machine, Power.RUNNING, "restored", "started", "resumed")

    async def dump(self, agent: AgentId, target: Path) -> None:
        machine = await self._find("dump", agent)
        if machine.vm.power is not Power.PAUSED:
            raise Refused("Cannot save the VM and keep it", "suspend it first")
        if _exists(target):
            raise Refused("Cannot save the VM", f"{target} exists already")
        _write(target, self._dump(machine))

    async def checkpoint(self, agent: AgentId) -> str:
        machine = await self._find("checkpoint", agent)
        if machine.vm.power is not Power.PAUSED:
            raise Refused("Cannot checkpoint the VM", "suspend it first")
        return self._dump(machine)

    async def fork(self, definition: str, checkpoint: str) -> AgentId:
        await self._begin("fork")
        try:
            saved = _parse(checkpoint, "The checkpoint")
        except SnapshotError as error:
            raise HostError("Cannot fork the VM", error.detail) from error
        machine = self._world.define(self._site, definition)
        if machine.is_active:
            raise Refused("Cannot fork the VM", "the new one is running already")
        self._load(machine, saved)
        self._world.turn(machine, Power.RUNNING, "from snapshot", "started", "resumed")
        return machine.vm.id

    @asynccontextmanager
    async def console(self, agent: AgentId) -> AsyncIterator[SimulatedConsole]:
        machine = await self._find("console", agent)
        if not machine.is_active:
            raise Refused("Cannot open the console", "the VM is not running")
        console = SimulatedConsole(self._world, machine)
        try:
            yield console
        finally:
            console.close()

    async def _begin(self, call: str) -> None:
        if self._on_hint is None:
            raise HostUnreachable(f"Host {self.host} is out of reach", "it is not connected")
        await self._world.gate(call, self._site)

    async def _find(self, call: str, agent: AgentId) -> Machine:
        await self._begin(call)
        machine = self._site.machines.get(agent)
        if machine is None:
            raise gone()
        return machine

    def _check(self, machine: Machine) -> None:
        """After a wait: the world may be another one."""
        if self._site.is_lost:
            raise unreachable(self._site)
        if not machine.is_active:
            raise Refused("The VM stopped meanwhile", machine.vm.reason)

    def _dump(self, machine: Machine) -> str:
        return json.dumps(
            {
                "format": _FORMAT,
                "agent": machine.vm.id,
                "is_frozen": machine.is_frozen,
                "life": machine.life.to_json(self._world.clock.monotonic()),
            }
        )

    def _load(self, machine: Machine, saved: dict[str, Any]) -> None:
        machine.life = Life.from_json(saved["life"])
        machine.is_frozen = saved["is_frozen"] is True
        machine.boots_until = 0.0


class SimulatedConsole:
    """The serial console of a simulated VM: a boot log, and a prompt that admits what it is."""

    def __init__(self, world: World, machine: Machine) -> None:
        self._world = world
        self._machine = machine
        self._token = machine.console = object()
        self._output: asyncio.Queue[bytes] = asyncio.Queue()
        self._output.put_nowait(_boot_log(machine.vm))
        world.poke(machine)

    async def read(self) -> AsyncIterator[bytes]:
        while True:
            if not self._output.empty():
                yield self._output.get_nowait()
            elif self._machine.console is self._token:
                await self._world.change(self._machine)
            else:
                return

    async def write(self, data: bytes) -> None:
        if self._machine.console is not self._token:
            raise HostError("The console is closed", "the VM stopped, or another took the console")
        echoed = data.replace(b"\r", b"\r\n")
        if b"\r" in data or b"\n" in data:
            echoed += b"simulated: nobody logs in here\r\n" + _prompt(self._machine.vm)
        self._output.put_nowait(echoed)
        self._world.poke(self._machine)

    def close(self) -> None:
        if self._machine.console is self._token:
            self._machine.console = object()
        self._world.poke(self._machine)


def _exists(target: Path) -> bool:
    return target.is_symlink() or target.exists()


def _write(target: Path, content: str) -> None:
    try:
        with open(target, "x") as file:
            file.write(content)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull("No room to save the VM", str(error)) from error
        raise HostError("Cannot save the VM", str(error)) from error


def read_saved(target: Path) -> dict[str, Any]:
    """What `save` or `dump` wrote: the agent's id, its life, whether it was frozen. Blocks.

    Raises SnapshotError.
    """
    with storage("read the simulated memory"):
        content = target.read_text(errors="replace")
    return _parse(content, str(target))


def _parse(content: str, source: str) -> dict[str, Any]:
    try:
        saved = json.loads(content)
        is_ours = saved["format"] == _FORMAT and isinstance(saved["agent"], str)
        Life.from_json(saved["life"])
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(source) from error
    if not is_ours:
        raise _damaged(source)
    return {"is_frozen": saved.get("is_frozen"), "agent": saved["agent"], "life": saved["life"]}


def _damaged(source: str) -> SnapshotError:
    return SnapshotError("The saved memory is not whole", f"{source} is no simulated VM's memory.")


def _boot_log(vm: Vm) -> bytes:
    lines = (
        "[    0.000000] simulated: no kernel runs here, this log is made up",
        f"[    0.000000] Memory: {(vm.memory_bytes or 0) >> 10}K, {vm.vcpus} CPU(s)",
        "[    0.412031] virtio_blk virtio1: [vda] 4194304 512-byte logical blocks",
        "[    0.733010] EXT4-fs (vda): mounted filesystem",
        "[    1.201774] swarm: agent started",
        "",
    )
    return "\r\n".join(lines).encode() + _prompt(vm)


def _prompt(vm: Vm) -> bytes:
    return f"{vm.name} login: ".encode()
