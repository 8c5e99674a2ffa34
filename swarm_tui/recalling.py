"""`results`: what was kept of agents that were ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from swarm_tui import spool
from swarm_tui.amount import render_age
from swarm_tui.bootstrap import open_database
from swarm_tui.config import Loaded
from swarm_tui.errors import NotFound
from swarm_tui.report import plain, write_json, write_table
from swarm_tui.results import Result, Results, describe


async def results(loaded: Loaded, name: str, *, lines: int, is_removed: bool, is_json: bool) -> int:
    """List what was kept of ended agents, or show one: by name, the newest of it, or by id."""
    kept = Results(open_database(loaded), loaded.paths.catalogue.parent / "results")
    listed = await asyncio.to_thread(kept.list)
    if not name:
        if is_json:
            write_json({"results": [_object(one) for one in listed]})
        elif listed:
            write_table(_HEADER, [_result_row(one) for one in listed])
        else:
            print("no agent has been ended so far")
        return 0
    found = next((one for one in listed if name in (one.name, one.agent)), None)
    found = found or next((one for one in listed if one.agent.startswith(name)), None)
    if found is None:
        raise NotFound("There is no such result", name, "`swarm-tui results` lists all.")
    if is_removed:
        await asyncio.to_thread(kept.remove, found.agent)
        print(f"{found.name}: its log is removed; what is in a repository stays")
        return 0
    if is_json:
        write_json(_object(found))
        return 0
    for label, told in describe(found, time.time()):
        print(f"{label + ':':12}{told}")
    batch, _ = await asyncio.to_thread(spool.read, Path(found.log)) if found.log else (None, None)
    for event in batch.events[-lines:] if batch and lines else ():
        print(f"  {event.text}")
    return 0


_HEADER: Final = ("NAME", "ENDED", "WHY", "LIVED", "FILES", "TOKENS", "WORK", "LAST")


def _result_row(one: Result) -> Sequence[str]:
    return (
        one.name,
        f"{render_age(time.time() - one.ended)} ago",
        one.occasion,
        render_age(one.wall_s),
        "n/a" if one.changes is None else f"{one.changes}",
        f"{one.tokens_in + one.tokens_out:,}",
        one.ref or one.bundle or "none",
        one.told or one.task or "-",
    )


def _object(one: Result) -> dict[str, Any]:
    told: dict[str, Any] = plain(one)
    return told | {"wall_s": one.wall_s}
