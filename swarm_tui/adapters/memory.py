"""A VM's memory where libvirt can write it without ending the VM, as QEMU's driver can.

Of two kinds: in a file, of the format of `virDomainSave`, and inside of the VM's own disk image.
All of it blocks, and raises libvirtError.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any, Final

import libvirt

from swarm_tui.adapters.domain import present_power
from swarm_tui.errors import Refused
from swarm_tui.model import Power

CHECKPOINT: Final = "warm"
DUMP: Final = "swarm-dump"
"""What libvirt is told that a dump is called, for as long as it is written."""


def dump(domain: Any, target: Path) -> None:
    """As `ports.Hypervisor.dump`.

    An external snapshot of the memory alone is written by the same code as a save, and can be
    restored like one (src/qemu/qemu_snapshot.c, qemuSnapshotCreateActiveExternal).
    """
    if present_power(domain) is not Power.PAUSED:
        raise Refused("Cannot save the VM and keep it", "suspend it first")
    _drop(domain, DUMP)  # of a supervisor that ended meanwhile
    wanted = ET.Element("domainsnapshot")
    ET.SubElement(wanted, "name").text = DUMP
    ET.SubElement(wanted, "memory", snapshot="external", file=str(target))
    disks = ET.SubElement(wanted, "disks")
    for disk in ET.fromstring(domain.XMLDesc()).iterfind("devices/disk/target"):
        ET.SubElement(disks, "disk", name=disk.get("dev", ""), snapshot="no")
    made = domain.snapshotCreateXML(ET.tostring(wanted, encoding="unicode"), 0)
    made.delete(libvirt.VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY)


def checkpoint(domain: Any) -> str:
    """As `ports.Hypervisor.checkpoint`."""
    if present_power(domain) is not Power.PAUSED:
        raise Refused("Cannot checkpoint the VM", "suspend it first")
    _drop(domain, CHECKPOINT)
    xml = f"<domainsnapshot><name>{CHECKPOINT}</name></domainsnapshot>"
    return str(domain.snapshotCreateXML(xml, 0).getXMLDesc())


def revert(domain: Any, checkpoint: str) -> None:
    """Run a defined VM from what `checkpoint` has put into its disk."""
    redefine = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE
    snapshot = domain.snapshotCreateXML(checkpoint, redefine)
    domain.revertToSnapshot(snapshot, libvirt.VIR_DOMAIN_SNAPSHOT_REVERT_RUNNING)
    _drop(domain, CHECKPOINT)


def _drop(domain: Any, name: str) -> None:
    """A checkpoint's memory would stay in the disk image for ever, and be copied with it."""
    flags = libvirt.VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY if name == DUMP else 0
    for snapshot in domain.listAllSnapshots():
        if snapshot.getName() == name:
            snapshot.delete(flags)
