"""How quick the program starts, paints and answers keys, and what it costs to watch a swarm."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import swarms
from alone import percent_alone
from figure import Figure, median, percentile, significant, spread
from program import Program, Run, run_whole

from swarm_tui.adapters.simulated.world import LIVELY_SWARM

START_S = 0.6
KEY_P95_MS, KEY_P99_MS = 33.0, 50.0
CPU_PERCENT = 12.0
MEMORY_MB = {1_000: 150.0, 10_000: 400.0}
CPU_AGENTS = 1_000
FIRST_PAINT_S = 60.0
ANSWER_S = 2.0
"""A key without a repaint by then counts as that slow."""

_BARE_POLL = """
import libvirt, sys, time
connection = libvirt.open(sys.argv[1])
groups = (libvirt.VIR_DOMAIN_STATS_STATE | libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
          | libvirt.VIR_DOMAIN_STATS_BALLOON | libvirt.VIR_DOMAIN_STATS_BLOCK
          | libvirt.VIR_DOMAIN_STATS_INTERFACE)
begun = time.process_time()
for _ in range(int(sys.argv[2])):
    try:
        connection.getAllDomainStats(groups)
    except libvirt.libvirtError:
        for domain in connection.listAllDomains():
            domain.info()
    time.sleep(1)
print((time.process_time() - begun) / int(sys.argv[2]) * 100)
"""


def command_line(folder: Path, is_quick: bool) -> Iterator[Figure]:
    """`--help` and `ls`, as whole processes, against `virsh list` and Python's own start."""
    environ = swarms.environ(folder)
    uri = swarms.write_test_host(folder, 100)
    floors = {"python": [sys.executable, "-c", "pass"]}
    if shutil.which("virsh"):
        floors["virsh list"] = ["virsh", "-c", uri, "list", "--all"]
    commands = {
        **floors,
        "--help": [swarms.PROGRAM, "--help"],
        "ls": [swarms.PROGRAM, "--connect", uri, "ls"],
    }
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for _ in range(7 if is_quick else 21):
        for name, command in commands.items():  # in turn, so that all meet the same load
            runs[name].append(run_whole(command, environ))
    medians = {name: median([run.wall_s for run in done]) for name, done in runs.items()}
    budget = 2 * sum(medians[name] for name in floors) if len(floors) == 2 else None
    for name in ("--help", "ls"):
        yield Figure(
            f"start of {name}",
            medians[name],
            "s",
            "median wall time of the whole process; budget: twice the sum of `virsh list` and "
            "`python -c pass`, measured in turn; 100 agents on libvirt's test driver",
            budget,
            detail={
                **{f"{floor}, s": significant(medians[floor]) for floor in floors},
                "CPU, s": significant(median([run.cpu_s for run in runs[name]])),
                **spread([run.wall_s for run in runs[name]]),
            },
        )


def first_paint(folder: Path, is_quick: bool) -> Iterator[Figure]:
    """From the start of the process to the first agent's name on the terminal."""
    uri = swarms.write_test_host(folder, 100)
    for kind, command, name in (
        ("simulated", swarms.simulated(100), swarms.SIMULATED),
        ("libvirt's test driver", swarms.tested(uri), swarms.TESTED),
    ):
        runs = [_paint(command, folder, name) for _ in range(6 if is_quick else 16)][1:]
        seconds = [run.wall_s for run in runs]
        yield Figure(
            f"first painted grid, 100 agents, {kind}",
            median(seconds),
            "s",
            "median time from process start to the first agent's name in the output of a real "
            "pty of 200 × 50; the first run is left out (cold files)",
            START_S,
            detail={
                "CPU until then, s": median([run.cpu_s for run in runs]),
                **spread(seconds),
            },
        )


def _paint(command: Sequence[str], folder: Path, name: re.Pattern[bytes]) -> Run:
    with Program(command, swarms.environ(folder)) as program:
        wall_s = program.wait_for(name, FIRST_PAINT_S) - program.started
        return Run(wall_s, program.cpu_seconds())


