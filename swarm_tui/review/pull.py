"""Taking an agent's work out of its guest as one bounded pack."""

from __future__ import annotations

from dataclasses import dataclass

from swarm_tui.model import Address
from swarm_tui.ports import Guest, Progress
from swarm_tui.review.quarantine import Quarantine
from swarm_tui.text import Safe


@dataclass(frozen=True, slots=True)
class Pulled:
    head: str
    is_uncommitted: bool
    """The head is a commit of our helper, on top of the agent's own."""
    pack_bytes: int
    remark: Safe
    """What git complained about in the guest, as files that it could not read; mostly empty."""


async def pull(
    guest: Guest,
    address: Address,
    quarantine: Quarantine,
    number: int,
    base: str,
    on_progress: Progress,
    *,
    limit_bytes: int = 64 << 20,
    timeout_s: float = 60.0,
) -> Pulled:
    """Take the agent's work as review `number`, committed or not. Its processes must stand still.

    Raises ReviewError for what cannot be reviewed, GuestError, DeadlineExceeded, StorageFull.
    """
    raise NotImplementedError


async def head_now(guest: Guest, address: Address, *, timeout_s: float = 30.0) -> str:
    """The head that `pull` would take now; the same as before as long as nothing changed."""
    raise NotImplementedError
