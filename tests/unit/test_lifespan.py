"""By which rule a life ends, and what stands in the way of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from swarm_tui.errors import UsageError
from swarm_tui.lifespan import due, is_nearly_over, parse_time, tell_left, warn
from swarm_tui.model import (
    Address,
    Agent,
    Birth,
    Judgement,
    Power,
    Record,
    State,
    Tag,
    Verb,
    Vm,
)
from swarm_tui.profile import Ending, Life, Occasion
from swarm_tui.text import literal

from .standin import AGENT, HOST

NOW = 10_000.0
ADDRESS = Address("127.0.0.1", 22, "ssh-ed25519 AAAA", Path("/key"))


def agent(
    state: State = State.RUNNING,
    *,
    ttl_s: float | None = 1000.0,
    age_s: float = 2000.0,
    ending: Ending = Ending.END,
    on_done: Ending = Ending.KEEP,
    power: Power = Power.RUNNING,
    **birth: object,
) -> Agent:
    created = NOW - age_s
    life = Life(ttl_s, on_expiry=ending, on_done=on_done, on_failed=on_done)
    made = Birth(life=life, expires=None if ttl_s is None else created + ttl_s)
    made = replace(made, **birth)  # type: ignore[arg-type]
    tag = Tag(created=created, base="5" * 40, address=ADDRESS)
    vm = Vm(AGENT, literal("ember"), HOST, power, tag=tag)
    record = Record(AGENT, literal("ember"), HOST, birth=made)
    return Agent(AGENT, literal("ember"), HOST, state, NOW - 5, vm=vm, record=record)


def with_record(known: Agent, **changes: object) -> Agent:
    assert known.record
    return replace(known, record=replace(known.record, **changes))  # type: ignore[arg-type]


def test_a_life_without_rules_never_ends() -> None:
    known = agent(ttl_s=None)
    for state in State:
        assert due(replace(known, state=state), NOW) is None
    assert tell_left(known, NOW) == ""


def test_time_that_is_over_ends_it_once() -> None:
    found = due(agent(), NOW)
    assert found
    assert (found.occasion, found.ending, found.hindrance) == (Occasion.EXPIRED, Ending.END, "")
    assert due(agent(age_s=10.0), NOW) is None
    paused = agent(ending=Ending.PAUSE, acted=Occasion.EXPIRED)
    assert due(paused, NOW) is None, "a person who resumed it would see it paused again"
    assert warn(paused, NOW) == (NOW - 1000.0, "its time is over, and it runs on")


def test_done_and_failed_have_rules_of_their_own() -> None:
    done = agent(State.DONE, age_s=10.0, on_done=Ending.END)
    found = due(done, NOW)
    assert found
    assert found.occasion is Occasion.DONE
    failed = due(replace(done, state=State.FAILED), NOW)
    assert failed
    assert failed.occasion is Occasion.FAILED
    assert due(replace(done, state=State.RUNNING), NOW) is None


@pytest.mark.parametrize(
    ("known", "why"),
    [
        (agent(State.ASKING), "waits for a person"),
        (with_record(agent(State.SAVED), review=3), "waits for a person"),
        (with_record(agent(State.FROZEN), review=3), "its review 3 is open"),
        (with_record(agent(), review=3, verdict=Judgement.APPROVE), "approve is not delivered"),
        (with_record(agent(), verb=Verb.PAUSE), "its pause was cut off"),
        (agent(State.LOST), "it is lost"),
        (agent(State.FAILED, power=Power.CRASHED), "its work cannot be taken"),
        (agent(unkept=literal("disk full")), "disk full"),
    ],
)
def test_nobody_whom_a_person_may_need_is_ended(known: Agent, why: str) -> None:
    found = due(known, NOW)
    assert found
    assert why in found.hindrance
    told = warn(known, NOW)
    assert told
    assert why in told[1], "nobody is told that it stays"


def test_an_open_shell_and_a_pin_keep_it() -> None:
    found = due(agent(), NOW, is_open=True)
    assert found
    assert found.hindrance == "a shell is open in it"
    assert due(agent(is_pinned=True), NOW) is None
    assert warn(agent(is_pinned=True), NOW) is None


def test_an_end_that_was_cut_off_is_taken_up() -> None:
    """It stands still, so that nobody sees any more that it was done."""
    cut = agent(State.FROZEN, age_s=10.0, on_done=Ending.END, acted=Occasion.DONE)
    found = due(with_record(cut, verb=Verb.END), NOW)
    assert found
    assert (found.occasion, found.hindrance) == (Occasion.DONE, "")
    half_gone = with_record(replace(cut, state=State.UNKNOWN), verb=Verb.KILL)
    found = due(half_gone, NOW)
    assert found
    assert found.hindrance == ""
    assert due(replace(cut, state=State.RUNNING), NOW) is None, "it was given more to do"


def test_the_last_tenth_is_told_beforehand() -> None:
    early, late = agent(age_s=899.0), agent(age_s=960.0)
    assert not is_nearly_over(early, NOW)
    assert warn(early, NOW) is None
    assert is_nearly_over(late, NOW)
    assert tell_left(late, NOW) == "40s left"
    assert warn(late, NOW) == (NOW - 60.0, "its time is over soon; then it is ended")


def test_times_as_people_write_them() -> None:
    assert [parse_time(text) for text in ("90s", "30m", "2H", "never")] == [90, 1800, 7200, None]
    for text in ("", "2", "0s", "h", "-1h", "999999999d"):
        with pytest.raises(UsageError):
            parse_time(text)
