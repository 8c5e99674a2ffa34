"""`swarm-tui waiting`: what waits for a human, for scripts and status bars."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from swarm_tui.amount import render_age
from swarm_tui.attention import Attention, Need, summarize
from swarm_tui.audit import Entry
from swarm_tui.bootstrap import make_supervisor, open_audit
from swarm_tui.config import Loaded
from swarm_tui.glance import glance
from swarm_tui.person import login
from swarm_tui.report import write_json, write_table
from swarm_tui.store import Store

LOOK_S: Final = 0.2
NOTHING: Final = 1
"""Exit code when nothing waits."""


async def waiting(
    loaded: Loaded,
    connect: str | None,
    *,
    is_waited_for: bool,
    is_mine: bool,
    is_summary: bool,
    is_json: bool,
) -> int:
    """Tell what waits; exit code 0 when something does.

    `is_waited_for`: look on until something does, and into the guests as the screen does. Else
    hosts are read once, and of what guests say is known what a supervisor heard.
    """
    acts = await asyncio.to_thread(open_audit(loaded).recent)
    whose = login() if is_mine else None
    if is_waited_for:
        needs = await _wait(loaded, connect, acts, whose)
    else:
        seen = await glance(loaded, connect)
        needs = _choose(_queue(seen.store, acts), whose)
    counts = Counter(need.kind for need in needs)
    if is_json:
        write_json({"waiting": [need_object(need) for need in needs], "counts": counts})
    elif is_summary:
        print(summarize(counts))
    elif needs:
        write_table(("KIND", "FOR", "HOST", "NAME", "OWNER", "REASON"), list(map(_row, needs)))
    return 0 if needs else NOTHING


async def _wait(
    loaded: Loaded, connect: str | None, acts: Sequence[Entry], whose: str | None
) -> Sequence[Need]:
    async with make_supervisor(loaded, connect=connect) as supervisor:
        attention = _queue(supervisor.store, acts)
        while not (needs := _choose(attention, whose)):
            await asyncio.sleep(LOOK_S)
            now, store = time.time(), supervisor.store
            for agent in store.take_dirty():
                attention.hear(agent, store.agent(agent), now)
            if store.take_hosts_changed():
                attention.hear_hosts(store.hosts(), now)
            for fault in supervisor.take_faults():
                attention.hear_fault(fault, now)
            attention.tick(now)
    return needs


def _queue(store: Store, acts: Sequence[Entry]) -> Attention:
    attention, now = Attention(), time.time()
    attention.hear_acts(acts, now)
    attention.hear_hosts(store.hosts(), now)
    for agent in store.agents():
        attention.hear(agent.id, agent, now)
    return attention


def _choose(attention: Attention, whose: str | None) -> Sequence[Need]:
    return [need for need in attention.needs() if whose is None or need.is_for(whose)]


def need_object(need: Need) -> dict[str, Any]:
    """One need for JSON: Unix seconds, null for what nobody knows or what it is not about."""
    return {
        "kind": need.kind,
        "since": need.since,
        "reason": need.reason,
        "host": need.host,
        "agent": need.agent,
        "name": (need.name or None) if need.agent else None,
        "owner": need.owner or None,
    }


def _row(need: Need) -> list[str]:
    age = render_age(None if need.since is None else time.time() - need.since)
    name = need.name if need.agent else ""
    return [need.kind, age, need.host or "-", name or "-", need.owner or "-", need.reason]
