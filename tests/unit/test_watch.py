"""The event road: hosts, guests and their losses, as a screen meets them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from swarm_tui.command import Kill, Pause, Resume
from swarm_tui.errors import (
    GuestUnreachable,
    HostError,
    HostUnreachable,
)
from swarm_tui.model import AgentId, EventBatch, EventKind, GuestEvent, Hint, HostState, Link, State
from swarm_tui.text import literal
from swarm_tui.watch import guest as guest_watch
from swarm_tui.watch import host as host_watch

from .lab import DEADLINE_S, Lab, hurry_store, until
from .standin import (
    AGENT,
    Call,
)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for back-offs."""
    for module in (host_watch, guest_watch):
        monkeypatch.setattr(module, "FIRST_BACK_OFF_S", 0.01)
    hurry_store(monkeypatch)


@pytest.fixture
def lab(memory_path: Path) -> Lab:
    return Lab(memory_path)


# What is shown


async def test_a_hint_is_read_again_and_shown(lab: Lab) -> None:
    async with lab.running() as supervisor:
        assert lab.state(supervisor) is State.RUNNING
        lab.world.change(AGENT, power="paused", reason="by a user")
        lab.world.hint(Hint(AGENT, "suspended"))
        await until(lambda: lab.state(supervisor) is State.PAUSED)
        lab.world.forget(AGENT)
        lab.world.hint(Hint(AGENT, "undefined"))
        await until(lambda: supervisor.store.agent(AGENT) is None)


async def test_a_lost_connection_is_made_again_and_everything_read_anew(lab: Lab) -> None:
    async with lab.running() as supervisor:
        lab.world.plans["open"] = Call(before=HostUnreachable("No daemon"))
        lab.world.hint(Hint(None, "closed"))
        await until(lambda: lab.state(supervisor) is State.LOST)
        lab.world.change(AGENT, power="paused")
        other = lab.world.add(AgentId("6f1c7b0e-0000-4000-8000-000000000002"), "cobalt")
        await until(lambda: lab.world.calls.count("open") > 3, "it did not try again")
        [host] = supervisor.store.hosts()
        assert host.state is HostState.DOWN
        assert "No daemon" in host.detail
        assert "next try" in host.detail
        assert host.failure == "No daemon"
        assert host.failed_at is not None
        lab.world.plans.clear()
        await until(lambda: lab.state(supervisor) is State.PAUSED)
        assert lab.state(supervisor, other.id) is State.RUNNING
        assert not supervisor.take_faults()


async def test_a_dead_host_delays_no_other(lab: Lab) -> None:
    dead = lab.add_host("dead")
    dead.plans["open"] = Call(gate=asyncio.Event())
    async with lab.make() as supervisor:
        await supervisor.connected(DEADLINE_S, lambda: supervisor.store.agent(AGENT) is not None)
        await until(lambda: lab.state(supervisor) is State.RUNNING)
        await supervisor.do(Pause(AGENT))
        assert lab.state(supervisor) is State.SAVED
        with pytest.raises(HostUnreachable, match="dead does not answer"):
            await supervisor.connected(0.01)


async def test_a_host_that_refuses_is_named(lab: Lab) -> None:
    lab.add_host("closed").plans["open"] = Call(before=HostUnreachable("No route"))
    async with lab.make() as supervisor:
        with pytest.raises(HostUnreachable, match="No route"):
            await supervisor.connected(DEADLINE_S)
        assert lab.state(supervisor) is State.RUNNING, "the other host was not waited for"


async def test_a_reading_tells_how_long_it_took_and_one_that_fails_why(lab: Lab) -> None:
    async with lab.running() as supervisor:
        await until(lambda: supervisor.store.hosts()[0].latency_s is not None)
        lab.world.plans["counters"] = Call(before=HostError("No stats", "busy", "Wait."))
        await until(lambda: supervisor.store.hosts()[0].failure == "No stats\nbusy\nWait.")
        [host] = supervisor.store.hosts()
        assert host.state is HostState.UP
        seen = host.seen
        lab.world.plans.clear()
        await until(lambda: supervisor.store.hosts()[0].seen != seen)


async def test_facts_that_cannot_be_read_are_unknown_with_the_reason(lab: Lab) -> None:
    lab.world.plans["facts"] = Call(before=HostError("No size is told"))
    async with lab.running() as supervisor:
        await until(lambda: supervisor.store.hosts()[0].missing)
        [host] = supervisor.store.hosts()
        assert (host.cpus, host.memory_free) == (None, None)
        assert host.missing["cpus"] == "No size is told"


async def test_a_storm_of_hints_is_merged(lab: Lab) -> None:
    async with lab.running():
        lab.world.calls.clear()
        for _ in range(5000):
            lab.world.hint(Hint(AGENT, "resumed"))
        await until(lambda: "describe" in lab.world.calls)
        lab.world.calls.clear()
        for number in range(5000):
            lab.world.hint(Hint(AgentId(f"vm-{number}"), "started"))
        await until(lambda: "list" in lab.world.calls)
        assert lab.world.calls.count("describe") == 0
        assert lab.world.calls.count("list") == 1


