"""Calling a person who looks elsewhere: agents that begin to wait ring once, and say who they are.

What reaches the terminal is a bell and an OSC by which it shows a notification on the desktop.
OSC 777 is what most terminals of today know: kitty, foot, WezTerm, Ghostty, Konsole, and Windows
Terminal (microsoft/terminal#20012). iTerm2 knows OSC 9 only
(https://iterm2.com/documentation-escape-codes.html); both at once would be two notifications
where both are known. A terminal that knows neither ignores them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from swarm_tui.model import Agent, AgentId, State
from swarm_tui.store import sort_key
from swarm_tui.text import Safe, sanitize

How = Literal["desktop", "bell", "off"]

GATHER_S: Final = 1.0
"""Agents that begin to wait within this time are told of together."""
REST_S: Final = 10.0
"""Nobody is told of one agent more often than this, however often it asks anew."""
SETTLE_S: Final = 5.0
"""For so long after the start, what was asked before it may still be heard; it is no news."""
_CELLS: Final = 160
_NAMED_AT_MOST: Final = 5
_BELL: Final = "\x07"

_Ask = tuple[float | None, Safe]


class Notices:
    """Knows which asks have been told. Times are of the app's own clocks, in seconds."""

    def __init__(self, how: How, environ: Mapping[str, str], now: float) -> None:
        """`now` is the wall clock at the app's start."""
        self._how = how
        self._environ = environ
        self._started = now - 1.0  # guests tell whole seconds
        self._told: dict[AgentId, _Ask] = {}
        self._told_at: dict[AgentId, float] = {}
        self._waiting: dict[AgentId, float] = {}
        """Agents that nobody was told of yet, and since when."""

    def hear(self, agent: AgentId, known: Agent | None, now: float, monotonic: float) -> None:
        """Take in how an agent stands now; None: it is gone."""
        if known is None:
            for facts in (self._told, self._told_at, self._waiting):
                facts.pop(agent, None)
        elif known.state is not State.ASKING or self._told.get(agent) == _ask_of(known):
            self._waiting.pop(agent, None)
        elif (known.since or now) < self._started and now < self._started + SETTLE_S:
            self._told[agent] = _ask_of(known)
        else:
            self._waiting.setdefault(agent, monotonic)

    def take(self, agents: Mapping[AgentId, Agent], monotonic: float) -> str:
        """What to write to the terminal now, once; empty when there is nothing to tell."""
        due = sorted(
            (
                agents[agent]
                for agent in self._waiting
                if monotonic - self._told_at.get(agent, -REST_S) >= REST_S
            ),
            key=sort_key,
        )
        if not due or monotonic - min(self._waiting[agent.id] for agent in due) < GATHER_S:
            return ""
        for agent in due:
            del self._waiting[agent.id]
            self._told[agent.id] = _ask_of(agent)
            self._told_at[agent.id] = monotonic
        match self._how:
            case "desktop":
                return _BELL + _notification(_tell(due), self._environ)
            case "bell":
                return _BELL
            case "off":
                return ""


def _ask_of(agent: Agent) -> _Ask:
    return agent.since, agent.reason


def _tell(agents: list[Agent]) -> str:
    """One line for a notification, none of whose characters means anything to anybody.

    A semicolon would end a field of the OSC, and some desktops read a notification as HTML, which
    can make them fetch what a guest names.
    """
    if len(agents) == 1:
        line = f"Agent {agents[0].name} asks: {agents[0].reason}"
    else:
        names = [agent.name for agent in agents[:_NAMED_AT_MOST]]
        more = len(agents) - len(names)
        line = f"{len(agents)} agents ask for review: {', '.join(names)}"
        line += f" and {more} more" if more else ""
    plain = line.translate(dict.fromkeys(map(ord, ";<>&\n"), " "))
    return sanitize(plain, max_cells=_CELLS)


def _notification(line: str, environ: Mapping[str, str]) -> str:
    is_iterm = "iTerm" in environ.get("TERM_PROGRAM", "") + environ.get("LC_TERMINAL", "")
    command = f"9;{line}" if is_iterm else f"777;notify;swarm-tui;{line}"
    sequence = f"\x1b]{command}\x07"
    if environ.get("TMUX"):
        # tmux hands on what is wrapped like this, where its allow-passthrough is on.
        return "\x1bPtmux;" + sequence.replace("\x1b", "\x1b\x1b") + "\x1b\\"
    return sequence
