"""Between a quarantine and the shared store: a review's objects go there, and come back elsewhere.

What comes from the store is no more trusted than what comes from a guest: it is taken in by the
same door.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Final

from swarm_tui.errors import NotFound, ReviewError
from swarm_tui.handoff import Review
from swarm_tui.model import AgentId
from swarm_tui.review.git import storage
from swarm_tui.review.packs import base_name, review_name
from swarm_tui.review.quarantine import Quarantine
from swarm_tui.review.shelf import Shelf

_KEPT: Final = 2
"""Reviews before a new one whose objects stay in the store: what it may be compared with."""


async def send(shelf: Shelf, quarantine: Quarantine, review: Review, limit_bytes: int) -> None:
    """Keep the objects behind a review in the store, each pack up to `limit_bytes`.

    A base that is larger is not kept: who opens the review needs the owner's repository then.
    Raises ReviewError, StoreError, StorageFull.
    """
    packs, base = shelf.packs, base_name(review.base)
    folder = shelf.quarantine(AgentId(review.agent))
    if not await asyncio.to_thread(packs.has, base):
        with _scratch(folder) as file:
            is_small = await quarantine.pack_base(file, review.base, limit_bytes)
            await asyncio.to_thread(packs.keep, base, "", file if is_small else None)
    if review.head != review.base:
        with _scratch(folder) as file:
            # Twice what came: it is packed anew, and maybe less well.
            await quarantine.pack(file, review.base, review.head, 2 * limit_bytes)
            name = review_name(review.agent, review.number)
            await asyncio.to_thread(packs.keep, name, review.base, file)
    await asyncio.to_thread(shelf.forget_packs, AgentId(review.agent), review.number - _KEPT)


async def fetch(shelf: Shelf, quarantine: Quarantine, review: Review) -> None:
    """See that the objects behind a review are in this machine's quarantine.

    Raises ReviewError when they cannot be had, StoreError.
    """
    if await quarantine.head_of(review.number) == review.head:
        return
    kind = "empty" if review.head == review.base else "packed"
    try:
        if await quarantine.prepare(review.base):
            with quarantine.incoming() as folder:
                begin = f"swarm-pack 1 {review.base} clean packed\n".encode()
                base = base_name(review.base)
                await asyncio.to_thread(shelf.packs.fetch, base, folder / "pack", begin)
                await quarantine.take_base(folder / "pack", review.base)
        with quarantine.incoming() as folder:
            begin = f"swarm-pack 1 {review.head} clean {kind}\n".encode()
            name = review_name(review.agent, review.number)
            if kind == "empty":
                await asyncio.to_thread((folder / "pack").write_bytes, begin)
            else:
                await asyncio.to_thread(shelf.packs.fetch, name, folder / "pack", begin)
            await quarantine.take(folder / "pack", review.number, review.base)
    except NotFound as error:
        raise ReviewError(
            "The work that was reviewed is not at hand",
            f"Neither this machine nor the store has it ({error.detail}).",
            "Open it where it was taken, or set review.repository to a repository that holds "
            f"{review.base}.",
        ) from error


def _scratch(folder: Path) -> IO[bytes]:
    """A file without a name, of which a crash leaves nothing."""
    with storage():
        return TemporaryFile(dir=folder)
