"""How the screen bears 100, 1,000 and 10,000 agents, and what its peers cost beside it."""

from __future__ import annotations

import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import swarms
from daemon import Daemon
from figure import Figure, median, percentile, significant, spread
from peers import peers
from program import Program
from timed import read_late

SIZES: Final = (100, 1_000, 10_000)
REAL: Final = 30
"""QEMU processes whose vCPUs never run."""
START_S: Final = 0.6
KEY_P95_MS, KEY_P99_MS = 33.0, 50.0
LATE_PERCENT: Final = 1.0
FIRST_PAINT_S: Final = 90.0
ANSWER_S: Final = 2.0
"""A key without a repaint by then counts as that slow."""
_TIMED: Final = str(Path(__file__).with_name("timed.py"))
_DOWN, _UP, _PAGE_DOWN, _PAGE_UP, _HOME = "j", "k", "\x04", "\x15", "\x1b[H"
_FILTER: Final = "typos"


def scale(folder: Path, is_quick: bool) -> Iterator[Figure]:
    """100, 1,000 and 10,000 agents: first paint, keys, late frames, CPU, memory; and the peers."""
    for agents in SIZES:
        yield from _keys(folder, agents, is_quick)
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/var/tmp") as place:
        Path(place).chmod(0o755)
        with Daemon(Path(place) / "daemon") as daemon:
            for agents in SIZES[:2] if is_quick else SIZES:
                uri = daemon.test_agents(agents)
                yield from _first_paint(folder, uri, agents, is_quick)
                yield from peers(folder, daemon, uri, agents, "test driver", is_quick)
            uri = daemon.qemu_agents(5 if is_quick else REAL)
            yield from peers(folder, daemon, uri, 5 if is_quick else REAL, "QEMU", is_quick)


def _first_paint(folder: Path, uri: str, agents: int, is_quick: bool) -> Iterator[Figure]:
    seconds, cpu = [], []
    for _ in range(2 if is_quick or agents > 1_000 else 7):
        with Program(swarms.tested(uri), swarms.environ(folder)) as program:
            seconds.append(program.wait_for(swarms.TESTED, FIRST_PAINT_S) - program.started)
            cpu.append(program.cpu_seconds())
    yield Figure(
        f"first painted grid, {agents} agents",
        median(seconds),
        "s",
        "median time from process start to the first agent's name in a real pty of 200 × 50; "
        "libvirt's test driver behind a libvirtd of the bench's own",
        START_S if agents == SIZES[0] else None,
        detail={"CPU until then, s": significant(median(cpu)), **spread(seconds)},
    )


@dataclass
class _Samples:
    """Seconds from key to paint; `lost` are those without an answer."""

    seconds: list[float] = field(default_factory=list)
    lost: int = 0


