"""The fleet in the order, the groups and the choice in which it is shown.

Kept up to date from the store's changed ids alone: nothing is done per agent in a tick in which
that agent did not change, and the whole is sorted again at most once per `REST_S` seconds.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import accumulate
from typing import Final

from swarm_tui.model import Agent, AgentId, HostName, State
from swarm_tui.store import Store, sort_key
from swarm_tui.text import sanitize

REST_S: Final = 1.0
"""Between two sortings, so that a busy list can be read."""
VOLATILE_REST_S: Final = 2.0
"""The same where the order is by a number that changes with every sample."""


class Order(StrEnum):
    ATTENTION = "attention"
    NAME = "name"
    STATE = "state"
    AGE = "age"
    CPU = "cpu"
    MEMORY = "memory"
    HOST = "host"


class Group(StrEnum):
    NONE = "none"
    HOST = "host"
    STATE = "state"


URGENCY: Final[Mapping[State, int]] = {
    state: rank
    for rank, state in enumerate(
        (
            State.ASKING,
            State.FAILED,
            State.LOST,
            State.UNKNOWN,
            State.STARTING,
            State.RUNNING,
            State.FROZEN,
            State.PAUSED,
            State.SAVED,
            State.DONE,
        )
    )
}
"""States in the order in which a human should look at them."""

Key = tuple[float | int | str, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """Agents under one heading; `title` is empty when there are no groups."""

    title: str
    state: State | None
    ids: tuple[AgentId, ...]


class Roster:
    """`sections` hold what is shown; `agents` holds all that is known."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.agents: dict[AgentId, Agent] = {agent.id: agent for agent in store.agents()}
        self.counts = Counter(agent.state for agent in self.agents.values())
        self.hosts: Counter[HostName] = Counter(agent.host for agent in self.agents.values())
        self.order = Order.ATTENTION
        self.group = Group.NONE
        self.filter = ""
        self._matches: Callable[[Agent], bool] = _all
        self.sections: tuple[Section, ...] = ()
        self._starts: list[int] = []
        self._position: dict[AgentId, int] = {}
        self._is_stale = True
        self._sorted_at = -math.inf
        self.arrange(0.0)

    # Reads

    def __len__(self) -> int:
        """How many agents are shown."""
        return len(self._position)

    def __contains__(self, agent: AgentId) -> bool:
        return agent in self._position

    def position(self, agent: AgentId) -> int | None:
        """Its place among all that are shown."""
        return self._position.get(agent)

    def at(self, position: int) -> AgentId | None:
        """The agent at a place, the last one for a place beyond the end."""
        if not self._position:
            return None
        section, index = self.locate(max(0, min(position, len(self) - 1)))
        return self.sections[section].ids[index]

    def in_order(self, agents: Iterable[AgentId]) -> list[AgentId]:
        """Those that are known, in the order in which they are shown."""
        known = [agent for agent in agents if agent in self.agents]
        return sorted(known, key=lambda agent: self._position.get(agent, len(self)))

    def locate(self, position: int) -> tuple[int, int]:
        """The section of a place, and the place within it."""
        section = bisect_right(self._starts, position) - 1
        return section, position - self._starts[section]

    def start(self, section: int) -> int:
        """The place of a section's first agent."""
        return self._starts[section]

    def next_asking(self, after: AgentId | None) -> AgentId | None:
        """Who waits for a human, by a question or an open review: the one after `after`."""
        waiting = (agent for agent in self.agents.values() if agent.is_waiting)
        ids = [agent.id for agent in sorted(waiting, key=sort_key)]
        if not ids:
            return None
        return ids[(ids.index(after) + 1) % len(ids)] if after in ids else ids[0]

    # Changes

    def absorb(self, dirty: Iterable[AgentId], now: float) -> bool:
        """Take in what changed; True when the arrangement is another one. `now` is monotonic."""
        for agent in dirty:
            self._absorb(agent, self._store.agent(agent))
        is_volatile = self.order in (Order.CPU, Order.MEMORY)
        rest = VOLATILE_REST_S if is_volatile else REST_S
        if not (self._is_stale or is_volatile) or now - self._sorted_at < rest:
            return False
        return self.arrange(now)

    def _absorb(self, agent: AgentId, fresh: Agent | None) -> None:
        was = self.agents.get(agent)
        if fresh is None:
            if was:
                del self.agents[agent]
                self._count(was, -1)
                self._is_stale = True
            return
        self.agents[agent] = fresh
        if was is None:
            self._count(fresh, 1)
            self._is_stale = True
            return
        if was.state is not fresh.state or was.host != fresh.host:
            self._count(was, -1)
            self._count(fresh, 1)
            self._is_stale = True
        elif (was.since, was.waits_since, was.name) != (fresh.since, fresh.waits_since, fresh.name):
            self._is_stale = True

    def _count(self, agent: Agent, step: int) -> None:
        self.counts[agent.state] += step
        self.hosts[agent.host] += step
        if not self.hosts[agent.host]:
            del self.hosts[agent.host]

    def choose(
        self,
        now: float,
        *,
        order: Order | None = None,
        group: Group | None = None,
        filter: str | None = None,
    ) -> None:
        """Show it otherwise, at once."""
        self.order = order or self.order
        self.group = group or self.group
        if filter is not None:
            self.filter = filter
            self._matches = parse_filter(filter)
        self.arrange(now)

    def arrange(self, now: float) -> bool:
        """Choose, group and sort anew; True when anything is at another place."""
        self._is_stale, self._sorted_at = False, now
        chosen = (
            list(self.agents.values())
            if self._matches is _all
            else [agent for agent in self.agents.values() if self._matches(agent)]
        )
        chosen.sort(key=_KEYS[self.order])
        was = self.sections
        self.sections = tuple(self._divide(chosen))
        if self.sections == was:
            return False
        self._starts = list(accumulate((len(s.ids) for s in self.sections), initial=0))[:-1]
        ids = (agent for section in self.sections for agent in section.ids)
        self._position = {agent: place for place, agent in enumerate(ids)}
        return True

    def _divide(self, agents: list[Agent]) -> Iterable[Section]:
        match self.group:
            case Group.NONE:
                if agents:
                    yield Section("", None, tuple(agent.id for agent in agents))
            case Group.HOST:
                by_host: dict[str, list[AgentId]] = {}
                for agent in agents:
                    by_host.setdefault(agent.host, []).append(agent.id)
                for host in sorted(by_host):
                    yield Section(sanitize(host) or "no host", None, tuple(by_host[host]))
            case Group.STATE:
                by_state: dict[State, list[AgentId]] = {}
                for agent in agents:
                    by_state.setdefault(agent.state, []).append(agent.id)
                for state in sorted(by_state, key=URGENCY.__getitem__):
                    yield Section(state.value, state, tuple(by_state[state]))


