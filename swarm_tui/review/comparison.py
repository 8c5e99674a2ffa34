"""Two agents' work beside each other: which files both changed, and how the two differ there.

Each is what a review has of it: the comparison says of which, and of when that is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple, Self

from swarm_tui.amount import render_age
from swarm_tui.errors import NotFound, ReviewError
from swarm_tui.handoff import ABSENT, Change
from swarm_tui.model import AgentId, State
from swarm_tui.review.desk import Reading, open_reading, read_file
from swarm_tui.review.diff import FileDiff
from swarm_tui.review.shelf import Shelf
from swarm_tui.text import EMPTY, Safe, join, literal, sanitize


class Likeness(StrEnum):
    """How the two stand to each other in one file."""

    SAME = "same"  # both changed it, to the same content and mode
    ONLY_A = "only A"
    ONLY_B = "only B"
    DIFFER = "differ"


@dataclass(frozen=True, slots=True)
class Pairing:
    """One path that at least one of the two changed."""

    path: bytes
    a: Change | None
    """What A did to it, from A's base on; None: nothing."""
    b: Change | None

    @property
    def likeness(self) -> Likeness:
        if self.a is None:
            return Likeness.ONLY_B
        if self.b is None:
            return Likeness.ONLY_A
        is_same = (self.a.new_mode, self.a.new) == (self.b.new_mode, self.b.new)
        return Likeness.SAME if is_same else Likeness.DIFFER

    @property
    def between(self) -> Change | None:
        """From A's version to B's; None where not both changed it."""
        if self.a is None or self.b is None:
            return None
        return Change(
            path=self.path,
            old_mode=self.a.new_mode,
            new_mode=self.b.new_mode,
            old=self.a.new,
            new=self.b.new,
            old_size=self.a.new_size,
            new_size=self.b.new_size,
        )

    @property
    def name(self) -> Safe:
        """The path for a screen."""
        return sanitize(self.path)


def pair(a: Sequence[Change], b: Sequence[Change]) -> Sequence[Pairing]:
    """The files that A or B changed, by path.

    Where one renamed a file that the other changed in its place, it is there as deleted by the one.
    """
    of_a, of_b = (_by_path(changes) for changes in (a, b))
    gone_a, gone_b = (_by_path(_left_behind(changes)) for changes in (a, b))
    return [
        Pairing(
            path,
            of_a.get(path) or gone_a.get(path),
            of_b.get(path) or gone_b.get(path),
        )
        for path in sorted(of_a.keys() | of_b.keys())
    ]


def _by_path(changes: Iterable[Change]) -> dict[bytes, Change]:
    return {change.path: change for change in changes}


def _left_behind(changes: Sequence[Change]) -> Iterator[Change]:
    for change in changes:
        if change.old_path is not None:
            yield Change(
                path=change.old_path,
                old_mode=change.old_mode,
                new_mode=ABSENT,
                old=change.old,
                new="",
                old_size=change.old_size,
            )


class Party(NamedTuple):
    """An agent whose work is to be compared."""

    agent: AgentId
    name: Safe
    lender: Path | None
    """The repository that its work is for, if it is on this machine."""
    review: int
    """Which has its work."""
    as_of: float
    """When its work was that, as far as we know."""
    why_then: Safe = EMPTY
    """Why it is not of now; empty: it is, or the agent stands still since."""

    def tell(self, state: State | None, now: float) -> Safe:
        """From when it is, and how the agent is by now; None: there is none any more."""
        age = literal(f"as of {render_age(now - self.as_of)} ago")
        by_now = literal(_BY_NOW.get(state, state) if state else "it is gone")
        return join((age, by_now, self.why_then), ", ")


_BY_NOW: Final[Mapping[State, str]] = {State.RUNNING: "running on", State.ASKING: "it asks"}


class Comparison:
    """Reads both sides. `close` it, or use it as an async context manager."""

    def __init__(self, a: Reading, b: Reading, of_a: Party, of_b: Party) -> None:
        """It closes them. Raises ReviewError when their objects cannot be compared."""
        if len(a.review.head) != len(b.review.head):
            raise ReviewError(
                "The work of the two cannot be compared",
                "Their repositories name contents in two ways (SHA-1 and SHA-256).",
            )
        self.a = a
        self.b = b
        self.of_a = of_a
        self.of_b = of_b
        self.pairings = pair(a.review.changes, b.review.changes)
        self._both = a.quarantine.beside(b.quarantine)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def is_of_one_base(self) -> bool:
        """Otherwise they also differ in what neither of them changed."""
        return self.a.review.base == self.b.review.base

    async def between(self, pairing: Pairing) -> FileDiff:
        """From A's version to B's. Raises NotFound where not both changed it, ReviewError."""
        change = pairing.between
        if change is None:
            raise NotFound("Only one of them changed this file", pairing.name)
        return await read_file(self._both, change)

    def patch(self) -> AsyncIterator[bytes]:
        """What makes B's files of A's, all of them, in the canonical form of reviews."""
        return self._both.patch(self.a.review.head, self.b.review.head)

    async def close(self) -> None:
        async with AsyncExitStack() as closing:
            for one in (self.a, self.b, self._both):
                closing.push_async_callback(one.close)


async def open_comparison(shelf: Shelf, of_a: Party, of_b: Party) -> Comparison:
    """Of two agents' reviews. Raises NotFound, ReviewError, StoreError."""
    async with AsyncExitStack() as opened:
        a, b = [
            await opened.enter_async_context(
                await open_reading(shelf, party.agent, party.review, party.lender)
            )
            for party in (of_a, of_b)
        ]
        comparison = Comparison(a, b, of_a, of_b)
        opened.pop_all()
        return comparison
