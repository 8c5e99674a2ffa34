"""The order, the groups and the choice of what is shown."""

from __future__ import annotations

import pytest
from stand_in import Clock, StandInSupervisor, make_fleet

from swarm_tui.fact import Sampled, VmGone
from swarm_tui.model import EventKind, HostName, State
from swarm_tui.ui.roster import REST_S, Roster
from swarm_tui.views import Group, Order


def names(roster: Roster) -> list[str]:
    return [roster.agents[agent].name for section in roster.sections for agent in section.ids]


def small(*agents: str) -> StandInSupervisor:
    swarm = StandInSupervisor()
    swarm.add_host()
    for name in agents:
        swarm.add(name)
    return swarm


def test_who_asks_stands_first_and_the_longest_wait_on_top() -> None:
    roster = Roster(make_fleet().store)
    assert names(roster)[:2] == ["moss", "fern"]


def test_numbers_in_names_count_as_numbers() -> None:
    roster = Roster(small("agent-10", "agent-9", "agent-1").store)
    assert names(roster) == ["agent-1", "agent-9", "agent-10"]


def test_names_of_every_shape_can_be_compared() -> None:
    odd = ["", "7", "7a", "a7", "٣", "agent-", "agent-1-2", "9" * 5000, "é"]
    roster = Roster(small(*odd).store)
    roster.choose(0.0, order=Order.NAME)
    assert len(roster) == len(odd)


def test_the_first_agents_are_shown_at_once() -> None:
    swarm = small()
    roster = Roster(swarm.store)
    roster.choose(10.0, order=Order.NAME)
    swarm.add("birch")
    assert roster.absorb(swarm.store.take_dirty(), 10.1)
    assert names(roster) == ["birch"]


@pytest.mark.parametrize("order", Order)
def test_every_order_shows_every_agent(order: Order) -> None:
    swarm = make_fleet()
    roster = Roster(swarm.store)
    roster.choose(0.0, order=order)
    assert sorted(names(roster)) == sorted(agent.name for agent in swarm.store.agents())


def test_by_cpu_puts_the_busiest_first_and_the_unknown_last() -> None:
    roster = Roster(make_fleet().store)
    roster.choose(0.0, order=Order.CPU)
    loads = [
        usage.cpu_percent
        for agent in roster.in_order(roster.agents)
        if (usage := roster.agents[agent].usage) and usage.cpu_percent is not None
    ]
    assert loads == sorted(loads, reverse=True)
    assert roster.agents[roster.sections[0].ids[-1]].usage is None


def test_groups_are_headed_and_counted() -> None:
    roster = Roster(make_fleet().store)
    roster.choose(0.0, group=Group.HOST)
    assert [section.title for section in roster.sections] == ["attic", "lab-2", "local"]
    roster.choose(0.0, group=Group.STATE)
    assert roster.sections[0].state is State.ASKING
    assert sum(len(section.ids) for section in roster.sections) == len(roster)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("attic", {"pike"}),
        ("asking", {"moss", "fern"}),
        ("ASKING lab", {"moss"}),
        ("asking !lab", {"fern"}),
        ("invoices fern", {"fern"}),
        ("!", None),
        ("nothing-like-it", set()),
    ],
)
def test_a_filter_takes_every_word(words: str, expected: set[str] | None) -> None:
    swarm = make_fleet()
    roster = Roster(swarm.store)
    roster.choose(0.0, filter=words)
    everybody = {agent.name for agent in swarm.store.agents()}
    assert set(names(roster)) == (everybody if expected is None else expected)


def test_counts_follow_what_changes() -> None:
    swarm = small("ember", "moss")
    roster = Roster(swarm.store)
    ember = swarm.named("ember").id
    swarm.hear(ember, EventKind.ASK, "review")
    roster.absorb(swarm.store.take_dirty(), 10.0)
    assert roster.counts[State.ASKING] == 1
    assert names(roster)[0] == "ember"
    swarm.apply(VmGone(ember, 99))
    roster.absorb(swarm.store.take_dirty(), 20.0)
    assert roster.counts[State.ASKING] == 0
    assert names(roster) == ["moss"]
    assert roster.hosts == {HostName("local"): 1}


def test_a_busy_list_rests_between_two_sortings() -> None:
    swarm = small("ember", "moss")
    roster = Roster(swarm.store)
    swarm.add("aster")
    assert roster.absorb(swarm.store.take_dirty(), 10.0)
    swarm.add("birch")
    assert not roster.absorb(swarm.store.take_dirty(), 10.0 + REST_S / 2)
    assert roster.absorb(set(), 10.0 + REST_S)
    assert "birch" in names(roster)


def test_samples_alone_arrange_nothing_anew() -> None:
    swarm = small("ember", "moss")
    roster = Roster(swarm.store)
    roster.absorb(swarm.store.take_dirty(), 10.0)
    swarm.sample(swarm.named("ember").id, 5)
    assert not roster.absorb(swarm.store.take_dirty(), 100.0)


def test_an_empty_sample_of_an_empty_fleet_is_fine() -> None:
    swarm = StandInSupervisor(clock=Clock())
    roster = Roster(swarm.store)
    swarm.apply(Sampled(HostName("local"), {}))
    assert roster.at(0) is None
    assert len(roster) == 0


def test_who_waits_is_taken_in_turn() -> None:
    swarm = make_fleet()
    roster = Roster(swarm.store)
    moss, fern = swarm.named("moss").id, swarm.named("fern").id
    assert roster.next_asking(None) == moss
    assert roster.next_asking(moss) == fern
    assert roster.next_asking(fern) == moss
    assert roster.next_asking(swarm.named("ember").id) == moss
