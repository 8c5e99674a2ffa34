"""Runs the app under churn, and looks for what grows, leaks or comes late."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import churn
import swarms
from churn import Commands, Host
from figure import percentile
from inside import COUNTS, FRAMES
from program import Program
from timed import read_late
from watch import Sample, growth, look, slope

from swarm_tui.paths import locate

HOSTS: Final = 4
WARM_SHARE, WARM_LEAST_S = 0.25, 15.0
"""What is held only grows until everything has been used once: that much is not judged."""
SAMPLE_S: Final = 1.0
READY_S: Final = 120.0
ANSWER_S: Final = 1.0
QUIT_S: Final = 30.0
BOOTED_AT_ONCE: Final = 4
PACE_S: Final = 60
"""Real agents rest so long between two steps: twenty under emulation share two cores."""

SLOPE_MB: Final = 1.0
"""Bound of growth a minute, and of all growth in a run that is too short for a slope."""
SHORT_GROWTH_MB: Final = 12.0
SLOPE_LEAST_S: Final = 240.0
KEY_P95_MS: Final = 100.0
LATE_PERCENT: Final = 5.0
"""Under this load: what the screen alone must keep to is measured by scripts/bench."""
STARVED_PERCENT: Final = 5.0
"""Beyond this the machine had no CPU for the app, and being late is not its fault: not judged."""
SPARE: Final = {"fds": 4, "threads": 3, "children": 2, "tasks": 6}
"""How many more of each there may be in the last quarter than in the first."""

_SHOWN: Final = re.compile(rb"s\d-\d{5}|host")
_KEYS_IN_A_ROW: Final = 8
_TOURS: Final = ("Wjk", "\r", "\ri", "vv", "A", "H", "/s1", "W\r", "?", "g", "o", "L", "Wz")
"""What a person does between: screens opened, lists filtered and sorted."""
_ESCAPE: Final = "\x1b"
_BACK: Final = 4
"""So often from anywhere to the fleet, with nothing filtered."""


@dataclass(frozen=True)
class Pace:
    """How long it goes on, and what happens how often, in seconds."""

    churn_s: float
    warm_s: float
    count_every_s: float = 10.0
    first_loss_s: float = 15.0
    lose_every_s: float = 45.0


SHORT: Final = Pace(12.0, warm_s=9.0, count_every_s=3.0, first_loss_s=1.0)
"""The one host that is lost is back before anything is judged."""


@dataclass
class Findings:
    """All that was seen."""

    samples: list[Sample] = field(default_factory=list)
    counts: list[dict[str, Any]] = field(default_factory=list)
    keys_s: list[float] = field(default_factory=list)
    unanswered: int = 0
    problems: list[str] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument(
        "--short",
        action="store_true",
        help="twenty seconds, 200 agents, no VMs, lateness not judged",
    )
    parser.add_argument("--agents", type=int, help="of libvirt's test driver (1,000)")
    parser.add_argument("--real", type=int, help="real VMs (20)")
    given = parser.parse_args()
    agents = given.agents or (200 if given.short else 1_000)
    real = (0 if given.short else 20) if given.real is None else given.real
    seconds = given.minutes * 60
    long = Pace(seconds, warm_s=max(WARM_LEAST_S, WARM_SHARE * seconds))
    pace = SHORT if given.short else long
    with tempfile.TemporaryDirectory(prefix="soak-", dir="/var/tmp") as place:
        folder = Path(place)
        folder.chmod(0o755)
        report = _soak(folder, pace, agents, real, is_alone=not given.short)
    print(json.dumps(report, indent=1))
    return 0 if not report["problems"] else 1


def say(told: str) -> None:
    print(f"==> {told}", file=sys.stderr, flush=True)


def _soak(folder: Path, pace: Pace, agents: int, real: int, *, is_alone: bool) -> dict[str, Any]:
    home = folder / "home"
    environ = swarms.environ(home)
    environ["SWARM_TUI_PATHS_CACHE"] = str(locate().cache)  # the guests' image may be there
    (folder / "tmp").mkdir(mode=0o700)
    environ["TMPDIR"] = str(folder / "tmp")
    hosts = [Host(number, folder, agents // HOSTS) for number in range(HOSTS)]
    found = Findings()
    names: list[str] = []
    try:
        say(f"{agents} agents on {HOSTS} hosts of libvirt's test driver")
        for host in hosts:
            host.open()
            churn.run(environ, "host", "add", host.label, host.uri, "--no-check")
        if real:
            say(f"{real} real agents")
            names = _bring_up(environ, real)
        commands = Commands(environ, hosts, names)
        report = _watch(folder, environ, pace, hosts, commands, found, is_alone=is_alone)
    finally:
        if real:
            churn.run(environ, "demo", "--down")
        for host in hosts:
            host.close()
    left = _left_over(folder)
    found.problems += [f"left over: {each}" for each in left]
    return {**report, "left over": left, "problems": found.problems}


def _bring_up(environ: Mapping[str, str], count: int) -> list[str]:
    """A few at a time, and slowed down before the next: else the last ones find no CPU to boot."""
    names: list[str] = []
    for wanted in range(min(count, BOOTED_AT_ONCE), count + 1, BOOTED_AT_ONCE):
        told = json.loads(churn.run(environ, "demo", "--up", "--agents", str(wanted), "--json"))
        new = {f"{agent['host']}/{agent['name']}" for agent in told["agents"]} - {*names}
        for name in sorted(new):
            slow = ["sh", "-c", f"echo {PACE_S} > /run/swarm/pace"]
            churn.run(environ, "shell", "--user", "root", name, "--", *slow)
        names += sorted(new)
    _step_back(environ)
    return names


def _step_back(environ: Mapping[str, str]) -> None:
    """Let the real VMs have only the CPU that nobody else wants: they stand for hosts elsewhere."""
    found = subprocess.run(
        ["pgrep", "-f", f"^[^ ]*qemu.*{re.escape(environ['SWARM_TUI_HOME'])}"],
        capture_output=True,
        text=True,
        check=False,
    )
    for pid in map(int, found.stdout.split()):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.setpriority(os.PRIO_PROCESS, int(task.name), 19)


def _watch(
    folder: Path,
    environ: Mapping[str, str],
    pace: Pace,
    hosts: Sequence[Host],
    commands: Commands,
    found: Findings,
    *,
    is_alone: bool,
) -> dict[str, Any]:
    inside = str(Path(__file__).with_name("inside.py"))
    with Program([sys.executable, inside, str(folder)], environ) as program:
        painted = program.wait_for(_SHOWN, READY_S) - program.started
        say(f"painted after {painted:.1f} s; {pace.churn_s:.0f} s of churn begin")
        program.drain(2)
        for host in hosts:
            host.start()
        commands.start()
        begun = time.perf_counter()
        _churn(folder, program, begun, pace, hosts, found)
        say("the churn ends")
        commands.close()
        for host in hosts:
            found.problems += host.problems[:5]
        found.problems += commands.problems[:10]
        code = _quit(program, found)
    warm_at = begun + pace.warm_s
    late, frames, longest = read_late(folder / FRAMES, warm_at)
    acts: Counter[str] = Counter()
    for host in hosts:
        acts.update(host.acts)
    return {
        "seconds": round(pace.churn_s),
        "warm-up, s": round(pace.warm_s),
        "agents": sum(host._agents for host in hosts),
        "real agents": len(commands._real),
        "first paint, s": round(painted, 2),
        "acts from outside": acts,
        "acts of the command line": commands.acts,
        "exit code": code,
        **_judge(found, warm_at),
        **_judge_frames(found, warm_at, late, frames, longest, is_alone=is_alone),
    }


def _churn(
    folder: Path,
    program: Program,
    begun: float,
    pace: Pace,
    hosts: Sequence[Host],
    found: Findings,
) -> None:
    """Use the screen while everything changes, and look at the process each second."""
    draws = random.Random(5)
    next_sample = next_count = begun
    next_loss = begun + pace.first_loss_s
    end = begun + pace.warm_s + pace.churn_s
    step = 0
    while (now := time.perf_counter()) < end:
        if now >= next_sample:
            next_sample = now + SAMPLE_S
            found.samples.append(look(program.pid, now))
        if now >= next_count:
            next_count = now + pace.count_every_s
            found.counts += _read_counts(folder, now)
            os.kill(program.pid, signal.SIGUSR2)
        if now >= next_loss:
            next_loss = now + pace.lose_every_s
            draws.choice(hosts).lose()
        if step % (_KEYS_IN_A_ROW + 1):
            _time_key(program, "jk"[step % 2], found)
            program.drain(draws.uniform(0.05, 0.3))
        else:
            _tour(program, _TOURS[step // (_KEYS_IN_A_ROW + 1) % len(_TOURS)])
        step += 1


def _tour(program: Program, keys: str) -> None:
    for key in keys + _ESCAPE * _BACK:
        program.press(key)
        program.drain(0.25)  # an escape that something follows at once would be another key


def _time_key(program: Program, key: str, found: Findings) -> None:
    """From the key until an agent's name is drawn under the cursor anew."""
    program.clear()
    begun = time.perf_counter()
    program.press(key)
    while (rest := begun + ANSWER_S - time.perf_counter()) > 0:
        if program.read(rest) and program.selected_name():
            found.keys_s.append(time.perf_counter() - begun)
            return
    found.unanswered += 1


