"""An agent's past, for the command line: its snapshots in order, and what is done with one."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

from swarm_tui.acting import act, at_agent
from swarm_tui.amount import render_age, render_bytes
from swarm_tui.command import Command, Fork
from swarm_tui.config import Loaded
from swarm_tui.errors import NotFound
from swarm_tui.inventory import Kept
from swarm_tui.model import Agent, SnapshotId
from swarm_tui.ports import Progress
from swarm_tui.report import snapshot_object, write_error, write_json, write_table
from swarm_tui.retention import forks, holds
from swarm_tui.supervisor import Supervisor
from swarm_tui.text import Safe, join, literal

HEADER = ("SNAPSHOT", "AGE", "FOR", "NAME", "SIZE", "BY", "HELD BY")


async def show(loaded: Loaded, connect: str | None, wanted: str, *, is_json: bool) -> int:
    """Print the snapshots of an agent, oldest first, with what holds each of them."""
    async with at_agent(loaded, connect, wanted) as (supervisor, agent):
        kept, problem = await supervisor.past(agent.id)
        held = _held(supervisor, agent, kept)
        forked = _forked(supervisor, agent)
    if is_json:
        told = [
            snapshot_object(one)
            | {"held": held[one.snapshot.id], "forks": forked.get(one.snapshot.id, [])}
            for one in kept
        ]
        write_json({"agent": agent.id, "name": agent.name, "snapshots": told})
    elif kept:
        write_table(HEADER, [_row(one, held[one.snapshot.id]) for one in kept])
    else:
        print(f"no snapshot of {agent.name}")
    if problem:
        write_error(problem, is_json=False)
        return problem.exit_code
    return 0


async def do(
    loaded: Loaded,
    connect: str | None,
    wanted: str,
    snapshot: str,
    make: Callable[[Agent, Kept], Command],
    *,
    is_json: bool,
    on_progress: Progress | None,
) -> int:
    """Do something with one snapshot of an agent. Raises NotFound when none, or several, fit."""
    async with at_agent(loaded, connect, wanted) as (supervisor, agent):
        kept, problem = await supervisor.past(agent.id)
        if problem:
            raise problem
        command = make(agent, find(kept, snapshot))
        await act(supervisor, agent, command, is_json=is_json, on_progress=on_progress)
    return 0


async def fork(loaded: Loaded, given: argparse.Namespace, on_progress: Progress | None) -> int:
    """Fork an agent, from one of its snapshots where one is named. Raises NotFound."""
    async with at_agent(loaded, given.connect, given.agent) as (supervisor, agent):
        chosen: SnapshotId | None = None
        if given.snapshot:
            kept, problem = await supervisor.past(agent.id)
            if problem:
                raise problem
            chosen = find(kept, given.snapshot).snapshot.id
        command = Fork(agent.id, given.count, given.name, given.task, chosen)
        await act(supervisor, agent, command, is_json=given.json, on_progress=on_progress)
    return 0


def find(kept: Sequence[Kept], wanted: str) -> Kept:
    """By its id, the id's beginning, or its name. Raises NotFound."""
    exact = [one for one in kept if wanted in (one.snapshot.id, one.snapshot.title)]
    found = exact or [one for one in kept if wanted and one.snapshot.id.startswith(wanted)]
    if len(found) != 1:
        how = "Several fit" if found else "None fits"
        raise NotFound("No such snapshot", f"{how}: {wanted}", "`swarm-tui timeline` shows all.")
    return found[0]


def _held(
    supervisor: Supervisor, agent: Agent, kept: Sequence[Kept]
) -> dict[SnapshotId, Sequence[Safe]]:
    records = [known.record for known in supervisor.store.agents() if known.record]
    needed = holds(agent.record, records)
    held: dict[SnapshotId, Sequence[Safe]] = {}
    for one in kept:
        snapshot = one.snapshot
        why = [needed[snapshot.id]] if snapshot.id in needed else []
        if snapshot.is_pinned:
            why.append(literal("pinned"))
        if snapshot.title:
            why.append(literal("named"))
        held[snapshot.id] = why
    return held


def _forked(supervisor: Supervisor, agent: Agent) -> dict[SnapshotId, list[Safe]]:
    """The names of its forks, of each snapshot that has some."""
    names = {known.id: known.name for known in supervisor.store.agents()}
    records = [known.record for known in supervisor.store.agents() if known.record]
    below = forks(agent.id, records)
    return {snapshot: [names[one.id] for one in below[snapshot]] for snapshot in below}


def _row(kept: Kept, held: Sequence[Safe]) -> Sequence[str]:
    snapshot = kept.snapshot
    return [
        snapshot.id if kept.standing != "missing" else f"{snapshot.id} (missing)",
        render_age(time.time() - snapshot.created),
        snapshot.origin.told or snapshot.origin.cause,
        snapshot.title or "-",
        render_bytes(snapshot.size_bytes),
        snapshot.origin.by or "-",
        join(held, ", ") or "-",
    ]
