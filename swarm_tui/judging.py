"""What the commands of reviews do: look at work, compare it, decide on it, prove what landed.

Imports stand inside the functions: each command pays for what it needs only.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from swarm_tui import given

if TYPE_CHECKING:
    from swarm_tui.command import Verdict
    from swarm_tui.handoff import Review
    from swarm_tui.model import Agent


def review(arguments: argparse.Namespace) -> int:
    from swarm_tui import reviewing

    is_quiet = arguments.json or arguments.patch
    return given.run(
        reviewing.review(
            given.load(arguments),
            arguments.connect,
            arguments.agent,
            is_json=arguments.json,
            is_patch=arguments.patch,
            on_progress=None if is_quiet else given.tell,
        )
    )


def compare(arguments: argparse.Namespace) -> int:
    from swarm_tui import comparing

    loaded, wanted = given.load(arguments), (arguments.a, arguments.b)
    is_quiet = arguments.json or arguments.patch
    return given.run(
        comparing.compare(
            loaded,
            arguments.connect,
            wanted,
            is_json=arguments.json,
            is_patch=arguments.patch,
            on_progress=None if is_quiet else given.tell,
        )
    )


def _judge(
    arguments: argparse.Namespace, make: Callable[[Agent, Review, str], Verdict], comments: str = ""
) -> int:
    from swarm_tui import reviewing

    def decide(agent: Agent, taken: Review) -> Verdict:
        seen = reviewing.digest_of(arguments.digest, taken) if arguments.digest else taken.digest
        return make(agent, taken, seen)

    return given.run(
        reviewing.judge(
            given.load(arguments),
            arguments.connect,
            arguments.agent,
            decide,
            comments=given.read_bytes(comments) if comments else b"",
            is_all_seen=getattr(arguments, "flags_seen", False),
            is_json=arguments.json,
            on_progress=None if arguments.json else given.tell,
        )
    )


def approve(arguments: argparse.Namespace) -> int:
    from swarm_tui.command import Approve

    return _judge(
        arguments,
        lambda agent, taken, seen: Approve(agent.id, taken.number, seen, arguments.message),
    )


def send_back(arguments: argparse.Namespace) -> int:
    from swarm_tui.command import SendBack

    return _judge(
        arguments,
        lambda agent, taken, seen: SendBack(agent.id, taken.number, seen, arguments.message),
        arguments.comments or "",
    )


def reject(arguments: argparse.Namespace) -> int:
    from swarm_tui.command import Reject

    return _judge(
        arguments,
        lambda agent, taken, seen: Reject(
            agent.id, taken.number, seen, arguments.message, is_kept=not arguments.kill
        ),
    )


def verify(arguments: argparse.Namespace) -> int:
    from swarm_tui import reviewing

    return given.run(
        reviewing.verify(
            given.load(arguments),
            arguments.branch,
            arguments.repository.absolute(),
            is_json=arguments.json,
        )
    )
