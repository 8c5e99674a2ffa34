"""Folders for tests that write and sync hundreds of small files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from memory import FOLDER, is_roomy


@pytest.fixture
def memory_path(tmp_path: Path) -> Iterator[Path]:
    """An empty folder in memory where the system has such, else on the disk as `tmp_path`."""
    if not is_roomy():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="swarm-test-", dir=FOLDER) as folder:
        yield Path(folder)
