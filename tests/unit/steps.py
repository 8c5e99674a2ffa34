"""Stops a verb at any step: its file operations told one by one, and its process killed."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from swarm_tui import durable
from swarm_tui.database import Transaction
from swarm_tui.errors import StorageFull


@contextmanager
def file_steps(on_step: Callable[[str], None], apart: Path | None = None) -> Iterator[None]:
    """Tell every change to a file or to the store before it is made.

    `on_step` may raise OSError, or end the process.

    With `apart`, that folder is on another file system than all else.
    """

    def told(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            paths = [str(argument) for argument in arguments if not isinstance(argument, int)]
            on_step(" ".join([name, *paths[:2]]))
            if apart and name == "rename":
                inside = [str(apart) in path for path in paths]
                if inside[0] != inside[1]:
                    raise OSError(errno.EXDEV, "Invalid cross-device link")
            return work(*arguments, **options)

        return step

    tell = Transaction.tell

    def before_commit(transaction: Transaction) -> None:
        tell(transaction)
        try:
            on_step("commit")
        except OSError as error:
            raise StorageFull("No room in the store", str(error), "Free some space.") from error

    names = ("rename", "unlink", "mkdir", "rmdir", "fsync")
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setattr(os, name, told(name, getattr(os, name)))
        patch.setattr(durable, "_cp", told("cp", durable._cp))
        patch.setattr(Transaction, "tell", before_commit)
        yield


def fork() -> int:
    """As os.fork; threads that tests have left idle do not matter to the child."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def killed(work: Callable[[Callable[[str], None]], None], at: int) -> tuple[bool, list[str]]:
    """Run `work` in a child process that is killed (SIGKILL) when it tells step number `at`.

    Returns whether it was, and the steps that it came to.
    """
    read, write = os.pipe()
    child = fork()
    if child == 0:
        steps = itertools.count()

        def on_step(name: str) -> None:
            os.write(write, f"{name}\n".encode())
            if next(steps) == at:
                os.kill(os.getpid(), signal.SIGKILL)

        status = 1
        try:
            work(on_step)
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read) as pipe:
        told = pipe.read().splitlines()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True, told
    assert os.WEXITSTATUS(status) == 0, f"the child failed after {told[-1:]}"
    return False, told
