"""Hosts by OpenSSH, and roads to them, for tests that go there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from swarm_tui.adapters.road.outpost import RemoteOutpost
from swarm_tui.adapters.road.road import Road
from swarm_tui.model import HostName

from .openssh import WAIT_S, Server

HOST = HostName("lab")


@dataclass
class Travel:
    """A user with a home folder of which nothing is known, the hosts and the roads of one test."""

    folder: Path
    servers: list[Server] = field(default_factory=list)
    roads: list[Road] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ssh.mkdir(parents=True)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def ssh(self) -> Path:
        return self.home / ".ssh"

    @property
    def trusted(self) -> Path:
        """Our own known_hosts file."""
        return self.folder / "trusted"

    def start(self, *options: str, is_known: bool = True) -> Server:
        """A host, which the user's own known_hosts vouches for."""
        server = Server(self.folder / f"server-{len(self.servers)}", options)
        self.servers.append(server)
        server.start()
        if is_known:
            self.vouch(server)
        return server

    def vouch(self, server: Server) -> None:
        with open(self.ssh / "known_hosts", "a") as known:
            known.write(f"{server.entry}\n")

    def configure(self, *lines: str) -> None:
        """Write ~/.ssh/config."""
        (self.ssh / "config").write_text("".join(f"{line}\n" for line in lines))

    def road(self, server: Server, uri: str = "", snapshots: Path | None = None) -> Road:
        self.roads.append(Road(HOST, uri or server.uri, self.trusted, snapshots=snapshots))
        return self.roads[-1]

    async def outpost(self, server: Server, uri: str = "") -> RemoteOutpost:
        """One that is open."""
        return await open_outpost(self.road(server, uri))

    async def end(self) -> None:
        for road in self.roads:
            for holder in list(road._holders):
                await road.let_go(holder)
        for server in self.servers:
            server.cut()
            server.stop()


async def open_outpost(road: Road) -> RemoteOutpost:
    outpost = RemoteOutpost(road)
    await outpost.open()
    return outpost


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in other processes
            await asyncio.sleep(0.01)
