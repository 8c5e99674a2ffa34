"""The fleet in the order, the groups and the choice in which it is shown.

Kept up to date from the store's changed ids alone: nothing is done per agent in a tick in which
that agent did not change, and the others are put among the sorted ones at most once per `REST_S`
seconds.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any, Final

from swarm_tui.filter import Filter, parse
from swarm_tui.model import Agent, AgentId, HostName, State, Tag
from swarm_tui.store import Store, sort_key
from swarm_tui.text import sanitize
from swarm_tui.views import Group, Order

REST_S: Final = 1.0
"""Between two sortings, so that a busy list can be read."""
_MANY: Final = 8
"""When more than one in so many agents has another place, all are sorted anew."""
VOLATILE_REST_S: Final = 2.0
"""The same where the order is by a number that changes with every sample."""


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
Rank = tuple[Any, ...]
"""What an order sorts by; the last part is the agent's id, so that no two are alike."""


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
        self.is_reversed = False
        """The last stands first."""
        self.label = ""
        """The key of the label by which agents are grouped."""
        self._filter = parse("")
        self._chosen: dict[AgentId, Agent] = self.agents
        """Those that the filter lets through; without one, all of them."""
        self._ranking: list[Rank] = []
        """The ranks of all agents in order."""
        self._ranks: dict[AgentId, Rank] = {}
        self._misplaced: set[AgentId] = set(self.agents)
        """Whose place in the ranking may be another one."""
        self.sections: tuple[Section, ...] = ()
        self._starts: list[int] = []
        self._position: dict[AgentId, int] = {}
        self._is_stale = True
        self._sorted_at = -math.inf
        self.arrange(0.0)

    # Reads

    @property
    def filter(self) -> str:
        return self._filter.text

    @property
    def grouped(self) -> str:
        """By what, in words; empty when it is not."""
        match self.group:
            case Group.NONE:
                return ""
            case Group.LABEL:
                return f"label {self.label}"
        return self.group

    def known(self) -> Mapping[str, Iterable[str]]:
        """What there is to filter by: key → values."""
        labels = {label for agent in self.agents.values() for label in agent.tag.labels}
        owners = {agent.tag.owner for agent in self.agents.values()}
        return {
            "host": list(self.hosts),
            "owner": {"me", *(owner for owner in owners if owner)},
            "label": {text for label in labels for text in (label.key, label.text)},
            "name": {agent.name for agent in self.agents.values()},
        }

    def label_keys(self) -> Sequence[str]:
        """The keys of labels that agents have, those of the most agents first."""
        keys = Counter(label.key for agent in self.agents.values() for label in agent.tag.labels)
        return [key for key, _ in sorted(keys.items(), key=lambda item: (-item[1], item[0]))]

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

    def between(self, one: AgentId, other: AgentId) -> Sequence[AgentId]:
        """Both and all that are shown between them; nobody when either is not shown."""
        places = sorted(
            place for agent in (one, other) if (place := self.position(agent)) is not None
        )
        if len(places) < 2:
            return []
        shown = [agent for section in self.sections for agent in section.ids]
        return shown[places[0] : places[1] + 1]

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
        if not (self._is_stale or is_volatile):
            return False
        if self._ranking and now - self._sorted_at < rest:  # the first agents wait for nobody
            return False
        return self.arrange(now)

    def _absorb(self, agent: AgentId, fresh: Agent | None) -> None:
        was = self.agents.get(agent)
        if fresh is None:
            if was:
                del self.agents[agent]
                self._chosen.pop(agent, None)
                self._count(was, -1)
                self._misplace(agent)
            return
        self.agents[agent] = fresh
        if not self._filter.is_everything:
            self._choose_again(agent, fresh)
        if was is None:
            self._count(fresh, 1)
            self._misplace(agent)
            return
        if was.state is not fresh.state or was.host != fresh.host:
            self._count(was, -1)
            self._count(fresh, 1)
            self._misplace(agent)
        elif _place(was) != _place(fresh):
            self._misplace(agent)

    def _misplace(self, agent: AgentId) -> None:
        self._misplaced.add(agent)
        self._is_stale = True

    def _choose_again(self, agent: AgentId, fresh: Agent) -> None:
        """Ask the filter about one agent that has changed."""
        was_chosen = agent in self._chosen
        if self._filter.matches(fresh):
            self._chosen[agent] = fresh
        else:
            self._chosen.pop(agent, None)
        self._is_stale |= was_chosen != (agent in self._chosen)

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
        is_reversed: bool | None = None,
        group: Group | None = None,
        label: str | None = None,
        filter: str | None = None,
    ) -> None:
        """Show it otherwise, at once. Raises UsageError for a wrong filter; then all stays."""
        if filter is not None:
            self._take_filter(parse(filter))
        if order and order is not self.order:
            self.order = order
            self._misplaced.update(self.agents)
        self.is_reversed = self.is_reversed if is_reversed is None else is_reversed
        self.group = group or self.group
        self.label = self.label if label is None else label
        self.arrange(now)

    def _take_filter(self, filter: Filter) -> None:
        self._filter = filter
        self._chosen = self.agents
        if not filter.is_everything:
            self._chosen = {
                agent: known for agent, known in self.agents.items() if filter.matches(known)
            }

    def arrange(self, now: float) -> bool:
        """Choose, group and sort anew; True when anything is at another place."""
        self._is_stale, self._sorted_at = False, now
        self._rank()
        ranking = reversed(self._ranking) if self.is_reversed else self._ranking
        chosen = [agent for rank in ranking if (agent := self._chosen.get(rank[-1]))]
        was = self.sections
        self.sections = tuple(self._divide(chosen))
        if self.sections == was:
            return False
        self._starts = list(accumulate((len(s.ids) for s in self.sections), initial=0))[:-1]
        ids = (agent for section in self.sections for agent in section.ids)
        self._position = {agent: place for place, agent in enumerate(ids)}
        return True

    def _rank(self) -> None:
        """Put those that may stand elsewhere into their places."""
        rank_of = _RANKS[self.order]
        if self.order in (Order.CPU, Order.MEMORY) or (
            len(self._misplaced) * _MANY > len(self.agents)
        ):
            self._ranks = {agent: rank_of(known) for agent, known in self.agents.items()}
            self._ranking = sorted(self._ranks.values())
        else:
            for agent in self._misplaced:
                if was := self._ranks.pop(agent, None):
                    del self._ranking[bisect_left(self._ranking, was)]
                if known := self.agents.get(agent):
                    self._ranks[agent] = rank_of(known)
                    insort(self._ranking, self._ranks[agent])
        self._misplaced.clear()

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
            case Group.OWNER:
                yield from _by_text(agents, lambda tag: tag.owner, "no owner")
            case Group.LABEL:
                key = self.label
                yield from _by_text(agents, lambda tag: _label_of(tag, key), f"no {key}")


def _place(agent: Agent) -> tuple[object, ...]:
    """What decides where it stands, besides its state and its host."""
    return (agent.since, agent.waits_since, agent.name, agent.tag)


def _by_text(agents: list[Agent], text: Callable[[Tag], str], none: str) -> Iterable[Section]:
    """By a text of their tags, those without one last."""
    groups: dict[str, list[AgentId]] = {}
    for agent in agents:
        groups.setdefault(text(agent.tag), []).append(agent.id)
    for title in sorted(groups, key=lambda title: (not title, title)):
        yield Section(title or none, None, tuple(groups[title]))


def _label_of(tag: Tag, key: str) -> str:
    return next((label.text for label in tag.labels if label.key == key), "")


@lru_cache(32768)
def _natural(name: str) -> Key:
    """ "agent-2" before "agent-10"; digits at odd places, so that like meets like."""
    parts = re.split(r"([0-9]{1,18})", name)
    return tuple(int(part) if place % 2 else part for place, part in enumerate(parts))


def _last(value: float | None) -> float:
    return math.inf if value is None else value


def _descending(value: float | None) -> float:
    return math.inf if value is None else -value


_RANKS: Final[Mapping[Order, Callable[[Agent], Rank]]] = {
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
