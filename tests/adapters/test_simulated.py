"""The simulated swarm: its story, and that pause and resume keep it going."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest

from swarm_tui.errors import (
    AgentGone,
    DeadlineExceeded,
    Refused,
    SnapshotError,
    StorageFull,
)
from swarm_tui.model import EventKind, Message, Power

from .watched import Watched, ignore_progress, settle


async def tell_story(seed: int, pace: float) -> str:
    """All that can be seen of a swarm in two minutes, looked at every `pace` seconds."""
    watched = Watched(60, seed=seed)
    await watched.open()
    async with watched.following(watched.ids[3]) as heard:
        for _ in range(int(120 / pace)):
            await watched.advance(pace)
            await watched.hypervisor.counters()
        vms = await watched.hypervisor.list()
        counters = await watched.hypervisor.counters()
        return repr((vms, dict(counters), heard))


async def test_same_seed_tells_the_same_story_to_the_byte() -> None:
    assert await tell_story(4, pace=1.0) == await tell_story(4, pace=1.0)


async def test_the_story_does_not_depend_on_how_often_one_looks() -> None:
    often, seldom = await tell_story(4, pace=0.5), await tell_story(4, pace=60.0)
    # Totals are sums of floats, in the same order whenever one looks.
    assert often == seldom


async def test_another_seed_tells_another_story() -> None:
    assert await tell_story(4, pace=60.0) != await tell_story(5, pace=60.0)


async def test_everything_is_marked_as_simulated(watched: Watched) -> None:
    capabilities = await watched.hypervisor.open(watched.hints.append)
    assert capabilities.driver == "simulated"
    assert watched.hypervisor.host == "simulated"
    assert watched.hypervisor.uri == "simulated:///"
    assert {vm.host for vm in await watched.hypervisor.list()} == {"simulated"}


async def test_totals_only_grow_and_figures_change_every_second(watched: Watched) -> None:
    agent = watched.ids[0]
    readings = []
    for _ in range(200):
        await watched.advance(0.25)
        readings.append((await watched.hypervisor.counters())[agent])
    pairs = list(itertools.pairwise(readings))
    for name in ("cpu_ns", "disk_read", "disk_written", "net_received", "net_sent"):
        assert all(getattr(now, name) >= getattr(was, name) for was, now in pairs), name
    assert all(now.cpu_ns != was.cpu_ns for was, now in pairs)
    percents = [((now.cpu_ns or 0) - (was.cpu_ns or 0)) / 0.25e7 for was, now in pairs]
    assert max(percents) > 40, "there is a burst when tests run"
    assert min(percents) < 10, "and a lull when it thinks"


async def test_agents_think_use_tools_and_report_usage(watched: Watched) -> None:
    async with watched.following(watched.ids[0]) as heard:
        await watched.advance(120)
        kinds = {event.kind for event in heard}
    assert {EventKind.STATUS, EventKind.LOG, EventKind.TOOL, EventKind.USAGE} <= kinds
    usage = [event for event in heard if event.kind is EventKind.USAGE]
    assert all(event.tokens_in and event.tokens_out and event.model for event in usage)
    times = [event.at or 0.0 for event in heard]
    assert times == sorted(times)
    assert times[-1] <= watched.clock.wall()


async def test_an_ask_waits_for_its_verdict(watched: Watched) -> None:
    asking = watched.ids[1]
    async with watched.following(asking) as heard:
        await watched.advance(600)
        assert heard[-1].kind is EventKind.ASK
        vm = await watched.vm(asking)
        assert vm.tag.address
        await watched.guest.deliver(vm.tag.address, Message("1", "message", "hurry"), 1)
        await settle()
        assert heard[-1].text == "inbox: hurry"
        assert heard[-2].kind is EventKind.ASK
        await watched.guest.deliver(
            vm.tag.address, Message("2", "verdict", "rename it", verdict="send-back"), 1
        )
        await settle()
        assert (heard[-1].kind, heard[-1].text) == (EventKind.STATUS, "sent back: rename it")
        await watched.advance(10)
        assert heard[-1].kind in (EventKind.STATUS, EventKind.TOOL, EventKind.LOG), "it works on"
        assert heard[-1].text != "sent back: rename it"


async def test_some_finish_and_some_crash() -> None:
    watched = Watched(30)
    await watched.open()
    async with watched.following(watched.ids[12]) as done:
        await watched.advance(900)
        await watched.hypervisor.counters()
        assert done[-1].kind is EventKind.DONE
        assert (await watched.vm(watched.ids[23])).power is Power.CRASHED
        await settle()
    assert watched.kinds(watched.ids[23]) == ["crashed", "stopped"]
    assert watched.ids[23] not in await watched.hypervisor.counters()


async def test_freezing_stops_the_agent_and_thawing_lets_it_go_on(watched: Watched) -> None:
    address = (await watched.vm()).tag.address
    assert address
    before = await watched.counter()
    await watched.guest.freeze(address, 1)
    await watched.guest.freeze(address, 1)
    await watched.advance(100)
    assert await watched.counter() == before
    await watched.guest.thaw(address, 1)
    await watched.guest.thaw(address, 1)
    await watched.advance(7)
    assert await watched.counter() == before + 7


async def test_save_and_restore_go_on_at_the_same_count(watched: Watched, tmp_path: Path) -> None:
    agent, target = watched.ids[0], tmp_path / "memory"
    address = (await watched.vm()).tag.address
    assert address
    await watched.advance(12)
    await watched.guest.freeze(address, 1)
    before = await watched.counter()
    events = (await watched.run("cat /run/swarm/events.jsonl")).splitlines()
    await watched.hypervisor.save(agent, target, ignore_progress)
    await watched.hypervisor.check_saved(target)
    assert (await watched.vm()).power is Power.OFF
    assert agent not in await watched.hypervisor.counters()
    await watched.advance(500)
    content = target.read_bytes()

    await watched.hypervisor.restore(agent, target)
    assert target.read_bytes() == content, "a restore only reads"
    assert await watched.counter() == before
    assert (await watched.run("cat /run/swarm/events.jsonl")).splitlines() == events
    await watched.advance(5)
    assert await watched.counter() == before, "it was saved frozen"
    await watched.guest.thaw(address, 1)
    await watched.advance(5)
    assert await watched.counter() == before + 5


async def test_what_a_restored_agent_says_while_it_stands_still_is_said_now(
    watched: Watched, tmp_path: Path
) -> None:
    agent, target = watched.ids[1], tmp_path / "memory"
    address = (await watched.vm(agent)).tag.address
    assert address
    await watched.guest.freeze(address, 1)
    await watched.hypervisor.save(agent, target, ignore_progress)
    await watched.advance(500)
    await watched.hypervisor.restore(agent, target)
    async with watched.following(agent) as heard:
        verdict = Message("1", "verdict", "rename it", verdict="send-back")
        await watched.guest.deliver(address, verdict, 1)
        await settle()
        assert heard[-1].text == "sent back: rename it"
        assert heard[-1].at == pytest.approx(watched.clock.wall(), abs=0.001)


async def test_a_snapshot_restores_in_a_later_process(watched: Watched, tmp_path: Path) -> None:
    agent, target = watched.ids[2], tmp_path / "memory"
    await watched.advance(33)
    before = await watched.counter(agent)
    await watched.hypervisor.save(agent, target, ignore_progress)
    definition = await watched.hypervisor.definition(agent)

    later = Watched(1, seed=99)
    await later.open()
    assert await later.hypervisor.define(definition) == agent
    await later.hypervisor.restore(agent, target)
    assert await later.counter(agent) == before
    assert await later.run("hostname", agent) == f"{(await later.vm(agent)).name}\n"


@pytest.mark.parametrize("content", ["", "{}", '{"format": 1', "null", '{"format": "x"}'])
async def test_a_damaged_save_is_refused(watched: Watched, tmp_path: Path, content: str) -> None:
    target = tmp_path / "memory"
    target.write_text(content)
    await watched.hypervisor.destroy(watched.ids[0])
    with pytest.raises(SnapshotError):
        await watched.hypervisor.check_saved(target)
    with pytest.raises(SnapshotError):
        await watched.hypervisor.restore(watched.ids[0], target)
    assert (await watched.vm()).power is Power.OFF


async def test_a_failed_save_leaves_the_agent_running(watched: Watched, tmp_path: Path) -> None:
    agent, target = watched.ids[0], tmp_path / "memory"
    watched.swarm.fail_next("save", StorageFull("No room"))
    with pytest.raises(StorageFull):
        await watched.hypervisor.save(agent, target, ignore_progress)
    assert (await watched.vm()).power is Power.RUNNING
    before = await watched.counter()
    await watched.advance(3)
    assert await watched.counter() == before + 3
    with pytest.raises(SnapshotError):
        await watched.hypervisor.check_saved(target)
    target.unlink()
    await watched.hypervisor.save(agent, target, ignore_progress)
    assert (await watched.vm()).power is Power.OFF


async def test_save_never_writes_over_a_file(watched: Watched, tmp_path: Path) -> None:
    target = tmp_path / "memory"
    target.write_text("mine")
    with pytest.raises(Refused):
        await watched.hypervisor.save(watched.ids[0], target, ignore_progress)
    assert target.read_text() == "mine"
    assert (await watched.vm()).power is Power.RUNNING


async def test_a_slow_save_shows_its_progress(watched: Watched, tmp_path: Path) -> None:
    fractions: list[float | None] = []
    watched.swarm.delay("save", 5.0)
    saving = asyncio.create_task(
        watched.hypervisor.save(
            watched.ids[0], tmp_path / "memory", lambda _, share: fractions.append(share)
        )
    )
    await settle()
    for _ in range(5):
        await watched.advance(0.9)
    assert not saving.done()
    assert (await watched.vm()).power is Power.PAUSED
    await watched.advance(2)
    await saving
    assert fractions == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]


async def test_a_call_beyond_its_deadline_says_so(watched: Watched) -> None:
    watched.swarm.delay("suspend", 3600)
    suspending = asyncio.create_task(watched.hypervisor.suspend(watched.ids[0]))
    await settle()
    await watched.advance(60)
    with pytest.raises(DeadlineExceeded):
        await suspending


async def test_verbs_are_hinted(watched: Watched, tmp_path: Path) -> None:
    agent, hypervisor = watched.ids[0], watched.hypervisor
    await hypervisor.suspend(agent)
    await hypervisor.resume(agent)
    await hypervisor.save(agent, tmp_path / "memory", ignore_progress)
    await hypervisor.restore(agent, tmp_path / "memory")
    await hypervisor.destroy(agent)
    await hypervisor.undefine(agent)
    await settle()
    assert watched.kinds(agent) == [
        *("suspended", "resumed", "suspended", "stopped", "started", "resumed", "stopped"),
        "undefined",
    ]
    with pytest.raises(AgentGone):
        await watched.vm()
