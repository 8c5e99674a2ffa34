"""What Cloud Hypervisor was saved to by libvirt: a folder that must be whole to be restored.

    libvirt-save.xml    64 bytes of header, then the definition with a NUL (libvirt, src/ch:
                        CHSaveXMLHeader in ch_conf.h, chDoDomainSave in ch_driver.c)
    config.json         the VM's configuration (Cloud Hypervisor, docs/snapshot_restore.md)
    state.json          the devices
    memory-ranges       the memory; may be sparse, never shorter than the memory is

libvirt marks nothing as done: of a save that was cut off it keeps what there is.
"""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any, Final

from swarm_tui import durable
from swarm_tui.errors import HostError, Refused, SnapshotError

_DEFINITION: Final = "libvirt-save.xml"
_HEADER: Final = struct.Struct("=16sI44x")
_MAGIC: Final = b"libvirt-xml\n \0 \r"
_LONGEST_DEFINITION: Final = 4 << 20
_LONGEST_JSON: Final = 64 << 20


def begin_save(folder: Path, definition: str) -> None:
    """As `ports.Outpost.begin_save`. Raises Refused when the folder is there, StorageFull."""
    content = definition.encode() + b"\0"
    with durable.storage("make a folder for the saved memory", HostError):
        try:
            folder.mkdir(mode=0o770)
        except FileExistsError as error:
            raise Refused("Cannot save the VM", f"{folder} exists already") from error
        durable.sync_folder(folder.parent)
        durable.write(folder / _DEFINITION, _HEADER.pack(_MAGIC, len(content)) + content)


def exists(path: Path) -> bool:
    """Whether something is there, be it a link that leads nowhere."""
    return os.path.lexists(path)


def room(folder: Path) -> int:
    """As `ports.Outpost.room`."""
    with durable.storage("see how much room there is", HostError):
        there = next(place for place in (folder, *folder.parents) if place.exists())
        system = os.statvfs(there)
        return system.f_bavail * system.f_frsize


def check_saved(folder: Path) -> str:
    """As `ports.Outpost.check_saved`."""
    try:
        definition = _definition(folder / _DEFINITION)
        memory = _memory_bytes(_read_object(folder / "config.json"))
        _read_object(folder / "state.json")
        ranges = (folder / "memory-ranges").stat().st_size
    except FileNotFoundError as error:
        raise _incomplete(f"{Path(error.filename).name} is missing") from error
    except OSError as error:
        raise SnapshotError("The saved memory cannot be read", str(error)) from error
    if ranges < memory:
        raise _incomplete(f"memory-ranges has {ranges} bytes instead of {memory}")
    return definition


def _definition(path: Path) -> str:
    with open(path, "rb") as file:
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            raise _incomplete(f"{path.name} is cut off")
        magic, length = _HEADER.unpack(header)
        if magic != _MAGIC or not 0 < length <= _LONGEST_DEFINITION:
            raise _incomplete(f"{path.name} is not what libvirt writes")
        content = file.read(length)
    if len(content) < length or content[-1]:
        raise _incomplete(f"{path.name} is cut off")
    try:
        return content[:-1].decode()
    except UnicodeDecodeError as error:
        raise _incomplete(f"{path.name} is not text") from error


def _read_object(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        content = file.read(_LONGEST_JSON + 1)
    try:
        raw = json.loads(content) if len(content) <= _LONGEST_JSON else None
    except (ValueError, RecursionError) as error:
        raise _incomplete(f"{path.name} is cut off or no JSON") from error
    if not isinstance(raw, dict):
        raise _incomplete(f"{path.name} is not what Cloud Hypervisor writes")
    return raw


def _memory_bytes(config: dict[str, Any]) -> int:
    """The memory that the VM was made with; what was plugged in later comes on top."""
    memory = config.get("memory")
    if not isinstance(memory, dict):
        raise _incomplete("config.json tells no memory")
    zones = memory.get("zones") or []
    parts = [memory, *(zones if isinstance(zones, list) else [None])]
    sizes = [
        part["size"]
        for part in parts
        if isinstance(part, dict) and isinstance(part.get("size"), int) and part["size"] >= 0
    ]
    if len(sizes) < len(parts) or not any(sizes):
        raise _incomplete("config.json tells no memory")
    return sum(sizes)


def _incomplete(what: str) -> SnapshotError:
    return SnapshotError("The saved memory is not whole", f"{what}.")
