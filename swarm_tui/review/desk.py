"""What a reviewer has at hand: one review with its content, the drafts, and the one before it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from swarm_tui.handoff import Change, Comment, Drafts, Flag, Review
from swarm_tui.review.diff import FileDiff


class Reading:
    """One review being read. Several may read the same one; drafts are merged on disk."""

    @property
    def review(self) -> Review:
        raise NotImplementedError

    @property
    def previous(self) -> Review | None:
        """The review of this agent that had a verdict last; what `since` compares with."""
        raise NotImplementedError

    async def file(self, change: Change) -> FileDiff:
        """Both sides of one change. Raises ReviewError."""
        raise NotImplementedError

    async def since(self) -> Sequence[Change]:
        """What changed since the previous review; empty without one. `file` takes these, too."""
        raise NotImplementedError

    def patch(self) -> AsyncIterator[bytes]:
        """The patch that the digest is of, in pieces."""
        raise NotImplementedError

    # Drafts: on disk before they return, and shared with every other reader.

    def drafts(self) -> Drafts:
        """As they are now, also if another session changed them."""
        raise NotImplementedError

    def comment(self, comment: Comment) -> None:
        """Add a comment, or replace the one with the same id. Raises StorageFull."""
        raise NotImplementedError

    def drop(self, comment: str) -> None:
        """Remove the comment with this id."""
        raise NotImplementedError

    def mark(self, key: str, *, is_viewed: bool) -> None:
        """Set or clear a viewed mark: of a change by `Change.key`, or `Review.about`."""
        raise NotImplementedError

    def unseen(self) -> Sequence[Flag]:
        """Flags whose change (or, without path, the review itself) is not marked as viewed."""
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError
