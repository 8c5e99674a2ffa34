"""A store that is out of reach, or cut off in the middle of a transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from swarm_tui.database import Database, Transaction
from swarm_tui.errors import StoreUnreachable


@contextmanager
def away(database: Database) -> Iterator[None]:
    """Nobody reaches the store."""

    @contextmanager
    def nobody() -> Iterator[Transaction]:
        raise StoreUnreachable("The store is out of reach", "as it was asked for")
        yield

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "write", nobody)
        patch.setattr(database, "read", nobody)
        yield


class _Counted:
    """A transaction that ends before its n-th change."""

    def __init__(self, real: Transaction, left: list[int]) -> None:
        self._real = real
        self._left = left

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def run(self, *arguments: Any) -> int:
        self._left[0] -= 1
        if self._left[0] == 0:
            raise StoreUnreachable("The store was cut off")
        return self._real.run(*arguments)


@contextmanager
def cut_at(database: Database, change: int) -> Iterator[None]:
    """The store is cut off at that change (from 1); where there are fewer, the answer to a
    commit is lost.
    """
    left = [change]
    write = database.write

    @contextmanager
    def cut() -> Iterator[Any]:
        with write() as transaction:
            yield _Counted(transaction, left)
        if left[0] > 0:
            left[0] = 0
            raise StoreUnreachable("The answer was lost")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "write", cut)
        yield
