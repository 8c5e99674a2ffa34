"""How far a reviewer has come: what is viewed, flagged and commented, file by file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from swarm_tui.handoff import Change, Comment, Drafts, Flag, Review
from swarm_tui.review.desk import unseen
from swarm_tui.ui.tree import Signs

ABOUT: Final = -1
"""In place of a file's number: the page about the review as a whole."""


class Marks:
    """Of one review; `drafts` are set as they change."""

    def __init__(self, review: Review, drafts: Drafts) -> None:
        self._review = review
        self.drafts = drafts
        self.changes: Sequence[Change] = ()
        """Those that are shown, in the order of the tree."""
        self.is_since = False
        """Only what changed since an earlier review is shown."""
        self._whole = {change.path: change.key for change in review.changes}  # made once: a digest
        self._keys: Sequence[str] = ()
        self._flags: dict[bytes, list[Flag]] = {}
        for flag in review.flags:
            path = flag.path if flag.path in self._whole else b""
            self._flags.setdefault(path, []).append(flag)

    def show(self, changes: Sequence[Change], *, is_since: bool) -> None:
        """Other changes are shown, in the order of the tree."""
        self.changes, self.is_since = changes, is_since
        self._keys = [self._whole.get(change.path) or change.key for change in changes]

    @property
    def viewed(self) -> int:
        """How many files of the whole review are viewed."""
        return sum(key in self.drafts.viewed for key in self._whole.values())

    def unseen(self) -> Sequence[Flag]:
        """The flags of what is not viewed, as an approval counts them."""
        return unseen(self._review, self.drafts, self._whole)

    def key(self, index: int) -> str:
        """By which a file is marked: what is seen of it since the last review counts for it."""
        if index == ABOUT:
            return self._review.about
        return self._keys[index]

    def is_viewed(self, index: int) -> bool:
        return self.key(index) in self.drafts.viewed

    def next_unviewed(self, after: int) -> int | None:
        """The next one that is not marked, round the end; the page about all only with flags."""
        count = len(self.changes)
        for step in range(1, count + 2):
            index = (after + 1 + step) % (count + 1) - 1
            if not self.is_viewed(index) and (index != ABOUT or b"" in self._flags):
                return index
        return None

    def flags(self, index: int) -> Sequence[Flag]:
        return self._flags.get(self._path(index), ())

    def comments(self, index: int) -> Sequence[Comment]:
        """Those whose lines can be shown."""
        path = self._path(index)
        return [
            comment
            for comment in self.drafts.comments
            if comment.path == path
            # Since the last review the old file is another one than that of the comments.
            and not (self.is_since and comment.side == "old" and comment.first)
        ]

    def place(self, flag: Flag) -> int:
        """The file that a flag is about, or the page about all."""
        paths = (index for index, change in enumerate(self.changes) if change.path == flag.path)
        return next(paths, ABOUT)

    def is_hidden(self, flag: Flag) -> bool:
        """Whether its file is one of the review, but not of those that are shown."""
        return flag.path in self._whole and self.place(flag) == ABOUT

    def next_flag(self, unseen: Sequence[Flag], index: int) -> Flag:
        """The first of these flags beyond a file, round the end."""
        places = {change.path: number for number, change in enumerate(self.changes)}
        ordered = sorted(unseen, key=lambda flag: places.get(flag.path, ABOUT))
        beyond = (flag for flag in ordered if places.get(flag.path, ABOUT) > index)
        return next(beyond, ordered[0])

    def signs(self) -> tuple[Signs, Sequence[Signs]]:
        """What stands in the tree: for the page about all, and for each file."""
        comments = Counter(comment.path for comment in self.drafts.comments)

        def sign(index: int) -> Signs:
            return Signs(self.is_viewed(index), len(self.flags(index)), comments[self._path(index)])

        return sign(ABOUT), [sign(index) for index in range(len(self.changes))]

    def _path(self, index: int) -> bytes:
        return b"" if index == ABOUT else self.changes[index].path
