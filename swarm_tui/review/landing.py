"""Approved commits in the owner's repository: new branches, never a checkout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Landed:
    """A branch as it stands in a repository, with what was stored beside it."""

    head: str
    tree: str
    attachments: Mapping[str, bytes]
    """File name → content; empty: no verdict is stored for it."""


def branch_name(agent: str, number: int) -> str:
    """`swarm/<agent>/<number>`; what git allows in no branch name is replaced."""
    raise NotImplementedError


async def read_landed(target: Path, branch: str) -> Landed:
    """Raises NotFound when there is no such branch, ReviewError when it cannot be read."""
    raise NotImplementedError
