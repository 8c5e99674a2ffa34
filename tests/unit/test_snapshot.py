"""Snapshots on disk: whole or not there, never taken for more than they are, kept as promised."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from swarm_tui import durable
from swarm_tui.errors import SnapshotError, SwarmError
from swarm_tui.model import AgentId, Record, Snapshot, SnapshotId
from swarm_tui.snapshot import Draft, Snapshots
from swarm_tui.text import literal

from .standin import AGENT, HOST

MAKER = "STANDIN 1.0"


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    disk = tmp_path / "[odd] *name.img"
    disk.write_text("the agent's work")
    return disk


@pytest.fixture
def snapshots(tmp_path: Path) -> Snapshots:
    return Snapshots(tmp_path / "snapshots")


def begin(snapshots: Snapshots, disk: Path) -> Draft:
    draft = snapshots.draft(AGENT)
    record = Record(AGENT, literal("ember"), HOST, is_frozen=True)
    snapshots.plan(draft, record, "<domain/>", MAKER, [disk])
    return draft


def make(snapshots: Snapshots, disk: Path) -> Snapshot:
    draft = begin(snapshots, disk)
    draft.memory.write_text("all that it thinks")
    return snapshots.seal(AGENT, draft)


def folder(tmp_path: Path, snapshot: SnapshotId) -> Path:
    return tmp_path / "snapshots" / AGENT / snapshot


def test_a_snapshot_is_read_as_it_was_made(snapshots: Snapshots, disk: Path) -> None:
    made = make(snapshots, disk)
    assert snapshots.read(AGENT, made.id) == made
    assert (made.name, made.hypervisor, made.is_frozen) == ("ember", MAKER, True)
    assert made.size_bytes > 0
    assert snapshots.definition(AGENT, made.id) == "<domain/>"
    assert not disk.exists()
    memory = snapshots.stage(AGENT, made.id)
    assert memory.read_text() == "all that it thinks"
    assert disk.read_text() == "the agent's work"
    snapshots.unstage(AGENT, made.id)
    assert not disk.exists()


def test_a_folder_of_memory_is_kept_whole(snapshots: Snapshots, disk: Path) -> None:
    """Cloud Hypervisor saves into a folder."""
    draft = begin(snapshots, disk)
    draft.memory.mkdir()
    for name in ("config.json", "state.json", "memory-ranges", "manifest.json", ".hidden"):
        (draft.memory / name).write_text(name)
    made = snapshots.seal(AGENT, draft)
    assert {"memory/manifest.json", "memory/.hidden", "memory/state.json"} <= made.digests.keys()
    snapshots.verify(AGENT, made.id, MAKER)


@pytest.mark.parametrize("part", ["memory", "disk", "definition.xml"])
def test_a_draft_that_lacks_a_part_becomes_no_snapshot(
    snapshots: Snapshots, disk: Path, part: str
) -> None:
    draft = begin(snapshots, disk)
    draft.memory.write_text("all that it thinks")
    (disk if part == "disk" else draft.folder / part).unlink()
    with pytest.raises(SnapshotError):
        snapshots.seal(AGENT, draft)
    assert not snapshots.ids(AGENT)
    snapshots.put_back(draft)
    assert disk.exists() is (part != "disk")


def alter(path: Path) -> None:
    path.write_text(path.read_text()[::-1])


def cut(path: Path) -> None:
    path.write_text(path.read_text()[:-1])


@pytest.mark.parametrize("name", ["memory", "disk-0", "definition.xml"])
@pytest.mark.parametrize("damage", [alter, cut, Path.unlink])
def test_an_altered_snapshot_is_not_restored(
    snapshots: Snapshots, disk: Path, tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    made = make(snapshots, disk)
    damage(folder(tmp_path, made.id) / name)
    with pytest.raises(SnapshotError, match="not whole") as raised:
        snapshots.verify(AGENT, made.id, MAKER)
    assert name in raised.value.detail
    assert "nothing removed" in raised.value.hint


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"format": 1}',
        '{"format": 1, "disks": []}',
        '{"format": 1, "disks": {}, "files": []}',
        '{"format": 1, "disks": {}, "files": {"memory": 3}}',
        '{"format": 1, "disks": {"disk-0": "/x"}, "files": {}}',
        '{"format": 2, "disks": {}, "files": {}}',
    ],
)
def test_a_damaged_manifest_is_an_error_and_no_fault(
    snapshots: Snapshots, disk: Path, tmp_path: Path, content: str
) -> None:
    made = make(snapshots, disk)
    (folder(tmp_path, made.id) / "manifest.json").write_text(content)
    with pytest.raises(SwarmError):
        snapshots.verify(AGENT, made.id, MAKER)


def test_a_snapshot_is_of_its_agent_only(snapshots: Snapshots, disk: Path, tmp_path: Path) -> None:
    made = make(snapshots, disk)
    other = AgentId("6f1c7b0e-0000-4000-8000-000000000002")
    (tmp_path / "snapshots" / AGENT).rename(tmp_path / "snapshots" / other)
    with pytest.raises(SnapshotError, match="not whole") as raised:
        snapshots.verify(other, made.id, MAKER)
    assert "another agent" in raised.value.detail


def test_only_what_is_named_is_removed(snapshots: Snapshots, disk: Path) -> None:
    made = []
    for _ in range(5):
        disk.write_text("the agent's work")
        made.append(make(snapshots, disk).id)
    assert snapshots.ids(AGENT) == made, "they do not sort by age"
    draft = begin(snapshots, disk)
    snapshots.prune(AGENT, made[1:3])
    assert snapshots.ids(AGENT) == [made[0], made[3], made[4]]
    snapshots.prune(AGENT, made[1:])
    assert snapshots.ids(AGENT) == [made[0]]
    assert [kept.id for kept in snapshots.drafts(AGENT)] == [draft.id]
    snapshots.prune(AGENT, made)
    assert not snapshots.ids(AGENT)


def test_a_snapshot_that_was_half_removed_is_none(
    snapshots: Snapshots, disk: Path, tmp_path: Path
) -> None:
    made = make(snapshots, disk)
    kept = folder(tmp_path, made.id)
    kept.rename(kept.with_name(f"{made.id}.removed"))
    assert not snapshots.ids(AGENT)
    snapshots.prune(AGENT, [])
    assert not list(kept.parent.iterdir())


def test_a_draft_that_holds_the_only_disk_is_not_discarded(
    snapshots: Snapshots, disk: Path
) -> None:
    draft = begin(snapshots, disk)
    disk.rename(draft.folder / "disk-0")
    with pytest.raises(SnapshotError, match="holds the agent's disk"):
        snapshots.discard(draft)
    snapshots.put_back(draft)
    snapshots.discard(draft)
    assert disk.read_text() == "the agent's work"
    assert not snapshots.drafts(AGENT)


def test_a_disk_is_not_put_back_over_another(snapshots: Snapshots, disk: Path) -> None:
    draft = begin(snapshots, disk)
    disk.rename(draft.folder / "disk-0")
    disk.write_text("somebody else's")
    with pytest.raises(SnapshotError, match="A disk stands"):
        snapshots.put_back(draft)
    assert disk.read_text() == "somebody else's"
    assert (draft.folder / "disk-0").read_text() == "the agent's work"


def test_a_draft_set_aside_is_still_one(snapshots: Snapshots, disk: Path) -> None:
    draft = begin(snapshots, disk)
    aside = snapshots.set_aside(draft)
    assert not draft.folder.exists()
    assert snapshots.drafts(AGENT) == [aside]
    aside.memory.write_text("all that it thinks")
    assert snapshots.seal(AGENT, aside).id == draft.id


def test_plans_are_readable_by_people(snapshots: Snapshots, disk: Path) -> None:
    draft = begin(snapshots, disk)
    plan = json.loads((draft.folder / "plan.json").read_text())
    assert plan["disks"] == {"disk-0": str(disk)}
    assert plan["hypervisor"] == MAKER


def test_memory_written_beside_the_draft_comes_to_it_and_is_never_left_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = tmp_path / "beside"
    beside.mkdir()
    monkeypatch.setattr(durable, "_IN_MEMORY", beside)
    snapshots = Snapshots(tmp_path / "snapshots")
    draft = snapshots.draft(AGENT)
    scratch = snapshots.scratch(draft, 1)
    assert scratch.is_relative_to(beside)
    scratch.write_bytes(b"memory")
    snapshots.take_in(draft, scratch)
    assert draft.memory.read_bytes() == b"memory"
    assert not list(beside.iterdir())

    cut = snapshots.draft(AGENT)
    snapshots.scratch(cut, 1).write_bytes(b"memory")
    snapshots.discard(cut)
    assert not list(beside.iterdir())
    assert snapshots.scratch(snapshots.draft(AGENT), 1 << 60).is_relative_to(tmp_path / "snapshots")
