"""VMs that hang: one that does not tell its definition hides neither itself nor others.

The host is libvirt's own test driver, on which the calls of single VMs are made to block as those
of QEMU's driver do.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import libvirt
import pytest

from swarm_tui.adapters.connection import Deadlines
from swarm_tui.adapters.libvirt import LibvirtHypervisor
from swarm_tui.errors import Busy, DeadlineExceeded
from swarm_tui.model import AgentId, Power

from .backends import DATA, HOST

FIRST, SECOND, THIRD = (AgentId(f"00000000-0000-4000-8000-00000000000{n}") for n in "123")
WAIT_S = 10.0


class Hang:
    """Makes VMs hang, and counts what is asked of any."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hanging: set[str] = set()
        self.since_ms = 0
        """For how long the daemon knows that they are at work."""
        self.asked: Counter[str] = Counter()
        self._go_on = threading.Event()
        for call in ("XMLDesc", "controlInfo", "metadata", "info"):
            self._wrap(monkeypatch, call, getattr(libvirt.virDomain, call))

    def _wrap(self, monkeypatch: pytest.MonkeyPatch, call: str, real: Any) -> None:
        def wrapped(domain: Any, *arguments: Any) -> Any:
            self.asked[call] += 1
            if domain.UUIDString() in self.hanging:
                if call == "XMLDesc":
                    self._go_on.wait(WAIT_S)
                elif call == "controlInfo" and self.since_ms:
                    return [libvirt.VIR_DOMAIN_CONTROL_OCCUPIED, 0, self.since_ms]
            return real(domain, *arguments)

        monkeypatch.setattr(libvirt.virDomain, call, wrapped)

    def end(self) -> None:
        self.hanging.clear()
        self._go_on.set()


@pytest.fixture
async def hang(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hang]:
    made = Hang(monkeypatch)
    yield made
    made.end()


@pytest.fixture
async def hypervisor(hang: Hang) -> AsyncIterator[LibvirtHypervisor]:
    deadlines = Deadlines(study_s=0.2)
    opened = LibvirtHypervisor(HOST, f"test://{DATA / 'host.xml'}", deadlines=deadlines)
    await opened.open(lambda _: None)
    yield opened
    await opened.close()


@pytest.mark.parametrize("since_ms", [0, 5000], ids=["unforeseen", "for long already"])
async def test_a_vm_that_hangs_is_listed_with_what_is_known(
    hypervisor: LibvirtHypervisor, hang: Hang, since_ms: int
) -> None:
    whole = {vm.id: vm for vm in await hypervisor.list()}
    await hypervisor.close()
    await hypervisor.open(lambda _: None)
    hang.hanging.add(FIRST)
    hang.since_ms = since_ms

    vms = {vm.id: vm for vm in await hypervisor.list()}

    assert (vms[SECOND], vms[THIRD]) == (whole[SECOND], whole[THIRD])
    rough, known = vms.pop(FIRST), whole.pop(FIRST)
    assert rough.disks is None
    assert known.disks
    for fact in ("name", "power", "reason", "memory_bytes", "vcpus", "tag"):
        assert getattr(rough, fact) == getattr(known, fact), fact
    assert await hypervisor.describe(FIRST) == rough
    assert FIRST in await hypervisor.counters()
    assert whole.keys() == vms.keys(), "somebody else's VM is none of ours"

    hang.end()
    async with asyncio.timeout(WAIT_S):
        while await hypervisor.describe(FIRST) != known:
            pass
    assert {vm.id: vm for vm in await hypervisor.list()}[FIRST] == known


async def test_when_all_hang_all_are_listed(hypervisor: LibvirtHypervisor, hang: Hang) -> None:
    hang.hanging |= {FIRST, SECOND, THIRD}
    assert {vm.id for vm in await hypervisor.list()} == {FIRST, SECOND, THIRD}
    assert (await hypervisor.describe(SECOND)).power is Power.RUNNING
    await hypervisor.suspend(SECOND)  # what is stuck takes no other call's place
    assert (await hypervisor.describe(SECOND)).power is Power.PAUSED


async def test_a_vm_that_hangs_is_described_as_it_was_read_last(
    hypervisor: LibvirtHypervisor, hang: Hang
) -> None:
    known = {vm.id: vm for vm in await hypervisor.list()}[FIRST]
    hang.hanging.add(FIRST)
    assert await hypervisor.describe(FIRST) == known


async def test_the_definition_itself_is_not_made_up(
    hypervisor: LibvirtHypervisor, hang: Hang
) -> None:
    hang.hanging.add(FIRST)
    with pytest.raises(DeadlineExceeded):
        await hypervisor.definition(FIRST)
    hang.since_ms = 5000
    with pytest.raises(Busy, match=r"5\.0 s"):
        await hypervisor.definition(FIRST)


async def test_a_verb_waits_for_a_question_that_takes_a_moment(
    hypervisor: LibvirtHypervisor, hang: Hang
) -> None:
    hang.since_ms = 500
    hang.hanging.add(FIRST)
    reading = asyncio.create_task(hypervisor.definition(FIRST))
    asked = hang.asked["controlInfo"]
    async with asyncio.timeout(WAIT_S):
        while hang.asked["controlInfo"] == asked:  # noqa: ASYNC110 - a thread counts
            await asyncio.sleep(0.001)
    hang.hanging.clear()
    assert FIRST in await reading


async def test_what_is_known_is_not_asked_again(hypervisor: LibvirtHypervisor, hang: Hang) -> None:
    await hypervisor.list()
    assert hang.asked["XMLDesc"] == 4
    assert hang.asked["metadata"] == 0, "the definition tells it all"
    hang.asked.clear()
    await hypervisor.list()
    assert not hang.asked
    await hypervisor.counters()
    # The test driver has few statistics; of the rest nothing is asked.
    assert not hang.asked.keys() - {"info"}


async def test_vms_that_are_asked_one_by_one_are_asked_in_turn(
    hypervisor: LibvirtHypervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swarm_tui.adapters.libvirt.CALLS_AT_MOST", 2)
    running = {vm.id for vm in await hypervisor.list() if vm.power is Power.RUNNING}
    assert len(running) > 2
    readings = [set(await hypervisor.counters()) for _ in range(4)]
    assert all(len(reading) <= 2 for reading in readings)
    assert set().union(*readings) == running, "nobody is left out for long"
