"""Which snapshots there are, in the store that all supervisors share; the files stay on the hosts.

The files decide: a snapshot that the store does not know is taken in when it is seen, one that the
store knows and the host has not is told as missing, and is never passed over.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from swarm_tui.database import Database, Row, Transaction
from swarm_tui.errors import (
    DeadlineExceeded,
    HostError,
    NotFound,
    SnapshotError,
    StorageFull,
    StoreError,
    SwarmError,
)
from swarm_tui.model import AgentId, Cause, HostName, Origin, Snapshot, SnapshotId
from swarm_tui.snapshot import Archive, Draft
from swarm_tui.text import EMPTY, Safe, sanitize

Standing = Literal["there", "missing", "unseen"]
"""On the host; not on it though it should be; the host was not asked, or does not answer."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A snapshot as the store knows it."""

    snapshot: Snapshot
    """Without the digests of its files where the host was not asked."""
    host: HostName
    place: Safe
    """Its folder; empty: nobody has told."""
    digest: str
    """Of what its manifest says, see `digest_of`."""
    standing: Standing


def digest_of(snapshot: Snapshot) -> str:
    """ "sha256:…" of what a manifest says: agent, id, time, maker, and its files' digests."""
    told = [
        snapshot.agent,
        snapshot.id,
        snapshot.name,
        snapshot.created,
        snapshot.hypervisor,
        snapshot.is_frozen,
        sorted(snapshot.digests.items()),
    ]
    return f"sha256:{hashlib.sha256(json.dumps(told).encode()).hexdigest()}"


