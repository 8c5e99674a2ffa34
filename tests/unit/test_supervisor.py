"""The supervisor as a screen meets it: what it shows, does, survives and leaves behind."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from swarm_tui.audit import Outcome
from swarm_tui.command import Kill, Pause, Resume, Shell, Spawn
from swarm_tui.errors import (
    AuditError,
    Busy,
    DeadlineExceeded,
    HostError,
    HostUnreachable,
    NotFound,
    Refused,
    SwarmError,
)
from swarm_tui.model import AgentId, Hint, HostName, Power, Record, State, Verb
from swarm_tui.policy import Allow
from swarm_tui.text import literal
from swarm_tui.watch import guest as guest_watch
from swarm_tui.watch import host as host_watch

from .lab import DEADLINE_S, Lab, hurry_store, until
from .standin import (
    AGENT,
    HOST,
    Call,
)
from .steps import fork


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for back-offs."""
    for module in (host_watch, guest_watch):
        monkeypatch.setattr(module, "FIRST_BACK_OFF_S", 0.01)
    hurry_store(monkeypatch)


@pytest.fixture
def lab(memory_path: Path) -> Lab:
    return Lab(memory_path)


# Verbs


async def test_a_verb_is_audited_before_and_after(lab: Lab) -> None:
    async with lab.running() as supervisor:
        steps: list[str] = []
        lab.world.on_step = lambda step: steps.append(
            f"{step}: {[(entry.verb, entry.outcome) for entry in lab.audit.recent()]}"
        )
        done = await supervisor.do(Pause(AGENT))
        assert "before freeze: [('pause', None)]" in steps
        [entry] = supervisor.acts(AGENT)
        assert (entry.verb, entry.outcome, entry.name) == ("pause", Outcome.DONE, "ember")
        assert entry.detail == done
        assert "@" in entry.actor
        await supervisor.do(Resume(AGENT))
        assert lab.state(supervisor) is State.RUNNING
        await supervisor.do(Shell(AGENT))
        assert [entry.verb for entry in supervisor.acts()] == ["pause", "resume", "shell"]


async def test_without_its_record_nothing_is_done(lab: Lab) -> None:
    (lab.home / "audit.jsonl").mkdir()
    async with lab.running() as supervisor:
        lab.world.calls.clear()
        with pytest.raises(AuditError) as raised:
            await supervisor.do(Kill(AGENT))
        assert "Nothing is done" in raised.value.hint
        assert not {"destroy", "undefine", "discard", "freeze", "save"} & set(lab.world.calls)
        assert lab.catalogue.record(AGENT) is None
        assert lab.world.is_working()


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (DeadlineExceeded("No answer in time"), Outcome.UNKNOWN),
        (HostUnreachable("The line was cut"), Outcome.UNKNOWN),
        (HostError("It was refused"), Outcome.FAILED),
    ],
)
async def test_how_a_failed_verb_is_recorded(lab: Lab, error: SwarmError, outcome: Outcome) -> None:
    lab.world.plans["save"] = Call(before=error)
    async with lab.running() as supervisor:
        with pytest.raises(type(error)):
            await supervisor.do(Pause(AGENT))
        [entry] = supervisor.acts(AGENT)
        assert entry.outcome is outcome
        assert error.title in entry.detail


async def test_a_verb_that_is_refused_leaves_no_trace(lab: Lab) -> None:
    async with lab.running() as supervisor:
        lab.world.calls.clear()
        with pytest.raises(Refused, match="resume of ember is not possible") as raised:
            await supervisor.do(Resume(AGENT))
        assert "it is running" in raised.value.detail
        assert not supervisor.acts()
        assert set(lab.world.calls) <= {"describe", "counters", "facts"}
        with pytest.raises(NotFound):
            await supervisor.do(Pause(AgentId("nobody")))


async def test_a_verb_decides_by_what_is_true_now(lab: Lab) -> None:
    """The screen may be a second behind: another process has paused the agent since."""
    async with lab.running() as supervisor, lab.make() as other:
        await other.connected(DEADLINE_S)
        await other.do(Pause(AGENT))
        await supervisor.do(Resume(AGENT))
        assert lab.world.is_working()
        with pytest.raises(Refused, match="it is running"):
            await other.do(Resume(AGENT))


