"""From a command to the sequence that does it."""

from __future__ import annotations

from dataclasses import replace

from swarm_tui.amount import render_age
from swarm_tui.command import (
    Approve,
    Checkpoint,
    Compare,
    Discard,
    End,
    Extend,
    Fork,
    Kill,
    Mark,
    Past,
    Pause,
    Reject,
    Resume,
    Review,
    RollBack,
    Say,
    SendBack,
)
from swarm_tui.errors import NotFound
from swarm_tui.lifecycle.bequest import Bequest
from swarm_tui.lifecycle.ground import in_thread
from swarm_tui.lifecycle.handoff import pending
from swarm_tui.lifecycle.verbs import shortened
from swarm_tui.lifespan import tell_occasion
from swarm_tui.model import Agent, Cause, Record, State
from swarm_tui.ports import Progress
from swarm_tui.profile import Occasion
from swarm_tui.text import EMPTY, Safe, literal

Steered = (
    Past
    | Fork
    | Pause
    | Resume
    | Kill
    | End
    | Extend
    | Say
    | Review
    | Compare
    | Approve
    | SendBack
    | Reject
)
"""Commands that change an agent, which the caller holds.

A message changes no VM, but none must be put into one that is being saved.
"""


def detail(command: Steered) -> str:
    """What the audit log says beside the verb."""
    match command:
        case Pause(is_quick=True):
            return "quick"
        case Pause() | End() if command.occasion is not Occasion.ASKED:
            return f"by rule: {tell_occasion(command.occasion)}"
        case Extend():
            if command.by_s is None:
                return "pinned" if command.is_pinned else "without end"
            return f"by {render_age(command.by_s)}"
        case Kill(is_graceful=True):
            return "graceful"
        case Say():
            return shortened(command.text)
        case Fork():
            whence = f" from snapshot {command.snapshot}" if command.snapshot else ""
            return f"{command.count}{whence}"
        case Checkpoint() if command.origin.cause in (Cause.TURN, Cause.INTERVAL):
            return f"by rule: {command.origin.told}"
        case Checkpoint():
            told = command.origin.told or command.origin.cause
            return f"{told}: {shortened(command.title)}" if command.title else told
        case RollBack() | Discard():
            return f"snapshot {command.snapshot}"
        case Mark():
            pinned = "pinned" if command.is_pinned else "not pinned"
            return f"snapshot {command.snapshot}: {shortened(command.title)!r}, {pinned}"
        case Approve() | SendBack() | Reject():
            return f"review {command.review}, {command.digest}"
    return ""


async def steer(
    command: Steered, agent: Agent, record: Record, bequest: Bequest, progress: Progress
) -> Safe:
    """Do it; the policy has allowed it. Raises SwarmError."""
    handoff = bequest.handoff
    lifecycle, shelf = handoff.lifecycle, handoff.terms.shelf
    match command:
        case Pause(is_quick=True) if agent.vm:
            return await lifecycle.hold(agent.vm, progress)
        case Pause() if agent.vm:
            if command.occasion is not Occasion.ASKED:
                record = replace(record, birth=replace(record.birth, acted=command.occasion))
            return await lifecycle.pause(agent.vm, record, progress)
        case Resume():
            verdict = await in_thread(pending, shelf, record)
            if verdict:
                return await handoff.take_up(agent.vm, record, verdict, progress)
            return await lifecycle.resume(agent.vm, record, progress)
        case Checkpoint() if agent.vm:
            return await lifecycle.checkpoint(
                agent.vm, record, command.origin, command.title, progress
            )
        case RollBack():
            return await lifecycle.roll_back(agent.vm, record, command.snapshot, progress)
        case Mark():
            return await lifecycle.mark(record, command.snapshot, command.title, command.is_pinned)
        case Discard():
            return await lifecycle.discard(record, command.snapshot)
        case Say() if agent.vm:
            return await lifecycle.say(agent.vm, command.text, progress)
        case End():
            return await bequest.end(agent, record, command.occasion, progress)
        case Extend():
            return await bequest.extend(record, command)
        case Kill():
            done = await lifecycle.kill(agent.vm, record, progress, is_graceful=command.is_graceful)
            await in_thread(shelf.remove, record.id)
            return done
        case Review() if record.review is not None and record.saved_in is not None:
            return literal(f"review {record.review} is open")
        case Review():
            why = agent.reason if agent.state is State.ASKING else EMPTY
            return await handoff.take(agent.vm, record, why, progress)
        case Compare():
            return await handoff.look(agent.vm, record, progress)
        case Approve() | SendBack() | Reject():
            return await handoff.judge(agent.vm, record, command, progress)
    raise NotFound(f"Nothing is known of the VM of {agent.name}")
