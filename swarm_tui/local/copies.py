"""Forks of an agent under QEMU, made of one of its snapshots, whose files are only read.

libvirt restores a saved memory under the name and UUID that stand in its header and nowhere else,
and refuses others (virDomainRestoreFlags). So a fork has a copy of its own, with the header of its
own. The header's form is private to libvirt, but old and marked with a version
(src/qemu/qemu_saveimage.h, struct _virQEMUSaveHeader): any other than the known one is refused.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from swarm_tui import durable
from swarm_tui.errors import SnapshotError, Unsupported
from swarm_tui.lifecycle.ground import in_thread
from swarm_tui.local.guest import IDENTIFY, render_identity
from swarm_tui.local.home import Home, HostKey
from swarm_tui.local.machine import Machine, rewrite
from swarm_tui.model import Message
from swarm_tui.outpost.programs import make_folder, telling
from swarm_tui.person import login
from swarm_tui.ports import Parent, Progress
from swarm_tui.tag import render_tag
from swarm_tui.text import Safe, literal, sanitize

_MAGIC: Final = b"LibvirtQemudSave"
_VERSION: Final = 2
_HEADER: Final = struct.Struct("=16sIIIII56s")
_PAGE: Final = 4096
_LONGEST: Final = 16 << 20
_BEGIN: Final = f"""\
{IDENTIFY}
events=/run/swarm/events.jsonl
[ -e $events ] || exit 0
open=$(awk '
  /"kind": *"(ask|done|failed)"/ {{ open = $0 }}
  /"kind": *"(status|tool)"/ {{ open = "" }}
  END {{ print open }}' $events)
{{
  printf '{{"ts":%s,"kind":"log","text":"forked from %s; what was before is in its log"}}\\n' \
    "$(date +%s)" PARENT
  [ -z "$open" ] || printf '%s\\n' "$open"
}} >$events
"""
"""The fork's log begins with the fork: what its parent said is in its parent's. But what its parent
waits for, the fork waits for, too."""
_MAC: Final = """
nic=$(ls /sys/class/net | grep -v '^lo$' | head -n 1)
ip link set dev "$nic" address MAC && ip neigh flush dev "$nic"
"""


async def branch(
    home: Home,
    parent: Parent,
    machine: Machine,
    task: str,
    answer_s: float,
    on_progress: Progress,
) -> None:
    """Let `machine` go on where its parent's snapshot stands. Raises SwarmError."""
    if parent.tag.address is None or len(parent.disks) != 1:
        raise Unsupported(f"{parent.name} cannot be forked", "It was not made by this swarm.")
    source = Machine(parent.id, str(parent.name), home.agents / parent.id, parent.tag.address.port)
    on_progress(literal("copying memory and disk"), None)
    host_key = await in_thread(_make_host_key, home, machine)
    address = home.address(machine.host, machine.port, host_key.public)
    own = replace(
        parent.tag,
        task=sanitize(task) if task else parent.tag.task,
        owner=sanitize(login()),
        created=time.time(),
        address=address,
    )

    def edit(xml: str) -> str:
        return _own(rewrite(xml, source, machine, render_tag(own)), source)

    memory = machine.folder / "memory"
    await in_thread(_furnish, parent, source, machine, memory, edit)
    on_progress(literal("starting from its memory"), None)
    await home.hypervisor.define(edit(parent.definition))
    await home.hypervisor.restore(machine.id, memory)
    await in_thread(memory.unlink)
    on_progress(literal("giving it a name and keys of its own"), None)
    first = home.address(machine.host, machine.port, parent.tag.address.host_key)
    identity = render_identity(machine.name, host_key.private, time.time(), task)
    script = _BEGIN.replace("PARENT", _plain(parent.name))
    try:
        await home.execute(first, script, identity, answer_s)
    finally:
        await home.guest.forget(first)  # the next contact must find the fork's own key
    await home.execute(address, _MAC.replace("MAC", machine.mac), b"", answer_s)
    if task:
        message = Message(f"fork-{machine.id}", "message", task)
        await home.guest.deliver(address, message, answer_s)
    if parent.is_frozen:
        await home.guest.thaw(address, answer_s)


def rename_saved(source: Path, target: Path, edit: Callable[[str], str]) -> None:
    """Copy a save of libvirt's QEMU driver with its definition edited. Raises SnapshotError."""
    with open(source, "rb") as saved, open(target, "xb") as copy:
        os.fchmod(copy.fileno(), 0o600)
        head = saved.read(_HEADER.size)
        if len(head) < _HEADER.size or not head.startswith(_MAGIC):
            raise SnapshotError("The saved memory is none of QEMU's", str(source))
        magic, version, length, _, compression, cookie_at, rest = _HEADER.unpack(head)
        if version != _VERSION or length > _LONGEST:
            raise SnapshotError(
                "The saved memory cannot be forked", f"{source}: it is of format {version}"
            )
        data = saved.read(length)
        definition, _, _ = data.partition(b"\0")
        cookie = data[cookie_at:].rstrip(b"\0") if cookie_at else b""
        text = edit(definition.decode()).encode() + b"\0"
        cookie_at = len(text) if cookie else 0
        data = text + (cookie + b"\0" if cookie else b"")
        data += bytes(-(_HEADER.size + len(data)) % _PAGE)
        running = 1
        copy.write(
            _HEADER.pack(magic, version, len(data), running, compression, cookie_at, rest) + data
        )
        copy.flush()
        at, end = _HEADER.size + length, os.fstat(saved.fileno()).st_size
        while at < end:
            at += os.sendfile(copy.fileno(), saved.fileno(), at, end - at)


def _make_host_key(home: Home, machine: Machine) -> HostKey:
    with telling("make a fork's keys"):
        home.make_folders()
        make_folder(machine.folder, 0o711)
        return home.make_host_key()


def _furnish(
    parent: Parent, source: Machine, machine: Machine, memory: Path, edit: Callable[[str], str]
) -> None:
    with durable.storage("copy memory and disk for a fork"):
        rename_saved(parent.memory, memory, edit)
        durable.copy(parent.disks[0], machine.disk)
        with suppress(FileNotFoundError):  # so that nobody removes the image meanwhile
            (machine.folder / "image").write_bytes((source.folder / "image").read_bytes())


def _own(xml: str, source: Machine) -> str:
    """Raises Unsupported when a thing of the parent's is left in it: both would write to it."""
    if f"{source.folder}/" in xml or f":{source.port}-" in xml or source.id in xml:
        raise Unsupported(
            f"{source.name} cannot be forked", "Its definition names things that are not known."
        )
    return xml


def _plain(name: Safe) -> str:
    """For a shell's and a JSON's quotes alike."""
    return "".join(letter for letter in name if letter.isalnum() or letter in "-_.") or "another"
