"""The simulated swarm: its story, its faults, and that it conforms where a contract is needed."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from swarm_tui.adapters.domain import parse_definition
from swarm_tui.adapters.simulated import ManualClock, SimulatedSwarm
from swarm_tui.errors import (
    AgentGone,
    DeadlineExceeded,
    GuestUnreachable,
    HostUnreachable,
    Refused,
    SnapshotError,
    StorageFull,
)
from swarm_tui.model import AgentId, EventKind, GuestEvent, Hint, Message, Power, Vm
from swarm_tui.ports import Guest, Hypervisor, Spawner
from swarm_tui.text import Safe, sanitize


def ignore_progress(step: Safe, fraction: float | None) -> None:
    pass


async def settle() -> None:
    """Let everything that was woken run until it waits again."""
    for _ in range(8):
        await asyncio.sleep(0)


class Watched:
    """A small swarm on a manual clock, its connection open and its hints noted."""

    def __init__(self, agents: int = 6, *, seed: int = 1, hosts: int = 1) -> None:
        self.clock = ManualClock()
        self.swarm = SimulatedSwarm(agents, seed=seed, clock=self.clock, hosts=hosts)
        self.ids = self.swarm.ids()
        self.hypervisor: Hypervisor = self.swarm.hypervisor()
        self.guest: Guest = self.swarm.guest
        self.spawner: Spawner = self.swarm.spawner()
        self.hints: list[Hint] = []

    async def open(self) -> None:
        await self.hypervisor.open(self.hints.append)

    async def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await settle()

    async def vm(self, agent: AgentId | None = None) -> Vm:
        return await self.hypervisor.describe(agent or self.ids[0])

    async def run(self, script: str, agent: AgentId | None = None) -> str:
        vm = await self.vm(agent)
        assert vm.tag.address
        done = await self.guest.run(vm.tag.address, script, timeout_s=1)
        return done.stdout.decode()

    async def counter(self, agent: AgentId | None = None) -> int:
        return int(await self.run("cat /run/swarm/counter", agent))

    def kinds(self, agent: AgentId) -> list[str]:
        return [hint.kind for hint in self.hints if hint.agent == agent]

    @asynccontextmanager
    async def following(self, agent: AgentId, offset: int = 0) -> AsyncIterator[list[GuestEvent]]:
        """Follow an agent's events into a list."""
        vm = await self.vm(agent)
        heard: list[GuestEvent] = []
        assert vm.tag.address
        address = vm.tag.address

        async def follow() -> None:
            async for batch in self.guest.events(address, offset):
                heard.extend(batch.events)

        task = asyncio.create_task(follow())
        await settle()
        try:
            yield heard
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def watched() -> Watched:
    watched = Watched()
    await watched.open()
    return watched


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


async def test_a_lost_host_closes_and_comes_back(watched: Watched) -> None:
    async with watched.following(watched.ids[0]) as heard:
        told = len(heard)
        watched.swarm.lose_host()
        await watched.advance(60)
        assert len(heard) == told
    assert watched.hints == [Hint(None, "closed")]
    with pytest.raises(HostUnreachable):
        await watched.hypervisor.list()
    with pytest.raises(HostUnreachable):
        await watched.hypervisor.open(watched.hints.append)
    watched.swarm.find_host()
    await watched.open()
    assert [vm.id for vm in await watched.hypervisor.list()] == watched.ids
    assert (await watched.run("hostname")).strip() == (await watched.vm()).name


async def test_two_hosts_fail_apart() -> None:
    watched = Watched(6, hosts=2)
    await watched.open()
    other = watched.swarm.hypervisor(1)
    await other.open(lambda _: None)
    watched.swarm.lose_host(0)
    with pytest.raises(HostUnreachable):
        await watched.hypervisor.counters()
    assert len(await other.counters()) == 3
    assert {vm.host for vm in await other.list()} == {other.host}
    assert other.host != watched.hypervisor.host


@pytest.mark.parametrize(
    ("fault", "power"),
    [(SimulatedSwarm.crash, Power.CRASHED), (SimulatedSwarm.kill_outside, Power.OFF)],
)
async def test_a_vm_that_dies_is_hinted_and_cuts_its_guest(
    watched: Watched, fault: Callable[[SimulatedSwarm, AgentId], None], power: Power
) -> None:
    agent = watched.ids[0]
    address = (await watched.vm()).tag.address
    assert address
    events = watched.guest.events(address, 0)
    await anext(events)
    fault(watched.swarm, agent)
    with pytest.raises(GuestUnreachable):
        await anext(events)
    assert (await watched.vm()).power is power
    await settle()
    assert "stopped" in watched.kinds(agent)


async def test_cut_ssh_is_refused_until_mended(watched: Watched) -> None:
    agent = watched.ids[0]
    address = (await watched.vm()).tag.address
    assert address
    events = watched.guest.events(address, 0)
    batch = await anext(events)
    watched.swarm.cut_ssh(agent)
    with pytest.raises(GuestUnreachable):
        await anext(events)
    with pytest.raises(GuestUnreachable):
        await watched.guest.freeze(address, 1)
    watched.swarm.mend_ssh(agent)
    async with watched.following(agent, batch.offset) as heard:
        await watched.advance(30)
        assert heard, "it goes on"
        assert not set(heard) & set(batch.events), "where it stopped"


