"""What is asked before a verb is done: who it is done to, and what is lost by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from swarm_tui.batch import count, tell_refusals
from swarm_tui.model import Agent
from swarm_tui.policy import Ask, Decision
from swarm_tui.text import EMPTY, Safe, join, literal, sanitize
from swarm_tui.ui.action import Action
from swarm_tui.ui.figures import plural
from swarm_tui.ui.glyphs import STATE_GLYPHS

_NAMED_AT_MOST: Final = 8


@dataclass(frozen=True, slots=True)
class Question:
    """What a confirmation shows."""

    title: Safe
    agents: Sequence[Safe]
    """Whom it is about, one a line."""
    lines: Sequence[Safe]
    """What is to be known before saying yes."""
    word: str
    """On the button that goes ahead."""
    typed: str = ""
    """What must be typed to go ahead; empty: nothing."""
    is_grave: bool = False


def ask_before(
    action: Action,
    agents: Sequence[Agent],
    refusals: Sequence[Safe],
    hidden: int,
    decision: Decision,
    doubts: Sequence[Safe] = (),
) -> Question | None:
    """The question before a verb on some agents; None when it needs no asking.

    `refusals` are why policy does not allow it for others that were meant too; `hidden` of all
    are not shown now; `doubts` are what else speaks against it.
    """
    is_grave = isinstance(decision, Ask)
    meant = len(agents) + len(refusals)
    is_many = meant > 1
    if not is_grave and not is_many and not doubts:
        return None
    lines = []
    if len(agents) > 1:
        lines.append(count(agents))
    if hidden:
        lines.append(literal(f"{plural(hidden, 'agent')} of these the filter does not show."))
    lines += [*tell_refusals(refusals), *doubts]
    if isinstance(decision, Ask):
        lines.append(decision.reason)
    word = action.id.replace("-", " ")
    of = f" of {meant:,}" if refusals else ""
    title = literal(f"{word.capitalize()} {len(agents):,}{of} agents?")
    if len(agents) == 1:
        only = literal(f", one of {meant}?" if refusals else "?")
        title = join((literal(f"{word.capitalize()} "), agents[0].name, only), "")
    typed = f"{len(agents)}" if is_grave and len(agents) > 1 else ""
    return Question(title, _list(agents), lines, word, typed, is_grave)


def ask_to_leave(at_work: Sequence[Agent], unbegun: int) -> Question:
    """The question before leaving while verbs are at work; `unbegun` have not begun."""
    lines = [literal("It comes to its end before the program leaves.")]
    if unbegun:
        lines.append(
            literal(f"{plural(unbegun, 'agent')} not begun with will be left as they are.")
        )
    return Question(literal("Leave while a verb is at work?"), _list(at_work), lines, "leave")


def _list(agents: Sequence[Agent]) -> list[Safe]:
    lines = [_describe(agent) for agent in agents[:_NAMED_AT_MOST]]
    if len(agents) > _NAMED_AT_MOST:
        lines.append(literal(f"… and {len(agents) - _NAMED_AT_MOST} more"))
    return lines


def _describe(agent: Agent) -> Safe:
    """One line: who, how it is, where, what for."""
    doing = literal(f"{agent.operation.verb} at work") if agent.operation else EMPTY
    state = literal(f"{STATE_GLYPHS[agent.state]} {agent.state.value:<8}")
    host = sanitize(agent.host, max_cells=20)
    task = sanitize(agent.tag.task, max_cells=40)
    return join((join((state, agent.name)), doing, host, task), " · ")
