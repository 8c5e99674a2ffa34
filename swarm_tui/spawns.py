"""New agents as a person asks for them: checked, and one command for each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from swarm_tui.command import Spawn
from swarm_tui.errors import UsageError
from swarm_tui.label import make_labels
from swarm_tui.lifespan import parse_time
from swarm_tui.model import HostName
from swarm_tui.profile import PLAIN, Profile

MOST: Final = 200
"""At once."""
_NAME: Final = re.compile("[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_TASK: Final = "{task}"


@dataclass(frozen=True, slots=True)
class Wish:
    """What was said; empty: nothing was."""

    profile: Profile = PLAIN
    task: str = ""
    count: int = 1
    name: str = ""
    """Of several: what their names begin with."""
    host: str = ""
    labels: Sequence[str] = ()
    ttl: str = ""

    def commands(self) -> Sequence[Spawn]:
        """One for each. Raises UsageError, whose title begins with the word for what is wrong."""
        if not 1 <= self.count <= MOST:
            raise UsageError(f"count: from 1 to {MOST}", str(self.count))
        names = self._names()
        task = self.task.strip() or self.profile.task
        if not task and any(_TASK in word for word in self.profile.command):
            raise UsageError(
                "task: missing",
                f"The command of {self.profile.name} has a place for it.",
                "Say what it shall do.",
            )
        labels = make_labels(self.labels)
        profile = self.profile
        if self.ttl:
            profile = replace(profile, life=replace(profile.life, ttl_s=parse_time(self.ttl)))
        host = HostName(self.host) if self.host else None
        return [Spawn(host, name, task, labels, profile) for name in names]

    def _names(self) -> Sequence[str]:
        """Raises UsageError."""
        if not self.name:
            return [""] * self.count
        width = len(str(self.count))
        names = [f"{self.name}-{number:0{width}}" for number in range(1, self.count + 1)]
        if self.count == 1:
            names = [self.name]
        if wrong := next((name for name in names if not _NAME.fullmatch(name)), ""):
            raise UsageError(
                f"name: {wrong} cannot be a host name",
                hint="Up to 32 letters (lower case), digits and hyphens.",
            )
        return names
