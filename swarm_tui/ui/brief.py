"""What one agent is doing, in a few words; the same on tile, row and agent screen."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

from rich.style import Style

from swarm_tui.amount import render_age
from swarm_tui.model import Agent, Host, Link, Operation, Power, State, Usage
from swarm_tui.store import History
from swarm_tui.text import join, literal
from swarm_tui.ui.figures import render_percent
from swarm_tui.ui.glyphs import SPINNER
from swarm_tui.ui.ink import Ink

SPINNER_FRAMES: Final = len(SPINNER)
STOPPED: Final = "stopped"


def tell_next_try(host: Host, now: float) -> str:
    """When a lost host is tried again."""
    if host.next_try is None:
        return "trying now"
    if math.isinf(host.next_try):
        return "no further try"
    return f"next try in {render_age(max(0.0, host.next_try - now))}"


def is_off(agent: Agent) -> bool:
    """Its VM is known not to run, so that there is nothing to measure."""
    return agent.vm is None or agent.vm.power in (Power.OFF, Power.CRASHED)


def age_of(agent: Agent, now: float) -> float | None:
    """Seconds in its present state, as far as we know."""
    return None if agent.since is None else now - agent.since


def cpu_figure(agent: Agent) -> str:
    """What stands for its CPU: a percentage, or why there is none."""
    if is_off(agent):
        return "off"
    if agent.vm and agent.vm.power is Power.PAUSED:
        return STOPPED
    return render_percent(agent.usage.cpu_percent if agent.usage else None)


def usage_of(agent: Agent) -> Usage:
    """What it uses as far as is known; stopped vCPUs read and write nothing."""
    usage = agent.usage or Usage(at=0.0)
    if agent.vm is None or agent.vm.power is not Power.PAUSED:
        return usage
    return replace(
        usage,
        cpu_percent=None,
        disk_read_per_s=0.0,
        disk_written_per_s=0.0,
        net_received_per_s=0.0,
        net_sent_per_s=0.0,
    )


def cpu_top(agent: Agent, history: History | None) -> float:
    """The value of a full block in its CPU graphs: all of its vCPUs, or more if it used more."""
    given = 100.0 * (agent.vm.vcpus or 1) if agent.vm else 100.0
    peak = (
        max((value for value in history.cpu_percent if value == value), default=0.0)
        if (history)
        else 0.0
    )
    return given if peak <= given * 1.1 else math.ceil(peak / 100) * 100.0


def render_operation(operation: Operation, frame: int) -> str:
    """ "⠹ pause 43%: saving memory"."""
    done = "" if operation.fraction is None else f" {operation.fraction:.0%}"
    step = f": {operation.step}" if operation.step else ""
    return f"{SPINNER[frame % SPINNER_FRAMES]} {operation.verb}{done}{step}"


def tell(
    agent: Agent, now: float, frame: int, ink: Ink, stale_s: float | None = None
) -> tuple[str, Style]:
    """What is to be said beside the state word, and how; empty when there is nothing to say.

    `stale_s`: for so long its host has not been heard; None: it has.
    """
    if agent.operation:
        return render_operation(agent.operation, frame), ink.accent
    if stale_s is not None:
        return join((literal(f"stale {render_age(stale_s)}"), agent.reason), " · "), ink.warning
    match agent.state:
        case State.LOST:
            seen = f"last seen {render_age(now - agent.seen)} ago" if agent.seen else ""
            return join((literal(seen), agent.reason), " · "), ink.faint
        case State.ASKING:
            return agent.reason or literal("waits for you"), ink.states[State.ASKING]
        case State.FAILED:
            return agent.reason, ink.bad
        case State.SAVED:
            return agent.reason or literal("on disk, its RAM is free"), ink.muted
        case State.RUNNING if agent.reason:
            return agent.reason, ink.warning
        case State.RUNNING if agent.link is Link.RESTING:
            heard = f"heard {render_age(now - agent.heard)} ago" if agent.heard else "not heard yet"
            return join((agent.status, literal(heard)), " · "), ink.muted
        case _:
            return agent.reason or agent.status, ink.muted
