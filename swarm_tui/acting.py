"""A verb on one agent or on many, for the command line: a supervisor for as long as it takes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from swarm_tui import filter
from swarm_tui.batch import Batch, Fate, Item, count, tell_refusals
from swarm_tui.bootstrap import make_supervisor
from swarm_tui.command import Command
from swarm_tui.config import Loaded
from swarm_tui.errors import NotFound, Refused, SwarmError, UsageError
from swarm_tui.glance import Glance, find, is_named_fully
from swarm_tui.model import Agent, AgentId, Verb
from swarm_tui.policy import Deny, decide
from swarm_tui.ports import Progress
from swarm_tui.report import agent_object, error_object, write_error, write_json
from swarm_tui.store import sort_key
from swarm_tui.supervisor import Supervisor
from swarm_tui.text import join

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


def choose(seen: Glance, names: Sequence[str], text: str) -> Sequence[Agent]:
    """The agents of these names, or those that a filter lets through. Raises NotFound, UsageError.

    Hosts that could not be read are told; agents there are not among those of a filter.
    """
    if names and text:
        raise UsageError("Name agents, or give a --filter", "Both were given.")
    if names:
        return list({agent.id: agent for agent in map(seen.find_surely, names)}.values())
    chosen = filter.parse(text)
    if chosen.is_everything:
        raise UsageError("The filter leaves nobody out", hint="Say whom, e.g. 'state:running'.")
    agents = sorted((one for one in seen.store.agents() if chosen.matches(one)), key=sort_key)
    for error in seen.errors:
        write_error(error, is_json=False)
    if not agents:
        raise NotFound("No agent matches the filter", text, "`swarm-tui ls --filter` tries one.")
    return agents


def sift(
    seen: Glance, verb: Verb, agents: Sequence[Agent], *, is_quick: bool
) -> tuple[Sequence[Agent], Sequence[tuple[Agent, Deny]]]:
    """Those that policy allows the verb for, and the others with why it does not.

    Raises Refused when nobody is left.
    """
    allowed: list[Agent] = []
    denied: list[tuple[Agent, Deny]] = []
    for agent in agents:
        host = seen.store.host(agent.host)
        decision = decide(verb, agent, host.capabilities if host else None, is_quick=is_quick)
        if isinstance(decision, Deny):
            denied.append((agent, decision))
        else:
            allowed.append(agent)
    if not allowed:
        told = "\n".join(tell_refusals(deny.reason for _, deny in denied))
        raise Refused(f"{verb} is not possible for any of {len(agents)} agents now", told)
    return allowed, denied


def confirm(
    verb: Verb, agents: Sequence[Agent], denied: Sequence[tuple[Agent, Deny]], *, is_grave: bool
) -> None:
    """Ask a person, with the counts. Raises UsageError unless the answer is yes."""
    if not sys.stdin.isatty():
        raise UsageError(f"{verb} of several agents needs --yes when nobody can be asked")
    of = f" of {len(agents) + len(denied)}" if denied else ""
    print(f"{verb} {len(agents)}{of} agents: {count(agents)}", file=sys.stderr)
    for line in tell_refusals(deny.reason for _, deny in denied):
        print(f"  {line}", file=sys.stderr)
    wanted = str(len(agents)) if is_grave else "yes"
    lost = "VMs, disks and snapshots go for good. " if is_grave else ""
    print(f"{lost}Type {wanted} to go on: ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip() != wanted:
        raise UsageError(f"Nothing was done: {wanted} was not typed")


async def heed(supervisor: Supervisor, verb: Verb, agents: Sequence[Agent]) -> None:
    """Ask a person before agents come back to where memory lacks. Raises UsageError."""
    if verb is not Verb.RESUME:
        return
    await supervisor.freshen({agent.host for agent in agents})
    doubts = supervisor.promises.doubts(agent.id for agent in agents)
    if not doubts:
        return
    if not sys.stdin.isatty():
        told = join(doubts)
        raise UsageError("This resume needs --yes when nobody can be asked", told)
    for line in doubts:
        print(line, file=sys.stderr)
    print("Type yes to go on: ", end="", file=sys.stderr, flush=True)
    if (await asyncio.to_thread(sys.stdin.readline)).strip() != "yes":
        raise UsageError("Nothing was done: yes was not typed")


async def act_on_many(
    loaded: Loaded,
    connect: str | None,
    verb: Verb,
    agents: Sequence[Agent],
    denied: Sequence[tuple[Agent, Deny]],
    make: Callable[[AgentId], Command],
    *,
    is_json: bool,
    is_sure: bool = False,
) -> int:
    """Do it to each, and tell each as it ends; 0 when all of it was done, else 1.

    `is_sure`: nobody is asked about what speaks against it.
    """
    batch = Batch(verb, agents, make)
    async with make_supervisor(loaded, connect=connect, is_following=False) as supervisor:
        known = supervisor.store.agent
        with suppress(SwarmError):  # told with each agent that is out of reach for it
            await supervisor.connected(CONNECT_S, lambda: all(known(agent.id) for agent in agents))
        if not is_sure:
            await heed(supervisor, verb, agents)
        await batch.run(supervisor.do, (lambda item: None) if is_json else _tell_end)
    for item in batch.items:
        if item.error and not isinstance(item.error, SwarmError):
            raise item.error
    if is_json:
        refused = [
            _outcome(agent.id, agent.name, agent.host, "refused") | {"told": deny.reason}
            for agent, deny in denied
        ]
        write_json({"verb": verb, "agents": [*map(_item_object, batch.items), *refused]})
    else:
        for agent, deny in denied:
            print(f"{agent.host}/{agent.name}: not possible: {deny.reason}")
    return 0 if batch.counts.get(Fate.DONE) == len(agents) else 1


def _tell_end(item: Item) -> None:
    who = f"{item.host}/{item.name}"
    print(f"{who}: {f'failed: {item.error}' if item.error else item.told}", flush=True)


def _outcome(agent: str | None, name: str, host: str | None, outcome: str) -> dict[str, Any]:
    return {"id": agent, "name": name, "host": host, "outcome": outcome}


def _item_object(item: Item) -> dict[str, Any]:
    error = error_object(item.error) if isinstance(item.error, SwarmError) else None
    done = _outcome(item.id, item.name, item.host, item.fate)
    return done | {"told": item.told or None, "error": error}
