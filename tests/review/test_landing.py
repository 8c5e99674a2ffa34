"""An approved commit in the owner's repository: exactly it, and nothing else is touched."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from swarm_tui.errors import NotFound, Refused, ReviewError
from swarm_tui.review.landing import branch_name, read_landed

from .corpus import Workshop, commit, run

VERDICT = {"verdict.json": b'{"judgement": "approve"}\n', "verdict.json.sig": b"-----BEGIN"}


async def pulled(workshop: Workshop) -> str:
    workshop.write("new.txt", "new\n")
    return (await workshop.pull()).head


def untouched(repository: Path) -> dict[str, bytes]:
    """Everything of a repository but objects, our branches and our verdicts."""
    ours = (
        ".git/objects",
        ".git/refs/heads/swarm",
        ".git/refs/swarm",
        ".git/logs/refs/heads/swarm",
    )
    return {
        str(path): path.read_bytes()
        for path in sorted(repository.rglob("*"))
        if path.is_file() and not str(path.relative_to(repository)).startswith(ours)
    }


async def test_the_exact_commit_becomes_a_branch_and_nothing_else_changes(
    workshop: Workshop,
) -> None:
    head = await pulled(workshop)
    (workshop.owner / "draft.txt").write_text("the owner's own, not committed\n")
    before = untouched(workshop.owner)
    branch = branch_name("ember", 3)
    await workshop.quarantine.land(workshop.owner, workshop.base, head, branch, VERDICT)
    assert run("rev-parse", "refs/heads/swarm/ember/3", cwd=workshop.owner) == head
    assert run("show", f"{head}:new.txt", cwd=workshop.owner) == "new"
    assert untouched(workshop.owner) == before
    run("fsck", "--strict", cwd=workshop.owner)
    landed = await read_landed(workshop.owner, branch)
    assert (landed.head, landed.attachments) == (head, VERDICT)
    assert landed.tree == run("rev-parse", f"{head}^{{tree}}", cwd=workshop.owner)


async def test_what_landed_stays_when_the_quarantine_is_gone_and_the_owner_tidies_up(
    workshop: Workshop,
) -> None:
    head = await pulled(workshop)
    await workshop.quarantine.land(workshop.owner, workshop.base, head, "swarm/ember/1", VERDICT)
    await workshop.quarantine.forget(1)
    run("gc", "-q", "--prune=now", cwd=workshop.owner)
    assert (await read_landed(workshop.owner, "swarm/ember/1")).attachments == VERDICT


async def test_landing_twice_is_landing_once(workshop: Workshop) -> None:
    head = await pulled(workshop)
    for _ in range(2):
        await workshop.quarantine.land(
            workshop.owner, workshop.base, head, "swarm/ember/1", VERDICT
        )
    assert (await read_landed(workshop.owner, "swarm/ember/1")).head == head


async def test_a_branch_that_is_something_else_is_never_moved(workshop: Workshop) -> None:
    head = await pulled(workshop)
    run("branch", "swarm/ember/1", workshop.base, cwd=workshop.owner)
    with pytest.raises(Refused, match="is there already"):
        await workshop.quarantine.land(
            workshop.owner, workshop.base, head, "swarm/ember/1", VERDICT
        )
    landed = await read_landed(workshop.owner, "swarm/ember/1")
    assert (landed.head, landed.attachments) == (workshop.base, {})


async def test_the_second_of_two_verdicts_is_told_and_changes_nothing(workshop: Workshop) -> None:
    head = await pulled(workshop)
    land = workshop.quarantine.land
    await land(workshop.owner, workshop.base, head, "swarm/ember/1", VERDICT)
    with pytest.raises(Refused, match="is there already"):
        await land(workshop.owner, workshop.base, head, "swarm/ember/1", {"verdict.json": b"no"})
    assert (await read_landed(workshop.owner, "swarm/ember/1")).attachments == VERDICT


async def test_a_name_in_the_way_lands_nothing(workshop: Workshop) -> None:
    head = await pulled(workshop)
    run("branch", "swarm/ember", cwd=workshop.owner)
    with pytest.raises(Refused, match="cannot be made"):
        await workshop.quarantine.land(
            workshop.owner, workshop.base, head, "swarm/ember/1", VERDICT
        )
    assert run("for-each-ref", "refs/swarm", cwd=workshop.owner) == ""


async def test_the_owners_hooks_are_not_run(workshop: Workshop) -> None:
    head = await pulled(workshop)
    for name in ("reference-transaction", "post-update", "update", "pre-receive"):
        hook = workshop.owner / ".git/hooks" / name
        hook.write_text(f"#!/bin/sh\ntouch {workshop.canary}\nexit 1\n")
        hook.chmod(0o755)
    await workshop.quarantine.land(workshop.owner, workshop.base, head, "swarm/ember/1", VERDICT)


@pytest.mark.parametrize("kind", ["bare", "linked", "packed", "other"])
async def test_other_shapes_of_a_repository(workshop: Workshop, kind: str) -> None:
    head = await pulled(workshop)
    target = workshop.folder / "target"
    match kind:
        case "bare":
            run("clone", "-q", "--bare", str(workshop.owner), str(target), cwd=workshop.folder)
        case "linked":
            run("worktree", "add", "-q", str(target), cwd=workshop.owner)
        case "packed":
            target = workshop.owner
            run("pack-refs", "--all", cwd=target)
        case "other":
            run("clone", "-q", str(workshop.owner), str(target), cwd=workshop.folder)
            (target / "own.txt").write_text("own\n")
            commit(target, "Moved on")
    await workshop.quarantine.land(target, workshop.base, head, "swarm/ember/1", VERDICT)
    assert (await read_landed(target, "swarm/ember/1")).attachments == VERDICT
    assert run("rev-parse", "swarm/ember/1", cwd=target) == head


async def test_what_cannot_take_it_is_told(workshop: Workshop) -> None:
    head = await pulled(workshop)
    land, base = workshop.quarantine.land, workshop.base
    empty, stranger = workshop.folder / "empty", workshop.folder / "stranger"
    empty.mkdir()
    run("init", "-q", str(stranger), cwd=workshop.folder)
    with pytest.raises(ReviewError, match="no git repository"):
        await land(empty, base, head, "swarm/ember/1", VERDICT)
    with pytest.raises(ReviewError, match="no git repository"):
        await land(workshop.folder / "nowhere", base, head, "swarm/ember/1", VERDICT)
    with pytest.raises(ReviewError, match="does not hold"):
        await land(stranger, base, head, "swarm/ember/1", VERDICT)
    (workshop.owner / "inner").mkdir()
    with pytest.raises(ReviewError, match="no git repository"):
        await land(workshop.owner / "inner", base, head, "swarm/ember/1", VERDICT)


async def test_a_branch_that_is_not_there(workshop: Workshop) -> None:
    with pytest.raises(NotFound):
        await read_landed(workshop.owner, "swarm/ember/1")
    for name in ("../heads/main", "-x", "a b", "", "HEAD\n"):
        with pytest.raises((NotFound, ReviewError)):
            await read_landed(workshop.owner, name)


@pytest.mark.parametrize(
    "name",
    [
        *("ember", "a.b", "A_B-c", "", ".", "..", "a..b", "-x", "x.lock", ".hidden", "end."),
        *("two words", "~^:?*[\\", "@{", "@", "a/b/../c", "x" * 300, "\u202eevil", "\x1b[31m"),
        *("ünïcode", "new\nline", "x.LOCK", "x.lock.lock", "--", "a.-", "\ud800"),
    ],
)
def test_any_agent_has_a_branch_of_its_own(name: str) -> None:
    branch = branch_name(name, 7)
    subprocess.run(["git", "check-ref-format", "--branch", branch], check=True, capture_output=True)
    assert branch.startswith("swarm/")
    assert branch.endswith("/7")
    assert branch.count("/") == 2
    assert branch.isascii()
    assert branch_name(name + "!", 7) != branch


def test_a_plain_name_stays_as_it_is() -> None:
    assert branch_name("ember-2", 1) == "swarm/ember-2/1"
