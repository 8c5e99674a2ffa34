"""A kernel from its Debian package: as bzImage and as ELF, its drivers, and an initramfs."""

from __future__ import annotations

import hashlib
import lzma
import re
import shutil
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from swarm_tui.errors import SetupError
from swarm_tui.local.packages import members
from swarm_tui.outpost.programs import make_folder, run

_BOOT_DRIVERS: Final = (
    "virtio_pci",
    "virtio_mmio",
    "virtio_blk",
    "virtio_net",
    "ext4",
)
_LATER_DRIVERS: Final = (
    "virtio_balloon",
    "virtio_console",
    "button",
    "evdev",
    "pvpanic",
    "pvpanic_mmio",
    "virtio_rng",
)

_LZ4: Final = b"\x02\x21\x4c\x18"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"

Entries = Mapping[str, tuple[int, bytes]]
"""Path → (mode with file type, content)."""


def unpack_kernel(folder: Path, debs: Sequence[Path]) -> Path:
    """Folder with vmlinuz, vmlinux, and drivers in boot/ and later/, each with their `order`.

    Made once per package, below `folder`. Raises SetupError, Failed, StorageFull, OSError.
    """
    source = Path(__file__).read_bytes()
    names = " ".join(deb.name for deb in debs)
    done = folder / hashlib.sha256(names.encode() + source).hexdigest()[:32]
    if done.exists():
        return done
    work = folder / f"{done.name}.partial"
    shutil.rmtree(work, ignore_errors=True)
    make_folder(work)
    modules: dict[str, bytes] = {}
    for deb in debs:
        for name, content in members(deb, re.compile(r"vmlinuz-.+|.+\.ko(\.xz)?")):
            if name.startswith("vmlinuz-"):
                (work / "vmlinuz").write_bytes(content)
                (work / "vmlinux").write_bytes(_elf(content))
            else:
                modules[name.partition(".ko")[0].replace("-", "_")] = content
    boot = load_order(_BOOT_DRIVERS, modules)
    later = [name for name in load_order(_LATER_DRIVERS, modules) if name not in boot]
    _write_drivers(work / "boot", boot, modules)
    _write_drivers(work / "later", later, modules)
    work.rename(done)
    return done


def load_order(wanted: Sequence[str], modules: Mapping[str, bytes]) -> Sequence[str]:
    """Drivers in the order of loading, each after those it needs.

    What is not there as a module is built in; which ones are differs between kernels.
    """
    order: list[str] = []

    def add(name: str) -> None:
        if name in modules and name not in order:
            for needed in _needs(_decompress(modules[name])):
                add(needed)
            order.append(name)

    for name in wanted:
        add(name)
    return order


def _needs(module: bytes) -> Sequence[str]:
    match = re.search(rb"\0depends=([^\0]*)\0", module)
    names = match[1].decode("ascii") if match else ""
    return [name.replace("-", "_") for name in names.split(",") if name]


def _write_drivers(folder: Path, names: Sequence[str], modules: Mapping[str, bytes]) -> None:
    make_folder(folder)
    for name in names:
        (folder / f"{name}.ko").write_bytes(_decompress(modules[name]))
    (folder / "order").write_text("".join(f"{name}.ko\n" for name in names))


def _elf(image: bytes) -> bytes:
    """The ELF kernel inside a bzImage (Documentation/arch/x86/boot.rst, payload_offset)."""
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = image[start : start + length]
    if payload.startswith((_LZ4, _ZSTD)):
        payload = payload[:-4]  # the unpacked size, which the kernel's build appends to these two
    elf = _decompress(payload)
    if image[0x202:0x206] != b"HdrS" or not elf.startswith(b"\x7fELF"):
        raise SetupError("The kernel package holds no kernel that can be unpacked")
    return elf


def _decompress(content: bytes) -> bytes:
    if content.startswith(b"\xfd7zXZ"):
        return lzma.LZMADecompressor().decompress(content)
    if content.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(wbits=31).decompress(content)
    if content.startswith(_LZ4):
        return run(["lz4", "-dcq"], stdin=content)
    if content.startswith(_ZSTD):
        return run(["zstd", "-dcq"], stdin=content)
    return content


def pack_initramfs(busybox: Path, drivers: Path, scripts: Path) -> bytes:
    """An initramfs of busybox, the drivers of one folder and the scripts of another."""
    entries = dict.fromkeys(("bin", "dev", "modules", "root"), (0o040755, b""))
    entries["bin/busybox"] = (0o100755, busybox.read_bytes())
    entries["dev/console"] = (0o020600, b"")
    for path in sorted(drivers.iterdir()):
        entries[f"modules/{path.name}"] = (0o100644, path.read_bytes())
    for path in sorted(scripts.iterdir()):
        entries[path.name] = (0o100755, path.read_bytes())
    return pack(entries)


def pack(entries: Entries) -> bytes:
    """A cpio archive ("newc"), all of it owned by root; a device in it is the console.

    The kernel accepts several such archives in a row
    (Documentation/driver-api/early-userspace/buffer-format.rst).
    """
    packed = bytearray()
    everything = [*entries.items(), ("TRAILER!!!", (0, b""))]
    for number, (name, (mode, content)) in enumerate(everything, start=1):
        device = (5, 1) if mode & 0o170000 == 0o020000 else (0, 0)
        path = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(path), 0)
        packed += b"070701" + b"".join(b"%08x" % field for field in fields) + path
        packed += bytes(-len(packed) % 4) + content
        packed += bytes(-len(packed) % 4)
    return bytes(packed) + bytes(-len(packed) % 512)
