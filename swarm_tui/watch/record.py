"""Our own records: what other supervisors wrote into them, and what a crash left unfinished."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

from swarm_tui.catalogue import Catalogue, Claim, Claimant, Update
from swarm_tui.database import Watch
from swarm_tui.errors import (
    Busy,
    ClaimLost,
    DeadlineExceeded,
    HostUnreachable,
    StoreUnreachable,
    SwarmError,
)
from swarm_tui.fact import OperationChanged, Recorded
from swarm_tui.lifecycle import PASSING, Lifecycle, claimed
from swarm_tui.model import (
    Agent,
    AgentId,
    HostName,
    Operation,
    Power,
    Record,
    State,
    Verb,
)
from swarm_tui.store import Outage, Store
from swarm_tui.text import join
from swarm_tui.watch.task import Apply, Start

TEND_S: Final = 1.0
"""How often it is looked whether an agent needs mending, also when no record changed."""
GATHER_S: Final = 0.05
"""Changes that come within this time are read together."""
MEND_AGAIN_S: Final = 60.0
"""When mending is tried again although nothing changed, e.g. on a full disk."""
FIRST_BACK_OFF_S: Final = 0.5
LAST_BACK_OFF_S: Final = 5.0
_RECORDS: Final = 50
"""Records taken in before the loop gets a turn."""


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
        lifecycle_of: Callable[[Agent, Claim], Lifecycle | None],
        reread: Callable[[Agent], Awaitable[None]],
        on_fault: Callable[[SwarmError], None],
    ) -> None:
        """`hosts` are those that we watch; on agents `at_work` this process does a verb.

        `lifecycle_of` gives None for agents whose host is not connected; `reread` has its VM
        read again.
        """
        self._catalogue = catalogue
        self._store = store
        self._apply = apply
        self._start = start
        self._hosts = hosts
        self._at_work = at_work
        self._lifecycle_of = lifecycle_of
        self._reread = reread
        self._on_fault = on_fault
        self._seq = 0
        self._is_read = False
        self._is_behind = False
        """Something was read that could not be taken in yet."""
        self._recorded: set[AgentId] = set()
        self._told: dict[AgentId, str] = {}
        """Records that cannot be read, and what was told of each."""
        self._looking = asyncio.Lock()
        self.mending: dict[AgentId, asyncio.Task[None]] = {}
        """Agents that are being mended; not to be cut off."""
        self._tried: dict[AgentId, tuple[tuple[Record | None, Power | None], float]] = {}
        self._elsewhere: dict[AgentId, Claimant] = {}
        """Agents on which another process has a verb at work."""
        self._foreign: dict[AgentId, Record] = {}
        """Records of hosts that we do not watch, of which one may be ours by another name."""

    async def run(self) -> None:
        """Look whenever something changed, for ever; and when the store was lost, again."""
        back_off_s = FIRST_BACK_OFF_S
        while True:
            began = time.monotonic()
            try:
                await self._follow()
            except SwarmError as error:
                self._show_outage(error)
            if time.monotonic() - began > LAST_BACK_OFF_S:
                back_off_s = FIRST_BACK_OFF_S
            await asyncio.sleep(back_off_s)
            back_off_s = min(LAST_BACK_OFF_S, back_off_s * 2)

    async def _follow(self) -> None:
        # A thread of its own: it waits nearly always, and others need those of the loop.
        with ThreadPoolExecutor(1, "watch store") as thread:
            loop = asyncio.get_running_loop()
            watches: list[Watch] = []
            try:
                await loop.run_in_executor(thread, lambda: watches.append(self._catalogue.watch()))
                [watch] = watches
                await self.look()
                while True:
                    is_news = await loop.run_in_executor(thread, watch.wait, TEND_S)
                    if is_news:
                        await asyncio.sleep(GATHER_S)
                    if is_news or self._elsewhere or self._is_behind:  # one may have died
                        await self.look()
                    else:
                        self._tend()
            finally:  # when cancelled, it may still be opened or waited for
                for watch in watches:
                    watch.wake()
                thread.submit(_close, watches)

    async def look(self) -> None:
        """Take in what changed, and begin to mend what needs it. Raises SwarmError."""
        async with self._looking:
            update = await asyncio.to_thread(self._catalogue.update, self._seq)
            self._is_read = True
            self._is_behind = not await self._take_in(update)
            if not self._is_behind:
                self._seq = update.seq
        self._store.note_outage(None)
        self._tend()

    async def try_look(self) -> None:
        """As `look`, before VMs are shown: a saved one must not look like a failed one."""
        try:
            await self.look()
        except SwarmError as error:
            self._show_outage(error)

    async def take(self, agent: AgentId) -> None:
        """Read one record and apply it. Raises SwarmError."""
        self._note(agent, await asyncio.to_thread(self._catalogue.record, agent))

    async def mended(self, agent: AgentId) -> None:
        """Wait until nobody in this process mends the agent."""
        if task := self.mending.get(agent):
            await asyncio.wait((task,))

    def take_over(self, agent: AgentId) -> None:
        """It is ours now: whoever had a verb at work on it has it no more."""
        if self._elsewhere.pop(agent, None):
            self._apply(OperationChanged(agent, None))

    async def _take_in(self, update: Update) -> bool:
        """Whether all of it was; what was not is to be read again."""
        is_whole, records = True, dict(update.records)
        if update.is_all:
            gone = self._recorded - records.keys() - update.problems.keys()
            records |= dict.fromkeys(gone)
        for number, (agent, record) in enumerate(records.items(), 1):
            if agent in self._at_work or agent in self.mending:
                is_whole = False  # our verb tells each change itself, and sooner
            else:
                self._note(agent, record)
            if number % _RECORDS == 0:
                await asyncio.sleep(0)
        for agent, problem in update.problems.items():
            if self._told.get(agent) != str(problem):
                self._on_fault(problem)
        self._told = {agent: str(problem) for agent, problem in update.problems.items()}
        elsewhere = {
            agent: claimant
            for agent, claimant in update.claimants.items()
            if claimant.is_alive and not claimant.is_ours
        }
        for agent in self._elsewhere.keys() - elsewhere.keys():
            self.take_over(agent)
        self._elsewhere = elsewhere
        return is_whole

    def _note(self, agent: AgentId, record: Record | None) -> None:
        self._foreign.pop(agent, None)
        if record:
            self._recorded.add(agent)
        else:
            self._recorded.discard(agent)
        if record and record.host not in self._hosts and not self._store.agent(agent):
            self._foreign[agent] = record
        else:
            self._apply(Recorded(agent, record))

    def _tend(self) -> None:
        """Show who acts elsewhere, and begin to mend what nobody acts on any more."""
        for agent in [agent for agent in self._foreign if self._store.agent(agent)]:
            self._apply(Recorded(agent, self._foreign.pop(agent)))
        for agent, claimant in self._elsewhere.items():
            known = self._store.agent(agent)
            if known and known.operation is None and claimant.verb:
                at_work = Operation(claimant.verb, claimant.told, None, claimant.since)
                self._apply(OperationChanged(agent, at_work))
        for known in self._store.agents():
            if known.record and self._needs_mending(known, known.record):
                mend = self._start(self._mend(known), f"mend {known.id}", None)
                self.mending[known.id] = mend

    def _needs_mending(self, agent: Agent, record: Record) -> bool:
        if agent.state is State.LOST or agent.id in self.mending or agent.id in self._at_work:
            return False
        power = agent.vm.power if agent.vm else None
        # A VM that runs although it is recorded as saved was started behind our back.
        if not (record.verb or (record.saved_in and power is Power.RUNNING)):
            return False
        if agent.id in self._elsewhere:
            return False
        was, at = self._tried.get(agent.id, (None, 0.0))
        return was != (record, power) or time.monotonic() - at > MEND_AGAIN_S

    async def _mend(self, agent: Agent) -> None:
        verb = agent.record.verb if agent.record else None
        try:
            if verb is None:
                await self._reread(agent)
                if self._power(agent.id) is not Power.RUNNING:
                    return  # another supervisor has just saved it
            async with claimed(self._catalogue, agent.id, verb or Verb.RESUME) as claim:
                self._tried[agent.id] = (
                    (agent.record, agent.vm.power if agent.vm else None),
                    time.monotonic(),
                )
                # As it is now that nobody else can change it.
                record = await asyncio.to_thread(claim.record, agent.id)
                self._note(agent.id, record)
                lifecycle = self._lifecycle_of(agent, claim)
                if record and lifecycle and (record.verb or record.saved_in):
                    await lifecycle.recover(record)
                    if record.verb in PASSING:  # it may run again
                        await self._reread(agent)
                if verb is Verb.SPAWN:  # then there is nothing of it any more
                    await self.take(agent.id)
                    with suppress(SwarmError):
                        await self._reread(agent)
        except (Busy, DeadlineExceeded):
            return  # another supervisor, or the host's own state, tells it
        except (HostUnreachable, StoreUnreachable, ClaimLost):
            self._tried.pop(agent.id, None)  # once it is there again, at once
        except SwarmError as error:
            self._on_fault(error)
        finally:
            del self.mending[agent.id]

    def _power(self, agent: AgentId) -> Power | None:
        known = self._store.agent(agent)
        return known.vm.power if known and known.vm else None

    def _show_outage(self, error: SwarmError) -> None:
        was = self._store.outage
        since = was.since if was else time.time()
        reason = join((error.title, error.detail), ": ")
        self._store.note_outage(Outage(since, reason, is_blind=not self._is_read))


def _close(watches: Sequence[Watch]) -> None:
    for watch in watches:
        watch.close()
