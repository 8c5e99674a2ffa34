"""The simulated swarm: its faults, its guests, and new agents."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from swarm_tui.adapters.domain import parse_definition
from swarm_tui.adapters.simulated import SimulatedSwarm
from swarm_tui.errors import (
    GuestUnreachable,
    HostUnreachable,
    Refused,
)
from swarm_tui.model import AgentId, Hint, Power
from swarm_tui.ports import Order
from swarm_tui.text import Safe, sanitize

from .watched import Watched, ignore_progress, settle


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
    named: list[tuple[AgentId, str]] = []

    async def on_named(agent: AgentId, name: Safe) -> None:
        assert agent not in {vm.id for vm in await watched.hypervisor.list()}
        named.append((agent, name))

    spawned = await watched.spawner.spawn(Order("mine", "Try it out"), ignore_progress, on_named)
    assert named == [(spawned.agent, "mine")]
    vm = await watched.vm(spawned.agent)
    assert (vm.name, vm.tag.task, vm.power) == ("mine", "Try it out", Power.RUNNING)
    async with watched.following(spawned.agent) as heard:
        assert not heard
        await watched.advance(30)
        assert heard
    with pytest.raises(Refused):
        await watched.spawner.spawn(Order("mine", ""), ignore_progress, on_named)
    unnamed = await watched.spawner.spawn(Order(), ignore_progress, on_named)
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
