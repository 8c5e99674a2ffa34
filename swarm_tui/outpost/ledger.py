"""Small texts of agents, kept on the host: `<root>/<uuid>/<name>`, one file each.

They hold what a driver forgets and what another machine's supervisor must find again.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from swarm_tui import durable
from swarm_tui.errors import HostError, UsageError
from swarm_tui.model import AgentId
from swarm_tui.paths import make_private

_AGENT: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NAME: Final = re.compile(r"[a-z][a-z0-9.-]{0,39}")
_MOST_BYTES: Final = 1 << 20


class Ledger:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._writing = threading.Lock()

    def keep(self, agent: AgentId, name: str, content: str) -> Path:
        """As `ports.Outpost.keep`. Raises StorageFull, HostError; UsageError for a long text."""
        path = self._folder(agent) / _checked(name)
        encoded = content.encode()
        if len(encoded) > _MOST_BYTES:
            raise UsageError("The text is too long to be kept", f"{name}: {len(encoded)} bytes")
        with durable.storage("keep a text of an agent", HostError), self._writing:
            make_private(self._root)
            path.parent.mkdir(mode=0o700, exist_ok=True)
            durable.write(path, encoded)
            durable.sync_folder(self._root)
        return path

    def kept(self, name: str) -> Mapping[AgentId, str]:
        """As `ports.Outpost.kept`; what is no text of ours is left out."""
        found: dict[AgentId, str] = {}
        with durable.storage("read what is kept of agents", HostError):
            for folder in os.listdir(self._root) if self._root.exists() else ():
                if not _AGENT.fullmatch(folder):
                    continue
                with suppress(FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
                    found[AgentId(folder)] = self._read(self._root / folder / _checked(name))
        return found

    def drop(self, agent: AgentId, name: str | None = None) -> None:
        """As `ports.Outpost.drop`."""
        folder = self._folder(agent)
        with durable.storage("forget a text of an agent", HostError), self._writing:
            if name is None:
                durable.remove_folder(folder)
            else:
                with suppress(FileNotFoundError, NotADirectoryError):
                    (folder / _checked(name)).unlink()

    def _folder(self, agent: AgentId) -> Path:
        if not _AGENT.fullmatch(agent):
            raise UsageError("Not an agent's id", repr(agent))
        return self._root / agent

    def _read(self, path: Path) -> str:
        with open(path, "rb") as file:
            return file.read(_MOST_BYTES).decode()


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UsageError("Not a name for a text of an agent", repr(name))
    return name
