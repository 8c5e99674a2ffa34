"""How soon the screen tells of what Cloud Hypervisor's driver sends no event for, on the bench.

The changes are made behind the supervisor's back, by bare libvirt or the kernel; the time runs
until the store tells of them. Besides, save and restore by the port against the bare calls.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import libvirt
from figure import Figure, median, spread
from verbs import OVERHEAD_PERCENT, ignore

from swarm_tui.config import load
from swarm_tui.local.image import build_image
from swarm_tui.model import AgentId, State

sys.path.append(str(Path(__file__).parents[2] / "tests"))  # behind our own modules

from ch.bench import Bench, NoDriver, find_driver
from ch.desk import Desk, open_desk

NOTICED_S: Final = 3.0

Samples = dict[str, list[float]]


def noticing(_folder: Path, is_quick: bool) -> Iterator[Figure]:
    """Cloud Hypervisor: how soon a change without an event is told; save and restore."""
    samples: Samples = {}
    with tempfile.TemporaryDirectory(prefix="ch-", dir="/var/tmp") as folder:
        try:
            bench = Bench(Path(folder) / "bench", find_driver())
        except NoDriver as reason:
            yield Figure("Cloud Hypervisor", None, "s", f"not measured: {reason}")
            return
        bench.start()
        try:
            asyncio.run(_measure(bench, Path(folder), samples, 3 if is_quick else 8))
        finally:
            bench.stop()
    how = "real libvirt driver, " + ("stand-in VMM" if bench.is_stand_in else "Cloud Hypervisor")
    for name in ("suspended", "saved", "VMM killed", "powered off"):
        seconds = samples[name]
        yield Figure(f"noticed: {name}", max(seconds), "s", how, NOTICED_S, detail=spread(seconds))
    for name in ("save", "restore"):
        ours, bare = median(samples[name]), median(samples[f"bare {name}"])
        detail = {"ours, s": spread(samples[name]), "bare, s": spread(samples[f"bare {name}"])}
        percent = 100 * (ours / bare - 1)
        yield Figure(f"port's {name} over bare", percent, "%", how, OVERHEAD_PERCENT, detail=detail)


async def _measure(bench: Bench, folder: Path, samples: Samples, rounds: int) -> None:
    image = await asyncio.to_thread(build_image, load().paths.cache, lambda _step: None)
    async with open_desk(bench, image, folder) as desk:
        for number in range(rounds):
            agent = await desk.start_vm(f"vm-{number}")
            await desk.say(agent, "true")
            await _notice(desk, agent, samples)


async def _notice(desk: Desk, agent: AgentId, samples: Samples) -> None:
    async def timed(name: str, act: Callable[[], object], state: State) -> None:
        begun = time.perf_counter()
        await asyncio.to_thread(act)
        acted = time.perf_counter()
        await desk.until(lambda: desk.agent(agent).state is state, name)
        samples.setdefault(name, []).append(time.perf_counter() - acted)
        samples.setdefault(f"bare {name}", []).append(acted - begun)

    def bare(act: Callable[[Any], object]) -> Callable[[], object]:
        return lambda: act(connection.lookupByUUIDString(agent))

    connection = libvirt.open(desk.bench.uri)
    await timed("suspended", bare(lambda domain: domain.suspend()), State.PAUSED)
    await timed("resumed", bare(lambda domain: domain.resume()), State.RUNNING)
    saved = desk.folder / f"{agent}.bare"
    pid = connection.lookupByUUIDString(agent).ID()
    await timed("saved", bare(lambda domain: domain.save(str(saved))), State.UNKNOWN)
    os.kill(pid, signal.SIGKILL)  # libvirt leaves it behind, without machined
    await desk.until(lambda: desk.agent(agent).state is State.FAILED, "off")
    samples.setdefault("bare save", []).append(samples["bare saved"][-1])
    await timed("bare restored", lambda: connection.restore(str(saved)), State.RUNNING)
    samples.setdefault("bare restore", []).append(samples["bare bare restored"][-1])
    ours, begun = desk.folder / f"{agent}.ours", time.perf_counter()
    await desk.hypervisor.save(agent, ours, ignore)
    samples.setdefault("save", []).append(time.perf_counter() - begun)
    begun = time.perf_counter()
    await desk.hypervisor.restore(agent, ours)
    samples.setdefault("restore", []).append(time.perf_counter() - begun)
    await desk.until(lambda: desk.agent(agent).state is State.RUNNING, "restored")
    await timed("VMM killed", _kill_vmm(connection, agent), State.FAILED)
    await desk.hypervisor.destroy(agent)
    await desk.hypervisor.start(agent)
    await desk.say(agent, "true")
    async with desk.hypervisor.console(agent) as console:
        begun = time.perf_counter()
        await console.write(b"busybox poweroff -f\n")
        await desk.until(lambda: not desk.bench.vmm_pids(), "its VMM has ended")
        ended = time.perf_counter()
        await desk.until(lambda: desk.agent(agent).state is State.FAILED, "powered off")
        samples.setdefault("powered off", []).append(time.perf_counter() - ended)
    await desk.hypervisor.undefine(agent)
    connection.close()


def _kill_vmm(connection: Any, agent: AgentId) -> Callable[[], object]:
    pid = connection.lookupByUUIDString(agent).ID()
    return lambda: os.kill(pid, signal.SIGKILL)
