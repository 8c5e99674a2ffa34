"""One verb on many agents: a few at a time on each host, and what came of each."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from swarm_tui.command import Command, Resume, Spawn
from swarm_tui.errors import SwarmError
from swarm_tui.model import Agent, AgentId, HostName
from swarm_tui.text import EMPTY, Safe, join, literal, sanitize

AT_ONCE: Final = 4
"""On one host: each may write gigabytes there."""
BORN_AT_ONCE: Final = 20
"""Of new agents: where each one goes, and how many at a time there, is seen to elsewhere."""


class Do(Protocol):
    """How a command is done: `Supervisor.do`."""

    async def __call__(
        self, command: Command, on_progress: Callable[[Safe, float | None], None] | None = None, /
    ) -> Safe: ...


class Fate(StrEnum):
    """How far the verb is with one agent."""

    WAITING = "waiting"
    AT_WORK = "at work"
    DONE = "done"
    FAILED = "failed"
    LEFT = "left"  # called off before it began


@dataclass(slots=True)
class Item:
    """One agent, as it was when the verb was asked for; or one that is to be made."""

    name: Safe
    host: HostName | None
    """None: it is not known yet."""
    command: Command
    id: AgentId | None = None
    """None: there is none yet."""
    fate: Fate = Fate.WAITING
    step: Safe = EMPTY
    """What is being done now."""
    told: Safe = EMPTY
    """What was done."""
    error: BaseException | None = None
    """Why it was not."""


class Batch:
    """Bound to its agents by their ids, whatever becomes of the list that they were chosen from."""

    def __init__(
        self,
        word: str,
        agents: Iterable[Agent] = (),
        make: Callable[[AgentId], Command] = Resume,
        *,
        new: Sequence[Spawn] = (),
    ):
        """`word` is what is done, for people; to `agents`, or by making `new` ones."""
        self.word = word
        self.is_new = bool(new)
        self.items = [
            Item(agent.name or sanitize(agent.id), agent.host, make(agent.id), agent.id)
            for agent in agents
        ]
        self.items += [
            Item(sanitize(command.name) or literal(f"number {number}"), command.host, command)
            for number, command in enumerate(new, 1)
        ]
        born = asyncio.Semaphore(BORN_AT_ONCE)
        self._gates = {
            item.host: born if new else asyncio.Semaphore(AT_ONCE) for item in self.items
        }

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
        results = await asyncio.gather(
            *(self._do(item, do, on_end) for item in self.items), return_exceptions=True
        )
        for item, result in zip(self.items, results, strict=True):
            if isinstance(result, BaseException):
                item.fate, item.error = Fate.FAILED, result

    async def _do(self, item: Item, do: Do, on_end: Callable[[Item], None]) -> None:
        async with self._gates[item.host]:
            if item.fate is not Fate.WAITING:
                return
            item.fate = Fate.AT_WORK

            def show(step: Safe, fraction: float | None) -> None:
                item.step = join((step, literal(f"{fraction:.0%}" if fraction else "")))

            try:
                item.told = await do(item.command, show)
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
