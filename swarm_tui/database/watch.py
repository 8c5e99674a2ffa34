"""Noticing that another process changed the database."""

from __future__ import annotations

from typing import Protocol


class Watch(Protocol):
    """Made by `Database.watch`; for one thread, but `wake` is for any."""

    def wait(self, timeout_s: float) -> bool:
        """Whether somebody committed a change since the last call, within that time.

        Returns early when woken. Raises StoreError when the database is out of reach.
        """
        ...

    def wake(self) -> None:
        """Have `wait` return now."""
        ...

    def close(self) -> None: ...