async def test_a_kill_leaves_nothing(lab: Lab) -> None:
    async with lab.running() as supervisor:
        await supervisor.do(Pause(AGENT))
        await supervisor.do(Resume(AGENT))
        assert "removed" in await supervisor.do(Kill(AGENT))
        assert supervisor.store.agent(AGENT) is None
        assert not list(lab.world.root.iterdir())
        assert not list((lab.home / "snapshots").iterdir())
        assert not list((lab.home / "catalogue").glob("*"))
        assert not lab.catalogue.records()
        assert not lab.catalogue.claimants()


async def test_a_spawned_agent_is_shown(lab: Lab) -> None:
    async with lab.running() as supervisor:
        done = await supervisor.do(Spawn(HOST, "cobalt"))
        assert done.startswith("cobalt answers after 0.5 s; on local: 3.8 GiB free")
        assert {agent.name for agent in supervisor.store.agents()} == {"ember", "cobalt"}


async def test_whoever_asked_may_leave_and_the_verb_goes_on(lab: Lab) -> None:
    gate = asyncio.Event()
    lab.world.plans["freeze"] = Call(gate=gate)
    async with lab.running() as supervisor:
        asking = asyncio.create_task(supervisor.do(Pause(AGENT)))
        await until(lambda: "freeze" in lab.world.calls)
        agent = supervisor.store.agent(AGENT)
        assert agent
        assert agent.operation
        assert agent.operation.step == "freezing the agent"
        await supervisor.refresh()
        agent = supervisor.store.agent(AGENT)
        assert agent
        assert agent.operation
        assert agent.operation.step == "freezing the agent", "our own verb is nobody else's"
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        gate.set()
        await until(lambda: lab.state(supervisor) is State.SAVED)
        await until(lambda: supervisor.acts()[0].outcome is Outcome.DONE)


async def test_a_verb_that_fails_when_nobody_waits_is_told(lab: Lab) -> None:
    gate = asyncio.Event()
    lab.world.plans["save"] = Call(gate=gate, within=HostError("It was refused"))
    async with lab.running() as supervisor:
        asking = asyncio.create_task(supervisor.do(Pause(AGENT)))
        await until(lambda: "save" in lab.world.calls)
        asking.cancel()
        gate.set()
        faults: list[BaseException] = []

        def are_told() -> bool:
            faults.extend(supervisor.take_faults())
            return bool(faults)

        await until(are_told)
        assert [str(fault) for fault in faults] == ["It was refused"]
        assert lab.world.is_working()


async def test_close_waits_for_a_verb_and_leaves_nothing_running(lab: Lab) -> None:
    gate = asyncio.Event()
    lab.world.plans["save"] = Call(gate=gate)
    before = len(os.listdir("/proc/self/fd"))
    async with lab.running(is_following=True) as supervisor:
        asking = asyncio.create_task(supervisor.do(Pause(AGENT)))
        await until(lambda: "save" in lab.world.calls)
        closing = asyncio.create_task(supervisor.close())
        await asyncio.sleep(0)
        gate.set()
        await closing
        assert asking.done()
        assert lab.world.power() is Power.OFF
    assert asyncio.all_tasks() == {asyncio.current_task()}
    # A thread may still be at the end of a look into the store that nobody waits for any more.
    await until(lambda: len(os.listdir("/proc/self/fd")) <= before)
    assert lab.guest.is_closed


async def test_a_second_verb_on_an_agent_is_busy(lab: Lab) -> None:
    gate = asyncio.Event()
    lab.world.plans["save"] = Call(gate=gate)
    async with lab.running() as supervisor:
        asking = asyncio.create_task(supervisor.do(Pause(AGENT)))
        await until(lambda: "save" in lab.world.calls)
        with pytest.raises(Busy, match="pause is still at work on ember"):
            await supervisor.do(Kill(AGENT))
        gate.set()
        await asking


# Other processes


