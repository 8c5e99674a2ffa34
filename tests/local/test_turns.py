"""Turns of agents that are made at once, and the beginning of their programs."""

from __future__ import annotations

import asyncio
import subprocess

import pytest

from swarm_tui.local import turns
from swarm_tui.local.guest import Program, render_identity
from swarm_tui.local.turns import Turns

WAIT_S = 20.0


async def test_programs_begin_when_the_last_agent_is_there() -> None:
    order = Turns()
    begun: list[int] = []
    gates = [asyncio.Event() for _ in range(3)]

    async def make(number: int) -> None:
        async with order.turn():
            await gates[number].wait()

        async def begin() -> None:
            begun.append(number)
            if len(begun) == len(gates):
                is_over.set()

        order.begin_later(begin)

    is_over = asyncio.Event()
    making = [asyncio.create_task(make(number)) for number in range(3)]
    gates[0].set()
    gates[1].set()
    await asyncio.wait_for(asyncio.gather(*making[:2]), WAIT_S)
    assert begun == []
    gates[2].set()
    await asyncio.wait_for(making[2], WAIT_S)
    await asyncio.wait_for(is_over.wait(), WAIT_S)
    assert sorted(begun) == [0, 1, 2]


async def test_a_failed_one_holds_nobody_up() -> None:
    order, is_begun = Turns(), asyncio.Event()

    async def begin() -> None:
        is_begun.set()

    async def fail() -> None:
        async with order.turn():
            order.begin_later(begin)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    await asyncio.wait_for(is_begun.wait(), WAIT_S)


async def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "BEGIN_S", 0.01)
    order, is_begun = Turns(), asyncio.Event()

    async def begin() -> None:
        is_begun.set()

    async with order.turn():
        order.begin_later(begin)
        await asyncio.wait_for(is_begun.wait(), WAIT_S)


def test_a_shell_reads_what_it_is_told() -> None:
    program = Program(bytes(range(256)), "export A='\\0101 ünd %s \"$x\" `id`'\n".encode())
    told = render_identity("one", b"\0\n\\", 0.0, "a\\nb\n", program)
    script = "while IFS= read -r line; do printf %b \"${line#*=}\"; printf '|'; done"
    done = subprocess.run(["sh", "-c", script], input=told, capture_output=True, check=True)
    _, _, _, key, task, code, environment, _ = done.stdout.replace(
        program.script, b"PROGRAM"
    ).split(b"|")
    assert (key, task, code) == (b"\0\n\\", b"a\\nb\n", b"PROGRAM")
    assert environment == program.environment
