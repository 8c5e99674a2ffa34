"""What the app tells a person who may be elsewhere: the queue, the terminal's title, notices."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from swarm_tui.attention import Attention, Kind
from swarm_tui.model import AgentId, State
from swarm_tui.supervisor import Supervisor
from swarm_tui.ui.figures import render_count
from swarm_tui.ui.hook import Hook
from swarm_tui.ui.notice import Notices
from swarm_tui.ui.roster import Roster

KEEP_TITLE: Final = "\x1b[22;0t"
"""Lets the terminal keep its own title, where it can (xterm, kitty, foot, WezTerm, tmux …)."""
RESTORE_TITLE: Final = "\x1b[23;0t"


class Herald:
    """Looks at what changed, and says what to write to the terminal."""

    def __init__(
        self,
        supervisor: Supervisor,
        roster: Roster,
        attention: Attention,
        notices: Notices,
        hook: Hook,
        now: float,
    ) -> None:
        for agent, known in roster.agents.items():
            attention.hear(agent, known, now)
        hosts = supervisor.store.hosts()
        attention.hear_hosts(hosts, now)
        notices.hear_hosts(hosts, now, 0.0)
        self._supervisor = supervisor
        self._roster = roster
        self._attention = attention
        self._notices = notices
        self._hook = hook
        self._title = ""

    def hear(
        self, dirty: Collection[AgentId], now: float, monotonic: float, *, hosts_changed: bool
    ) -> None:
        """Take in what changed."""
        agents, attention = self._roster.agents, self._attention
        for agent in dirty:
            known = agents.get(agent)
            attention.hear(agent, known, now)
            self._notices.hear(agent, known, now, monotonic)
        if hosts_changed:
            hosts = self._supervisor.store.hosts()
            attention.hear_hosts(hosts, now)
            self._notices.hear_hosts(hosts, now, monotonic)
        attention.hear_acts(self._supervisor.take_ended(), now)
        attention.tick(now)

    def tell(self, monotonic: float) -> str:
        """What to write to the terminal now; mostly nothing."""
        told = ""
        if notice := self._notices.take(monotonic):
            self._hook.call(notice)
            told = notice.terminal
        title = make_title(self._attention.counts, self._roster.counts)
        if title != self._title:
            self._title = title
            told += f"\x1b]0;{title}\x07"
        return told


def make_title(waiting: Mapping[Kind, int], states: Mapping[State, int]) -> str:
    """ "2 ask · 1 failed · 38 running — swarm-tui"."""
    told = [(waiting[kind], kind.value) for kind in Kind]
    told.append((states[State.RUNNING], State.RUNNING.value))
    counts = " · ".join(f"{render_count(count)} {word}" for count, word in told if count)
    return f"{counts} — swarm-tui" if counts else "swarm-tui"
