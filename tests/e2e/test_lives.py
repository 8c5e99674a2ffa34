"""Agents of a profile on real VMs: who is done, and who has failed, ends by rule."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Callable

import pytest

from swarm_tui.bootstrap import make_supervisor
from swarm_tui.command import Spawn
from swarm_tui.config import load
from swarm_tui.model import AgentId, State
from swarm_tui.profile import Ending, Life, Occasion, Profile
from swarm_tui.text import literal

from .conftest import Swarm

pytestmark = pytest.mark.vm
WAIT_S = 90.0


async def until(is_so: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.1)


def profile(name: str, script: str, life: Life) -> Profile:
    return Profile(literal(name), command=("sh", "-c", script), life=life)


async def test_done_is_ended_with_its_work_and_failed_is_paused(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in swarm.environ.items():
        if name.startswith("SWARM_TUI_"):
            monkeypatch.setenv(name, value)
    life = Life(on_done=Ending.END, on_failed=Ending.PAUSE)
    good = profile("good", "echo made >made.txt; git add .; git commit -qm 'Make it'", life)
    bad = profile("bad", "echo 'no such tool'; exit 3", life)
    async with make_supervisor(load()) as supervisor:
        await supervisor.connected(30)
        [host] = supervisor.spawners()
        made = await asyncio.gather(
            *(supervisor.spawn(Spawn(host, profile=one)) for one in (good, bad))
        )
        done, failed = (one.agent for one in made)
        results = supervisor.results
        await until(lambda: results.find(done), "it is done, and its result is kept")
        await until(lambda: supervisor.store.agent(done) is None, "its VM goes")

        def state(agent: AgentId) -> State | None:
            known = supervisor.store.agent(agent)
            return known.state if known else None

        await until(lambda: state(failed) is State.SAVED, "it has failed, and is paused")
    result = results.find(done)
    assert result
    assert (result.occasion, result.profile, result.changes) == (Occasion.DONE, "good", 1)
    show = ["git", "-C", result.repository, "show", f"{result.ref}:made.txt"]
    assert await asyncio.to_thread(subprocess.check_output, show) == b"made\n"
    [act] = [act for act in swarm.json("audit")["acts"] if act["agent"] == failed]
    assert (act["verb"], act["outcome"]) == ("pause", "done")
    assert swarm.run("kill", failed, "--yes").returncode == 0
