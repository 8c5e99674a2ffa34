"""The store: whatever the order in which facts come, it ends with what is true."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest

from swarm_tui.fact import (
    Fact,
    GuestHeard,
    GuestSampled,
    LinkChanged,
    Listed,
    OperationChanged,
    VmGone,
    VmSeen,
)
from swarm_tui.model import (
    Agent,
    AgentId,
    EventBatch,
    EventKind,
    GuestEvent,
    HostName,
    HostState,
    Link,
    Operation,
    Power,
    State,
    Verb,
)
from swarm_tui.store import LOG_EVENTS, Store, count_states, sort_key
from swarm_tui.text import EMPTY, literal

from .facts import (
    NOW,
    OTHER,
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


# The order of facts


def test_late_answers_change_nothing_whatever_their_order() -> None:
    """Every answer may be overtaken by any other one: what was asked last is what holds."""
    facts: list[Fact] = [
        VmSeen(vm(Power.RUNNING), 1),
        Listed(HOST, (vm(Power.PAUSED),), 2),
        VmSeen(vm(Power.OFF), 3),
        Listed(HOST, (vm(Power.RUNNING, reason="restored"), vm(agent=OTHER)), 4),
        VmSeen(vm(Power.PAUSED, reason="by a user"), 5),
    ]
    for order in itertools.permutations(facts):
        store = Store(Clock().now)
        for fact in order:
            store.apply(fact)
        assert state(store) == (State.PAUSED, "by a user"), order
        assert known(store, OTHER).state is State.RUNNING


def test_the_gone_stay_gone_whatever_the_order() -> None:
    facts: list[Fact] = [
        VmSeen(vm(), 1),
        Listed(HOST, (vm(), vm(agent=OTHER)), 2),
        VmSeen(vm(Power.PAUSED), 3),
        VmGone(AGENT, 4, HOST),
        Listed(HOST, (vm(agent=OTHER),), 5),
    ]
    for order in itertools.permutations(facts):
        store = Store(Clock().now)
        for fact in order:
            store.apply(fact)
        store.apply(VmSeen(vm(), 3))
        assert store.agent(AGENT) is None, order
        assert known(store, OTHER)


def test_an_answer_older_than_the_last_list_brings_nobody(store: Store) -> None:
    store.apply(Listed(HOST, (vm(agent=OTHER),), 5))
    store.apply(VmSeen(vm(), 4))
    assert store.agent(AGENT) is None
    store.apply(VmSeen(vm(), 6))
    assert known(store)


def test_random_histories_end_alike() -> None:
    """Records, links and verbs in flight mixed with answers of all hosts; ten thousand orders."""
    rng = random.Random(1)
    final: list[Fact] = [
        host(),
        Listed(HOST, (vm(Power.OFF, reason="saved"),), 1000),
        record(saved=True, since=5.0),
        OperationChanged(AGENT, None),
        LinkChanged(AGENT, Link.NONE),
    ]
    noise: list[Fact] = [
        host(HostState.DOWN, detail="No route"),
        record(verb=Verb.PAUSE, frozen=True),
        record(verb=Verb.RESUME, saved=True),
        OperationChanged(AGENT, Operation(Verb.PAUSE, literal("saving"))),
        LinkChanged(AGENT, Link.UP),
        sample((AGENT, counters(1, 1))),
        GuestSampled(AGENT, 1.0, 1, 1),
    ]
    for _ in range(2000):
        store = Store(Clock().now)
        facts = [*rng.choices(noise, k=6)]
        facts += [VmSeen(vm(rng.choice(list(Power))), rng.randrange(900)) for _ in range(4)]
        facts += [VmGone(AGENT, rng.randrange(900)), Listed(HOST, (), rng.randrange(900))]
        rng.shuffle(facts)
        ending = list(final)
        rng.shuffle(ending)
        for fact in [*facts, *ending]:
            store.apply(fact)
        agent = known(store)
        assert (agent.state, agent.operation, agent.link) == (State.SAVED, None, Link.NONE), facts
        assert agent.usage is None, "a VM that is off uses nothing"


def test_an_agent_stays_where_it_was_first(store: Store) -> None:
    """The same id on two hosts, e.g. one daemon by two names: verbs must not change their mind."""
    elsewhere = HostName("elsewhere")
    store.apply(Listed(HOST, (vm(),), 1))
    store.apply(Listed(elsewhere, (vm(Power.OFF, host=elsewhere),), 2))
    store.apply(VmGone(AGENT, 3, elsewhere))
    store.apply(sample((AGENT, counters(1, 1)), of=elsewhere))
    assert (known(store).host, known(store).state) == (HOST, State.RUNNING)
    assert known(store).usage is None
    store.apply(Listed(HOST, (), 4))
    store.apply(Listed(elsewhere, (vm(host=elsewhere),), 5))
    assert known(store).host == elsewhere


# Figures


def test_rates_come_of_two_readings(store: Store) -> None:
    store.apply(VmSeen(vm(), 1))
    store.apply(sample((AGENT, counters(10.0, 5.0, disk_read=100, net_received=50))))
    usage = known(store).usage
    assert usage
    assert (usage.cpu_percent, usage.disk_read_per_s) == (None, None)
    store.apply(sample((AGENT, counters(12.0, 6.0, disk_read=300, net_received=90))))
    usage = known(store).usage
    assert usage
    assert (usage.cpu_percent, usage.disk_read_per_s, usage.net_received_per_s) == (50, 100, 20)
    assert usage.disk_written_per_s is None, "nobody knows is not 0"
    history = store.history(AGENT)
    assert history
    assert list(history.cpu_percent) == [50]


def test_figures_of_a_former_life_are_not_mixed_in(store: Store) -> None:
    store.apply(VmSeen(vm(), 1))
    store.apply(sample((AGENT, counters(10.0, 500.0))))
    store.apply(VmSeen(vm(Power.OFF), 2))
    store.apply(sample((AGENT, counters(11.0, 501.0))))
    assert known(store).usage is None, "a late reading of a VM that is off"
    store.apply(VmSeen(vm(), 3))
    store.apply(sample((AGENT, counters(20.0, 600.0))))
    usage = known(store).usage
    assert usage
    assert usage.cpu_percent is None
    store.apply(sample((AGENT, counters(21.0, 0.5))))
    usage = known(store).usage
    assert usage
    assert usage.cpu_percent is None, "a counter that went back"


def test_a_paused_vm_keeps_its_memory_on_the_screen(store: Store) -> None:
    store.apply(VmSeen(vm(), 1))
    store.apply(sample((AGENT, counters(10.0, 5.0, memory_host=70))))
    store.apply(Listed(HOST, (vm(Power.PAUSED),), 2))
    usage = known(store).usage
    assert usage
    assert usage.memory_host == 70


def test_traffic_told_by_the_guest_stands_in_where_the_host_knows_none(store: Store) -> None:
    store.apply(VmSeen(vm(), 1))
    store.apply(sample((AGENT, counters(1.0, 1.0))))
    store.apply(GuestSampled(AGENT, 10.0, 1000, 0))
    store.apply(GuestSampled(AGENT, 12.0, 3000, 10))
    store.apply(sample((AGENT, counters(2.0, 2.0))))
    usage = known(store).usage
    assert usage
    assert (usage.net_received_per_s, usage.net_sent_per_s, usage.cpu_percent) == (1000, 5, 100)
    assert usage.is_net_claimed


def test_what_the_host_counts_goes_before_what_the_guest_claims(store: Store) -> None:
    store.apply(VmSeen(vm(), 1))
    for second in (1.0, 2.0):
        told = replace(counters(second, second), net_received=int(second) * 100, net_sent=0)
        store.apply(sample((AGENT, told)))
        store.apply(GuestSampled(AGENT, second, int(second) * 9999, 9999))
    usage = known(store).usage
    assert usage
    assert (usage.net_received_per_s, usage.is_net_claimed) == (100, False)


def test_logs_are_bounded_and_say_what_they_dropped(store: Store) -> None:
    store.apply(VmSeen(vm(), 1))
    event = GuestEvent(EventKind.LOG, literal("line"))
    for number in range(30):
        store.apply(GuestHeard(AGENT, EventBatch((event,) * 100, number, dropped=1)))
    log = store.log(AGENT)
    assert (len(log.events), log.total, log.lost) == (LOG_EVENTS, 3000, 30)


def test_a_big_fleet_keeps_shorter_logs(store: Store) -> None:
    agents = [AgentId(f"vm-{number}") for number in range(2000)]
    store.apply(Listed(HOST, tuple(vm(agent=agent) for agent in agents), 1))
    event = GuestEvent(EventKind.LOG, literal("line"))
    store.apply(GuestHeard(agents[0], EventBatch((event,) * 500, 1)))
    assert len(store.log(agents[0]).events) == 100
    assert store.log(agents[0]).total == 500


def test_tokens_add_up(store: Store) -> None:
    store.apply(VmSeen(vm(), 1))
    usage = GuestEvent(EventKind.USAGE, EMPTY, None, literal("m-1"), 100, 20)
    store.apply(heard(EventKind.STATUS, "working"))
    store.apply(GuestHeard(AGENT, EventBatch((usage, usage), 20)))
    agent = known(store)
    assert (agent.tokens_in, agent.tokens_out, agent.model) == (200, 40, "m-1")
    assert agent.last_line == "working"


# What changed


def test_only_what_a_screen_shows_is_marked(store: Store, clock: Clock) -> None:
    store.apply(Listed(HOST, (vm(), vm(agent=OTHER)), 1))
    assert store.take_dirty() == {AGENT, OTHER}
    assert store.take_moved() == {AGENT, OTHER}
    clock.at += 10
    assert not store.apply(Listed(HOST, (vm(), vm(agent=OTHER)), 2))
    assert not store.take_dirty(), "that it was read again is no news"
    assert known(store).seen == NOW + 10
    store.apply(sample((AGENT, counters(1, 1))))
    assert store.take_dirty() == {AGENT}
    assert not store.take_moved()
    store.apply(VmGone(AGENT, 3))
    assert (store.take_dirty(), store.take_moved()) == ({AGENT}, {AGENT})
    assert not store.apply(VmGone(AGENT, 4))


def test_whoever_waits_longest_comes_first(store: Store, clock: Clock) -> None:
    def agent(name: str, state: State, since: float) -> Agent:
        waits_since = since if state is State.ASKING else None
        return Agent(AgentId(name), literal(name), HOST, state, since, waits_since=waits_since)

    fleet = [
        agent("b", State.RUNNING, 1),
        agent("late", State.ASKING, 9),
        agent("a", State.SAVED, 5),
        agent("early", State.ASKING, 2),
    ]
    assert [one.name for one in sorted(fleet, key=sort_key)] == ["early", "late", "a", "b"]
    assert count_states(fleet) == {State.RUNNING: 1, State.ASKING: 2, State.SAVED: 1}


def test_an_agent_keeps_its_place_while_it_is_reviewed(store: Store, clock: Clock) -> None:
    def begin(verb: Verb) -> None:
        store.apply(OperationChanged(AGENT, Operation(verb, literal("at work"))))

    def names() -> list[AgentId]:
        return [one.id for one in sorted(store.agents(), key=sort_key)]

    third = AgentId("third")
    store.apply(Listed(HOST, (vm(), vm(agent=OTHER), vm(agent=third)), 1))
    store.apply(LinkChanged(AGENT, Link.UP))
    store.apply(heard(EventKind.ASK, "please"))
    asked = known(store).since
    clock.at += 10
    store.apply(GuestHeard(OTHER, EventBatch((GuestEvent(EventKind.ASK, literal("me")),), 10)))
    assert names() == [AGENT, OTHER, third]
    clock.at += 10
    begin(Verb.REVIEW)
    store.apply(record(frozen=True))
    assert known(store).state is State.FROZEN
    assert names() == [AGENT, OTHER, third], "it lost its place while its review was taken"
    store.apply(record(saved=True, review=1))
    store.apply(VmSeen(vm(Power.OFF), 2))
    store.apply(OperationChanged(AGENT, None))
    assert known(store).state is State.SAVED
    assert names() == [AGENT, OTHER, third], "it lost its place when its review was open"
    assert known(store).waits_since == asked
    begin(Verb.APPROVE)
    store.apply(record(saved=True, review=1, verb=Verb.APPROVE))
    assert names() == [AGENT, OTHER, third], "it lost its place while its verdict was at work"
    store.apply(record())
    store.apply(VmSeen(vm(), 3))
    store.apply(OperationChanged(AGENT, None))
    store.apply(heard(EventKind.STATUS, "goes on", offset=11))
    assert names()[0] == OTHER, "it waits for nobody any more"


def test_a_pause_keeps_no_place(store: Store) -> None:
    store.apply(Listed(HOST, (vm(), vm(agent=OTHER)), 1))
    store.apply(heard(EventKind.ASK, "please"))
    store.apply(OperationChanged(AGENT, Operation(Verb.PAUSE, literal("at work"))))
    store.apply(VmSeen(vm(Power.PAUSED), 2))
    assert known(store).waits_since is None


def test_a_verb_at_work_is_shown_and_then_not(store: Store) -> None:
    store.apply(VmSeen(vm(), 1))
    operation = Operation(Verb.PAUSE, literal("saving memory"), 0.5)
    store.apply(OperationChanged(AGENT, operation))
    assert known(store).operation == operation
    store.apply(OperationChanged(AGENT, replace(operation, fraction=0.6)))
    assert known(store).operation != operation
    store.apply(OperationChanged(AGENT, None))
    assert known(store).operation is None
