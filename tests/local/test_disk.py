"""The partitioned disk: its table, its file system, and what a guest writes to it."""

from __future__ import annotations

import asyncio
import shutil
import struct
import subprocess
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from zlib import crc32

import pytest

from swarm_tui.local.disk import FIRST_BYTE, grow_disk, make_disk
from swarm_tui.local.guest import render_arguments
from swarm_tui.local.image import Image

from .machine import Machine, boot, make_key

SECTOR = 512


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/motd").write_text("welcome\n")
    target = tmp_path / "disk.raw"
    make_disk(tree, target, 64, 'chown 1000 "$1/etc/motd"')
    return target


def check_file_system(disk: Path) -> str:
    """What e2fsck says of the partition's; fails the test where it is not whole."""
    command = ["e2fsck", "-fn", f"{disk}?offset={FIRST_BYTE}"]
    environment = {"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("size_mib", [65, 66, 67, 300])
def test_a_disk_that_grows_is_whole_and_its_tables_agree(disk: Path, size_mib: int) -> None:
    grow_disk(disk, size_mib)
    content = disk.read_bytes()
    assert len(content) >= (size_mib << 20) + 2 * FIRST_BYTE
    last = len(content) // SECTOR - 1
    _, first = read_header(content, 1)
    _, second = read_header(content, last)
    assert (first[0], first[1], second[0], second[1]) == (1, last, last, 1)
    assert first[3] < last
    check_file_system(disk)
    file = subprocess.run(
        ["debugfs", "-R", "cat /etc/motd", f"{disk}?offset={FIRST_BYTE}"],
        capture_output=True,
        env={"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"},
        check=True,
    )
    assert file.stdout == b"welcome\n"
    before = disk.read_bytes()
    grow_disk(disk, 10)
    assert disk.read_bytes() == before


def read_header(content: bytes, sector: int) -> tuple[bytes, list[int]]:
    """The table of a header, and: own sector, other header's, first and last usable one."""
    raw = content[sector * SECTOR :][:92]
    assert raw[:8] == b"EFI PART"
    (checksum,) = struct.unpack_from("<I", raw, 16)
    assert checksum == crc32(raw[:16] + bytes(4) + raw[20:])
    places = list(struct.unpack_from("<4Q", raw, 24))
    at, count, size, table_checksum = struct.unpack_from("<Q3I", raw, 72)
    table = content[at * SECTOR :][: count * size]
    assert table_checksum == crc32(table)
    return table, places


def test_both_tables_tell_of_the_one_partition(disk: Path) -> None:
    content = disk.read_bytes()
    last = len(content) // SECTOR - 1
    assert content[510:512] == b"\x55\xaa"
    assert content[450] == 0xEE  # whoever knows no GPT sees a disk that is taken
    table, places = read_header(content, 1)
    assert places == [1, last, 34, last - 33]
    assert read_header(content, last) == (table, [last, 1, 34, last - 33])
    assert struct.unpack_from("<QQ", table, 32) == (
        FIRST_BYTE // SECTOR,
        (FIRST_BYTE + (64 << 20)) // SECTOR - 1,
    )
    assert not any(table[128:])
    assert disk.stat().st_size == (64 << 20) + 2 * FIRST_BYTE


@pytest.mark.skipif(not shutil.which("sfdisk"), reason="fdisk is not installed")
def test_another_program_reads_the_same(disk: Path) -> None:
    told = subprocess.run(["sfdisk", "--verify", disk], capture_output=True, text=True, check=True)
    assert "No errors detected" in told.stdout


def test_the_partition_holds_the_tree_with_its_owners(disk: Path) -> None:
    place = f"{disk}?offset={FIRST_BYTE}"
    subprocess.run(["e2fsck", "-fn", place], capture_output=True, check=True)
    told = subprocess.check_output(["debugfs", "-R", "stat /etc/motd", place], text=True)
    assert "User:  1000" in told
    assert subprocess.check_output(["debugfs", "-R", "cat /etc/motd", place]) == b"welcome\n"


def test_what_is_empty_takes_no_room(image: Image) -> None:
    facts = image.base.stat()
    assert facts.st_blocks * SECTOR < facts.st_size // 8


@pytest.mark.vm
def test_a_guest_lives_on_it_without_its_first_sector(image: Image, tmp_path: Path) -> None:
    """Every write to the first sector fails, as Cloud Hypervisor does it."""
    identity, host_key = tmp_path / "client", tmp_path / "host"
    for path in (identity, host_key):
        make_key(path)
    disk = tmp_path / "disk.raw"
    subprocess.run(["cp", "--sparse=always", image.base, disk], check=True)
    rules = tmp_path / "rules"
    lines = ("[inject-error]", 'event = "none"', 'iotype = "write"', 'sector = "0"', 'errno = "5"')
    rules.write_text("\n".join(lines) + "\n")
    said = render_arguments(
        IPv4Interface("10.98.7.6/20"), IPv4Address("10.98.0.1"), IPv4Address("10.98.0.3")
    )
    machine = boot(
        image,
        tmp_path,
        Path(f"blkdebug:{rules}:{disk}"),
        identity,
        host_key,
        arguments=said,
        network=",net=10.98.0.0/20,host=10.98.0.1,dns=10.98.0.3",
        guest="10.98.7.6",
    )
    try:
        asyncio.run(live(machine))
    finally:
        machine.stop()
    place = f"{disk}?offset={FIRST_BYTE}"
    assert subprocess.check_output(["debugfs", "-R", "cat /workspace/kept", place]) == b"kept\n"
    with open(disk, "rb") as written, open(image.base, "rb") as base:
        assert written.read(FIRST_BYTE) == base.read(FIRST_BYTE)


async def live(machine: Machine) -> None:
    await machine.run("echo kept >/workspace/kept; sync")
    # Writes the superblock, as unmounting does.
    await machine.run("fsfreeze --freeze / && fsfreeze --unfreeze /")
    assert "I/O error" not in await machine.run("dmesg")
    assert "10.98.7.6/20" in await machine.run("ip -4 address show dev eth0")
    assert "default via 10.98.0.1" in await machine.run("ip route")
    assert await machine.run("cat /etc/resolv.conf") == "nameserver 10.98.0.3\n"
