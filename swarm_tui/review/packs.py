"""Git objects in the shared store, so that who did not take a review can open it.

A review's pack holds what its head has and its base has not; the base's own pack holds that commit
without its past, and is shared by all reviews on top of it. Both are only bytes: they are checked
as those of a guest before they are used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Final

from swarm_tui.database import Transaction
from swarm_tui.errors import NotFound, ReviewError
from swarm_tui.model import AgentId
from swarm_tui.review.git import storage

MOST_BYTES: Final = 1 << 30
_PART_BYTES: Final = 1 << 20

Begin = Callable[[], AbstractContextManager[Transaction]]


class Packs:
    """By name: `base_name`, `review_name`. Everything here blocks, and raises StoreError."""

    def __init__(self, read: Begin, write: Begin) -> None:
        self._read = read
        self._write = write

    def has(self, name: str) -> bool:
        with self._read() as transaction:
            return transaction.row("SELECT 1 FROM packs WHERE name = ?", name) is not None

    def keep(self, name: str, base: str, file: IO[bytes] | None) -> None:
        """Put a pack there, or the note that there can be none; one that is there stays.

        `base`: of a review's pack, what it builds on.
        """
        with self._write() as transaction:
            if not transaction.run(
                "INSERT INTO packs (name, base, size, sha256) VALUES (?, ?, 0, '')"
                " ON CONFLICT (name) DO NOTHING",
                name,
                base,
            ):
                return
            size, sha256 = 0, hashlib.sha256()
            for part, content in enumerate(_parts(file)):
                size += len(content)
                sha256.update(content)
                transaction.run(
                    "INSERT INTO pack_parts (name, part, content) VALUES (?, ?, ?)",
                    name,
                    part,
                    content,
                )
            transaction.run(
                "UPDATE packs SET size = ?, sha256 = ? WHERE name = ?",
                size,
                sha256.hexdigest() if file else "",
                name,
            )

    def fetch(self, name: str, target: Path, begin: bytes) -> None:
        """Write a pack into a file behind what it shall `begin` with.

        Raises NotFound, ReviewError when it is damaged or larger than is taken.
        """
        with self._read() as transaction, storage(), open(target, "xb") as file:
            row = transaction.row("SELECT size, sha256 FROM packs WHERE name = ?", name)
            if row is None or not row[1]:
                raise NotFound("The store does not hold the objects behind this review", name)
            size, sha256, part = int(row[0]), hashlib.sha256(), 0
            file.write(begin)
            left = size if size <= MOST_BYTES else -1
            while left > 0:
                found = transaction.row(
                    "SELECT content FROM pack_parts WHERE name = ? AND part = ?", name, part
                )
                content = found[0] if found else b""
                if not isinstance(content, bytes) or not content or len(content) > left:
                    left = -1
                    break
                sha256.update(content)
                file.write(content)
                left, part = left - len(content), part + 1
            if left or sha256.hexdigest() != row[1]:
                raise ReviewError(
                    "The objects behind this review are damaged in the store",
                    f"{name}: they are not what was put there.",
                    "Take a new review.",
                )

    def forget(self, transaction: Transaction, agent: AgentId, before: int | None = None) -> None:
        """Remove the packs of an agent's reviews (those of lower numbers), and bases of none."""
        rows = transaction.rows("SELECT number FROM reviews WHERE agent = ?", agent)
        for [number] in rows:
            if before is None or number < before:
                name = review_name(agent, int(number))
                transaction.run("DELETE FROM pack_parts WHERE name = ?", name)
                transaction.run("DELETE FROM packs WHERE name = ?", name)
        unused = (
            "SELECT name FROM packs WHERE base = '' AND NOT EXISTS"
            " (SELECT 1 FROM packs AS used WHERE 'base/' || used.base = packs.name)"
        )
        for [name] in transaction.rows(unused):
            transaction.run("DELETE FROM pack_parts WHERE name = ?", name)
            transaction.run("DELETE FROM packs WHERE name = ?", name)


def base_name(base: str) -> str:
    return f"base/{base}"


def review_name(agent: str, number: int) -> str:
    return f"review/{agent}/{number}"


def _parts(file: IO[bytes] | None) -> Iterator[bytes]:
    if file is None:
        return
    with storage():
        file.seek(0)
        while content := file.read(_PART_BYTES):
            yield content
