"""Reviews of simulated agents go the real way: git, quarantine, verdicts, the landing."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import chain
from pathlib import Path

import pytest

from swarm_tui import cadence
from swarm_tui.adapters.simulated import ManualClock, SimulatedSwarm, shop
from swarm_tui.adapters.simulated.edits import File, Files, Part, apply
from swarm_tui.adapters.simulated.project import BASE, State, story
from swarm_tui.adapters.simulated.tasks import TASKS
from swarm_tui.adapters.simulated.works import WORKS
from swarm_tui.audit import Audit
from swarm_tui.bootstrap import make_simulated
from swarm_tui.catalogue import Catalogue
from swarm_tui.command import Approve, Kill, Pause, Reject, Resume, Review, SendBack
from swarm_tui.database import open_database
from swarm_tui.errors import GuestFailed, Refused, SetupError
from swarm_tui.handoff import Comment, FlagKind
from swarm_tui.handoff import Review as Taken
from swarm_tui.lifecycle import Terms
from swarm_tui.model import Agent, AgentId
from swarm_tui.model import State as AgentState
from swarm_tui.review.pull import script
from swarm_tui.review.shelf import Shelf
from swarm_tui.site import Site
from swarm_tui.snapshot import Snapshots
from swarm_tui.supervisor import Supervisor
from swarm_tui.text import literal

from .watched import Watched

DEADLINE_S = 20.0
STEP_S = 3.0


class Floor:
    """A simulated swarm under a supervisor, on a manual clock."""

    def __init__(self, agents: int, home: Path) -> None:
        self.home = home
        self.clock = ManualClock()
        self.swarm = SimulatedSwarm(agents, clock=self.clock, folder=home)
        self.ids = self.swarm.ids()
        self.shelf = Shelf(home / "reviews")
        terms = Terms(self.shelf, literal("nobody"), None, home / "allowed_signers", 1 << 20)
        self.supervisor = Supervisor(
            [Site(self.swarm.hypervisor(), self.swarm.spawner(), self.swarm.repository)],
            self.swarm.guest,
            Catalogue(open_database(f"sqlite://{home}/store.db"), home / "catalogue"),
            Snapshots(home / "snapshots"),
            Audit(home / "audit.jsonl"),
            terms,
        )

    def agent(self, agent: AgentId) -> Agent:
        return next(one for one in self.supervisor.store.agents() if one.id == agent)

    async def review(self, agent: AgentId) -> Taken:
        await self.supervisor.do(Review(agent))
        taken = self.shelf.last(agent)
        assert taken
        return taken

    async def until(self, happened: Callable[[], bool]) -> None:
        """Let the swarm live until something is so."""
        deadline = time.monotonic() + DEADLINE_S
        while not happened():
            assert time.monotonic() < deadline, "it does not happen"
            self.clock.advance(STEP_S)
            await asyncio.sleep(0.01)

    async def until_asking(self, agent: AgentId, text: str) -> None:
        def is_asking() -> bool:
            now = self.agent(agent)
            return now.state is AgentState.ASKING and text in now.reason

        await self.until(is_asking)

    def content(self, commit: str, path: str) -> str:
        """A file as it landed."""
        repository = self.swarm.repository
        assert repository
        return git(repository, "show", f"{commit}:{path}")


def git(repository: Path, *arguments: str) -> str:
    command = ["git", "-c", "safe.bareRepository=all", "-C", str(repository), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@asynccontextmanager
async def floor(agents: int, home: Path) -> AsyncIterator[Floor]:
    made = Floor(agents, home)
    async with made.supervisor:
        await made.supervisor.connected(DEADLINE_S)
        yield made


async def test_comments_are_taken_up_in_a_further_commit_and_land_when_approved(
    tmp_path: Path,
) -> None:
    async with floor(6, tmp_path) as made:
        asking = made.ids[1]
        await made.until_asking(asking, "is_locked ready")
        first = await made.review(asking)
        assert first.base == BASE
        assert first.is_uncommitted
        assert {bytes(change.path) for change in first.changes} == {
            *(b"auth/attempts.py", b"auth/login.py", b"tests/auth/test_login.py"),
        }
        for comment in (
            Comment("c1", "Why ten minutes?", b"auth/attempts.py", first=6, last=6),
            Comment("c2", "And the unlock?", b"tests/auth/test_login.py"),
        ):
            made.shelf.comment(asking, first.number, comment)
        told = await made.supervisor.do(SendBack(asking, first.number, first.digest, "Nearly."))
        assert "not signed" in told
        await made.until_asking(asking, "took up your comments")

        second = await made.review(asking)
        assert second.commits[0].subject == "Take up the review"
        assert not second.is_uncommitted
        for change in second.changes:
            made.shelf.mark(asking, change.key, is_viewed=True)
        told = await made.supervisor.do(Approve(asking, second.number, second.digest))
        assert "landed as swarm/lockout/2" in told
        landed = made.content("swarm/lockout/2", "auth/attempts.py")
        assert "# Review: Why ten minutes?\n" in landed
        tests = made.content("swarm/lockout/2", "tests/auth/test_login.py")
        assert tests.startswith("# Review: And the unlock?\n")
        assert "settings.LOGIN_LOCK_S" in landed
        verdict = made.shelf.verdict(asking, second.number)
        assert verdict
        assert (verdict.signature, verdict.reviewer) == ("", "nobody")


async def test_the_base_that_is_recorded_at_spawn_is_the_owners_commit(tmp_path: Path) -> None:
    async with floor(1, tmp_path) as made:
        await made.review(made.ids[0])
        repository = made.swarm.repository
        assert repository
        assert git(repository, "rev-parse", "main").strip() == BASE


async def test_a_rejected_agent_goes_on_without_its_work(tmp_path: Path) -> None:
    async with floor(6, tmp_path) as made:
        asking = made.ids[1]
        await made.until_asking(asking, "ready")
        taken = await made.review(asking)
        await made.supervisor.do(Reject(asking, taken.number, taken.digest, "Not by name."))
        await made.until_asking(asking, "made another plan")
        again = await made.review(asking)
        assert [bytes(change.path) for change in again.changes] == [b"docs/plans/lockout.md"]


async def test_an_agent_reviewed_unasked_asks_again_when_sent_back(tmp_path: Path) -> None:
    async with floor(1, tmp_path) as made:
        agent = made.ids[0]
        taken = await made.review(agent)
        await made.supervisor.do(SendBack(agent, taken.number, taken.digest, "Page size?"))
        await made.until_asking(agent, "took up your comments")


async def test_a_pause_in_between_changes_nothing_of_the_work(tmp_path: Path) -> None:
    async with floor(6, tmp_path) as made:
        asking = made.ids[1]
        await made.until_asking(asking, "ready")
        taken = await made.review(asking)
        await made.supervisor.do(SendBack(asking, taken.number, taken.digest, "Nearly."))
        await made.until_asking(asking, "took up")
        await made.supervisor.do(Pause(asking))
        await made.supervisor.do(Resume(asking))
        second = await made.review(asking)
        assert second.commits[0].subject == "Take up the review"


@pytest.mark.parametrize(
    ("index", "kind"),
    [
        (5, FlagKind.CI),
        (8, FlagKind.SYMLINK),
        (12, FlagKind.LOCKFILE),
        (19, FlagKind.MODE),
    ],
)
async def test_some_changes_are_flagged(tmp_path: Path, index: int, kind: FlagKind) -> None:
    async with floor(20, tmp_path) as made:
        taken = await made.review(made.ids[index])
        assert [flag.kind for flag in taken.flags] == [kind]
        with pytest.raises(Refused, match="not seen"):
            await made.supervisor.do(Approve(made.ids[index], taken.number, taken.digest))


@pytest.mark.parametrize("slug", WORKS)
def test_each_change_of_a_canned_work_changes_something(slug: str) -> None:
    work = WORKS[slug]
    files: Files = {path: File(text) for path, text in shop.FILES.items()}
    for edit in chain(*(part.edits for part in (*work.parts, Part("", work.loose), *work.later))):
        changed = apply(files, [edit])
        assert changed != files, edit
        files = changed
    for path, file in files.items():
        if path.endswith(".py"):
            compile(file.text, path, "exec")


@pytest.mark.parametrize("index", range(len(TASKS)))
def test_every_task_has_work_that_grows_with_each_answer(index: int) -> None:
    answers = (("send-back", "More."), ("approve", ""), ("approve", ""), ("send-back", "More."))
    before: Files = {path: File(text) for path, text in shop.FILES.items()}
    for count in range(len(answers) + 1):
        _, files = story(State(index, "", answers[:count], 0))
        assert files != before
        before = files


async def test_without_git_the_refusal_says_so_and_the_agent_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "sh").symlink_to(shutil.which("sh") or "/bin/sh")
    monkeypatch.setenv("PATH", str(programs))
    async with floor(1, tmp_path) as made:
        with pytest.raises(SetupError, match="git is missing") as refused:
            await made.review(made.ids[0])
        assert "It goes on; nothing was lost." in refused.value.detail + refused.value.hint
        assert made.agent(made.ids[0]).state is AgentState.RUNNING


async def test_nothing_is_made_for_agents_that_are_not_reviewed(tmp_path: Path) -> None:
    async with floor(6, tmp_path) as made:
        assert not (tmp_path / "workspaces").exists()
        await made.review(made.ids[0])
        assert [path.name for path in (tmp_path / "workspaces").iterdir()] == [made.ids[0]]
        await made.supervisor.do(Kill(made.ids[0]))
        assert not list((tmp_path / "workspaces").iterdir())


async def test_what_is_meant_for_a_guest_never_runs_here(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    pulling = script("/workspace", BASE, 1, timeout_s=10)
    made = SimulatedSwarm(1, clock=ManualClock(), folder=tmp_path)
    hypervisor = made.hypervisor()
    await hypervisor.open(lambda _: None)
    address = (await hypervisor.describe(made.ids()[0])).tag.address
    assert address
    for meant in (f"touch {trace}", f"{pulling}touch {trace}\n", f"touch {trace}\n{pulling}"):
        done = await made.guest.run(address, meant, timeout_s=10)
        assert done.exit_status == 127
        with pytest.raises(GuestFailed):
            await made.guest.download(
                address, meant, tmp_path / "pack", limit_bytes=1 << 20, timeout_s=10
            )
    assert not trace.exists()


async def test_a_swarm_without_repositories_says_so(watched: Watched, tmp_path: Path) -> None:
    address = (await watched.vm()).tag.address
    assert address
    pulling = script("/workspace", BASE, 1, timeout_s=10)
    with pytest.raises(GuestFailed, match="without repositories"):
        await watched.guest.download(
            address, pulling, tmp_path / "pack", limit_bytes=1 << 20, timeout_s=10
        )


async def test_the_demo_gives_its_agents_work_to_review(tmp_path: Path) -> None:
    supervisor, swarm = make_simulated(2, tmp_path)
    async with supervisor:
        await supervisor.connected(DEADLINE_S)
        told = await supervisor.do(Review(swarm.ids()[1]))
    assert "review 1 is open: 3 files" in told


async def test_what_is_kept_by_itself_stands_in_the_timeline_with_its_occasion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cadence, "LOOK_S", 0.01)
    rule = cadence.Cadence(3600.0, "1h", at_turns=True)
    supervisor, swarm = make_simulated(1, tmp_path, rule=rule)
    [agent] = swarm.ids()

    async def told() -> list[str]:
        kept, problem = await supervisor.past(agent)
        assert problem is None
        return [f"{one.snapshot.origin.told} by {one.snapshot.origin.by}" for one in kept]

    async with supervisor:
        await supervisor.connected(DEADLINE_S)
        deadline = time.monotonic() + DEADLINE_S
        while not await told() or supervisor._at_work:
            assert time.monotonic() < deadline, "none is made"
            await asyncio.sleep(0.01)
        await supervisor.do(Review(agent))
        first, second = await told()
    assert first in ("every 1h by rule", "turn: it asks by rule")
    assert second.startswith("review 1 by ")
