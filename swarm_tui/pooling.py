"""`pool`: what is kept ready in advance."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from swarm_tui.acting import CONNECT_S
from swarm_tui.amount import NOT_KNOWN, render_bytes
from swarm_tui.bootstrap import make_supervisor
from swarm_tui.config import Loaded
from swarm_tui.model import HostName
from swarm_tui.ports import Progress
from swarm_tui.profile import PLAIN, Profile
from swarm_tui.profiles import load
from swarm_tui.report import plain, write_json, write_table
from swarm_tui.stock import Spread, Stock, spread
from swarm_tui.stocks import Stocks
from swarm_tui.text import sanitize

_HEADER: Final = ("HOST", "PROFILE", "READY", "STALE", "DISK", "HITS", "COPIES", "MISSES", "CLAIM")


async def pool(
    loaded: Loaded,
    connect: str | None,
    act: str,
    name: str,
    on_progress: Progress,
    *,
    is_json: bool,
) -> int:
    """List what is kept ready; make all that is wanted; or remove it."""
    folder = loaded.paths.profiles
    if act == "drain" and name:
        chosen: Sequence[Profile] = [Profile(name=sanitize(name))]  # also of one that is gone
    else:
        profiles = await asyncio.to_thread(load, folder)
        chosen = [profiles.find(name)] if name else profiles.usable
    done: list[dict[str, object]] = []
    async with make_supervisor(loaded, connect=connect, is_following=False) as supervisor:
        await supervisor.connected(CONNECT_S)
        stocks = supervisor.stocks
        for profile in chosen if act != "list" else ():
            for host in stocks.hosts(profile):
                done.append(await _change(stocks, act, host, profile, on_progress))
                if not is_json:
                    print(_sentence(done[-1]), flush=True)
        listed = await stocks.read() if act == "list" or is_json else {}
    rows = [(host, one) for host, all_ in listed.items() for one in all_]
    rows = [(host, one) for host, one in rows if not name or one.profile == name]
    if is_json:
        write_json({"done": done, "pools": [_object(host, one) for host, one in rows]})
    elif rows:
        write_table(_HEADER, [_row(host, one) for host, one in rows])
    elif act == "list":
        who = f"profile in {plain(folder)}" if stocks.hosts(PLAIN) else "host"
        print(f"no {who} keeps agents ready")
    return 0


async def _change(
    stocks: Stocks, act: str, host: HostName, profile: Profile, on_progress: Progress
) -> dict[str, object]:
    if act == "drain":
        count = await stocks.drain(host, profile)
    else:
        count = await stocks.fill(host, profile, on_progress)
    return {"act": act, "host": host, "profile": profile.name, "count": count}


def _sentence(done: Mapping[str, object]) -> str:
    how = "removed" if done["act"] == "drain" else "made ready"
    return f"{done['host']}: {done['count']} of {done['profile']} {how}"


def _row(host: HostName, stock: Stock) -> Sequence[str]:
    wanted = "-" if stock.wanted is None else str(stock.wanted)
    claims, spawns = spread(stock.claims_s), spread(stock.spawns_s)
    told = f"{claims or NOT_KNOWN}; from the start: {spawns or NOT_KNOWN}"
    return (
        sanitize(host),
        stock.profile,
        f"{stock.ready}/{wanted}",
        str(stock.stale),
        render_bytes(stock.size_bytes),
        str(stock.hits),
        str(stock.copies),
        str(stock.misses),
        f"{told} ({stock.missing})" if stock.missing else told,
    )


def _object(host: HostName, stock: Stock) -> dict[str, object]:
    return {
        "host": host,
        "profile": stock.profile,
        "wanted": stock.wanted,
        "ready": stock.ready,
        "stale": stock.stale,
        "size_bytes": stock.size_bytes,
        "hits": stock.hits,
        "copies": stock.copies,
        "misses": stock.misses,
        "claim": _figures(spread(stock.claims_s)),
        "spawn": _figures(spread(stock.spawns_s)),
        "missing": stock.missing,
    }


def _figures(told: Spread | None) -> dict[str, float] | None:
    if told is None:
        return None
    return {"p50_s": told.p50_s, "p95_s": told.p95_s, "count": told.count}
