"""Cloud Hypervisor behind a real libvirt driver, on a bench of the tests' own."""

from __future__ import annotations

import os
import signal
import tempfile
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from ch.bench import Bench, NoDriver, find_driver, find_hypervisor

from swarm_tui.adapters.ch import ChHypervisor
from swarm_tui.adapters.connection import Deadlines
from swarm_tui.local.image import COMMAND_LINE, Image, build_image
from swarm_tui.model import Hint, Tag
from swarm_tui.outpost.local import LocalOutpost
from swarm_tui.tag import render_tag
from swarm_tui.text import literal

from .backends import DATA, HOST, Backend, _fill, new_id

DISK_MIB = 8
IMPATIENT = Deadlines(act_s=0.5, study_s=0.5)


@dataclass
class ChMachines:
    """VMs of one test's own; they end with its bench."""

    bench: Bench
    image: Image
    folder: Path

    def definition(self, number: int, tag: str) -> str:
        agent = new_id()
        disk = self.folder / f"{number}.raw"
        with open(disk, "wb") as file:
            file.truncate(DISK_MIB << 20)
        return _fill(
            DATA / "ch-agent.xml",
            NAME=f"vm-{uuid.uuid4().hex[:8]}",
            UUID=agent,
            DISK=str(disk),
            TAG=tag,
            KERNEL=str(self.image.kernel_elf if self.bench.is_stand_in else self.image.kernel),
            INITRD=str(self.image.initrd),
            CMDLINE=COMMAND_LINE,
        )

    def hypervisor(self, deadlines: Deadlines | None = None) -> ChHypervisor:
        outpost = LocalOutpost(self.folder / "ledger")
        if deadlines:
            return ChHypervisor(HOST, self.bench.uri, outpost, deadlines=deadlines)
        return ChHypervisor(HOST, self.bench.uri, outpost)


def make_bench(folder: Path, image: Image, cache_folder: Path) -> Bench:
    """A bench in a short folder. Skips the test where there is no driver."""
    try:
        bench = Bench(folder, find_driver(), find_hypervisor(image, cache_folder))
    except NoDriver as reason:
        pytest.skip(str(reason))
    bench.start()
    return bench


@cache
def image(cache: Path) -> Image:
    return build_image(cache, lambda _step: None)


@asynccontextmanager
async def ch(_folder: Path) -> AsyncIterator[Backend]:
    async with AsyncExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="ch-", dir="/var/tmp"))
        )
        cache_folder = Path(os.environ.get("SWARM_TUI_TEST_CACHE", "/var/cache/swarm-tui-test"))
        built = image(cache_folder)
        bench = make_bench(folder / "bench", built, cache_folder)
        stack.callback(bench.stop)
        machines = ChMachines(bench, built, folder)
        hints: list[Hint] = []
        hypervisor = machines.hypervisor()
        capabilities = await hypervisor.open(hints.append)
        stack.push_async_callback(hypervisor.close)
        tag = render_tag(Tag(task=literal("Idle without a root disk")))
        agent, *others = [
            await hypervisor.define(machines.definition(number, tag)) for number in range(3)
        ]
        stranger = await hypervisor.define(machines.definition(3, ""))
        await hypervisor.start(agent)

        @asynccontextmanager
        async def silence() -> AsyncIterator[ChHypervisor]:
            impatient = machines.hypervisor(IMPATIENT)
            await impatient.open(lambda _: None)
            (vmm,) = bench.vmm_pids()
            os.kill(vmm, signal.SIGSTOP)
            try:
                yield impatient
            finally:
                os.kill(vmm, signal.SIGCONT)
                await impatient.close()

        yield Backend(
            hypervisor,
            capabilities,
            hints,
            agent,
            frozenset(others),
            stranger,
            machines.definition(4, tag),
            folder,
            _no_copy,
            silence,
        )


def _no_copy(_definition: str, _checkpoint: str) -> tuple[str, str]:
    raise AssertionError("Cloud Hypervisor has no forks through libvirt")
