"""Ages and sizes as they stand in a cell, on the screen and in a list alike: short, never a guess.

Sizes are binary (K = 1024). What nobody knows is None and becomes `NOT_KNOWN`.
"""

from __future__ import annotations

from typing import Final

NOT_KNOWN: Final = "n/a"
_UNITS: Final = ("B", "K", "M", "G", "T", "P")


def render_bytes(count: float | None) -> str:
    """At most four cells: "0", "512B", "1.4K", "182M"."""
    if count is None:
        return NOT_KNOWN
    if count < 1:
        return "0"
    for unit in _UNITS:
        if count < 9.95 and unit != "B":
            return f"{count:.1f}{unit}"
        if count < 999.5:
            return f"{count:.0f}{unit}"
        count /= 1024
    return "huge"


def render_age(seconds: float | None) -> str:
    """At most five cells, coarser with age, so that a calm screen stays calm: "42s", "2h05"."""
    if seconds is None:
        return NOT_KNOWN
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}"
    return f"{min(whole // 86400, 9999)}d"
