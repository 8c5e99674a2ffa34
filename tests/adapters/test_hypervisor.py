"""The contract of `ports.Hypervisor`, the same for every implementation.

What a driver cannot do must be refused as Unsupported and be named in its capabilities: those
tests then assert that instead.
"""

from __future__ import annotations

import asyncio
import xml.etree.ElementTree as ET
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import fields

import pytest

from swarm_tui.errors import (
    AgentGone,
    DeadlineExceeded,
    HostError,
    HostUnreachable,
    Refused,
    SnapshotError,
    Unsupported,
)
from swarm_tui.model import AgentId, Counters, Power
from swarm_tui.tag import parse_tag
from swarm_tui.text import Safe

from .backends import Backend, new_id

WAIT_S = 10.0


def ignore_progress(_step: Safe, _fraction: float | None) -> None:
    pass


async def until(is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not is_true():  # noqa: ASYNC110 - waits for whatever the caller names
            await asyncio.sleep(0.01)


async def power(backend: Backend, agent: AgentId | None = None) -> Power:
    return (await backend.hypervisor.describe(agent or backend.agent)).power


async def can(backend: Backend, verb: str, call: Awaitable[object]) -> bool:
    """Await `call`; whether the driver has it. If not, it must have said so before."""
    reason = backend.capabilities.missing.get(verb)
    if reason is None:
        await call
        return True
    with pytest.raises(Unsupported):
        await call
    assert reason
    return False


async def test_lists_agents_and_nobody_else(backend: Backend) -> None:
    vms = {vm.id: vm for vm in await backend.hypervisor.list()}
    assert {backend.agent, *backend.others} <= set(vms)
    assert backend.stranger not in vms
    agent = vms[backend.agent]
    assert agent.power is Power.RUNNING
    assert agent.name
    assert agent.tag.task
    assert agent.host == backend.hypervisor.host
    assert agent.memory_bytes
    assert agent.vcpus


async def test_describes_what_it_lists_with_the_tag_of_its_definition(backend: Backend) -> None:
    for vm in await backend.hypervisor.list():
        if vm.id in {backend.agent, *backend.others}:
            assert await backend.hypervisor.describe(vm.id) == vm
    root = ET.fromstring(await backend.hypervisor.definition(backend.agent))
    vm = await backend.hypervisor.describe(backend.agent)
    assert root.findtext("uuid") == backend.agent
    assert parse_tag(root) == vm.tag
    if backend.stranger is not None:
        with pytest.raises(AgentGone):
            await backend.hypervisor.describe(backend.stranger)
        assert backend.stranger not in await backend.hypervisor.counters()


async def test_an_unknown_id_is_gone(backend: Backend) -> None:
    host = backend.hypervisor
    calls: Mapping[str, Callable[[AgentId], Awaitable[object]]] = {
        "describe": host.describe,
        "definition": host.definition,
        "start": host.start,
        "suspend": host.suspend,
        "resume": host.resume,
        "destroy": host.destroy,
        "save": lambda agent: host.save(agent, backend.folder / "saved", ignore_progress),
        "checkpoint": host.checkpoint,
    }
    for name, call in calls.items():
        try:
            await call(new_id())
        except AgentGone:
            continue
        pytest.fail(f"{name} found an agent")


async def test_suspends_and_resumes(backend: Backend) -> None:
    await backend.hypervisor.suspend(backend.agent)
    assert await power(backend) is Power.PAUSED
    await backend.hypervisor.suspend(backend.agent)
    assert await power(backend) is Power.PAUSED
    await backend.hypervisor.resume(backend.agent)
    assert await power(backend) is Power.RUNNING
    await backend.hypervisor.resume(backend.agent)
    assert await power(backend) is Power.RUNNING


async def test_what_is_off_neither_stops_nor_goes_on(backend: Backend) -> None:
    await backend.hypervisor.destroy(backend.agent)
    with pytest.raises(Refused):
        await backend.hypervisor.suspend(backend.agent)
    with pytest.raises(Refused):
        await backend.hypervisor.resume(backend.agent)
    assert await power(backend) is Power.OFF


async def test_a_change_gives_a_hint(backend: Backend) -> None:
    backend.hints.clear()
    await backend.hypervisor.suspend(backend.agent)
    await until(lambda: backend.agent in [hint.agent for hint in backend.hints])
    backend.hints.clear()
    await backend.hypervisor.destroy(backend.agent)
    await until(lambda: backend.agent in [hint.agent for hint in backend.hints])


async def test_destroys_twice_and_starts_again(backend: Backend) -> None:
    await backend.hypervisor.destroy(backend.agent)
    assert await power(backend) is Power.OFF
    await backend.hypervisor.destroy(backend.agent)
    assert await power(backend) is Power.OFF
    await backend.hypervisor.start(backend.agent)
    assert await power(backend) is Power.RUNNING
    with pytest.raises(Refused):
        await backend.hypervisor.start(backend.agent)


async def test_saves_and_restores(backend: Backend) -> None:
    target = backend.folder / "saved"
    before = await backend.hypervisor.describe(backend.agent)
    steps: list[Safe] = []
    saving = backend.hypervisor.save(backend.agent, target, lambda step, _: steps.append(step))
    if not await can(backend, "save", saving):
        return
    await backend.hypervisor.check_saved(target)
    assert steps
    saved = await backend.hypervisor.describe(backend.agent)
    assert (saved.power, saved.reason) == (Power.OFF, "saved")
    await backend.hypervisor.restore(backend.agent, target)
    restored = await backend.hypervisor.describe(backend.agent)
    assert restored.power is Power.RUNNING
    assert (restored.id, restored.name, restored.tag) == (before.id, before.name, before.tag)
    assert target.exists()


async def test_what_was_suspended_runs_when_restored(backend: Backend) -> None:
    target = backend.folder / "saved"
    await backend.hypervisor.suspend(backend.agent)
    saving = backend.hypervisor.save(backend.agent, target, ignore_progress)
    if await can(backend, "save", saving):
        await backend.hypervisor.restore(backend.agent, target)
        assert await power(backend) is Power.RUNNING


async def test_never_saves_over_anything(backend: Backend) -> None:
    target = backend.folder / "saved"
    target.write_text("an older save")
    with pytest.raises((Refused, Unsupported)):
        await backend.hypervisor.save(backend.agent, target, ignore_progress)
    assert target.read_text() == "an older save"
    assert await power(backend) is Power.RUNNING


async def test_a_failed_save_leaves_the_vm_alive(backend: Backend) -> None:
    target = backend.folder / "no-such-folder" / "saved"
    with pytest.raises(HostError):
        await backend.hypervisor.save(backend.agent, target, ignore_progress)
    assert await power(backend) in (Power.RUNNING, Power.PAUSED)


async def test_takes_only_a_save_for_one(backend: Backend) -> None:
    target = backend.folder / "saved"
    target.write_text("not a saved memory")
    await backend.hypervisor.destroy(backend.agent)
    for no_save in (target, backend.folder / "nothing"):
        with pytest.raises((SnapshotError, Unsupported)):
            await backend.hypervisor.check_saved(no_save)
        with pytest.raises((SnapshotError, Unsupported)):
            await backend.hypervisor.restore(backend.agent, no_save)
    assert await power(backend) is Power.OFF


async def test_restores_only_the_vm_that_was_saved(backend: Backend) -> None:
    target = backend.folder / "saved"
    saving = backend.hypervisor.save(backend.agent, target, ignore_progress)
    if await can(backend, "save", saving):
        with pytest.raises(SnapshotError):
            await backend.hypervisor.restore(min(backend.others), target)
        assert await power(backend) is Power.OFF


async def test_forgets_only_what_is_stopped(backend: Backend) -> None:
    with pytest.raises(Refused):
        await backend.hypervisor.undefine(backend.agent)
    assert await power(backend) is Power.RUNNING
    await backend.hypervisor.destroy(backend.agent)
    await backend.hypervisor.undefine(backend.agent)
    with pytest.raises(AgentGone):
        await backend.hypervisor.describe(backend.agent)
    assert backend.agent not in [vm.id for vm in await backend.hypervisor.list()]
    await backend.hypervisor.undefine(backend.agent)


async def test_defines_again_what_it_forgot(backend: Backend) -> None:
    before = await backend.hypervisor.describe(backend.agent)
    definition = await backend.hypervisor.definition(backend.agent)
    await backend.hypervisor.destroy(backend.agent)
    await backend.hypervisor.undefine(backend.agent)
    assert await backend.hypervisor.define(definition) == backend.agent
    after = await backend.hypervisor.describe(backend.agent)
    assert after.power is Power.OFF
    assert (after.name, after.tag, after.disks) == (before.name, before.tag, before.disks)
    await backend.hypervisor.start(backend.agent)
    assert await power(backend) is Power.RUNNING


async def test_a_new_vm_is_listed(backend: Backend) -> None:
    known = {vm.id for vm in await backend.hypervisor.list()}
    agent = await backend.hypervisor.define(backend.spare)
    assert agent not in known
    assert agent in {vm.id for vm in await backend.hypervisor.list()}
    assert await power(backend, agent) is Power.OFF


async def test_a_definition_must_be_one(backend: Backend) -> None:
    with pytest.raises((Refused, HostError)):
        await backend.hypervisor.define("<domain")


async def test_checkpoints_only_what_stands_still(backend: Backend) -> None:
    with pytest.raises((Refused, Unsupported)):
        await backend.hypervisor.checkpoint(backend.agent)
    assert await power(backend) is Power.RUNNING


async def test_forks_a_suspended_vm(backend: Backend) -> None:
    await backend.hypervisor.suspend(backend.agent)
    forks: list[AgentId] = []
    if not await can(backend, "checkpoint", _fork(backend, forks)):
        return
    (fork,) = forks
    assert fork in {vm.id for vm in await backend.hypervisor.list()}
    vm = await backend.hypervisor.describe(fork)
    source = await backend.hypervisor.describe(backend.agent)
    assert source.power is Power.PAUSED
    assert vm.power is Power.RUNNING
    assert vm.tag == source.tag
    assert set(vm.disks or ()).isdisjoint(source.disks or ())
    await backend.hypervisor.destroy(fork)
    await backend.hypervisor.undefine(fork)
    await backend.hypervisor.resume(backend.agent)
    assert await power(backend) is Power.RUNNING


async def _fork(backend: Backend, forks: list[AgentId]) -> None:
    definition = await backend.hypervisor.definition(backend.agent)
    checkpoint = await backend.hypervisor.checkpoint(backend.agent)
    forks.append(await backend.hypervisor.fork(*backend.copy(definition, checkpoint)))


async def test_a_fork_that_fails_leaves_nothing(backend: Backend) -> None:
    agent = await backend.hypervisor.define(backend.spare)
    await backend.hypervisor.undefine(agent)
    with pytest.raises((HostError, Refused, Unsupported)):
        await backend.hypervisor.fork(backend.spare, "<domainsnapshot/>")
    with pytest.raises(AgentGone):
        await backend.hypervisor.describe(agent)


async def test_counters_are_of_running_agents(backend: Backend) -> None:
    first = (await backend.hypervisor.counters())[backend.agent]
    second = (await backend.hypervisor.counters())[backend.agent]
    assert second.monotonic >= first.monotonic
    for name in ("cpu_ns", "disk_read", "disk_written", "net_received", "net_sent"):
        earlier, later = getattr(first, name), getattr(second, name)
        assert (earlier is None) == (later is None)
        assert earlier is None or 0 <= earlier <= later
    await backend.hypervisor.destroy(backend.agent)
    assert backend.agent not in await backend.hypervisor.counters()


async def test_every_counter_has_a_source_or_a_reason(backend: Backend) -> None:
    missing, sources = backend.capabilities.missing, backend.capabilities.sources
    reading = (await backend.hypervisor.counters())[backend.agent]
    for name in [field.name for field in fields(Counters) if field.name != "monotonic"]:
        assert (name in sources) != (name in missing)
        if name in missing:
            assert getattr(reading, name) is None
    assert backend.capabilities.driver
    assert backend.capabilities.version


async def test_tells_the_size_of_the_host(backend: Backend) -> None:
    facts = await backend.hypervisor.facts()
    assert facts.cpus
    assert facts.memory_total
    assert facts.memory_free is None or 0 < facts.memory_free <= facts.memory_total


async def test_a_closed_connection_is_out_of_reach_until_it_is_opened(backend: Backend) -> None:
    known = {backend.agent, *backend.others}
    await backend.hypervisor.close()
    await backend.hypervisor.close()
    for call in (
        backend.hypervisor.list,
        backend.hypervisor.counters,
        backend.hypervisor.facts,
        lambda: backend.hypervisor.suspend(backend.agent),
        lambda: backend.hypervisor.destroy(backend.agent),
    ):
        with pytest.raises(HostUnreachable):
            await call()
    assert await backend.hypervisor.open(backend.hints.append) == backend.capabilities
    assert known <= {vm.id for vm in await backend.hypervisor.list()}


async def test_no_hints_after_the_end(backend: Backend) -> None:
    async with backend.silence() as other:
        await backend.hypervisor.close()
        backend.hints.clear()
        with pytest.raises(DeadlineExceeded):
            await other.suspend(backend.agent)
    assert backend.hints == []
    await backend.hypervisor.open(backend.hints.append)


async def test_keeps_its_deadline(backend: Backend) -> None:
    async with backend.silence() as hypervisor:
        with pytest.raises(DeadlineExceeded):
            await hypervisor.suspend(backend.agent)
        # Only that VM is silent, not its host.
        assert backend.agent in {vm.id for vm in await hypervisor.list()}


async def test_console_ends_with_the_vm(backend: Backend) -> None:
    if not await can(backend, "console", _open_console(backend)):
        return
    async with backend.hypervisor.console(backend.agent) as console:
        await console.write(b"\r")
        await backend.hypervisor.destroy(backend.agent)
        async with asyncio.timeout(WAIT_S):
            assert all([isinstance(chunk, bytes) async for chunk in console.read()])
        with pytest.raises(HostError):
            await console.write(b"\r")


async def test_console_is_taken_over(backend: Backend) -> None:
    if not await can(backend, "console", _open_console(backend)):
        return
    async with (
        backend.hypervisor.console(backend.agent) as first,
        backend.hypervisor.console(backend.agent) as second,
    ):
        async with asyncio.timeout(WAIT_S):
            assert all([isinstance(chunk, bytes) async for chunk in first.read()])
        await second.write(b"\r")
    assert await power(backend) is Power.RUNNING


async def _open_console(backend: Backend) -> None:
    async with backend.hypervisor.console(backend.agent):
        pass
