"""A stand-in for a guest: its scripts run on this machine, in a process of a shell of choice."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from swarm_tui.errors import DeadlineExceeded, GuestFailed
from swarm_tui.model import Address, Completed, EventBatch, Message


class LocalGuest:
    """`run` and `download` are real; the rest of a guest is not there."""

    def __init__(self, interpreter: str = "sh", path: str | None = None) -> None:
        """`path` is the guest's PATH."""
        self.interpreter = interpreter
        self.path = path or os.environ["PATH"]
        self.forged: bytes | None = None
        """Sent instead of what a script that downloads gives."""
        self.scripts: list[str] = []

    async def run(
        self, address: Address, script: str, *, stdin: bytes = b"", timeout_s: float
    ) -> Completed:
        self.scripts.append(script)
        process = await asyncio.create_subprocess_exec(
            *(self.interpreter, "-c", script, "swarm"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": self.path, "HOME": "/nonexistent", "IN_GUEST": "yes"},
        )
        try:
            async with asyncio.timeout(timeout_s):
                stdout, stderr = await process.communicate(stdin)
        except TimeoutError as late:
            process.kill()
            await process.communicate()
            raise DeadlineExceeded("The guest did not finish in time") from late
        assert process.returncode is not None
        return Completed(process.returncode, stdout, stderr)

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
        if self.forged is None:
            done = await self.run(address, script, stdin=stdin, timeout_s=timeout_s)
        else:
            done = Completed(0, self.forged, b"")
        if len(done.stdout) > limit_bytes:
            raise GuestFailed("The guest sends more than allowed")
        await asyncio.to_thread(target.write_bytes, done.stdout)
        on_bytes(len(done.stdout))
        return Completed(done.exit_status, b"", done.stderr)

    async def upload(
        self,
        address: Address,
        script: str,
        source: Path,
        *,
        timeout_s: float,
        on_bytes: Callable[[int], None] = lambda total: None,
    ) -> Completed:
        content = await asyncio.to_thread(source.read_bytes)
        on_bytes(len(content))
        return await self.run(address, script, stdin=content, timeout_s=timeout_s)

    def events(self, address: Address, offset: int) -> AsyncIterator[EventBatch]:
        raise NotImplementedError

    def traffic(self, address: Address, interval_s: float) -> AsyncIterator[tuple[int, int]]:
        raise NotImplementedError

    async def freeze(self, address: Address, timeout_s: float) -> None:
        raise NotImplementedError

    async def thaw(self, address: Address, timeout_s: float) -> None:
        raise NotImplementedError

    async def refresh(self, address: Address, timeout_s: float) -> None:
        raise NotImplementedError

    async def deliver(self, address: Address, message: Message, timeout_s: float) -> None:
        raise NotImplementedError

    async def shell(self, address: Address, command: str | None, user: str | None) -> int:
        raise NotImplementedError

    async def forget(self, address: Address) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError
