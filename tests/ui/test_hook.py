"""A person's own program for notices: what it is given, and that it can do no harm."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from swarm_tui.errors import SwarmError
from swarm_tui.text import literal, sanitize
from swarm_tui.ui.hook import Hook
from swarm_tui.ui.notice import Notice

WRITE = """
import json, os, sys, time
with open(sys.argv[1], "a") as file:
    words = {name: value for name, value in os.environ.items() if name.startswith("SWARM_")}
    file.write(json.dumps([sys.stdin.read(), words, sys.argv[2:]]) + chr(10))
    file.flush()
time.sleep(float(sys.argv[2]))
sys.exit(int(sys.argv[3]))
"""


class Bench:
    """A hook with a program that writes down what it is given."""

    def __init__(
        self, folder: Path, *, takes_s: float = 0.0, status: int = 0, limit_s: float = 10.0
    ) -> None:
        self.file = folder / "given"
        self.failures: list[SwarmError] = []
        self.jobs: list[asyncio.Task[None]] = []
        argv = [sys.executable, "-c", WRITE, str(self.file), str(takes_s), str(status)]
        self.hook = Hook(argv, self.start, self.failures.append, limit_s=limit_s)

    def start(self, job: Coroutine[Any, Any, None]) -> None:
        self.jobs.append(asyncio.create_task(job))

    async def written(self, lines: int) -> None:
        while len(self.file.read_text().splitlines()) < lines:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.01)

    async def end(self) -> list[Any]:
        await asyncio.gather(*self.jobs)
        return [json.loads(line) for line in self.file.read_text().splitlines()]


def notice(line: str) -> Notice:
    return Notice(sanitize(line), "", {"asks": 2})


async def test_it_has_the_line_and_the_counts_and_no_shell_reads_them(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    line = f"Agent $(touch {tmp_path}/owned) asks: `id` \x1b[2J; rm -rf"
    bench.hook.call(notice(line))
    [(given, words, argv)] = await bench.end()
    assert given == f"{sanitize(line)}\n"
    assert words["SWARM_NOTICE"] == sanitize(line)
    assert (words["SWARM_ASKS"], words["SWARM_FAILURES"]) == ("2", "0")
    assert argv == ["0.0", "0"]
    assert not (tmp_path / "owned").exists()
    assert not bench.failures


async def test_one_at_a_time_and_of_those_that_wait_the_last(tmp_path: Path) -> None:
    bench = Bench(tmp_path, takes_s=0.2)
    for number in range(50):
        bench.hook.call(notice(f"number {number}"))
    given = await bench.end()
    assert [line for line, _, _ in given] == ["number 49\n"]
    bench.hook.call(notice("first"))
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await bench.written(2)
    bench.hook.call(notice("second"))
    bench.hook.call(notice("third"))
    assert [line for line, _, _ in await bench.end()][1:] == ["first\n", "third\n"]


async def test_what_does_not_end_is_ended(tmp_path: Path) -> None:
    bench = Bench(tmp_path, takes_s=600, limit_s=0.5)
    bench.hook.call(notice("why"))
    await asyncio.wait_for(asyncio.gather(*bench.jobs), 20)
    (failure,) = bench.failures
    assert "did not end" in failure.detail


async def test_a_failure_is_told_once_until_it_works_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path, status=3)
    for _ in range(3):
        bench.hook.call(notice("why"))
        await bench.end()
    (failure,) = bench.failures
    assert "ended with 3" in failure.detail
    assert failure.hint == "See ui.notify_command."


async def test_a_program_that_is_not_there_is_told() -> None:
    failures: list[SwarmError] = []
    jobs: list[asyncio.Task[None]] = []

    def start(job: Coroutine[Any, Any, None]) -> None:
        jobs.append(asyncio.create_task(job))

    hook = Hook(["/nowhere/notify"], start, failures.append)
    hook.call(Notice(literal("why"), "", {}))
    await asyncio.gather(*jobs)
    assert "No such file" in failures[0].detail
