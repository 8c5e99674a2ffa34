"""Our own records: what other processes wrote into them, and what a crash left unfinished."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Container, Mapping
from typing import Final

from swarm_tui.catalogue import Catalogue, Stamp
from swarm_tui.errors import Busy, DeadlineExceeded, HostUnreachable, SwarmError
from swarm_tui.lifecycle import Lifecycle
from swarm_tui.model import (
    Agent,
    AgentId,
    HostName,
    Operation,
    OperationChanged,
    Power,
    Record,
    Recorded,
    State,
    Verb,
)
from swarm_tui.store import Store
from swarm_tui.text import literal
from swarm_tui.watch.task import Apply, Start

RECORDS_S: Final = 1.0
"""How often the catalogue is looked at for what other processes did."""
MEND_AGAIN_S: Final = 60.0
"""When mending is tried again although nothing changed, e.g. on a full disk."""
_RECORDS: Final = 50
"""Records read before the loop gets a turn."""


class RecordWatch:
    """Takes in what the catalogue says, whoever wrote it, and has mended what was cut off."""

    def __init__(
        self,
        catalogue: Catalogue,
        store: Store,
        apply: Apply,
        start: Start,
        hosts: Container[HostName],
        at_work: Container[AgentId],
        lifecycle_of: Callable[[Agent], Lifecycle | None],
        on_fault: Callable[[SwarmError], None],
    ) -> None:
        """`hosts` are those that we watch; on agents `at_work` this process does a verb.

        `lifecycle_of` gives None for agents whose host is not connected.
        """
        self._catalogue = catalogue
        self._store = store
        self._apply = apply
        self._start = start
        self._hosts = hosts
        self._at_work = at_work
        self._lifecycle_of = lifecycle_of
        self._on_fault = on_fault
        self._stamps: Mapping[AgentId, Stamp] = {}
        self._looking = asyncio.Lock()
        self.mending: dict[AgentId, asyncio.Task[None]] = {}
        """Agents that are being mended; not to be cut off."""
        self._tried: dict[AgentId, tuple[tuple[Record | None, Power | None], float]] = {}
        self._elsewhere: dict[AgentId, Verb] = {}
        """Agents on which another process has a verb at work."""
        self._foreign: dict[AgentId, Record] = {}
        """Records of hosts that we do not watch, of which one may be ours by another name."""

    async def run(self) -> None:
        """Look again and again, for ever."""
        while True:
            try:
                await self.look()
            except SwarmError as error:
                self._on_fault(error)
                await asyncio.sleep(MEND_AGAIN_S)
            await asyncio.sleep(RECORDS_S)

    async def look(self) -> None:
        """Take in what changed, and begin to mend what needs it. Raises SwarmError."""
        async with self._looking:
            stamps = await asyncio.to_thread(self._catalogue.stamps)
            changed = [
                agent
                for agent in stamps.keys() | self._stamps.keys()
                if stamps.get(agent) != self._stamps.get(agent)
            ]
            self._stamps = stamps
            for start in range(0, len(changed), _RECORDS):
                for agent in changed[start : start + _RECORDS]:
                    self.take(agent)
                await asyncio.sleep(0)
        for agent in [agent for agent in self._foreign if self._store.agent(agent)]:
            self._apply(Recorded(agent, self._foreign.pop(agent)))
        for known in self._store.agents():
            if known.record and self._needs_mending(known, known.record):
                mend = self._start(self._mend(known), f"mend {known.id}", None)
                self.mending[known.id] = mend
        for agent in list(self._elsewhere):
            gone = self._store.agent(agent)
            if not gone or not gone.record or not gone.record.verb:
                self.show_elsewhere(agent, None)

    def take(self, agent: AgentId) -> Record | None:
        """Read one record and apply it; one that cannot be read is told, and the old one stays."""
        try:
            record = self._catalogue.record(agent)
        except SwarmError as error:
            self._on_fault(error)
            return None
        self._foreign.pop(agent, None)
        if record and record.host not in self._hosts and not self._store.agent(agent):
            self._foreign[agent] = record
        else:
            self._apply(Recorded(agent, record))
        return record

    async def mended(self, agent: AgentId) -> None:
        """Wait until nobody in this process mends the agent."""
        if task := self.mending.get(agent):
            await asyncio.wait((task,))

    def show_elsewhere(self, agent: AgentId, verb: Verb | None) -> None:
        """Show that another process has a verb at work on the agent; None: that none has."""
        if verb is self._elsewhere.get(agent):
            return
        if verb is None:
            del self._elsewhere[agent]
            self._apply(OperationChanged(agent, None))
        else:
            self._elsewhere[agent] = verb
            step = literal("at work in another process")
            self._apply(OperationChanged(agent, Operation(verb, step, None, time.time())))

    def _needs_mending(self, agent: Agent, record: Record) -> bool:
        if agent.state is State.LOST or agent.id in self.mending or agent.id in self._at_work:
            return False
        power = agent.vm.power if agent.vm else None
        # A VM that runs although it is recorded as saved was started behind our back.
        if not (record.verb or (record.saved_in and power is Power.RUNNING)):
            return False
        if agent.id in self._elsewhere:
            return True  # until its lock is free: then it was cut off, or is done
        was, at = self._tried.get(agent.id, (None, 0.0))
        return was != (record, power) or time.monotonic() - at > MEND_AGAIN_S

    async def _mend(self, agent: Agent) -> None:
        try:
            with self._catalogue.lock(agent.id):
                self.show_elsewhere(agent.id, None)
                self._tried[agent.id] = (
                    (agent.record, agent.vm.power if agent.vm else None),
                    time.monotonic(),
                )
                record = self.take(agent.id)  # as it is now that nobody else can change it
                lifecycle = self._lifecycle_of(agent)
                if record and lifecycle and (record.verb or record.saved_in):
                    await lifecycle.recover(record)
        except Busy:
            self.show_elsewhere(agent.id, agent.record.verb if agent.record else None)
        except DeadlineExceeded:
            return  # the host's own state tells it
        except HostUnreachable:
            self._tried.pop(agent.id, None)  # once it is there again, at once
        except SwarmError as error:
            self._on_fault(error)
        finally:
            del self.mending[agent.id]
