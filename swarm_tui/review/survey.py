"""What differs between two commits: files, commits, lines and the canonical patch, by our git.

Names and contents are a guest's. Every answer is parsed as bytes that end with NUL or as object
ids; nothing of it is looked up in a work tree, and no attribute of the trees counts.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from swarm_tui.errors import ReviewError
from swarm_tui.handoff import ABSENT, SUBMODULE, Change, Commit
from swarm_tui.review.blobs import MISSING, MOST_SHOWN_BYTES, Blobs, facts
from swarm_tui.review.diff import Span
from swarm_tui.review.git import Git, side_by_side
from swarm_tui.text import sanitize

MOST_CHANGES: Final = 10_000
"""Files that differ; more are refused."""
MOST_FILES: Final = 1_000_000
"""In the head's tree. A few folders that hold each other many times over unfold to billions."""
MOST_COMMITS_SHOWN: Final = 200
MOST_PATCH_BYTES: Final = 512 << 20

_LISTING_BYTES: Final = 96 << 20
"""Enough for `MOST_CHANGES` with the longest paths that Linux takes."""
_NAMES_BYTES: Final = 512 << 20
_PLAIN: Final = ("--no-ext-diff", "--no-textconv", "--no-color", "--no-relative")
_CANONICAL: Final = (
    *_PLAIN,
    *("--patch", "--no-renames", "--full-index", "--unified=3", "--inter-hunk-context=0"),
    *("--diff-algorithm=myers", "--no-indent-heuristic", "--submodule=short"),
    *("--src-prefix=a/", "--dst-prefix=b/", "--ignore-submodules=none"),
)
_TOO_MUCH: Final = "Too much to review"
_NO_TITLE: Final = "The changes cannot be told"
# Both begin with plain text, which is looked for several times faster than the start of a line.
_HUNK: Final = re.compile(rb"\n@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
_UNSHOWN: Final = re.compile(rb"\nindex [0-9a-f]+\.\.([0-9a-f]+)(?: \d+)?\nBinary files [^\n]*")


@dataclass(frozen=True, slots=True)
class Survey:
    """What differs between two commits, from objects alone."""

    tree: str
    """Of the head."""
    changes: tuple[Change, ...]
    commits: tuple[Commit, ...]
    """Newest first; at most `MOST_COMMITS_SHOWN`."""
    commit_count: int
    """All commits that the head has and the base has not."""
    is_descended: bool
    """The base is in the history of the head."""


async def survey(git: Git, base: str, head: str) -> Survey:
    """Raises ReviewError, also for more than `MOST_CHANGES`."""

    def ask(*arguments: str, statuses: Sequence[int] = (0,)) -> asyncio.Task[bytes]:
        return group.create_task(git.run(*arguments, statuses=statuses, title=_NO_TITLE))

    async with side_by_side() as group:
        changes = group.create_task(list_changes(git, base, head))
        commits = group.create_task(_list_commits(git, base, head))
        count = ask("rev-list", "--count", head, f"^{base}")
        tree = ask("rev-parse", "--verify", f"{head}^{{tree}}")
        # Status 1 without a word: they have no commit in common.
        shared = ask("merge-base", base, head, statuses=(0, 1))
    return Survey(
        tree.result().decode().strip(),
        changes.result(),
        commits.result(),
        int(count.result()),
        shared.result().decode().strip() == base,
    )


async def list_changes(git: Git, base: str, head: str) -> tuple[Change, ...]:
    """The files that differ, in git's order, renames found. Raises ReviewError."""
    listing = await git.run(
        *("diff-tree", "-r", "-z", "--raw", "--numstat", "--find-renames=50%", *_PLAIN),
        *("--no-abbrev", "--diff-algorithm=myers", "--ignore-submodules=none", base, head),
        title=_NO_TITLE,
        limit_bytes=_LISTING_BYTES,
    )
    changes = list(_parse_listing(listing))
    return await _with_sizes(git, changes)


async def check_size(git: Git, base: str, head: str) -> None:
    """Raise ReviewError when more files differ than can be reviewed; reads no file."""
    # First what is told as it is found: diff-tree has all of it in memory before it tells any.
    if await _is_more(git, MOST_FILES, "ls-tree", "-r", "-z", "--name-only", head):
        raise ReviewError(_TOO_MUCH, f"The tree has more than {MOST_FILES:,} files.")
    names = ("diff-tree", "-r", "-z", "--name-only", "--no-renames", base, head)
    if await _is_more(git, MOST_CHANGES, *names):
        raise ReviewError(
            _TOO_MUCH,
            f"More than {MOST_CHANGES:,} files differ from the base.",
            "Is something in the work tree that .gitignore should name?",
        )


async def _is_more(git: Git, most: int, *arguments: str) -> bool:
    """Whether a command that lists names gives more than `most`."""
    count = 0
    listing = git.stream(*arguments, title=_NO_TITLE, limit_bytes=_NAMES_BYTES)
    async with aclosing(listing):
        async for chunk in listing:
            count += chunk.count(b"\0")
            if count > most:
                return True
    return False


async def patch(git: Git, blobs: Blobs, base: str, head: str) -> AsyncGenerator[bytes, None]:
    """The canonical patch, in pieces.

    It is git's own, with fixed options and without renames. After each "Binary files … differ"
    comes a line with the SHA-256 of the new content, so that the bytes of the patch depend on
    every byte that the head brings; tools that read patches skip it.
    """
    stream = git.stream(
        "diff-tree", "-r", *_CANONICAL, base, head, title=_NO_TITLE, limit_bytes=MOST_PATCH_BYTES
    )
    rest = b""
    async with aclosing(stream):
        async for chunk in stream:
            rest += chunk
            cut = _last_break(rest)
            async for piece in _with_digests(git, blobs, rest[:cut]):
                yield piece
            rest = rest[cut:]
    async for piece in _with_digests(git, blobs, rest):
        yield piece


async def digest(git: Git, blobs: Blobs, base: str, head: str) -> str:
    """ "sha256:…" of the bytes of `patch`."""
    sha256 = hashlib.sha256()
    stream = patch(git, blobs, base, head)
    async with aclosing(stream):
        async for piece in stream:
            sha256.update(piece)
    return f"sha256:{sha256.hexdigest()}"


async def spans(git: Git, blobs: Blobs, old: str, new: str) -> Sequence[Span]:
    """What differs between two blobs, line by line; an empty id stands for no lines.

    Raises ReviewError, also for more than `MOST_SHOWN_BYTES`.
    """
    if not (old and new):
        lines = await _count_lines(blobs, old or new)
        if not lines:
            return ()
        return (Span(0, lines, 0, 0),) if old else (Span(0, 0, 0, lines),)
    if old == new:
        return ()
    for oid in (old, new):
        if await blobs.size(oid) > MOST_SHOWN_BYTES:
            raise _too_large(oid)
    output = await git.run(
        *("diff", *_PLAIN, "--text", "--unified=0", "--inter-hunk-context=0"),
        *("--diff-algorithm=myers", "--no-indent-heuristic", old, new),
        title="The lines of a file cannot be compared",
    )
    return tuple(_parse_hunks(output))


def _parse_hunks(output: bytes) -> Iterator[Span]:
    for old, removed, new, added in _HUNK.findall(output):
        gone, come = int(removed or 1), int(added or 1)
        # git counts from 1, but an empty side by the line before it.
        yield Span(int(old) - (gone > 0), gone, int(new) - (come > 0), come)


async def _count_lines(blobs: Blobs, oid: str) -> int:
    content = await blobs.read(oid) if oid else b""
    if content is None:
        raise _too_large(oid)
    return content.count(b"\n") + (not content.endswith(b"\n") if content else 0)


def _too_large(oid: str) -> ReviewError:
    return ReviewError(
        "A file is too large to compare", f"{oid}: over {MOST_SHOWN_BYTES >> 20} MiB"
    )


# Changes


def _parse_listing(listing: bytes) -> Iterator[Change]:
    """`diff-tree -z --raw --numstat`: all entries of the one kind, then all of the other."""
    fields = iter(listing.split(b"\0"))
    entries: list[tuple[list[str], bytes | None, bytes]] = []
    counts: list[tuple[int | None, int | None]] = []
    for entry in fields:
        if entry.startswith(b":"):
            words = entry[1:].decode().split(" ")
            old_path = next(fields) if words[4][0] in "RC" else None
            entries.append((words, old_path, next(fields)))
            if len(entries) > MOST_CHANGES:
                raise ReviewError(_TOO_MUCH, f"Over {MOST_CHANGES:,} files differ.")
        elif entry:
            added, removed, path = entry.split(b"\t", 2)
            if not path:
                next(fields), next(fields)
            is_counted = added != b"-"
            counts.append((int(added), int(removed)) if is_counted else (None, None))
    for (words, old_path, path), (added_lines, removed_lines) in zip(entries, counts, strict=True):
        old_mode, new_mode, old, new, _ = words
        is_counted = SUBMODULE not in (old_mode, new_mode)
        yield Change(
            path,
            old_mode,
            new_mode,
            "" if old_mode == ABSENT else old,
            "" if new_mode == ABSENT else new,
            old_path,
            added_lines if is_counted else None,
            removed_lines if is_counted else None,
        )


async def _with_sizes(git: Git, changes: Sequence[Change]) -> tuple[Change, ...]:
    known = await facts(git, _blob_ids(changes))

    def size(oid: str, mode: str) -> int | None:
        if not oid or mode == SUBMODULE:
            return None
        if known[oid].kind == MISSING:
            raise ReviewError(_NO_TITLE, f"{oid} is not there any more.")
        return known[oid].size

    return tuple(
        Change(
            change.path,
            change.old_mode,
            change.new_mode,
            change.old,
            change.new,
            change.old_path,
            change.added,
            change.removed,
            size(change.old, change.old_mode),
            size(change.new, change.new_mode),
        )
        for change in changes
    )


def _blob_ids(changes: Iterable[Change]) -> Iterator[str]:
    for change in changes:
        if change.old and change.old_mode != SUBMODULE:
            yield change.old
        if change.new and change.new_mode != SUBMODULE:
            yield change.new


async def _list_commits(git: Git, base: str, head: str) -> tuple[Commit, ...]:
    listing = await git.run(
        *("log", "-z", f"--max-count={MOST_COMMITS_SHOWN}", "--no-color", "--no-show-signature"),
        *("--no-notes", "--no-mailmap", "--no-decorate"),
        # As it is: a commit may name any encoding, and conversions are code with a history.
        *("--encoding=none", "--format=tformat:%H%n%ct%n%an <%ae>%n%s"),
        *(head, f"^{base}", "--"),
        title="The commits cannot be told",
    )
    return tuple(_parse_commit(entry) for entry in listing.split(b"\0") if entry)


def _parse_commit(entry: bytes) -> Commit:
    oid, time, author, subject = entry.split(b"\n", 3)
    at = float(time) if time.isdigit() else None
    return Commit(
        oid.decode(), sanitize(subject, max_cells=200), sanitize(author, max_cells=200), at
    )


# The patch


def _last_break(text: bytes) -> int:
    """Where `text` can be cut: before a newline that is in no match of `_UNSHOWN`."""
    end = text.rfind(b"\n")
    start = text.rfind(b"\n", 0, max(end, 0))
    if text.startswith(b"\nBinary files ", start):
        start = text.rfind(b"\n", 0, start)
    return max(start, 0)


async def _with_digests(git: Git, blobs: Blobs, text: bytes) -> AsyncGenerator[bytes, None]:
    done = 0
    for unshown in _UNSHOWN.finditer(text):
        yield text[done : unshown.end()]
        done = unshown.end()
        oid = unshown[1].decode()
        if oid.strip("0"):
            yield await _digest_line(git, blobs, oid)
    if done < len(text):
        yield text[done:]


async def _digest_line(git: Git, blobs: Blobs, oid: str) -> bytes:
    sha256 = hashlib.sha256()
    size = 0
    content = await blobs.read(oid)
    if content is not None:
        sha256.update(content)
        size = len(content)
    else:
        stream = git.stream("cat-file", "blob", oid, title=_NO_TITLE, limit_bytes=1 << 40)
        async with aclosing(stream):
            async for chunk in stream:
                sha256.update(chunk)
                size += len(chunk)
    return f"\nNew content: {size} bytes, sha256:{sha256.hexdigest()}".encode()
