"""A host goes away at each step of each verb, and comes back: clear, nothing lost, nothing twice.

After each cut, what a person then sees and does: the screen tells that the host is lost, the audit
log how far the verb came as far as anybody knows; the host comes back, the state is true again,
and the same verb once more does what is left of it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from swarm_tui.audit import Outcome
from swarm_tui.batch import Batch, Fate
from swarm_tui.command import (
    Approve,
    Checkpoint,
    Command,
    Compare,
    Discard,
    End,
    Extend,
    Fork,
    Kill,
    Mark,
    Pause,
    Reject,
    Resume,
    Review,
    RollBack,
    Say,
    SendBack,
    Shell,
    Spawn,
)
from swarm_tui.errors import (
    GuestCut,
    GuestUnreachable,
    HostUnreachable,
    NotFound,
    Refused,
    SwarmError,
)
from swarm_tui.lifecycle import UNKNOWN
from swarm_tui.model import (
    AgentId,
    Birth,
    HostState,
    Judgement,
    Power,
    Record,
    SnapshotId,
    State,
    Verb,
)
from swarm_tui.profile import Ending, Life, Occasion
from swarm_tui.results import Results
from swarm_tui.review.shelf import Shelf
from swarm_tui.snapshot import Snapshots
from swarm_tui.supervisor import Supervisor
from swarm_tui.text import literal
from swarm_tui.watch import host as host_watch

from .cable import Cable, Return
from .hall import Hall, git, make_hall
from .lab import Lab, hurry_store, until
from .standin import AGENT, HOST

ALIVE = {State.RUNNING, State.ASKING}


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for back-offs."""
    monkeypatch.setattr(host_watch, "FIRST_BACK_OFF_S", 0.005)
    monkeypatch.setattr(host_watch, "LAST_BACK_OFF_S", 0.01)
    hurry_store(monkeypatch)


@dataclass
class Case:
    """One verb on the agent, from a state that it is legal in."""

    before: Sequence[Command]
    command: Command | Callable[[Bench], Command]
    is_there: Callable[[Bench], bool]
    """Whether what the verb is for has come about."""


class Bench(Lab):
    """A lab whose host's connection is cut, and what is known of its one agent."""

    def make(self, **options: object) -> Supervisor:
        return super().make(poll_s=3600.0)

    @property
    def snapshots(self) -> Snapshots:
        return Snapshots(self.home / "snapshots")

    @property
    def shelf(self) -> Shelf:
        return Shelf(self.home / "reviews")

    def messages(self) -> list[str]:
        inbox = self.world.inbox()
        paths = inbox.iterdir() if inbox.exists() else ()
        return [json.loads(path.read_text())["text"] for path in paths]

    def expires(self) -> float | None:
        record = self.catalogue.record(AGENT)
        return record.birth.expires if record else None

    def is_running(self) -> bool:
        is_there = AGENT in self.world.agents() and self.world.power() is Power.RUNNING
        return is_there and not self.world.state()["memory"]["frozen"]

    def is_saved(self) -> bool:
        record = self.catalogue.record(AGENT)
        return bool(record and record.saved_in in self.snapshots.ids(AGENT))

    def is_paused(self) -> bool:
        return self.world.power() is Power.PAUSED

    def has_checkpoint(self) -> bool:
        made = [self.snapshots.read(AGENT, name) for name in self.snapshots.ids(AGENT)]
        return self.is_running() and any(one.title == "here" for one in made)

    def first(self) -> SnapshotId:
        return self.snapshots.ids(AGENT)[0]

    def is_back(self) -> bool:
        """Where the checkpoint was taken, with what was given up kept beside it."""
        return self.is_running() and len(self.snapshots.ids(AGENT)) > 1

    def has_fork(self) -> bool:
        forks = [record for record in self.catalogue.records() if record.birth.parent == AGENT]
        return bool(forks) and all(record.verb is None for record in forks)

    def is_marked(self) -> bool:
        return self.snapshots.read(AGENT, self.first()).is_pinned

    def has_none(self) -> bool:
        return not self.snapshots.ids(AGENT)

    def is_gone(self) -> bool:
        kept = [*self.snapshots.drafts(AGENT), *self.snapshots.ids(AGENT)]
        disks = list((self.home / "vms").glob("*.img"))
        return not (self.world.agents() or kept or disks or self.catalogue.record(AGENT))


