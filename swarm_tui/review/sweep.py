"""Both sides of all changes of a review, read and compared by a few processes instead of by many.

A process for each file is some ten milliseconds, which thousands of files add up to half a minute.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from swarm_tui.errors import ReviewError
from swarm_tui.handoff import ABSENT, SUBMODULE, SYMLINK, Change
from swarm_tui.review import survey
from swarm_tui.review.blobs import MOST_SHOWN_BYTES, Blobs
from swarm_tui.review.diff import Span, is_binary
from swarm_tui.review.git import Git

MOST_SPANS: Final = 250_000
"""Kept at once, some 50 MB; files beyond them are compared one by one."""
MOST_PATHS: Final = 200_000
"""Of a tree; more take seconds to compare with each other."""

_PORTION: Final = 500
"""Files."""
_PORTION_BYTES: Final = 16 << 20
_PATHS_BYTES: Final = 256 << 20
_TITLE: Final = "The files that changed cannot be read"
_COMPARED: Final = (
    *("diff-tree", "-r", "--patch", "--full-index", "--unified=0", "--inter-hunk-context=0"),
    # The same pairs of files as the survey lists, and the same lines as `survey.spans` tells.
    *("--find-renames=50%", "--diff-algorithm=myers", "--no-indent-heuristic"),
    *("--no-ext-diff", "--no-textconv", "--no-color", "--no-relative", "--ignore-submodules=none"),
)
_MARK: Final = re.compile(
    # The lines of a file begin with a sign, so that nothing in it looks like either of these.
    rb"^(?:index ([0-9a-f]+)\.\.([0-9a-f]+)|@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@)",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Sides:
    """One change with its content; None where there is no blob, or one too large to be shown."""

    change: Change
    old: bytes | None
    new: bytes | None
    spans: Sequence[Span]


def is_compared(change: Change, old: bytes | None, new: bytes | None) -> bool:
    """Whether there is text on both sides, and it differs."""
    if old is None or new is None or old == new:
        return False
    if {change.old_mode, change.new_mode} & {ABSENT, SYMLINK, SUBMODULE}:
        return False
    return not (is_binary(old) or is_binary(new))


async def sweep(
    git: Git, blobs: Blobs, base: str, head: str, changes: Sequence[Change]
) -> AsyncGenerator[Sequence[Sides], None]:
    """All `changes` from `base` to `head`, as a survey lists them, in portions, in their order.

    Raises ReviewError.
    """
    known = await _compare(git, base, head)
    for portion in _portions(changes):
        content = await _read(git, portion)
        sides = []
        for change in portion:
            old, new = content.get(change.old), content.get(change.new)
            spans: Sequence[Span] = ()
            if is_compared(change, old, new):
                told = known.get((change.old, change.new))
                spans = told or await survey.spans(git, blobs, change.old, change.new)
            sides.append(Sides(change, old, new, spans))
        yield sides


async def list_paths(git: Git, commit: str) -> tuple[Sequence[bytes], bool]:
    """The files of a tree, at most `MOST_PATHS`, and whether these are all. Raises ReviewError."""
    paths: list[bytes] = []
    rest = b""
    listing = git.stream(
        *("ls-tree", "-r", "-z", "--name-only", commit), title=_TITLE, limit_bytes=_PATHS_BYTES
    )
    async with aclosing(listing):
        async for chunk in listing:
            *found, rest = (rest + chunk).split(b"\0")
            paths += found
            if len(paths) > MOST_PATHS:
                return paths[:MOST_PATHS], False
    return paths, True


async def _compare(git: Git, base: str, head: str) -> Mapping[tuple[str, str], list[Span]]:
    """What differs between files, by both object ids; perhaps not of all."""
    known: dict[tuple[str, str], list[Span]] = {}
    pair = ("", "")
    count = 0
    rest = b""
    stream = git.stream(*_COMPARED, base, head, title=_TITLE, limit_bytes=survey.MOST_PATCH_BYTES)
    async with aclosing(stream):
        async for chunk in stream:
            text = rest + chunk
            end = text.rfind(b"\n") + 1
            rest = text[end:]
            for mark in _MARK.finditer(text, 0, end):
                if mark[1]:
                    pair = (mark[1].decode(), mark[2].decode())
                    known[pair] = []
                    continue
                known[pair].append(_span(mark))
                count += 1
            if count > MOST_SPANS:
                del known[pair]  # it may go on
                break
    return known


def _span(mark: re.Match[bytes]) -> Span:
    old, removed, new, added = (
        1 if number is None else int(number) for number in mark.groups()[2:]
    )
    # git counts from 1, but an empty side by the line before it.
    return Span(old - (removed > 0), removed, new - (added > 0), added)


def _portions(changes: Sequence[Change]) -> Iterator[Sequence[Change]]:
    portion: list[Change] = []
    size = 0
    for change in changes:
        more = sum(size for _, size in _shown(change))
        if portion and (len(portion) == _PORTION or size + more > _PORTION_BYTES):
            yield portion
            portion, size = [], 0
        portion.append(change)
        size += more
    if portion:
        yield portion


def _shown(change: Change) -> Iterator[tuple[str, int]]:
    """Blobs of a change that can be shown, with their sizes."""
    for oid, size in ((change.old, change.old_size), (change.new, change.new_size)):
        if size is not None and size <= MOST_SHOWN_BYTES:
            yield oid, size


async def _read(git: Git, changes: Sequence[Change]) -> Mapping[str, bytes]:
    sizes = dict(blob for change in changes for blob in _shown(change))
    if not sizes:
        return {}
    output = await git.run(
        *("cat-file", "--batch", "--buffer"),
        stdin="".join(f"{oid}\n" for oid in sizes).encode(),
        title=_TITLE,
    )
    content = {}
    at = 0
    for oid, size in sizes.items():
        header = f"{oid} blob {size}\n".encode()
        start, end = at + len(header), at + len(header) + size
        if output[at:start] != header or output[end : end + 1] != b"\n":
            raise ReviewError(_TITLE, f"git does not give {oid} as it told it before.")
        content[oid] = output[start:end]
        at = end + 1
    return content
