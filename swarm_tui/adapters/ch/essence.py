"""What a VM and its saved memory must have in common, or the memory would run on other devices."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping

from swarm_tui.adapters.domain import parse_definition
from swarm_tui.errors import SnapshotError


def check_same(defined: str, saved: str) -> None:
    """Raise SnapshotError unless a saved VM is the one that is defined, with the same devices."""
    wanted, found = _essence(defined), _essence(saved)
    differing = [name for name, value in wanted.items() if found[name] != value]
    if differing:
        name = differing[0]
        raise SnapshotError(
            "The saved memory is of another VM"
            if name == "uuid"
            else "The saved memory does not fit to the VM's definition",
            f"{name}: saved {found[name]!r}, defined {wanted[name]!r}",
        )


def _essence(xml: str) -> Mapping[str, object]:
    """What must not differ between a VM and its saved memory."""
    definition = parse_definition(xml)
    root = ET.fromstring(xml)
    boot = [root.findtext(f"os/{part}", "").strip() for part in ("kernel", "initrd", "cmdline")]
    nics = [element.get("address") for element in root.iterfind("devices/interface/mac")]
    return {
        "uuid": definition.id,
        "name": definition.name,
        "memory": definition.memory_bytes,
        "vCPUs": definition.vcpus,
        "disks": definition.disks,
        "boot": boot,
        "MAC addresses": nics,
    }