LIFE = {
    "pause": Case((), Pause(AGENT), Bench.is_saved),
    "quick-pause": Case((), Pause(AGENT, is_quick=True), Bench.is_paused),
    "resume": Case((Pause(AGENT),), Resume(AGENT), Bench.is_running),
    "quick-resume": Case((Pause(AGENT, is_quick=True),), Resume(AGENT), Bench.is_running),
    "kill": Case((), Kill(AGENT), Bench.is_gone),
    "kill-gracefully": Case((), Kill(AGENT, is_graceful=True), Bench.is_gone),
    "kill-saved": Case((Pause(AGENT),), Kill(AGENT), Bench.is_gone),
    "message": Case((), Say(AGENT, "hello"), lambda bench: "hello" in bench.messages()),
    "extend": Case((), Extend(AGENT, 7200.0), lambda bench: bench.expires() is not None),
    "checkpoint": Case((), Checkpoint(AGENT, "here"), Bench.has_checkpoint),
    "roll-back": Case(
        (Checkpoint(AGENT, "here"),),
        lambda bench: RollBack(AGENT, bench.first()),
        Bench.is_back,
    ),
    "roll-back-saved": Case(
        (Checkpoint(AGENT, "here"), Pause(AGENT)),
        lambda bench: RollBack(AGENT, bench.first()),
        Bench.is_back,
    ),
    "fork": Case((), Fork(AGENT), Bench.has_fork),
    "fork-saved": Case((Pause(AGENT),), Fork(AGENT), Bench.has_fork),
    "mark": Case(
        (Checkpoint(AGENT),),
        lambda bench: Mark(AGENT, bench.first(), "here", is_pinned=True),
        Bench.is_marked,
    ),
    "discard": Case(
        (Checkpoint(AGENT),), lambda bench: Discard(AGENT, bench.first()), Bench.has_none
    ),
    "shell": Case((), Shell(AGENT), Bench.is_running),
}


async def do_cut(bench: Bench, case: Case, how: Return, at: int) -> str | None:
    """Do the verb with a cut at that step, and all that comes of it; the step's name."""
    supervisor = bench.make()
    cable = Cable(bench.world, at)
    async with supervisor:
        await supervisor.connected(30)
        for command in case.before:
            await supervisor.do(command)
        stood_at = bench.world.state()["memory"]["counter"] if bench.is_running() else None
        # From here on nobody but the verb asks the host anything.
        await until(lambda: bench.world.calls.count("facts") > 1)
        wanted = case.command(bench) if callable(case.command) else case.command
        acts = len(supervisor.acts())
        cable.is_armed = True
        error = await attempt(supervisor, wanted)
        cable.is_armed = False
        if not cable.is_cut:
            return None
        check_told(supervisor, error, acts)
        await until(lambda: bench.state(supervisor) in (State.LOST, None), "it does not say lost")
        [host] = supervisor.store.hosts()
        assert host.state is HostState.DOWN
        assert "connection" in host.reason

        cable.mend(how, bench.snapshots)
        await settled(bench, supervisor)
        check_true(bench, supervisor)
        if error is None:
            assert how is Return.RESTARTED or case.is_there(bench), "told as done, and was not"
        again = await attempt(supervisor, wanted)
        if isinstance(again, Refused) and "resume it to deliver" in again.detail:
            assert error
            assert "kept; resume the agent to deliver it" in error.hint, "nobody said so"
            again = await attempt(supervisor, Resume(AGENT))
        elif isinstance(again, Refused) and "kill it again" in again.detail:
            again = await attempt(supervisor, Kill(AGENT))
        is_over = isinstance(again, Refused | NotFound) and case.is_there(bench)
        assert again is None or is_over, f"{error!r}, then {again}"
        assert case.is_there(bench), "done again, and not there"
        if isinstance(wanted, Say):
            # Whose answer was lost may be there twice when it is said twice, and never else.
            assert len(bench.messages()) <= 2
        elif not bench.is_gone():
            await go_on(bench, supervisor)
            assert stood_at is None or bench.world.counter() == stood_at + 1
        assert not supervisor.take_faults()
    return cable.steps[at]


