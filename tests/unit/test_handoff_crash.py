"""The process is killed before each step of a review and of a verdict in turn: nothing is lost."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from swarm_tui.errors import SwarmError
from swarm_tui.model import Power, Verb

from .hall import Hall, git, make_hall
from .standin import AGENT
from .steps import file_steps, killed

Verdict = Callable[[Hall], Coroutine[Any, Any, object]]


def run_cut(home: Path, verb: Verdict, at: int) -> tuple[bool, list[str]]:
    def work(on_step: Callable[[str], None]) -> None:
        hall = Hall(home)
        hall.world.on_step = on_step
        with file_steps(on_step):
            asyncio.run(verb(hall))

    return killed(work, at)


def prepared(home: Path, *, is_reviewed: bool) -> Path:
    """A hall that every cut begins with; it must be used at the place where it was made."""
    hall = make_hall(home)
    hall.work()
    if is_reviewed:
        asyncio.run(hall.review())
        hall.look()
    template = home.with_name("template")
    shutil.copytree(home, template, symlinks=True)
    return template


def each_cut(
    memory_path: Path, verb: Verdict, take_up: Callable[[Hall, bool], Coroutine[Any, Any, None]]
) -> int:
    home = memory_path / "hall"
    template = prepared(home, is_reviewed=verb is not Hall.review)
    _, all_steps = run_cut(home, verb, -1)
    pairs = itertools.pairwise(["", *all_steps])
    telling = [at for at, pair in enumerate(pairs) if is_telling(*pair)]
    for at in (*telling, len(all_steps)):
        shutil.rmtree(home)
        shutil.copytree(template, home, symlinks=True)
        was_cut, steps = run_cut(home, verb, at)
        try:
            asyncio.run(take_up(Hall(home), was_cut))
        except (AssertionError, SwarmError) as problem:
            raise AssertionError(f"killed at step {at} of {steps}") from problem
    return len(telling)


def is_telling(last: str, step: str) -> bool:
    """Whether a process killed at this step leaves another state than one killed at the last.

    It had still to do the step. What it wrote stays in the system's cache: to sync it changes
    nothing; of folders one in the other only the last holds anything.
    """
    is_nothing_done = last.startswith(("fsync", "after"))
    return not (is_nothing_done or (step.startswith("mkdir") and last.startswith("mkdir")))


async def settle(hall: Hall) -> None:
    """What a later process does first: mend what was cut off, as far as the VM tells."""
    if hall.world.power() is Power.PAUSED and hall.record.saving_in:
        # The hypervisor goes on with what the dead process had asked it for.
        [draft] = hall.snapshots.drafts(AGENT)
        assert (await hall.recover()).verb is Verb.PAUSE
        hall.world.finish_save(AGENT, draft.memory)
    if hall.record.verb:
        await hall.recover()
    hall.assert_truthful()


def test_no_crash_of_a_review_loses_state(memory_path: Path) -> None:
    head = ""

    async def take_up(hall: Hall, was_cut: bool) -> None:
        nonlocal head
        head = head or git(hall.workspace, "rev-parse", "HEAD")
        await settle(hall)
        if hall.record.review is None or hall.world.power() is Power.RUNNING:
            await hall.review()
        hall.assert_open()
        assert hall.taken().head == head
        await hall.go_on()
        hall.assert_free()

    assert each_cut(memory_path, Hall.review, take_up) > 20


@pytest.mark.parametrize("verb", [Hall.approve, Hall.send_back], ids=["approve", "send-back"])
def test_no_crash_of_a_verdict_loses_it_or_does_it_twice(memory_path: Path, verb: Verdict) -> None:
    async def take_up(hall: Hall, was_cut: bool) -> None:
        await settle(hall)
        verdict = hall.shelf.verdict(AGENT, 1)
        if verdict is None:
            assert was_cut
            hall.assert_open()
            await verb(hall)
        elif hall.record.review is not None:
            await hall.go_on()
        hall.assert_free()
        decided = hall.shelf.verdict(AGENT, 1)
        assert decided
        assert "delivered" in decided.steps
        assert [message["verdict"] for message in hall.messages()] == [decided.judgement]
        assert hall.landed() == (decided.head if verb is Hall.approve else None)

    assert each_cut(memory_path, verb, take_up) > 15
