"""Approved commits in the owner's repository: new branches, never a checkout.

The owner's repository is trusted, but its hooks are not run: what is landed was not written by the
owner. Only objects and two refs are added: `refs/heads/BRANCH`, and for the verdict a tree of
files at `refs/swarm/verdicts/BRANCH`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from swarm_tui.errors import NotFound, Refused, ReviewError
from swarm_tui.review.git import Git, GitFailed, storage

MOST_ATTACHED_BYTES: Final = 8 << 20

_FAILED: Final = "The commit could not be landed"
_LONGEST_NAME: Final = 60
_UNFIT: Final = re.compile(r"[^A-Za-z0-9._-]+|\.{2,}|^[.-]+|(\.lock|[.])+$", re.IGNORECASE)
_BRANCH: Final = re.compile(r"[A-Za-z0-9._/-]{1,200}")
_RESULT: Final = re.compile(r"refs/swarm/results/[A-Za-z0-9._-]{1,80}/[0-9a-zA-Z.-]{1,40}")
_ATTACHMENT: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Landed:
    """A branch as it stands in a repository, with what was stored beside it."""

    head: str
    tree: str
    attachments: Mapping[str, bytes]
    """File name → content; empty: no verdict is stored for it."""


@dataclass(frozen=True, slots=True)
class Loan:
    """Where a repository has its objects, and where it says which commits have no past in it."""

    objects: Path
    shallow: Path
    """May not be there."""


def branch_name(agent: str, number: int) -> str:
    """`swarm/<agent>/<number>`.

    In a name that git allows in no branch the unfit parts are replaced, and a part of its digest
    keeps it apart from others.
    """
    fit = _UNFIT.sub("-", agent)[:_LONGEST_NAME].strip("-.")
    if fit != agent or not fit:
        fit = f"{fit}-{hashlib.sha256(agent.encode('utf-8', 'replace')).hexdigest()[:8]}"
        fit = fit.removeprefix("-")
    return f"swarm/{fit}/{number:d}"


async def land(
    source: Git,
    pack: IO[bytes],
    target: Path,
    base: str,
    head: str,
    branch: str,
    attachments: Mapping[str, bytes],
) -> None:
    """Copy what `head` has and `base` has not from `source`, then make the refs, all or none.

    `pack` is an empty file that this may write. Raises Refused, ReviewError.
    """
    owner = await open_repository(target)
    wanted = {_branch_ref(branch): head}
    if not await has_commit(owner, base):
        raise ReviewError(
            _FAILED,
            f"The repository {target} does not hold {base}, which the agent began with.",
            "Fetch it there, or name another repository.",
        )
    if attachments:
        wanted[_verdict_ref(branch)] = await _store(owner, attachments)
    present = await read_refs(owner, *wanted)
    for name, oid in present.items():
        if oid != wanted[name]:
            raise Refused(
                f"{name} is there already",
                f"In {target} it is {oid}, not {wanted[name]}.",
                "Rename or delete it there when it is not needed any more.",
            )
    await _copy(source, owner, pack, base, head)
    await _create(owner, wanted, present, "approved")


async def land_result(
    source: Git, pack: IO[bytes], target: Path, base: str, head: str, ref: str
) -> None:
    """As `land`, for work that nobody has reviewed: a ref of ours, which is no branch.

    Done already is fine. Raises Refused, ReviewError.
    """
    if not _RESULT.fullmatch(ref):
        raise ReviewError("This is no name for a result", ref)
    owner = await open_repository(target)
    present = await read_refs(owner, ref)
    if present.get(ref, head) != head:
        raise Refused(f"{ref} is there already", f"In {target} it is {present[ref]}, not {head}.")
    await _copy(source, owner, pack, base, head)
    await _create(owner, {ref: head}, present, "kept, not reviewed")


def result_ref(agent: str, identity: str, head: str) -> str:
    """`refs/swarm/results/<agent>/<its id>-<head>`, both shortened: each content has its own."""
    name = branch_name(agent, 0).removeprefix("swarm/").removesuffix("/0")
    return f"refs/swarm/results/{name}/{identity[:8]}-{head[:12]}"


async def read_landed(target: Path, branch: str) -> Landed:
    """What `land` left.

    Raises NotFound when there is no such branch, ReviewError when it cannot be read.
    """
    owner = await open_repository(target)
    refs = await read_refs(owner, _branch_ref(branch), _verdict_ref(branch))
    head = refs.get(_branch_ref(branch))
    if not head:
        raise NotFound("There is no such branch", f"{branch} in {target}")
    tree = await owner.run("rev-parse", "--verify", f"{head}^{{tree}}")
    verdict = refs.get(_verdict_ref(branch))
    attachments = await _read_attachments(owner, verdict) if verdict else {}
    return Landed(head, tree.decode().strip(), attachments)


async def holds(target: Path, commit: str) -> bool:
    """Whether the repository has the commit. Raises ReviewError when it is no repository."""
    return await has_commit(await open_repository(target), commit)


async def last_landed(target: Path, agent: str) -> int:
    """The highest number of a branch for this agent's name; 0 without one. Raises ReviewError.

    Names are given again to other agents, whose branches must not meet.
    """
    owner = await open_repository(target)
    prefix = _branch_ref(branch_name(agent, 0)).removesuffix("0")
    listing = await owner.run("for-each-ref", "--format=%(refname)", prefix)
    numbers = (name.removeprefix(prefix) for name in listing.decode().split("\n"))
    return max((int(number) for number in numbers if re.fullmatch(r"\d{1,9}", number)), default=0)


async def read_refs(git: Git, *names: str) -> Mapping[str, str]:
    """Those of the refs that are there, with their object ids. Raises ReviewError."""
    listing = await git.run("for-each-ref", "--format=%(objectname) %(refname)", *names)
    refs = {
        name: oid
        for oid, name in (line.split(" ", 1) for line in listing.decode().split("\n") if line)
    }
    return {name: refs[name] for name in names if name in refs}


async def find_loan(repository: Path, commit: str) -> Loan | None:
    """What the owner's repository lends, if it holds the commit and all that belongs to it.

    A partial clone cannot: what it lacks it fetches when it is asked, which we do not.
    Raises ReviewError when it is no repository.
    """
    owner = await open_repository(repository)
    if not await has_commit(owner, commit):
        return None
    objects, shallow = await path_in(owner, "objects"), await path_in(owner, "shallow")
    return None if _is_partial(objects) else Loan(objects, shallow)


async def has_commit(git: Git, commit: str) -> bool:
    """Whether the repository holds a commit."""
    try:
        await git.run("cat-file", "-e", f"{commit}^{{commit}}")
    except GitFailed:
        return False
    return True


async def path_in(owner: Git, name: str) -> Path:
    """Where the repository has something; a linked work tree has most of it elsewhere."""
    told = await owner.run("rev-parse", "--path-format=absolute", "--git-path", name)
    return Path(os.fsdecode(told.removesuffix(b"\n")))


def _is_partial(objects: Path) -> bool:
    """Whether it is a partial clone's: it may lack what it could fetch."""
    return any(objects.glob("pack/*.promisor"))


