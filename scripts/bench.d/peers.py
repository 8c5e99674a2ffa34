"""What swarm-tui and its peers cost on the same daemon, with the same VMs, once a second each."""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import swarms
from daemon import Daemon
from figure import Figure, median, significant
from program import Program, Run, run_whole

CPU_PERCENT: Final = {1_000: 12.0}
MEMORY_MB: Final = {100: 150.0, 1_000: 150.0, 10_000: 400.0}
VIRT_TOP: Final = os.environ.get("BENCH_VIRT_TOP") or shutil.which("virt-top")
"""Set by scripts/bench, which fetches it where it is not installed."""
_SETTLE_S: Final = 60.0
_ANY_LINE: Final = re.compile(rb"agent-\d{4}")


@dataclass(frozen=True)
class Cost:
    """Percent of a core, by the program itself and by the daemon on its behalf; 10^6 bytes."""

    cpu_percent: float
    daemon_percent: float
    memory_mb: float | None

    def told(self) -> dict[str, float | None]:
        return {
            "CPU, % of a core": significant(self.cpu_percent),
            "daemon's CPU for it, % of a core": significant(self.daemon_percent),
            "memory, MB": self.memory_mb and significant(self.memory_mb),
        }


def peers(
    folder: Path, daemon: Daemon, uri: str, agents: int, kind: str, is_quick: bool
) -> Iterator[Figure]:
    """CPU and memory at 1 Hz, and one whole `ls`, side by side."""
    window_s = 4 if is_quick else 10
    ours = _watch(folder, daemon, swarms.tested(uri), agents, window_s)
    top = None
    if VIRT_TOP:
        command = [VIRT_TOP, "-c", uri, "-d", "1", "--no-init-file"]
        top = _watch(folder, daemon, command, agents, window_s)
    lists = _loop(folder, daemon, ["virsh", "-c", uri, "list", "--all"], window_s)
    statistics = _loop(folder, daemon, ["virsh", "-c", uri, "domstats"], window_s)
    floor = 1 / window_s  # the kernel counts in hundredths of a second
    told = {
        "load of the machine": significant(os.getloadavg()[0]),
        "swarm-tui": ours.told(),
        "virt-top -d 1": top.told() if top else "not measured: it is not installed",
        "virsh list, a process each second": lists.told(),
        "virsh domstats, a process each second": statistics.told(),
    }
    how = (
        f"utime + stime over {window_s} s after {agents} agents were first shown, in a pty of "
        f"200 × 50; all on one libvirtd with the same VMs ({kind})"
    )
    yield Figure(
        f"CPU at 1 Hz, {agents} agents, {kind}",
        ours.cpu_percent,
        "% of a core",
        how,
        CPU_PERCENT.get(agents),
        detail=told,
    )
    if top:
        yield Figure(
            f"CPU per agent over virt-top's, {agents} agents, {kind}",
            ours.cpu_percent / max(top.cpu_percent, floor),
            "×",
            how,
            1.0,
            detail={
                "swarm-tui, % of a core per agent": significant(ours.cpu_percent / agents),
                "virt-top, % of a core per agent": significant(top.cpu_percent / agents),
                "swarm-tui and the daemon for it over virt-top and the daemon for it": significant(
                    (ours.cpu_percent + ours.daemon_percent)
                    / max(top.cpu_percent + top.daemon_percent, floor)
                ),
            },
        )
    yield Figure(
        f"CPU over `virsh domstats` in a loop, {agents} agents, {kind}",
        ours.cpu_percent / max(statistics.cpu_percent, floor),
        "×",
        how,
    )
    yield Figure(
        f"memory, {agents} agents, {kind}",
        ours.memory_mb,
        "MB",
        "VmRSS after that window",
        MEMORY_MB.get(agents),
        detail={"virt-top, MB": top.memory_mb if top else None},
    )
    yield _listing(folder, uri, agents, kind, is_quick)


def _listing(folder: Path, uri: str, agents: int, kind: str, is_quick: bool) -> Figure:
    environ = swarms.environ(folder)
    commands = {
        "ls": [swarms.PROGRAM, "--connect", uri, "ls"],
        "virsh list": ["virsh", "-c", uri, "list", "--all"],
        "python": [sys.executable, "-c", "pass"],
    }
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for _ in range(2 if is_quick or agents > 1_000 else 9):
        for name, command in commands.items():  # in turn, so that all meet the same load
            runs[name].append(run_whole(command, environ))
    wall = {name: median([run.wall_s for run in done]) for name, done in runs.items()}
    cpu = {name: median([run.cpu_s for run in done]) for name, done in runs.items()}
    return Figure(
        f"`ls`, the whole process, {agents} agents, {kind}",
        wall["ls"],
        "s",
        "median wall time; budget: twice `virsh list` and Python's own start together",
        2 * (wall["virsh list"] + wall["python"]),
        detail={
            "over `virsh list` and Python's start, ×": significant(
                wall["ls"] / (wall["virsh list"] + wall["python"])
            ),
            **{f"{name}, s": significant(seconds) for name, seconds in wall.items()},
            **{f"{name}, CPU s": significant(seconds) for name, seconds in cpu.items()},
        },
    )


def _watch(
    folder: Path, daemon: Daemon, command: Sequence[str], agents: int, window_s: float
) -> Cost:
    """A screen that nobody touches."""
    with Program(command, swarms.environ(folder)) as program:
        program.wait_for(_ANY_LINE, _SETTLE_S)
        program.drain(3 + agents / 1000)
        return _measure(
            daemon, window_s, program.drain, program.cpu_seconds, memory_mb=program.memory_mb
        )


def _loop(folder: Path, daemon: Daemon, command: Sequence[str], window_s: float) -> Cost:
    """A command once a second, each in a process of its own; later where it takes longer."""
    environ = swarms.environ(folder)
    used = 0.0

    def run(seconds: float) -> None:
        nonlocal used
        end = time.perf_counter() + seconds
        while (begun := time.perf_counter()) < end:
            used += run_whole(command, environ).cpu_s
            time.sleep(max(0.0, begun + 1 - time.perf_counter()))

    return _measure(daemon, window_s, run, lambda: used, memory_mb=None)


def _measure(
    daemon: Daemon,
    window_s: float,
    run: Callable[[float], None],
    cpu_seconds: Callable[[], float],
    *,
    memory_mb: Callable[[], float] | None,
) -> Cost:
    begun, cpu, of_daemon = time.perf_counter(), cpu_seconds(), daemon.cpu_seconds()
    run(window_s)
    seconds = time.perf_counter() - begun
    return Cost(
        100 * (cpu_seconds() - cpu) / seconds,
        100 * (daemon.cpu_seconds() - of_daemon) / seconds,
        memory_mb() if memory_mb else None,
    )
