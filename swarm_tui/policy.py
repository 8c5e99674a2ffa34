"""Which verb is legal on which agent, and why not. Pure; asked by the footer and by `do` alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from swarm_tui.model import Agent, Capabilities, Link, Power, State, Verb
from swarm_tui.text import Safe, join, literal, sanitize


@dataclass(frozen=True, slots=True)
class Allow:
    pass


@dataclass(frozen=True, slots=True)
class Ask:
    """Legal, once a person has confirmed it."""

    reason: Safe


@dataclass(frozen=True, slots=True)
class Deny:
    reason: Safe


Decision = Allow | Ask | Deny

ALLOW: Final = Allow()

_ALIVE: Final = frozenset({State.STARTING, State.RUNNING, State.ASKING, State.FROZEN, State.DONE})

_UNTAKEN: Final = "a verdict needs an open review"
_VERDICTS: Final = frozenset({Verb.APPROVE, Verb.SEND_BACK, Verb.REJECT})
_TAKING: Final = frozenset({Verb.END, Verb.COMPARE})
"""They take the work as a review does, and open none."""

_LEGAL: Final[dict[Verb, tuple[frozenset[State], str]]] = {
    Verb.PAUSE: (_ALIVE | {State.PAUSED}, "only a live agent can be paused"),
    Verb.RESUME: (
        frozenset({State.PAUSED, State.SAVED, State.FROZEN}),
        "only a paused, saved or frozen agent can be resumed",
    ),
    Verb.REVIEW: (
        _ALIVE | {State.PAUSED, State.SAVED},
        "only a live or a saved agent can be reviewed",
    ),
    Verb.COMPARE: (
        _ALIVE | {State.PAUSED, State.SAVED},
        "only a live or a saved agent's work can be read",
    ),
    Verb.APPROVE: (frozenset({State.SAVED}), _UNTAKEN),
    Verb.SEND_BACK: (frozenset({State.SAVED}), _UNTAKEN),
    Verb.REJECT: (frozenset({State.SAVED}), _UNTAKEN),
    Verb.KILL: (frozenset(State) - {State.LOST}, "its host is out of reach"),
    Verb.END: (
        _ALIVE - {State.ASKING} | {State.PAUSED, State.SAVED},
        "its work can only be taken from a live or a saved agent",
    ),
    Verb.EXTEND: (frozenset(State) - {State.LOST}, "its host is out of reach"),
    Verb.CHECKPOINT: (_ALIVE, "only a live agent can be kept as it runs"),
    Verb.ROLL_BACK: (
        _ALIVE | {State.PAUSED, State.SAVED},
        "only a live or a saved agent can be rolled back",
    ),
    Verb.FORK: (
        _ALIVE | {State.SAVED},
        "only a live or a saved agent can be forked",
    ),
    Verb.MARK: (frozenset(State) - {State.LOST}, "its host is out of reach"),
    Verb.DISCARD: (frozenset(State) - {State.LOST}, "its host is out of reach"),
    Verb.MESSAGE: (_ALIVE, "a message needs a running VM"),
    Verb.SHELL: (_ALIVE, "a shell needs a running VM"),
    Verb.LOGS: (frozenset(State), ""),
}
"""Verb → the states it is legal in, and what to say in all others."""

_NEEDS: Final[dict[Verb, tuple[str, ...]]] = {
    Verb.PAUSE: ("save",),
    Verb.RESUME: ("restore",),
    Verb.SPAWN: ("spawn",),
    Verb.REVIEW: ("save", "restore"),
    Verb.CHECKPOINT: ("save", "restore"),
    Verb.ROLL_BACK: ("save", "restore"),
    Verb.FORK: ("fork",),
    Verb.APPROVE: ("restore",),
    Verb.SEND_BACK: ("restore",),
}
"""Verb → the capabilities without which it cannot work at all."""


def decide(
    verb: Verb, agent: Agent | None, capabilities: Capabilities | None, *, is_quick: bool = False
) -> Decision:
    """Whether `verb` may be done to `agent` (None: no agent is under the cursor) now.

    `is_quick` is a pause that only stops the vCPUs; the resume of one needs no telling.
    """
    if verb is Verb.RESUME and agent and agent.state in (State.PAUSED, State.FROZEN):
        is_quick = True  # nothing has to be restored
    if agent is None and verb is not Verb.SPAWN:
        return Deny(literal("no agent is selected"))
    if capabilities is None and verb is not Verb.LOGS:
        return Deny(literal("the host is not connected"))
    if capabilities and not is_quick:
        for need in _NEEDS.get(verb, ()):
            if need in capabilities.missing:
                return Deny(sanitize(capabilities.missing[need]))
    if verb is Verb.SPAWN or agent is None:
        return ALLOW  # it makes a new one
    if agent.operation and verb is not Verb.LOGS:
        return Deny(literal(f"{agent.operation.verb} is still at work on it"))
    is_handoff = verb is Verb.REVIEW or verb in _VERDICTS
    is_taken = is_handoff or verb in _TAKING
    must_stand = is_taken or verb in (Verb.CHECKPOINT, Verb.ROLL_BACK)
    if must_stand and agent.record and agent.record.verdict and agent.state is not State.LOST:
        # Whatever state it was cut off in.
        given = f"{agent.record.verdict} was given on review {agent.record.review}"
        return Deny(literal(f"{given}; resume it to deliver that"))
    missing = capabilities.missing if capabilities else {}
    states, otherwise = _LEGAL[verb]
    if agent.state is State.FAILED and agent.vm and agent.vm.power is Power.RUNNING:
        states |= {State.FAILED} if State.RUNNING in states else set()  # only its program ended
    is_cut = agent.record is not None and agent.record.verb not in (None, Verb.KILL)
    if is_cut and verb is Verb.RESUME:
        states |= {State.UNKNOWN}
    if verb is Verb.RESUME and agent.vm and agent.vm.is_orphan:
        states |= _ALIVE  # it is adopted
    if is_cut and verb is Verb.PAUSE and agent.state is State.PAUSED:
        return Deny(literal("an earlier verb was cut off with its vCPUs stopped; resume it first"))
    if verb is Verb.END and agent.state is State.ASKING:
        otherwise = "it waits for a person's answer"
    if agent.state is State.UNKNOWN and agent.record and agent.record.verb is Verb.KILL:
        otherwise = "its kill was cut off, kill it again"
    if agent.state not in states:
        return Deny(literal(f"it is {agent.state}; {otherwise}"))
    if is_quick and verb is Verb.PAUSE and agent.state is State.PAUSED:
        return Deny(literal("its vCPUs are stopped already"))
    if verb in (Verb.SHELL, Verb.MESSAGE) and agent.tag.address is None:
        return Deny(literal("no SSH address is known for it"))
    if verb in _TAKING and agent.state is State.SAVED and "restore" in missing:
        return Deny(sanitize(missing["restore"]))
    if verb in _TAKING and agent.record and agent.record.review is not None:
        return Deny(literal(f"its review {agent.record.review} is open"))
    if is_taken:
        return _decide_handoff(verb, agent)
    if verb is Verb.KILL:
        return Ask(
            join(
                (
                    literal("The VM, its disk and its snapshots go for good."),
                    literal("It has not been reached by SSH.")
                    if agent.link is Link.DOWN
                    else literal(""),
                )
            )
        )
    return ALLOW


def _decide_handoff(verb: Verb, agent: Agent) -> Decision:
    number = agent.record.review if agent.record else None
    if verb in _VERDICTS:
        return ALLOW if number is not None else Deny(literal(_UNTAKEN))
    if number is not None and agent.state is State.SAVED:
        return ALLOW  # it is only opened
    if agent.tag.address is None:
        return Deny(literal("no SSH address is known for it"))
    if not agent.tag.base:
        return Deny(literal("the commit that it began with is not known"))
    if verb is Verb.END:
        return Ask(literal("Its result is kept; then its VM, disk and snapshots go for good."))
    return ALLOW
