"""Two agents' work beside each other, in real repositories."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from swarm_tui.errors import NotFound
from swarm_tui.handoff import Review
from swarm_tui.model import AgentId
from swarm_tui.review.comparison import Comparison, Likeness, Party, open_comparison
from swarm_tui.review.desk import find_flags
from swarm_tui.review.diff import unified
from swarm_tui.review.quarantine import Quarantine
from swarm_tui.review.shelf import Shelf
from swarm_tui.text import sanitize

from .corpus import Workshop, commit, run


class Pair:
    """Two agents that began with one commit, each with a workspace of its own."""

    def __init__(self, folder: Path) -> None:
        self.shelf = Shelf(folder / "shelf: of both")  # a colon separates paths elsewhere
        self.workshops: dict[str, Workshop] = {}
        for name in ("ann", "bob"):
            (folder / name).mkdir()
            self.workshops[name] = Workshop(folder / name)
        self.ann, self.bob = self.workshops.values()

    def party(self, name: str) -> Party:
        newest = self.shelf.numbers(AgentId(name))[-1]
        return Party(AgentId(name), sanitize(name), self.workshops[name].lender, newest, 1e9)

    async def review(self, name: str, number: int = 1) -> Review:
        """As a supervisor takes one and puts it on the shelf."""
        workshop = self.workshops[name]
        async with Quarantine(self.shelf.quarantine(AgentId(name)), workshop.lender) as quarantine:
            workshop.quarantine = quarantine
            pulled = await workshop.pull(number)
            survey = await quarantine.survey(workshop.base, pulled.head)
            flags = await find_flags(quarantine, survey, workshop.base, pulled.head)
            review = Review(
                agent=name,
                name=sanitize(name),
                number=number,
                taken=1e9,
                base=workshop.base,
                head=pulled.head,
                tree=survey.tree,
                digest=await quarantine.digest(workshop.base, pulled.head),
                changes=tuple(survey.changes),
                flags=tuple(flags),
                commits=tuple(survey.commits),
            )
        self.shelf.write(review)
        return review

    @asynccontextmanager
    async def compared(self) -> AsyncIterator[Comparison]:
        for name in self.workshops:
            if not self.shelf.numbers(AgentId(name)):
                await self.review(name)
        made = await open_comparison(self.shelf, self.party("ann"), self.party("bob"))
        async with made as comparison:
            yield comparison


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def likeness(comparison: Comparison) -> dict[str, Likeness]:
    return {pairing.name: pairing.likeness for pairing in comparison.pairings}


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".git" not in path.parts
    }


async def test_each_file_is_of_one_of_four_classes(pair: Pair) -> None:
    for workshop in (pair.ann, pair.bob):
        workshop.write("same.txt", "alike\n")
        (workshop.workspace / "file0.py").unlink()
    pair.ann.write("file1.py", "ann\n")
    pair.bob.write("file2.py", "bob\n")
    pair.ann.write("both.txt", "one\ntwo\nthree\n")
    pair.bob.write("both.txt", "one\n2\nthree\nfour\n")
    async with pair.compared() as comparison:
        assert comparison.is_of_one_base
        assert likeness(comparison) == {
            "both.txt": Likeness.DIFFER,
            "file0.py": Likeness.SAME,
            "file1.py": Likeness.ONLY_A,
            "file2.py": Likeness.ONLY_B,
            "same.txt": Likeness.SAME,
        }
        both = comparison.pairings[0]
        assert both.a
        assert both.b
        assert (both.a.added, both.b.added) == (3, 4)
        diff = await comparison.between(both)
        rows = [(row.kind, row.old, row.new) for row in unified(diff)]
        assert rows == [
            ("context", 1, 1),
            ("removed", 2, None),
            ("added", None, 2),
            ("context", 3, 3),
            ("added", None, 4),
        ]
        assert (diff.text("old", 2), diff.text("new", 2)) == ("two", "2")
        with pytest.raises(NotFound):
            await comparison.between(comparison.pairings[2])


async def test_its_patch_makes_the_work_of_the_second_of_that_of_the_first(pair: Pair) -> None:
    pair.ann.write("file1.py", "ann\n")
    pair.bob.write("file2.py", "bob\n")
    pair.bob.write("new/deep.txt", "deep\n")
    async with pair.compared() as comparison:
        patch = b"".join([piece async for piece in comparison.patch()])
    pair.ann.git("apply", stdin=patch)
    assert files(pair.ann.workspace) == files(pair.bob.workspace)


async def test_only_the_mode_binaries_and_deletions_are_told_apart(pair: Pair) -> None:
    pair.ann.write("run.sh", "#!/bin/sh\n")
    pair.bob.write("run.sh", "#!/bin/sh\n")
    (pair.bob.workspace / "run.sh").chmod(0o755)
    pair.ann.write("blob", b"\0one")
    pair.bob.write("blob", b"\0two more")
    (pair.ann.workspace / "file3.py").unlink()
    pair.bob.write("file3.py", "kept\n")
    async with pair.compared() as comparison:
        assert set(likeness(comparison).values()) == {Likeness.DIFFER}
        notes = [(await comparison.between(one)).note for one in comparison.pairings]
    assert notes == [
        "binary: 4 Bytes -> 9 Bytes",
        "",
        "file -> executable (mode 100644 -> 100755)",
    ]


async def test_a_file_that_one_renamed_and_the_other_changed_is_seen(pair: Pair) -> None:
    pair.ann.git("mv", "file4.py", "moved.py")
    pair.bob.write("file4.py", "changed in its place\n")
    async with pair.compared() as comparison:
        assert likeness(comparison) == {
            "file4.py": Likeness.DIFFER,
            "moved.py": Likeness.ONLY_A,
        }


async def test_hostile_names_and_lines_are_made_safe(pair: Pair) -> None:
    pair.ann.write("\x1b[2Jevil\u202e", "\x1b]0;owned\x07\n")
    pair.bob.write("\x1b[2Jevil\u202e", "plain\n")
    async with pair.compared() as comparison:
        [evil] = comparison.pairings
        diff = await comparison.between(evil)
        shown = evil.name + diff.text("old", 1)
    assert not any(sign in shown for sign in "\x1b\x07\u202e")


async def test_other_bases_are_told(pair: Pair) -> None:
    pair.bob.write("file5.py", "the owner went on\n")
    pair.bob.base = commit(pair.bob.workspace, "Later")
    run("fetch", "-q", str(pair.bob.workspace), "HEAD", cwd=pair.bob.owner)
    run("update-ref", "refs/heads/later", pair.bob.base, cwd=pair.bob.owner)
    pair.bob.write("mine.txt", "work\n")
    async with pair.compared() as comparison:
        assert not comparison.is_of_one_base
        assert likeness(comparison) == {"mine.txt": Likeness.ONLY_B}


async def test_the_review_that_is_named_counts(pair: Pair) -> None:
    pair.ann.write("first.txt", "1\n")
    await pair.review("ann")
    pair.ann.write("second.txt", "2\n")
    await pair.review("ann", 2)
    async with pair.compared() as comparison:
        assert comparison.a.review.number == 2
        assert set(likeness(comparison)) == {"first.txt", "second.txt"}
