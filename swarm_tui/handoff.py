"""The words of a review: what changed, what is dangerous about it, what was said, what was decided.

Paths are bytes, as git has them: they are the guest's, and go through `sanitize` to be shown.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal

from swarm_tui.model import Judgement
from swarm_tui.text import EMPTY, Safe, sanitize

ABSENT: Final = "000000"
"""Mode of the side on which a file is not."""
SYMLINK: Final = "120000"
SUBMODULE: Final = "160000"
EXECUTABLE: Final = "100755"

Side = Literal["old", "new"]


class FlagKind(StrEnum):
    """Kinds of change that must be seen before an approval."""

    BINARY = "binary"
    SYMLINK = "symlink"
    SUBMODULE = "submodule"
    MODE = "mode"  # became executable, or no more
    ATTRIBUTES = "attributes"  # .gitattributes, .gitmodules, .gitignore, .mailmap
    CI = "ci"  # runs on somebody's build machine
    HOOK = "hook"  # runs on a developer's machine by itself: hooks, editor tasks, direnv
    LOCKFILE = "lockfile"
    LONG_LINE = "long-line"
    HIDDEN = "hidden"  # bidirectional, invisible or control characters in added lines
    NAME = "name"  # a path that hides what it is, or leaves the tree
    CASE_CLASH = "case-clash"  # two paths that are one on some file systems
    TOO_LARGE = "too-large"  # content that is not shown
    HISTORY = "history"  # the base is not in the history of the head
    LEFT_OUT = "left-out"  # git could not add some of the uncommitted work
    ENCODING = "encoding"  # text that is not UTF-8: what is shown is not the bytes


@dataclass(frozen=True, slots=True)
class Change:
    """One path that differs between two trees."""

    path: bytes
    old_mode: str
    new_mode: str
    old: str
    """Object id of the old content; empty where there is none."""
    new: str
    old_path: bytes | None = None
    """Where it was before, for a rename."""
    added: int | None = None
    """Lines; None: they cannot be counted (binary, too large, submodule)."""
    removed: int | None = None
    old_size: int | None = None
    """Bytes; None where there is no blob."""
    new_size: int | None = None

    @property
    def status(self) -> Literal["new", "deleted", "renamed", "retyped", "mode", "modified"]:
        if self.old_mode == ABSENT:
            return "new"
        if self.new_mode == ABSENT:
            return "deleted"
        if self.old_path is not None:
            return "renamed"
        if self.old_mode[:2] != self.new_mode[:2]:
            return "retyped"  # a file became a symlink, say
        return "mode" if self.old == self.new else "modified"

    @property
    def key(self) -> str:
        """Names this content in this place: a viewed mark holds as long as the key is the same."""
        parts = (self.path, self.old_path or b"", *map(str.encode, self._words))
        return hashlib.sha256(b"\0".join(parts)).hexdigest()[:24]

    @property
    def _words(self) -> tuple[str, ...]:
        return (self.old_mode, self.new_mode, self.old, self.new)

    @property
    def name(self) -> Safe:
        """The path for a screen."""
        return sanitize(self.path)


@dataclass(frozen=True, slots=True)
class Flag:
    """Something about a change, or about the whole review, that a reviewer must have seen."""

    kind: FlagKind
    detail: Safe
    path: bytes = b""
    """Empty: it is about the review as a whole."""
    line: int | None = None
    """Of the new file, from 1, where it is about one line."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit between base and head, as the guest wrote it."""

    oid: str
    subject: Safe
    author: Safe
    at: float | None = None


@dataclass(frozen=True, slots=True)
class Review:
    """What was taken from an agent at one moment; never changed afterwards."""

    agent: str
    """The agent's id."""
    name: Safe
    number: int
    """Counts the reviews of one agent, from 1."""
    taken: float
    base: str
    head: str
    """The commit that is reviewed: the agent's HEAD or, on top of it, its uncommitted work."""
    tree: str
    digest: str
    """"sha256:…" of the patch from base to head, byte for byte as `review --patch` writes it."""
    changes: tuple[Change, ...] = ()
    flags: tuple[Flag, ...] = ()
    commits: tuple[Commit, ...] = ()
    """Newest first; capped."""
    is_uncommitted: bool = False
    """Part of it was not committed by the agent, but by our helper in the guest."""
    why: Safe = EMPTY
    """What the agent said when it asked."""

    @property
    def about(self) -> str:
        """Key of the viewed mark for the flags of the review as a whole."""
        return f"about-{self.digest}"


@dataclass(frozen=True, slots=True)
class Comment:
    """What a reviewer says about some lines, about a file (no lines), or about all (no path)."""

    id: str
    text: str
    path: bytes = b""
    side: Side = "new"
    first: int = 0
    """Line numbers from 1; 0: the file as a whole."""
    last: int = 0
    quote: str = ""
    """The text of the first line, so that the place is found after the file changed."""


@dataclass(frozen=True, slots=True)
class Drafts:
    """A review's comments so far, and the keys of what its agent's reviewers marked as viewed."""

    comments: tuple[Comment, ...] = ()
    viewed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision bound to content. `payload` is what is signed."""

    judgement: Judgement
    agent: str
    name: Safe
    review: int
    reviewer: Safe
    """The principal under which the signature is checked, e.g. "ann@example.org"."""
    base: str
    head: str
    tree: str
    digest: str
    at: float
    flags: tuple[str, ...] = ()
    """Kinds and paths of the flags that were seen: "binary logo.png"."""
    message: str = ""
    """What the agent is told, with all comments."""
    branch: str = ""
    """Where an approval lands; empty else."""
    payload: bytes = b""
    """The exact bytes that were signed."""
    signature: str = ""
    """SSHSIG, armoured; empty: unsigned, as the configuration allows."""
    steps: tuple[str, ...] = field(default=(), compare=False)
    """What was done with it so far: "landed", "delivered", "void"."""
