"""One verb on many agents: a few at a time on each host, and what came of each."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from swarm_tui.command import Command
from swarm_tui.errors import SwarmError
from swarm_tui.model import Agent, AgentId, HostName
from swarm_tui.text import EMPTY, Safe, join, literal, sanitize

AT_ONCE: Final = 4
"""On one host: each may write gigabytes there."""

Do = Callable[[Command], Awaitable[Safe]]


class Fate(StrEnum):
    """How far the verb is with one agent."""

    WAITING = "waiting"
    AT_WORK = "at work"
    DONE = "done"
    FAILED = "failed"
    LEFT = "left"  # called off before it began


@dataclass(slots=True)
class Item:
    agent: Agent
    """As it was when the verb was asked for."""
    fate: Fate = Fate.WAITING
    told: Safe = EMPTY
    """What was done."""
    error: BaseException | None = None
    """Why it was not."""


class Batch:
    """Bound to its agents by their ids, whatever becomes of the list that they were chosen from."""

    def __init__(self, word: str, agents: Iterable[Agent], make: Callable[[AgentId], Command]):
        """`word` is what is done, for people."""
        self.word = word
        self.items = [Item(agent) for agent in agents]
        self._make = make
        self._gates: dict[HostName, asyncio.Semaphore] = {}

    @property
    def counts(self) -> Mapping[Fate, int]:
        return Counter(item.fate for item in self.items)

    @property
    def is_over(self) -> bool:
        return not any(item.fate in (Fate.WAITING, Fate.AT_WORK) for item in self.items)

    def having(self, fate: Fate) -> Sequence[Item]:
        return [item for item in self.items if item.fate is fate]

    def call_off(self) -> int:
        """Leave out those that have not begun; how many. What is at work comes to its end."""
        waiting = self.having(Fate.WAITING)
        for item in waiting:
            item.fate = Fate.LEFT
        return len(waiting)

    async def run(self, do: Do, on_end: Callable[[Item], None] = lambda item: None) -> None:
        """Do it to all; one that fails takes no other with it. `on_end` is told each as it ends.

        What is no SwarmError is kept as the item's error like any other.
        """
        for item in self.items:
            self._gates.setdefault(item.agent.host, asyncio.Semaphore(AT_ONCE))
        results = await asyncio.gather(
            *(self._do(item, do, on_end) for item in self.items), return_exceptions=True
        )
        for item, result in zip(self.items, results, strict=True):
            if isinstance(result, BaseException):
                item.fate, item.error = Fate.FAILED, result

    async def _do(self, item: Item, do: Do, on_end: Callable[[Item], None]) -> None:
        async with self._gates[item.agent.host]:
            if item.fate is not Fate.WAITING:
                return
            item.fate = Fate.AT_WORK
            try:
                item.told = await do(self._make(item.agent.id))
            except SwarmError as error:
                item.fate, item.error = Fate.FAILED, error
            else:
                item.fate = Fate.DONE
            on_end(item)


def count(agents: Iterable[Agent]) -> Safe:
    """How many are in each state and on each host: "10 running, 2 asking · 8 on lab, 4 on edge"."""
    states: Counter[str] = Counter()
    hosts: Counter[HostName] = Counter()
    for agent in agents:
        states[agent.state.value] += 1
        hosts[agent.host] += 1
    by_state = ", ".join(f"{number} {state}" for state, number in states.most_common())
    by_host = ", ".join(f"{number} on {host}" for host, number in hosts.most_common(8))
    if len(hosts) > 8:
        by_host += f" and {len(hosts) - 8} more hosts"
    return sanitize(f"{by_state} · {by_host}", max_cells=400)


def tell_refusals(reasons: Iterable[Safe]) -> Sequence[Safe]:
    """Why some cannot, one line a reason: "2 cannot: it is saved; only …"."""
    return [
        join((literal(f"{number} cannot:"), reason))
        for reason, number in Counter(reasons).most_common()
    ]