async def test_a_suspended_guest_does_not_answer(watched: Watched) -> None:
    address = (await watched.vm()).tag.address
    assert address
    await watched.hypervisor.suspend(watched.ids[0])
    freezing = asyncio.create_task(watched.guest.freeze(address, 5))
    await settle()
    await watched.advance(6)
    with pytest.raises(GuestUnreachable):
        await freezing


async def test_a_flood_is_bounded_and_its_drops_are_counted(watched: Watched) -> None:
    agent = watched.ids[0]
    address = (await watched.vm()).tag.address
    assert address
    events = watched.guest.events(address, 0)
    await anext(events)
    watched.swarm.flood(agent, 50_000)
    heard = dropped = 0
    while heard + dropped < 50_000:
        batch = await anext(events)
        heard += len(batch.events)
        dropped += batch.dropped
    assert heard <= 1000
    assert batch.events[-1].text == "flood line 49999"


async def test_hostile_text_arrives_sanitized(watched: Watched) -> None:
    agent = watched.ids[0]
    async with watched.following(agent) as heard:
        told = len(heard)
        watched.swarm.hostile(agent)
        await settle()
        lines = heard[told:]
    vm = await watched.vm()
    assert len(lines) >= 8
    for text in (vm.name, *(line.text for line in lines)):
        assert text == sanitize(text)
        assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u200b]", text)
    assert any("␛[2J" in line.text for line in lines), "shown, not hidden"
    definition = parse_definition(await watched.hypervisor.definition(agent))
    assert definition.name == vm.name


async def test_spawn_makes_an_agent_that_boots_and_answers(watched: Watched) -> None:
    spawned = await watched.spawner.spawn("mine", "Try it out", ignore_progress)
    vm = await watched.vm(spawned.agent)
    assert (vm.name, vm.tag.task, vm.power) == ("mine", "Try it out", Power.RUNNING)
    async with watched.following(spawned.agent) as heard:
        assert not heard
        await watched.advance(30)
        assert heard
    with pytest.raises(Refused):
        await watched.spawner.spawn("mine", "", ignore_progress)
    unnamed = await watched.spawner.spawn("", "", ignore_progress)
    names = [vm.name for vm in await watched.hypervisor.list()]
    assert len(set(names)) == len(names) == 8
    assert unnamed.name in names


async def test_a_fork_goes_on_from_its_source(watched: Watched) -> None:
    source = watched.ids[0]
    await watched.hypervisor.suspend(source)
    checkpoint = await watched.hypervisor.checkpoint(source)
    vm = await watched.vm(source)
    definition = (await watched.hypervisor.definition(source)).replace(
        source, "00000000-0000-4000-8000-000000000001"
    )
    assert vm.tag.address
    definition = definition.replace(vm.name, "fork").replace(
        f'port="{vm.tag.address.port}"', 'port="999"'
    )
    fork = await watched.hypervisor.fork(definition, checkpoint)
    await watched.hypervisor.resume(source)
    await watched.advance(4)
    assert await watched.counter(fork) == await watched.counter(source)
    assert await watched.run("hostname", fork) == "fork\n"


async def test_the_console_admits_what_it_is_and_has_one_reader(watched: Watched) -> None:
    agent = watched.ids[0]
    async with watched.hypervisor.console(agent) as first:
        reading = first.read()
        assert b"simulated" in await anext(reading)
        await first.write(b"root\r")
        assert b"nobody logs in" in await anext(reading)
        async with watched.hypervisor.console(agent) as second:
            with pytest.raises(StopAsyncIteration):
                await anext(reading)
            await anext(second.read())


async def test_run_answers_a_few_commands(watched: Watched) -> None:
    address = (await watched.vm()).tag.address
    assert address
    done = await watched.guest.run(address, "echo hello\nmake coffee\necho never", timeout_s=1)
    assert (done.exit_status, done.stdout) == (127, b"hello\n")
    assert b"simulated" in done.stderr
    assert (await watched.guest.run(address, "cat", stdin=b"in", timeout_s=1)).stdout == b"in"
    assert (await watched.guest.run(address, "false", timeout_s=1)).exit_status == 1


async def test_the_shell_says_that_nothing_runs_here(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    address = (await watched.vm()).tag.address
    assert address
    lines = iter(["hostname\n", "rm -rf /\n", "exit 3\n"])
    monkeypatch.setattr(sys.stdin, "readline", lambda: next(lines), raising=False)
    assert await watched.guest.shell(address, None, None) == 3
    shown = capsys.readouterr()
    assert "nothing runs here" in shown.out
    assert (await watched.vm()).name in shown.out
    assert "rm: this is a simulated agent" in shown.err


async def test_everything_about_a_saved_agent_is_json(watched: Watched, tmp_path: Path) -> None:
    for agent in watched.ids:
        await watched.hypervisor.save(agent, tmp_path / agent, ignore_progress)
        assert json.loads((tmp_path / agent).read_text())["agent"] == agent


@pytest.mark.parametrize("call", ["list", "counters", "facts"])
async def test_a_closed_connection_answers_nothing(watched: Watched, call: str) -> None:
    await watched.hypervisor.close()
    await watched.hypervisor.close()
    asked: Awaitable[object] = getattr(watched.hypervisor, call)()
    with pytest.raises(HostUnreachable):
        await asked
