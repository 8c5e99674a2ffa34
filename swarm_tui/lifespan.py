"""When an agent's life ends by rule, what becomes of it then, and what stands in the way. Pure.

Times are Unix seconds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from swarm_tui.amount import render_age
from swarm_tui.errors import UsageError
from swarm_tui.model import Agent, Birth, Power, State, Verb
from swarm_tui.profile import ENDLESS, Ending, Life, Occasion
from swarm_tui.text import EMPTY, Safe, join, literal

NEARLY: Final = 0.1
"""The last part of a life, in which its end is told beforehand."""
NEVER: Final = "never"
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST_S: Final = 10 * 365 * 86400.0
_OVER: Final = {
    Occasion.EXPIRED: "its time is over",
    Occasion.DONE: "it is done",
    Occasion.FAILED: "it has failed",
    Occasion.ASKED: "a person asked for it",
}
_WAITS: Final = literal("it waits for a person's answer")


@dataclass(frozen=True, slots=True)
class Due:
    """An agent whose life is over by a rule."""

    occasion: Occasion
    ending: Ending
    since: float | None
    hindrance: Safe = EMPTY
    """Why the rule is not carried out now; empty: it is."""

    @property
    def told(self) -> Safe:
        return literal(_OVER[self.occasion])


def tell_occasion(occasion: Occasion) -> Safe:
    """ "its time is over"."""
    return literal(_OVER[occasion])


def left_s(agent: Agent, now: float) -> float | None:
    """How long it has yet, below 0 when its time is over; None: it has no end."""
    birth = _birth(agent)
    if birth.expires is None or birth.is_pinned:
        return None
    return birth.expires - now


def is_nearly_over(agent: Agent, now: float) -> bool:
    """Whether less than a tenth of its time is left, and some is."""
    left, birth = left_s(agent, now), _birth(agent)
    return left is not None and 0 < left <= NEARLY * _whole_s(agent, birth)


def warns_at(agent: Agent) -> float | None:
    """When it begins to be nearly over; None: it has no end."""
    birth = _birth(agent)
    if birth.expires is None or birth.is_pinned:
        return None
    return birth.expires - NEARLY * _whole_s(agent, birth)


def may_end(agent: Agent) -> bool:
    """Whether there is a rule at all by which its life could end; quick."""
    birth = _birth(agent)
    return birth.expires is not None or birth.acted is not None or birth.life != ENDLESS


def due(agent: Agent, now: float, *, is_open: bool = False) -> Due | None:
    """Which rule ends its life now; None when none does.

    `is_open`: a person has a shell open in it. A rule is carried out once: who brings the agent
    back afterwards decides for themselves.
    """
    birth = _birth(agent)
    if birth.is_pinned:
        return None
    occasion, ending, since = _occasion(agent, birth, now)
    if occasion is None or ending is Ending.KEEP:
        return None
    if ending is Ending.PAUSE and agent.state is State.SAVED:
        return None
    return Due(occasion, ending, since, _hindrance(agent, birth, ending, is_open=is_open))


def extend(birth: Birth, by_s: float | None, now: float, *, is_pinned: bool = False) -> Birth:
    """With more time, from its end or, where that is past, from now; all rules begin anew."""
    expires = None if by_s is None else max(birth.expires or now, now) + by_s
    return replace(birth, expires=expires, is_pinned=is_pinned, acted=None, unkept=EMPTY)


def parse_time(text: str) -> float | None:
    """ "90s", "30m", "2h" or "3d" in seconds, None for "never". Raises UsageError."""
    if text.strip().lower() == NEVER:
        return None
    found = re.fullmatch(r"(\d{1,9})([smhd])", text.strip().lower())
    seconds = float(found[1]) * _UNITS_S[found[2]] if found else 0.0
    if not 0 < seconds <= _LONGEST_S:
        raise UsageError("This is no time", repr(text), "Say 90s, 30m, 2h, 3d or never.")
    return seconds


def tell_left(agent: Agent, now: float) -> Safe:
    """ "4m left", "over for 2h"; empty when it has no end."""
    left = left_s(agent, now)
    if left is None:
        return EMPTY
    return literal(f"{render_age(left)} left" if left > 0 else f"over for {render_age(-left)}")


def warn(agent: Agent, now: float) -> tuple[float | None, Safe] | None:
    """What a person should know of its end, and since when; None: nothing.

    That it comes soon, that it has come and a person decides, or why a rule was not carried out.
    """
    birth = _birth(agent)
    if birth.unkept and not birth.is_pinned:
        return birth.expires, join((literal("not ended, its result was not kept:"), birth.unkept))
    over = due(agent, now)
    if over and over.hindrance:
        return over.since, join((literal(f"{over.told}, and it stays:"), over.hindrance))
    if over:
        return None
    if is_nearly_over(agent, now):
        then = {Ending.KEEP: "you decide", Ending.PAUSE: "it is paused", Ending.END: "it is ended"}
        told = f"its time is over soon; then {then[birth.life.on_expiry]}"
        return warns_at(agent), literal(told)
    left = left_s(agent, now)
    if left is not None and left <= 0 and agent.state is not State.SAVED:
        return birth.expires, literal("its time is over, and it runs on")
    return None


def _occasion(
    agent: Agent, birth: Birth, now: float
) -> tuple[Occasion | None, Ending, float | None]:
    """What ends its life; what ends it sooner or more surely goes first."""
    life = birth.life
    left = left_s(agent, now)
    found: list[tuple[Occasion, Ending, float | None]] = []
    if left is not None and left <= 0:
        found.append((Occasion.EXPIRED, life.on_expiry, birth.expires))
    if agent.state is State.DONE:
        found.append((Occasion.DONE, life.on_done, agent.since))
    if agent.state is State.FAILED:
        found.append((Occasion.FAILED, life.on_failed, agent.since))
    stands = agent.state in (State.FROZEN, State.PAUSED, State.SAVED, State.UNKNOWN)
    if birth.acted and stands and _ending_on(life, birth.acted) is Ending.END:
        found.append((birth.acted, Ending.END, agent.since))  # it was cut off
    weight = (Ending.KEEP, Ending.PAUSE, Ending.END)
    fresh = [one for one in found if one[0] is not birth.acted or one[1] is Ending.END]
    return max(fresh, key=lambda one: weight.index(one[1]), default=(None, Ending.KEEP, None))


def _ending_on(life: Life, occasion: Occasion) -> Ending:
    return {
        Occasion.EXPIRED: life.on_expiry,
        Occasion.DONE: life.on_done,
        Occasion.FAILED: life.on_failed,
    }.get(occasion, Ending.KEEP)


def _hindrance(agent: Agent, birth: Birth, ending: Ending, *, is_open: bool) -> Safe:
    record, vm = agent.record, agent.vm
    if birth.unkept:
        return birth.unkept
    if agent.state is State.ASKING or agent.is_waiting:
        return _WAITS
    if record and record.verdict:
        return literal(f"its {record.verdict} is not delivered yet")
    if record and record.review is not None:
        return literal(f"its review {record.review} is open")
    if record and record.verb is Verb.KILL:
        return EMPTY  # all that is left of it goes
    if record and record.verb and record.verb is not Verb.END:
        return literal(f"its {record.verb} was cut off")
    if agent.operation:
        return literal(f"{agent.operation.verb} is at work on it")
    if is_open:
        return literal("a shell is open in it")
    if agent.state in (State.LOST, State.UNKNOWN):
        return literal(f"it is {agent.state}")
    is_off = vm is None or vm.power not in (Power.RUNNING, Power.PAUSED)
    if is_off and agent.state is not State.SAVED:
        return literal("its VM is off, so that its work cannot be taken; look, then kill it")
    if ending is Ending.END and (agent.tag.address is None or not agent.tag.base):
        return literal("nobody knows how to take its work")
    return EMPTY


def _whole_s(agent: Agent, birth: Birth) -> float:
    created = agent.tag.created
    if created is None or birth.expires is None:
        return birth.life.ttl_s or 0.0
    return birth.expires - created


def _birth(agent: Agent) -> Birth:
    return agent.record.birth if agent.record else Birth()
