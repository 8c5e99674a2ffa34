"""`compare`: what two agents did, file by file."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from swarm_tui.acting import CONNECT_S
from swarm_tui.bootstrap import make_supervisor
from swarm_tui.config import Loaded
from swarm_tui.errors import NotFound
from swarm_tui.glance import find, is_named_fully
from swarm_tui.handoff import Change, Review
from swarm_tui.model import State
from swarm_tui.ports import Progress
from swarm_tui.report import write_json
from swarm_tui.review.comparison import Comparison, Likeness, Pairing, Party
from swarm_tui.review.desk import Reading
from swarm_tui.reviewing import counts, lines, path, write_patch
from swarm_tui.supervisor import Supervisor

_OID: Final = 12


async def compare(
    loaded: Loaded,
    connect: str | None,
    wanted: tuple[str, str],
    *,
    is_json: bool,
    is_patch: bool,
    on_progress: Progress | None,
) -> int:
    """Print it for people, as JSON, or as a patch from A's files to B's."""
    async with _comparing(loaded, connect, wanted, on_progress) as (comparison, supervisor):
        if is_patch:
            await write_patch(comparison.patch())
        elif is_json:
            write_json(await _object(comparison, supervisor))
        else:
            _write(comparison, supervisor)
    return 0


@asynccontextmanager
async def _comparing(
    loaded: Loaded, connect: str | None, wanted: tuple[str, str], on_progress: Progress | None
) -> AsyncIterator[tuple[Comparison, Supervisor]]:
    async with make_supervisor(loaded, connect=connect, is_following=False) as supervisor:
        agents = supervisor.store.agents
        await supervisor.connected(
            CONNECT_S, lambda: all(is_named_fully(agents(), name) for name in wanted)
        )
        found = []
        for name in wanted:
            agent = find(agents(), name)
            if agent is None:
                raise NotFound("No such agent", name, "`swarm-tui ls` shows all.")
            found.append(agent.id)
        async with await supervisor.comparison(found[0], found[1], on_progress) as comparison:
            yield comparison, supervisor


def _write(comparison: Comparison, supervisor: Supervisor) -> None:
    for letter, of, reading in _sides(comparison):
        review = reading.review
        print(f"{letter}  {of.name}  {of.tell(_state(supervisor, of), time.time())}")
        print(f"   review {review.number}, base {review.base[:_OID]}, head {review.head[:_OID]}")
    if not comparison.is_of_one_base:
        print("Their bases differ: so may files that neither of them changed.")
    if not comparison.pairings:
        print("Neither changed anything.")
    for pairing in comparison.pairings:
        told = f"{_count(pairing.a):>12} {_count(pairing.b):>12}"
        print(f"{pairing.likeness:7}{told}  {pairing.name}")


def _count(change: Change | None) -> str:
    return counts(change) if change else "-"


def _sides(comparison: Comparison) -> Sequence[tuple[str, Party, Reading]]:
    return [("A", comparison.of_a, comparison.a), ("B", comparison.of_b, comparison.b)]


def _state(supervisor: Supervisor, of: Party) -> State | None:
    known = supervisor.store.agent(of.agent)
    return known.state if known else None


async def _object(comparison: Comparison, supervisor: Supervisor) -> dict[str, Any]:
    return {
        letter.lower(): _side(of, reading.review, _state(supervisor, of))
        for letter, of, reading in _sides(comparison)
    } | {
        "is_of_one_base": comparison.is_of_one_base,
        "files": [await _file(comparison, pairing) for pairing in comparison.pairings],
    }


def _side(of: Party, review: Review, state: State | None) -> dict[str, Any]:
    return {
        "as_of": of.as_of,
        "why_then": of.why_then or None,
        "state": state,
        "agent": review.agent,
        "name": review.name,
        "review": review.number,
        "taken": review.taken,
        "base": review.base,
        "head": review.head,
        "digest": review.digest,
    }


async def _file(comparison: Comparison, pairing: Pairing) -> dict[str, Any]:
    told: dict[str, Any] = {
        "path": path(pairing.path),
        "likeness": pairing.likeness.lower().replace(" ", "-"),
        "a": _change(pairing.a),
        "b": _change(pairing.b),
    }
    if pairing.likeness is Likeness.DIFFER:
        diff = await comparison.between(pairing)
        told |= {"note": diff.note or None, "lines": lines(diff)}
    return told


def _change(change: Change | None) -> dict[str, Any] | None:
    if change is None:
        return None
    return {
        "status": change.status,
        "mode": change.new_mode,
        "oid": change.new or None,
        "old_path": None if change.old_path is None else path(change.old_path),
        "added": change.added,
        "removed": change.removed,
    }
