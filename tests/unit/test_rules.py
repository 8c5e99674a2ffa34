"""Rules are carried out by a supervisor that looks on, once, and never against a person."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from swarm_tui import rules
from swarm_tui.attention import Attention, Kind
from swarm_tui.catalogue.shells import Shells
from swarm_tui.command import End, Extend, Resume, Review
from swarm_tui.errors import HostError, Refused
from swarm_tui.fact import GuestHeard
from swarm_tui.lifespan import Due
from swarm_tui.model import Agent, Birth, EventBatch, EventKind, GuestEvent, Power, Record, State
from swarm_tui.profile import Ending, Life, Occasion
from swarm_tui.results import Results
from swarm_tui.supervisor import Supervisor
from swarm_tui.text import literal

from .hall import Hall, make_hall
from .lab import Lab, hurry_store, until
from .standin import AGENT, HOST, Call


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry_store(monkeypatch)
    monkeypatch.setattr(rules, "LOOK_S", 0.01)


@pytest.fixture
def hall(tmp_path: Path) -> Hall:
    hall = make_hall(tmp_path / "hall")
    hall.work()
    return hall


@pytest.fixture
def lab(hall: Hall) -> Lab:
    return Lab(hall.home)


def give(lab: Lab, life: Life, **birth: object) -> None:
    record = lab.catalogue.record(AGENT) or Record(AGENT, literal("ember"), HOST)
    given = replace(Birth(life=life), **birth)  # type: ignore[arg-type]
    lab.catalogue.write(replace(record, birth=given))


async def several_looks(supervisor: Supervisor) -> None:
    """Until the rules have been looked at some times from now on."""
    looks, find = [0], supervisor.rules.find

    async def count() -> Mapping[Agent, Due]:
        looks[0] += 1
        return await find()

    supervisor.rules.find = count  # type: ignore[method-assign]
    await until(lambda: looks[0] > 3)


def results(lab: Lab) -> Results:
    return Results(lab.catalogue.database, lab.home / "results")


async def test_an_agent_whose_time_is_over_is_ended_by_one_of_two_supervisors(lab: Lab) -> None:
    give(lab, Life(60.0, Ending.END), expires=time.time() + 0.2)
    async with lab.running(is_following=True) as one, lab.running(is_following=True) as other:
        await until(lambda: not lab.world.agents())
        for supervisor in (one, other):
            await supervisor.refresh()
            await until(lambda here=supervisor: not here.store.agents())  # type: ignore[misc]
    ends = [act for act in lab.audit.recent() if act.verb == "end"]
    assert [act.outcome for act in ends] == ["done"], "two did it, or a failure was told"
    assert results(lab).find(AGENT)


async def test_done_is_ended_after_a_restart_of_the_supervisor(lab: Lab) -> None:
    """The state alone tells what is due."""
    give(lab, Life(on_done=Ending.END))
    done = GuestEvent(EventKind.DONE, literal("all tests pass"))
    async with lab.running() as supervisor:  # it only looks
        supervisor.store.apply(GuestHeard(AGENT, EventBatch((done,), 10)))
        assert lab.state(supervisor) is State.DONE
    async with lab.running(is_following=True) as supervisor:
        supervisor.store.apply(GuestHeard(AGENT, EventBatch((done,), 10)))
        await until(lambda: not lab.world.agents())
    result = results(lab).find(AGENT)
    assert result
    assert (result.occasion, result.told) == (Occasion.DONE, "all tests pass")


async def test_a_pause_by_rule_is_made_once_and_a_person_may_resume(lab: Lab) -> None:
    give(lab, Life(60.0, Ending.PAUSE), expires=time.time() - 5)
    async with lab.running(is_following=True) as supervisor:
        await until(lambda: lab.state(supervisor) is State.SAVED)
        await until(lambda: not supervisor._verbs)
        await supervisor.do(Resume(AGENT))
        await several_looks(supervisor)
        assert lab.state(supervisor) is State.RUNNING


async def test_a_rule_that_policy_forbids_is_told_once(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a host whose driver cannot save."""
    monkeypatch.setattr(rules, "AGAIN_S", 0.0)
    give(lab, Life(60.0, Ending.PAUSE), expires=1.0)
    lab.world.missing = {"save": "this driver cannot save"}
    async with lab.running(is_following=True) as supervisor:
        await until(lambda: lab.state(supervisor) is State.RUNNING)
        faults: list[BaseException] = []

        def is_told() -> bool:
            faults.extend(supervisor.take_faults())
            return bool(faults)

        await until(is_told)
        await several_looks(supervisor)
        [fault] = [*faults, *supervisor.take_faults()]
        assert "this driver cannot save" in str(fault)
        assert not supervisor.acts()


