"""`shell`: one guest, straight over SSH, beside whatever supervisor may run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from swarm_tui.audit import Outcome
from swarm_tui.bootstrap import make_guest, open_audit
from swarm_tui.config import Loaded
from swarm_tui.errors import Refused, SwarmError
from swarm_tui.glance import Glance
from swarm_tui.model import Verb
from swarm_tui.policy import Deny, decide


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
        status = await guest.shell(address, line or None, user)
    except SwarmError as error:
        audit.conclude(entry, Outcome.FAILED, str(error))
        raise
    finally:
        await guest.close()
    audit.conclude(entry, Outcome.DONE, f"exit status {status}")
    return status
