"""Hosts apart: each has a worker, a deadline and a back-off of its own, and delays nobody else.

The good hosts are libvirt's test driver; the others are sockets that take a connection and never
say a word.
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from swarm_tui.adapters.connection import Deadlines
from swarm_tui.adapters.libvirt import LibvirtHypervisor
from swarm_tui.model import AgentId, HostName, HostState, State, Tag, Usage
from swarm_tui.store import Store
from swarm_tui.tag import render_tag
from swarm_tui.text import literal
from swarm_tui.watch import HostWatch

from .backends import new_id

GOOD, SILENT, AGENTS = 4, 6, 5
WITHIN_S = 30.0
NEVER_S = 10 * WITHIN_S


@pytest.fixture
def silent() -> Iterator[list[str]]:
    """URIs of daemons that take a connection and never answer."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp"))
        paths = [Path(folder) / str(number) for number in range(SILENT)]
        for path in paths:
            server = stack.enter_context(socket.socket(socket.AF_UNIX))
            server.bind(str(path))
            server.listen()
        yield [f"qemu+unix:///system?socket={path}" for path in paths]


@pytest.fixture
def good(tmp_path: Path) -> list[str]:
    """URIs of hosts with agents of their own."""
    tag = render_tag(Tag(task=literal("Sort the imports")))
    uris = []
    for host in range(GOOD):
        domains = "".join(
            f"<domain type='test'><name>agent-{host}-{number}</name><uuid>{new_id()}</uuid>"
            f"<metadata>{tag}</metadata><memory unit='MiB'>64</memory><vcpu>1</vcpu>"
            "<os><type>hvm</type></os></domain>"
            for number in range(AGENTS)
        )
        file = tmp_path / f"host-{host}.xml"
        file.write_text(f"<node>{domains}</node>")
        uris.append(f"test://{file}")
    return uris


@asynccontextmanager
async def watched(uris: list[str], deadlines: Deadlines) -> AsyncIterator[Store]:
    store = Store()

    async def nothing() -> None:
        pass

    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(
                HostWatch(
                    LibvirtHypervisor(HostName(f"host-{number}"), uri, deadlines=deadlines),
                    store.apply,
                    poll_s=0.02,
                    relist_s=0.1,
                    before_list=nothing,
                ).run()
            )
            for number, uri in enumerate(uris)
        ]
        try:
            yield store
        finally:
            for task in tasks:
                task.cancel()


async def until(is_so: Callable[[], object]) -> None:
    end = time.monotonic() + WITHIN_S
    while not is_so():
        assert time.monotonic() < end, "it never came"
        await asyncio.sleep(0.01)


def states(store: Store, state: HostState) -> int:
    return sum(host.state is state for host in store.hosts())


def are_newly_measured(store: Store, seen: Mapping[AgentId, Usage | None]) -> bool:
    agents = store.agents()
    return len(agents) == GOOD * AGENTS and all(
        agent.state is State.RUNNING and agent.usage and agent.usage is not seen.get(agent.id)
        for agent in agents
    )


async def test_hosts_that_never_answer_delay_nobody(silent: list[str], good: list[str]) -> None:
    uris = [*silent, *good]
    async with watched(uris, Deadlines(open_s=NEVER_S)) as store:
        for _ in range(3):  # again and again, and all the while the others still hang
            seen = {agent.id: agent.usage for agent in store.agents()}
            await until(partial(are_newly_measured, store, seen))
            assert states(store, HostState.UP) == GOOD
            assert states(store, HostState.CONNECTING) == SILENT


async def test_a_host_that_never_answers_is_given_up_and_tried_again(
    silent: list[str], good: list[str]
) -> None:
    uris = [*silent, *good]
    async with watched(uris, Deadlines(open_s=0.3)) as store:
        await until(lambda: states(store, HostState.DOWN) == SILENT)
        assert states(store, HostState.UP) == GOOD
        await until(
            lambda: all(
                "does not answer" in host.reason and "next try in" in host.detail
                for host in store.hosts()
                if host.state is HostState.DOWN
            )
        )
        assert {agent.state for agent in store.agents()} == {State.RUNNING}