def keys(folder: Path, is_quick: bool) -> Iterator[Figure]:
    """From a key to the repaint of the selection, while every agent changes once a second."""
    for agents in (100, 1_000) if is_quick else (100, 1_000, 10_000):
        for view in ("tiles", "table"):
            samples, lost = _key_to_paint(folder, agents, view, 60 if is_quick else 300)
            how = (
                f"{view}, 200 × 50: j and k in turn at random moments, until the row of the new "
                "selection is drawn in the pty's output; the simulation runs in the same process, "
                f"and beyond {LIVELY_SWARM} agents each of them says less"
            )
            for percent, budget in ((95, KEY_P95_MS), (99, KEY_P99_MS)):
                yield Figure(
                    f"key to paint, {agents} agents, {view}, p{percent}",
                    percentile(samples, percent) * 1e3,
                    "ms",
                    how,
                    budget,
                    detail={
                        **spread([sample * 1e3 for sample in samples]),
                        "without answer": lost,
                    },
                )


def _key_to_paint(folder: Path, agents: int, view: str, count: int) -> tuple[Sequence[float], int]:
    moments = random.Random(1)
    samples: list[float] = []
    lost = 0
    with Program(swarms.simulated(agents, view), swarms.environ(folder)) as program:
        program.wait_for(swarms.SIMULATED, FIRST_PAINT_S)
        program.drain(6 + agents / 1000)
        row = None
        for press in range(count + 2):
            program.clear()
            begun = time.perf_counter()
            program.press("jk"[press % 2])
            seen = _wait_for_selection(program, row)
            lost += seen is None
            row = seen or row
            if press >= 2:  # the first two only find out where the selection is
                samples.append(time.perf_counter() - begun)
            program.drain(moments.uniform(0.02, 0.2))
    return samples, lost


def _wait_for_selection(program: Program, old_row: int | None) -> int | None:
    """The row to which the selection moved; None when it did not."""
    end = time.perf_counter() + ANSWER_S
    while (rest := end - time.perf_counter()) > 0:
        program.read(rest)
        row = program.selected_row()
        if row is not None and row != old_row:
            return row
    return None


def cost(folder: Path, is_quick: bool) -> Iterator[Figure]:
    """CPU and memory of the app while nobody touches it."""
    sizes = (100, 1_000) if is_quick else (100, 1_000, 10_000)
    window_s = 8 if is_quick else 30
    for agents in sizes:
        alone = percent_alone(agents, window_s, swarms.environ(folder))
        command, extra = swarms.simulated(agents), {"the simulation alone, percent": alone}
        yield from _cost("simulated", command, swarms.SIMULATED, agents, folder, window_s, extra)
    for agents in (100, 1_000):
        uri = swarms.write_test_host(folder, agents)
        bare = _bare_poll(uri, 4 if is_quick else 10, folder)
        extra = {"bare poll by libvirt-python at 1 Hz, percent": bare}
        yield from _cost(
            "libvirt's test driver",
            swarms.tested(uri),
            swarms.TESTED,
            agents,
            folder,
            window_s,
            extra,
        )


def _cost(
    kind: str,
    command: Sequence[str],
    name: re.Pattern[bytes],
    agents: int,
    folder: Path,
    window_s: float,
    extra: Mapping[str, object],
) -> Iterator[Figure]:
    with Program(command, swarms.environ(folder)) as program:
        program.wait_for(name, FIRST_PAINT_S)
        program.drain(8 + agents / 1000)
        cpu, begun = program.cpu_seconds(), time.perf_counter()
        program.drain(window_s)
        percent = (program.cpu_seconds() - cpu) / (time.perf_counter() - begun) * 100
        memory_mb = program.memory_mb()
    inside = (
        "what the simulation itself costs and one followed event stream per agent are in it"
        if kind == "simulated"
        else "the driver runs inside the process; its guests answer no SSH"
    )
    yield Figure(
        f"CPU of the app, {agents} agents at 1 Hz, {kind}",
        percent,
        "% of a core",
        f"utime + stime of /proc/PID/stat over {window_s} s, tiles of 200 × 50; {inside}",
        CPU_PERCENT if agents <= CPU_AGENTS else None,
        detail=extra,
    )
    yield Figure(
        f"memory of the app, {agents} agents, {kind}",
        memory_mb,
        "MB",
        f"VmRSS after that window; {inside}",
        next((mb for size, mb in MEMORY_MB.items() if agents <= size), None),
    )


def _bare_poll(uri: str, seconds: int, folder: Path) -> float:
    done = subprocess.run(
        [sys.executable, "-c", _BARE_POLL, uri, str(seconds)],
        env=swarms.environ(folder),
        capture_output=True,
        text=True,
        check=True,
    )
    return round(float(done.stdout), 2)
