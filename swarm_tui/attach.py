"""`shell`: one guest, straight over SSH, beside whatever supervisor may run."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing, suppress

from swarm_tui.audit import Outcome
from swarm_tui.bootstrap import make_guest, open_audit, open_catalogue, open_database
from swarm_tui.catalogue.shells import BEAT_S, Shells
from swarm_tui.config import Loaded
from swarm_tui.errors import Busy, Refused, StorageFull, StoreError, SwarmError
from swarm_tui.glance import Glance
from swarm_tui.model import AgentId, Verb
from swarm_tui.person import login
from swarm_tui.policy import Deny, decide


@asynccontextmanager
async def announced(loaded: Loaded, agent: AgentId) -> AsyncIterator[None]:
    """Tell that a shell is open, as well as the store can be reached: a person goes first."""
    shells = Shells(open_database(loaded))
    shell: str | None = None
    with suppress(StoreError, StorageFull):
        shell = await asyncio.to_thread(shells.open, agent, login())
        # Told first, then looked: of a rule that ends it in this moment one sees the other.
        with closing(open_catalogue(loaded)) as catalogue:
            claimants = await asyncio.to_thread(catalogue.claimants)
        if agent in claimants and claimants[agent].verb is Verb.END and claimants[agent].is_alive:
            await asyncio.to_thread(shells.close, shell)
            raise Busy("No shell can be opened now", claimants[agent].told, "Its result is kept.")
    beating = asyncio.create_task(_beat(shells, shell), name="tell of the shell") if shell else None
    try:
        yield
    finally:
        if beating and shell:
            beating.cancel()
            with suppress(StoreError, StorageFull):
                await asyncio.to_thread(shells.close, shell)


async def _beat(shells: Shells, shell: str) -> None:
    while True:
        await asyncio.sleep(BEAT_S)
        with suppress(StoreError, StorageFull):
            await asyncio.to_thread(shells.beat, shell)


async def attach(
    loaded: Loaded,
    connect: str | None,
    seen: Glance,
    wanted: str,
    command: Sequence[str],
    user: str | None,
) -> int:
    """Join the terminal to a shell, or run one command; on the audit log like every verb."""
    agent = seen.find_surely(wanted)
    host = seen.store.host(agent.host)
    decision = decide(Verb.SHELL, agent, host.capabilities if host else None)
    address = agent.tag.address
    if isinstance(decision, Deny) or address is None:
        reason = decision.reason if isinstance(decision, Deny) else ""
        raise Refused(f"No shell in {agent.name}", reason)
    line = " ".join(command) if len(command) == 1 else shlex.join(command)
    audit = open_audit(loaded)
    entry = audit.intend(Verb.SHELL, agent=agent.id, name=agent.name, host=agent.host, detail=line)
    guest = make_guest(loaded, connect)
    try:
        async with announced(loaded, agent.id):
            status = await guest.shell(address, line or None, user)
    except SwarmError as error:
        audit.conclude(entry, Outcome.FAILED, str(error))
        raise
    finally:
        await guest.close()
    audit.conclude(entry, Outcome.DONE, f"exit status {status}")
    return status
