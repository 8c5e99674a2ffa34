"""What a process holds, sampled from outside, and whether it grows."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at /proc."""

    at: float
    rss_mb: float
    """Resident size, 10^6 bytes."""
    fds: Counter[str]
    """Open descriptors by kind."""
    threads: int
    children: int
    starved_s: float
    """For how long by now its main thread was ready to run and had no CPU."""


def look(pid: int, at: float) -> Sample:
    """Raises FileNotFoundError or ProcessLookupError when the process is gone."""
    status = Path(f"/proc/{pid}/status").read_text()
    rss = re.search(r"VmRSS:\s+(\d+) kB", status)
    threads = re.search(r"Threads:\s+(\d+)", status)
    assert rss
    assert threads
    fds: Counter[str] = Counter()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            fds[_kind(os.readlink(link))] += 1
        except FileNotFoundError:
            continue
    children = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            children += len((task / "children").read_text().split())
        except FileNotFoundError:
            continue
    starved_s = int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[1]) / 1e9
    return Sample(at, int(rss[1]) * 1024 / 1e6, fds, int(threads[1]), children, starved_s)


def _kind(target: str) -> str:
    if target.startswith(("socket:", "pipe:")):
        return target.partition(":")[0]
    if target.startswith("anon_inode:"):
        return target
    return "file"


def slope(samples: Sequence[tuple[float, float]]) -> float:
    """Growth a minute, by the median of the slopes between far points (Theil and Sen's).

    One late spike moves it as little as one early dip.
    """
    step = max(1, len(samples) // 120)
    points = samples[::step]
    slopes = [
        (later[1] - sooner[1]) / (later[0] - sooner[0]) * 60
        for place, sooner in enumerate(points)
        for later in points[place + max(1, len(points) // 4) :]
    ]
    return median(slopes) if slopes else 0.0


def growth(values: Sequence[float]) -> tuple[float, float]:
    """The median of the first quarter and of the last."""
    quarter = max(1, len(values) // 4)
    return median(values[:quarter]), median(values[-quarter:])
