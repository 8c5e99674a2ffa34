"""What one host that hangs may take of what all hosts share: nothing."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from swarm_tui.adapters.calls import Tries, look_up
from swarm_tui.errors import HostUnreachable
from swarm_tui.model import HostName

DEADLINE_S = 30.0
HANGING = 200


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What hangs, hangs until it is set, which the end of a test does."""
    gate = threading.Event()
    yield gate
    gate.set()


async def test_names_that_nobody_answers_for_hold_up_no_other(
    gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def ask(host: str, *arguments: Any, **options: Any) -> Any:
        if host.startswith("dead-") and not options.get("flags"):
            assert gate.wait(DEADLINE_S)
        return real("127.0.0.1" if gate.is_set() or host == "live" else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    hanging = [asyncio.create_task(look_up(f"dead-{number}", 22)) for number in range(HANGING)]
    async with asyncio.timeout(DEADLINE_S):
        assert await look_up("live", 22) == [(socket.AF_INET, ("127.0.0.1", 22))]
        assert await asyncio.to_thread(lambda: "read") == "read", "the files wait for the names"
    assert not any(task.done() for task in hanging)
    gate.set()
    await asyncio.gather(*hanging, return_exceptions=True)


async def test_an_address_is_no_name_to_ask_for() -> None:
    before = threading.active_count()
    assert await look_up("::1", 22) == [(socket.AF_INET6, ("::1", 22, 0, 0))]
    assert threading.active_count() == before


async def test_a_host_that_never_answers_is_not_tried_without_end(
    gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = Tries(HostName("far"))
    waiting = [tries.begin(gate.wait) for _ in range(4)]
    with pytest.raises(HostUnreachable, match="4 tries to connect still wait"):
        tries.begin(gate.wait)
    # It is tried again in time, and as before once it answers.
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 3600)
    waiting.append(tries.begin(gate.wait))
    monkeypatch.undo()
    gate.set()
    await asyncio.gather(*waiting)
    for _ in range(50):
        await tries.begin(lambda: None)