async def test_who_is_under_review_stays_until_its_verdict(lab: Lab) -> None:
    async with lab.running(is_following=True) as supervisor:
        await supervisor.do(Review(AGENT))
        give(lab, Life(60.0, Ending.END), expires=1.0)
        await until(
            lambda: (
                (known := supervisor.store.agent(AGENT))
                and known.record
                and known.record.birth.expires
            )
        )
        await several_looks(supervisor)
        with pytest.raises(Refused):
            await supervisor.do(End(AGENT, Occasion.EXPIRED))
        assert lab.state(supervisor) is State.SAVED


async def test_an_open_shell_keeps_its_agent(lab: Lab) -> None:
    shells = Shells(lab.catalogue.database)
    shell = shells.open(AGENT, "ann")
    give(lab, Life(60.0, Ending.END), expires=1.0)
    async with lab.running(is_following=True) as supervisor:
        await until(lambda: supervisor.store.agent(AGENT))
        await several_looks(supervisor)
        assert lab.world.power() is Power.RUNNING
        shells.beat(shell)
        shells.close(shell)
        await until(lambda: not lab.world.agents(), "it stays though the shell is closed")


async def test_what_cannot_be_kept_is_paused_and_told(hall: Hall, lab: Lab) -> None:
    """And nobody tries again until a person gives it more time."""
    (hall.workspace / ".git" / "HEAD").write_text("ref: refs/heads/none\n")
    give(lab, Life(60.0, Ending.END), expires=1.0)
    async with lab.running(is_following=True) as supervisor:
        await until(lambda: lab.state(supervisor) is State.SAVED)
        await until(lambda: not lab.catalogue.claimants())
        await several_looks(supervisor)
        known = supervisor.store.agent(AGENT)
        attention = Attention()
        attention.hear(AGENT, known, time.time())
        [need] = attention.needs()
        assert need.kind is Kind.LIFE
        assert "HEAD is no commit" in need.reason
        assert len([act for act in supervisor.acts() if act.verb == "end"]) == 1
        (hall.workspace / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
        await supervisor.do(Extend(AGENT, 0.1))
        await until(lambda: not lab.world.agents())
    assert results(lab).find(AGENT)


async def test_an_end_that_was_cut_in_its_removal_is_brought_to_its_end(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody need kill it again: its result is kept."""
    monkeypatch.setattr(rules, "AGAIN_S", 0.05)
    give(lab, Life(60.0, Ending.END), expires=1.0)
    lab.world.plans["undefine"] = Call(before=HostError("The host stumbled"))
    async with lab.running(is_following=True):
        await until(lambda: results(lab).find(AGENT) and lab.world.power() is Power.OFF)
        await until(lambda: lab.audit.recent()[0].outcome)
        del lab.world.plans["undefine"]
        await until(lambda: not lab.world.agents())
        await until(lambda: not lab.catalogue.records())
    outcomes = [(act.verb, act.outcome) for act in lab.audit.recent()]
    assert outcomes[0] == ("end", "failed")
    assert outcomes[-1] == ("kill", "done")
    assert results(lab).find(AGENT)


async def test_the_end_of_a_life_is_told_before_it_comes() -> None:
    from .test_lifespan import NOW, agent

    attention = Attention()
    known = agent(age_s=800.0)
    attention.hear(AGENT, known, NOW)
    assert len(attention) == 0
    attention.tick(NOW + 101)
    [need] = attention.needs()
    assert (need.kind, need.reason) == (Kind.LIFE, "its time is over soon; then it is ended")
    attention.tick(NOW + 201)
    assert len(attention) == 0, "the rule does the rest"