@pytest.fixture
def held(lab: Lab) -> Iterator[int]:
    """The id of another process that has a pause at work on the agent, and stands still."""
    read, write = os.pipe()
    child = fork()
    if child == 0:
        with lab.catalogue.claim(AGENT, Verb.PAUSE):
            lab.catalogue.write(Record(AGENT, literal("ember"), HOST, verb=Verb.PAUSE))
            os.write(write, b"!")
            time.sleep(60)
        os._exit(1)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert pipe.read(1) == b"!"
    yield child
    os.kill(child, signal.SIGKILL)  # a zombie, where the test has killed it already
    os.waitpid(child, 0)


async def test_two_processes_do_not_act_on_one_agent(lab: Lab, held: int) -> None:
    async with lab.running() as supervisor:
        with pytest.raises(Busy) as raised:
            await supervisor.do(Kill(AGENT))
        assert raised.value.exit_code == Refused.exit_code
        assert not supervisor.acts()
        assert lab.world.is_working()

        def step() -> str:
            agent = supervisor.store.agent(AGENT)
            return agent.operation.step if agent and agent.operation else ""

        await until(lambda: step().endswith(" is pausing it"))
        # It dies in the middle; nothing had been done to the VM.
        os.kill(held, signal.SIGKILL)
        await until(lambda: step() == "" and not lab.catalogue.records()[0].verb)
        await supervisor.do(Pause(AGENT))
        assert lab.state(supervisor) is State.SAVED


async def test_what_another_process_did_is_shown(lab: Lab) -> None:
    async with lab.running() as supervisor, lab.make() as other:
        await other.connected(DEADLINE_S)
        await other.do(Pause(AGENT))
        lab.world.hint(Hint(AGENT, "stopped"))
        await until(lambda: lab.state(supervisor) is State.SAVED)
        await other.do(Kill(AGENT))
        lab.world.hint(Hint(AGENT, "undefined"))
        await until(lambda: supervisor.store.agent(AGENT) is None)


async def test_a_pause_that_a_crash_cut_off_is_completed_at_the_next_start(lab: Lab) -> None:
    lab.world.plans["check_saved"] = Call(before=DeadlineExceeded("No answer in time"))
    async with lab.running() as supervisor:
        with pytest.raises(DeadlineExceeded):
            await supervisor.do(Pause(AGENT))
        assert lab.state(supervisor) is State.UNKNOWN
        agent = supervisor.store.agent(AGENT)
        assert agent
        assert agent.reason == "pause was cut off"
        assert supervisor.may(Verb.RESUME, AGENT) == Allow()
    lab.world.plans.clear()
    async with lab.running() as supervisor:
        await until(lambda: lab.state(supervisor) is State.SAVED)
        await supervisor.do(Resume(AGENT))
        assert lab.world.is_working()
        assert not supervisor.take_faults()


async def test_a_record_is_mended_as_it_is_and_not_as_it_was(lab: Lab) -> None:
    """Between our look and our lock the other process has resumed it and paused it again."""
    async with lab.running() as other:
        await other.do(Pause(AGENT))
        before = lab.catalogue.record(AGENT)
        await other.do(Resume(AGENT))
        lab.world.tick()
        await other.do(Pause(AGENT))
        now = lab.catalogue.record(AGENT)
    assert before
    assert now
    lab.catalogue.write(replace(before, verb=Verb.RESUME))
    lab.before_claim = lambda: lab.catalogue.write(now)
    async with lab.running() as supervisor:
        await until(lambda: not lab.catalogue.records()[0].verb)
        await supervisor.do(Resume(AGENT))
    assert lab.world.counter() == 2


async def test_a_cut_pause_is_taken_up_by_the_next_verb(lab: Lab) -> None:
    lab.world.plans["check_saved"] = Call(before=DeadlineExceeded("No answer in time"))
    async with lab.running() as supervisor:
        with pytest.raises(DeadlineExceeded):
            await supervisor.do(Pause(AGENT))
        await until(lambda: lab.world.calls.count("check_saved") == 2, "nobody tried to mend it")
        lab.world.plans.clear()
        await supervisor.do(Resume(AGENT))
        assert lab.world.is_working()


