"""What a link into a guest costs us: each is a real SSH connection, to sshd on this machine.

Run as a program, it is the side that is measured: it follows the guests as the app does.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import swarms
from figure import Figure

from swarm_tui.adapters.ssh import SshGuest
from swarm_tui.model import Address

TRAFFIC_S: Final = 2.0
_LINES_PER_S: Final = 5.0


def links(folder: Path, is_quick: bool) -> Iterator[Figure]:
    """A link into a guest: memory, a handshake, and CPU while it is quiet, talks, is measured."""
    sys.path.append(str(Path(__file__).parents[2] / "tests"))  # behind our own modules
    from adapters.openssh import SSHD, Server

    if SSHD is None:
        yield Figure("links into guests", None, "%", "not measured: there is no sshd")
        return
    guests, window_s = (10, 4) if is_quick else (40, 10)
    server = Server(folder / "sshd", ["MaxStartups 500"])
    server.start()
    try:
        run = folder / "run"
        run.mkdir()
        about = [str(server.identity), server.public_key, str(server.port), str(run)]
        done = subprocess.run(
            [sys.executable, __file__, *about, str(guests), str(window_s)],
            env=swarms.environ(folder),
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        server.stop()
        server.cut()
    how = f"{guests} guests, each a real sshd's connection of its own; CPU and VmRSS of our side"
    told = json.loads(done.stdout)
    for name, unit in (
        ("memory", "kB"),
        ("CPU to make one", "ms"),
        ("CPU while it is quiet", "% of a core"),
        (f"CPU at {_LINES_PER_S:g} lines a second", "% of a core"),
        ("CPU while its traffic is asked for besides", "% of a core"),
    ):
        yield Figure(f"a link into a guest, {name}", told[name], unit, how)


# The side that is measured


async def _follow(addresses: Sequence[Address], run: Path, window_s: float) -> dict[str, float]:
    guest = SshGuest(str(run))
    await asyncio.sleep(0.5)
    count = len(addresses)
    heard = asyncio.Semaphore(0)

    async def follow(address: Address) -> None:
        is_first = True
        async for _ in guest.events(address, 0):
            if is_first:
                heard.release()
            is_first = False

    async def measure(address: Address) -> None:
        async for _ in guest.traffic(address, TRAFFIC_S):
            pass

    async def percent() -> float:
        cpu, begun = time.process_time(), time.perf_counter()
        await asyncio.sleep(window_s)
        return 100 * (time.process_time() - cpu) / (time.perf_counter() - begun) / count

    memory, cpu = _memory_kb(), time.process_time()
    tasks = [asyncio.create_task(follow(address)) for address in addresses]
    for _ in addresses:
        await heard.acquire()
    made = time.process_time() - cpu
    await asyncio.sleep(1)
    told = {
        "memory": (_memory_kb() - memory) / count,
        "CPU to make one": 1000 * made / count,
        "CPU while it is quiet": await percent(),
    }
    ended = threading.Event()
    talking = threading.Thread(target=_talk, args=(run, ended))
    talking.start()
    told[f"CPU at {_LINES_PER_S:g} lines a second"] = await percent()
    ended.set()
    talking.join()
    tasks += [asyncio.create_task(measure(address)) for address in addresses]
    await asyncio.sleep(3)
    told["CPU while its traffic is asked for besides"] = await percent()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await guest.close()
    return told


def _talk(run: Path, ended: threading.Event) -> None:
    """All guests read the same file: what is written once is said by each of them."""
    line = json.dumps({"kind": "log", "text": "x" * 80}) + "\n"
    while not ended.wait(1 / _LINES_PER_S):
        with (run / "events.jsonl").open("a") as file:
            file.write(line)


def _memory_kb() -> float:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1])


if __name__ == "__main__":
    identity, host_key, port, run, guests, window_s = sys.argv[1:]
    addresses = [  # that differ: guests with the same address would share a connection
        Address("127.0.0.1", int(port), host_key, Path(identity), workspace=f"/{number}")
        for number in range(int(guests))
    ]
    print(json.dumps(asyncio.run(_follow(addresses, Path(run), float(window_s)))))
