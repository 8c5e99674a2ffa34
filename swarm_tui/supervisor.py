"""The deep one: connects hosts, keeps the store true, and does what a person commands.

Screens and the command line know only this class, the store and the model. Facts come in by the
event road (hint → re-read → store), commands go out by the command road (policy → audit intent →
port → audit outcome); a command never writes a state, it comes back as a fact.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from swarm_tui.model import AgentId, Command, HostName, Verb
from swarm_tui.policy import Decision
from swarm_tui.ports import Console, Progress
from swarm_tui.store import Store


class Supervisor:
    """Owns every long task. Use as an async context manager, or `start` and `close`."""

    store: Store

    async def start(self) -> None:
        """Begin to connect to all hosts, in the background; returns at once."""
        raise NotImplementedError

    async def close(self) -> None:
        """Let verbs at work come to their end, then let go of every host and guest."""
        raise NotImplementedError

    def may(self, verb: Verb, agent: AgentId | None, *, is_quick: bool = False) -> Decision:
        """Whether `verb` is legal now, and why not; for footers, menus and dialogs."""
        raise NotImplementedError

    async def do(self, command: Command, on_progress: Progress | None = None) -> str:
        """Do it, and return a plain sentence on what was done. Raises SwarmError.

        Cancelling the caller does not cancel the verb. An `Ask` of the policy counts as
        answered: the caller has confirmed it.
        """
        raise NotImplementedError

    def console(self, agent: AgentId) -> AbstractAsyncContextManager[Console]:
        """The agent's serial console."""
        raise NotImplementedError

    def spawners(self) -> Sequence[HostName]:
        """Hosts on which new agents can be made."""
        raise NotImplementedError

    async def refresh(self, agent: AgentId | None = None) -> None:
        """Read again now, one agent or everything."""
        raise NotImplementedError