async def test_a_cut_pause_is_completed_once_its_host_is_there_again(lab: Lab) -> None:
    lab.world.plans["check_saved"] = Call(before=HostUnreachable("The connection was cut"))
    async with lab.running() as supervisor:
        with pytest.raises(HostUnreachable):
            await supervisor.do(Pause(AGENT))
        await until(lambda: lab.world.calls.count("check_saved") > 2, "nobody tried to mend it")
        lab.world.plans.clear()
        await until(lambda: lab.state(supervisor) is State.SAVED)


async def test_a_cut_pause_can_be_resumed_at_once(lab: Lab) -> None:
    """As `swarm-tui resume` does it: start, do, end."""
    lab.world.plans["check_saved"] = Call(before=DeadlineExceeded("No answer in time"))
    async with lab.running() as supervisor:
        with pytest.raises(DeadlineExceeded):
            await supervisor.do(Pause(AGENT))
    lab.world.plans.clear()
    async with lab.running() as supervisor:
        await supervisor.do(Resume(AGENT))
    assert lab.world.is_working()


async def test_a_saved_agent_that_somebody_started_shows_as_running(lab: Lab) -> None:
    async with lab.running() as supervisor:
        await supervisor.do(Pause(AGENT))
        record = lab.catalogue.record(AGENT)
        assert record
        await supervisor.do(Resume(AGENT))
        lab.catalogue.write(record)
        await until(lambda: not lab.catalogue.records()[0].saved_in)
        assert lab.state(supervisor) is State.FROZEN


async def test_one_broken_record_harms_no_other_agent(lab: Lab) -> None:
    other = lab.world.add(AgentId("6f1c7b0e-0000-4000-8000-000000000002"), "cobalt")
    path = lab.home / "catalogue" / AGENT / "record.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"saved_in": ["hostile"]}')
    async with lab.running() as supervisor:
        assert lab.state(supervisor, other.id) is State.RUNNING
        [fault] = supervisor.take_faults()
        assert str(path) in str(fault)
        await supervisor.do(Pause(other.id))
        with pytest.raises(SwarmError, match="record cannot be read"):
            await supervisor.do(Kill(AGENT))
        assert path.read_text() == '{"saved_in": ["hostile"]}'
        assert lab.world.is_working()


async def test_a_saved_agent_is_shown_before_its_host_answers(lab: Lab) -> None:
    async with lab.running() as supervisor:
        await supervisor.do(Pause(AGENT))
    lab.world.plans["open"] = Call(gate=asyncio.Event())
    async with lab.make() as supervisor:
        await until(lambda: lab.state(supervisor) is State.SAVED)


async def test_a_saved_agent_is_at_no_moment_shown_as_failed(lab: Lab) -> None:
    async with lab.running() as supervisor:
        await supervisor.do(Pause(AGENT))
    supervisor = lab.make()
    shown: list[State | None] = []
    lab.world.on_step = lambda step: (
        shown.append(lab.state(supervisor)) if step == "before list" else None
    )
    async with supervisor:
        await supervisor.connected(DEADLINE_S)
    assert shown == [State.SAVED]


async def test_a_frozen_agent_can_be_thawed_where_nothing_can_be_restored(lab: Lab) -> None:
    lab.catalogue.write(Record(AGENT, literal("ember"), HOST, is_frozen=True))
    lab.world.missing["restore"] = "not here"
    async with lab.running() as supervisor:
        assert lab.state(supervisor) is State.FROZEN
        await supervisor.do(Resume(AGENT))
        assert lab.state(supervisor) is State.RUNNING


async def test_the_record_of_an_agent_under_another_host_name_is_its_own(lab: Lab) -> None:
    """`--connect URI` names the host anew; a saved agent must not look like a failed one."""
    async with lab.running() as supervisor:
        await supervisor.do(Pause(AGENT))
    record = lab.catalogue.record(AGENT)
    assert record
    lab.catalogue.write(replace(record, host=HostName("another")))
    async with lab.running() as supervisor:
        await until(lambda: lab.state(supervisor) is State.SAVED)
        await supervisor.do(Resume(AGENT))
    assert lab.world.is_working()
