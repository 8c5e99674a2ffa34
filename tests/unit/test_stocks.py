"""Filling in the background: only while nothing else is at work, with rests after failures."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn, cast

import pytest

from swarm_tui import stocks as module
from swarm_tui.errors import NotFound, Refused, StorageFull
from swarm_tui.model import HostName
from swarm_tui.placement import Forecast
from swarm_tui.ports import Order, Progress
from swarm_tui.profile import Profile
from swarm_tui.review.depot import Depot
from swarm_tui.stock import Stock, spread
from swarm_tui.stocks import Stocks
from swarm_tui.text import literal

HOST = HostName("local")
QUICK = Profile(name=literal("quick"), ready=2)


class StandInStocker:
    """Implements `stock.Stocker` with numbers."""

    def __init__(self) -> None:
        self.ready = 0
        self.tried = 0
        self.failure: Exception | None = None
        self.changed = asyncio.Event()

    async def replenish(self, order: Order, on_progress: Progress) -> bool:
        self.tried += 1
        self.changed.set()
        if self.failure:
            raise self.failure
        self.ready += 1
        return self.ready < order.profile.ready

    async def stocks(self, orders: Sequence[Order]) -> Sequence[Stock]:
        return [Stock(one.profile.name, one.profile.ready, self.ready) for one in orders]

    async def drain(self, profile: Profile) -> int:
        gone, self.ready = self.ready, 0
        return gone


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.001)
    monkeypatch.setattr(module, "READ_S", 0.001)


def roomy(_: object) -> Forecast:
    return Forecast(())


def idle(_: HostName) -> bool:
    return False


async def until(stocks: Stocks, ready: int) -> None:
    async with asyncio.timeout(10):
        while True:
            if stocks.seen and stocks.seen[HOST][0].ready == ready:
                return
            await asyncio.sleep(0.002)


async def test_it_fills_up_to_what_is_wanted_and_tells_it() -> None:
    stocker, faults = StandInStocker(), list[BaseException]()
    stocks = Stocks({HOST: stocker}, lambda: [QUICK, Profile()])
    running = asyncio.create_task(stocks.run(roomy, idle, faults.append))
    await until(stocks, 2)
    running.cancel()
    assert (stocker.ready, stocker.tried, faults) == (2, 2, [])


async def test_nothing_is_begun_while_a_verb_is_at_work_or_memory_lacks() -> None:
    stocker, busy = StandInStocker(), {HOST}
    stocks = Stocks({HOST: stocker}, lambda: [QUICK])
    running = asyncio.create_task(stocks.run(roomy, busy.__contains__, lambda _: None))
    await until(stocks, 0)
    assert stocker.tried == 0
    busy.clear()
    await until(stocks, 2)
    running.cancel()

    narrow = replace(roomy(None), error=Refused("no memory"))
    stocker = StandInStocker()
    stocks = Stocks({HOST: stocker}, lambda: [QUICK])
    running = asyncio.create_task(stocks.run(lambda _: narrow, idle, lambda _: None))
    await until(stocks, 0)
    running.cancel()
    assert stocker.tried == 0


async def test_a_failure_is_told_once_and_rested_after() -> None:
    stocker, faults = StandInStocker(), list[BaseException]()
    stocker.failure = StorageFull("no room")
    stocks = Stocks({HOST: stocker}, lambda: [QUICK])
    running = asyncio.create_task(stocks.run(roomy, idle, faults.append))
    await asyncio.wait_for(stocker.changed.wait(), 10)
    await until(stocks, 0)
    running.cancel()
    assert faults == [stocker.failure]
    assert stocker.tried == 1


async def test_a_repository_that_cannot_be_read_is_told_once_and_hides_no_other_pool() -> None:
    class StandInDepot:
        async def get(self, repository: str, ref: str, on_progress: Progress) -> NoReturn:
            raise NotFound("no such repository")

    stocker, faults = StandInStocker(), list[BaseException]()
    lost = replace(QUICK, name=literal("lost"), repository="/nowhere")
    depot = cast(Depot, StandInDepot())
    stocks = Stocks({HOST: stocker}, lambda: [QUICK, lost], depot)
    running = asyncio.create_task(stocks.run(roomy, idle, faults.append))
    await until(stocks, 2)
    running.cancel()
    assert [one.profile for one in stocks.seen[HOST]] == ["quick", "lost"]
    assert len(faults) <= 1


async def test_a_person_fills_and_drains_at_once() -> None:
    stocker = StandInStocker()
    stocks = Stocks({HOST: stocker}, lambda: [QUICK])
    assert stocks.hosts(QUICK) == [HOST]
    assert stocks.hosts(replace(QUICK, hosts=("elsewhere",))) == []
    assert await stocks.fill(HOST, QUICK, lambda _step, _fraction: None) == 2
    assert await stocks.drain(HOST, QUICK) == 2


def test_what_was_measured_is_told_with_its_count() -> None:
    assert spread([]) is None
    told = spread([float(number) for number in range(1, 101)])
    assert told
    assert (told.p50_s, told.p95_s, told.count) == (50.0, 95.0, 100)
    assert str(spread([0.5])) == "p50 0.50 s, p95 0.50 s of 1"
