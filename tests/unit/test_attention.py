"""The queue of what waits for a human: what is in it, in which order, and for how long."""

from __future__ import annotations

import random
from dataclasses import replace

from swarm_tui.attention import FORGOTTEN_S, SNOOZE_S, Attention, Kind, Need, summarize
from swarm_tui.audit import Entry, Outcome
from swarm_tui.errors import StorageFull
from swarm_tui.model import (
    Agent,
    AgentId,
    Host,
    HostName,
    HostState,
    Judgement,
    Operation,
    Record,
    SnapshotId,
    State,
    Tag,
    Verb,
    Vm,
)
from swarm_tui.model import Power as VmPower
from swarm_tui.text import EMPTY, Safe, literal, sanitize

NOW = 1_795_438_800.0
LAB = HostName("lab")


def agent(
    name: str = "moss",
    state: State = State.RUNNING,
    *,
    since: float | None = NOW,
    reason: str = "",
    owner: str = "",
    host: HostName = LAB,
    record: Record | None = None,
) -> Agent:
    id = AgentId(f"id of {name}")
    vm = Vm(id, literal(name), host, VmPower.RUNNING, tag=Tag(owner=sanitize(owner)))
    return Agent(id, vm.name, host, state, since, sanitize(reason), vm=vm, record=record)


def heard(*agents: Agent, now: float = NOW) -> Attention:
    attention = Attention()
    for each in agents:
        attention.hear(each.id, each, now)
    return attention


def rows(attention: Attention) -> list[tuple[str, Kind]]:
    return [(need.name, need.kind) for need in attention.needs()]


def only(attention: Attention) -> Need:
    (need,) = attention.needs()
    return need


def host(state: HostState, *, reason: str = "no route") -> Host:
    return Host(LAB, EMPTY, state, NOW - 60, reason=sanitize(reason))


def act(
    outcome: Outcome | None,
    verb: Verb = Verb.PAUSE,
    *,
    of: str = "id of moss",
    ended: float = NOW,
    detail: str = "no room",
) -> Entry:
    words: list[Safe] = [literal(word) for word in ("1", "hanne@desk", verb.value, of, "moss")]
    id, actor, word, whose, name = words
    return Entry(
        id, ended - 1, actor, word, whose, name, literal("lab"), literal(detail), outcome, ended
    )


def test_the_oldest_comes_first_whatever_the_order_in_which_they_are_heard() -> None:
    agents = [
        agent(f"a{number:02}", State.ASKING, since=NOW - number * 7 % 11) for number in range(30)
    ]
    for seed in range(5):
        random.Random(seed).shuffle(agents)
        attention = heard(*agents)
        ages = [need.since for need in attention.needs()]
        assert ages == sorted(ages, key=lambda since: since or 0)
        assert len(ages) == 30


def test_who_is_at_work_or_done_does_not_wait() -> None:
    assert rows(heard(*(agent(s, s) for s in State))) == [
        ("asking", Kind.ASK),
        ("failed", Kind.FAILED),
        ("unknown", Kind.UNKNOWN),
    ]


def test_an_agent_leaves_the_queue_when_it_goes_on_or_goes() -> None:
    attention = heard(agent("moss", State.ASKING), agent("fern", State.FAILED))
    attention.hear(agent("moss").id, agent("moss"), NOW)
    assert rows(attention) == [("fern", Kind.FAILED)]
    attention.hear(agent("fern").id, None, NOW)
    assert rows(attention) == []
    assert summarize(attention.counts) == ""


def test_it_keeps_its_place_while_somebody_is_at_work_on_it() -> None:
    asking, running = agent("moss", State.ASKING), agent("moss")
    attention = heard(asking)
    at_work = Operation(Verb.REVIEW, literal("takes its work"))
    attention.hear(asking.id, replace(running, operation=at_work), NOW + 5)
    need = only(attention)
    assert (need.kind, need.since) == (Kind.ASK, NOW)
    assert need.reason == "review at work: takes its work"
    attention.hear(asking.id, running, NOW + 9)
    assert rows(attention) == []


def test_a_verb_on_one_that_does_not_wait_puts_it_into_no_queue() -> None:
    asking = agent("moss", State.ASKING)
    assert rows(heard(replace(asking, operation=Operation(Verb.PAUSE, EMPTY)))) == []


def test_an_open_review_waits_with_its_age_and_who_took_it() -> None:
    record = Record(AgentId("id of moss"), literal("moss"), LAB, SnapshotId("s"), review=3)  # type: ignore[arg-type]
    saved = replace(
        agent("moss", State.SAVED, since=NOW - 5, reason="review 3 is open", record=record),
        waits_since=NOW - 90,
    )
    attention = heard(saved)
    attention.hear_acts([act(Outcome.DONE, Verb.REVIEW)], NOW)
    need = only(attention)
    assert (need.kind, need.since) == (Kind.REVIEW, NOW - 90)
    assert need.reason == "review 3 is open, taken by hanne@desk"
    given = replace(saved, record=replace(record, verdict=Judgement.APPROVE))
    attention.hear(saved.id, given, NOW)
    assert only(attention).kind is Kind.VERDICT


