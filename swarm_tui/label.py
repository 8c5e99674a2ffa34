"""Labels: what a person calls agents by when they are made, to find them again."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from swarm_tui.errors import UsageError
from swarm_tui.text import EMPTY, Safe, join, sanitize

LABELS: Final = 16
"""Of one agent, at most."""
_KEY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,39}")
_CELLS: Final = 80
"""Of a label's value, at most."""


@lru_cache(4096)  # asked for by every filter, of every agent; there are few that differ
def _join_label(key: Safe, value: Safe) -> Safe:
    return join((key, value), "=")


@dataclass(frozen=True, slots=True)
class Label:
    """A mark that was given to an agent when it was made, to find it by."""

    key: Safe
    value: Safe = EMPTY
    """Empty: the key alone says it."""

    @property
    def text(self) -> Safe:
        """ "key=value", or "key"."""
        return _join_label(self.key, self.value)


def make_labels(texts: Iterable[str]) -> tuple[Label, ...]:
    """Labels as a person writes them, "key" or "key=value". Raises UsageError."""
    labels: dict[str, Label] = {}
    for text in texts:
        key, _, value = text.strip().partition("=")
        if not _KEY.fullmatch(key):
            raise UsageError(
                f"“{text}” is no label",
                hint="KEY or KEY=VALUE; a key has up to 40 letters, digits and . _ / -",
            )
        if key in labels:
            raise UsageError(f"The label {key} is given twice")
        if len(value) > _CELLS or sanitize(value) != value:
            raise UsageError(
                f"The label {key} cannot have that value",
                hint=f"Up to {_CELLS} characters that can be seen.",
            )
        labels[key] = Label(sanitize(key), sanitize(value))
    if len(labels) > LABELS:
        raise UsageError(f"An agent has at most {LABELS} labels")
    return tuple(labels[key] for key in sorted(labels))


def read_labels(pairs: Iterable[tuple[str, str]]) -> tuple[Label, ...]:
    """Labels out of what a host tells: keys and values that may be anything, and any number."""
    labels: dict[str, Label] = {}
    for key, value in pairs:
        if _KEY.fullmatch(key) and len(labels) < LABELS:
            labels[key] = Label(sanitize(key), sanitize(value, max_cells=_CELLS))
    return tuple(labels[key] for key in sorted(labels))
