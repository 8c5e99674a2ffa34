"""The simulated swarm's side of `ports.Spawner`, `ports.Forker` and `stock.Stocker`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from swarm_tui.adapters.domain import parse_definition
from swarm_tui.adapters.simulated.hypervisor import read_saved
from swarm_tui.adapters.simulated.life import Life
from swarm_tui.adapters.simulated.world import BOOT_S, MEMORY, Site, World
from swarm_tui.errors import Refused
from swarm_tui.model import Vm
from swarm_tui.ports import Needs, OnNamed, Order, Parent, Progress, Spawned
from swarm_tui.profile import Profile
from swarm_tui.stock import Stock
from swarm_tui.text import Safe, literal, sanitize

CLAIM_S: Final = 0.9
"""Until one that was ready answers."""
_FIGURES: Final = 200


@dataclass(slots=True)
class _Pool:
    """Of one profile: numbers, for nothing is made in advance here."""

    wanted: int = 0
    ready: int = 0
    hits: int = 0
    misses: int = 0
    claims_s: list[float] = field(default_factory=list)
    spawns_s: list[float] = field(default_factory=list)

    def count(self, seconds: float, *, is_hit: bool) -> None:
        self.hits += is_hit
        self.misses += not is_hit
        took = self.claims_s if is_hit else self.spawns_s
        took.append(round(seconds, 2))
        del took[:-_FIGURES]


class SimulatedSpawner:
    """Makes simulated agents on one host, also of others, and pretends to have some ready."""

    unforking = ""

    def __init__(self, world: World, site: Site) -> None:
        self._world = world
        self._site = site
        self._pools: dict[Safe, _Pool] = {}

    def needs(self, profile: Profile) -> Needs:
        return Needs(_memory(profile), 0)

    async def spawn(self, order: Order, on_progress: Progress, on_named: OnNamed) -> Spawned:
        """Neither a repository nor a program gets there: its life is made up, as all others are."""
        world, begun, profile = self._world, self._world.clock.monotonic(), order.profile
        on_progress(literal("making the simulated VM"), 0.0)
        pool = self._pool(profile) if profile.ready else None
        with world.naming(order.name) as (agent, name):
            await on_named(agent, sanitize(name))
            is_hit = pool is not None and pool.ready > 0
            if pool and is_hit:
                pool.ready -= 1
            await world.gate("claim" if is_hit else "spawn", self._site)
            if profile.repository and not is_hit:
                on_progress(literal("delivering the simulated project instead"), 0.3)
            machine = world.spawn(self._site, agent, name, order, _memory(profile), profile.vcpus)
        on_progress(literal("waiting for its first answer"), 0.5)
        if world.delays:
            await world.until(begun + (CLAIM_S if is_hit else BOOT_S))
        took_s = world.clock.monotonic() - begun
        if pool:
            pool.count(took_s, is_hit=is_hit)
        return Spawned(machine.vm.id, machine.vm.name, took_s)

    async def fork(
        self, parent: Parent, name: str, task: str, on_progress: Progress, on_named: OnNamed
    ) -> Spawned:
        """It goes on with its parent's story, and by chances of its own."""
        world, begun = self._world, self._world.clock.monotonic()
        on_progress(literal("copying the simulated memory"), None)
        definition = parse_definition(parent.definition)
        with world.naming(name) as (agent, own):
            await on_named(agent, sanitize(own))
            saved = await asyncio.to_thread(read_saved, parent.memory)
            await world.gate("fork", self._site)
            life, now = Life.from_json(saved["life"]), world.clock.monotonic()
            life.branch(int(agent[:8], 16), parent.name, now, world.clock.wall())
            if task:
                life.note(task, now, world.clock.wall())
            tag = replace(parent.tag, task=sanitize(task) if task else parent.tag.task)
            machine = world.fork(self._site, agent, own, tag, definition, life)
        return Spawned(machine.vm.id, machine.vm.name, world.clock.monotonic() - begun)

    async def discard(self, vm: Vm) -> None:
        await self._world.gate("discard", self._site)
        if vm.id in self._site.machines:
            raise Refused("Cannot remove the VM's files", "it is still defined")
        if self._world.project:
            await asyncio.to_thread(self._world.project.forget, vm.id)

    async def replenish(self, order: Order, on_progress: Progress) -> bool:
        pool = self._pool(order.profile)
        if pool.ready < pool.wanted:
            on_progress(literal("pretending to make a ready agent"), None)
            await self._world.gate("replenish", self._site)
            pool.ready += 1
        return pool.ready < pool.wanted

    async def stocks(self, orders: Sequence[Order]) -> Sequence[Stock]:
        for order in orders:
            self._pool(order.profile)
        return [
            Stock(
                name,
                pool.wanted,
                pool.ready,
                hits=pool.hits,
                misses=pool.misses,
                claims_s=tuple(pool.claims_s),
                spawns_s=tuple(pool.spawns_s),
            )
            for name, pool in self._pools.items()
        ]

    async def drain(self, profile: Profile) -> int:
        pool = self._pool(profile)
        gone, pool.ready = pool.ready, 0
        return gone

    def _pool(self, profile: Profile) -> _Pool:
        pool = self._pools.setdefault(profile.name, _Pool())
        pool.wanted = profile.ready
        return pool


def _memory(profile: Profile) -> int:
    return profile.memory_mib << 20 if profile.memory_mib else MEMORY
