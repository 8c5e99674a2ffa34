"""`shell` and `logs`: one guest, straight over SSH, beside whatever supervisor may run."""

from __future__ import annotations

import asyncio
import shlex
import sys
import time
from collections.abc import Sequence
from typing import Final

from swarm_tui import spool
from swarm_tui.amount import render_age
from swarm_tui.audit import Outcome
from swarm_tui.bootstrap import make_guest, open_audit, open_catalogue
from swarm_tui.config import Loaded
from swarm_tui.errors import GuestError, Refused, SwarmError
from swarm_tui.glance import Glance
from swarm_tui.model import Address, Agent, GuestEvent, Power, Verb
from swarm_tui.policy import Deny, decide
from swarm_tui.ports import Guest
from swarm_tui.report import event_line, plain, write_json

CATCH_UP_S: Final = 3.0
"""How long `logs` waits for what the guest wrote since it was last read."""


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


async def follow_log(
    loaded: Loaded,
    connect: str | None,
    agent: Agent,
    *,
    lines: int,
    is_following: bool,
    is_json: bool,
) -> int:
    """Print the log: what is on disk, then what the guest wrote since, then, if asked, on."""
    batch, written = spool.read(open_catalogue(loaded).folder(agent.id))
    events = list(batch.events)
    address = agent.tag.address
    is_running = agent.vm is not None and agent.vm.power is Power.RUNNING
    guest = make_guest(loaded, connect)
    offset = batch.offset
    try:
        if address and is_running:
            try:
                fresh, offset = await _catch_up(guest, address, offset)
                events += fresh
            except GuestError as error:
                heard = render_age(time.time() - written) + " ago" if written else "never"
                print(f"swarm-tui: {error} (last heard: {heard})", file=sys.stderr)
                if not events:
                    raise
        _print(events[-lines:] if lines > 0 else [], is_json=is_json)
        if is_following and address:
            async for more in guest.events(address, offset):
                _print(more.events, is_json=is_json, is_stream=True)
    finally:
        await guest.close()
    return 0


async def _catch_up(guest: Guest, address: Address, offset: int) -> tuple[list[GuestEvent], int]:
    """What the guest wrote after `offset`, until it falls silent for a moment."""
    events: list[GuestEvent] = []
    stream = guest.events(address, offset)
    wait_s = CATCH_UP_S
    try:
        while True:
            async with asyncio.timeout(wait_s):
                batch = await anext(stream)
            events += batch.events
            offset = batch.offset
            if batch.events:  # the first batch may only tell that the guest answers
                wait_s = 0.3
    except TimeoutError:
        return events, offset


def _print(events: Sequence[GuestEvent], *, is_json: bool, is_stream: bool = False) -> None:
    if is_json and not is_stream:
        write_json(plain(list(events)))
        return
    for event in events:
        if is_json:
            write_json(plain(event))
        else:
            print(event_line(event), flush=is_stream)