async def attempt(supervisor: Supervisor, command: Command) -> SwarmError | None:
    try:
        await supervisor.do(command)
    except SwarmError as error:
        return error
    return None


def check_told(supervisor: Supervisor, error: SwarmError | None, acts: int) -> None:
    """The error says why, the audit log what is known of the outcome."""
    entries = supervisor.acts()[acts:]
    if not entries:  # before anything was begun
        assert isinstance(error, HostUnreachable), repr(error)
        return
    [entry] = entries
    if error is None:
        assert entry.outcome is Outcome.DONE
        return
    assert error.detail
    assert error.hint, "nobody says how it stands now, and what to do"
    is_unknown = isinstance(error, UNKNOWN) or entry.verb == Verb.MESSAGE.value
    if is_unknown and isinstance(error, GuestUnreachable):
        is_unknown = isinstance(error, GuestCut)
    assert entry.outcome is (Outcome.UNKNOWN if is_unknown else Outcome.FAILED)
    assert error.title in entry.detail


async def settled(bench: Bench, supervisor: Supervisor) -> None:
    """The host is shown as up, and what was cut off has been looked at."""
    await until(lambda: supervisor.store.hosts()[0].state is HostState.UP)
    records = supervisor._records

    def is_mended() -> bool:
        agents = supervisor.store.agents()
        is_due = any(it.record and records._needs_mending(it, it.record) for it in agents)
        return not (is_due or records.mending)

    await until(is_mended, "what was cut off is not mended")


def check_true(bench: Bench, supervisor: Supervisor) -> None:
    """What the screen says is so."""
    agent = supervisor.store.agent(AGENT)
    if agent is None:
        assert bench.is_gone()
        return
    is_known = AGENT in bench.world.agents()
    power = bench.world.power() if is_known else Power.OFF
    record = bench.catalogue.record(AGENT)
    if agent.state is State.SAVED:
        assert power is Power.OFF
        assert bench.is_saved()
    elif agent.state in ALIVE:
        assert bench.is_running()
    elif agent.state is State.PAUSED:
        assert power is Power.PAUSED
    elif agent.state is State.FROZEN:
        assert power is Power.RUNNING
    else:  # a kill that ended the VM is not done yet, and says so
        assert power is Power.OFF
        assert record
        assert agent.state is not State.LOST, "the host is there"
        assert record.verb == "kill" or not record.verb, agent.state


async def go_on(bench: Bench, supervisor: Supervisor) -> None:
    """It goes on exactly where it stood."""
    for _ in range(2):
        if not bench.is_running() or bench.state(supervisor) not in ALIVE:
            await supervisor.do(Resume(AGENT))
    assert bench.is_running()
    assert bench.world.is_working()
    assert bench.state(supervisor) in ALIVE
    record = bench.catalogue.record(AGENT)
    assert record is None or (record.verb, record.saved_in, record.saving_in) == (None, None, None)
    assert bench.world.state()["memory"]["clock"] == "right"


def fresh(home: Path, template: Path) -> Bench:
    shutil.rmtree(home, ignore_errors=True)
    if template.exists():
        shutil.copytree(template, home, symlinks=True)
    return Bench(home)


