"""A guest with work to review, its owner, and the quarantine between them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from .corpus import Workshop


@pytest.fixture
async def workshop(tmp_path: Path) -> AsyncIterator[Workshop]:
    made = Workshop(tmp_path)
    yield made
    await made.quarantine.close()
    assert not made.canary.exists(), "something of the guest's was run here"
