"""What it costs to share one store, and how soon the others see what one did.

Beside it the same with a small daemon that alone has the store: each act goes to it over a socket,
it writes, and tells all who are connected.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from figure import Figure, median, percentile, spread

from swarm_tui.catalogue import Catalogue
from swarm_tui.database import open_database
from swarm_tui.model import AgentId, HostName, Record, SnapshotId, Verb
from swarm_tui.store import Store
from swarm_tui.text import literal
from swarm_tui.watch import RecordWatch

sys.path.append(str(Path(__file__).parents[2] / "tests"))  # behind our own modules

from postgres import cluster

AGENTS: Final = 1000
SEEN_S: Final = 1.0
HOST: Final = HostName("bench")
IDLE_S: Final = 10.0


def store(folder: Path, is_quick: bool) -> Iterator[Figure]:
    """The shared store: time of a write, how soon others see it, what idle supervisors cost."""
    rounds = 40 if is_quick else 150
    with cluster(is_durable=True) as server:
        for kind, url in (
            ("SQLite", f"sqlite://{folder}/store.db"),
            ("PostgreSQL", server.make_database()),
        ):
            yield from _measure(kind, url, folder, rounds)
    seconds = asyncio.run(_by_daemon(folder, rounds))
    how = f"a daemon with the same SQLite file, {rounds} acts over a Unix socket"
    yield Figure("daemon: act until others see it", percentile(seconds, 95), "s", how)
    usage = _idle([str(folder)], ["daemon"], 1)
    yield Figure("daemon: its own idle CPU", usage, "% of a core", "idle, of one more process")


def _measure(kind: str, url: str, folder: Path, rounds: int) -> Iterator[Figure]:
    catalogue = Catalogue(open_database(url), folder / kind / "catalogue")
    records = [_record(number) for number in range(AGENTS)]
    with catalogue.claim(records[0].id, Verb.PAUSE) as claim:
        for record in records[1:]:
            catalogue.write(record)
        writes = []
        for number in range(rounds):
            begun = time.perf_counter()
            claim.write(replace(records[0], is_frozen=number % 2 == 0))
            writes.append(time.perf_counter() - begun)
    how = f"{kind}, synced, {AGENTS:,} records, {rounds} times"
    yield Figure(
        f"{kind}: a record written", 1000 * median(writes), "ms", how, detail=spread(writes)
    )
    seen = asyncio.run(_seen(url, folder / kind / "catalogue", catalogue, records[0], rounds))
    yield Figure(
        f"{kind}: seen by the other",
        percentile(seen, 99),
        "s",
        f"{how}; p99 from the write's end to the other's screen state",
        SEEN_S,
        detail=spread(seen),
    )
    catalogue.close()
    for count in (1, 3):
        usage = _idle([url, str(folder / kind / "catalogue")], ["watch"], count)
        name = f"{kind}: idle feed, {count} supervisor{'s' if count > 1 else ''}"
        yield Figure(name, usage, "% of a core", f"all together, {AGENTS:,} records, {IDLE_S:g} s")


def _record(number: int) -> Record:
    agent = AgentId(f"00000000-0000-4000-8000-{number:012}")
    return Record(agent, literal(f"agent-{number}"), HOST, saved_in=SnapshotId("one"))


async def _seen(
    url: str, folder: Path, writer: Catalogue, record: Record, rounds: int
) -> list[float]:
    known, catalogue = Store(), Catalogue(open_database(url), folder)
    watching = asyncio.create_task(_watch(known, catalogue).run())

    def is_frozen() -> bool | None:
        agent = known.agent(record.id)
        return agent.record.is_frozen if agent and agent.record else None

    seconds = []
    for number in range(rounds):
        wanted = number % 2 == 0
        await asyncio.to_thread(writer.write, replace(record, is_frozen=wanted))
        written = time.perf_counter()
        while is_frozen() is not wanted:  # noqa: ASYNC110 - what a screen would show
            await asyncio.sleep(0.001)
        seconds.append(time.perf_counter() - written)
        await asyncio.sleep(0.037)  # not in step with anybody's clock
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    catalogue.close()
    return seconds


def _watch(known: Store, catalogue: Catalogue) -> RecordWatch:
    def start(
        work: Coroutine[Any, Any, None], name: str, _on_failure: object = None
    ) -> asyncio.Task[None]:
        return asyncio.create_task(work, name=name)

    async def reread(_agent: AgentId) -> None:
        """There are no VMs."""

    return RecordWatch(
        catalogue, known, known.apply, start, {HOST}, (), lambda *_: None, reread, print
    )


def _idle(arguments: list[str], mode: list[str], count: int) -> float:
    """CPU of that many processes together, in percent of a core."""
    command = [sys.executable, __file__, *mode, *arguments]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    return 100 * sum(float(process.communicate()[0]) for process in processes) / IDLE_S


async def _idle_here(work: Coroutine[Any, Any, None]) -> None:
    """Tell what `work` costs once it has begun and nothing happens."""
    task = asyncio.create_task(work)
    await asyncio.sleep(2)
    begun = time.process_time()
    await asyncio.sleep(IDLE_S)
    print(time.process_time() - begun)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


# The daemon that there is not


async def _by_daemon(folder: Path, rounds: int) -> list[float]:
    socket = folder / "daemon.sock"
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "daemon", str(folder), stdout=subprocess.DEVNULL
    )
    while not socket.exists():  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.01)
    _, writer = await asyncio.open_unix_connection(socket)
    other, _ = await asyncio.open_unix_connection(socket)
    seconds = []
    for number in range(rounds):
        begun = time.perf_counter()
        writer.write(json.dumps({"is_frozen": number % 2 == 0}).encode() + b"\n")
        await other.readline()
        seconds.append(time.perf_counter() - begun)
    process.terminate()
    await process.wait()
    return seconds


async def _serve(folder: Path) -> None:
    catalogue = Catalogue(open_database(f"sqlite://{folder}/store.db"), folder / "catalogue")
    readers: set[asyncio.StreamWriter] = set()

    async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        readers.add(writer)
        while line := await reader.readline():
            record = replace(_record(0), is_frozen=json.loads(line)["is_frozen"])
            await asyncio.to_thread(catalogue.write, record)
            for each in readers:
                each.write(line)

    socket = folder / "daemon.sock"
    socket.unlink(missing_ok=True)
    async with await asyncio.start_unix_server(attend, socket) as server:
        await server.serve_forever()


if __name__ == "__main__":
    if sys.argv[1] == "daemon":
        asyncio.run(_idle_here(_serve(Path(sys.argv[2]))))
    else:
        shown = Catalogue(open_database(sys.argv[2]), Path(sys.argv[3]))
        asyncio.run(_idle_here(_watch(Store(), shown).run()))
