"""Which verb is legal when: every verb in every state has an answer, and a no has a reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from swarm_tui.model import (
    Address,
    Agent,
    Capabilities,
    Judgement,
    Link,
    Operation,
    Power,
    Record,
    State,
    Tag,
    Verb,
    Vm,
)
from swarm_tui.policy import Allow, Ask, Deny, decide
from swarm_tui.text import literal

from .standin import AGENT, HOST

ABLE = Capabilities("QEMU", "7.2.22")
BASE = "5" * 40
ADDRESS = Address("127.0.0.1", 22101, "ssh-ed25519 AAAA", Path("/key"))


def agent(
    state: State,
    *,
    operation: Operation | None = None,
    verb: Verb | None = None,
    link: Link = Link.UP,
    address: Address | None = ADDRESS,
    base: str = BASE,
    review: int | None = None,
    verdict: Judgement | None = None,
) -> Agent:
    power = Power.CRASHED if state is State.FAILED else Power.RUNNING
    vm = Vm(AGENT, literal("ember"), HOST, power, tag=Tag(base=base, address=address))
    record = Record(AGENT, literal("ember"), HOST, verb=verb, review=review, verdict=verdict)
    return Agent(
        AGENT,
        literal("ember"),
        HOST,
        state,
        None,
        vm=vm,
        record=record,
        operation=operation,
        link=link,
    )


LEGAL = {
    Verb.REVIEW: "starting running asking frozen paused saved done",
    Verb.COMPARE: "starting running asking frozen paused saved done",
    Verb.APPROVE: "saved",
    Verb.SEND_BACK: "saved",
    Verb.REJECT: "saved",
    Verb.PAUSE: "starting running asking frozen done paused",
    Verb.RESUME: "paused saved frozen",
    Verb.SHELL: "starting running asking frozen done",
    Verb.MESSAGE: "starting running asking frozen done",
    Verb.KILL: "starting running asking frozen paused saved done failed unknown",
    Verb.END: "starting running frozen paused saved done",
    Verb.EXTEND: "starting running asking frozen paused saved done failed unknown",
    Verb.CHECKPOINT: "starting running asking frozen done",
    Verb.ROLL_BACK: "starting running asking frozen paused saved done",
    Verb.FORK: "starting running asking frozen saved done",
    Verb.MARK: "starting running asking frozen paused saved done failed unknown",
    Verb.DISCARD: "starting running asking frozen paused saved done failed unknown",
    Verb.LOGS: "starting running asking frozen paused saved done failed lost unknown",
}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("verb", Verb)
def test_every_verb_in_every_state(verb: Verb, state: State) -> None:
    decision = decide(
        verb, agent(state, review=None if verb in (Verb.END, Verb.COMPARE) else 3), ABLE
    )
    if verb is Verb.SPAWN:
        assert decision == Allow()
    elif state in LEGAL[verb].split():
        assert not isinstance(decision, Deny)
        assert isinstance(decision, Ask) is (verb in (Verb.KILL, Verb.END))
    else:
        assert isinstance(decision, Deny)
        assert f"it is {state}" in decision.reason


@pytest.mark.parametrize("verb", sorted(set(Verb) - {Verb.SPAWN, Verb.LOGS}))
def test_without_an_agent_or_a_host_there_is_nothing_to_do(verb: Verb) -> None:
    assert isinstance(decide(verb, None, ABLE), Deny)
    assert isinstance(decide(verb, agent(State.RUNNING), None), Deny)


def test_logs_can_be_read_without_a_host() -> None:
    assert decide(Verb.LOGS, agent(State.LOST), None) == Allow()


def test_what_the_driver_lacks_is_the_reason() -> None:
    lacking = Capabilities(
        "CH", "50", missing={"save": "no NICs may be saved", "spawn": "no image"}
    )
    assert decide(Verb.PAUSE, agent(State.RUNNING), lacking) == Deny(
        literal("no NICs may be saved")
    )
    assert decide(Verb.PAUSE, agent(State.RUNNING), lacking, is_quick=True) == Allow()
    assert decide(Verb.SPAWN, None, lacking) == Deny(literal("no image"))


def test_a_second_verb_waits_for_the_first() -> None:
    busy = agent(State.RUNNING, operation=Operation(Verb.PAUSE, literal("saving memory")))
    for verb in (Verb.PAUSE, Verb.RESUME, Verb.KILL, Verb.SHELL):
        assert decide(verb, busy, ABLE) == Deny(literal("pause is still at work on it"))
    assert decide(Verb.LOGS, busy, ABLE) == Allow()


def test_an_orphan_that_runs_can_be_adopted() -> None:
    known = agent(State.ASKING)
    assert known.vm
    orphan = replace(known, vm=replace(known.vm, is_orphan=True))
    assert decide(Verb.RESUME, orphan, ABLE) == Allow()
    assert isinstance(decide(Verb.RESUME, known, ABLE), Deny)


@pytest.mark.parametrize("verb", [Verb.PAUSE, Verb.RESUME])
def test_a_verb_that_was_cut_off_can_be_taken_up(verb: Verb) -> None:
    assert decide(Verb.RESUME, agent(State.UNKNOWN, verb=verb), ABLE) == Allow()
    stopped = agent(State.PAUSED, verb=verb)
    assert decide(Verb.RESUME, stopped, ABLE) == Allow()
    assert isinstance(decide(Verb.PAUSE, stopped, ABLE), Deny), "the earlier save may go on yet"
    assert isinstance(decide(Verb.KILL, stopped, ABLE), Ask)


def test_a_kill_that_was_cut_off_can_only_be_finished() -> None:
    half_gone = agent(State.UNKNOWN, verb=Verb.KILL)
    assert isinstance(decide(Verb.RESUME, half_gone, ABLE), Deny)
    assert isinstance(decide(Verb.KILL, half_gone, ABLE), Ask)


def test_quick_pause_is_no_answer_to_a_paused_one() -> None:
    assert isinstance(decide(Verb.PAUSE, agent(State.PAUSED), ABLE, is_quick=True), Deny)
    assert decide(Verb.PAUSE, agent(State.PAUSED), ABLE) == Allow()


@pytest.mark.parametrize("verb", [Verb.SHELL, Verb.MESSAGE])
def test_what_goes_into_a_guest_needs_its_address(verb: Verb) -> None:
    decision = decide(verb, agent(State.RUNNING, address=None), ABLE)
    assert decision == Deny(literal("no SSH address is known for it"))


def test_a_kill_tells_what_goes_and_what_is_not_known() -> None:
    decision = decide(Verb.KILL, agent(State.RUNNING, link=Link.DOWN), ABLE)
    assert isinstance(decision, Ask)
    assert "snapshots go for good" in decision.reason
    assert "has not been reached by SSH" in decision.reason


VERDICTS = (Verb.APPROVE, Verb.SEND_BACK, Verb.REJECT)


@pytest.mark.parametrize("verb", VERDICTS)
def test_a_verdict_needs_an_open_review(verb: Verb) -> None:
    assert isinstance(decide(verb, agent(State.SAVED), ABLE), Deny)
    assert decide(verb, agent(State.SAVED, review=1), ABLE) == Allow()


@pytest.mark.parametrize("verb", [*VERDICTS, Verb.REVIEW])
def test_a_verdict_that_waits_is_delivered_before_anything_else_is_decided(verb: Verb) -> None:
    waiting = agent(State.SAVED, review=2, verdict=Judgement.SEND_BACK)
    decision = decide(verb, waiting, ABLE)
    assert isinstance(decision, Deny)
    assert "send-back was given on review 2" in decision.reason
    assert decide(Verb.RESUME, waiting, ABLE) == Allow()


def test_what_cannot_be_reached_or_compared_cannot_be_reviewed() -> None:
    assert isinstance(decide(Verb.REVIEW, agent(State.RUNNING, address=None), ABLE), Deny)
    assert isinstance(decide(Verb.REVIEW, agent(State.RUNNING, base=""), ABLE), Deny)
    opened = agent(State.SAVED, base="", review=1)
    assert decide(Verb.REVIEW, opened, ABLE) == Allow(), "it was taken already"


def test_whose_program_alone_has_failed_can_still_be_looked_at_and_ended() -> None:
    failed = agent(State.FAILED)
    assert failed.vm
    alive = replace(failed, vm=replace(failed.vm, power=Power.RUNNING))
    for verb in (Verb.SHELL, Verb.PAUSE, Verb.REVIEW, Verb.MESSAGE, Verb.END):
        assert isinstance(decide(verb, failed, ABLE), Deny)
        assert not isinstance(decide(verb, alive, ABLE), Deny)


def test_nobody_is_ended_in_the_middle_of_a_review() -> None:
    """Nor who waits for an answer, nor whose work nobody knows how to take."""
    open_ = decide(Verb.END, agent(State.SAVED, review=3), ABLE)
    assert open_ == Deny(literal("its review 3 is open"))
    given = decide(Verb.END, agent(State.SAVED, review=3, verdict=Judgement.APPROVE), ABLE)
    assert isinstance(given, Deny)
    assert "resume it to deliver that" in given.reason
    asking = decide(Verb.END, agent(State.ASKING), ABLE)
    assert asking == Deny(literal("it is asking; it waits for a person's answer"))
    assert isinstance(decide(Verb.END, agent(State.RUNNING, base=""), ABLE), Deny)


def test_a_driver_that_cannot_restore_ends_only_who_runs() -> None:
    unable = Capabilities("CH", "50", missing={"restore": "it was built without"})
    assert isinstance(decide(Verb.END, agent(State.RUNNING), unable), Ask)
    assert decide(Verb.END, agent(State.SAVED), unable) == Deny(literal("it was built without"))
