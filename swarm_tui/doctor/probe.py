"""A throw-away VM, which proves that a host boots, saves and restores guests.

It is a kernel, an initramfs of our guest image with a shell on its serial port, and a word in that
shell's memory that must be there again after the restore. It has a network card that leads nowhere,
because not every libvirt restores VMs with one, and a disk of nothing, because a VMM that libvirt
leaves behind is known by its disk.
"""

from __future__ import annotations

import asyncio
import time
import uuid
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from swarm_tui.doctor.finding import Finding, fail, failed, ok, warn
from swarm_tui.errors import AgentGone, DeadlineExceeded, HostError, SwarmError
from swarm_tui.local.image import COMMAND_LINE
from swarm_tui.model import AgentId, Tag
from swarm_tui.ports import Console, Hypervisor, Outpost
from swarm_tui.snapshot import Archive, Draft
from swarm_tui.tag import render_tag
from swarm_tui.text import literal

BOOT_S: Final = 60.0
"""A guest boots in one second with KVM; a host may have too much to do."""
ANSWER_S: Final = 15.0
_AGAIN_S: Final = 1.0
_HEARD_BYTES: Final = 4096
_MEMORY_MIB: Final = 128
_DISK_BYTES: Final = 1 << 20

_FIRST: Final = (b"word=kept; echo $word-$((6*7))\r", b"kept-42")
_AFTERWARDS: Final = (b"echo $word-still-$((6*7))\r", b"kept-still-42")
"""What is typed, and what only a shell makes of it."""


@dataclass(frozen=True, slots=True)
class Boot:
    """Files of our guest image, on the host."""

    kernel: Path
    initrd: Path


async def find_boot(hypervisor: Hypervisor, image: Boot | None) -> Boot | None:
    """What an agent of the host boots from; else `image`; None: no such files are known there."""
    for vm in await hypervisor.list():
        with suppress(SwarmError):  # it may be gone, or hang: another one does as well
            root = ET.fromstring(await hypervisor.definition(vm.id))
            kernel, initrd, arguments = (
                root.findtext(f"os/{part}", "").strip() for part in ("kernel", "initrd", "cmdline")
            )
            if kernel and initrd and arguments.startswith(COMMAND_LINE):
                return Boot(Path(kernel), Path(initrd))
    return image


async def prove(
    name: str, hypervisor: Hypervisor, boot: Boot, outpost: Outpost, archive: Archive
) -> Finding:
    """Boot, save, restore and remove a VM; leaves nothing behind, whatever happens."""
    agent = AgentId(str(uuid.uuid4()))
    try:
        async with _draft(archive, agent) as draft, _removed(hypervisor, agent):
            disk = await outpost.keep(agent, "disk", "\0" * _DISK_BYTES)
            await hypervisor.define(_render(agent, boot, disk))
            return await _prove(name, hypervisor, agent, draft)
    except SwarmError as error:
        return failed(name, error)


async def _prove(name: str, hypervisor: Hypervisor, agent: AgentId, draft: Draft) -> Finding:
    begun = time.monotonic()
    await hypervisor.start(agent)
    try:
        await _converse(hypervisor, agent, *_FIRST, BOOT_S)
    except (DeadlineExceeded, HostError) as error:
        return fail(
            name,
            "a VM was started, and its guest does not boot",
            str(error),
            "Where KVM itself is at fault (a nested host without VT-x or SVM?), only another"
            " host helps. The VMM's log is in /var/log/libvirt/ch there.",
        )
    booted = time.monotonic()
    await hypervisor.save(agent, draft.memory, lambda step, fraction: None)
    saved = time.monotonic()
    try:
        await hypervisor.restore(agent, draft.memory)
    except HostError as error:
        return fail(
            name,
            "a VM was saved, and cannot be restored",
            str(error),
            "scripts/build-libvirt-ch builds a libvirt that restores; run it on the host. A VMM"
            f" without a VM may be left there now: pgrep -f {_name(agent)}",
            exit_code=error.exit_code,
        )
    restored = time.monotonic()
    told = (
        f"a VM booted in {booted - begun:.1f} s, was saved in {saved - booted:.1f} s and restored"
        f" in {restored - saved:.1f} s"
    )
    try:
        await _converse(hypervisor, agent, *_AFTERWARDS, ANSWER_S)
    except (DeadlineExceeded, HostError) as error:
        return warn(name, f"{told}; then it did not answer on its console", str(error))
    return ok(name, f"{told}, and went on where it stood")


async def _converse(
    hypervisor: Hypervisor, agent: AgentId, typed: bytes, wanted: bytes, limit_s: float
) -> None:
    """Type on the serial console, again and again, until the answer comes."""
    heard = b""
    try:
        async with asyncio.timeout(limit_s), hypervisor.console(agent) as console:
            typing = asyncio.create_task(_type(console, typed))
            try:
                async for chunk in console.read():
                    heard = (heard + chunk)[-_HEARD_BYTES:]
                    if wanted in heard:
                        return
            finally:
                typing.cancel()
                await asyncio.gather(typing, return_exceptions=True)
    except TimeoutError:
        raise DeadlineExceeded(
            "The guest does not answer", f"waited {limit_s:g} s; its console: {_told(heard)}"
        ) from None
    raise HostError("The guest's console has ended", _told(heard))


async def _type(console: Console, typed: bytes) -> None:
    while True:
        await console.write(typed)
        await asyncio.sleep(_AGAIN_S)


def _told(heard: bytes) -> str:
    lines = heard.decode("utf-8", "replace").split()
    return repr(" ".join(lines)[-200:]) if lines else "nothing"


@asynccontextmanager
async def _draft(archive: Archive, agent: AgentId) -> AsyncIterator[Draft]:
    """A place on the host for the saved memory."""
    draft = await asyncio.to_thread(archive.draft, agent)
    try:
        yield draft
    finally:
        await asyncio.to_thread(archive.remove, agent)


@asynccontextmanager
async def _removed(hypervisor: Hypervisor, agent: AgentId) -> AsyncIterator[None]:
    try:
        yield
    finally:
        with suppress(AgentGone):  # it could not even be defined
            await hypervisor.destroy(agent)
            await hypervisor.undefine(agent)


def _name(agent: AgentId) -> str:
    return f"swarm-probe-{agent[:8]}"


def _render(agent: AgentId, boot: Boot, disk: Path) -> str:
    """With our tag: should the machine go down in the middle, the VM can be seen and killed."""
    tag = Tag(task=literal("doctor --probe: goes when it is done"), created=time.time())
    return f"""\
<domain type='kvm'>
  <name>{_name(agent)}</name>
  <uuid>{agent}</uuid>
  <metadata>{render_tag(tag)}</metadata>
  <memory unit='MiB'>{_MEMORY_MIB}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64'>hvm</type>
    <kernel>{escape(str(boot.kernel))}</kernel>
    <initrd>{escape(str(boot.initrd))}</initrd>
    <cmdline>{COMMAND_LINE} rdinit=/bin/busybox -- sh</cmdline>
  </os>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>destroy</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <disk type='file' device='disk'>
      <driver type='raw'/>
      <source file={quoteattr(str(disk))}/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <interface type='ethernet'>
      <mac address='52:54:00:{agent[:2]}:{agent[2:4]}:{agent[4:6]}'/>
      <target dev='swtp{agent[:8]}'/>
      <model type='virtio'/>
    </interface>
    <serial type='pty'><target port='0'/></serial>
  </devices>
</domain>
"""
