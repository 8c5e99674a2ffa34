"""One process at a time has a verb at work on an agent: whoever has its row in the store.

A process that could not tell the store that it lives begins no further step, and is taken for dead
only some time later: nobody ever acts while another one takes over.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from swarm_tui.catalogue.holder import Lockfile
from swarm_tui.database import Database, Transaction
from swarm_tui.errors import Busy, ClaimLost, StorageFull, StoreError
from swarm_tui.model import AgentId, Verb
from swarm_tui.text import Safe, sanitize

_SELECT: Final = (
    "SELECT agent, verb, since, claims.process, who, place, file, beat"
    " FROM claims JOIN holders ON holders.process = claims.process"
)
_FORGOTTEN_S: Final = 86400.0
_GOING_ON: Final = {
    "message": "writing to",
    "send-back": "sending back",
    "review": "reviewing",
    "kill": "killing",
}


@dataclass(frozen=True, slots=True)
class Pace:
    """How soon a process on another machine is taken for dead."""

    beat_s: float = 2.0
    fence_s: float = 12.0
    """Without an answer for so long it begins no further step."""
    dead_s: float = 20.0
    """Not heard for so long it is dead to the others. Longer than `fence_s` by a step's begin."""
    retry_s: float = 6.0
    """How long a record that cannot be written is tried again."""


@dataclass(frozen=True, slots=True)
class Claimant:
    """Who has a verb at work on an agent."""

    agent: AgentId
    verb: Verb | None
    """None: one that this version does not know."""
    who: Safe
    since: float
    is_ours: bool
    is_alive: bool

    @property
    def told(self) -> Safe:
        """ "pat@lab is pausing it"."""
        return sanitize(f"{self.who} is {_going_on(self.verb)} it")


