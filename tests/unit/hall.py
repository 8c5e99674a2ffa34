"""A stand-in agent with a real git workspace, its owner's repository, and a reviewer."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from swarm_tui.command import Approve, Reject, Resume, SendBack
from swarm_tui.handoff import Comment, Review
from swarm_tui.lifecycle import Bequest, Handoff, Terms, steer
from swarm_tui.model import Address, Agent, Power, State, Tag
from swarm_tui.ports import Signer
from swarm_tui.results import Results
from swarm_tui.review.shelf import Shelf
from swarm_tui.text import Safe, literal

from .standin import AGENT, HOST
from .workbench import STANDS_AT, Site, quiet

BRANCH = "swarm/ember/{}"
_GIT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "ember",
    "GIT_AUTHOR_EMAIL": "ember@guest",
    "GIT_COMMITTER_NAME": "ember",
    "GIT_COMMITTER_EMAIL": "ember@guest",
}


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(
        command, env={**os.environ, **_GIT}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{arguments}: {done.stderr}"
    return done.stdout.strip()


@dataclass
class Hall(Site):
    """Where one agent is heard."""

    signer: Signer | None = None

    @property
    def workspace(self) -> Path:
        """The guest's."""
        return self.home / "workspace"

    @property
    def owner(self) -> Path:
        """The repository of the agent's owner."""
        return self.home / "owner.git"

    @property
    def shelf(self) -> Shelf:
        return Shelf(self.home / "reviews")

    @property
    def handoff(self) -> Handoff:
        terms = Terms(
            self.shelf, literal("ann"), self.signer, self.home / "allowed_signers", 1 << 20
        )
        return Handoff(self.lifecycle, terms, self.owner)

    @property
    def bequest(self) -> Bequest:
        results = Results(self.catalogue.database, self.home / "results")
        return Bequest(self.handoff, results, self.catalogue.folder(AGENT))

    def work(
        self, name: str = "work.txt", text: str = "done\n", *, is_committed: bool = True
    ) -> None:
        """What the agent does in its workspace."""
        (self.workspace / name).write_text(text)
        if is_committed:
            git(self.workspace, "add", "--all")
            git(self.workspace, "commit", "-q", "-m", f"Write {name}")

    async def review(self) -> Safe:
        return await self.handoff.take(self.vm(), self.record, literal("please"), quiet)

    def taken(self) -> Review:
        review = self.shelf.last(AGENT)
        assert review is not None
        return review

    def look(self) -> Review:
        """Mark all of the open review as viewed."""
        review = self.taken()
        for key in (review.about, *(change.key for change in review.changes)):
            self.shelf.mark(AGENT, key, is_viewed=True)
        return review

    async def approve(self) -> Safe:
        review = self.look()
        return await self._judge(Approve(AGENT, review.number, review.digest, "well done"))

    async def send_back(self) -> Safe:
        review = self.taken()
        self.shelf.comment(
            AGENT, review.number, Comment("c1", "Mend this.", b"work.txt", first=1, last=1)
        )
        return await self._judge(SendBack(AGENT, review.number, review.digest))

    async def reject(self, *, is_kept: bool = True) -> Safe:
        review = self.taken()
        return await self._judge(
            Reject(AGENT, review.number, review.digest, "No.", is_kept=is_kept)
        )

    async def _judge(self, command: Approve | SendBack | Reject) -> Safe:
        return await self.handoff.judge(self.vm(), self.record, command, quiet)

    async def go_on(self) -> Safe:
        """`resume`, as a person would after a cut."""
        if self.record.verb:
            await self.recover()
        record, vm = self.record, self.vm()
        state = State.SAVED if vm is None or vm.power is Power.OFF else State.FROZEN
        agent = Agent(AGENT, literal("ember"), HOST, state, None, vm=vm, record=record)
        return await steer(Resume(AGENT), agent, record, self.bequest, quiet)

    def messages(self) -> list[dict[str, str]]:
        inbox = self.world.inbox()
        return [json.loads(path.read_text()) for path in inbox.iterdir()] if inbox.exists() else []

    def landed(self, number: int = 1) -> str | None:
        """The commit at a review's branch in the owner's repository."""
        told = git(
            self.owner,
            "for-each-ref",
            "--format=%(objectname)",
            f"refs/heads/{BRANCH.format(number)}",
        )
        return told or None

    def assert_free(self) -> None:
        """No review is open on it any more, and it goes on where it stood."""
        assert (self.record.review, self.record.verdict) == (None, None)
        self.assert_working()

    def assert_open(self) -> None:
        """It is saved, and stands still for a verdict."""
        assert self.record.review == self.taken().number
        assert self.world.power() is Power.OFF
        assert self.record.is_frozen


def make_hall(home: Path, signer: Signer | None = None, url: str = "") -> Hall:
    hall = Hall(home, signer=signer, url=url)
    git(make(hall.workspace), "init", "-q", "--initial-branch=main")
    hall.work("README", "a project\n")
    base = git(hall.workspace, "rev-parse", "HEAD")
    subprocess.run(
        ["git", "clone", "-q", "--bare", str(hall.workspace), str(hall.owner)], check=True
    )
    address = Address("127.0.0.1", 1, "", Path("/key"), workspace=str(hall.workspace))
    hall.world.add(tag=Tag(created=1000.0, base=base, address=address))
    while hall.world.tick() < STANDS_AT:
        pass
    return hall


def make(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder
