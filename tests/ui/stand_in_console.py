"""A stand-in for the serial console of a VM."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass


@dataclass
class StandInConsole:
    """Says what it is given, then closes."""

    output: Sequence[bytes]

    async def read(self) -> AsyncIterator[bytes]:
        for piece in self.output:
            yield piece

    async def write(self, data: bytes) -> None:
        raise AssertionError("the console view is read only")
