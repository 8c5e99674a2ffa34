"""What facts said of one agent, and the state that follows from it."""

from __future__ import annotations

from array import array
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from swarm_tui.fact import GuestSampled
from swarm_tui.model import (
    Agent,
    Counters,
    EventBatch,
    EventKind,
    GuestEvent,
    Host,
    HostName,
    HostState,
    Link,
    Operation,
    Power,
    Record,
    State,
    Usage,
    Verb,
    Vm,
)
from swarm_tui.text import EMPTY, Safe, literal

HISTORY_SAMPLES: Final = 120
BOOT_S: Final = 60.0
"""A VM that is younger than this may still be booting when it is seen for the first time."""
RESTORING: Final = frozenset(
    {
        Verb.RESUME,
        Verb.REVIEW,
        Verb.COMPARE,
        Verb.APPROVE,
        Verb.SEND_BACK,
        Verb.REJECT,
        Verb.END,
        Verb.CHECKPOINT,
        Verb.ROLL_BACK,
    }
)
"""Verbs that bring a saved VM back."""
STOPPED: Final = frozenset({Power.OFF, Power.CRASHED})


class History:
    """The last samples of one agent's CPU and memory, oldest first; NaN where unknown."""

    __slots__ = ("cpu_percent", "memory_used")

    def __init__(self) -> None:
        self.cpu_percent = array("f")
        self.memory_used = array("d")

    def add(self, usage: Usage) -> None:
        for series, value in (
            (self.cpu_percent, usage.cpu_percent),
            (self.memory_used, usage.memory_used),
        ):
            series.append(float("nan") if value is None else value)
            if len(series) > HISTORY_SAMPLES:
                del series[0]


@dataclass(slots=True)
class Log:
    """The last events of one agent, and how many came before them."""

    events: deque[GuestEvent] = field(default_factory=deque)
    total: int = 0
    """Events ever seen; `total - len(events)` were dropped from memory."""
    lost: int = 0
    """Events that never reached us because they came too fast."""


@dataclass(slots=True)
class Known:
    """Everything that facts said of one agent; `Agent` is derived from it."""

    vm: Vm | None = None
    vm_seq: int = -1
    is_listed: bool = False
    """Whether its host still knows the VM."""
    seen: float = 0.0
    record: Record | None = None
    operation: Operation | None = None
    link: Link = Link.NONE
    link_reason: Safe = EMPTY
    heard: float | None = None
    offset: int = 0
    asks: Safe | None = None
    asks_since: float | None = None
    is_done: bool = False
    done_since: float | None = None
    is_failed: bool = False
    """Its program ended without success; its VM may run."""
    is_ready: bool = False
    has_run: bool = False
    last_line: Safe = EMPTY
    last_line_at: float | None = None
    status: Safe = EMPTY
    tokens_in: int = 0
    tokens_out: int = 0
    model: Safe = EMPTY
    counters: Counters | None = None
    traffic: GuestSampled | None = None
    usage: Usage | None = None
    history: History | None = None
    log: Log = field(default_factory=Log)
    agent: Agent | None = None
    """None where only a record is known, of a VM that no host has."""
    before: Agent | None = None
    """How it was when its host was lost."""


def host_of(known: Known) -> HostName:
    """The host that it is on, as the VM or, of a forgotten one, its record tells."""
    if known.vm:
        return known.vm.host
    return known.record.host if known.record else HostName("")


def is_up_at_once(known: Known, now: float, *, is_new: bool) -> bool:
    """Whether a VM that runs now needs no boot: it ran before we looked, or it was restored."""
    if is_new:
        created = known.vm.tag.created if known.vm else None
        return created is None or now - created > BOOT_S
    record = known.record
    return record is not None and (record.saved_in is not None or record.verb in RESTORING)


def since(known: Known, state: State, host: Host | None, now: float) -> float | None:
    """When an agent entered the state that it was just found in; None when nobody knows."""
    was, record, before = known.agent, known.record, known.before
    match state:
        case State.LOST:
            return host.since if host else None
        case State.SAVED | State.FROZEN if record and record.since is not None:
            return record.since
        case State.ASKING:
            return known.asks_since
        case State.DONE | State.FAILED if known.done_since is not None:
            return known.done_since
    if was is None:
        # Seen for the first time: it may have been like this for long.
        if state not in (State.RUNNING, State.STARTING):
            return None
        resumed = record.since if record else None
        created = known.vm.tag.created if known.vm else None
        return max((at for at in (created, resumed) if at is not None), default=None)
    if was.state is State.LOST and before and before.state is state:
        return before.since
    return now


