"""A shell that a person opens is told to all supervisors, and none is opened in what is ending."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from swarm_tui.attach import announced
from swarm_tui.bootstrap import open_catalogue, open_database
from swarm_tui.catalogue.shells import Shells
from swarm_tui.config import load
from swarm_tui.errors import Busy
from swarm_tui.model import Verb

from .standin import AGENT


async def test_a_shell_is_told_while_it_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWARM_TUI_HOME", str(tmp_path))
    loaded = load()
    loaded.paths.make()
    shells = Shells(open_database(loaded))
    async with announced(loaded, AGENT):
        assert shells.look()[0] == {AGENT}
    assert shells.look()[0] == set()
    catalogue = open_catalogue(loaded)
    claim = await asyncio.to_thread(catalogue.claim, AGENT, Verb.END)
    with pytest.raises(Busy, match="No shell can be opened now"):
        async with announced(loaded, AGENT):
            pytest.fail("it was opened")
    claim.release()
    catalogue.close()
    assert shells.look()[0] == set()
