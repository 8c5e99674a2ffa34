"""One verb on one agent, for the command line: a supervisor for as long as it takes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from swarm_tui.bootstrap import make_supervisor
from swarm_tui.command import Command
from swarm_tui.config import Loaded
from swarm_tui.errors import NotFound
from swarm_tui.glance import find, is_named_fully
from swarm_tui.model import Agent
from swarm_tui.ports import Progress
from swarm_tui.report import agent_object, write_json
from swarm_tui.supervisor import Supervisor

CONNECT_S: Final = 15.0


@asynccontextmanager
async def at_agent(
    loaded: Loaded, connect: str | None, wanted: str
) -> AsyncIterator[tuple[Supervisor, Agent]]:
    """The agent that `wanted` names, and a supervisor to act on it. Raises NotFound."""
    async with make_supervisor(loaded, connect=connect, is_following=False) as supervisor:
        agents = supervisor.store.agents
        await supervisor.connected(CONNECT_S, lambda: is_named_fully(agents(), wanted))
        agent = find(agents(), wanted)
        if agent is None:
            raise NotFound("No such agent", wanted, "`swarm-tui ls` shows all.")
        yield supervisor, agent


async def act(
    supervisor: Supervisor,
    agent: Agent,
    command: Command,
    *,
    is_json: bool,
    on_progress: Progress | None,
) -> None:
    """Do it, and tell how the agent stands afterwards."""
    done = await supervisor.do(command, on_progress)
    now = supervisor.store.agent(agent.id)
    if is_json:
        write_json({"done": done, "agent": agent_object(now) if now else None})
    else:
        print(f"{agent.name}: {done}")
