"""Forks of a running agent, beside virsh.

The bare road is what virsh has: suspend, a memory-only snapshot, `cp` of the disk, resume. It ends
there: virsh has no way to run the copy beside the original.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from figure import Figure, median, spread

from swarm_tui.bootstrap import local_folder
from swarm_tui.command import Fork
from swarm_tui.config import Loaded
from swarm_tui.model import Agent
from swarm_tui.supervisor import Supervisor

STOP_S = 0.15
_STOOD = re.compile(r"stood still for (\d+\.\d+) s")


@dataclass
class Forks:
    stops: list[float] = field(default_factory=list)
    """Seconds for which the source stood still, by its own count."""
    whole: list[float] = field(default_factory=list)
    """From the command until the fork answers over SSH as somebody of its own."""
    bare: list[float] = field(default_factory=list)
    """Seconds for which virsh stops the same VM."""


async def measure_forks(
    supervisor: Supervisor, loaded: Loaded, uri: str, source: Agent, rounds: int
) -> Forks:
    """One fork in each round, and the bare stop in turn with it. The forks are the caller's."""
    laps = Forks()
    folder = local_folder(loaded.paths) / "bare-fork"
    folder.mkdir(mode=0o711)
    try:
        for number in range(rounds):
            begun = time.perf_counter()
            told = await supervisor.do(Fork(source.id, 1, f"bench-fork-{number}"))
            laps.whole.append(time.perf_counter() - begun)
            found = _STOOD.search(told)
            assert found, told
            laps.stops.append(float(found[1]))
            laps.bare.append(await asyncio.to_thread(_stop_bare, uri, source, folder))
    finally:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    return laps


def _stop_bare(uri: str, source: Agent, folder: Path) -> float:
    assert source.vm
    assert source.vm.disks
    virsh = ["virsh", "-q", "-c", uri]
    memory, disk = folder / "memory", folder / "disk"
    for path in (memory, disk):
        path.unlink(missing_ok=True)
    snapshot = ["snapshot-create-as", source.id, "--no-metadata", "--memspec", f"file={memory}"]
    begun = time.perf_counter()
    _run([*virsh, "suspend", source.id])
    try:
        _run([*virsh, *snapshot, "--diskspec", "vda,snapshot=no"])
        _run(["cp", "--reflink=auto", "--sparse=always", str(source.vm.disks[0]), str(disk)])
    finally:
        _run([*virsh, "resume", source.id])
    return time.perf_counter() - begun


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stderr}")


def figures(laps: Forks) -> Sequence[Figure]:
    bare = {"bare virsh and cp, s": spread(laps.bare)}
    return [
        Figure(
            "fork of a running agent: its source stood still, p50",
            median(laps.stops),
            "s",
            "memory and disk copied while its vCPUs are stopped",
            STOP_S,
            detail={"s": spread(laps.stops)} | bare,
        ),
        Figure(
            "fork of a running agent to SSH-ready, p50",
            median(laps.whole),
            "s",
            "the verb fork: the source's snapshot, a VM from it, its own keys and name by SSH",
            detail={"s": spread(laps.whole)},
        ),
    ]