def _read_counts(folder: Path, now: float) -> list[dict[str, Any]]:
    try:
        return [{"at": now, **json.loads((folder / COUNTS).read_text())}]
    except FileNotFoundError:
        return []


def _quit(program: Program, found: Findings) -> int | None:
    """Leave as a person does; whether the terminal has got back what it had."""
    program.press("\x1b\x1b")
    program.drain(0.5)
    program.press("\x1b")
    program.drain(0.5)
    program.clear()
    program.press("q")
    end = time.perf_counter() + QUIT_S
    has_said_yes = False
    try:
        while time.perf_counter() < end:
            program.read(0.2)
            if not has_said_yes and time.perf_counter() > end - QUIT_S + 2:
                program.press("y")  # a verb was at work
                has_said_yes = True
    except EOFError:
        pass
    for wanted, told in ((b"\x1b[?1049l", "the screen"), (b"\x1b[23;0t", "the title")):
        if wanted not in program.output:
            found.problems.append(f"{told} was not given back at the end")
    code = program.code()
    if code != 0:
        found.problems.append(f"the app ended with {code}: {program.text()[-1500:]}")
    return code


def _judge(found: Findings, warm_at: float) -> dict[str, Any]:
    warm = [sample for sample in found.samples if sample.at >= warm_at]
    counts = [count for count in found.counts if count["at"] >= warm_at]
    rss = [(sample.at, sample.rss_mb) for sample in warm]
    first, last = growth([mb for _, mb in rss])
    per_minute = slope(rss)
    is_long = rss[-1][0] - rss[0][0] >= SLOPE_LEAST_S
    if per_minute > SLOPE_MB if is_long else last - first > SHORT_GROWTH_MB:
        found.problems.append(f"memory grows: {first:.1f} to {last:.1f} MB")
    report: dict[str, Any] = {
        "memory, MB": {
            "first quarter": round(first, 1),
            "last quarter": round(last, 1),
            "slope a minute": round(per_minute, 3),
        }
    }
    held = {
        "fds": [float(sum(sample.fds.values())) for sample in warm],
        "threads": [float(sample.threads) for sample in warm],
        "children": [float(sample.children) for sample in warm],
        "tasks": [float(sum(count["tasks"].values())) for count in counts],
    }
    for what, values in held.items():
        if len(values) < 2:
            continue
        sooner, later = growth(values)
        report[what] = {"first quarter": sooner, "last quarter": later, "most": max(values)}
        if later > sooner + SPARE[what]:
            found.problems.append(f"more and more {what}: {sooner:.0f} to {later:.0f}")
    if warm:
        report["descriptors"] = {"first": warm[0].fds, "last": warm[-1].fds}
    if len(counts) >= 2:
        report["tasks by name"] = counts[-1]["tasks"]
        report["objects"] = _objects(counts[0], counts[-1])
    return report


