"""An agent's life ends well: what came of it is kept first, and else it stays."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from swarm_tui.audit import Outcome
from swarm_tui.command import End, Extend, Pause, Resume
from swarm_tui.errors import GuestFailed, Refused, ReviewError, StorageFull, SwarmError
from swarm_tui.model import Birth, EventBatch, Record, State
from swarm_tui.profile import Ending, Life, Occasion
from swarm_tui.results import Result, Results
from swarm_tui.spool import Writer, read
from swarm_tui.text import literal

from .hall import Hall, git, make_hall
from .lab import Lab
from .standin import AGENT, HOST

ENDS = Life(600.0, Ending.END, Ending.END, Ending.END)


@pytest.fixture
def hall(tmp_path: Path) -> Hall:
    return make_hall(tmp_path / "hall")


@pytest.fixture
def lab(hall: Hall) -> Lab:
    return Lab(hall.home)


def expire(lab: Lab, ending: Ending = Ending.END) -> None:
    """Its time is over since long."""
    life = Life(600.0, ending, ending, ending)
    record = lab.catalogue.record(AGENT) or Record(AGENT, literal("ember"), HOST)
    lab.catalogue.write(replace(record, birth=Birth(life=life, expires=1.0)))


def kept(lab: Lab) -> Result:
    result = Results(lab.catalogue.database, lab.home / "results").find(AGENT)
    assert result
    return result


async def test_branch_log_usage_and_reason_outlive_the_vm(hall: Hall, lab: Lab) -> None:
    hall.work()
    hall.work("more.txt", "not committed\n", is_committed=False)
    usage = b'{"kind":"usage","text":"","tokens_in":1200,"tokens_out":300}\n'
    with Writer(lab.catalogue.folder(AGENT)) as writer:
        writer.append(EventBatch((), len(usage), raw=usage, heard=time.time()))
    expire(lab)
    async with lab.running() as supervisor:
        told = await supervisor.do(End(AGENT, Occasion.EXPIRED))
        assert "2 files, not reviewed" in told
        [entry] = supervisor.acts()
        assert (entry.verb, entry.outcome) == ("end", Outcome.DONE)
    assert not lab.world.agents()
    assert not lab.catalogue.records()
    result = kept(lab)
    assert (result.occasion, result.changes, result.is_uncommitted) == (Occasion.EXPIRED, 2, True)
    assert (result.tokens_in, result.tokens_out) == (1200, 300)
    assert git(hall.owner, "show", f"{result.ref}:more.txt") == "not committed"
    assert git(hall.owner, "for-each-ref", "refs/heads/swarm") == "", "it looks approved"
    batch, _ = read(Path(result.log))
    assert [event.tokens_in for event in batch.events] == [1200]


async def test_the_act_of_a_rule_says_so_in_the_audit_log(hall: Hall, lab: Lab) -> None:
    expire(lab, Ending.PAUSE)
    async with lab.running() as supervisor:
        await supervisor.do(Pause(AGENT, occasion=Occasion.EXPIRED))
    lines = (lab.home / "audit.jsonl").read_text()
    assert "by rule: its time is over" in lines
    record = lab.catalogue.record(AGENT)
    assert record
    assert record.birth.acted is Occasion.EXPIRED


async def test_a_result_that_cannot_be_kept_keeps_the_vm(hall: Hall, lab: Lab) -> None:
    """A rule leaves the agent paused and says why; a person is told and it goes on."""
    hall.work()
    git(hall.owner, "update-ref", "refs/swarm/results", "HEAD")  # in the way of ours
    async with lab.running() as supervisor:
        with pytest.raises(SwarmError) as by_person:
            await supervisor.do(End(AGENT))
        assert "It goes on; nothing was lost." in by_person.value.hint
        assert lab.state(supervisor) is State.RUNNING
        expire(lab)
        with pytest.raises(SwarmError) as by_rule:
            await supervisor.do(End(AGENT, Occasion.EXPIRED))
        assert "It is paused until you decide" in by_rule.value.hint
        assert lab.state(supervisor) is State.SAVED
        record = lab.catalogue.record(AGENT)
        assert record
        assert record.birth.unkept
        with pytest.raises(Refused):  # not again and again
            await supervisor.do(End(AGENT, Occasion.EXPIRED))
        await supervisor.do(Extend(AGENT, 60.0))
        expire(lab)
        git(hall.owner, "update-ref", "-d", "refs/swarm/results")
        await supervisor.do(End(AGENT, Occasion.EXPIRED))
    assert not lab.world.agents()
    assert git(hall.owner, "rev-parse", kept(lab).ref) == kept(lab).head


@pytest.fixture
def full(lab: Lab) -> Iterator[Callable[[], None]]:
    """The results' place on a file system of its own, with hardly any room; gives it room."""
    folder = lab.home / "results"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a file system can be mounted by root only")

    def make_room() -> None:
        subprocess.run(["mount", "-o", "remount,size=8m", str(folder)], check=True)

    yield make_room
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_full_disk_keeps_the_vm_until_there_is_room(
    hall: Hall, lab: Lab, full: Callable[[], None]
) -> None:
    hall.work()
    said = b'{"kind":"log","text":"' + b"x" * 900 + b'"}\n'
    with Writer(lab.catalogue.folder(AGENT)) as writer:
        writer.append(EventBatch((), 200 * len(said), raw=200 * said, heard=time.time()))
    expire(lab)
    async with lab.running() as supervisor:
        with pytest.raises(StorageFull):
            await supervisor.do(End(AGENT, Occasion.EXPIRED))
        assert lab.state(supervisor) is State.SAVED
        assert Results(lab.catalogue.database, lab.home / "results").list() == []
        full()
        await supervisor.do(End(AGENT))
    assert not lab.world.agents()
    assert kept(lab).lines == 200


