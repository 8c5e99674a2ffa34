"""libvirt behind `ports.Hypervisor`.

Of libvirt's handles only the connection outlives a call. Agents are looked up by UUID each time,
because handles die with their connection and UUIDs do not.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Final, Protocol

import libvirt

from swarm_tui.adapters import memory
from swarm_tui.adapters.calls import Tries
from swarm_tui.adapters.connection import Connection, Deadlines, without_prompts
from swarm_tui.adapters.console import StreamConsole
from swarm_tui.adapters.definitions import PATIENCE_MS, Definitions
from swarm_tui.adapters.domain import (
    Definition,
    check_active,
    counters_of,
    parse_definition,
    present_power,
)
from swarm_tui.adapters.fault import Code, is_unsupported
from swarm_tui.errors import (
    AgentGone,
    Busy,
    DeadlineExceeded,
    HostUnreachable,
    Refused,
    SnapshotError,
    SwarmError,
)
from swarm_tui.model import AgentId, Capabilities, Counters, Hint, HostName, Power, Vm
from swarm_tui.ports import Console, HostFacts, Progress
from swarm_tui.text import literal

PROGRESS_S: Final = 0.2
CALLS_AT_MOST: Final = 250
"""VMs asked one by one in a reading of the counters, in turn, where no call tells of all."""
_Told = tuple[Any, dict[str, object]]


class Way(Protocol):
    """Our own connection to a host far away; `road.Road` is one.

    Its calls raise HostError, DeadlineExceeded and SetupError.
    """

    async def hold(self, holder: object, *, is_doubted: bool = False) -> None: ...

    async def let_go(self, holder: object) -> None: ...

    async def libvirt_uri(self) -> str:
        """The host's libvirt as a URI of this machine, until the connection breaks."""
        ...

    async def exists(self, path: Path) -> bool:
        """Whether the host has something at that path."""
        ...

    def lead(self, vm: Vm) -> Vm:
        """The VM with its guest's address as it is reached from here."""
        ...


