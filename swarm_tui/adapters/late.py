"""Guests and signers that are made when they are first asked for anything, in a thread.

What they are made of is asyncssh: loading it takes a third of the time from the program's start to
the first painted grid, for which neither of them is needed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Generic, TypeVar

from swarm_tui.model import Address, Completed, EventBatch, Message
from swarm_tui.ports import Guest, Signature, Signer

T = TypeVar("T")


class _Late(Generic[T]):
    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._making = asyncio.Lock()
        self.made: T | None = None

    async def get(self) -> T:
        async with self._making:
            if self.made is None:
                self.made = await asyncio.to_thread(self._make)
        return self.made


class LateGuest:
    """Implements `ports.Guest` with another one."""

    def __init__(self, make: Callable[[], Guest]) -> None:
        self._late = _Late(make)

    async def events(self, address: Address, offset: int) -> AsyncIterator[EventBatch]:
        guest = await self._late.get()
        async with aclosing(guest.events(address, offset)) as batches:  # type: ignore[type-var]
            async for batch in batches:
                yield batch

    async def traffic(self, address: Address, interval_s: float) -> AsyncIterator[tuple[int, int]]:
        guest = await self._late.get()
        async with aclosing(guest.traffic(address, interval_s)) as readings:  # type: ignore[type-var]
            async for reading in readings:
                yield reading

    async def freeze(self, address: Address, timeout_s: float) -> None:
        await (await self._late.get()).freeze(address, timeout_s)

    async def thaw(self, address: Address, timeout_s: float) -> None:
        await (await self._late.get()).thaw(address, timeout_s)

    async def refresh(self, address: Address, timeout_s: float) -> None:
        await (await self._late.get()).refresh(address, timeout_s)

    async def deliver(self, address: Address, message: Message, timeout_s: float) -> None:
        await (await self._late.get()).deliver(address, message, timeout_s)

    async def run(
        self, address: Address, script: str, *, stdin: bytes = b"", timeout_s: float
    ) -> Completed:
        guest = await self._late.get()
        return await guest.run(address, script, stdin=stdin, timeout_s=timeout_s)

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
        guest = await self._late.get()
        return await guest.download(
            address,
            script,
            target,
            stdin=stdin,
            limit_bytes=limit_bytes,
            timeout_s=timeout_s,
            on_bytes=on_bytes,
        )

    async def upload(
        self,
        address: Address,
        script: str,
        source: Path,
        *,
        timeout_s: float,
        on_bytes: Callable[[int], None] = lambda total: None,
    ) -> Completed:
        guest = await self._late.get()
        return await guest.upload(address, script, source, timeout_s=timeout_s, on_bytes=on_bytes)

    async def shell(self, address: Address, command: str | None, user: str | None) -> int:
        return await (await self._late.get()).shell(address, command, user)

    async def forget(self, address: Address) -> None:
        if self._late.made:
            await self._late.made.forget(address)

    async def close(self) -> None:
        if self._late.made:
            await self._late.made.close()


class LateSigner:
    """Implements `ports.Signer` with another one."""

    def __init__(self, make: Callable[[], Signer]) -> None:
        self._late = _Late(make)

    async def sign(self, payload: bytes) -> Signature:
        return await (await self._late.get()).sign(payload)

    async def check(
        self, payload: bytes, armored: str, principal: str, allowed_signers: Path
    ) -> str:
        signer = await self._late.get()
        return await signer.check(payload, armored, principal, allowed_signers)
