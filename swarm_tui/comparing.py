"""`compare`: what two agents did, file by file."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from swarm_tui.acting import CONNECT_S
from swarm_tui.amount import render_age
from swarm_tui.bootstrap import make_supervisor
from swarm_tui.config import Loaded
from swarm_tui.errors import NotFound
from swarm_tui.glance import find, is_named_fully
from swarm_tui.handoff import Change, Review
from swarm_tui.report import write_json
from swarm_tui.review.comparison import Comparison, Likeness, Pairing
from swarm_tui.reviewing import counts, lines, path, write_patch

_OID: Final = 12


async def compare(
    loaded: Loaded,
    connect: str | None,
    wanted: tuple[str, str],
    *,
    is_json: bool,
    is_patch: bool,
) -> int:
    """Print it for people, as JSON, or as a patch from A's files to B's."""
    async with _comparing(loaded, connect, wanted) as comparison:
        if is_patch:
            await write_patch(comparison.patch())
        elif is_json:
            write_json(await _object(comparison))
        else:
            _write(comparison)
    return 0


@asynccontextmanager
async def _comparing(
    loaded: Loaded, connect: str | None, wanted: tuple[str, str]
) -> AsyncIterator[Comparison]:
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
        async with await supervisor.comparison(*found) as comparison:
            yield comparison


def _write(comparison: Comparison) -> None:
    for side, review in (("A", comparison.a.review), ("B", comparison.b.review)):
        age = render_age(time.time() - review.taken)
        print(
            f"{side}  {review.name}  review {review.number}, taken {age} ago,"
            f" base {review.base[:_OID]}, head {review.head[:_OID]}"
        )
    if not comparison.is_of_one_base:
        print("Their bases differ: so may files that neither of them changed.")
    if not comparison.pairings:
        print("Neither changed anything.")
    for pairing in comparison.pairings:
        told = f"{_count(pairing.a):>12} {_count(pairing.b):>12}"
        print(f"{pairing.likeness:7}{told}  {pairing.name}")


def _count(change: Change | None) -> str:
    return counts(change) if change else "-"


async def _object(comparison: Comparison) -> dict[str, Any]:
    return {
        "a": _side(comparison.a.review),
        "b": _side(comparison.b.review),
        "is_of_one_base": comparison.is_of_one_base,
        "files": [await _file(comparison, pairing) for pairing in comparison.pairings],
    }


def _side(review: Review) -> dict[str, Any]:
    return {
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
