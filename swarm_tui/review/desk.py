"""What a reviewer has at hand: one review with its content, the drafts, and the one before it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Self

from swarm_tui.errors import NotFound, ReviewError
from swarm_tui.handoff import SUBMODULE, Change, Comment, Drafts, Flag, FlagKind, Review
from swarm_tui.model import AgentId
from swarm_tui.review import flags
from swarm_tui.review.diff import FileDiff, make
from swarm_tui.review.parcel import fetch
from swarm_tui.review.quarantine import Quarantine
from swarm_tui.review.shelf import Shelf
from swarm_tui.review.survey import Survey
from swarm_tui.review.sweep import Sides, is_compared
from swarm_tui.text import sanitize


class Reading:
    """One review being read. Several may read the same one; drafts are shared.

    `close` it, or use it as an async context manager.
    """

    def __init__(
        self,
        shelf: Shelf,
        quarantine: Quarantine,
        review: Review,
        previous: Review | None,
        drafts: Drafts | None = None,
    ) -> None:
        """`drafts` are those that are there, for who has read them."""
        self._shelf = shelf
        self._quarantine = quarantine
        self._review = review
        self._previous = previous
        self._begun = drafts
        self._since: Sequence[Change] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def review(self) -> Review:
        return self._review

    @property
    def quarantine(self) -> Quarantine:
        """Where its objects are; it is closed with this."""
        return self._quarantine

    @property
    def previous(self) -> Review | None:
        """The review of this agent that had a verdict last; what `since` compares with."""
        return self._previous

    async def file(self, change: Change) -> FileDiff:
        """Both sides of one change. Raises ReviewError."""
        return await read_file(self._quarantine, change)

    async def since(self) -> Sequence[Change]:
        """What changed since the previous review; empty without one. `file` takes these, too."""
        if self._since is None:
            self._since = ()
            if self._previous and self._previous.head != self._review.head:
                survey = await self._quarantine.survey(self._previous.head, self._review.head)
                self._since = survey.changes
        return self._since

    def patch(self) -> AsyncIterator[bytes]:
        """The patch that the digest is of, in pieces."""
        return self._quarantine.patch(self._review.base, self._review.head)

    # Drafts: in the store before they return, and shared with every other reader. They block.

    def drafts(self) -> Drafts:
        """As they are now, also if another session changed them."""
        return self._shelf.drafts(self._agent, self._review.number)

    def begun(self) -> Drafts:
        """As they were when it was opened."""
        return self.drafts() if self._begun is None else self._begun

    def comment(self, comment: Comment) -> None:
        """Add a comment, or replace the one with the same id. Raises StorageFull."""
        self._shelf.comment(self._agent, self._review.number, comment)

    def drop(self, comment: str) -> None:
        """Remove the comment with this id."""
        self._shelf.drop(self._agent, self._review.number, comment)

    def mark(self, key: str, *, is_viewed: bool) -> None:
        """Set or clear a viewed mark: of a change by `Change.key`, or `Review.about`."""
        self._shelf.mark(self._agent, key, is_viewed=is_viewed)

    async def close(self) -> None:
        await self._quarantine.close()

    @property
    def _agent(self) -> AgentId:
        return AgentId(self._review.agent)


async def open_reading(shelf: Shelf, agent: AgentId, number: int, lender: Path | None) -> Reading:
    """A review from the shelf, with the objects behind it, wherever it was taken.

    Raises NotFound, ReviewError, StoreError.
    """
    review = await asyncio.to_thread(shelf.read, agent, number)
    previous = await asyncio.to_thread(shelf.last_judged, agent, number)
    quarantine = Quarantine(shelf.quarantine(agent), lender)
    try:
        await ensure(shelf, quarantine, review)
        if previous:
            try:
                await ensure(shelf, quarantine, previous)
            except (ReviewError, NotFound):  # not kept for ever; then nothing is compared with it
                previous = None
        drafts = await asyncio.to_thread(shelf.drafts, agent, number)
    except BaseException:
        await quarantine.close()
        raise
    return Reading(shelf, quarantine, review, previous, drafts)


async def ensure(shelf: Shelf, quarantine: Quarantine, review: Review) -> None:
    """See that a review's objects are at hand, and that it says what they are.

    What was taken or checked on this machine before, and is the same still, is not checked again.
    Raises ReviewError, StoreError.
    """
    await fetch(shelf, quarantine, review)
    if await asyncio.to_thread(shelf.is_checked, review):
        return
    survey = await quarantine.survey(review.base, review.head)
    found = (
        survey.tree,
        await quarantine.digest(review.base, review.head),
        tuple(survey.changes),
        tuple(survey.commits),
    )
    flags = await find_flags(quarantine, survey, review.base, review.head)
    is_told = found == (review.tree, review.digest, review.changes, review.commits)
    if not is_told or not set(flags) <= set(review.flags):
        raise ReviewError(
            "The review does not say what its work is",
            f"Its objects give {found[1]}, it says {review.digest}.",
            "It was altered in the store; take a new review.",
        )
    await asyncio.to_thread(shelf.note_checked, review)


def unseen(
    review: Review, drafts: Drafts, keys: Mapping[bytes, str] | None = None
) -> Sequence[Flag]:
    """The flags whose change (or, without one, the review itself) is not marked as viewed.

    `keys` are the keys of the changes by path, for who has them: each is a digest.
    """
    keys = keys or {change.path: change.key for change in review.changes}
    return [flag for flag in review.flags if keys.get(flag.path, review.about) not in drafts.viewed]


async def read_file(quarantine: Quarantine, change: Change) -> FileDiff:
    """Both sides of a change, from objects in quarantine. Raises ReviewError."""
    old, new = await _content(quarantine, change)
    is_needed = is_compared(change, old, new)
    spans = await quarantine.spans(change.old, change.new) if is_needed else ()
    return make(change, old, new, spans)


async def find_flags(
    quarantine: Quarantine, survey: Survey, base: str, head: str
) -> Sequence[Flag]:
    """All that must be seen before an approval, about each change and about the whole.

    `survey` is that of `base` and `head`. Raises ReviewError.
    """
    found = list(await _flags_of_whole(quarantine, survey, head))
    portions = quarantine.contents(base, head, survey.changes)
    async with aclosing(portions):
        async for portion in portions:
            found += await asyncio.to_thread(_flags_of_each, portion)
    return found


async def _flags_of_whole(quarantine: Quarantine, survey: Survey, head: str) -> Sequence[Flag]:
    others: Sequence[bytes] = ()
    is_all = True
    if any(change.status in ("new", "renamed") for change in survey.changes):
        others, is_all = await quarantine.paths(head)
    changed = {change.path for change in survey.changes}
    found = await asyncio.to_thread(
        flags.whole,
        survey.changes,
        is_descended=survey.is_descended,
        others=[path for path in others if path not in changed],
    )
    if is_all:
        return found
    detail = f"new names were compared with only {len(others):,} files of the tree"
    return [*found, Flag(FlagKind.CASE_CLASH, sanitize(detail))]


def _flags_of_each(portion: Sequence[Sides]) -> Sequence[Flag]:
    found: list[Flag] = []
    for side in portion:
        diff = make(side.change, side.old, side.new, side.spans)
        found += flags.flags(side.change, side.old, side.new, diff)
    return found


async def _content(quarantine: Quarantine, change: Change) -> tuple[bytes | None, bytes | None]:
    """Both sides; None where there is no blob, or one that is too large to be shown."""
    old = await quarantine.blob(change.old) if change.old_mode != SUBMODULE and change.old else None
    new = await quarantine.blob(change.new) if change.new_mode != SUBMODULE and change.new else None
    return old, new
