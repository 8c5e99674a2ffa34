"""What a simulated swarm costs by itself, followed as the app follows it: run as a program."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Mapping

from swarm_tui.adapters.simulated import SimulatedSwarm
from swarm_tui.model import Address

TRAFFIC_S = 2.0


def percent_alone(agents: int, seconds: int, environ: Mapping[str, str]) -> float:
    """CPU of the simulation in a process of its own, in percent of a core."""
    command = [sys.executable, __file__, str(agents), str(seconds)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    return round(float(done.stdout), 2)


async def _run(agents: int, seconds: int) -> float:
    swarm = SimulatedSwarm(agents)
    hypervisor, guest = swarm.hypervisor(), swarm.guest
    await hypervisor.open(lambda _: None)

    async def follow(address: Address) -> None:
        async for _ in guest.events(address, 0):
            pass

    async def measure(address: Address) -> None:
        async for _ in guest.traffic(address, TRAFFIC_S):
            pass

    tasks = [
        asyncio.create_task(work(vm.tag.address))
        for vm in await hypervisor.list()
        if vm.tag.address
        for work in (follow, measure)
    ]
    await hypervisor.counters()
    await asyncio.sleep(2)
    cpu, begun = time.process_time(), time.perf_counter()
    while time.perf_counter() - begun < seconds:
        await hypervisor.counters()
        await asyncio.sleep(1)
    percent = (time.process_time() - cpu) / (time.perf_counter() - begun) * 100
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return percent


if __name__ == "__main__":
    print(asyncio.run(_run(int(sys.argv[1]), int(sys.argv[2]))))
