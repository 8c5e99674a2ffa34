"""`review`, `approve`, `send-back`, `reject` and `verify` on the command line."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Final

from swarm_tui.acting import act, at_agent
from swarm_tui.amount import render_bytes
from swarm_tui.bootstrap import make_signer
from swarm_tui.command import Review, Verdict
from swarm_tui.config import Loaded
from swarm_tui.errors import UsageError
from swarm_tui.handoff import Change, Flag
from swarm_tui.handoff import Review as Taken
from swarm_tui.model import Agent
from swarm_tui.ports import Progress
from swarm_tui.report import write_json
from swarm_tui.review.desk import Reading
from swarm_tui.review.diff import FileDiff, unified
from swarm_tui.review.proof import prove
from swarm_tui.review.verdict import quoted, read_comments
from swarm_tui.text import sanitize

_SIGNS: Final = {"context": " ", "removed": "-", "added": "+"}


async def review(
    loaded: Loaded,
    connect: str | None,
    wanted: str,
    *,
    is_json: bool,
    is_patch: bool,
    on_progress: Progress | None,
) -> int:
    """Open a review, or take up the open one, and print it: for people, as JSON, or as a patch."""
    async with at_agent(loaded, connect, wanted) as (supervisor, agent):
        done = await supervisor.do(Review(agent.id), on_progress)
        async with await supervisor.reading(agent.id) as reading:
            if is_patch:
                await write_patch(reading.patch())
            elif is_json:
                write_json(await _object(reading))
            else:
                print(f"{agent.name}: {done}")
                _write_summary(reading)
    return 0


async def judge(
    loaded: Loaded,
    connect: str | None,
    wanted: str,
    make: Callable[[Agent, Taken], Verdict],
    *,
    comments: bytes = b"",
    is_all_seen: bool = False,
    is_json: bool,
    on_progress: Progress | None,
) -> int:
    """Give a verdict on the open review. `comments` is a file as `read_comments` takes it."""
    async with at_agent(loaded, connect, wanted) as (supervisor, agent):
        async with await supervisor.reading(agent.id) as reading:
            taken = reading.review
            if comments:
                await add_comments(reading, comments)
            if is_all_seen:
                _mark_flagged(reading)
        verdict = make(agent, taken)
        await act(supervisor, agent, verdict, is_json=is_json, on_progress=on_progress)
    return 0


async def verify(loaded: Loaded, branch: str, repository: Path, *, is_json: bool) -> int:
    """Prove a landed branch against its signed verdict. Raises ReviewError, SignatureError."""
    proof = await prove(
        repository, branch, make_signer(loaded), loaded.config.review.allowed_signers
    )
    verdict = proof.verdict
    facts: dict[str, Any] = {
        "branch": verdict.branch,
        "head": verdict.head,
        "base": verdict.base,
        "tree": verdict.tree,
        "digest": verdict.digest,
        "agent": verdict.agent,
        "name": verdict.name,
        "review": verdict.review,
        "judgement": verdict.judgement,
        "reviewer": verdict.reviewer,
        "at": verdict.at,
        "flags": [sanitize(flag) for flag in verdict.flags],
        "key": proof.fingerprint,
    }
    if is_json:
        write_json({"ok": True, **facts})
    else:
        print(f"{verdict.branch} is what “{verdict.reviewer}” approved")
        for name, value in facts.items():
            print(f"  {name + ':':11}{', '.join(value) if isinstance(value, list) else value}")
    return 0


def digest_of(wanted: str, taken: Taken) -> str:
    """The digest that was typed, whole or by its beginning; raises UsageError for another one."""
    plain = wanted.removeprefix("sha256:")
    if len(plain) < 12 or not taken.digest.removeprefix("sha256:").startswith(plain):
        raise UsageError(
            "That is not the digest of the open review",
            f"Given: {wanted}; open: review {taken.number}, {taken.digest}.",
            "Read it again: `swarm-tui review AGENT`.",
        )
    return taken.digest


async def add_comments(reading: Reading, file: bytes) -> None:
    """Put the comments of a file among the drafts, each with the line it is about: all or none.

    Raises UsageError for a file or a line that is not in the review.
    """
    changes = {change.path: change for change in reading.review.changes}
    placed = []
    for comment in read_comments(file):
        if comment.path and comment.path not in changes:
            raise UsageError(
                "A comment is on a file that is not in the review",
                sanitize(comment.path),
                "Say without a path what is about other files.",
            )
        if comment.first:
            comment = quoted(comment, await reading.file(changes[comment.path]))
        placed.append(comment)
    for comment in placed:
        reading.comment(comment)


def _mark_flagged(reading: Reading) -> None:
    flagged = {flag.path for flag in reading.review.flags}
    for change in reading.review.changes:
        if change.path in flagged:
            reading.mark(change.key, is_viewed=True)
    if b"" in flagged:
        reading.mark(reading.review.about, is_viewed=True)


# For people


def _write_summary(reading: Reading) -> None:
    taken = reading.review
    print(f"base    {taken.base}")
    print(f"head    {taken.head}{' (with uncommitted work)' if taken.is_uncommitted else ''}")
    print(f"digest  {taken.digest}")
    if taken.why:
        print(f"asks    {taken.why}")
    for commit in taken.commits:
        print(f"commit  {commit.oid[:12]}  {commit.subject}  ({commit.author})")
    for change in taken.changes:
        was = f" <- {sanitize(change.old_path)}" if change.old_path is not None else ""
        print(f"{change.status:9}{counts(change):>12}  {change.name}{was}")
    for flag in taken.flags:
        print(f"flag    {_flag_line(flag)}")
    comments = reading.drafts().comments
    if comments:
        print(f"{len(comments)} comments so far")


def counts(change: Change) -> str:
    if change.added is None or change.removed is None:
        return render_bytes(change.new_size)
    return f"+{change.added} -{change.removed}"


def _flag_line(flag: Flag) -> str:
    place = sanitize(flag.path) or "the review"
    line = f":{flag.line}" if flag.line else ""
    return f"{flag.kind}  {place}{line}  {flag.detail}"


async def write_patch(pieces: AsyncIterator[bytes]) -> None:
    """A patch, byte for byte; for a terminal its text is made safe."""
    is_terminal = sys.stdout.isatty()
    rest = b""
    async for piece in pieces:
        if not is_terminal:
            sys.stdout.buffer.write(piece)
            continue
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            print(sanitize(line))
    if rest:
        print(sanitize(rest))
    sys.stdout.flush()


# For programs


async def _object(reading: Reading) -> dict[str, Any]:
    taken = reading.review
    drafts = reading.drafts()
    return {
        "agent": taken.agent,
        "name": taken.name,
        "review": taken.number,
        "taken": taken.taken,
        "why": taken.why or None,
        "base": taken.base,
        "head": taken.head,
        "tree": taken.tree,
        "digest": taken.digest,
        "is_uncommitted": taken.is_uncommitted,
        "commits": [
            {"oid": commit.oid, "subject": commit.subject, "author": commit.author, "at": commit.at}
            for commit in taken.commits
        ],
        "flags": [
            {
                "kind": flag.kind,
                "path": path(flag.path) or None,
                "line": flag.line,
                "detail": flag.detail,
            }
            for flag in taken.flags
        ],
        "files": [_file(await reading.file(change), drafts.viewed) for change in taken.changes],
        "comments": [
            {
                "id": comment.id,
                "path": path(comment.path) or None,
                "side": comment.side,
                "line": comment.first or None,
                "last": comment.last or None,
                "text": comment.text,
            }
            for comment in drafts.comments
        ],
    }


def _file(diff: FileDiff, viewed: frozenset[str]) -> dict[str, Any]:
    change = diff.change
    return {
        "path": path(change.path),
        "old_path": None if change.old_path is None else path(change.old_path),
        "status": change.status,
        "old_mode": change.old_mode,
        "new_mode": change.new_mode,
        "old": change.old or None,
        "new": change.new or None,
        "added": change.added,
        "removed": change.removed,
        "is_viewed": change.key in viewed,
        "note": diff.note or None,
        "lines": lines(diff),
    }


def lines(diff: FileDiff) -> Sequence[dict[str, Any]]:
    """Each shown line with its sign and its numbers; its text is sanitized."""
    listed: list[dict[str, Any]] = []
    for row in unified(diff):
        if row.kind == "gap":
            listed.append({"sign": "@", "old": row.old, "new": row.new, "hidden": row.hidden})
            continue
        side, number = ("old", row.old) if row.kind == "removed" else ("new", row.new)
        text = diff.text("old" if side == "old" else "new", number or 0)
        listed.append({"sign": _SIGNS[row.kind], "old": row.old, "new": row.new, "text": text})
    return listed


def path(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")
