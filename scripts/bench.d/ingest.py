"""How many lines of guests' logs go through, and whether a frame is late meanwhile."""

from __future__ import annotations

import asyncio
import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path

from figure import Figure, percentile

from swarm_tui import spool
from swarm_tui.adapters.feed import Feed
from swarm_tui.model import AgentId, GuestHeard, HostName, Power, Vm, VmSeen
from swarm_tui.store import LOG_EVENTS, Store
from swarm_tui.text import literal

LINES_PER_S = 50_000
FRAME_S = 0.1
CHUNK = 32 << 10
"""Bytes that an SSH channel hands over at once."""


def ingest(folder: Path, is_quick: bool) -> Iterator[Figure]:
    yield asyncio.run(_ingest(folder, 250_000 if is_quick else 1_000_000))


async def _ingest(folder: Path, count: int) -> Figure:
    agent = AgentId("00000000-0000-4000-8000-000000000001")
    store = Store()
    store.apply(VmSeen(Vm(agent, literal("bench"), HostName("bench"), Power.RUNNING), 1))
    lines = _make_lines(10_000)
    flood = lines * (count // 10_000)
    late_s: list[float] = []
    frames = asyncio.create_task(_tick(late_s))
    feed = Feed(0)
    kept = dropped = 0
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    with spool.Writer(folder / "spool") as writer:
        for start in range(0, len(flood), CHUNK):
            feed.add(flood[start : start + CHUNK])
            await asyncio.sleep(0)
            batch = await feed.take()
            store.apply(GuestHeard(agent, batch))
            writer.append(batch)
            kept += len(batch.events)
            dropped += batch.dropped
    seconds = time.perf_counter() - begun
    frames.cancel()
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    assert kept + dropped == count
    assert len(store.log(agent).events) <= LOG_EVENTS
    return Figure(
        "log ingest",
        count / seconds,
        "lines/s",
        f"{count} JSON lines of about {len(lines) // 10_000} bytes from one guest in chunks of "
        "32 KiB: cut, parsed, sanitized, applied to the store, spooled; beside a ticker of 10 Hz",
        LINES_PER_S,
        is_floor=True,
        detail={
            "kept": kept,
            "dropped and counted": dropped,
            "latest frame, ms": round(max(late_s, default=0.0) * 1e3, 1),
            "frames late, p95, ms": round(percentile(late_s or [0.0], 95) * 1e3, 1),
            "peak memory grew by, MB": round(grown_kib * 1024 / 1e6, 1),
        },
    )


async def _tick(late_s: list[float]) -> None:
    """A frame every 100 ms; how late each was."""
    while True:
        due = time.perf_counter() + FRAME_S
        await asyncio.sleep(FRAME_S)
        late_s.append(time.perf_counter() - due)


def _make_lines(count: int) -> bytes:
    events = (
        {
            "ts": 1_700_000_000 + number,
            "kind": "log",
            "text": f"test_{number} passed in 0.0{number} s",
        }
        for number in range(count)
    )
    return b"".join(json.dumps(event, separators=(",", ":")).encode() + b"\n" for event in events)
