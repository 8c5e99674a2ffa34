"""Checkpoints that nobody asks for are made when they are due, once, and hold nobody up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from swarm_tui import cadence
from swarm_tui.cadence import BY_RULE, Cadence, due
from swarm_tui.catalogue.shells import Shells
from swarm_tui.command import Checkpoint, Pause, Review, Say
from swarm_tui.errors import Refused, StorageFull
from swarm_tui.fact import GuestHeard
from swarm_tui.model import (
    Agent,
    Birth,
    Cause,
    EventBatch,
    EventKind,
    GuestEvent,
    Operation,
    Origin,
    Power,
    Record,
    Snapshot,
    SnapshotId,
    State,
    Tag,
    Verb,
    Vm,
)
from swarm_tui.rules import NotDue
from swarm_tui.snapshot import Snapshots
from swarm_tui.supervisor import Supervisor
from swarm_tui.text import literal

from .hall import make_hall
from .lab import Lab, hurry_store, until
from .standin import AGENT, HOST, Call

OFTEN = Cadence(0.01, "10 ms")
HOURLY = Cadence(3600.0, "1h", at_turns=True)
NOW = 1_000_000.0


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry_store(monkeypatch)
    monkeypatch.setattr(cadence, "LOOK_S", 0.01)
    monkeypatch.setattr(cadence, "APART_S", 0.0)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    hall = make_hall(tmp_path / "hall")
    hall.work()
    return Lab(hall.home)


@asynccontextmanager
async def at_work(lab: Lab, rule: Cadence) -> AsyncIterator[Supervisor]:
    """A supervisor that looks on, and carries this out."""
    async with lab.running(is_following=True) as supervisor:
        supervisor.checkpoints._rule = rule
        await until(lambda: lab.state(supervisor) is State.RUNNING)
        yield supervisor


def made(lab: Lab) -> list[Snapshot]:
    files = Snapshots(lab.home / "snapshots")
    return [files.read(AGENT, name) for name in files.ids(AGENT)]


def known(**facts: object) -> Agent:
    vm = Vm(AGENT, literal("ember"), HOST, Power.RUNNING, tag=Tag(created=NOW - 10_000))
    record = Record(AGENT, literal("ember"), HOST)
    plain = Agent(AGENT, literal("ember"), HOST, State.RUNNING, NOW - 100, vm=vm, record=record)
    return replace(plain, **facts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("agent", "newest", "handed", "told"),
    [
        (known(), NOW - 3600, None, "every 1h"),
        (known(), NOW - 3599, None, None),
        (known(), None, None, "every 1h"),
        (known(state=State.ASKING), NOW - 200, None, "turn: it asks"),
        (known(state=State.ASKING), NOW - 99, None, None),
        (known(), NOW - 200, (NOW - 100, literal("message")), "turn: message"),
        (known(), NOW - 100, (NOW - 200, literal("message")), None),
    ],
)
def test_what_is_due(agent: Agent, newest: float | None, handed: object, told: str | None) -> None:
    found = due(HOURLY, agent, newest, handed, NOW)  # type: ignore[arg-type]
    assert (found.told if found else None) == told


RECORD = known().record
assert RECORD


@pytest.mark.parametrize(
    "facts",
    [
        {"state": State.SAVED},
        {"state": State.PAUSED},
        {"state": State.FROZEN},
        {"state": State.LOST},
        {"state": State.DONE},
        {"vm": None},
        {"operation": Operation(Verb.SHELL, literal("at work"))},
        {"record": replace(RECORD, review=3)},
        {"record": replace(RECORD, verb=Verb.PAUSE)},
        {"record": replace(RECORD, saved_in=SnapshotId("one"))},
        {"record": replace(RECORD, birth=Birth(is_pinned=True))},
    ],
)
def test_who_is_left_alone(facts: dict[str, object]) -> None:
    assert due(HOURLY, known(**facts), None, None, NOW) is None


def of_profile(checkpoint: str) -> Agent:
    assert RECORD
    return known(record=replace(RECORD, birth=Birth(checkpoint=checkpoint)))


def test_a_profile_says_it_itself() -> None:
    often, never = of_profile("10m"), of_profile("off")
    for rule in (HOURLY, cadence.SILENT):
        found = due(rule, often, NOW - 600, None, NOW)
        assert found
        assert found.told == "every 10m"
        assert due(rule, often, NOW - 599, None, NOW) is None
    assert due(HOURLY, never, NOW - 9000, None, NOW) is None
    asking = replace(never, state=State.ASKING)
    assert due(HOURLY, asking, NOW - 9000, None, NOW), "its turns are not by time"


def test_a_guest_that_asks_all_the_time_has_no_more_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cadence, "APART_S", 60.0)
    asking = known(state=State.ASKING, since=NOW - 1)
    assert due(HOURLY, asking, NOW - 59, None, NOW) is None
    assert due(HOURLY, asking, NOW - 61, None, NOW)


async def test_by_interval_while_it_goes_on_and_told_as_a_rules_act(lab: Lab) -> None:
    async with at_work(lab, OFTEN) as supervisor:
        await until(lambda: len(made(lab)) > 1)
        assert lab.world.is_working()
        assert not supervisor.take_faults()
        first = made(lab)[0]
        assert first.origin == Origin(Cause.INTERVAL, literal("every 10 ms"), BY_RULE)
        assert supervisor.acts()[0].detail.startswith("by rule: every 10 ms; snapshot")


async def test_by_the_interval_of_its_profile_where_none_is_configured(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cadence, "parse_time", lambda told: {"1m": 0.01}[told])
    born = Record(AGENT, literal("ember"), HOST, birth=Birth(checkpoint="1m"))
    lab.catalogue.write(born)
    async with at_work(lab, cadence.SILENT):
        await until(lambda: made(lab))
        assert made(lab)[0].origin == Origin(Cause.INTERVAL, literal("every 1m"), BY_RULE)


async def test_a_message_and_an_ask_are_turns(lab: Lab) -> None:
    async with at_work(lab, Cadence(at_turns=True)) as supervisor:
        await supervisor.do(Say(AGENT, "go on"))
        await until(lambda: made(lab))
        asks = GuestEvent(EventKind.ASK, literal("may I?"), at=time.time())
        supervisor.store.apply(GuestHeard(AGENT, EventBatch((asks,), 10)))
        await until(lambda: len(made(lab)) == 2)
        assert [one.origin.told for one in made(lab)] == ["turn: message", "turn: it asks"]
        await several_looks(supervisor)
        assert len(made(lab)) == 2, "one turn, two checkpoints"


async def test_two_supervisors_make_one(lab: Lab) -> None:
    rule = Cadence(at_turns=True)
    async with at_work(lab, rule) as one, at_work(lab, rule) as other:
        await one.do(Say(AGENT, "go on"))
        await until(lambda: made(lab))
        await several_looks(one)
        await several_looks(other)
        assert len(made(lab)) == 1
        assert not one.take_faults()
        assert not other.take_faults()


async def test_none_of_who_is_saved_or_under_review(lab: Lab) -> None:
    async with lab.running() as supervisor:
        await supervisor.do(Review(AGENT))
    async with lab.running(is_following=True) as supervisor:
        supervisor.checkpoints._rule = OFTEN
        await until(lambda: lab.state(supervisor) is State.SAVED)
        await several_looks(supervisor)
        assert len(made(lab)) == 1


async def test_an_open_shell_is_not_disturbed(lab: Lab) -> None:
    shells = Shells(lab.catalogue.database)
    shell = shells.open(AGENT, "ann")
    async with at_work(lab, OFTEN) as supervisor:
        await several_looks(supervisor)
        assert not made(lab)
        shells.close(shell)
        await until(lambda: made(lab))


async def test_who_was_paused_meanwhile_is_left_alone(lab: Lab) -> None:
    async with lab.running() as supervisor:
        await supervisor.do(Pause(AGENT, is_quick=True))
        origin = Origin(Cause.INTERVAL, literal("every 1h"), BY_RULE)
        with pytest.raises(Refused, match="is not possible now"):
            await supervisor.do(Checkpoint(AGENT, origin=origin))
        lab.world.change(AGENT, power="running")
        with pytest.raises(NotDue):
            await supervisor.do(Checkpoint(AGENT, origin=origin))
        assert not made(lab)


async def test_no_room_is_told_once_and_nobody_is_stopped(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cadence, "AGAIN_S", 0.0)
    monkeypatch.setattr(Snapshots, "room", lambda *_: -1)
    async with at_work(lab, OFTEN) as supervisor:
        await several_looks(supervisor)
        [fault] = supervisor.take_faults()
        assert isinstance(fault, StorageFull)
        assert "No room for checkpoints" in str(fault)
        assert not {"suspend", "dump", "save"} & set(lab.world.calls)
        assert not supervisor.acts()
        monkeypatch.undo()
        await supervisor.do(Checkpoint(AGENT, "by hand"))


async def test_a_disk_that_fills_up_in_the_middle_leaves_it_going_on(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cadence, "AGAIN_S", 0.0)
    full = StorageFull("No room to save the VM", "0 free")
    lab.world.plans["dump"] = Call(before=full)
    async with at_work(lab, OFTEN) as supervisor:
        await until(lambda: lab.world.calls.count("dump") > 1)
        assert len(supervisor.take_faults()) <= 1
        lab.world.plans.clear()
        await until(lambda: made(lab))
        assert lab.world.is_working()


def test_room_is_what_is_free_beside_the_disks(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(b"1" * (8 << 20))
    files = Snapshots(tmp_path / "snapshots")
    whole, beside = files.room(AGENT, []), files.room(AGENT, [disk] * 1000)
    assert whole - beside > 4000 << 20


async def several_looks(supervisor: Supervisor) -> None:
    """Until it was looked for what is due some times from now on."""
    looks, find = [0], supervisor.checkpoints.find

    async def count() -> tuple[Agent, Origin] | None:
        looks[0] += 1
        return await find()

    supervisor.checkpoints.find = count  # type: ignore[method-assign]
    await until(lambda: looks[0] > 3)
    await until(lambda: not supervisor.checkpoints._is_at_work)
    await asyncio.sleep(0)
