"""The diffs of a review's files that are at hand."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from swarm_tui.errors import SwarmError
from swarm_tui.handoff import Change
from swarm_tui.review.desk import Reading
from swarm_tui.review.diff import FileDiff
from swarm_tui.ui.search import Matches

_KEPT: Final = 12


class Diffs:
    """Reads each file once, and keeps the last few."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._kept: OrderedDict[str, FileDiff] = OrderedDict()

    def has(self, change: Change) -> bool:
        return change.key in self._kept

    def at_hand(self, change: Change) -> FileDiff | None:
        return self._kept.get(change.key)

    async def get(self, change: Change) -> FileDiff:
        """Raises ReviewError."""
        diff = self._kept.get(change.key)
        if diff is None:
            diff = self._kept[change.key] = await self._reading.file(change)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        if change.key in self._kept:
            self._kept.move_to_end(change.key)
        return diff

    async def prepare(self, change: Change) -> None:
        """Have it at hand later; a failure is told when it is asked for."""
        with suppress(SwarmError):
            await self.get(change)

    async def find(self, changes: Sequence[Change], needle: str) -> int | None:
        """The place of the first file that has the needle; those that cannot be read have not."""
        for place, change in enumerate(changes):
            try:
                diff = await self.get(change)
            except SwarmError:
                continue
            await asyncio.sleep(0)  # keys come first
            if Matches(diff, needle).places:
                return place
        return None
