"""Records and claims in the shared store, and the folders of agents on this machine.

Everything here blocks, and may be called from any thread but not from the event loop.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from swarm_tui import durable
from swarm_tui.catalogue.claims import Claimant, Claims, Pace
from swarm_tui.catalogue.holder import Lockfile
from swarm_tui.catalogue.record import SELECT, insert, read_file, read_row, replace_row
from swarm_tui.database import Database, Watch
from swarm_tui.errors import NotFound, StoreUnreachable, SwarmError
from swarm_tui.model import AgentId, Record, Verb

T = TypeVar("T")

_FILE: Final = "record.json"
_AGAIN_S: Final = 0.1
_MANY: Final = 50
"""Records of which all are read rather than one by one."""


@dataclass(frozen=True, slots=True)
class Update:
    """What changed in the store since some moment."""

    seq: int
    """The moment to ask from the next time."""
    records: Mapping[AgentId, Record | None]
    """None: it was removed."""
    is_all: bool
    """`records` are all that there are."""
    claimants: Mapping[AgentId, Claimant]
    """All, not only those that changed."""
    problems: Mapping[AgentId, SwarmError]
    """Records that cannot be read; they are not among `records`."""


class Catalogue:
    """All agents of all supervisors that share the store.

    Methods raise StoreError and StorageFull, besides what they say.
    """

    def __init__(
        self,
        database: Database,
        root: Path,
        *,
        who: str = "",
        place: str = "",
        pace: Pace | None = None,
    ) -> None:
        """`root` holds the folders of agents on this machine.

        `who` and `place` are as in `Lockfile`: we ourselves and here, unless told otherwise.
        """
        self.database = database
        self._root = root
        self._claims = Claims(
            database,
            Lockfile((database.folder or root.parent) / "holders", who, place),
            pace or Pace(),
        )
        self._importing = threading.Lock()
        self._is_imported = False
        self._damaged: dict[AgentId, SwarmError] = {}
        """Agents whose record is in a file of an earlier version that cannot be read."""

    # Records

    def records(self, on_error: Callable[[SwarmError], None] | None = None) -> Sequence[Record]:
        """Every record.

        One that cannot be read is told to `on_error` and left out; without it, SwarmError is
        raised.
        """
        update = self.update(0)
        for problem in update.problems.values():
            if on_error is None:
                raise problem
            on_error(problem)
        return [record for _, record in sorted(update.records.items()) if record]

    def record(self, agent: AgentId) -> Record | None:
        """One record, None when there is none. Raises SwarmError when it cannot be read."""
        self._check_import(agent)
        with self.database.read() as transaction:
            row = transaction.row(f"{SELECT} WHERE agent = ?", agent)
        return read_row(row, self.database.place) if row else None

    def write(self, record: Record, claims: Claims | None = None) -> Record:
        """Replace the record, durably; returns it with `since` set.

        With `claims`: only while the agent is ours by them; raises ClaimLost.
        """
        self._check_import(record.id)
        with self.database.write() as transaction:
            if claims:
                claims.confirm(transaction, record.id)
            row = transaction.row(f"{SELECT} WHERE agent = ?", record.id)
            was = read_row(row, self.database.place) if row else None
            if was is None or (was.is_frozen, was.saved_in) != (record.is_frozen, record.saved_in):
                record = replace(record, since=transaction.now())
            else:
                record = replace(record, since=was.since)
            replace_row(transaction, record)
            transaction.touch("record", record.id)
        return record

    def remove(self, agent: AgentId, claims: Claims | None = None) -> None:
        """Remove all that is kept of an agent here and in the store. `claims` as for `write`."""
        folder = self.folder(agent)
        self._import()
        with self.database.write() as transaction:
            if claims:
                claims.confirm(transaction, agent)
            transaction.run("DELETE FROM records WHERE agent = ?", agent)
            transaction.touch("record", agent)
        with durable.storage("remove the agent's record"):
            (folder / _FILE).unlink(missing_ok=True)
        self._damaged.pop(agent, None)
        # The rest is its log, to which another process may be writing in this very moment.
        shutil.rmtree(folder, ignore_errors=True)

    def update(self, since: int) -> Update:
        """What changed after `since`, whoever did it; 0: everything."""
        self._import()
        problems = dict(self._damaged)
        records: dict[AgentId, Record | None] = {}
        with self.database.read() as transaction:
            changes = transaction.changes(since)
            changed = {AgentId(key) for topic, key in changes.keys if topic == "record"}
            if changes.is_all or len(changed) > _MANY:
                rows = list(transaction.rows(SELECT))
            else:
                found = (transaction.row(f"{SELECT} WHERE agent = ?", one) for one in changed)
                rows = [row for row in found if row]
            claimants = self._claims.all(transaction)
        if not changes.is_all:
            records |= dict.fromkeys(changed)
        for row in rows:
            if not changes.is_all and row[0] not in changed:
                continue
            try:
                record = read_row(row, self.database.place)
            except SwarmError as error:
                problems[AgentId(row[0])] = error
            else:
                records[record.id] = record
        for agent in problems:
            records.pop(agent, None)
        return Update(changes.seq, records, changes.is_all, claimants, problems)

    def watch(self) -> Watch:
        """Notice that there is something to `update`."""
        return self.database.watch()

    # Claims

    def claim(self, agent: AgentId, verb: Verb) -> Claim:
        """Hold the agent against verbs of this and other processes. Raises Busy."""
        self.folder(agent)
        self._claims.take(agent, verb)
        return Claim(self, self._claims, agent)

    def claimants(self) -> Mapping[AgentId, Claimant]:
        """Who has a verb at work on which agent."""
        with self.database.read() as transaction:
            return self._claims.all(transaction)

    @property
    def root(self) -> Path:
        """Of the folders of agents on this machine."""
        return self._root

    def folder(self, agent: AgentId) -> Path:
        """The agent's folder; it may not exist. Raises NotFound for an id that is no name."""
        if not agent or "/" in agent or agent.startswith("."):
            raise NotFound("No such agent", repr(agent))
        return self._root / agent

    def close(self) -> None:
        """Let go of the store and of what is held in it."""
        self._claims.close()
        self.database.close()

    # Records of earlier versions, one file an agent

    def _check_import(self, agent: AgentId) -> None:
        """Raises SwarmError for an agent whose file cannot be read."""
        folder = self.folder(agent)
        self._import()
        if agent in self._damaged:
            self._take_in({agent: folder / _FILE})
            if problem := self._damaged.get(agent):
                raise problem

    def _import(self) -> None:
        """Take in what an earlier version left; what the store has goes before it."""
        if self._is_imported:
            return
        with self._importing:
            if not self._is_imported:
                self._take_in(self._files())
                self._is_imported = True

    def _files(self) -> Mapping[AgentId, Path]:
        with durable.storage("read the agents' records"):
            try:
                names = os.listdir(self._root)
            except FileNotFoundError:
                return {}
        paths = {AgentId(name): self._root / name / _FILE for name in names}
        return {agent: path for agent, path in paths.items() if path.exists()}

    def _take_in(self, files: Mapping[AgentId, Path]) -> None:
        found: dict[AgentId, Record] = {}
        for agent, path in files.items():
            self._damaged.pop(agent, None)
            try:
                found[agent] = read_file(agent, path)
            except FileNotFoundError:
                continue
            except SwarmError as error:
                self._damaged[agent] = error
        if not found:
            return
        with self.database.write() as transaction:
            for record in found.values():
                if insert(transaction, record):
                    transaction.touch("record", record.id)
        for agent in found:
            with durable.storage("put the agent's old record aside"):
                path = files[agent]
                path.rename(path.with_name(f"{_FILE}.imported"))


class Claim:
    """An agent that is ours until this is released; a context manager that releases it."""

    def __init__(self, catalogue: Catalogue, claims: Claims, agent: AgentId) -> None:
        self._catalogue = catalogue
        self._claims = claims
        self._agent = agent
        self._is_released = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def release(self) -> None:
        """Let others have it. Done already is fine; a store out of reach is no failure."""
        if not self._is_released:
            self._is_released = True
            self._claims.release(self._agent)

    def check(self) -> None:
        """Raises ClaimLost when it may be another's by now. Does not block."""
        self._claims.check(self._agent)

    def record(self, agent: AgentId) -> Record | None:
        """As that of the catalogue."""
        return self._catalogue.record(agent)

    def write(self, record: Record) -> Record:
        """As that of the catalogue, while the agent is ours; tried for some time."""
        return self._persist(lambda: self._catalogue.write(record, self._claims))

    def remove(self, agent: AgentId) -> None:
        """As that of the catalogue, while the agent is ours; tried for some time."""
        self._persist(lambda: self._catalogue.remove(agent, self._claims))

    def _persist(self, work: Callable[[], T]) -> T:
        """What is done already must be written down, if it can be at all."""
        deadline = time.monotonic() + self._claims.pace.retry_s
        while True:
            self.check()
            try:
                return work()
            except StoreUnreachable:
                if time.monotonic() >= deadline:
                    raise
            time.sleep(_AGAIN_S)
