"""Where a guest's objects are held, checked and read: a bare repository of ours for each agent.

The rules:
- What a guest sends is bytes for `index-pack` with strict checks, under limits, in a folder apart;
  a refused pack leaves nothing behind. Nothing is ever checked out.
- Git runs only here, with an environment, a configuration and attributes of ours (see `git`);
  nothing that the guest's repository holds can choose a program or hide a line.
- Whatever is told about a change is computed from objects that were hashed here.
- The owner's repository on this machine lends objects (`lender`); it is trusted, and only read.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from swarm_tui.handoff import Change, Commit
from swarm_tui.review.diff import Span


@dataclass(frozen=True, slots=True)
class Survey:
    """What differs between two commits, from objects alone."""

    tree: str
    """Of the head."""
    changes: tuple[Change, ...]
    commits: tuple[Commit, ...]
    """Newest first; at most `survey.MOST_COMMITS_SHOWN`."""
    commit_count: int
    """All commits that the head has and the base has not."""
    is_descended: bool
    """The base is in the history of the head."""


class Quarantine:
    """One agent's objects. Several processes may use one folder at the same time."""

    def __init__(self, folder: Path, lender: Path | None = None) -> None:
        """`folder` is made when it is first needed; `lender` is the owner's repository."""
        raise NotImplementedError

    async def prepare(self, base: str) -> bool:
        """Make ready for objects on top of `base`; whether the guest must send the base, too.

        Raises ReviewError, SetupError (no usable git), StorageFull.
        """
        raise NotImplementedError

    async def take(self, pack: Path, number: int, base: str) -> str:
        """Check what a guest sent and keep it as review `number`; the head's object id.

        `pack` is as `pull` downloads it: a header line and a pack. A number that was taken before
        is replaced. Raises ReviewError, Busy; then nothing of it is kept.
        """
        raise NotImplementedError

    async def survey(self, base: str, head: str) -> Survey:
        """Raises ReviewError, also when there are more changes than can be reviewed."""
        raise NotImplementedError

    def patch(self, base: str, head: str) -> AsyncIterator[bytes]:
        """The canonical patch: the same bytes for the same content, on every machine."""
        raise NotImplementedError

    async def digest(self, base: str, head: str) -> str:
        """ "sha256:…" of the bytes of `patch`."""
        raise NotImplementedError

    async def blob(self, oid: str) -> bytes | None:
        """The content of a file; None when it is larger than `MOST_SHOWN_BYTES`."""
        raise NotImplementedError

    async def spans(self, old: str, new: str) -> Sequence[Span]:
        """What differs between two blobs; an empty id stands for no lines at all."""
        raise NotImplementedError

    async def head_of(self, number: int) -> str | None:
        """The head that is kept as review `number`."""
        raise NotImplementedError

    async def forget(self, number: int) -> None:
        """Let go of a review's objects. Not there is fine."""
        raise NotImplementedError

    async def land(
        self,
        target: Path,
        base: str,
        head: str,
        branch: str,
        attachments: Mapping[str, bytes],
    ) -> None:
        """Make `head` a new branch of the repository at `target`, with its verdict beside it.

        All or nothing. Done already is fine; raises Refused when the branch is another commit or
        has another verdict, ReviewError when the repository cannot take it.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """End the processes that read objects."""
        raise NotImplementedError