class LibvirtHypervisor:
    """One libvirt host, as `ports.Hypervisor` says."""

    def __init__(
        self,
        host: HostName,
        uri: str,
        *,
        deadlines: Deadlines | None = None,
        way: Way | None = None,
    ) -> None:
        """`way` leads to a host far away; without it libvirt itself finds `uri`.

        Raises ConfigError when `uri` is an alias or switches off the check of the host.
        """
        without_prompts(uri)
        self._host = host
        self._uri = uri
        self._way = way
        self._deadlines = deadlines or Deadlines()
        self._tries = Tries(host)
        self._connection: Connection | None = None
        self._domains: _Domains | None = None

    @property
    def host(self) -> HostName:
        return self._host

    @property
    def uri(self) -> str:
        return self._uri

    async def open(self, on_hint: Callable[[Hint], None]) -> Capabilities:
        await self.close()
        uri = self._uri
        if self._way:
            await self._way.hold(self, is_doubted=True)
            uri = await self._way.libvirt_uri()
        self._connection = Connection(self._host, uri, self._deadlines, self._tries, on_hint)
        self._domains = _Domains(self._host, self._connection)
        return await self._connection.open()

    async def close(self) -> None:
        connection, self._connection, self._domains = self._connection, None, None
        if connection:
            await connection.close()
        if self._way:
            await self._way.let_go(self)

    async def list(self) -> Sequence[Vm]:
        connection, domains = self._opened()
        states = await connection.read("list the VMs", domains.states)
        definitions = await self._learn([domain for domain, *_ in states])
        vms = []
        for place, (domain, state, reason) in enumerate(states):
            if (definition := definitions[domain.UUIDString()]) and definition.tag:
                vms.append(self._lead(definition.to_vm(self._host, state, reason)))
            if place % CALLS_AT_MOST == 0:
                await asyncio.sleep(0)  # a key may have been pressed
        return vms

    async def _learn(self, asked: Iterable[Any]) -> Mapping[str, Definition | None]:
        """The definitions of these domains, by UUID; None for what is none of ours.

        One that does not come in time holds up no other; then it has what can be told without it.
        """
        connection, domains = self._opened()
        definitions = domains.definitions
        found, unread = definitions.recall(asked)
        queue = deque(unread)
        while left := len(queue):
            try:
                work = partial(definitions.read_some, queue, found)
                await connection.study("read definitions", work)
            except DeadlineExceeded:
                if len(queue) == left:
                    break  # so many hang that there is no way left to ask
        queue = deque(domain for domain in unread if domain.UUIDString() not in found)
        while queue:
            work = partial(definitions.glimpse_some, queue, found)
            await connection.read("tell what the VMs are", work)
        return found

    async def describe(self, agent: AgentId) -> Vm:
        connection, domains = self._opened()
        doing = "describe the VM"
        try:
            vm = await connection.study(doing, partial(domains.describe, agent))
        except (Busy, DeadlineExceeded):
            vm = await connection.read(doing, partial(domains.describe_roughly, agent))
        return self._lead(vm)

    def _lead(self, vm: Vm) -> Vm:
        return self._way.lead(vm) if self._way else vm

    async def definition(self, agent: AgentId) -> str:
        connection, domains = self._opened()
        return await connection.study("read its definition", partial(domains.definition, agent))

    async def counters(self) -> Mapping[AgentId, Counters]:
        connection, domains = self._opened()
        told = await connection.read("read the counters", domains.statistics)
        kept = domains.definitions.kept
        learned = await self._learn([domain for domain, uuid, _ in told if uuid not in kept])
        return {
            definition.id: counters
            for _, uuid, counters in told
            if (definition := kept.get(uuid) or learned.get(uuid)) and definition.tag
        }

    async def facts(self) -> HostFacts:
        connection, domains = self._opened()
        return await connection.read("tell its size", domains.facts)

    async def define(self, definition: str) -> AgentId:
        connection, domains = self._opened()
        # A daemon that meets an emulator for the first time runs it to learn what it can do.
        return await connection.move("define the VM", partial(domains.define, definition))

    async def undefine(self, agent: AgentId) -> None:
        connection, domains = self._opened()
        await connection.act("forget the VM", partial(domains.undefine, agent))

    async def start(self, agent: AgentId) -> None:
        connection, domains = self._opened()
        await connection.act("start the VM", partial(domains.start, agent))

    async def suspend(self, agent: AgentId) -> None:
        connection, domains = self._opened()
        await connection.act("suspend the VM", partial(domains.suspend, agent))

    async def resume(self, agent: AgentId) -> None:
        connection, domains = self._opened()
        await connection.act("resume the VM", partial(domains.resume, agent))

    async def destroy(self, agent: AgentId) -> None:
        connection, domains = self._opened()
        await connection.destroy("destroy the VM", partial(domains.destroy, agent))

    async def save(self, agent: AgentId, target: Path, on_progress: Progress) -> None:
        connection, domains = self._opened()
        if await self._exists(target):
            raise Refused("Cannot save the VM", f"{target} exists already")
        on_progress(literal("saving memory"), None)
        watching = asyncio.ensure_future(self._watch_save(agent, on_progress))
        try:
            await connection.move("save the VM", partial(domains.save, agent, target))
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _exists(self, path: Path) -> bool:
        if self._way:
            return await self._way.exists(path)
        return await asyncio.to_thread(os.path.lexists, path)

    async def _watch_save(self, agent: AgentId, on_progress: Progress) -> None:
        connection, domains = self._opened()
        with suppress(SwarmError):  # the save has ended, or its progress cannot be known
            while True:
                await asyncio.sleep(PROGRESS_S)
                fraction = await connection.read("tell its job", partial(domains.progress, agent))
                if fraction is not None:
                    on_progress(literal("saving memory"), fraction)

    async def check_saved(self, target: Path) -> None:
        connection, domains = self._opened()
        await connection.read("read the saved memory", partial(domains.check_saved, target))

    async def restore(self, agent: AgentId, target: Path) -> None:
        connection, domains = self._opened()
        await connection.move("restore the VM", partial(domains.restore, agent, target))

    async def dump(self, agent: AgentId, target: Path) -> None:
        connection, domains = self._opened()
        if await self._exists(target):
            raise Refused("Cannot save the VM", f"{target} exists already")
        await connection.move("save the VM", partial(domains.dump, agent, target))

    async def checkpoint(self, agent: AgentId) -> str:
        connection, domains = self._opened()
        return await connection.move("checkpoint the VM", partial(domains.checkpoint, agent))

    async def fork(self, definition: str, checkpoint: str) -> AgentId:
        connection, domains = self._opened()
        return await connection.move("fork the VM", partial(domains.fork, definition, checkpoint))

    @asynccontextmanager
    async def console(self, agent: AgentId) -> AsyncIterator[Console]:
        connection, domains = self._opened()
        console = StreamConsole(libvirt.libvirtError)
        try:
            await connection.act(
                "open its console", lambda: console.listen(domains.open_console(agent))
            )
            yield console
        finally:
            console.end()
            with suppress(SwarmError):  # the connection is gone, and the stream with it
                await connection.act("close its console", console.abort)

    def _opened(self) -> tuple[Connection, _Domains]:
        if self._connection is None or self._domains is None:
            raise HostUnreachable(f"Host {self._host} is out of reach", "it is not connected")
        return self._connection, self._domains


