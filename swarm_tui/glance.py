"""One reading of all hosts without a supervisor, for commands that only look.

What guests said is taken from what a supervisor spooled; its age is told, and no guest is asked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Container, Sequence
from dataclasses import dataclass

from swarm_tui import spool
from swarm_tui.bootstrap import make_hypervisors, open_catalogue
from swarm_tui.catalogue import Update
from swarm_tui.config import Loaded
from swarm_tui.errors import NotFound, StoreError, SwarmError
from swarm_tui.fact import GuestHeard, HostSeen, Listed, OperationChanged, Recorded
from swarm_tui.model import Agent, Host, HostName, HostState, Operation
from swarm_tui.ports import Hypervisor
from swarm_tui.store import Outage, Store
from swarm_tui.text import sanitize

SPOOL_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Glance:
    store: Store
    errors: Sequence[SwarmError]
    """One for each host that could not be read."""

    def find(self, wanted: str) -> Agent:
        """An agent by name, HOST/NAME, id, or the beginning of an id. Raises NotFound."""
        agent = find(self.store.agents(), wanted)
        if agent:
            return agent
        if self.errors:
            raise self.errors[0]
        raise NotFound("No such agent", wanted, "`swarm-tui ls` shows all.")

    def find_surely(self, wanted: str) -> Agent:
        """As `find`, for something that acts: a host that was not read may have that name, too."""
        agent = self.find(wanted)
        if self.errors and not is_named_fully([agent], wanted):
            raise NotFound(
                f"{wanted} may not be the only one",
                f"{self.errors[0]}",
                f"{agent.host}/{agent.name} and {agent.id} are sure names.",
            )
        return agent


def is_named_fully(agents: Sequence[Agent], wanted: str) -> bool:
    """Whether `wanted` is one of these agents, whatever others there are: HOST/NAME or an id."""
    return any(wanted in (agent.id, f"{agent.host}/{agent.name}") for agent in agents)


def find(agents: Sequence[Agent], wanted: str) -> Agent | None:
    """The one agent that `wanted` names, None when none does. Raises NotFound for several."""
    host, _, name = wanted.rpartition("/")
    named = [
        agent
        for agent in agents
        if agent.id == wanted or (agent.name == name and host in ("", agent.host))
    ]
    found = named or [agent for agent in agents if len(wanted) >= 4 and agent.id.startswith(wanted)]
    if len(found) > 1:
        raise NotFound(
            f"{wanted} names {len(found)} agents",
            ", ".join(f"{agent.host}/{agent.name} ({agent.id[:8]})" for agent in found),
            "Use HOST/NAME or the id.",
        )
    return found[0] if found else None


async def glance(loaded: Loaded, connect: str | None) -> Glance:
    """Read every host once, side by side; one that does not answer costs only its own agents."""
    store = Store()
    hypervisors = make_hypervisors(loaded, connect)
    results = await asyncio.gather(
        *(_read(store, hypervisor) for hypervisor in hypervisors), return_exceptions=True
    )
    errors: list[SwarmError] = []
    for result in results:
        if isinstance(result, SwarmError):
            errors.append(result)
        elif result is not None:
            raise result
    catalogue = open_catalogue(loaded)
    try:
        update = catalogue.update(0)
    except StoreError as error:
        errors.append(error)
        store.note_outage(Outage(time.time(), error.title, is_blind=True))
    else:
        errors += update.problems.values()
        _take_in(store, update, {hypervisor.host for hypervisor in hypervisors})
    finally:
        catalogue.close()
    for agent in store.agents():
        batch, _ = spool.read(catalogue.folder(agent.id), SPOOL_BYTES)
        if batch.events:
            store.apply(GuestHeard(agent.id, batch))
    return Glance(store, errors)


def _take_in(store: Store, update: Update, hosts: Container[HostName]) -> None:
    for record in filter(None, update.records.values()):
        # A host may have been called otherwise when it was written.
        if record.host in hosts or store.agent(record.id):
            store.apply(Recorded(record.id, record))
    for agent, claimant in update.claimants.items():
        if claimant.is_alive and claimant.verb:
            at_work = Operation(claimant.verb, claimant.told, None, claimant.since)
            store.apply(OperationChanged(agent, at_work))


async def _read(store: Store, hypervisor: Hypervisor) -> None:
    now = time.time()
    host = Host(hypervisor.host, sanitize(hypervisor.uri), HostState.UP, now)
    try:
        capabilities = await hypervisor.open(lambda hint: None)
        vms = await hypervisor.list()
    except SwarmError as error:
        store.apply(
            HostSeen(
                Host(
                    hypervisor.host,
                    sanitize(hypervisor.uri),
                    HostState.DOWN,
                    now,
                    sanitize(str(error)),
                )
            )
        )
        raise
    finally:
        await hypervisor.close()
    store.apply(
        HostSeen(Host(host.name, host.uri, HostState.UP, now, seen=now, capabilities=capabilities))
    )
    store.apply(Listed(hypervisor.host, tuple(vms), 0))
