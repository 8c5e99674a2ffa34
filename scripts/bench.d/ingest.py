"""How many lines of guests' logs go through, and whether a frame is late meanwhile."""

from __future__ import annotations

import asyncio
import json
import random
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import swarms
from figure import Figure, percentile, significant, spread
from program import Program

from swarm_tui import spool
from swarm_tui.adapters.feed import Feed
from swarm_tui.fact import GuestHeard, VmSeen
from swarm_tui.model import AgentId, HostName, Power, Vm
from swarm_tui.store import LOG_EVENTS, Store
from swarm_tui.text import literal

LINES_PER_S = 50_000
FRAME_S = 0.1
MEMORY_MB = 250.0
CHUNK = 32 << 10
"""Bytes that an SSH channel hands over at once."""


LATE_MS = 50.0
KEY_MS = 100.0
_FLOOD = Path(__file__).with_name("flood.py")
_OPEN_S = 30.0
_IDLE = """
import asyncio, signal, sys, time
async def tick():
    while True:
        due = time.perf_counter() + 0.1
        await asyncio.sleep(0.1)
        print((time.perf_counter() - due) * 1e3, flush=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
asyncio.run(tick())
"""
"""What the machine itself is late, with whatever else runs on it."""


def ingest(folder: Path, is_quick: bool) -> Iterator[Figure]:
    """Lines of guests' logs a second, and late frames while they are followed on the screen."""
    yield asyncio.run(_ingest(folder, 250_000 if is_quick else 1_000_000))
    for agents in (1, 50):
        yield from _followed(folder / f"flood-{agents}", agents, 10.0 if is_quick else 30.0)


def _followed(folder: Path, agents: int, window_s: float) -> Iterator[Figure]:
    """The merged log in a real terminal, while the guests write 50,000 lines a second."""
    folder.mkdir()
    command = [sys.executable, str(_FLOOD), str(agents), str(LINES_PER_S), str(folder)]
    moments = random.Random(1)
    paints: list[float] = []
    keys: list[float] = []
    with Program(command, swarms.environ(folder)) as program:
        program.wait_for(swarms.SIMULATED, _OPEN_S)
        program.drain(2)
        for key in "aL":
            program.press(key)
            program.drain(0.5)
        program.wait_for(re.compile(rb"passed in"), _OPEN_S)
        program.drain(3)
        cpu, begun = program.cpu_seconds(), time.perf_counter()
        last = begun
        idle = subprocess.Popen([sys.executable, "-c", _IDLE], stdout=subprocess.PIPE, text=True)
        while (now := time.perf_counter()) < begun + window_s:
            if program.read(0.05):
                now = time.perf_counter()
                if now - last > 0.02:  # the next paint, not the rest of this one
                    paints.append(now - last)
                last = now
            program.clear()
        ended = time.perf_counter()
        idle.terminate()
        idle_ms = [float(line) for line in idle.communicate()[0].split()]
        percent = (program.cpu_seconds() - cpu) / (ended - begun) * 100
        memory_mb = program.memory_mb()
        for is_following in [False, True] * (10 if window_s < 20 else 30):
            program.drain(moments.uniform(0.2, 0.5))
            pressed = time.perf_counter()
            program.press("s")
            wanted = rb"following" if is_following else rb"s: follow"
            keys.append(program.wait_for(re.compile(wanted), 5.0) - pressed)
        program.press("q")
        program.wait_for_end(30.0)
    told = json.loads((folder / "flood.json").read_text())
    # Both clocks are the machine's monotonic one.
    late_ms = [late * 1e3 for due, late in told["late"] if begun < due < ended]
    about = f"{agents} guest{'s' * (agents > 1)} writing {LINES_PER_S:,} lines/s together, "
    about += "all of it spooled, the merged log followed in a real pty of 200 × 50; "
    yield Figure(
        f"merged log followed in a flood, {agents} guests, frames late, p99",
        percentile(late_ms, 99),
        "ms",
        about + f"how late a ticker of 10 Hz in the app's own loop is, over {window_s:g} s",
        LATE_MS,
        detail={
            **spread(late_ms),
            "a bare ticker beside it, p99, ms": significant(percentile(idle_ms, 99)),
            "between paints, ms": spread([paint * 1e3 for paint in paints]),
            "CPU, percent of a core": significant(percent),
            "behind the guests at the end, s": significant(told["lag_s"]),
        },
    )
    yield Figure(
        f"merged log followed in a flood, {agents} guests, key to paint, p95",
        percentile(keys, 95) * 1e3,
        "ms",
        about + "from `s` to the title that says so",
        KEY_MS,
        detail=spread([key * 1e3 for key in keys]),
    )
    yield Figure(
        f"memory in a flood, {agents} guests",
        memory_mb,
        "MB",
        about + "VmRSS of the app",
        MEMORY_MB,
        detail={
            name: significant(told[name])
            for name in ("spooled", "removed", "read_out", "dropped", "in_memory", "on_disk_mb")
        },
    )


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
