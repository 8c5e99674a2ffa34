"""Whose guest has a link: all while they are few, else everybody in turn."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from swarm_tui.fact import Sampled, VmSeen
from swarm_tui.model import (
    Address,
    Agent,
    AgentId,
    EventBatch,
    EventKind,
    GuestEvent,
    HostName,
    Link,
    Power,
    State,
    Tag,
    Vm,
)
from swarm_tui.model import Counters as Reading
from swarm_tui.ports import Guest
from swarm_tui.store import Store
from swarm_tui.text import literal
from swarm_tui.watch import GuestWatch, OnFailure

from .lab import until

HOST = HostName("lab")
AGENTS = [AgentId(f"00000000-0000-4000-8000-{number:012}") for number in range(12)]


class StandInGuests:
    """As many guests as there are ports; each asks once, in its second batch."""

    def __init__(self) -> None:
        self.streams: Counter[int] = Counter()
        """Port → event streams that are open now."""
        self.most = 0
        self.begun: Counter[int] = Counter()
        self.measured: set[int] = set()
        """Ports of whom traffic is asked now."""

    async def events(self, address: Address, offset: int) -> AsyncIterator[EventBatch]:
        self.streams[address.port] += 1
        self.begun[address.port] += 1
        self.most = max(self.most, self.streams.total())
        try:
            yield EventBatch((), offset)
            if offset == 0:
                yield EventBatch((GuestEvent(EventKind.ASK, literal("is it good?")),), 10)
            await asyncio.Event().wait()
        finally:
            self.streams[address.port] -= 1

    async def traffic(self, address: Address, interval_s: float) -> AsyncIterator[tuple[int, int]]:
        self.measured.add(address.port)
        try:
            while True:
                yield 1, 1
                await asyncio.sleep(0)
        finally:
            self.measured.discard(address.port)


class Hall:
    def __init__(self) -> None:
        self.store = Store()
        self.guests = StandInGuests()
        self.tasks: set[asyncio.Task[None]] = set()
        self.watch = GuestWatch(
            self.store.agent, lambda _: cast(Guest, self.guests), self.store.apply, self.start, None
        )

    def start(
        self, work: Coroutine[Any, Any, None], name: str, on_failure: OnFailure | None
    ) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self.tasks.add(task)
        return task

    def add(self, number: int) -> None:
        address = Address("127.0.0.1", number + 1, "ssh-ed25519 AAAA", Path("/key"))
        tag = Tag(created=1.0, address=address)
        vm = Vm(AGENTS[number], literal(f"a-{number}"), HOST, Power.RUNNING, tag=tag)
        self.store.apply(VmSeen(vm, 1))
        self.watch.tend(vm.id, self.store.agent(vm.id))

    def agent(self, number: int) -> Agent:
        agent = self.store.agent(AGENTS[number])
        assert agent
        return agent

    def count(self, link: Link) -> int:
        return sum(agent.link is link for agent in self.store.agents())

    async def see(self, *numbers: int) -> None:
        """Keep them on the screen until that counts."""

        def is_seen() -> bool:
            self.watch.show([AGENTS[number] for number in numbers])
            return self.watch.shown == {AGENTS[number] for number in numbers}

        await until(is_seen)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("LINKS", 4), ("TURNS_PER_S", 500), ("STAY_S", 0.01), ("SHOWN_S", 0.01)):
        monkeypatch.setattr(f"swarm_tui.watch.guest.{name}", value)


@asynccontextmanager
async def hall(agents: int) -> AsyncIterator[Hall]:
    made = Hall()
    turns = asyncio.create_task(made.watch.take_turns())
    for number in range(agents):
        made.add(number)
    try:
        yield made
    finally:
        turns.cancel()
        await made.watch.close()
        await asyncio.gather(turns, return_exceptions=True)


async def until_all(made: Hall, is_so: Callable[[Agent], object]) -> None:
    await until(lambda: all(is_so(agent) for agent in made.store.agents()))


async def test_few_are_all_followed_at_once() -> None:
    async with hall(4) as made:
        await until_all(made, lambda agent: agent.link is Link.UP)
        assert set(made.guests.begun.values()) == {1}, "nobody had to give way"


async def test_whoever_asks_is_heard_however_many_there_are() -> None:
    async with hall(12) as made:
        await until_all(made, lambda agent: agent.state is State.ASKING)
        assert made.guests.most <= 4
        assert made.count(Link.RESTING) >= 8
        assert all(agent.heard for agent in made.store.agents())


async def test_who_is_on_the_screen_is_linked_first_and_stays_linked() -> None:
    async with hall(12) as made:
        await until_all(made, lambda agent: agent.state is State.ASKING)
        await made.see(9, 10)
        await until(lambda: made.agent(9).link is made.agent(10).link is Link.UP)
        begun = made.guests.begun.copy()
        await until(lambda: (made.guests.begun - begun).total() > 20)
        again = made.guests.begun - begun
        assert not {10, 11} & again.keys(), "they had to make way for others"
        assert made.guests.most <= 4


async def test_traffic_is_asked_of_those_on_the_screen_whose_host_cannot_count_it() -> None:
    async with hall(3) as made:
        told = Reading(1.0, cpu_ns=1)
        told_all = Reading(1.0, cpu_ns=1, net_received=5, net_sent=5)
        for second in (told, told_all):
            readings = {AGENTS[0]: told, AGENTS[1]: told, AGENTS[2]: second}
            made.store.apply(Sampled(HOST, readings))
        again = Reading(2.0, cpu_ns=1, net_received=6, net_sent=6)
        made.store.apply(Sampled(HOST, {AGENTS[2]: again}))
        await made.see(0, 2)
        await until(lambda: made.guests.measured == {1})
        await made.see(1)
        await made.see(1)
        await until(lambda: made.guests.measured == {2})
        await made.see()
        await until(lambda: not made.guests.measured)


async def test_a_vm_that_goes_takes_no_turn() -> None:
    async with hall(6) as made:
        await until_all(made, lambda agent: agent.state is State.ASKING)
        for number in range(6):
            off = Vm(AGENTS[number], literal("a"), HOST, Power.OFF)
            made.store.apply(VmSeen(off, 2))
            made.watch.tend(off.id, made.store.agent(off.id))
        await until_all(made, lambda agent: agent.link is Link.NONE)
        await until(lambda: not made.guests.streams.total())