class _Domains:
    """The calls themselves, which block and raise libvirtError."""

    def __init__(self, host: HostName, connection: Connection) -> None:
        self._host = host
        self._connection = connection
        self.definitions = Definitions(libvirt.libvirtError)
        self._turn = 0  # of those that are asked one by one
        connection.changed = self.definitions.forget

    def _domain(self, agent: AgentId) -> Any:
        return self._connection.handle.lookupByUUIDString(agent)

    def states(self) -> Sequence[tuple[Any, int, int]]:
        """Every domain with its state and reason, in one round trip where the driver can."""
        ask = self._connection.handle.getAllDomainStats
        try:
            records = ask(libvirt.VIR_DOMAIN_STATS_STATE, self._connection.nowait)
        except libvirt.libvirtError as error:
            if not is_unsupported(error.get_error_code()):
                raise
            return [
                (domain, *domain.state()) for domain in self._connection.handle.listAllDomains()
            ]
        return [(domain, told["state.state"], told["state.reason"]) for domain, told in records]

    def describe(self, agent: AgentId) -> Vm:
        """Read anew, whatever is kept. Raises Busy."""
        domain = self._domain(agent)
        return self._to_vm(domain, self.definitions.read(domain))

    def describe_roughly(self, agent: AgentId) -> Vm:
        """As it was read last, or else what can be told without its definition."""
        domain = self._domain(agent)
        known, unread = self.definitions.recall([domain])
        definition = self.definitions.glimpse(domain) if unread else known[domain.UUIDString()]
        return self._to_vm(domain, definition)

    def _to_vm(self, domain: Any, definition: Definition | None) -> Vm:
        if definition is None or definition.tag is None:
            raise AgentGone("The VM is not there any more", "no agent of ours has this id")
        return definition.to_vm(self._host, *domain.state())

    def definition(self, agent: AgentId) -> str:
        """Raises Busy."""
        flags = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
        return self.definitions.read_xml(self._domain(agent), flags, patience_ms=PATIENCE_MS)

    def statistics(self) -> Sequence[tuple[Any, str, Counters]]:
        """Active domains with their UUIDs and what is told of them; see `CALLS_AT_MOST`."""
        whole: list[_Told] = []
        alone: list[_Told] = []
        for domain, told in self._statistics_of_active():
            (whole if "cpu.time" in told else alone).append((domain, told))
        alone = alone[self._turn :] + alone[: self._turn]
        self._turn = (self._turn + CALLS_AT_MOST) % max(1, len(alone))
        asked = ((domain, _info(domain) | told) for domain, told in alone[:CALLS_AT_MOST])
        return [
            (domain, domain.UUIDString(), counters_of(told, time.monotonic()))
            for domain, told in chain(whole, asked)
        ]

    def _statistics_of_active(self) -> Iterable[_Told]:
        handle, groups = self._connection.handle, self._connection.statistics
        if not groups:
            active = libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE
            return [(domain, {}) for domain in handle.listAllDomains(active)]
        active = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
        told: Iterable[_Told] = handle.getAllDomainStats(groups, active | self._connection.nowait)
        return told

    def facts(self) -> HostFacts:
        _, memory_mib, cpus, *_ = self._connection.handle.getInfo()
        try:
            # virNodeGetInfo knows only the memory that was there at boot.
            told = self._connection.handle.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS)
        except libvirt.libvirtError as error:
            if not is_unsupported(error.get_error_code()):
                raise
            missing = {"memory_free": "the driver does not tell it (virNodeGetMemoryStats)"}
            return HostFacts(cpus=cpus, memory_total=memory_mib << 20, missing=missing)
        free = sum(told.get(part, 0) for part in ("free", "buffers", "cached"))
        return HostFacts(cpus=cpus, memory_total=told["total"] << 10, memory_free=free << 10)

    def define(self, definition: str) -> AgentId:
        uuid = self._connection.handle.defineXML(definition).UUIDString()
        self.definitions.forget(uuid)
        return AgentId(uuid)

    def undefine(self, agent: AgentId) -> None:
        with _gone_is_fine():
            domain = self._domain(agent)
            if domain.isActive():
                raise Refused("Cannot forget the VM", "it is running; stop it first")
            _undefine(domain)
        self.definitions.forget(agent)

    def start(self, agent: AgentId) -> None:
        domain = self._domain(agent)
        if domain.isActive():
            raise Refused("Cannot start the VM", "it is running already")
        domain.create()

    def suspend(self, agent: AgentId) -> None:
        domain = self._domain(agent)
        if present_power(domain) is not Power.PAUSED:
            check_active(domain)
            domain.suspend()

    def resume(self, agent: AgentId) -> None:
        domain = self._domain(agent)
        if present_power(domain) is not Power.RUNNING:
            check_active(domain)
            domain.resume()

    def destroy(self, agent: AgentId) -> None:
        domain = self._domain(agent)
        with _gone_is_fine():
            try:
                if domain.isActive():
                    domain.destroy()
            except libvirt.libvirtError:
                # It may have stopped by itself meanwhile; libvirt says so when its process is
                # reaped late, although the destroy did it.
                if domain.isActive():
                    raise

    def save(self, agent: AgentId, target: Path) -> None:
        self._domain(agent).save(str(target))

    def progress(self, agent: AgentId) -> float | None:
        told = self._domain(agent).jobStats()
        total, processed = told.get("data_total"), told.get("data_processed")
        return min(1.0, processed / total) if total and processed is not None else None

    def check_saved(self, target: Path) -> None:
        self._saved(target)

    def restore(self, agent: AgentId, target: Path) -> None:
        saved = self._saved(target)
        if saved and saved.id != agent:  # restoring it in the other's place would lose both
            raise SnapshotError("The saved memory is of another VM", f"it is of {saved.name}")
        if flag := self._connection.restore_running:
            self._connection.handle.restoreFlags(str(target), None, flag)
        else:
            self._connection.handle.restore(str(target))

    def _saved(self, target: Path) -> Definition | None:
        """What a save was made of; None where the driver cannot tell.

        QEMU's driver marks a save as whole when its last byte is written, and refuses others.
        """
        try:
            return parse_definition(self._connection.handle.saveImageGetXMLDesc(str(target)))
        except libvirt.libvirtError as error:
            if is_unsupported(error.get_error_code()):
                return None
            if not self._connection.is_alive():
                raise
            why = error.get_error_message()
            raise SnapshotError("The saved memory cannot be read", why) from error

    def dump(self, agent: AgentId, target: Path) -> None:
        memory.dump(self._domain(agent), target)

    def checkpoint(self, agent: AgentId) -> str:
        return memory.checkpoint(self._domain(agent))

    def fork(self, definition: str, checkpoint: str) -> AgentId:
        domain = self._connection.handle.defineXML(definition)
        try:
            memory.revert(domain, checkpoint)
        except libvirt.libvirtError:
            with suppress(libvirt.libvirtError):
                if domain.isActive():
                    domain.destroy()
                _undefine(domain)
            raise
        return AgentId(domain.UUIDString())

    def open_console(self, agent: AgentId) -> Any:
        stream = self._connection.handle.newStream(libvirt.VIR_STREAM_NONBLOCK)
        self._domain(agent).openConsole(None, stream, libvirt.VIR_DOMAIN_CONSOLE_FORCE)
        return stream


@contextmanager
def _gone_is_fine() -> Iterator[None]:
    try:
        yield
    except libvirt.libvirtError as error:
        if error.get_error_code() != Code.NO_DOMAIN:
            raise


def _info(domain: Any) -> dict[str, object]:
    """The few statistics that every driver has, under the names of the many."""
    _, _, memory_kib, _, cpu_ns = domain.info()
    return {"cpu.time": cpu_ns, "balloon.current": memory_kib}


def _undefine(domain: Any) -> None:
    try:
        domain.undefineFlags(
            libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
            | libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
        )
    except libvirt.libvirtError as error:
        if not is_unsupported(error.get_error_code()):
            raise
        domain.undefine()
