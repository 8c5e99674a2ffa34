"""The app on a simulated swarm whose guests flood their logs; run in a pty by `ingest`.

    python flood.py AGENTS LINES_PER_S FOLDER

Another process writes the lines, paced, into one socket for each guest; what reads them is the
program's own guest adapter, without the encryption. When the app ends, FOLDER/flood.json tells how
late its loop was and where the lines are.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import select
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from swarm_tui import spool
from swarm_tui.adapters.script import FOLLOW
from swarm_tui.adapters.ssh import SshGuest
from swarm_tui.bootstrap import make_simulated
from swarm_tui.model import Address
from swarm_tui.ui.app import Settings, SwarmApp

FRAME_S = 0.1
PACE_S = 0.02


class FloodGuest(SshGuest):
    """The guest adapter over a socket instead of SSH."""

    def __init__(self, server: Path) -> None:
        super().__init__()
        self._server = server

    @contextlib.asynccontextmanager
    async def _stream(self, address: Address, text: str, *words: str | float) -> AsyncIterator[Any]:
        if text != FOLLOW:
            await asyncio.Event().wait()
        reader, writer = await asyncio.open_unix_connection(str(self._server), limit=256 << 10)
        try:
            yield _Socket(reader)
        finally:
            writer.close()


class _Socket:
    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    async def read(self, most: int) -> bytes:
        return await self._reader.read(most)

    async def end(self, *_: int) -> None:
        await asyncio.Event().wait()


def write_lines(server: Path, agents: int, lines_per_s: int) -> None:
    """The other process: to each who connects, lines at an even pace, for ever."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(server))
    listener.listen(1000)
    links: list[socket.socket] = []
    pending: list[bytes] = []
    number = 0
    begun, due = time.time(), 0.0
    while True:
        while select.select([listener], [], [], 0)[0]:
            link, _ = listener.accept()
            link.setblocking(False)
            links.append(link)
            pending.append(b"")
        now = time.time()
        if len(links) < agents:
            begun, due = now, 0.0
        wanted = int((now - begun) * lines_per_s - due)
        due += wanted
        each, rest = divmod(wanted, max(1, len(links)))
        for place, link in enumerate(links):
            lines = []
            for _ in range(each + (place < rest)):
                number += 1
                text = f"test_{number} passed in 0.0{number} s"
                lines.append(f'{{"ts":{now:.3f},"kind":"log","text":"{text}"}}\n')
            pending[place] += "".join(lines).encode()
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                sent = link.send(pending[place])
                pending[place] = pending[place][sent:]
        time.sleep(PACE_S)


def main(agents: int, lines_per_s: int, folder: Path) -> None:
    server = folder / "flood.sock"
    source = subprocess.Popen(
        [sys.executable, __file__, "--source", str(agents), str(lines_per_s), str(server)]
    )
    while not server.exists():
        time.sleep(0.02)
    try:
        asyncio.run(run(agents, folder, server))
    finally:
        source.kill()
        source.wait()


async def run(agents: int, folder: Path, server: Path) -> None:
    logs = spool.Spool(folder / "catalogue", 256 << 20)
    supervisor, _ = make_simulated(agents, folder, FloodGuest(server), logs)
    late: list[tuple[float, float]] = []
    async with supervisor:
        frames = asyncio.create_task(_tick(late))
        app = SwarmApp(supervisor, Settings(), lambda agent: ["true"])
        await app.run_async()
        frames.cancel()
        ids = [agent.id for agent in supervisor.store.agents()]
        newest = [log.events[-1] for log in map(supervisor.store.log, ids) if log.events]
        told = {
            "late": late,
            "lag_s": max(time.time() - (event.at or 0.0) for event in newest),
            "read_out": sum(supervisor.store.log(id).total for id in ids),
            "in_memory": sum(len(supervisor.store.log(id).events) for id in ids),
            "dropped": sum(supervisor.store.log(id).lost for id in ids),
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        }
    accounts = [spool.account(logs.folder(id)) for id in ids]
    told["spooled"] = sum(account.lines for account in accounts)
    told["removed"] = sum(spool.removed(logs.folder(id)).lines for id in ids)
    told["on_disk_mb"] = sum(account.size for account in accounts) / 1e6
    (folder / "flood.json").write_text(json.dumps(told))


async def _tick(late: list[tuple[float, float]]) -> None:
    """A frame every 100 ms: when each was due, and how late it was."""
    while True:
        due = time.perf_counter() + FRAME_S
        await asyncio.sleep(FRAME_S)
        late.append((due, time.perf_counter() - due))


if __name__ == "__main__":
    if sys.argv[1] == "--source":
        write_lines(Path(sys.argv[4]), int(sys.argv[2]), int(sys.argv[3]))
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
