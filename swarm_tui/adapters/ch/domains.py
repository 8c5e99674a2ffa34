"""The calls on libvirt's Cloud Hypervisor driver, which block and raise libvirtError."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import libvirt

from swarm_tui.adapters.ch.sight import Busy, Told
from swarm_tui.adapters.connection import Connection
from swarm_tui.adapters.console import StreamConsole
from swarm_tui.adapters.domain import check_active, present_power
from swarm_tui.adapters.fault import Code
from swarm_tui.errors import Refused
from swarm_tui.model import AgentId, Power
from swarm_tui.ports import HostFacts
from swarm_tui.text import literal

_AS_DEFINED: Final = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE

BROKEN: Final = literal(
    "Some libvirt versions cannot restore at all; scripts/build-libvirt-ch makes one that can, and"
    " `swarm-tui doctor` tells which one this is."
)
_INSIDE: Final = "libvirt's Cloud Hypervisor driver has no snapshots inside a disk"
LACKS: Final[Mapping[str, str]] = {
    "dump": "libvirt's Cloud Hypervisor driver saves a VM only by ending it",
    "checkpoint": _INSIDE,
    "fork": _INSIDE,
}


class Domains:
    """Those of one connection."""

    def __init__(self, connection: Connection, busy: Busy) -> None:
        """`busy` is shared by all that is done to the same VMs."""
        self._connection = connection
        self._busy = busy
        self._taps: dict[AgentId, tuple[int, tuple[str, ...]]] = {}

    def _domain(self, agent: AgentId) -> Any:
        return self._connection.handle.lookupByUUIDString(agent)

    def _find(self, agent: AgentId) -> Any | None:
        try:
            return self._domain(agent)
        except libvirt.libvirtError as error:
            if error.get_error_code() != Code.NO_DOMAIN:
                raise
            return None

    def uuids(self) -> Sequence[str]:
        return [domain.UUIDString() for domain in self._connection.handle.listAllDomains()]

    def tell(self, agent: AgentId) -> Told | None:
        domain = self._find(agent)
        if domain is None:
            return None
        state, reason = domain.state()
        pid = domain.ID()
        if pid <= 0:
            return Told(state, reason, -1)
        return Told(state, reason, pid, self._cpu_ns(domain), self._taps_of(agent, pid, domain))

    def _cpu_ns(self, domain: Any) -> int | None:
        try:
            vcpus, _ = domain.vcpus()
        except libvirt.libvirtError:  # it stopped meanwhile, or its VMM names no vCPU threads
            return None
        return sum(int(cpu_ns) for _, _, cpu_ns, _ in vcpus)

    def _taps_of(self, agent: AgentId, pid: int, domain: Any) -> tuple[str, ...]:
        """They stay the same for as long as the VMM lives."""
        known, taps = self._taps.get(agent, (0, ()))
        if known != pid:
            taps = _taps(domain.XMLDesc(0))
            self._taps[agent] = pid, taps
        return taps

    def is_active(self, agent: AgentId) -> bool:
        domain = self._find(agent)
        return domain is not None and bool(domain.isActive())

    def definition(self, agent: AgentId) -> str:
        return str(self._domain(agent).XMLDesc(_AS_DEFINED))

    def facts(self) -> HostFacts:
        _, memory_mib, cpus, *_ = self._connection.handle.getInfo()
        told = self._connection.handle.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS)
        free = sum(told.get(part, 0) for part in ("free", "buffers", "cached"))
        total = told.get("total", memory_mib << 10)
        return HostFacts(cpus=cpus, memory_total=total << 10, memory_free=free << 10)

    def define(self, definition: str) -> str:
        """Returns the definition as libvirt completed it."""
        return str(self._connection.handle.defineXML(definition).XMLDesc(_AS_DEFINED))

    def ensure(self, agent: AgentId, definition: str) -> None:
        if self._find(agent) is None:
            self._connection.handle.defineXML(definition)

    def undefine(self, agent: AgentId) -> None:
        domain = self._find(agent)
        if domain is None:
            return
        if domain.isActive():
            raise Refused("Cannot forget the VM", "it is running; stop it first")
        domain.undefine()

    def start(self, agent: AgentId) -> None:
        with self._busy.at(agent):
            self._domain(agent).create()

    def suspend(self, agent: AgentId) -> None:
        with self._busy.at(agent):
            domain = self._domain(agent)
            if present_power(domain) is not Power.PAUSED:
                check_active(domain)
                domain.suspend()

    def resume(self, agent: AgentId) -> None:
        with self._busy.at(agent):
            domain = self._domain(agent)
            if present_power(domain) is not Power.RUNNING:
                check_active(domain)
                domain.resume()

    def destroy(self, agent: AgentId) -> None:
        with self._busy.at(agent):
            domain = self._find(agent)
            if domain is not None and domain.isActive():
                try:
                    domain.destroy()
                except libvirt.libvirtError:
                    if domain.isActive():  # else it stopped by itself meanwhile
                        raise

    def save(self, agent: AgentId, target: Path) -> None:
        with self._busy.at(agent):
            self._domain(agent).save(str(target))

    def restore(self, agent: AgentId, target: Path) -> None:
        with self._busy.at(agent):
            self._connection.handle.restore(str(target))

    def new_console(self) -> StreamConsole:
        """Does not block."""
        return StreamConsole(libvirt.libvirtError)

    def open_console(self, agent: AgentId) -> Any:
        stream = self._connection.handle.newStream(libvirt.VIR_STREAM_NONBLOCK)
        self._domain(agent).openConsole(None, stream, libvirt.VIR_DOMAIN_CONSOLE_FORCE)
        return stream


def _taps(xml: str) -> tuple[str, ...]:
    targets = ET.fromstring(xml).iterfind("devices/interface/target")
    return tuple(name for target in targets if (name := target.get("dev")))
