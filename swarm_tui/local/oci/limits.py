"""How much an image may be, so that a hostile one costs little."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Limits:
    compressed_bytes: int = 8 << 30
    """Of all that is fetched."""
    unpacked_bytes: int = 24 << 30
    """Of all files of all layers, replaced ones too, holes of sparse files counted as full."""
    inodes: int = 1_000_000
    layers: int = 200
    path_bytes: int = 2048
    depth: int = 200
    header_bytes: int = 8 << 20
    """That describe one file: its names, and its extended attributes."""
    fetch_s: float = 1800.0
    stall_s: float = 60.0
    """How long a source may give nothing."""
    unpack_s: float = 1200.0


USUAL: Final = Limits()
