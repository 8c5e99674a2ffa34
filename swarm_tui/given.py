"""What commands of the command line make of what was given there: settings, agents, a verb on them.

Imports stand inside the functions: each command pays for what it needs only.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from swarm_tui.errors import UsageError

if TYPE_CHECKING:
    from swarm_tui.command import Command
    from swarm_tui.config import Loaded
    from swarm_tui.glance import Glance
    from swarm_tui.model import AgentId
    from swarm_tui.text import Safe

T = TypeVar("T")


def load(arguments: argparse.Namespace, **overrides: object) -> Loaded:
    from swarm_tui import config

    for setting in arguments.set:
        key, separator, value = setting.partition("=")
        if not separator:
            raise UsageError("--set needs KEY=VALUE", repr(setting))
        overrides[key] = value
    return config.load(overrides=overrides, file=arguments.config)


def shell_argv(arguments: argparse.Namespace) -> Callable[[AgentId], list[str]]:
    """What the app runs to attach a shell: this program, with the same global options.

    What it says on a failure must stay until it is read: its window closes with it.
    """
    options = [option for setting in arguments.set for option in ("--set", setting)]
    if arguments.config:
        options += ["--config", str(arguments.config)]
    if arguments.connect:
        options += ["--connect", arguments.connect]
    return lambda agent: [sys.executable, "-m", "swarm_tui", *options, "shell", "--hold", agent]


def run(work: Coroutine[Any, Any, T]) -> T:
    import asyncio

    return asyncio.run(work)


def read_bytes(path: str) -> bytes:
    """A file, or standard input for "-". Raises UsageError."""
    try:
        return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise UsageError("The file cannot be read", f"{path}: {error.strerror}") from error


def glance(arguments: argparse.Namespace, loaded: Loaded) -> Glance:
    import asyncio

    from swarm_tui import glance

    return asyncio.run(glance.glance(loaded, arguments.connect))


def tell(step: Safe, fraction: float | None) -> None:
    share = f" {fraction:.0%}" if fraction is not None else ""
    print(f"  {step}{share}", file=sys.stderr, flush=True)


def steer(arguments: argparse.Namespace, make: Callable[[AgentId], Command]) -> int:
    """Do one verb to one agent, and tell how the agent stands afterwards; or to many."""
    from swarm_tui.acting import act, at_agent, heed

    if arguments.filter is not None or len(arguments.agents) > 1:
        return _steer_many(arguments, make)
    if not arguments.agents:
        raise UsageError("Name an agent, or several, or give a --filter")
    (name,) = arguments.agents

    async def act_on_one() -> int:
        loaded, is_json = load(arguments), arguments.json
        async with at_agent(loaded, arguments.connect, name) as (supervisor, agent):
            progress, command = None if is_json else tell, make(agent.id)
            if not arguments.yes:
                await heed(supervisor, command.verb, [agent])
            await act(supervisor, agent, command, is_json=is_json, on_progress=progress)
        return 0

    return run(act_on_one())


def _steer_many(arguments: argparse.Namespace, make: Callable[[AgentId], Command]) -> int:
    from swarm_tui import acting
    from swarm_tui.command import Pause
    from swarm_tui.model import AgentId, Verb

    loaded = load(arguments)
    seen = glance(arguments, loaded)
    example = make(AgentId(""))
    agents = acting.choose(seen, arguments.agents, arguments.filter or "")
    is_quick = isinstance(example, Pause) and example.is_quick
    agents, denied = acting.sift(seen, example.verb, agents, is_quick=is_quick)
    if not arguments.yes:
        acting.confirm(example.verb, agents, denied, is_grave=example.verb is Verb.KILL)
    return run(
        acting.act_on_many(
            loaded,
            arguments.connect,
            example.verb,
            agents,
            denied,
            make,
            is_json=arguments.json,
            is_sure=arguments.yes,
        )
    )


def wait_for_enter() -> None:
    """Leave what was said on the terminal, if there is one, until it has been read."""
    if sys.stdin.isatty():
        print("[Enter closes this] ", end="", file=sys.stderr, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            sys.stdin.readline()
