"""Digests of files with holes: as quick as their data, and as strict as those of full ones."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from swarm_tui.durable import digest, is_unchanged

MIB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """4 MiB with something at 1 MiB and shortly before the end; the rest is a hole."""
    disk = tmp_path / "disk.raw"
    with open(disk, "wb") as file:
        file.truncate(4 * MIB - 1000)
        file.seek(MIB)
        file.write(b"the agent's work" * 1000)
        file.seek(4 * MIB - 1010)
        file.write(b"the end")
    assert disk.stat().st_blocks * 512 < disk.stat().st_size
    return disk


def copy(source: Path, sparse: str) -> Path:
    target = source.with_name(f"{sparse}.raw")
    subprocess.run(["cp", "--reflink=never", f"--sparse={sparse}", source, target], check=True)
    return target


def test_where_the_holes_are_makes_no_difference(disk: Path) -> None:
    recorded = digest(disk)
    assert recorded.startswith("sparse-sha256:")
    full = copy(disk, "never")
    assert full.stat().st_blocks * 512 >= full.stat().st_size
    assert is_unchanged(full, recorded)
    assert is_unchanged(copy(disk, "always"), recorded)


def test_a_digest_of_a_full_file_is_everybodys(tmp_path: Path) -> None:
    file = tmp_path / "memory"
    file.write_bytes(b"abc" * 5000)
    told = subprocess.run(["sha256sum", file], capture_output=True, text=True, check=True)
    assert digest(file) == f"sha256:{told.stdout.split()[0]}"
    assert is_unchanged(file, digest(file))
    file.write_bytes(b"abd" * 5000)
    assert not is_unchanged(file, f"sha256:{told.stdout.split()[0]}")


def in_a_hole(data: bytearray) -> None:
    data[3 * MIB] = 1


def in_the_data(data: bytearray) -> None:
    data[MIB + 5] ^= 1


def longer(data: bytearray) -> None:
    data.append(0)


def shorter(data: bytearray) -> None:
    del data[-1]


def moved(data: bytearray) -> None:
    data[2 * MIB : 2 * MIB + 16000] = data[MIB : MIB + 16000]
    data[MIB : MIB + 16000] = bytes(16000)


def zeroed(data: bytearray) -> None:
    data[MIB : MIB + 16000] = bytes(16000)


@pytest.mark.parametrize("change", [in_a_hole, in_the_data, longer, shorter, moved, zeroed])
def test_every_change_is_seen(disk: Path, change: Callable[[bytearray], None]) -> None:
    recorded = digest(disk)
    data = bytearray(disk.read_bytes())
    change(data)
    disk.write_bytes(data)
    assert not is_unchanged(disk, recorded)
    assert not is_unchanged(copy(disk, "always"), recorded)


def test_a_file_of_nothing_but_a_hole_has_a_digest(tmp_path: Path) -> None:
    hole = tmp_path / "hole"
    with open(hole, "wb") as file:
        file.truncate(3 * MIB)
    recorded = digest(hole)
    assert is_unchanged(hole, recorded)
    with open(hole, "r+b") as file:
        file.truncate(4 * MIB)
    assert not is_unchanged(hole, recorded)
