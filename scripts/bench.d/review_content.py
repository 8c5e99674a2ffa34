"""What a review costs on this machine once the work has come: no VM, real git, real sizes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from figure import Figure, median, significant, spread

from swarm_tui.errors import ReviewError
from swarm_tui.handoff import Review
from swarm_tui.review.desk import Reading, find_flags
from swarm_tui.review.diff import unified
from swarm_tui.review.pull import script
from swarm_tui.review.quarantine import Quarantine
from swarm_tui.review.shelf import Shelf
from swarm_tui.text import literal

FIRST_HUNK_MS = 200.0
CHANGED_LINES = 50_000
SCREEN_ROWS = 50
PULL_S = 300.0

_WHO = {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "bench"), ("EMAIL", "bench@localhost"), ("DATE", "@1700000000 +0"))
}
_ENVIRON = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    **_WHO,
}


@dataclass(frozen=True)
class Work:
    """How much an agent changed: in each file, blocks of lines at even distances."""

    name: str
    files: int
    lines: int
    """Of each file."""
    block: int
    """Changed lines in a row; as many as half of that stay between two blocks."""
    unchanged_files: int = 0

    def text(self, file: int, version: int) -> str:
        changed = range(self.block) if version else ()
        return "".join(
            f"    total_{file}_{line} = compute({line}, {version})\n"
            if line % (self.block + self.block // 2 + 1) in changed
            else f"    total_{file}_{line} = compute({line})\n"
            for line in range(self.lines)
        )


TEN = Work("10 files", 10, 100, 3, unchanged_files=200)
SIZES = (TEN, Work("500 files", 500, 60, 3), Work("5,000 files", 5_000, 60, 3))
BLOCKS = Work("50,000 changed lines in blocks of 50", 1, CHANGED_LINES * 76 // 50, 50)
SCATTERED = Work("50,000 changed lines, each alone", 1, CHANGED_LINES * 2, 1)


@dataclass
class Desk:
    """An owner's repository, an agent's clone of it, and our side of a review."""

    folder: Path
    work: Work
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.owner, self.workspace = self.folder / "owner", self.folder / "workspace"
        self.shelf = Shelf(self.folder / "reviews")
        self.quarantine = Quarantine(self.folder / "quarantine", self.owner)
        self.owner.mkdir(parents=True)
        _git(self.owner, "init", "-q")
        for number in range(self.work.unchanged_files):
            (self.owner / f"other_{number}.py").write_text(self.work.text(-1 - number, 0))
        self.base = self.change(self.owner, self.work.files, 0)
        _git(self.folder, "clone", "-q", "--no-local", str(self.owner), str(self.workspace))

    def change(self, repository: Path, files: int, version: int) -> str:
        """Write that many files anew and commit them; the commit."""
        for number in range(files):
            path = repository / f"part_{number // 100}/module_{number}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(self.work.text(number, version))
        _git(repository, "add", "--all")
        _git(repository, "commit", "-q", "-m", "Work")
        return _git(repository, "rev-parse", "HEAD")

    async def take(self, number: int) -> Review:
        """All that `Review` does on this side, timed step by step."""
        pack = self.folder / "pack"
        await self.quarantine.prepare(self.base)
        await asyncio.to_thread(self._pull, pack, number)
        with self._lap("checking the pack"):
            head = (await self.quarantine.take(pack, number, self.base)).head
        with self._lap("survey"):
            survey = await self.quarantine.survey(self.base, head)
        with self._lap("digest"):
            digest = await self.quarantine.digest(self.base, head)
        with self._lap("flags"):
            flags = await find_flags(self.quarantine, survey, self.base, head)
        review = Review(
            agent="00000000-0000-4000-8000-000000000001",
            name=literal("bench"),
            number=number,
            taken=time.time(),
            base=self.base,
            head=head,
            tree=survey.tree,
            digest=digest,
            changes=survey.changes,
            flags=tuple(flags),
            commits=survey.commits,
        )
        with self._lap("keeping"):
            await asyncio.to_thread(self.shelf.write, review)
        await self.quarantine.close()
        return review

    def _pull(self, pack: Path, number: int) -> None:
        """What runs in a guest, without one."""
        told = script(str(self.workspace), self.base, number, timeout_s=PULL_S)
        with pack.open("wb") as file:
            subprocess.run(["sh", "-c", told], stdout=file, env=_ENVIRON, check=True)

    def reading(self, review: Review, previous: Review | None = None) -> Reading:
        """As when a screen opens it: no process of git runs yet."""
        quarantine = Quarantine(self.folder / "quarantine", self.owner)
        return Reading(self.shelf, quarantine, review, previous)

    def seconds_of_git(self, head: str) -> float:
        """The peer: the same patch by git alone, in the agent's own repository."""
        begun = time.perf_counter()
        _git(self.workspace, "diff", "--diff-algorithm=myers", self.base, head)
        return time.perf_counter() - begun

    @contextmanager
    def _lap(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - begun


def review_content(folder: Path, is_quick: bool) -> Iterator[Figure]:
    """A review without its VM: taking the work, the first rows, what changed since."""
    for at, work in enumerate(SIZES[:2] if is_quick else SIZES):
        yield asyncio.run(_taking(Desk(folder / f"review-{at}", work)))
    for at, work in enumerate((BLOCKS, SCATTERED)):
        desk = Desk(folder / f"lines-{at}", work)
        try:
            yield from asyncio.run(_first_hunk(desk, 3 if is_quick else 9))
        except ReviewError as error:
            detail = {"refused": str(error)}
            yield Figure(
                f"first hunk: {work.name}", None, "ms", "none", FIRST_HUNK_MS, detail=detail
            )
    yield asyncio.run(_interdiff(Desk(folder / "since", SIZES[1 if is_quick else 2])))


async def _taking(desk: Desk) -> Figure:
    desk.change(desk.workspace, desk.work.files, 1)
    return _taken(desk, await desk.take(1))


def _taken(desk: Desk, review: Review) -> Figure:
    assert len(review.changes) == desk.work.files
    return Figure(
        f"taking {desk.work.name}, our side",
        sum(desk.seconds.values()),
        "s",
        "once: from the pack on the disk to the review on the shelf",
        detail={
            **{f"{step}, s": significant(seconds) for step, seconds in desk.seconds.items()},
            "lines changed": sum(change.added or 0 for change in review.changes),
            "flags": len(review.flags),
            "bare `git diff` of the same, s": significant(desk.seconds_of_git(review.head)),
        },
    )


async def _first_hunk(desk: Desk, rounds: int) -> Sequence[Figure]:
    desk.change(desk.workspace, 1, 1)
    review = await desk.take(1)
    [change] = review.changes
    assert change.added is not None
    assert change.added >= CHANGED_LINES
    read_ms, rows_ms = [], []
    for _ in range(rounds):
        reading = desk.reading(review)
        begun = time.perf_counter()
        diff = await reading.file(change)
        read = time.perf_counter()
        rows = unified(diff)
        for row in rows[:SCREEN_ROWS]:
            if row.kind != "gap":
                line = row.old if row.kind == "removed" else row.new
                diff.text("old" if row.kind == "removed" else "new", line or 0)
        rows_ms.append((time.perf_counter() - read) * 1e3)
        read_ms.append((read - begun) * 1e3)
        assert len(rows) > CHANGED_LINES
        await reading.close()
    both = [sum(pair) for pair in zip(read_ms, rows_ms, strict=True)]
    shown = Figure(
        f"first hunk: {desk.work.name}",
        median(both),
        "ms",
        f"median, from the asking for a file of {desk.work.lines:,} lines until the unified "
        f"view's first {SCREEN_ROWS} rows have their text; nothing of it was read before",
        FIRST_HUNK_MS,
        detail={
            **spread(both),
            "both sides and what differs, ms": significant(median(read_ms)),
            "rows, ms": significant(median(rows_ms)),
            "lines added": change.added,
            "hunks": len(diff.spans),
        },
    )
    return [_taken(desk, review), shown]


async def _interdiff(desk: Desk) -> Figure:
    desk.change(desk.workspace, desk.work.files, 1)
    before = await desk.take(1)
    desk.change(desk.workspace, TEN.files, 2)
    reading = desk.reading(await desk.take(2), before)
    begun = time.perf_counter()
    since = await reading.since()
    listed = time.perf_counter()
    await reading.file(since[0])
    opened = time.perf_counter()
    await reading.close()
    assert len(since) == TEN.files
    return Figure(
        f"interdiff: {TEN.files} files of {desk.work.name} changed since the last review",
        (opened - begun) * 1e3,
        "ms",
        "once: until what changed is listed and its first file is open",
        detail={
            "listed, ms": significant((listed - begun) * 1e3),
            "first file, ms": significant((opened - listed) * 1e3),
        },
    )


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env=_ENVIRON, capture_output=True, check=True
    )
    return done.stdout.decode().strip()
