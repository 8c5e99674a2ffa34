"""A save of Cloud Hypervisor by libvirt: taken for whole only when all of it is there."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from swarm_tui.errors import Refused, SnapshotError
from swarm_tui.outpost.local import LocalOutpost
from swarm_tui.ports import Outpost

XML = "<domain type='kvm'><name>ämber</name></domain>"
MEMORY = 1 << 20


@pytest.fixture
def outpost(tmp_path: Path) -> Outpost:
    return LocalOutpost(tmp_path / "ledger")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """As libvirt 11.3 and Cloud Hypervisor leave it."""
    folder = tmp_path / "memory"
    folder.mkdir()
    xml = XML.encode() + b"\0"
    header = b"libvirt-xml\n \0 \r" + struct.pack("=I", len(xml)) + bytes(44)
    (folder / "libvirt-save.xml").write_bytes(header + xml)
    config = {"cpus": {"boot_vcpus": 1}, "memory": {"size": MEMORY, "zones": None}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "state.json").write_text('{"snapshots": {}}')
    with open(folder / "memory-ranges", "wb") as ranges:
        ranges.truncate(MEMORY)
    return folder


async def test_a_whole_save_tells_its_definition(outpost: Outpost, saved: Path) -> None:
    assert await outpost.check_saved(saved) == XML


async def test_what_begins_a_save_is_what_is_read(outpost: Outpost, saved: Path) -> None:
    begun = saved.with_name("begun")
    await outpost.begin_save(begun, XML)
    with pytest.raises(SnapshotError, match=r"config\.json is missing"):
        await outpost.check_saved(begun)
    for name in ("config.json", "state.json", "memory-ranges"):
        (saved / name).rename(begun / name)
    assert await outpost.check_saved(begun) == XML
    with pytest.raises(Refused, match="exists already"):
        await outpost.begin_save(begun, XML)


@pytest.mark.parametrize("name", ["libvirt-save.xml", "config.json", "state.json", "memory-ranges"])
async def test_a_missing_file_is_named(outpost: Outpost, saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(SnapshotError, match=f"{name} is missing"):
        await outpost.check_saved(saved)


@pytest.mark.parametrize("name", ["libvirt-save.xml", "config.json", "state.json", "memory-ranges"])
async def test_no_shortened_file_passes(outpost: Outpost, saved: Path, name: str) -> None:
    path = saved / name
    whole = path.read_bytes()
    for size in {0, 10, len(whole) // 2, len(whole) - 1}:
        path.write_bytes(whole[:size])
        with pytest.raises(SnapshotError, match=name):
            await outpost.check_saved(saved)


def zones(config: dict[str, object]) -> None:
    config["memory"] = {"size": 0, "zones": [{"size": MEMORY}, {"size": 1}]}


def nothing(config: dict[str, object]) -> None:
    config["memory"] = {"size": 0}


def words(config: dict[str, object]) -> None:
    config["memory"] = {"size": "much"}


def bare(config: dict[str, object]) -> None:
    del config["memory"]


@pytest.mark.parametrize("change", [zones, nothing, words, bare])
async def test_memory_must_be_as_long_as_it_was(
    outpost: Outpost, saved: Path, change: Callable[[dict[str, object]], None]
) -> None:
    config = json.loads((saved / "config.json").read_text())
    change(config)
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(SnapshotError, match=r"memory"):
        await outpost.check_saved(saved)


async def test_another_kind_of_save_is_refused(outpost: Outpost, saved: Path) -> None:
    (saved / "libvirt-save.xml").write_bytes(b"LibvirtQemudSave" + bytes(100))
    with pytest.raises(SnapshotError, match="not what libvirt writes"):
        await outpost.check_saved(saved)
    (saved / "config.json").write_text("[" * 100_000)
    with pytest.raises(SnapshotError):
        await outpost.check_saved(saved)


async def test_room_is_that_of_the_place(outpost: Outpost, tmp_path: Path) -> None:
    missing = tmp_path / "not/there/yet"
    there = await outpost.room(tmp_path)
    assert there > 0
    assert abs(await outpost.room(missing) - there) < 1 << 30
