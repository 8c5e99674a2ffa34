"""A connected host of each kind for the contract tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from .backends import BACKENDS, Backend
from .simulated_backend import simulated

_ALL = {**BACKENDS, "simulated": simulated}


@pytest.fixture(params=_ALL)
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    async with _ALL[request.param](tmp_path) as connected:
        yield connected
