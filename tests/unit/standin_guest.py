"""A stand-in for SSH into the guests of stand-in worlds."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

from swarm_tui.errors import GuestFailed, GuestUnreachable
from swarm_tui.lifecycle.verbs import SHUT_DOWN
from swarm_tui.model import Address, AgentId, Completed, EventBatch, Message

from .standin import World


class StandInGuest:
    """Implements `ports.Guest` for the guests of some worlds."""

    def __init__(self, *worlds: World) -> None:
        self._worlds = worlds
        self.batches: dict[int, list[EventBatch]] = {}
        """Port → what its guest tells; each batch once."""
        self.offsets: list[int] = []
        """Where readers began."""
        self.cuts: dict[int, BaseException] = {}
        """Port → what ends its stream once all was told."""
        self.unreachable: GuestUnreachable | None = None
        """What every reader meets."""
        self.news = asyncio.Event()
        self.is_closed = False

    async def events(self, address: Address, offset: int) -> AsyncIterator[EventBatch]:
        self._find(address)
        self.offsets.append(offset)
        told = self.batches.setdefault(address.port, [])
        yield EventBatch((), offset)
        while True:
            while told:
                yield told.pop(0)
            if cut := self.cuts.pop(address.port, None):
                raise cut
            self.news.clear()
            await self.news.wait()

    async def traffic(self, address: Address, interval_s: float) -> AsyncIterator[tuple[int, int]]:
        self._find(address)
        yield 0, 0
        await asyncio.Event().wait()

    async def freeze(self, address: Address, timeout_s: float) -> None:
        await self._act("freeze", address, frozen=True)

    async def thaw(self, address: Address, timeout_s: float) -> None:
        await self._act("thaw", address, frozen=False)

    async def refresh(self, address: Address, timeout_s: float) -> None:
        await self._act("refresh", address, clock="right")

    async def deliver(self, address: Address, message: Message, timeout_s: float) -> None:
        """Into a folder, as the guest's own inbox; who reads it moves the file away."""
        world = self._world(address)
        plan = await world.begin("deliver")
        inbox = world.inbox(world.find(address))
        inbox.mkdir(exist_ok=True)
        if not (inbox / f"{message.id}.read").exists():
            fields = {"kind": message.kind, "text": message.text, "verdict": message.verdict}
            (inbox / message.id).write_text(json.dumps(fields))
        await world.end("deliver", plan)

    async def run(
        self, address: Address, script: str, *, stdin: bytes = b"", timeout_s: float
    ) -> Completed:
        """By this machine's own shell: the guest's workspace is a folder here."""
        world = self._world(address)
        plan = await world.begin("run")
        agent = world.find(address)
        if script == SHUT_DOWN:  # of the guest, not of this machine
            world.change(agent, power="off", reason="shut down")
            raise GuestUnreachable("The guest does not answer any more")
        done = await asyncio.to_thread(
            subprocess.run, ["sh", "-c", script, "swarm"], input=stdin, capture_output=True
        )
        await world.end("run", plan)
        return Completed(done.returncode, done.stdout, done.stderr)

    async def download(
        self,
        address: Address,
        script: str,
        target: Path,
        *,
        stdin: bytes = b"",
        limit_bytes: int,
        timeout_s: float,
        on_bytes: Callable[[int], None] = lambda total: None,
    ) -> Completed:
        world = self._world(address)
        plan = await world.begin("download")
        done = await self.run(address, script, stdin=stdin, timeout_s=timeout_s)
        if len(done.stdout) > limit_bytes:
            raise GuestFailed("The guest sends too much")
        await asyncio.to_thread(target.write_bytes, done.stdout)
        on_bytes(len(done.stdout))
        await world.end("download", plan)
        return replace(done, stdout=b"")

    async def upload(
        self,
        address: Address,
        script: str,
        source: Path,
        *,
        timeout_s: float,
        on_bytes: Callable[[int], None] = lambda total: None,
    ) -> Completed:
        raise NotImplementedError

    async def shell(self, address: Address, command: str | None, user: str | None) -> int:
        raise NotImplementedError

    async def forget(self, address: Address) -> None:
        return

    async def close(self) -> None:
        self.is_closed = True

    async def _act(self, call: str, address: Address, **memory: object) -> None:
        world = self._world(address)
        plan = await world.begin(call)
        agent = world.find(address)
        world.change(agent, memory=world.state(agent)["memory"] | memory)
        await world.end(call, plan)

    def _find(self, address: Address) -> AgentId:
        if self.unreachable:
            raise self.unreachable
        return self._world(address).find(address)

    def _world(self, address: Address) -> World:
        for world in self._worlds:
            if any(world.state(agent)["port"] == address.port for agent in world.agents()):
                return world
        raise GuestUnreachable("The guest does not answer")
