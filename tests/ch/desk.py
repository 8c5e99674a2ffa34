"""A supervisor over VMs on the bench, and what a person sees and does there."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path

from swarm_tui.adapters.ch import ChHypervisor
from swarm_tui.adapters.connection import Deadlines
from swarm_tui.adapters.ssh import SshGuest
from swarm_tui.audit import Audit
from swarm_tui.catalogue import Catalogue
from swarm_tui.command import Command
from swarm_tui.database import open_database
from swarm_tui.lifecycle import Terms
from swarm_tui.local.image import COMMAND_LINE, Image
from swarm_tui.model import Agent, AgentId, HostName, Record, Tag, Verb
from swarm_tui.outpost.local import LocalOutpost
from swarm_tui.ports import Console
from swarm_tui.review.shelf import Shelf
from swarm_tui.site import Site
from swarm_tui.snapshot import Draft, Snapshots
from swarm_tui.supervisor import Supervisor
from swarm_tui.tag import render_tag
from swarm_tui.text import Safe, literal

from .bench import Bench

WAIT_S = 20.0
HOST = HostName("bench")
DEADLINES = Deadlines(study_s=1, act_s=3)
_DEFINITION = Path(__file__).parents[1] / "adapters/data/ch-agent.xml"


@dataclass
class Desk:
    """One supervisor. Several may share a folder, as processes of one person do."""

    bench: Bench
    image: Image
    folder: Path
    hypervisor: ChHypervisor = field(init=False)
    supervisor: Supervisor = field(init=False)

    def __post_init__(self) -> None:
        outpost = LocalOutpost(self.folder / "ledger")
        self.hypervisor = ChHypervisor(HOST, self.bench.uri, outpost, deadlines=DEADLINES)
        terms = Terms(
            Shelf(self.folder / "reviews"),
            literal("nobody"),
            None,
            self.folder / "signers",
            1 << 20,
        )
        self.supervisor = Supervisor(
            [Site(self.hypervisor)],
            SshGuest(),
            self.open_catalogue(),
            self.snapshots,
            Audit(self.folder / "audit.jsonl"),
            terms,
            is_following=False,
        )

    def open_catalogue(self) -> Catalogue:
        store = open_database(f"sqlite://{self.folder}/store.db")
        return Catalogue(store, self.folder / "catalogue")

    @property
    def snapshots(self) -> Snapshots:
        return Snapshots(self.folder / "snapshots")

    async def start_vm(self, name: str) -> AgentId:
        """A VM with a shell on its console."""
        agent = AgentId(str(uuid.uuid4()))
        disk = self.folder / f"{name}.raw"
        await asyncio.to_thread(_make_disk, disk)
        kernel = self.image.kernel_elf if self.bench.is_stand_in else self.image.kernel
        text = _DEFINITION.read_text()
        for word, value in {
            "NAME": name,
            "UUID": agent,
            "DISK": str(disk),
            "TAG": render_tag(Tag(task=literal("Idle"), created=time.time() - 3600)),
            "KERNEL": str(kernel),
            "INITRD": str(self.image.initrd),
            "CMDLINE": f"{COMMAND_LINE} rdinit=/bin/busybox -- sh",
        }.items():
            text = text.replace(word, value)
        await self.hypervisor.define(text)
        await self.hypervisor.start(agent)
        await self.supervisor.refresh()
        return agent

    @asynccontextmanager
    async def as_if_it_died_pausing(self, agent: AgentId) -> AsyncIterator[Draft]:
        """What a supervisor leaves that dies within a pause, at its save; then others see it."""
        catalogue, known = self.open_catalogue(), self.agent(agent)
        (host,) = self.supervisor.store.hosts()
        assert known.vm
        assert host.capabilities
        maker = f"{host.capabilities.driver} {host.capabilities.version}"
        definition = await self.hypervisor.definition(agent)
        with closing(catalogue), catalogue.claim(agent, Verb.PAUSE):
            draft = self.snapshots.draft(agent)
            record = Record(agent, known.name, HOST, verb=Verb.PAUSE, saving_in=draft.id)
            self.snapshots.plan(draft, record, definition, maker, known.vm.disks or ())
            catalogue.write(record)
            yield draft

    def agent(self, agent: AgentId) -> Agent:
        known = self.supervisor.store.agent(agent)
        assert known is not None
        return known

    async def until(self, is_true: Callable[[], bool], what: str) -> None:
        async with asyncio.timeout(WAIT_S):
            while not is_true():  # noqa: ASYNC110 - waits for whatever the caller names
                await asyncio.sleep(0.02)
        assert is_true(), what

    async def shows(self, agent: AgentId, *words: str) -> None:
        """Wait until the screen would tell this of the agent: its state, words of its reason."""
        told = ""

        def is_told() -> bool:
            nonlocal told
            known = self.supervisor.store.agent(agent)
            told = f"{known.state} {known.reason}" if known else "nothing"
            return all(word in told for word in words)

        try:
            await self.until(is_told, " ".join(words))
        except TimeoutError:
            raise AssertionError(f"shown: {told!r}, wanted: {words}") from None

    async def do(self, command: Command) -> Safe:
        return await self.supervisor.do(command)

    async def say(self, agent: AgentId, line: str) -> str:
        """Type a line at the VM's shell, again and again until it answers; the answer."""
        mark = uuid.uuid4().hex[:8]
        # The quotes keep the echo of what is typed from looking like the answer.
        typed = f"echo {mark[:4]}''{mark[4:]}; {line}; echo {mark[4:]}''{mark[:4]}\n"
        wanted = re.compile(f"{mark}\r?\n(.*?){mark[4:]}{mark[:4]}".encode(), re.DOTALL)
        heard = b""

        async def listen(console: Console) -> str:
            nonlocal heard
            async for chunk in console.read():
                heard += chunk
                if found := wanted.search(heard):
                    return found[1].decode().strip()
            raise AssertionError(f"the console ended: {heard!r}")

        async def type_again(console: Console) -> None:
            while True:  # a kernel that still boots does not listen
                await console.write(typed.encode())
                await asyncio.sleep(1)

        async with self.hypervisor.console(agent) as console:
            typing = asyncio.create_task(type_again(console))
            try:
                async with asyncio.timeout(WAIT_S):
                    return await listen(console)
            except TimeoutError:
                raise AssertionError(f"no answer: {heard!r}") from None
            finally:
                typing.cancel()


@asynccontextmanager
async def open_desk(bench: Bench, image: Image, folder: Path) -> AsyncIterator[Desk]:
    desk = Desk(bench, image, folder)
    async with desk.supervisor:
        await desk.supervisor.connected(WAIT_S)
        yield desk


def _make_disk(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(8 << 20)