def _objects(first: Mapping[str, Any], last: Mapping[str, Any]) -> dict[str, Any]:
    grown = {
        name: count - first["objects"].get(name, count)
        for name, count in last["objects"].items()
        if count - first["objects"].get(name, count) > 500
    }
    sizes = {
        path: [first["sizes"].get(path, 0), count]
        for path, count in last["sizes"].items()
        if count > 1.2 * first["sizes"].get(path, 0)
    }
    return {
        "containers": sizes,
        "all, first": first["collected"],
        "all, last": last["collected"],
        "grown": grown,
    }


def _judge_frames(
    found: Findings, warm_at: float, late: int, frames: int, longest: float, *, is_alone: bool
) -> dict[str, Any]:
    """How late it was; judged when it was `is_alone` on the machine, and had its CPU."""
    warm = [sample for sample in found.samples if sample.at >= warm_at]
    starved = 100 * (warm[-1].starved_s - warm[0].starved_s) / (warm[-1].at - warm[0].at)
    is_judged = is_alone and starved <= STARVED_PERCENT
    p95, p99 = (percentile(found.keys_s, percent) * 1e3 for percent in (95, 99))
    late_percent = 100 * late / max(1, frames)
    if is_judged and p95 > KEY_P95_MS:
        found.problems.append(f"key to paint, p95: {p95:.0f} ms")
    if is_judged and late_percent > LATE_PERCENT:
        found.problems.append(f"late frames: {late} of {frames}")
    return {
        "key to paint, ms": {
            "p50": round(percentile(found.keys_s, 50) * 1e3, 1),
            "p95": round(p95, 1),
            "p99": round(p99, 1),
            "keys": len(found.keys_s),
            "unanswered": found.unanswered,
        },
        "frames": {"late": late, "all": frames, "longest wait, ms": round(longest * 1e3)},
        "ready to run without a CPU, percent of the time": round(starved, 1),
        "waits are judged": is_judged,
        "load": os.getloadavg()[0],
    }


def _left_over(folder: Path) -> list[str]:
    """Processes that know the soak's folder, and files in its folder for temporary ones."""
    time.sleep(1)
    found = subprocess.run(
        ["pgrep", "-af", re.escape(str(folder))], capture_output=True, text=True, check=False
    )
    processes = [line[:200] for line in found.stdout.splitlines()]
    return processes + [str(file) for file in (folder / "tmp").rglob("*")]


if __name__ == "__main__":
    sys.exit(main())
