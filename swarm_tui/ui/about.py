"""What is told about a review and its files: what they are, and what is dangerous about them."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from swarm_tui.amount import render_age
from swarm_tui.handoff import Change, Comment, Flag, Review
from swarm_tui.text import EMPTY, Safe, join, literal, sanitize
from swarm_tui.ui.figures import plural
from swarm_tui.ui.sheet import Para

OID: Final = 12
"""Hex digits by which an object is named; the whole is beside it where there is room."""
_LISTED_AT_MOST: Final = 500


def tell_flag(flag: Flag, *, with_path: bool = False) -> Para:
    """A flag in words, with its line."""
    where = [sanitize(flag.path, max_cells=80)] if with_path and flag.path else []
    if flag.line:
        where.append(literal(f"line {flag.line:,}"))
    place = join(where, ", ")
    kind = literal(flag.kind.replace("-", " "))
    is_said = flag.detail.casefold().startswith(kind)
    text = join((EMPTY if is_said else kind, place, flag.detail), " · ")
    return Para(text, "warning", "⚑ ", "warning", flag=flag)


def tell_file(change: Change, flags: Iterable[Flag], note: Safe) -> list[Para]:
    """What stands above the diff of a file."""
    told = [tell_flag(flag) for flag in flags]
    if change.old_path is not None:
        moved = join((literal("renamed from"), sanitize(change.old_path)))
        told.append(Para(moved, "accent", "→ ", "accent"))
    if note:
        told.append(Para(note, "strong", "· ", "muted"))
    return [*told, Para(EMPTY)] if told else []


def tell_title(change: Change | None, previous: Review | None, *, is_viewed: bool) -> str:
    """What stands above the diff; `previous`: since which review."""
    told = f"since review {previous.number}: " if previous else ""
    told += change.name if change else "about this review"
    if change:
        told += f"  {change.status}"
    if change and (change.added is not None or change.removed is not None):
        told += f" +{change.added or 0:,} -{change.removed or 0:,}"
    return f"{told}  ✓ viewed" if is_viewed else told


def tell_review(review: Review, now: float) -> list[Para]:
    """The page about the review as a whole."""
    told: list[Para] = []
    if review.why:
        why = [Para(line, "strong", "  ") for line in _lines(review.why)]
        told += [Para(literal("it asks"), "muted"), *why, Para(EMPTY)]
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(review.taken))
    facts = (
        ("agent", join((review.name, literal(f"review {review.number}")), ", ")),
        ("taken", literal(f"{clock}, {render_age(now - review.taken)} ago")),
        ("base", sanitize(review.base)),
        ("head", sanitize(review.head)),
        ("tree", sanitize(review.tree)),
        ("digest", sanitize(review.digest)),
        ("files", count_lines(review.changes)),
    )
    told += [Para(value, "text", f"{label:<8}", "faint") for label, value in facts]
    if review.is_uncommitted:
        text = literal("part of this was not committed; it is a commit on top of the agent's own")
        told.append(Para(text, "warning", "note    ", "faint"))
    told += [Para(EMPTY), *_tell_flags(review.flags), *_tell_commits(review)]
    return told


def _tell_flags(flags: Sequence[Flag]) -> Iterable[Para]:
    if not flags:
        yield Para(literal("no flags"), "good", "✓ ", "good")
    else:
        yield Para(literal(f"{plural(len(flags), 'flag')}, to be seen before an approval"), "muted")
    for flag in flags[:_LISTED_AT_MOST]:
        yield tell_flag(flag, with_path=True)
    if len(flags) > _LISTED_AT_MOST:
        yield Para(literal(f"… and {len(flags) - _LISTED_AT_MOST:,} more, in their files"), "muted")
    yield Para(EMPTY)


def _tell_commits(review: Review) -> Iterable[Para]:
    commits = review.commits
    yield Para(literal(plural(len(commits), "commit")), "muted")
    for commit in commits[:_LISTED_AT_MOST]:
        oid = sanitize(commit.oid[:OID])
        yield Para(join((commit.subject, commit.author), " · "), "text", f"{oid}  ", "accent")


def count_lines(changes: Collection[Change]) -> Safe:
    added = sum(change.added or 0 for change in changes)
    removed = sum(change.removed or 0 for change in changes)
    return literal(f"{plural(len(changes), 'file')} +{added:,} -{removed:,}")


def _lines(text: Safe) -> Iterable[Safe]:
    return map(sanitize, text.split("\n"))


def describe(comment: Comment) -> Safe:
    """What a comment is about."""
    if not comment.path:
        return literal("the review as a whole")
    name = sanitize(comment.path, max_cells=60)
    if not comment.first:
        return join((name, literal("as a whole")))
    lines = f"{comment.first:,}" + (f"-{comment.last:,}" if comment.last > comment.first else "")
    side = " of the old file" if comment.side == "old" else ""
    return join((name, literal(f"line {lines}{side}")), ", ")
