"""A local agent's VM under QEMU as libvirt's XML: made once for the template, rewritten for forks.

A fork must have the very devices of its template at the very same addresses, or QEMU refuses the
memory that belongs to them. So its definition is the template's own, as libvirt completed it, with
only the names of things replaced: `rewrite` touches nothing else.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.sax.saxutils import quoteattr

from swarm_tui.local.accel import Mode
from swarm_tui.local.home import Mould
from swarm_tui.local.image import COMMAND_LINE
from swarm_tui.model import AgentId

TRANSLATIONS_MIB: Final = 64
"""QEMU's buffer for translated code; it would grow to a hundred otherwise."""
LOOPBACK: Final = "127.0.0.1"

_QEMU: Final = "http://libvirt.org/schemas/domain/qemu/1.0"
_FEW_QUESTIONS: Final = """
  <qemu:capabilities><qemu:del capability='cpu-unavailable-features'/></qemu:capabilities>"""
"""At each start libvirt asks QEMU for the features of its processor, for each by itself: four
hundred questions. A QEMU without this capability is asked for all of them at once, as feature-words
(src/qemu/qemu_process.c, qemuProcessFetchGuestCPU; newer ones may always ask one by one)."""
_ARGUMENT: Final = f"{{{_QEMU}}}arg"


@dataclass(frozen=True, slots=True)
class Machine:
    """What tells one VM of an image from another."""

    id: AgentId
    name: str
    folder: Path
    port: int
    """Where the guest's SSH server answers, at `host`."""
    host: str = LOOPBACK
    """Behind QEMU's user-mode network it is the host itself."""

    @property
    def disk(self) -> Path:
        return self.folder / "disk.qcow2"

    @property
    def console_log(self) -> Path:
        return self.folder / "console.log"

    @property
    def netdev(self) -> str:
        return f"user,id=swarm0,hostfwd=tcp:{LOOPBACK}:{self.port}-:22"

    @property
    def mac(self) -> str:
        # Locally administered; which bits differ matters only where VMs share a network.
        digits = self.id.replace("-", "")[:6]
        return ":".join(("52:54:00", *(digits[place : place + 2] for place in (0, 2, 4))))

    @property
    def nic(self) -> str:
        # Nobody but QEMU itself is on its network, to whom a fork would have to announce itself.
        words = ("netdev=swarm0", f"mac={self.mac}", "guest_announce=off", "romfile=")
        return f"virtio-net-pci,{','.join(words)},bus=pcie.0,addr=0x10"


def render(machine: Machine, mould: Mould, initrd: Path, mode: Mode) -> str:
    """The definition of a VM without our tag.

    Its network is QEMU's own user mode, which needs no rights on the host: libvirt has no words
    for a forwarded port, so the device is given on QEMU's command line.
    """
    kernel = mould.image.kernel if mode is Mode.KVM else mould.image.kernel_elf
    cpu = "host-passthrough" if mode is Mode.KVM else "maximum"
    capabilities = "" if mode is Mode.KVM else _FEW_QUESTIONS
    cache = f"<tcg><tb-cache unit='MiB'>{TRANSLATIONS_MIB}</tb-cache></tcg>"
    arguments = ("-netdev", machine.netdev, "-device", machine.nic)
    return f"""\
<domain type='{mode.domain_type}' xmlns:qemu='{_QEMU}'>
  <name>{machine.name}</name>
  <uuid>{machine.id}</uuid>
  <metadata/>
  <memory unit='MiB'>{mould.memory_mib}</memory>
  <vcpu>{mould.vcpus}</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{_text(kernel)}</kernel>
    <initrd>{_text(initrd)}</initrd>
    <cmdline>{COMMAND_LINE}</cmdline>
  </os>
  <features><acpi/>{"" if mode is Mode.KVM else cache}</features>
  <cpu mode='{cpu}' migratable='on'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='writeback' discard='unmap'/>
      <source file={quoteattr(str(machine.disk))}/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <controller type='usb' model='none'/>
    <serial type='pty'>
      <log file={quoteattr(str(machine.console_log))} append='on'/>
      <target port='0'/>
    </serial>
    <console type='pty'><target type='serial' port='0'/></console>
    <memballoon model='virtio' freePageReporting='on'><stats period='2'/></memballoon>
    <panic model='isa'/>
  </devices>
  <qemu:commandline>
    {"".join(f"<qemu:arg value={quoteattr(argument)}/>" for argument in arguments)}
  </qemu:commandline>{capabilities}
</domain>
"""


def rewrite(xml: str, source: Machine, target: Machine, tag: str) -> str:
    """A definition or a checkpoint of `source` for `target`, with `tag` in its metadata."""
    ET.register_namespace("qemu", _QEMU)
    root = ET.fromstring(xml)
    # A checkpoint holds two: as it ran, and as it is defined.
    for domain in root.iter():
        if domain.tag in ("domain", "inactiveDomain"):
            _rewrite_domain(domain, source, target, tag)
    return ET.tostring(root, encoding="unicode")


def _rewrite_domain(domain: ET.Element, source: Machine, target: Machine, tag: str) -> None:
    _set(domain, "name", target.name)
    _set(domain, "uuid", target.id)
    metadata = domain.find("metadata")
    if metadata is None:
        metadata = ET.Element("metadata")
        domain.insert(2, metadata)
    metadata.clear()
    metadata.append(ET.fromstring(tag))
    names = {
        str(source.disk): str(target.disk),
        str(source.console_log): str(target.console_log),
        source.netdev: target.netdev,
        source.nic: target.nic,
    }
    attributes = [(element, "file") for element in domain.iterfind("devices//*[@file]")]
    attributes += [(element, "value") for element in domain.iter(_ARGUMENT)]
    for element, attribute in attributes:
        value = element.get(attribute, "")
        element.set(attribute, names.get(value, value))


def _set(domain: ET.Element, name: str, text: str) -> None:
    element = domain.find(name)
    assert element is not None  # libvirt writes both, always
    element.text = text


def _text(path: Path) -> str:
    return str(path).replace("&", "&amp;").replace("<", "&lt;")