async def test_one_vm_that_cannot_be_read_takes_no_host_down(lab: Lab) -> None:
    async with lab.running() as supervisor:
        lab.world.plans["describe"] = Call(before=HostError("Its monitor hangs"))
        lab.world.plans["counters"] = Call(before=HostError("No counters here"))
        lab.world.hint(Hint(AGENT, "started"))
        await until(lambda: "describe" in lab.world.calls)
        await until(lambda: supervisor.store.hosts()[0].detail == "No counters here")
        assert lab.state(supervisor) is State.RUNNING
        assert supervisor.store.hosts()[0].state is HostState.UP
        assert lab.world.calls.count("open") == 1, "it was connected anew"


async def test_a_fault_of_our_own_is_told_and_nothing_stale_shown_as_live(lab: Lab) -> None:
    async with lab.running() as supervisor:
        lab.world.plans["counters"] = Call(before=ZeroDivisionError("a bug"))
        await until(lambda: lab.state(supervisor) is State.LOST)
        [fault] = supervisor.take_faults()
        assert isinstance(fault, ZeroDivisionError)
        assert "a bug" in supervisor.store.hosts()[0].detail


async def test_a_late_list_brings_no_killed_agent_back(lab: Lab) -> None:
    async with lab.running() as supervisor:
        answer = asyncio.Event()
        lab.world.plans["list"] = Call(answer=answer)
        lab.world.calls.clear()
        refreshing = asyncio.create_task(supervisor.refresh())
        await until(lambda: "list" in lab.world.calls)
        await supervisor.do(Kill(AGENT))
        answer.set()
        await refreshing
        assert supervisor.store.agent(AGENT) is None


async def test_a_late_list_takes_no_newer_state_back(lab: Lab) -> None:
    async with lab.running() as supervisor:
        answer = asyncio.Event()
        lab.world.plans["list"] = Call(answer=answer)
        lab.world.calls.clear()
        refreshing = asyncio.create_task(supervisor.refresh())
        await until(lambda: "list" in lab.world.calls)
        await supervisor.do(Pause(AGENT, is_quick=True))
        answer.set()
        await refreshing
        assert lab.state(supervisor) is State.PAUSED


# Guests


def say(text: str, offset: int, kind: EventKind = EventKind.LOG) -> EventBatch:
    return EventBatch((GuestEvent(kind, literal(text)),), offset)


async def test_a_log_goes_on_where_it_was_cut(lab: Lab) -> None:
    port = lab.world.state()["port"]
    lab.guest.batches[port] = [say("one", 10)]
    lab.guest.cuts[port] = GuestUnreachable("The connection was cut")
    async with lab.running(is_following=True) as supervisor:
        await until(lambda: len(lab.guest.offsets) > 1)
        lab.guest.batches[port].append(say("two", 20))
        lab.guest.news.set()
        await until(lambda: supervisor.store.log(AGENT).total == 2)
        assert lab.guest.offsets == [0, 10]
        agent = supervisor.store.agent(AGENT)
        assert agent
        assert agent.link is Link.UP
        assert agent.last_line == "two"
    # The next one has the log at once, and reads on.
    async with lab.running(is_following=True) as supervisor:
        await until(lambda: len(lab.guest.offsets) > 2)
        assert [event.text for event in supervisor.store.log(AGENT).events] == ["one", "two"]
        assert lab.guest.offsets[-1] == 20


async def test_a_log_that_cannot_be_kept_is_still_shown(lab: Lab) -> None:
    port = lab.world.state()["port"]
    (lab.home / "catalogue" / AGENT).mkdir(parents=True)
    (lab.home / "catalogue" / AGENT / "events.lock").mkdir()
    lab.guest.batches[port] = [say("one", 10)]
    async with lab.running(is_following=True) as supervisor:
        await until(lambda: supervisor.store.log(AGENT).total == 2)
        told = [event.text for event in supervisor.store.log(AGENT).events]
        assert "Could not keep the agent's log" in told[0]
        assert told[1] == "one"
        assert not supervisor.take_faults()


async def test_a_guest_out_of_reach_says_so_and_stays_running(lab: Lab) -> None:
    lab.guest.unreachable = GuestUnreachable("No route to the guest")
    async with lab.running(is_following=True) as supervisor:

        def reason() -> str:
            agent = supervisor.store.agent(AGENT)
            return agent.reason if agent and agent.state is State.RUNNING else ""

        await until(lambda: reason() == "No route to the guest")


async def test_an_agent_that_stops_is_followed_no_longer(lab: Lab) -> None:
    async with lab.running(is_following=True) as supervisor:
        await until(lambda: lab.guest.offsets)
        await supervisor.do(Pause(AGENT))
        agent = supervisor.store.agent(AGENT)
        assert agent
        assert agent.link is Link.NONE
        assert agent.usage is None
        await supervisor.do(Resume(AGENT))
        await until(lambda: len(lab.guest.offsets) == 2)


async def test_a_fault_in_a_follower_shows_on_its_agent(lab: Lab) -> None:
    port = lab.world.state()["port"]
    lab.guest.cuts[port] = ZeroDivisionError("a bug")
    async with lab.running(is_following=True) as supervisor:

        def is_down() -> bool:
            agent = supervisor.store.agent(AGENT)
            return bool(agent and agent.link is Link.DOWN)

        await until(is_down)
        assert supervisor.take_faults()
