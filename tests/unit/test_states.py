"""The state of an agent, and since when: for every combination of facts, and after a restart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from swarm_tui.fact import Fact, LinkChanged, Listed, OperationChanged, Recorded, VmGone, VmSeen
from swarm_tui.model import (
    EventKind,
    HostState,
    Link,
    Operation,
    Power,
    Record,
    State,
    Verb,
)
from swarm_tui.store import Store
from swarm_tui.text import literal

from .facts import (
    NOW,
    OTHER,
    SNAPSHOT,
    Clock,
    counters,
    heard,
    host,
    known,
    record,
    sample,
    state,
    vm,
)
from .standin import AGENT, HOST


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> Store:
    return Store(clock.now)


# States


def states() -> Iterator[object]:
    """Power, record, what the guest said, verb at work, link → the state shown."""
    pausing = Operation(Verb.PAUSE, literal("saving memory"))
    cases: list[tuple[str, list[Fact], State, str]] = [
        ("running", [], State.RUNNING, ""),
        ("frozen", [record(frozen=True)], State.FROZEN, ""),
        ("frozen asks", [record(frozen=True), heard(EventKind.ASK, "why")], State.FROZEN, ""),
        ("asks", [heard(EventKind.ASK, "which one?")], State.ASKING, "which one?"),
        ("answered", [heard(EventKind.ASK), heard(EventKind.TOOL)], State.RUNNING, ""),
        ("log is no answer", [heard(EventKind.ASK, "?"), heard(EventKind.LOG)], State.ASKING, "?"),
        ("done", [heard(EventKind.DONE, "all green")], State.DONE, "all green"),
        (
            "done and off",
            [heard(EventKind.DONE), VmSeen(vm(Power.OFF), 2)],
            State.DONE,
            "the VM is off",
        ),
        ("went on", [heard(EventKind.DONE), heard(EventKind.STATUS)], State.RUNNING, ""),
        ("paused", [VmSeen(vm(Power.PAUSED, reason="by a user"), 2)], State.PAUSED, "by a user"),
        ("crashed", [VmSeen(vm(Power.CRASHED), 2)], State.FAILED, "the guest crashed"),
        (
            "crashed, and why",
            [VmSeen(vm(Power.CRASHED, reason="its VMM has died"), 2)],
            State.FAILED,
            "its VMM has died",
        ),
        (
            "orphan",
            [VmSeen(replace(vm(reason="nobody knows it"), is_orphan=True), 2)],
            State.RUNNING,
            "nobody knows it",
        ),
        ("off", [VmSeen(vm(Power.OFF, reason="destroyed"), 2)], State.FAILED, "destroyed"),
        ("off, nobody knows why", [VmSeen(vm(Power.OFF), 2)], State.FAILED, "the VM is off"),
        ("unclear", [VmSeen(vm(Power.UNKNOWN), 2)], State.UNKNOWN, ""),
        ("saved", [VmSeen(vm(Power.OFF), 2), record(saved=True)], State.SAVED, ""),
        ("forgotten, but saved", [record(saved=True), VmGone(AGENT, 2)], State.SAVED, ""),
        ("saved, but running", [record(saved=True)], State.RUNNING, ""),
        (
            "pausing",
            [OperationChanged(AGENT, pausing), record(verb=Verb.PAUSE), VmSeen(vm(Power.OFF), 2)],
            State.RUNNING,
            "",
        ),
        (
            "pause cut off",
            [record(verb=Verb.PAUSE), VmSeen(vm(Power.OFF), 2)],
            State.UNKNOWN,
            "pause was cut off",
        ),
        (
            "pause cut off on its feet",
            [record(verb=Verb.PAUSE, frozen=True)],
            State.FROZEN,
            "pause was cut off",
        ),
        (
            "pause cut off while saving",
            [record(verb=Verb.PAUSE), VmSeen(vm(Power.PAUSED, reason="saving"), 2)],
            State.PAUSED,
            "pause was cut off",
        ),
        (
            "resume cut off",
            [record(verb=Verb.RESUME, saved=True), VmSeen(vm(Power.OFF), 2)],
            State.SAVED,
            "resume was cut off",
        ),
        (
            "kill cut off",
            [record(verb=Verb.KILL, saved=True), VmSeen(vm(Power.OFF), 2)],
            State.UNKNOWN,
            "kill was cut off",
        ),
        (
            "kill cut off, VM gone",
            [record(verb=Verb.KILL), VmGone(AGENT, 2)],
            State.UNKNOWN,
            "kill was cut off",
        ),
        ("out of reach", [host(HostState.DOWN, detail="No route")], State.LOST, "No route"),
        (
            "saved, out of reach",
            [VmSeen(vm(Power.OFF), 2), record(saved=True), host(HostState.DOWN, detail="No route")],
            State.LOST,
            "No route",
        ),
        (
            "no link",
            [LinkChanged(AGENT, Link.DOWN, literal("refused"))],
            State.RUNNING,
            "refused",
        ),
        (
            "asks, no link",
            [heard(EventKind.ASK, "?"), LinkChanged(AGENT, Link.DOWN)],
            State.ASKING,
            "?",
        ),
    ]
    for name, facts, expected, reason in cases:
        yield pytest.param(facts, expected, reason, id=name)


@pytest.mark.parametrize(("facts", "expected", "reason"), states())
def test_the_state_that_is_shown(
    store: Store, facts: list[Fact], expected: State, reason: str
) -> None:
    store.apply(host())
    store.apply(VmSeen(vm(), 1))
    for fact in facts:
        store.apply(fact)
    assert state(store) == (expected, reason)


def test_a_young_vm_is_starting_until_it_answers(store: Store, clock: Clock) -> None:
    store.apply(VmSeen(vm(Power.OFF, created=NOW - 1), 1))
    assert state(store) == (State.STARTING, "the VM was just made")
    store.apply(VmSeen(vm(created=NOW - 1), 2))
    store.apply(LinkChanged(AGENT, Link.CONNECTING))
    assert known(store).state is State.STARTING
    store.apply(LinkChanged(AGENT, Link.DOWN, literal("not yet")))
    assert state(store) == (State.STARTING, "not yet")
    store.apply(LinkChanged(AGENT, Link.UP))
    assert known(store).state is State.RUNNING
    store.apply(LinkChanged(AGENT, Link.DOWN))
    assert known(store).state is State.RUNNING, "it has booted; only our link is gone"


def test_a_rebooted_vm_has_booted_once_its_link_is_heard_again(store: Store) -> None:
    store.apply(VmSeen(vm(), 1))
    store.apply(LinkChanged(AGENT, Link.UP))
    store.apply(VmSeen(vm(Power.OFF), 2))
    store.apply(VmSeen(vm(), 3))
    assert known(store).state is State.STARTING
    store.apply(LinkChanged(AGENT, Link.UP))
    assert known(store).state is State.RUNNING


def test_an_old_vm_is_not_starting_because_we_are(store: Store) -> None:
    store.apply(VmSeen(vm(created=NOW - 3600), 1))
    store.apply(LinkChanged(AGENT, Link.CONNECTING))
    assert known(store).state is State.RUNNING


def test_a_restored_vm_does_not_boot_but_a_rebooted_one_does(store: Store) -> None:
    store.apply(VmSeen(vm(Power.OFF), 1))
    store.apply(record(saved=True))
    store.apply(VmSeen(vm(), 2))
    store.apply(LinkChanged(AGENT, Link.CONNECTING))
    assert known(store).state is State.RUNNING
    store.apply(record())
    store.apply(VmSeen(vm(Power.OFF), 3))
    store.apply(VmSeen(vm(), 4))
    assert known(store).state is State.STARTING


def test_a_question_survives_a_pause_and_not_a_boot(store: Store) -> None:
    store.apply(VmSeen(vm(), 1))
    store.apply(heard(EventKind.ASK, "which one?", offset=100))
    store.apply(VmSeen(vm(Power.OFF), 2))
    store.apply(record(saved=True))
    store.apply(VmSeen(vm(), 3))
    store.apply(record())
    assert known(store).state is State.ASKING
    store.apply(heard(EventKind.LOG, "hello", offset=7))
    assert known(store).state is not State.ASKING


def test_a_record_waits_for_its_vm(store: Store) -> None:
    assert not store.apply(record(frozen=True))
    assert not store.agents()
    store.apply(Listed(HOST, (vm(),), 1))
    assert known(store).state is State.FROZEN
    store.apply(Listed(HOST, (), 2))
    assert not store.agents()
    store.apply(Recorded(AGENT, None))
    assert not store.agents()


# Ages


def test_ages_are_true_after_a_restart(store: Store) -> None:
    """Facts come in the order of a start: VMs, records, the log that was kept."""
    store.apply(Listed(HOST, (vm(created=1000.0), vm(Power.OFF, OTHER, created=2000.0)), 1))
    assert known(store).since == 1000.0
    saved = Record(OTHER, literal("cobalt"), HOST, saved_in=SNAPSHOT, since=3000.0)
    store.apply(Recorded(OTHER, saved))
    assert (known(store, OTHER).state, known(store, OTHER).since) == (State.SAVED, 3000.0)
    store.apply(heard(EventKind.ASK, "which one?", at=4000.0))
    assert (known(store).state, known(store).since) == (State.ASKING, 4000.0)


def test_a_resumed_agent_runs_since_its_resume(store: Store) -> None:
    store.apply(record(since=5000.0))
    store.apply(Listed(HOST, (vm(created=1000.0),), 1))
    assert known(store).since == 5000.0


@pytest.mark.parametrize("claim", [NOW + 5, 0.0, -1.0, float("nan"), float("inf"), None])
def test_a_guest_cannot_claim_to_wait_for_longer_than_it_lives(
    store: Store, claim: float | None
) -> None:
    store.apply(VmSeen(vm(), 1))
    store.apply(heard(EventKind.ASK, "me first", at=claim))
    assert known(store).since == NOW


def test_nobody_knows_since_when_a_vm_is_off_that_we_never_saw_running(store: Store) -> None:
    store.apply(VmSeen(vm(Power.OFF), 1))
    assert known(store).since is None


def test_a_lost_agent_keeps_its_last_facts_and_their_age(store: Store, clock: Clock) -> None:
    store.apply(host())
    store.apply(VmSeen(vm(), 1))
    store.apply(sample((AGENT, counters(1, 1, memory_used=7))))
    clock.at += 60
    store.apply(host(HostState.DOWN, since=clock.at))
    lost = known(store)
    assert (lost.state, lost.since, lost.seen) == (State.LOST, NOW + 60, NOW)
    assert lost.usage
    assert (lost.usage.memory_used, lost.usage.at) == (7, NOW)
    clock.at += 60
    store.apply(host())
    store.apply(VmSeen(vm(), 2))
    found = known(store)
    assert (found.state, found.since, found.seen) == (State.RUNNING, 1000.0, NOW + 120)


def test_a_change_of_state_is_timed_when_it_is_seen(store: Store, clock: Clock) -> None:
    store.apply(VmSeen(vm(), 1))
    clock.at += 5
    store.apply(VmSeen(vm(Power.PAUSED), 2))
    clock.at += 5
    store.apply(VmSeen(vm(Power.PAUSED, reason="by a user"), 3))
    assert known(store).since == NOW + 5