async def each_cut(home: Path, template: Path, case: Case, how: Return) -> int:
    """The number of steps; `home` is where the template was made."""
    for at in itertools.count():
        bench = await asyncio.to_thread(fresh, home, template)
        try:
            if await do_cut(bench, case, how, at) is None:
                return at
        except (AssertionError, SwarmError, OSError) as problem:
            cable = bench.world.on_step.__self__  # type: ignore[attr-defined]
            raise AssertionError(f"cut at step {at}, {cable.steps[-1:]}: {problem!r}") from problem
    raise AssertionError


@pytest.mark.parametrize("how", Return)
@pytest.mark.parametrize("verb", LIFE)
async def test_a_host_lost_at_any_step(memory_path: Path, verb: str, how: Return) -> None:
    steps = await each_cut(memory_path / "home", memory_path / "none", LIFE[verb], how)
    assert steps


@pytest.mark.parametrize("at", [0, 1])
async def test_a_host_lost_when_an_agent_is_made(memory_path: Path, at: int) -> None:
    bench = Bench(memory_path)
    cable = Cable(bench.world, at)
    async with bench.make() as supervisor:
        await supervisor.connected(30)
        await until(lambda: bench.world.calls.count("facts") > 1)
        cable.is_armed = True
        error = await attempt(supervisor, Spawn(HOST, "cobalt"))
        assert isinstance(error, HostUnreachable)
        [entry] = supervisor.acts()
        assert entry.outcome is Outcome.UNKNOWN
        await until(lambda: bench.state(supervisor) is State.LOST)
        cable.mend(Return.SAME, bench.snapshots)
        # Nobody was told that it is there: what there is of it goes.
        await until(lambda: [agent.name for agent in supervisor.store.agents()] == ["ember"])
        await until(lambda: bench.world.agents() == [AGENT])
        assert not [record for record in bench.catalogue.records() if record.id != AGENT]


async def test_a_host_lost_in_the_middle_of_a_verb_on_a_selection(memory_path: Path) -> None:
    """The others go on; what it had not begun is not begun later, behind the person's back."""
    bench = Bench(memory_path)
    other = bench.add_host("other")
    ids = [AgentId(f"6f1c7b0e-0000-4000-8000-{number:012}") for number in range(2, 20)]
    for number, agent in enumerate(ids):
        (other if number % 2 else bench.world).add(agent, f"agent-{number}")
    cable = Cable(bench.world, 20)
    async with bench.make() as supervisor:
        await supervisor.connected(30)
        await until(lambda: bench.world.calls.count("facts") > 1)
        cable.is_armed = True
        batch = Batch("pause", supervisor.store.agents(), Pause)
        await batch.run(supervisor.do)
        failed = batch.having(Fate.FAILED)
        assert {item.host for item in failed} == {HOST}
        for item in failed:
            is_cut = isinstance(item.error, HostUnreachable | GuestUnreachable)
            assert is_cut or "it is lost" in str(item.error), repr(item.error)
        done = {item.id for item in batch.having(Fate.DONE) if item.id}
        assert {agent for agent in ids if agent in other.agents()} <= done
        cable.mend(Return.SAME, bench.snapshots)
        await until(lambda: all(host.state is HostState.UP for host in supervisor.store.hosts()))
        await settled(bench, supervisor)
        shown = {agent.id: agent.state for agent in supervisor.store.agents()}
        assert all(shown[agent] is State.SAVED for agent in done)
        left = [agent for agent in supervisor.store.agents() if agent.state is not State.SAVED]
        assert left
        again = Batch("pause", left, Pause)
        await again.run(supervisor.do)
        assert not again.having(Fate.FAILED), [str(item.error) for item in again.items]
        for saved in supervisor.store.agents():
            await supervisor.do(Resume(saved.id))
        for world in bench.worlds:
            assert all(world.is_working(agent) for agent in world.agents())


# Reviews and verdicts


