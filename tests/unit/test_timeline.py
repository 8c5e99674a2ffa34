"""Checkpoints of an agent that goes on, and the way back to one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from errno import ENOSPC
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from swarm_tui import durable
from swarm_tui.command import Checkpoint, Discard, Mark, Pause, Review, RollBack
from swarm_tui.errors import HostError, Refused, SnapshotError, StorageFull, SwarmError
from swarm_tui.inventory import Inventory
from swarm_tui.model import Cause, Origin, Power, Snapshot, State
from swarm_tui.snapshot import Snapshots
from swarm_tui.text import literal

from .hall import make_hall
from .lab import Lab
from .standin import AGENT, Call
from .steps import file_steps, killed
from .workbench import STANDS_AT, Site, make_site


@pytest.fixture
def lab(memory_path: Path) -> Lab:
    return Lab(memory_path)


def snapshots(lab: Lab) -> list[Snapshot]:
    files = Snapshots(lab.home / "snapshots")
    return [files.read(AGENT, name) for name in files.ids(AGENT)]


@pytest.fixture(params=["running", "by-save"])
def either(request: pytest.FixtureRequest, lab: Lab) -> Lab:
    """On a driver that can write the memory of a VM that goes on, and on one that cannot."""
    if request.param == "by-save":
        lab.world.missing["dump"] = "it saves a VM only by ending it"
    return lab


async def test_back_to_where_it_was(either: Lab) -> None:
    world = either.world
    async with either.running() as supervisor:
        done = await supervisor.do(Checkpoint(AGENT, "green tests"))
        assert "stood still for" in done
        assert either.state(supervisor) is State.RUNNING
        for _ in range(3):
            world.tick()
        [made] = snapshots(either)
        assert (made.title, made.origin.cause, made.is_frozen) == (
            "green tests",
            Cause.CHECKPOINT,
            "dump" in world.missing,
        )
        assert made.origin.by
        done = await supervisor.do(RollBack(AGENT, made.id))
        assert "rolled back to green tests" in done
        assert world.counter() == 1, "memory and disk are not those of the checkpoint"
        assert world.is_working()
        _, before = snapshots(either)
        assert before.origin.told == "before roll back to green tests"
        await supervisor.do(RollBack(AGENT, before.id))
        assert world.counter() == 4, "what was given up cannot be had back"
        assert world.is_working()
        assert [entry.verb for entry in supervisor.acts()] == [
            "checkpoint",
            "roll-back",
            "roll-back",
        ]


async def test_a_saved_agent_goes_back(lab: Lab) -> None:
    async with lab.running() as supervisor:
        await supervisor.do(Checkpoint(AGENT))
        lab.world.tick()
        await supervisor.do(Pause(AGENT))
        chosen, present = (one.id for one in snapshots(lab))
        with pytest.raises(Refused, match="stands there already"):
            await supervisor.do(RollBack(AGENT, present))
        await supervisor.do(RollBack(AGENT, chosen))
        assert lab.world.counter() == 1


@pytest.mark.parametrize("harm", ["damaged", "other-version"])
async def test_one_that_cannot_be_restored_is_refused_before_anything_is_touched(
    lab: Lab, harm: str
) -> None:
    async with lab.running() as supervisor:
        await supervisor.do(Checkpoint(AGENT))
        [made] = snapshots(lab)
        folder = lab.home / "snapshots" / AGENT / made.id
        if harm == "damaged":
            (folder / "disk-0").write_bytes(b"another")
        else:
            manifest = folder / "manifest.json"
            manifest.write_text(manifest.read_text().replace("STANDIN 1.0", "STANDIN 0.9"))
        lab.world.tick()
        lab.world.calls.clear()
        with pytest.raises(SnapshotError):
            await supervisor.do(RollBack(AGENT, made.id))
        assert not {"save", "suspend", "freeze"} & set(lab.world.calls)
        assert lab.world.is_working()
        assert len(snapshots(lab)) == 1


async def test_the_present_comes_back_when_the_past_cannot_be_restored(lab: Lab) -> None:
    async with lab.running() as supervisor:
        await supervisor.do(Checkpoint(AGENT))
        [made] = snapshots(lab)
        lab.world.tick()
        restore = lab.world.restore
        tried: list[Path] = []

        def fail_once(agent: object, target: Path) -> None:
            tried.append(target)
            if len(tried) == 1:
                raise HostError("The VM was not restored", "no reason")
            restore(AGENT, target)

        lab.world.restore = fail_once  # type: ignore[method-assign]
        with pytest.raises(HostError) as raised:
            await supervisor.do(RollBack(AGENT, made.id))
        assert "The present came back; nothing was lost." in raised.value.hint
        assert len(tried) == 2
        assert lab.world.counter() == 2
        assert lab.world.is_working()


@pytest.mark.parametrize("call", ["definition", "suspend", "dump", "check_saved"])
async def test_a_checkpoint_that_fails_leaves_the_agent_as_it_was(lab: Lab, call: str) -> None:
    async with lab.running() as supervisor:
        lab.world.plans[call] = Call(before=StorageFull("No room to save the VM", "0 free"))
        with pytest.raises(SwarmError) as raised:
            await supervisor.do(Checkpoint(AGENT))
        lab.world.plans.clear()
        assert "It goes on; nothing was lost." in raised.value.hint
        assert lab.world.is_working()
        files = Snapshots(lab.home / "snapshots")
        assert not files.ids(AGENT)
        assert not files.drafts(AGENT)


@pytest.mark.parametrize("step", ["copy_quickly", "digest", "write"])
async def test_a_disk_that_is_full_in_the_middle_of_a_checkpoint(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """While the disks are copied, with its vCPUs stopped, or while it is sealed."""
    async with lab.running() as supervisor:
        await supervisor.do(Checkpoint(AGENT, "before"))
        kept = snapshots(lab)
        tried: list[object] = []

        def fill(*given: object) -> str:
            tried.append(given)
            raise OSError(ENOSPC, "No space left on device")

        with monkeypatch.context() as full:
            full.setattr(durable, step, fill)
            with pytest.raises(StorageFull) as raised:
                await supervisor.do(Checkpoint(AGENT))
        assert tried
        assert "It goes on; nothing was lost." in raised.value.hint
        assert lab.world.is_working()
        assert lab.state(supervisor) is State.RUNNING
        assert snapshots(lab) == kept
        assert not Snapshots(lab.home / "snapshots").drafts(AGENT)
        await supervisor.do(Checkpoint(AGENT))
        assert len(snapshots(lab)) == len(kept) + 1


async def test_a_review_of_what_was_given_up_is_void(memory_path: Path) -> None:
    hall = make_hall(memory_path)
    hall.work()
    lab = Lab(memory_path)
    async with lab.running() as supervisor:
        await supervisor.do(Checkpoint(AGENT))
        await supervisor.do(Review(AGENT))
        first, taken = snapshots(lab)
        assert (taken.origin.cause, taken.origin.told) == (Cause.REVIEW, "review 1")
        done = await supervisor.do(RollBack(AGENT, first.id))
        assert "review 1 is void" in done
        record = lab.catalogue.record(AGENT)
        assert record
        assert (record.review, record.saved_in, record.verb) == (None, None, None)


async def test_names_and_pins(lab: Lab) -> None:
    async with lab.running() as supervisor:
        await supervisor.do(Checkpoint(AGENT, origin=Origin(Cause.TURN, literal("turn 1"))))
        [made] = snapshots(lab)
        await supervisor.do(Mark(AGENT, made.id, "a \x1b[31mname", is_pinned=True))
        [marked] = snapshots(lab)
        assert (marked.title, marked.is_pinned) == ("a ␛[31mname", True)
        [known] = Inventory(lab.catalogue.database).known(AGENT)
        assert (known.snapshot.title, known.snapshot.is_pinned) == (marked.title, True)
        await supervisor.do(Pause(AGENT))
        _, present = snapshots(lab)
        with pytest.raises(Refused, match="needed"):
            await supervisor.do(Discard(AGENT, present.id))
        await supervisor.do(Discard(AGENT, made.id))
        assert [one.id for one in snapshots(lab)] == [present.id]


# The process dies


@pytest.mark.parametrize("is_lacking", [False, True], ids=["running", "by-save"])
@pytest.mark.parametrize("verb", [Site.checkpoint, Site.roll_back])
def test_no_crash_loses_state(
    memory_path: Path, verb: Callable[[Site], Coroutine[Any, Any, object]], is_lacking: bool
) -> None:
    """A child process is killed before each step in turn; the next one lets the agent go on."""
    at, was_cut = 0, True
    while was_cut:
        home = memory_path / str(at)
        site = make_site(home, disks=1)
        if verb is Site.roll_back:
            asyncio.run(site.checkpoint())
            site.world.tick()
        site.catalogue.close()  # SQLite's connections must not go over a fork
        was_cut, steps = killed(partial(cut_there, home, verb, is_lacking), at)
        asyncio.run(assert_goes_on(site, was_cut, f"killed at step {at} of {steps}"))
        at += 1
    assert at > 10


def cut_there(
    home: Path,
    verb: Callable[[Site], Coroutine[Any, Any, object]],
    is_lacking: bool,
    on_step: Callable[[str], None],
) -> None:
    site = Site(home)
    site.world.on_step = on_step
    site.missing = {"dump": "it saves a VM only by ending it"} if is_lacking else {}
    with file_steps(on_step):
        asyncio.run(verb(site))


async def assert_goes_on(site: Site, was_cut: bool, where: str) -> None:
    world = site.world
    if world.power() is Power.PAUSED and world.state()["reason"] == "saving":
        # The hypervisor goes on with what the dead process had asked it for.
        [draft] = site.snapshots.drafts(AGENT)
        world.finish_save(AGENT, draft.memory)
    if site.record.verb:
        await site.recover()
    assert world.power() is Power.RUNNING, f"it does not go on: {where}"
    assert world.counter() in (STANDS_AT, STANDS_AT + 1), where
    assert world.is_working(), where
    record = site.record
    assert (record.verb, record.saved_in, record.saving_in) == (None, None, None), where
    for name in site.snapshots.ids(AGENT):
        site.snapshots.verify(AGENT, name, "STANDIN 1.0")
    if not was_cut:
        assert site.snapshots.ids(AGENT)
