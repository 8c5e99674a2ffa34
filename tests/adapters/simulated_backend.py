"""The simulated swarm as a host on which the contract of `ports.Hypervisor` is tested."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from swarm_tui.adapters.simulated import SimulatedSwarm
from swarm_tui.model import AgentId, Hint
from swarm_tui.ports import Hypervisor

from .backends import Backend, new_id

HASTE = 200.0


class HastyClock:
    """The real time, but quicker, so that a deadline of ten seconds passes in no time."""

    def wall(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic() * HASTE

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_at(when / HASTE, callback)


@asynccontextmanager
async def simulated(folder: Path) -> AsyncIterator[Backend]:
    swarm = SimulatedSwarm(3, clock=HastyClock())
    agent, *others = swarm.ids()
    hints: list[Hint] = []
    hypervisor = swarm.hypervisor()
    capabilities = await hypervisor.open(hints.append)
    vm = await hypervisor.describe(agent)
    definition = await hypervisor.definition(agent)

    def copy(definition: str, checkpoint: str) -> tuple[str, str]:
        return _rename(definition, "copy"), checkpoint

    def _rename(definition: str, name: str) -> str:
        return definition.replace(agent, new_id()).replace(
            f"<name>{vm.name}</name>", f"<name>{name}</name>"
        )

    @asynccontextmanager
    async def silence() -> AsyncIterator[Hypervisor]:
        other = swarm.hypervisor()
        await other.open(lambda _: None)
        swarm.delay("suspend", 3600)
        yield other
        swarm.delay("suspend", 0)
        await other.close()

    try:
        yield Backend(
            hypervisor,
            capabilities,
            hints,
            agent,
            frozenset(map(AgentId, others)),
            None,
            _rename(definition, "spare"),
            folder,
            copy,
            silence,
        )
    finally:
        await hypervisor.close()
