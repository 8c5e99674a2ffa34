"""Calling a person who looks elsewhere: what happens together rings once, and says who it is.

What reaches the terminal is a bell and an OSC by which it shows a notification on the desktop.
OSC 777 is what most terminals of today know: kitty, foot, WezTerm, Ghostty, Konsole, and Windows
Terminal (microsoft/terminal#20012). iTerm2 knows OSC 9 only
(https://iterm2.com/documentation-escape-codes.html); both at once would be two notifications
where both are known. A terminal that knows neither ignores them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from swarm_tui.model import Agent, AgentId, Host, HostName, HostState, State
from swarm_tui.text import Safe, sanitize

How = Literal["desktop", "bell", "off"]
Topic = Literal["asks", "failures", "done"]

USUAL: Final[Collection[Topic]] = frozenset({"asks", "failures"})
GATHER_S: Final = 1.0
"""What happens within this time is told together."""
LULL_S: Final = 5.0
"""Nothing is told sooner after what was told last, however much happens."""
REST_S: Final = 10.0
"""Nobody is told of one agent or host more often than this."""
SETTLE_S: Final = 5.0
"""For so long after the start, what was asked before it may still be heard; it is no news."""
_CELLS: Final = 160
_NAMED_AT_MOST: Final = 5
_BELL: Final = "\x07"
_TOPICS: Final[Mapping[State, Topic]] = {
    State.ASKING: "asks",
    State.FAILED: "failures",
    State.DONE: "done",
}
_SAID: Final[Mapping[Topic, tuple[str, str, str]]] = {
    "asks": ("asks", "agents ask for review", "ask"),
    "failures": ("failed", "agents failed", "failed"),
    "done": ("is done", "agents are done", "done"),
}
"""Of one, of several, and among others."""


@dataclass(frozen=True, slots=True)
class Call:
    """One agent or host that a person is called for."""

    topic: Topic
    since: float | None
    name: Safe
    reason: Safe
    is_host: bool = False


@dataclass(frozen=True, slots=True)
class Notice:
    """What is told now: one line, and what rings the terminal with it."""

    line: Safe
    terminal: str
    counts: Mapping[Topic, int]


class Notices:
    """Knows what has been told. Times are of the app's own clocks, in seconds."""

    def __init__(
        self,
        how: How,
        environ: Mapping[str, str],
        now: float,
        topics: Collection[str] = USUAL,
        is_seen: Callable[[], bool] = lambda: False,
    ) -> None:
        """`now` is the wall clock at the app's start. `is_seen`: the person sees the queue now."""
        self._how = how
        self._environ = environ
        self._topics = topics
        self._is_seen = is_seen
        self._started = now - 1.0  # guests tell whole seconds
        self._told: dict[str, Call] = {}
        self._told_at: dict[str, float] = {}
        self._waiting: dict[str, tuple[float, Call]] = {}
        """What nobody was told of yet, and since when it waits to be told."""
        self._last_at = -math.inf
        self._seen_up: set[HostName] = set()
        """Whose loss is news."""

    def hear(self, agent: AgentId, known: Agent | None, now: float, monotonic: float) -> None:
        """Take in how an agent stands now; None: it is gone."""
        if known is None:
            for facts in (self._told, self._told_at, self._waiting):
                facts.pop(agent, None)
            return
        topic = _TOPICS.get(known.state)
        call = Call(topic, known.since, known.name, known.reason) if topic else None
        # How long it has been so is always known of an ask; of others only if we saw it begin.
        since = known.since if known.since is not None or topic == "asks" else -math.inf
        self._take_in(agent, call, now if since is None else since, now, monotonic)

    def hear_hosts(self, hosts: Iterable[Host], now: float, monotonic: float) -> None:
        """All hosts, whenever one of them changed."""
        for host in hosts:
            call = None
            if host.state is HostState.UP:
                self._seen_up.add(host.name)
            if host.state is HostState.DOWN and host.name in self._seen_up:
                name, why = sanitize(host.name), host.reason or host.detail
                call = Call("failures", host.since, name, why, is_host=True)
            self._take_in(f"host {host.name}", call, host.since, now, monotonic)

    def _take_in(
        self, key: str, call: Call | None, since: float, now: float, monotonic: float
    ) -> None:
        if call is None or call.topic not in self._topics or self._told.get(key) == call:
            self._waiting.pop(key, None)
        elif since == -math.inf or (since < self._started and now < self._started + SETTLE_S):
            self._told[key] = call
        else:
            began, _ = self._waiting.get(key, (monotonic, call))
            self._waiting[key] = (began, call)

    def take(self, monotonic: float) -> Notice | None:
        """What to tell now, once; None when there is nothing."""
        due = {
            key: (began, call)
            for key, (began, call) in self._waiting.items()
            if monotonic - self._told_at.get(key, -REST_S) >= REST_S
        }
        if not due or monotonic - min(began for began, _ in due.values()) < GATHER_S:
            return None
        if monotonic - self._last_at < LULL_S:
            return None
        for key, (_, call) in due.items():
            del self._waiting[key]
            self._told[key] = call
            self._told_at[key] = monotonic
        if self._is_seen():
            return None
        self._last_at = monotonic
        calls = sorted((call for _, call in due.values()), key=_order)
        line = _tell(calls)
        terminal = "" if self._how == "off" else _BELL
        if self._how == "desktop":
            terminal += _notification(line, self._environ)
        return Notice(line, terminal, Counter(call.topic for call in calls))


def _order(call: Call) -> tuple[str, float, str]:
    """Asks first, the longest wait on top."""
    return call.topic, call.since or 0.0, call.name


def _tell(calls: list[Call]) -> Safe:
    """One line for a notification, none of whose characters means anything to anybody.

    A semicolon would end a field of the OSC, and some desktops read a notification as HTML, which
    can make them fetch what a guest names.
    """
    if len(calls) == 1:
        (call,) = calls
        if call.is_host:
            line = f"Host {call.name} is out of reach: {call.reason}"
        else:
            line = f"Agent {call.name} {_SAID[call.topic][0]}: {call.reason}"
    else:
        names = [call.name for call in calls[:_NAMED_AT_MOST]]
        more = len(calls) - len(names)
        line = f"{_count(calls)}: {', '.join(names)}" + (f" and {more} more" if more else "")
    plain = line.translate(dict.fromkeys(map(ord, ";<>&\n"), " "))
    return sanitize(plain.removesuffix(": "), max_cells=_CELLS)


def _count(calls: list[Call]) -> str:
    topics = Counter(call.topic for call in calls)
    if len(topics) == 1 and not any(call.is_host for call in calls):
        return f"{len(calls)} {_SAID[calls[0].topic][1]}"
    return ", ".join(f"{count} {_SAID[topic][2]}" for topic, count in topics.items())


def _notification(line: Safe, environ: Mapping[str, str]) -> str:
    is_iterm = "iTerm" in environ.get("TERM_PROGRAM", "") + environ.get("LC_TERMINAL", "")
    command = f"9;{line}" if is_iterm else f"777;notify;swarm-tui;{line}"
    sequence = f"\x1b]{command}\x07"
    if environ.get("TMUX"):
        # tmux hands on what is wrapped like this, where its allow-passthrough is on.
        return "\x1bPtmux;" + sequence.replace("\x1b", "\x1b\x1b") + "\x1b\\"
    return sequence