async def open_repository(repository: Path) -> Git:
    """git on the owner's repository: bare, or a work tree, also a linked one."""
    finder, place = _finder(repository)
    try:
        told = await finder.run("-C", place, "rev-parse", "--absolute-git-dir")
    except GitFailed as failure:
        raise ReviewError(
            "This is no git repository",
            f"{repository}\n{failure.detail}",
            "Name the top folder of a work tree, or a bare repository.",
        ) from failure
    return Git(Path(os.fsdecode(told.removesuffix(b"\n"))))


def _finder(repository: Path) -> tuple[Git, str]:
    """git that looks for a repository there, not in the folders above it."""
    place = os.path.realpath(repository)
    return Git().using(GIT_CEILING_DIRECTORIES=os.path.dirname(place)), place


def _branch_ref(branch: str) -> str:
    if not _BRANCH.fullmatch(branch) or branch.startswith("-"):
        raise ReviewError("This is no name for a branch", branch)
    return f"refs/heads/{branch}"


def _verdict_ref(branch: str) -> str:
    return f"refs/swarm/verdicts/{branch}"


async def _store(owner: Git, attachments: Mapping[str, bytes]) -> str:
    """A tree of the files; its object id."""
    entries = []
    for name, content in attachments.items():
        if not _ATTACHMENT.fullmatch(name):
            raise ReviewError(_FAILED, f"“{name}” is no name for a file beside a verdict.")
        oid = await owner.run("hash-object", "-w", "--stdin", stdin=content, title=_FAILED)
        entries.append(f"100644 blob {oid.decode().strip()}\t{name}\n")
    tree = await owner.run("mktree", stdin="".join(entries).encode(), title=_FAILED)
    return tree.decode().strip()


async def _read_attachments(owner: Git, tree: str) -> Mapping[str, bytes]:
    listing = await owner.run("ls-tree", "-z", tree)
    attachments = {}
    for entry in filter(None, listing.split(b"\0")):
        facts, name = entry.split(b"\t", 1)
        _, kind, oid = facts.decode().split(" ")
        if kind == "blob" and _ATTACHMENT.fullmatch(name.decode("utf-8", "replace")):
            attachments[name.decode()] = await owner.run(
                "cat-file", "blob", oid, limit_bytes=MOST_ATTACHED_BYTES
            )
    return attachments


async def _copy(source: Git, owner: Git, pack: IO[bytes], base: str, head: str) -> None:
    if base == head:
        return
    # What a partial clone lacks cannot be built upon, nor looked for.
    is_partial = _is_partial(await path_in(owner, "objects"))
    stream = source.stream(
        *("pack-objects", "--revs", "--stdout", "--delta-base-offset", "-q"),
        *(() if is_partial else ("--thin",)),
        stdin=f"{head}\n^{base}\n".encode(),
        title=_FAILED,
        limit_bytes=1 << 40,
    )
    with storage():
        async with aclosing(stream):
            async for chunk in stream:
                pack.write(chunk)
        pack.flush()
    if int.from_bytes(os.pread(pack.fileno(), 4, 8), "big") == 0:
        return  # the head is in the base's own history
    os.lseek(pack.fileno(), 0, os.SEEK_SET)
    await owner.run(
        *("index-pack", "--stdin", "--fix-thin"),
        "--fsck-objects" if is_partial else "--strict",
        stdin=pack,
        title=_FAILED,
    )


async def _create(
    owner: Git, wanted: Mapping[str, str], present: Mapping[str, str], why: str
) -> None:
    lines = [
        f"{'verify' if name in present else 'create'} {name} {oid}" for name, oid in wanted.items()
    ]
    try:
        await owner.run(
            *("update-ref", "-m", f"swarm-tui: {why}", "--stdin"),
            stdin="\n".join(["start", *lines, "prepare", "commit", ""]).encode(),
            title=_FAILED,
        )
    except GitFailed as failure:
        raise Refused(
            "The branch cannot be made",
            failure.detail,
            "Another session may have been faster, or a branch's name is in the way.",
        ) from failure