def test_a_verb_that_failed_waits_until_it_is_done_or_the_agent_goes_on() -> None:
    moss = agent("moss", since=NOW - 100)
    attention = heard(moss)
    attention.hear_acts([act(Outcome.FAILED)], NOW)
    assert only(attention).reason == "pause failed: no room"
    attention.hear_acts([act(Outcome.DONE)], NOW)
    assert rows(attention) == []
    attention.hear_acts([act(Outcome.UNKNOWN)], NOW)
    assert only(attention).reason == "pause ended nobody knows how: no room"
    attention.hear(moss.id, replace(moss, state=State.RUNNING, since=NOW + 60), NOW + 60)
    assert rows(attention) == []


def test_a_verb_that_was_cut_off_waits() -> None:
    record = Record(AgentId("id of moss"), literal("moss"), LAB, verb=Verb.RESUME)
    need = only(heard(agent("moss", State.UNKNOWN, reason="resume was cut off", record=record)))
    assert (need.kind, need.reason) == (Kind.VERB, "resume was cut off")


def test_an_agent_that_could_not_be_made_is_told_until_it_is_taken_off() -> None:
    attention = Attention()
    failed = act(Outcome.FAILED, Verb.SPAWN, of="")
    attention.hear_acts([failed], NOW)
    need = only(attention)
    assert (need.reason, need.agent) == ("spawn failed: no room", None)
    attention.snooze(need.key, NOW)
    attention.hear_acts([failed], NOW)
    assert rows(attention) == []


def test_a_lost_host_waits_once_for_all_of_its_agents() -> None:
    names = [f"a{number}" for number in range(250)]
    attention = heard(*(agent(name) for name in names), agent("z", State.DONE))
    attention.hear_hosts([host(HostState.DOWN)], NOW)
    for name in [*names, "z"]:
        lost = agent(name, State.LOST, reason="no route")
        attention.hear(lost.id, lost, NOW)
    need = only(attention)
    assert (need.kind, need.since, need.agent) == (Kind.HOST, NOW - 60, None)
    assert need.reason == "out of reach; 251 agents lost, 250 of them at work; no route"
    attention.hear_hosts([host(HostState.UP)], NOW)
    assert rows(attention) == []


def test_who_stands_still_for_long_was_forgotten() -> None:
    paused = agent("moss", State.PAUSED)
    attention = heard(paused, agent("fern", State.FROZEN, since=None))
    attention.tick(NOW + FORGOTTEN_S - 1)
    assert rows(attention) == []
    attention.tick(NOW + FORGOTTEN_S)
    assert sorted(rows(attention)) == [("fern", Kind.STOPPED), ("moss", Kind.STOPPED)]
    attention.hear(paused.id, agent("moss"), NOW + FORGOTTEN_S + 1)
    assert rows(attention) == [("fern", Kind.STOPPED)]


def test_a_fault_of_storage_stays_until_it_is_taken_off() -> None:
    attention = Attention()
    for _ in range(3):
        attention.hear_fault(StorageFull("No room for the spool", "8 MiB left"), NOW)
    need = only(attention)
    assert need.reason == "No room for the spool: 8 MiB left"
    attention.snooze(need.key, NOW)
    assert rows(attention) == []
    attention.hear_fault(StorageFull("No room for the spool", "8 MiB left"), NOW + 5)
    assert only(attention).since == NOW + 5


def test_a_snoozed_one_comes_back_after_its_time_or_with_something_else() -> None:
    asking = agent("moss", State.ASKING, reason="review")
    attention = heard(asking)
    attention.snooze(asking.id, NOW)
    assert rows(attention) == []
    assert [need.key for need in attention.needs(with_snoozed=True)] == [asking.id]
    attention.tick(NOW + SNOOZE_S - 1)
    assert rows(attention) == []
    attention.tick(NOW + SNOOZE_S)
    assert rows(attention) == [("moss", Kind.ASK)]
    attention.snooze(asking.id, NOW)
    attention.hear(asking.id, replace(asking, since=NOW + 30, reason=literal("again")), NOW + 30)
    assert only(attention).reason == "again"


def test_mine_are_those_of_mine_and_of_nobody() -> None:
    owners = {"mine": "hanne", "hers": "ida", "far": "hanne@lab", "nobody's": ""}
    attention = heard(*(agent(name, State.ASKING, owner=o) for name, o in owners.items()))
    mine = {need.name for need in attention.needs() if need.is_for("hanne")}
    assert mine == {"mine", "far", "nobody's"}


def test_a_hostile_reason_is_harmless_and_short() -> None:
    why = "\x1b]0;owned\x07\u202e" + "x" * 100_000 + "\n\x9b31m"
    down = replace(host(HostState.DOWN), reason=EMPTY, detail=sanitize(why))
    attention = heard(agent("moss", State.ASKING, reason=why))
    attention.hear_hosts([down], NOW)
    attention.hear_fault(StorageFull(why, why), NOW)
    for need in attention.needs():
        assert need.reason == sanitize(need.reason)
        assert len(need.reason) < 1000


def test_what_did_not_change_costs_nothing_and_is_no_news() -> None:
    attention = heard(agent("moss", State.ASKING), agent("fern"))
    version = attention.version
    for _ in range(10):
        attention.hear(agent("moss").id, agent("moss", State.ASKING), NOW)
        attention.hear(agent("fern").id, agent("fern"), NOW)
        attention.tick(NOW)
    assert attention.version == version


def test_the_summary_names_each_kind_with_its_count() -> None:
    attention = heard(agent("a", State.ASKING), agent("b", State.ASKING), agent("c", State.FAILED))
    assert summarize(attention.counts) == "2 ask · 1 failed"
