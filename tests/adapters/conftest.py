"""A connected host of each kind for the contract tests, and a guest to reach over SSH."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from swarm_tui.adapters.ssh import SshGuest

from .backends import BACKENDS, Backend
from .ch_backend import ch
from .simulated_backend import simulated
from .sshd import StandInGuest
from .travel import Travel
from .watched import Watched

_ALL = {**BACKENDS, "ch": ch, "simulated": simulated}
_REAL = ("qemu", "ch")

_MARKED = [pytest.param(name, marks=pytest.mark.vm if name in _REAL else ()) for name in _ALL]


@pytest.fixture(params=_MARKED)
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    async with _ALL[request.param](tmp_path) as connected:
        yield connected


@pytest.fixture
async def stand_in(tmp_path: Path) -> AsyncIterator[StandInGuest]:
    guest = StandInGuest(tmp_path / "guest")
    await guest.start()
    yield guest
    await guest.stop()


@pytest.fixture
async def guest(stand_in: StandInGuest) -> AsyncIterator[SshGuest]:
    connected = SshGuest(str(stand_in.run_folder), str(stand_in.folder / "refresh"))
    yield connected
    await connected.close()


@pytest.fixture
async def watched() -> Watched:
    watched = Watched()
    await watched.open()
    return watched


@pytest.fixture
async def travel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Travel]:
    travel = Travel(tmp_path)
    monkeypatch.setenv("HOME", str(travel.home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    yield travel
    await travel.end()
