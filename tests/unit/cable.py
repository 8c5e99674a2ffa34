"""The connection to a stand-in host, which goes away at any step of a verb and comes back."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import StrEnum

from swarm_tui.errors import GuestCut, GuestUnreachable, HostUnreachable
from swarm_tui.model import Hint, Power
from swarm_tui.snapshot import Snapshots

from .standin import World

_OF_GUESTS = ("freeze", "thaw", "refresh", "deliver", "run", "download")
"""Calls that go by the host's connection to a guest of it."""
_READING = ("describe", "definition", "check_saved", "list")
"""Calls that change nothing: not asked or not answered is the same."""


class Return(StrEnum):
    """What became of the host while nobody was connected to it."""

    SAME = "same"
    """It went on with what it had at work."""
    RESTARTED = "restarted"
    """Its daemon was started anew: a save that it had at work is off and the VM runs on, and of VMs
    that are off it knows nothing any more, as some drivers."""


@dataclass
class Cable:
    """Cuts `world` off at step number `at` of those that come while it is `armed`.

    Steps are before a call, where it is not done then, and after it, where its answer is lost.
    """

    world: World
    at: int
    is_armed: bool = False
    is_cut: bool = False
    steps: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.world.on_step = self._step

    def mend(self, how: Return, snapshots: Snapshots) -> None:
        """The host is there again, as `how` says."""
        for agent in self.world.agents():
            is_saving = self.world.state(agent)["reason"] == "saving"
            if is_saving and how is Return.SAME:
                [draft] = snapshots.drafts(agent)
                self.world.finish_save(agent, draft.memory)
            elif is_saving:
                self.world.change(agent, power="running", reason="save called off")
            if how is Return.RESTARTED and self.world.power(agent) is Power.OFF:
                self.world.forget(agent)
        self.is_armed = self.is_cut = False

    def _step(self, name: str) -> None:
        when, call = name.split()
        is_telling = when != "after" or call not in _READING
        if self.is_armed and not self.is_cut and is_telling:
            self.steps.append(name)
            if len(self.steps) == self.at + 1:
                self.is_cut = True
                closed = Hint(None, "closed")
                asyncio.get_running_loop().call_soon(self.world.hint, closed)
        if self.is_cut:
            if call not in _OF_GUESTS:
                raise HostUnreachable("The connection was cut", f"in {call}")
            if when == "after":
                raise GuestCut("The connection was cut", f"in {call}")
            raise GuestUnreachable("No way to the guest", f"in {call}", "Nothing was sent.")
