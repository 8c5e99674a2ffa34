"""A simulated swarm as tests watch it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from swarm_tui.adapters.simulated import ManualClock, SimulatedSwarm
from swarm_tui.model import AgentId, GuestEvent, Hint, Vm
from swarm_tui.ports import Guest, Hypervisor, Spawner
from swarm_tui.text import Safe


def ignore_progress(step: Safe, fraction: float | None) -> None:
    pass


async def settle() -> None:
    """Let everything that was woken run until it waits again."""
    for _ in range(8):
        await asyncio.sleep(0)


class Watched:
    """A small swarm on a manual clock, its connection open and its hints noted."""

    def __init__(self, agents: int = 6, *, seed: int = 1, hosts: int = 1) -> None:
        self.clock = ManualClock()
        self.swarm = SimulatedSwarm(agents, seed=seed, clock=self.clock, hosts=hosts)
        self.ids = self.swarm.ids()
        self.hypervisor: Hypervisor = self.swarm.hypervisor()
        self.guest: Guest = self.swarm.guest
        self.spawner: Spawner = self.swarm.spawner()
        self.hints: list[Hint] = []

    async def open(self) -> None:
        await self.hypervisor.open(self.hints.append)

    async def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await settle()

    async def vm(self, agent: AgentId | None = None) -> Vm:
        return await self.hypervisor.describe(agent or self.ids[0])

    async def run(self, script: str, agent: AgentId | None = None) -> str:
        vm = await self.vm(agent)
        assert vm.tag.address
        done = await self.guest.run(vm.tag.address, script, timeout_s=1)
        return done.stdout.decode()

    async def counter(self, agent: AgentId | None = None) -> int:
        return int(await self.run("cat /run/swarm/counter", agent))

    def kinds(self, agent: AgentId) -> list[str]:
        return [hint.kind for hint in self.hints if hint.agent == agent]

    @asynccontextmanager
    async def following(self, agent: AgentId, offset: int = 0) -> AsyncIterator[list[GuestEvent]]:
        """Follow an agent's events into a list."""
        vm = await self.vm(agent)
        heard: list[GuestEvent] = []
        assert vm.tag.address
        address = vm.tag.address

        async def follow() -> None:
            async for batch in self.guest.events(address, offset):
                heard.extend(batch.events)

        task = asyncio.create_task(follow())
        await settle()
        try:
            yield heard
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