class Inventory:
    """Everything here blocks, and raises StoreError, StorageFull."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(self, host: HostName, snapshot: Snapshot, place: str = "") -> None:
        """Take one in that is on its host."""
        with self._database.write() as transaction:
            _note(transaction, host, snapshot, place)

    def mark_going(self, agent: AgentId, snapshots: Iterable[SnapshotId]) -> None:
        """They are about to be removed from their host."""
        with self._database.write() as transaction:
            for snapshot in snapshots:
                transaction.run(
                    "UPDATE snapshots SET is_going = 1 WHERE agent = ? AND id = ?", agent, snapshot
                )

    def drop_gone(self, agent: AgentId, there: Sequence[SnapshotId]) -> None:
        """Forget those that were to be removed, and are not on their host any more."""
        with self._database.write() as transaction:
            rows = transaction.rows(
                "SELECT id FROM snapshots WHERE agent = ? AND is_going = 1", agent
            )
            for [snapshot] in rows:
                if snapshot not in there:
                    transaction.run(
                        "DELETE FROM snapshots WHERE agent = ? AND id = ?", agent, snapshot
                    )
            transaction.touch("snapshot", agent)

    def total_bytes(self) -> int:
        """What all of them together take up, as far as it is known."""
        with self._database.read() as transaction:
            row = transaction.row("SELECT sum(size_bytes) FROM snapshots WHERE is_going = 0")
        return int(row[0] or 0) if row else 0

    def known(self, agent: AgentId) -> Sequence[Kept]:
        """Those of an agent, oldest first; none of them was looked for."""
        with self._database.read() as transaction:
            rows = transaction.rows(
                "SELECT id, host, place, name, created, size_bytes, hypervisor, is_frozen, digest,"
                " cause, told, made_by, title, is_pinned FROM snapshots"
                " WHERE agent = ? AND is_going = 0 ORDER BY id",
                agent,
            )
        return [_kept(agent, row) for row in rows]

    def look(
        self, archive: Archive, agent: AgentId, host: HostName
    ) -> tuple[Sequence[Kept], SwarmError | None]:
        """Those of an agent, oldest first, and why they could not be looked for on the host."""
        try:
            there = [archive.read(agent, snapshot) for snapshot in archive.ids(agent)]
        except (HostError, DeadlineExceeded, SnapshotError, NotFound) as error:
            return self.known(agent), error
        return self.compare(agent, host, there), None

    def compare(self, agent: AgentId, host: HostName, there: Sequence[Snapshot]) -> Sequence[Kept]:
        """Those of an agent, oldest first, by what is on the host; what is new is taken in.

        Only those that are known to be on that host can be missing there.
        """
        known = {kept.snapshot.id: kept for kept in self.known(agent)}
        with self._database.write() as transaction:
            for snapshot in there:
                if snapshot.id not in known or _is_relabelled(
                    known[snapshot.id].snapshot, snapshot
                ):
                    _note(transaction, host, snapshot, "")
        found = {
            snapshot.id: Kept(
                snapshot,
                host,
                known[snapshot.id].place if snapshot.id in known else EMPTY,
                digest_of(snapshot),
                "there",
            )
            for snapshot in there
        }
        for name, kept in known.items():
            if name not in found:
                found[name] = replace(kept, standing="missing") if kept.host == host else kept
        return [found[name] for name in sorted(found)]


def indexed(archive: Archive, inventory: Inventory, host: HostName) -> Archive:
    """`archive`, which keeps the inventory up."""
    return cast(Archive, _Indexed(archive, inventory, host))


class _Indexed:
    def __init__(self, archive: Archive, inventory: Inventory, host: HostName) -> None:
        self._archive = archive
        self._inventory = inventory
        self._host = host

    def __getattr__(self, name: str) -> Any:
        return getattr(self._archive, name)

    def seal(self, agent: AgentId, draft: Draft) -> Snapshot:
        snapshot = self._archive.seal(agent, draft)
        with suppress(StoreError, StorageFull):  # taken in when it is seen again
            self._inventory.note(self._host, snapshot, str(draft.folder.with_name(draft.id)))
        return snapshot

    def label(self, agent: AgentId, snapshot: SnapshotId, title: str, is_pinned: bool) -> Snapshot:
        labelled = self._archive.label(agent, snapshot, title, is_pinned)
        self._inventory.note(self._host, labelled)
        return labelled

    def prune(self, agent: AgentId, doomed: Sequence[SnapshotId]) -> Sequence[SnapshotId]:
        there = self._archive.ids(agent)
        known = {kept.snapshot.id for kept in self._inventory.known(agent)}
        for snapshot in there:
            if snapshot not in known:
                self._inventory.note(self._host, self._archive.read(agent, snapshot))
        if going := [snapshot for snapshot in there if snapshot in doomed]:
            self._inventory.mark_going(agent, going)
        if removed := self._archive.prune(agent, doomed):
            self._inventory.drop_gone(agent, self._archive.ids(agent))
        return removed

    def remove(self, agent: AgentId) -> None:
        # An agent's end does not wait for the store: what it keeps would be told as missing.
        with suppress(StoreError, StorageFull):
            self._inventory.mark_going(agent, self._archive.ids(agent))
        self._archive.remove(agent)
        with suppress(StoreError, StorageFull):
            self._inventory.drop_gone(agent, ())


def _is_relabelled(known: Snapshot, found: Snapshot) -> bool:
    return (known.title, known.is_pinned) != (found.title, found.is_pinned)


def _note(transaction: Transaction, host: HostName, snapshot: Snapshot, place: str) -> None:
    transaction.run(
        "INSERT INTO snapshots (agent, id, host, place, name, created, size_bytes, hypervisor,"
        " is_frozen, digest, is_going, cause, told, made_by, title, is_pinned)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?)"
        " ON CONFLICT (agent, id) DO UPDATE SET is_going = 0, title = excluded.title,"
        " is_pinned = excluded.is_pinned",
        snapshot.agent,
        snapshot.id,
        host,
        sanitize(place),
        snapshot.name,
        snapshot.created,
        snapshot.size_bytes,
        sanitize(snapshot.hypervisor),
        int(snapshot.is_frozen),
        digest_of(snapshot),
        snapshot.origin.cause,
        snapshot.origin.told,
        snapshot.origin.by,
        snapshot.title,
        int(snapshot.is_pinned),
    )
    transaction.touch("snapshot", snapshot.agent)


def _kept(agent: AgentId, row: Row) -> Kept:
    snapshot = Snapshot(
        id=SnapshotId(sanitize(str(row[0]))),
        agent=agent,
        name=sanitize(str(row[3])),
        created=float(row[4]),
        size_bytes=int(row[5]),
        hypervisor=sanitize(str(row[6])),
        is_frozen=bool(row[7]),
        digests={},
        origin=Origin(
            Cause(row[9]) if row[9] in tuple(Cause) else Cause.PAUSE,
            sanitize(str(row[10])),
            sanitize(str(row[11])),
        ),
        title=sanitize(str(row[12])),
        is_pinned=bool(row[13]),
    )
    host = HostName(sanitize(str(row[1])))
    return Kept(snapshot, host, sanitize(str(row[2])), sanitize(str(row[8])), "unseen")
