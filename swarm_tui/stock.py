"""Agents that are made in advance: what a host's spawner has of them, and how they are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from swarm_tui.ports import Order, Progress
from swarm_tui.profile import Profile
from swarm_tui.text import EMPTY, Safe


@dataclass(frozen=True, slots=True)
class Stock:
    """Agents of one profile that are made in advance on one host, and how its spawns went."""

    profile: Safe
    wanted: int | None = None
    """By the profile; None: there is no such profile any more."""
    ready: int = 0
    stale: int = 0
    """Made of what has changed since: never used, and removed at the next filling."""
    size_bytes: int = 0
    """Of all of them on disk."""
    hits: int = 0
    """Spawns that found a ready one."""
    copies: int = 0
    """That found none, but what they are copied from."""
    misses: int = 0
    """That were made from the start."""
    claims_s: tuple[float, ...] = ()
    """Seconds until SSH answered, of the latest that were hits or copies; oldest first. A wait for
    its turn among many does not count."""
    spawns_s: tuple[float, ...] = ()
    """Of the latest that were misses."""
    missing: Safe = EMPTY
    """Why none can be made in advance on this host; empty: they can."""


@dataclass(frozen=True, slots=True)
class Spread:
    """What was measured, of how many."""

    p50_s: float
    p95_s: float
    count: int

    def __str__(self) -> str:
        return f"p50 {self.p50_s:.2f} s, p95 {self.p95_s:.2f} s of {self.count}"


def spread(seconds: Sequence[float]) -> Spread | None:
    """By nearest rank; None: nothing was measured."""
    if not seconds:
        return None
    ordered, count = sorted(seconds), len(seconds)
    return Spread(ordered[(count - 1) // 2], ordered[(95 * count + 99) // 100 - 1], count)


class Stocker(Protocol):
    """Makes agents in advance on one host, whose spawner takes them."""

    async def replenish(self, order: Order, on_progress: Progress) -> bool:
        """Make one more ready agent of the order's profile; whether another one is wanted then.

        Stale ones go first. Raises Busy while another process is at it, StorageFull,
        Unsupported, and what a spawn raises; nothing that could be claimed is left then.
        """
        ...

    async def stocks(self, orders: Sequence[Order]) -> Sequence[Stock]:
        """Of these orders' profiles, and of all others of which something is kept."""
        ...

    async def drain(self, profile: Profile) -> int:
        """Remove all that is kept ready of a profile; how many that were. Raises Busy."""
        ...