def _keys(folder: Path, agents: int, is_quick: bool) -> Iterator[Figure]:
    """In one run: tiles and table, line to line, page to page, and while a filter is typed."""
    late_file = folder / f"frames-{agents}.json"
    command = [sys.executable, _TIMED, str(late_file)]
    command += ["demo", "--simulated", str(agents)]
    count = 24 if is_quick else 80
    taken: dict[str, _Samples] = {}
    with Program(command, swarms.environ(folder)) as program:
        program.wait_for(swarms.SIMULATED, FIRST_PAINT_S)
        program.drain(3 + agents / 1000)
        begun = time.perf_counter()
        for view in ("tiles", "table"):
            taken[f"{view}, line to line"] = _press_in_turn(program, (_DOWN, _UP), count)
            program.press(_HOME)
            program.drain(0.3)
            taken[f"{view}, page to page"] = _press_pages(program, count)
            program.press(_HOME)
            program.drain(0.3)
            typed = _type_filter(program, 2 if is_quick else 4)
            taken[f"{view}, a letter of the filter"] = typed
            taken[f"{view}, filtered, line to line"] = _press_in_turn(
                program, (_DOWN, _UP), count // 2
            )
            program.press("\x1b")
            program.drain(0.5)
            program.press("v")
            program.drain(1.0)
    how = (
        "200 × 50 in a pty: keys at random moments, until what each leads to is drawn in the "
        "output; every agent changes, and the simulation that makes it runs in the same process"
    )
    for what, samples in taken.items():
        told = {**spread([s * 1e3 for s in samples.seconds]), "without answer": samples.lost}
        told["load of the machine"] = significant(os.getloadavg()[0])
        for percent, budget in ((95, KEY_P95_MS), (99, KEY_P99_MS)):
            name = f"key to paint, {agents} agents, {what}, p{percent}"
            value = percentile(samples.seconds, percent) * 1e3
            yield Figure(name, value, "ms", how, budget, detail=told)
    late, frames, longest = read_late(late_file, begun)
    yield Figure(
        f"late frames, {agents} agents, while keys are pressed",
        100 * late / max(1, frames),
        "% of frames",
        "frames come ten times a second; late by more than 33 ms",
        LATE_PERCENT,
        detail={"late": late, "frames": frames, "longest wait, ms": significant(longest * 1e3)},
    )


def _press_in_turn(program: Program, keys: Sequence[str], count: int) -> _Samples:
    def next_key(press: int) -> str:
        return keys[press % len(keys)]

    return _press(program, next_key, count)


def _press_pages(program: Program, count: int) -> _Samples:
    """Down the whole list, or as far as `count` pages lead, and up again."""
    key = _PAGE_DOWN

    def next_key(_: int) -> str:
        return key

    samples = _press(program, next_key, count // 2, until_end=True)
    key = _PAGE_UP
    more = _press(program, next_key, count // 2, until_end=True)
    return _Samples(samples.seconds + more.seconds, samples.lost + more.lost)


def _press(
    program: Program, next_key: Callable[[int], str], count: int, *, until_end: bool = False
) -> _Samples:
    """Press and wait for another agent's name under the cursor.

    `until_end`: the list has one, and the key that leads nowhere is the last and not counted.
    """
    moments, taken = random.Random(1), _Samples()
    name = None
    for press in range(count + 2):
        program.clear()
        begun = time.perf_counter()
        program.press(next_key(press))
        seen = _wait_for_name(program, name, 0.5 if until_end else ANSWER_S)
        if seen is None and until_end and press >= 2:
            break
        name = seen or name
        if press >= 2:  # the first two only find out where the cursor is
            taken.lost += seen is None
            taken.seconds.append(time.perf_counter() - begun)
        program.drain(moments.uniform(0.02, 0.12))
    return taken


def _wait_for_name(program: Program, old: str | None, seconds: float) -> str | None:
    """The name to which the cursor moved; None when it did not."""
    end = time.perf_counter() + seconds
    while (rest := end - time.perf_counter()) > 0:
        program.read(rest)
        name = program.selected_name()
        if name is not None and name != old:
            return name
    return None


def _type_filter(program: Program, times: int) -> _Samples:
    """Type a word letter by letter, until the first line tells what is filtered by; it stays."""
    moments, taken = random.Random(2), _Samples()
    for _ in range(times):
        program.press("/")
        program.drain(0.3)
        for length in range(1, len(_FILTER) + 1):
            told = re.compile(rb"/" + _FILTER[:length].encode() + rb" \d")
            program.clear()
            begun = time.perf_counter()
            program.press(_FILTER[length - 1])
            try:
                taken.seconds.append(program.wait_for(told, ANSWER_S) - begun)
            except TimeoutError:
                taken.lost += 1
                taken.seconds.append(ANSWER_S)
            program.drain(moments.uniform(0.05, 0.2))
        if _ < times - 1:
            program.press("\x1b")
            program.drain(0.5)
    program.press("\r")
    program.drain(0.3)
    return taken
