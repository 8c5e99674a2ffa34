"""Keeps agents ready in advance, in the background: one at a time, and only while nothing else is.

What is made of what, and how one is claimed, is the spawners' own business.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from swarm_tui.command import Spawn
from swarm_tui.errors import Busy, SwarmError, Unsupported
from swarm_tui.model import HostName
from swarm_tui.placement import Forecast
from swarm_tui.ports import Order, Progress
from swarm_tui.profile import Profile
from swarm_tui.review.depot import Depot
from swarm_tui.stock import Stock, Stocker
from swarm_tui.text import Safe

LOOK_S: Final = 3.0
READ_S: Final = 10.0
"""How often it is looked how they stand, for the screen."""
RESOLVE_S: Final = 60.0
"""For how long the background takes a repository's ref for what it was; a spawn asks anew."""
AGAIN_S: Final = 30.0
"""After a failure; doubled after each further one."""
AGAIN_AT_MOST_S: Final = 1800.0


@dataclass(slots=True)
class _Rest:
    until: float = 0.0
    after_s: float = AGAIN_S


class Stocks:
    """Of one supervisor."""

    def __init__(
        self,
        stockers: Mapping[HostName, Stocker] = MappingProxyType({}),
        profiles: Callable[[], Sequence[Profile]] = tuple,
        depot: Depot | None = None,
    ) -> None:
        """`profiles` reads them, and blocks."""
        self.seen: Mapping[HostName, Sequence[Stock]] = {}
        """How they stood when it was looked last; for the screen."""
        self._stockers = stockers
        self._profiles = profiles
        self._depot = depot
        self._orders: dict[Profile, tuple[float, Order]] = {}
        self._rests: dict[tuple[HostName, Safe], _Rest] = {}

    def hosts(self, profile: Profile) -> Sequence[HostName]:
        """Where they may be kept ready."""
        return [host for host in self._stockers if not profile.hosts or host in profile.hosts]

    async def run(
        self,
        foresee: Callable[[Spawn], Forecast],
        is_busy: Callable[[HostName], bool],
        on_fault: Callable[[BaseException], None],
    ) -> None:
        """Fill and look again and again, for ever.

        Nothing is begun on a host that `is_busy`, or where `foresee` finds no memory for it: what
        a person waits for goes first.
        """
        if not self._stockers:
            return
        looked = -READ_S
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                if not any(profile.ready for profile in await self._wanted()) and not self.seen:
                    continue
                is_filled = await self._fill_one(foresee, is_busy, on_fault)
                if is_filled or time.monotonic() - looked > READ_S:
                    looked = time.monotonic()
                    await self.read()
            except SwarmError as error:  # no profile can be read, or a host is out of reach
                on_fault(error)
                await asyncio.sleep(AGAIN_S)

    async def read(self) -> Mapping[HostName, Sequence[Stock]]:
        """How they stand now, by host. Raises SwarmError."""
        wanted = await self._wanted()
        self.seen = {
            host: await stocker.stocks([await self._shown_order(one) for one in wanted])
            for host, stocker in self._stockers.items()
        }
        return self.seen

    async def fill(self, host: HostName, profile: Profile, on_progress: Progress) -> int:
        """Make all that its profile wants; how many were made. Raises SwarmError."""
        order = await self._order(profile, on_progress)
        stocker = self._stockers[host]
        before = await self._count(stocker, order)
        while await stocker.replenish(order, on_progress):
            pass
        return max(0, await self._count(stocker, order) - before)

    async def drain(self, host: HostName, profile: Profile) -> int:
        """Remove them; how many there were. Raises SwarmError."""
        return await self._stockers[host].drain(profile)

    async def _fill_one(
        self,
        foresee: Callable[[Spawn], Forecast],
        is_busy: Callable[[HostName], bool],
        on_fault: Callable[[BaseException], None],
    ) -> bool:
        """Make one where one is wanted; whether any was."""
        for profile in await self._wanted():
            for host in self.hosts(profile):
                stocker = self._stockers[host]
                rest = self._rests.setdefault((host, profile.name), _Rest())
                if time.monotonic() < rest.until or is_busy(host):
                    continue
                if foresee(Spawn(host, profile=profile)).error:
                    continue
                try:
                    order = await self._recent_order(profile)
                    if await self._count(stocker, order) >= profile.ready:
                        continue
                    await stocker.replenish(order, _unheard)
                except (Busy, Unsupported) as quiet:  # another is at it, or it never will be
                    is_never = isinstance(quiet, Unsupported)
                    rest.until = time.monotonic() + (AGAIN_AT_MOST_S if is_never else LOOK_S)
                except SwarmError as error:
                    rest.until = time.monotonic() + rest.after_s
                    rest.after_s = min(2 * rest.after_s, AGAIN_AT_MOST_S)
                    on_fault(error)
                else:
                    self._rests.pop((host, profile.name), None)
                    return True
        return False

    async def _count(self, stocker: Stocker, order: Order) -> int:
        stocks = await stocker.stocks([order])
        return next((one.ready for one in stocks if one.profile == order.profile.name), 0)

    async def _wanted(self) -> Sequence[Profile]:
        return [one for one in await asyncio.to_thread(self._profiles) if one.ready]

    async def _shown_order(self, profile: Profile) -> Order:
        """Where its repository cannot be read, nothing counts as ready; filling tells why."""
        try:
            return await self._recent_order(profile)
        except SwarmError:
            return Order(profile=profile)

    async def _recent_order(self, profile: Profile) -> Order:
        taken, order = self._orders.get(profile, (0.0, None))
        if order is None or time.monotonic() - taken > RESOLVE_S:
            order = await self._order(profile, _unheard)
            self._orders[profile] = time.monotonic(), order
        return order

    async def _order(self, profile: Profile, on_progress: Progress) -> Order:
        """What ready ones are made by: without a name, a task, or a secret."""
        if not profile.repository or self._depot is None:
            return Order(profile=profile)
        source = await self._depot.get(profile.repository, profile.ref, on_progress)
        return Order(profile=profile, source=source)


def _unheard(_step: Safe, _fraction: float | None) -> None:
    pass
