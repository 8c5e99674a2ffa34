"""The list of snapshots in the store follows the files, and tells where they differ."""

from __future__ import annotations

import shutil
from contextlib import closing, suppress
from pathlib import Path

import pytest
from cut import away, cut_at

from swarm_tui.database import Database, open_database
from swarm_tui.errors import StoreUnreachable
from swarm_tui.inventory import Inventory, digest_of, indexed
from swarm_tui.model import HostName, Record, Snapshot, SnapshotId
from swarm_tui.snapshot import Archive, Snapshots
from swarm_tui.text import literal

from .standin import AGENT, HOST


class Host:
    """A folder of snapshots, and what the store knows of them."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder = folder
        self.files = Snapshots(folder / "snapshots")
        self.inventory = Inventory(database)
        self.archive: Archive = indexed(self.files, self.inventory, HOST)

    def seal(self, archive: Archive | None = None) -> Snapshot:
        archive = archive or self.archive
        draft = archive.draft(AGENT)
        disk = self.folder / "disk.raw"
        disk.write_bytes(b"disk")
        draft.memory.write_bytes(b"memory")
        record = Record(AGENT, literal("ember"), HOST, is_frozen=True)
        archive.plan(draft, record, "<domain/>", "STANDIN 1.0", [disk])
        return archive.seal(AGENT, draft)

    def compared(self) -> list[tuple[SnapshotId, str]]:
        """What the store tells of them, with the files at hand."""
        there = [self.files.read(AGENT, name) for name in self.files.ids(AGENT)]
        found = self.inventory.compare(AGENT, HOST, there)
        return [(kept.snapshot.id, kept.standing) for kept in found]

    def known(self) -> list[SnapshotId]:
        return [kept.snapshot.id for kept in self.inventory.known(AGENT)]


@pytest.fixture
def host(tmp_path: Path, database: Database) -> Host:
    return Host(tmp_path, database)


def test_a_sealed_snapshot_is_known_without_its_host(host: Host) -> None:
    made = host.seal()
    [kept] = host.inventory.known(AGENT)
    assert (kept.standing, kept.host) == ("unseen", HOST)
    assert kept.place == str(host.folder / "snapshots" / AGENT / made.id)
    known = kept.snapshot
    assert (known.id, known.name, known.created) == (made.id, "ember", made.created)
    assert (known.size_bytes, known.hypervisor) == (made.size_bytes, "STANDIN 1.0")
    assert known.is_frozen
    assert kept.digest == digest_of(made)
    assert host.compared() == [(made.id, "there")]


def test_pruned_and_removed_ones_are_forgotten(host: Host) -> None:
    made = [host.seal().id for _ in range(4)]
    assert host.archive.prune(AGENT, made[1:3]) == made[1:3]
    assert host.known() == host.files.ids(AGENT) == [made[0], made[3]]
    host.archive.remove(AGENT)
    assert host.known() == host.files.ids(AGENT) == []
    assert host.compared() == []


def test_one_that_the_store_missed_is_taken_in(host: Host, database: Database) -> None:
    with away(database):
        made = host.seal()
        with pytest.raises(StoreUnreachable):
            host.archive.prune(AGENT, [made.id])
    assert host.files.ids(AGENT) == [made.id], "none goes that the store cannot be told of"
    assert host.known() == []
    assert host.compared() == [(made.id, "there")]
    assert host.known() == [made.id]
    other = host.seal(host.files)
    host.archive.prune(AGENT, [])
    assert host.known() == [made.id, other.id]


def test_one_that_is_gone_from_its_host_is_told_again_and_again(host: Host) -> None:
    made, other = host.seal(), host.seal()
    shutil.rmtree(host.folder / "snapshots" / AGENT / made.id)
    for _ in range(2):
        assert host.compared() == [(made.id, "missing"), (other.id, "there")]
    host.archive.prune(AGENT, [])
    assert host.compared()[0] == (made.id, "missing")


def test_one_of_another_host_is_not_missing_on_this_one(host: Host) -> None:
    made = host.seal()
    found = host.inventory.compare(AGENT, HostName("elsewhere"), [])
    assert [(kept.snapshot.id, kept.standing) for kept in found] == [(made.id, "unseen")]


@pytest.mark.parametrize("change", range(1, 7))
def test_a_store_that_is_cut_off_under_a_removal_tells_nothing_wrong(
    host: Host, database: Database, change: int
) -> None:
    doomed = [host.seal().id for _ in range(3)][:2]
    with cut_at(database, change), suppress(StoreUnreachable):
        host.archive.prune(AGENT, doomed)
    assert all(standing == "there" for _, standing in host.compared())
    host.archive.prune(AGENT, doomed)
    assert host.compared() == [(name, "there") for name in host.files.ids(AGENT)]
    assert len(host.known()) == 1


def test_hostile_text_in_the_store_is_safe(host: Host, database: Database) -> None:
    host.seal()
    with database.write() as transaction:
        assert transaction.run("UPDATE snapshots SET name = ?, place = ?", "\x1b[2J", "\u202e")
    [kept] = host.inventory.known(AGENT)
    assert (kept.snapshot.name, kept.place) == ("␛[2J", "\ufffd")


def test_another_supervisor_knows_them_too(host: Host, store_url: str) -> None:
    made = host.seal()
    with closing(open_database(store_url)) as own:
        [kept] = Inventory(own).known(AGENT)
    assert kept.snapshot.id == made.id
