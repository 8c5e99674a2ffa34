"""One image for all tests here, built as a user's would be."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm_tui.local.image import Image, build_image


@pytest.fixture(scope="session")
def image(image_cache: Path) -> Image:
    return build_image(image_cache, lambda _: None)