def derive_state(
    known: Known, host: Host | None, now: float, *, is_blind: bool = False
) -> tuple[State, Safe]:
    """`is_blind`: whether the agent has a record is not known."""
    vm, record = known.vm, known.record
    if host and host.state is HostState.DOWN:
        return State.LOST, host.reason or host.detail
    cut = EMPTY
    if record and record.verb and not known.operation:
        cut = literal(f"{record.verb} was cut off")
    if is_blind and record is None and (vm is None or vm.power is Power.OFF):
        return State.UNKNOWN, literal("what was saved of it is not known: no store")
    if vm is None or vm.power is Power.OFF:
        return _derive_stopped(known, cut, now)
    match vm.power:
        case Power.PAUSED:
            return State.PAUSED, cut or vm.reason
        case Power.CRASHED:
            return State.FAILED, vm.reason or literal("the guest crashed")
        case Power.UNKNOWN:
            return State.UNKNOWN, vm.reason
    if record and record.is_frozen:
        return State.FROZEN, cut or _handoff(record)
    if known.asks is not None:
        return State.ASKING, known.asks
    if known.is_done:
        return State.DONE, known.status
    if known.is_failed:
        return State.FAILED, known.status
    if not known.is_ready and known.link is not Link.NONE:
        return State.STARTING, known.link_reason
    if vm.is_orphan:
        return State.RUNNING, cut or vm.reason
    return State.RUNNING, cut or (known.link_reason if known.link is Link.DOWN else EMPTY)


def _derive_stopped(known: Known, cut: Safe, now: float) -> tuple[State, Safe]:
    """The state of an agent whose VM is off, or forgotten by its host."""
    vm, record, was = known.vm, known.record, known.agent
    if record and record.verb is Verb.SPAWN and known.operation:
        return State.STARTING, known.operation.step
    is_saved = record is not None and record.saved_in is not None
    is_killed = record is not None and record.verb is Verb.KILL
    if known.operation and was and was.state is not State.LOST:
        # Between two steps of a verb its state is on its way; the step is shown beside.
        return was.state, EMPTY
    if is_saved and not is_killed:
        return State.SAVED, cut or _handoff(record)
    if vm is None or cut or known.operation:
        return State.UNKNOWN, cut
    if known.is_done:
        return State.DONE, literal("the VM is off")
    created = vm.tag.created
    is_new = created is not None and now - created < BOOT_S
    if is_new and not known.has_run and not vm.reason:  # one that has stopped tells why
        return State.STARTING, literal("the VM was just made")
    return State.FAILED, vm.reason or literal("the VM is off")


def _handoff(record: Record | None) -> Safe:
    """How far a review has come, where one is open."""
    if record is None or record.review is None:
        return EMPTY
    if record.verdict:
        return literal(
            f"{record.verdict} of review {record.review} is not delivered yet; resume it"
        )
    return literal(f"review {record.review} is open")


def hear(known: Known, batch: EventBatch, size: int, now: float) -> None:
    if batch.offset < known.offset:
        # A new file: the guest has booted anew, and what it asked before is asked no more.
        known.asks, known.is_done, known.is_failed = None, False, False
    known.offset = batch.offset
    log = known.log
    log.lost += batch.dropped
    for event in batch.events:
        if not batch.is_known:
            log.events.append(event)
            log.total += 1
        match event.kind:
            case EventKind.USAGE if batch.is_known:
                continue
            case EventKind.USAGE:
                known.tokens_in += event.tokens_in
                known.tokens_out += event.tokens_out
                known.model = event.model or known.model
                continue
            case EventKind.ASK:
                known.asks, known.asks_since = event.text, _claimed(known, event, now)
            case EventKind.DONE | EventKind.FAILED:
                known.is_done = event.kind is EventKind.DONE
                known.is_failed = not known.is_done
                known.asks, known.status = None, event.text
                known.done_since = _claimed(known, event, now)
            case EventKind.STATUS | EventKind.TOOL:
                known.asks, known.is_done, known.is_failed = None, False, False
                if event.kind is EventKind.STATUS:
                    known.status = event.text
        known.last_line, known.last_line_at = event.text, event.at
    while len(log.events) > size:
        log.events.popleft()


def _claimed(known: Known, event: GuestEvent, now: float) -> float:
    """When it happened: as the guest says where that can be, else now."""
    created = known.vm.tag.created if known.vm else None
    return event.at if event.at is not None and (created or 0.0) < event.at <= now else now