def verdict(make: Callable[[AgentId, int, str], Command]) -> Callable[[Bench], Command]:
    """On the review that is open, all of which was looked at."""

    def made(bench: Bench) -> Command:
        review = bench.shelf.last(AGENT)
        assert review
        for key in (review.about, *(change.key for change in review.changes)):
            bench.shelf.mark(AGENT, key, is_viewed=True)
        return make(AGENT, review.number, review.digest)

    return made


def is_reviewed(bench: Bench) -> bool:
    record = bench.catalogue.record(AGENT)
    return bool(record and record.review) and bench.is_saved()


def is_carried_out(bench: Bench) -> bool:
    """Once, and only once: it landed if it was approved, and one message tells the agent."""
    given = bench.shelf.verdict(AGENT, 1)
    landed = Hall(bench.home).landed()
    if not given or len(bench.messages()) != 1 or not bench.is_running():
        return False
    return landed == (given.head if given.judgement is Judgement.APPROVE else None)


def is_rejected(bench: Bench) -> bool:
    given = bench.shelf.verdict(AGENT, 1)
    is_decided = given is not None and given.judgement is Judgement.REJECT
    return bench.is_gone() and is_decided and not bench.shelf.quarantine(AGENT).exists()


def send_back(agent: AgentId, number: int, digest: str) -> Command:
    return SendBack(agent, number, digest, "Mend it.")


def reject(agent: AgentId, number: int, digest: str) -> Command:
    return Reject(agent, number, digest, "No.", is_kept=False)


def reject_and_keep(agent: AgentId, number: int, digest: str) -> Command:
    return Reject(agent, number, digest, "No.")


def is_kept_and_gone(bench: Bench) -> bool:
    """Its work is in the owner's repository, its result on the disk, its VM gone."""
    result = Results(bench.catalogue.database, bench.home / "results").find(AGENT)
    if result is None or not bench.is_gone():
        return False
    return git(Hall(bench.home).owner, "rev-parse", result.ref) == result.head != result.base


def expire(bench: Bench) -> Command:
    record = bench.catalogue.record(AGENT) or Record(AGENT, literal("ember"), HOST)
    birth = Birth(life=Life(60.0, on_expiry=Ending.END), expires=1.0)
    bench.catalogue.write(replace(record, birth=birth))
    return End(AGENT, Occasion.EXPIRED)


def is_taken(bench: Bench) -> bool:
    return bool(bench.shelf.numbers(AGENT)) and bench.is_running()


def is_taken_and_stands(bench: Bench) -> bool:
    return bool(bench.shelf.numbers(AGENT)) and not bench.is_running()


HANDOFF = {
    "compare": Case((), Compare(AGENT), is_taken),
    "compare-saved": Case((Pause(AGENT),), Compare(AGENT), is_taken_and_stands),
    "end": Case((), End(AGENT), is_kept_and_gone),
    "end-saved": Case((Pause(AGENT),), End(AGENT), is_kept_and_gone),
    "end-by-rule": Case((), expire, is_kept_and_gone),
    "review": Case((), Review(AGENT), is_reviewed),
    "approve": Case((), verdict(Approve), is_carried_out),
    "send-back": Case((), verdict(send_back), is_carried_out),
    "reject-and-keep": Case((), verdict(reject_and_keep), is_carried_out),
    "reject": Case((), verdict(reject), is_rejected),
}


_JUDGED = {"approve", "send-back", "reject-and-keep", "reject"}


@pytest.mark.parametrize("verb", HANDOFF)
async def test_a_host_lost_at_any_step_of_a_handoff(memory_path: Path, verb: str) -> None:
    home, template = memory_path / "home", memory_path / "template"
    hall = make_hall(home)
    hall.work()
    if verb in _JUDGED:
        await hall.review()
    shutil.copytree(home, template, symlinks=True)
    assert await each_cut(home, template, HANDOFF[verb], Return.SAME) > 5