def _all(_: Agent) -> bool:
    return True


def parse_filter(text: str) -> Callable[[Agent], bool]:
    """Every word must occur in name, host, state, task or owner; "!word" must not."""
    words = text.casefold().split()
    wanted = [word for word in words if not word.startswith("!")]
    unwanted = [word[1:] for word in words if len(word) > 1 and word.startswith("!")]
    if not wanted and not unwanted:
        return _all

    def matches(agent: Agent) -> bool:
        tag = agent.tag
        about = "\n".join((agent.name, agent.host, agent.state, tag.task, tag.owner)).casefold()
        return all(word in about for word in wanted) and not any(word in about for word in unwanted)

    return matches


@lru_cache(32768)
def _natural(name: str) -> Key:
    """ "agent-2" before "agent-10"; digits at odd places, so that like meets like."""
    parts = re.split(r"([0-9]{1,18})", name)
    return tuple(int(part) if place % 2 else part for place, part in enumerate(parts))


def _last(value: float | None) -> float:
    return math.inf if value is None else value


def _descending(value: float | None) -> float:
    return math.inf if value is None else -value


_KEYS: Final[Mapping[Order, Callable[[Agent], tuple[object, ...]]]] = {
    Order.ATTENTION: lambda agent: (*sort_key(agent)[:3], _natural(agent.name), agent.id),
    Order.NAME: lambda agent: (_natural(agent.name), agent.host, agent.id),
    Order.STATE: lambda agent: (URGENCY[agent.state], _natural(agent.name), agent.id),
    Order.AGE: lambda agent: (_last(agent.since), _natural(agent.name), agent.id),
    Order.CPU: lambda agent: (
        _descending(agent.usage.cpu_percent if agent.usage else None),
        _natural(agent.name),
        agent.id,
    ),
    Order.MEMORY: lambda agent: (
        _descending(agent.usage.memory_used if agent.usage else None),
        _natural(agent.name),
        agent.id,
    ),
    Order.HOST: lambda agent: (agent.host, _natural(agent.name), agent.id),
}
