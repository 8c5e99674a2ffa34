"""Someone who follows a guest's events, and the guest that writes them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

from swarm_tui.adapters.ssh import SshGuest
from swarm_tui.errors import (
    GuestError,
)
from swarm_tui.model import Address, EventBatch, GuestEvent

from .sshd import until


def append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)


def log_lines(first: int, last: int) -> bytes:
    return b"".join(
        json.dumps({"kind": "log", "text": f"line {number}"}).encode() + b"\n"
        for number in range(first, last)
    )


async def hear_some(batches: AsyncIterator[EventBatch]) -> EventBatch:
    """The next that holds events: the first may only say that the guest answers."""
    async for batch in batches:
        if batch.events:
            return batch
    raise AssertionError("it ended")


class Follower:
    """Follows a guest's events as the supervisor does: from where the last batch ended."""

    def __init__(self, guest: SshGuest, address: Address) -> None:
        self._guest, self._address = guest, address
        self.offset = 0
        self.events: list[GuestEvent] = []
        self.dropped = 0
        self.batches: list[EventBatch] = []
        self.failure: GuestError | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def texts(self) -> list[str]:
        return [str(event.text) for event in self.events]

    async def __aenter__(self) -> Follower:
        self.follow()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task
        self._task.cancel()
        await asyncio.wait([self._task])

    def follow(self) -> None:
        self.failure = None
        self._task = asyncio.create_task(self._follow())

    async def hear(self, count: int) -> list[str]:
        await until(lambda: self.failure or len(self.events) >= count)
        assert not self.failure, str(self.failure)
        return self.texts

    async def _follow(self) -> None:
        try:
            async with contextlib.aclosing(
                self._guest.events(self._address, self.offset)  # type: ignore[type-var]
            ) as batches:
                async for batch in batches:
                    self.batches.append(batch)
                    self.events += batch.events
                    self.dropped += batch.dropped
                    self.offset = batch.offset
        except GuestError as error:
            self.failure = error