async def test_a_guest_that_does_not_give_its_work_keeps_its_vm(hall: Hall, lab: Lab) -> None:
    (hall.workspace / ".git" / "HEAD").write_text("ref: refs/heads/none\n")
    async with lab.running() as supervisor:
        with pytest.raises((ReviewError, GuestFailed)):
            await supervisor.do(End(AGENT))
        assert lab.state(supervisor) is State.RUNNING
    assert Results(lab.catalogue.database, lab.home / "results").list() == []


async def test_work_that_no_repository_takes_is_kept_as_a_bundle(hall: Hall, lab: Lab) -> None:
    hall.work()
    hall.owner.rename(hall.home / "away.git")
    git(hall.home, "init", "-q", "--bare", str(hall.owner))
    async with lab.running() as supervisor:
        await supervisor.do(End(AGENT))
    result = kept(lab)
    assert result.ref == ""
    away = hall.home / "away.git"
    git(away, "fetch", "-q", result.bundle, "refs/swarm/result:refs/heads/got")
    assert git(away, "rev-parse", "got") == result.head


async def test_more_time_is_given_from_the_end_and_rules_begin_anew(lab: Lab) -> None:
    async with lab.running() as supervisor:
        await supervisor.do(Pause(AGENT))
        record = lab.catalogue.record(AGENT)
        assert record
        soon = time.time() + 100.0
        birth = Birth(life=ENDS, expires=soon, acted=Occasion.EXPIRED)
        lab.catalogue.write(replace(record, birth=birth))
        await supervisor.do(Extend(AGENT, 3600.0))
        now = lab.catalogue.record(AGENT)
        assert now
        assert now.birth.expires == pytest.approx(soon + 3600.0)
        assert now.birth.acted is None
        assert lab.state(supervisor) is State.SAVED
        await supervisor.do(Extend(AGENT, None, is_pinned=True))
        await supervisor.do(Resume(AGENT))
        now = lab.catalogue.record(AGENT)
        assert now
        assert (now.birth.expires, now.birth.is_pinned) == (None, True)
