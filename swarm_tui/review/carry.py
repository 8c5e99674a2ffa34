"""Comments that were written on a review which came to no verdict, on the next one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from swarm_tui.handoff import Change, Comment
from swarm_tui.review.desk import read_file
from swarm_tui.review.diff import FileDiff
from swarm_tui.review.quarantine import Quarantine
from swarm_tui.review.verdict import quoted


async def carried(
    quarantine: Quarantine, comments: Sequence[Comment], changes: Sequence[Change]
) -> Sequence[Comment]:
    """The comments at their places in the new changes.

    A comment stays with its line, wherever that is now. Where the line is gone it is about the
    file, where the file is not among the changes about all. Raises ReviewError.
    """
    by_path = {change.path: change for change in changes}
    diffs: dict[bytes, FileDiff] = {}
    placed = []
    for comment in comments:
        change = by_path.get(comment.path)
        if change and comment.first and comment.path not in diffs:
            diffs[comment.path] = await read_file(quarantine, change)
        placed.append(_placed(comment, change, diffs.get(comment.path)))
    return placed


def _placed(comment: Comment, change: Change | None, diff: FileDiff | None) -> Comment:
    if comment.path and change is None:
        where = comment.path.decode("utf-8", "replace")
        text = f"({where}, which is as it was) {comment.text}"
        return replace(comment, path=b"", first=0, last=0, text=text)
    if diff is None or not comment.first:
        return comment
    lines = diff.old if comment.side == "old" else diff.new
    alike = [
        number
        for number in range(1, len(lines) + 1)
        if quoted(replace(comment, first=number, last=number), diff).quote == comment.quote
    ]
    if not alike:
        text = f"(on a line that is gone: {comment.quote.strip()}) {comment.text}"
        return replace(comment, first=0, last=0, text=text)
    first = min(alike, key=lambda number: abs(number - comment.first))
    last = min(first + comment.last - comment.first, len(lines))
    return replace(comment, first=first, last=last)
