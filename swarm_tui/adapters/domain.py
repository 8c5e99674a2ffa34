"""What libvirt says of a domain, read into our records: definition, power state, statistics.

The numbers of states and reasons are part of libvirt's stable interface
(virDomainState and its reasons in libvirt-domain.h), so libvirt itself is not imported here.
"""

from __future__ import annotations

import uuid
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from swarm_tui.errors import HostError, Refused
from swarm_tui.model import AgentId, Counters, HostName, Power, Tag, Vm
from swarm_tui.tag import parse_agent, parse_tag
from swarm_tui.text import EMPTY, Safe, literal, sanitize

XML_CAP: Final = 1 << 20
"""Longest definition that is read, in characters; ours have about six thousand."""

_MEMORY_UNITS: Final = {"b": 1, "bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


@dataclass(frozen=True, slots=True)
class Definition:
    """The parts of a domain's XML that we use."""

    id: AgentId
    name: Safe
    tag: Tag | None
    """None: not an agent of ours."""
    memory_bytes: int | None
    vcpus: int | None
    disks: tuple[Path, ...] | None
    """None: not known, because the whole definition could not be read in time."""

    def to_vm(self, host: HostName, state: int, reason: int) -> Vm:
        power, why = power_of(state, reason)
        return Vm(
            id=self.id,
            name=self.name,
            host=host,
            power=power,
            reason=why,
            memory_bytes=self.memory_bytes,
            vcpus=self.vcpus,
            disks=self.disks,
            tag=self.tag or Tag(),
        )


def parse_definition(xml: str) -> Definition:
    """Read a domain's XML, which anybody with access to the host may have written.

    Raises HostError when it is too long, declares entities or is no domain.
    """
    root = _parse(xml)
    if root.tag != "domain":
        raise HostError("A VM's definition cannot be read", "it is no <domain>")
    try:
        agent = AgentId(str(uuid.UUID(root.findtext("uuid", ""))))
    except ValueError as error:
        raise HostError("A VM's definition cannot be read", "it holds no valid UUID") from error
    return Definition(
        id=agent,
        name=sanitize(root.findtext("name", "")),
        tag=parse_tag(root),
        memory_bytes=_parse_memory(root.find("memory")),
        vcpus=_parse_count(root.findtext("vcpu")),
        disks=tuple(_writable_files(root)),
    )


def parse_metadata(xml: str) -> Tag:
    """Read our element of a domain's metadata, as libvirt gives it alone. Raises HostError."""
    return parse_agent(_parse(xml))


def _parse(xml: str) -> ET.Element:
    # Entities that multiply need a DOCTYPE, which no definition of libvirt's has.
    if len(xml) > XML_CAP or "<!DOCTYPE" in xml:
        raise HostError("A VM's definition cannot be read", "it is too long or declares entities")
    try:
        return ET.fromstring(xml)
    except ET.ParseError as error:
        raise HostError("A VM's definition cannot be read", str(error)) from error


def _parse_memory(element: ET.Element | None) -> int | None:
    if element is None:
        return None
    count = _parse_count(element.text)
    unit = _MEMORY_UNITS.get(element.get("unit", "KiB"))
    return count * unit if count is not None and unit is not None else None


def _parse_count(text: str | None) -> int | None:
    digits = (text or "").strip()
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 20 else None


def _writable_files(root: ET.Element) -> Iterable[Path]:
    for disk in root.iterfind("devices/disk[@type='file']"):
        source = disk.find("source")
        file = source.get("file") if source is not None else None
        if file and disk.get("device", "disk") == "disk" and disk.find("readonly") is None:
            yield Path(file)


_STATES: Final[Mapping[int, tuple[Power, Mapping[int, str]]]] = {
    0: (Power.UNKNOWN, {}),
    1: (
        Power.RUNNING,
        {
            1: "booted",
            2: "migrated",
            3: "restored",
            4: "from snapshot",
            5: "resumed",
            6: "migration failed",
            7: "saving failed",
            8: "woken",
        },
    ),
    2: (Power.RUNNING, {}),  # blocked on a resource, as Xen says of an idle one
    3: (
        Power.PAUSED,
        {
            1: "by a user",
            2: "migrating",
            3: "saving",
            4: "dumping",
            5: "I/O error",
            6: "watchdog",
            7: "from snapshot",
            8: "shutting down",
            9: "taking a snapshot",
            10: "crashed",
            11: "starting up",
            12: "migrating",
            13: "migration failed",
            14: "resuming failed",
        },
    ),
    4: (Power.RUNNING, {0: "shutting down", 1: "shutting down"}),
    5: (
        Power.OFF,
        {
            1: "shut down",
            2: "destroyed",
            3: "crashed",
            4: "migrated",
            5: "saved",
            6: "failed to start",
            7: "from snapshot",
            8: "daemon lost it",
        },
    ),
    6: (Power.CRASHED, {1: "guest panic"}),
    7: (Power.PAUSED, {0: "asleep"}),
}
_CRASHED: Final = {(3, 10), (5, 3)}
"""Stopped or off because the guest or its VMM died."""


def power_of(state: int, reason: int) -> tuple[Power, Safe]:
    """Our word for a virDomainState, and the reason in plain words (empty when there is none)."""
    power, reasons = _STATES.get(state, (Power.UNKNOWN, {}))
    if (state, reason) in _CRASHED:
        power = Power.CRASHED
    words = reasons.get(reason)
    return power, literal(words) if words else EMPTY


def present_power(domain: Any) -> Power:
    """Ask a virDomain now. Blocks, raises libvirtError."""
    return power_of(*domain.state())[0]


def check_active(domain: Any) -> None:
    """Ask a virDomain now. Blocks, raises libvirtError; Refused when it is off."""
    if not domain.isActive():
        raise Refused("The VM is not running", "only a VM with live vCPUs can be stopped and go on")


def counters_of(stats: Mapping[str, object], monotonic: float) -> Counters:
    """Counters from one record of virConnectGetAllDomainStats; what is not in it is None.

    Interface counters are those of the host's tap, which libvirt turns round so that they are
    seen from the guest. "used" is what the guest's kernel could not give to a new process.
    """
    available = _number(stats, "balloon.available")
    usable = _number(stats, "balloon.usable")
    used = available - usable if available is not None and usable is not None else None
    return Counters(
        monotonic=monotonic,
        cpu_ns=_number(stats, "cpu.time"),
        memory_used=_to_bytes(used),
        memory_given=_to_bytes(_number(stats, "balloon.current")),
        memory_host=_to_bytes(_number(stats, "balloon.rss")),
        disk_read=_total(stats, "block", "rd.bytes"),
        disk_written=_total(stats, "block", "wr.bytes"),
        net_received=_total(stats, "net", "rx.bytes"),
        net_sent=_total(stats, "net", "tx.bytes"),
    )


def _number(stats: Mapping[str, object], key: str) -> int | None:
    value = stats.get(key)
    return value if isinstance(value, int) else None


def _to_bytes(kib: int | None) -> int | None:
    return None if kib is None else kib << 10


def _total(stats: Mapping[str, object], group: str, counter: str) -> int | None:
    count = _number(stats, f"{group}.count")
    if not count:
        return None
    values = [_number(stats, f"{group}.{index}.{counter}") for index in range(count)]
    known = [value for value in values if value is not None]
    return sum(known) if known else None
