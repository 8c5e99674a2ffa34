"""A bench for each test, with a supervisor at it."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from swarm_tui.local.image import Image, build_image

from .bench import Bench, NoDriver, find_driver, find_hypervisor
from .desk import Desk, open_desk


@pytest.fixture(scope="session")
def image(image_cache: Path) -> Image:
    return build_image(image_cache, lambda _step: None)


@pytest.fixture
def folder() -> Iterator[Path]:
    # Short, because of sockets, and on a disk, because VMs are saved there.
    with tempfile.TemporaryDirectory(prefix="ch-", dir="/var/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def bench(folder: Path, image: Image, image_cache: Path) -> Iterator[Bench]:
    try:
        bench = Bench(folder / "bench", find_driver(), find_hypervisor(image, image_cache))
    except NoDriver as reason:
        pytest.skip(str(reason))
    bench.start()
    yield bench
    bench.stop()


@pytest.fixture
async def desk(bench: Bench, image: Image, folder: Path) -> AsyncIterator[Desk]:
    async with open_desk(bench, image, folder) as desk:
        yield desk
