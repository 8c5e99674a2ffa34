"""A disk with one partition, made without root or mount: a GUID partition table around ext4.

Cloud Hypervisor from 50.1 on refuses every write to the first sector of a raw disk whose type it
was not told (virtio-devices/src/block.rs), and libvirt does not tell it. A file system that begins
at the disk's start writes there; one in a partition never does.
"""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path
from typing import BinaryIO, Final
from uuid import UUID
from zlib import crc32

from swarm_tui.outpost.programs import run

FIRST_BYTE: Final = 1 << 20
"""Where the partition begins, and how much is left behind it: whole MiB suit all file systems."""

_SECTOR: Final = 512
_ENTRIES: Final = 128
_INODES: Final = 65536
_ENTRY: Final = struct.Struct("<16s16sQQQ72s")
_HEADER: Final = struct.Struct("<8sIIIIQQQQ16sQIII")
_TABLE_SECTORS: Final = _ENTRIES * _ENTRY.size // _SECTOR
_LINUX_ROOT: Final = UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709")
"""The type of root partitions for x86-64 (Discoverable Partitions Specification)."""
_DISK: Final = UUID("61ea2eb6-4d4a-4d7a-9e7f-0a5f6a7c1d01")
_PARTITION: Final = UUID("61ea2eb6-4d4a-4d7a-9e7f-0a5f6a7c1d02")


def make_disk(tree: Path, target: Path, size_mib: int, owners: str) -> None:
    """Make `target`, a sparse raw image, with `tree` on an ext4 of `size_mib` in its partition.

    `owners` is a shell command that sets the tree's owners ("$1"), in earnest as root and under
    fakeroot otherwise. Raises Failed, SetupError, StorageFull, OSError.
    """
    _make_empty(target, size_mib)
    command = ["sh", "-c", f'{owners} && shift && exec "$@"', "sh", str(tree)]
    command += _mke2fs(tree, target, size_mib, _INODES)
    run(command if os.getuid() == 0 else ["fakeroot", "--", *command])


def make_foreign_disk(
    tree: Path,
    target: Path,
    size_mib: int,
    inodes: int,
    owners: Path,
    capabilities: Path | None = None,
) -> None:
    """The same of a tree whose owners and modes are those in the file `owners`, in fakeroot's own
    format, and whose programs have `capabilities` (see `oci.capability`). They are so on the disk
    only. Raises Failed, SetupError, StorageFull, OSError.
    """
    _make_empty(target, size_mib)
    command = ["fakeroot", "-i", str(owners), "--"]
    if capabilities:
        command += [sys.executable, "-m", "swarm_tui.local.oci.capability", str(capabilities)]
    run([*command, *_mke2fs(tree, target, size_mib, inodes)])


def _make_empty(target: Path, size_mib: int) -> None:
    with open(target, "wb") as file:
        file.truncate((size_mib << 20) + 2 * FIRST_BYTE)
        write_table(file)


def _mke2fs(tree: Path, target: Path, size_mib: int, inodes: int) -> list[str]:
    options = f"offset={FIRST_BYTE},lazy_itable_init=1,root_owner=0:0"
    command = ["mke2fs", "-q", "-F", "-t", "ext4", "-O", "^metadata_csum,^64bit", "-J", "size=8"]
    command += ["-m", "0", "-N", str(inodes), "-L", "swarm", "-E", options]
    return [*command, "-d", str(tree), str(target), f"{size_mib}M"]


def grow_disk(disk: Path, size_mib: int) -> None:
    """Give the file system on a raw disk, as `make_disk` made it, a size of `size_mib`.

    One that is as large already stays as it is. Raises Failed, SetupError, StorageFull, OSError.
    """
    has_mib = (disk.stat().st_size - 2 * FIRST_BYTE) >> 20
    if has_mib >= size_mib:
        return
    # resize2fs cuts files that are longer than the file system: it knows of no partition here.
    size_mib = max(size_mib, has_mib + (2 * FIRST_BYTE >> 20))
    # -f: nobody has mounted it since it was made, so that there is nothing to check.
    run(["resize2fs", "-f", f"{disk}?offset={FIRST_BYTE}", f"{size_mib}M"])
    with open(disk, "r+b") as file:
        file.truncate((size_mib << 20) + 2 * FIRST_BYTE)
        write_table(file)


def write_table(disk: BinaryIO) -> None:
    """Give a disk a table of one partition, all of it but for `FIRST_BYTE` at either end.

    As the UEFI Specification, section 5, has it: a protective MBR, then the table at the start
    and once more at the end.
    """
    sectors = disk.seek(0, os.SEEK_END) // _SECTOR
    last = sectors - 1
    first, end = FIRST_BYTE // _SECTOR, sectors - FIRST_BYTE // _SECTOR - 1
    name = "root".encode("utf-16-le")
    entry = _ENTRY.pack(_LINUX_ROOT.bytes_le, _PARTITION.bytes_le, first, end, 0, name)
    table = entry.ljust(_TABLE_SECTORS * _SECTOR, b"\0")

    def header(here: int, there: int, table_at: int) -> bytes:
        def fields(checksum: int) -> bytes:
            usable = (2 + _TABLE_SECTORS, last - 1 - _TABLE_SECTORS)
            return _HEADER.pack(
                *(b"EFI PART", 0x10000, _HEADER.size, checksum, 0, here, there, *usable),
                *(_DISK.bytes_le, table_at, _ENTRIES, _ENTRY.size, crc32(table)),
            )

        return fields(crc32(fields(0))).ljust(_SECTOR, b"\0")

    all_of_it = struct.pack("<8B2I", *(0, 0, 2, 0, 0xEE, 255, 255, 255), 1, min(last, 0xFFFFFFFF))
    disk.seek(0)
    disk.write(bytes(446) + all_of_it.ljust(64, b"\0") + b"\x55\xaa")
    disk.write(header(1, last, 2) + table)
    disk.seek((last - _TABLE_SECTORS) * _SECTOR)
    disk.write(table + header(last, 1, last - _TABLE_SECTORS))
