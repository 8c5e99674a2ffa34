"""Contents of files by object id, from one git that stays; and sizes of many objects at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from swarm_tui.errors import ReviewError
from swarm_tui.review.git import BIG_FILE_BYTES, OID, Git, end

MOST_SHOWN_BYTES: Final = BIG_FILE_BYTES
"""Of larger files no content is shown, nor lines compared."""

MISSING: Final = "missing"

_TIMEOUT_S: Final = 30.0
_UNREADABLE: Final = "An object of the review cannot be read"


@dataclass(frozen=True, slots=True)
class Facts:
    """What git tells of an object without showing it."""

    oid: str
    kind: str
    """"commit", "tree", "blob" or "tag"; from `facts` also MISSING."""
    size: int


class Blobs:
    """Reads the objects of one repository; for several callers at once, one after the other."""

    def __init__(self, git: Git) -> None:
        self._git = git
        self._turn = asyncio.Lock()
        self._processes: dict[str, asyncio.subprocess.Process] = {}

    async def read(self, oid: str) -> bytes | None:
        """The content; None when it is larger than `MOST_SHOWN_BYTES`. Raises ReviewError."""
        async with self._turn:
            facts = await self._ask("--batch-check", oid)
            if facts.size > MOST_SHOWN_BYTES:
                return None
            return await self._fetch(oid)

    async def size(self, oid: str) -> int:
        """Bytes. Raises ReviewError."""
        async with self._turn:
            return (await self._ask("--batch-check", oid)).size

    async def close(self) -> None:
        async with self._turn:
            await self._end()

    async def _fetch(self, oid: str) -> bytes:
        facts = await self._ask("--batch", oid)
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                stdout = self._processes["--batch"].stdout
                assert stdout
                return (await stdout.readexactly(facts.size + 1))[:-1]
        except (TimeoutError, asyncio.IncompleteReadError) as error:
            await self._end()
            raise ReviewError(_UNREADABLE, f"git stopped in the middle of {oid}.") from error
        except asyncio.CancelledError:
            await self._end()
            raise

    async def _ask(self, mode: str, oid: str) -> Facts:
        if not OID.fullmatch(oid):
            raise ReviewError(_UNREADABLE, f"{oid} is no object id.")
        process = self._processes.get(mode)
        if process is None or process.returncode is not None:
            process = await self._git.start("cat-file", mode, stderr=asyncio.subprocess.DEVNULL)
            self._processes[mode] = process
        assert process.stdin
        assert process.stdout
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                process.stdin.write(f"{oid}\n".encode())
                await process.stdin.drain()
                answer = await process.stdout.readline()
        except (TimeoutError, OSError) as error:
            await self._end()
            raise ReviewError(_UNREADABLE, f"git does not answer about {oid}.") from error
        except asyncio.CancelledError:
            await self._end()
            raise
        return _parse(answer)

    async def _end(self) -> None:
        for process in self._processes.values():
            await end(process)
        self._processes.clear()


async def facts(git: Git, oids: Iterable[str]) -> Mapping[str, Facts]:
    """What git tells of many objects, by the id that was asked for. Raises ReviewError."""
    asked = list(dict.fromkeys(oids))
    if not asked:
        return {}
    told = await git.run(
        *("cat-file", "--batch-check", "--buffer"),
        stdin="".join(f"{oid}\n" for oid in asked).encode(),
        title=_UNREADABLE,
    )
    return {
        oid: Facts(oid, MISSING, 0) if line.endswith(b" missing") else _parse(line)
        for oid, line in zip(asked, told.splitlines(), strict=True)
    }


def _parse(answer: bytes) -> Facts:
    words = answer.decode("ascii", "replace").split()
    if len(words) != 3 or not words[2].isdecimal():
        raise ReviewError(_UNREADABLE, " ".join(words) or "git ended without an answer.")
    return Facts(words[0], words[1], int(words[2]))