class Claims:
    """Those of this process, kept up by a thread while there are any."""

    def __init__(self, database: Database, lockfile: Lockfile, pace: Pace) -> None:
        self._database = database
        self._lockfile = lockfile
        self._pace = pace
        self._guard = threading.Condition()
        self._enlisting = threading.Lock()
        """Held from being known to the store to having a claim there: another verb that ends in
        between would have this process forgotten as one that holds nothing."""
        self._held: dict[AgentId, float] = {}
        """When each was last known to be ours, by a clock that goes on while a machine sleeps."""
        self._taking: set[AgentId] = set()
        self._lost: set[AgentId] = set()
        self._loose: set[AgentId] = set()
        """Not ours any more, but for a row that could not be removed yet."""
        self._keeper: threading.Thread | None = None

    @property
    def pace(self) -> Pace:
        return self._pace

    def take(self, agent: AgentId, verb: Verb) -> None:
        """Raises Busy, StoreError, StorageFull."""
        with self._guard:
            if agent in self._held or agent in self._taking:
                raise _busy("This process has one at work on it already.")
            self._taking.add(agent)
        began = _now()
        try:
            with self._database.read() as transaction:  # refused without a write, mostly
                self._check_free(transaction, agent)
            with self._enlisting:
                self._enlist()
                with self._database.write() as transaction:
                    self._insert(transaction, agent, verb)
        except BaseException as error:
            with self._guard:
                self._taking.discard(agent)
                if not isinstance(error, Busy):
                    self._loose.add(agent)  # the answer may have been lost, and not the claim
                    self._keep()
            raise
        with self._guard:
            self._taking.discard(agent)
            self._loose.discard(agent)
            self._held[agent] = began
            self._keep()

    def release(self, agent: AgentId) -> None:
        """Let go; when the store is out of reach, as soon as it is there again."""
        with self._guard:
            del self._held[agent]
            if agent in self._lost:
                self._lost.discard(agent)
                return
            self._loose.add(agent)
        with suppress(StoreError, StorageFull):
            self._let_go()
        with self._guard:
            if self._loose:
                self._keep()

    def check(self, agent: AgentId) -> None:
        """Raises ClaimLost when the agent may be somebody else's by now. Asks nobody."""
        with self._guard:
            confirmed = self._held[agent]
            is_lost = agent in self._lost
        if is_lost:
            raise _lost("Another process has taken it over.")
        if not self._is_near and _now() - confirmed > self._pace.fence_s:
            raise _lost(f"The store has not answered for {_now() - confirmed:.0f} s.")

    def confirm(self, transaction: Transaction, agent: AgentId) -> None:
        """Raises ClaimLost unless it is ours for the rest of the transaction."""
        process = self._lockfile.hold().process
        sql = "UPDATE claims SET process = process WHERE agent = ? AND process = ?"
        if transaction.run(sql, agent, process) != 1:
            with self._guard:
                self._lost.add(agent)
            raise _lost("Another process has taken it over.")

    def all(self, transaction: Transaction) -> Mapping[AgentId, Claimant]:
        rows = transaction.rows(_SELECT)
        now = transaction.now() if rows else 0.0
        return {AgentId(row[0]): self._claimant(row, now) for row in rows}

    def close(self) -> None:
        """Let go of all. Verbs have come to their end by now."""
        with self._guard:
            keeper, self._keeper = self._keeper, None
            self._guard.notify_all()
        if keeper:
            keeper.join()
        self._lockfile.close()

    @property
    def _is_near(self) -> bool:
        """All who share the store see our lock file: no heartbeat is needed."""
        return self._database.folder is not None

    def _check_free(self, transaction: Transaction, agent: AgentId) -> None:
        row = transaction.row(f"{_SELECT} WHERE agent = ?", agent)
        claimant = self._claimant(row, transaction.now()) if row else None
        if claimant and claimant.is_alive and not claimant.is_ours:
            raise _busy(f"{claimant.told}.")

    def _enlist(self) -> None:
        """Be known to the store; in a transaction of its own: no two wait for each other."""
        holder = self._lockfile.hold()
        with self._database.write() as transaction:
            now = transaction.now()
            transaction.run(
                "INSERT INTO holders (process, who, place, file, beat) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (process) DO UPDATE SET beat = excluded.beat",
                *(holder.process, holder.who, holder.place, holder.file, now),
            )

    def _insert(self, transaction: Transaction, agent: AgentId, verb: Verb) -> None:
        process, now = self._lockfile.hold().process, transaction.now()
        sql = (
            "INSERT INTO claims (agent, verb, process, since) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (agent) DO NOTHING"
        )
        transaction.touch("claim", agent)
        if transaction.run(sql, agent, verb, process, now):
            return
        row = transaction.row(f"{_SELECT} WHERE agent = ?", agent)
        if row is None:  # let go of in this very moment
            raise _busy("Another process was at work on it just now.")
        before = str(row[3])
        # Locks its row: it cannot tell that it lives between our look and our act.
        transaction.run("UPDATE holders SET beat = beat WHERE process = ?", before)
        row = transaction.row(f"{_SELECT} WHERE agent = ? AND claims.process = ?", agent, before)
        claimant = self._claimant(row, transaction.now()) if row else None
        if claimant is None or (claimant.is_alive and not claimant.is_ours):
            raise _busy(f"{claimant.told}." if claimant else "Another process has just begun one.")
        sql = "UPDATE claims SET verb = ?, process = ?, since = ? WHERE agent = ? AND process = ?"
        if transaction.run(sql, verb, process, now, agent, before) != 1:
            raise _busy("Another process has just begun one.")
        _drop_idle(transaction, before)

    def _claimant(self, row: tuple[Any, ...], now: float) -> Claimant:
        agent, verb, since, process, who, place, file, beat = row
        if self._is_near or self._lockfile.is_near(str(place)):
            is_alive = self._lockfile.is_alive(str(file))
        else:
            is_alive = now - float(beat) <= self._pace.dead_s
        return Claimant(
            AgentId(str(agent)),
            Verb(verb) if verb in list(Verb) else None,
            sanitize(str(who)),
            float(since),
            is_ours=self._lockfile.is_own(str(process)),
            is_alive=is_alive,
        )

    # The keeper

    def _keep(self) -> None:
        """See that somebody beats while there is something to keep. Within the guard."""
        if self._keeper is None and (self._loose or not self._is_near):
            self._keeper = threading.Thread(target=self._run, name="keep claims", daemon=True)
            self._keeper.start()

    def _run(self) -> None:
        while True:
            with self._guard:
                self._guard.wait_for(lambda: self._keeper is None, self._pace.beat_s)
                is_needed = self._loose or (self._held and not self._is_near)
                if self._keeper is None or not is_needed:
                    self._keeper = None
                    return
            with suppress(StoreError, StorageFull):  # tried again; until then `check` tells
                self._let_go()
                if not self._is_near:
                    self._beat()

    def _beat(self) -> None:
        process, began = self._lockfile.hold().process, _now()
        with self._guard:
            held = set(self._held)
        with self._database.write() as transaction:
            now = transaction.now()
            transaction.run("UPDATE holders SET beat = ? WHERE process = ?", now, process)
            rows = transaction.rows("SELECT agent FROM claims WHERE process = ?", process)
        ours = {row[0] for row in rows}
        with self._guard:
            for agent in held & set(self._held):
                if agent in ours:
                    self._held[agent] = max(began, self._held[agent])
                elif self._held[agent] < began:
                    self._lost.add(agent)

    def _let_go(self) -> None:
        with self._guard:
            loose = self._loose - self._held.keys() - self._taking
        if not loose:
            return
        process = self._lockfile.hold().process
        with self._enlisting, self._database.write() as transaction:
            transaction.run("UPDATE holders SET beat = beat WHERE process = ?", process)
            for agent in sorted(loose):
                sql = "DELETE FROM claims WHERE agent = ? AND process = ?"
                if transaction.run(sql, agent, process):
                    transaction.touch("claim", agent)
            _drop_idle(transaction, process)
        with self._guard:
            self._loose -= loose


def _drop_idle(transaction: Transaction, process: str) -> None:
    """Forget a process that holds nothing, and those that were cut off before they held any."""
    transaction.run(
        "DELETE FROM holders WHERE (process = ? OR beat < ?)"
        " AND NOT EXISTS (SELECT 1 FROM claims WHERE claims.process = holders.process)",
        process,
        transaction.now() - _FORGOTTEN_S,
    )


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _going_on(verb: Verb | None) -> str:
    if verb is None:
        return "acting on"
    return _GOING_ON.get(verb, f"{verb.removesuffix('e')}ing")


def _busy(detail: str) -> Busy:
    title = "Another verb is at work on this agent"
    return Busy(title, detail, "Wait until it is done, then try again.")


def _lost(why: str) -> ClaimLost:
    return ClaimLost(
        "The agent may be another supervisor's by now",
        why,
        "No further step was begun; what was cut off is mended once the store is there.",
    )
