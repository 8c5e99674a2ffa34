"""Bringing a commit into a new guest, as its workspace."""

from __future__ import annotations

import shlex
from typing import Final

from swarm_tui.errors import GuestFailed
from swarm_tui.local.guest import DELIVER
from swarm_tui.local.home import Home
from swarm_tui.model import Address
from swarm_tui.ports import Progress, Source
from swarm_tui.text import literal, sanitize

_ANSWER_S: Final = 30.0
_BYTES_PER_S: Final = 500_000
"""The slowest that is waited for: twenty guests under emulation at once take more than this."""
_EXCERPT_BYTES: Final = 1000


async def deliver(home: Home, address: Address, source: Source, on_progress: Progress) -> None:
    """Make the guest's workspace a clean checkout of the source. Raises GuestError and others."""
    size = max(1, source.size_bytes)
    told = -1

    def tell(sent: int) -> None:
        nonlocal told
        if sent >> 20 != told:
            told = sent >> 20
            words = literal(f"delivering the repository: {told} of {size >> 20} MiB")
            on_progress(words if size >> 20 else literal("delivering the repository"), sent / size)

    words = (DELIVER, source.commit, address.workspace, address.user)
    done = await home.guest.upload(
        address,
        f"exec {shlex.join(words)}",
        source.archive,
        timeout_s=_ANSWER_S + size / _BYTES_PER_S,
        on_bytes=tell,
    )
    if done.exit_status != 0:
        complaint = sanitize(done.stderr[-_EXCERPT_BYTES:].strip(), lines="many", max_cells=400)
        raise GuestFailed(
            "The repository could not be delivered",
            complaint or f"The guest ended with status {done.exit_status}.",
            "If its disk is full, let the profile's disk_mib be larger.",
        )
