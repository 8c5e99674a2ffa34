"""Profiles: what agents are made of, under a name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from swarm_tui.errors import SetupError
from swarm_tui.label import Label
from swarm_tui.text import EMPTY, Safe

INTERVAL: Final = re.compile(r"off|[1-9][0-9]{0,2}[mhd]")
"""How often something is done by itself: "30m", or not at all."""


class Ending(StrEnum):
    """What becomes of an agent's VM when its work is over."""

    KEEP = "keep"  # nothing: a person decides
    PAUSE = "pause"  # to a snapshot
    END = "end"  # its result is kept, the VM goes


class Occasion(StrEnum):
    """On which an agent's life ends."""

    EXPIRED = "expired"  # its time is over
    DONE = "done"
    FAILED = "failed"
    ASKED = "asked"  # by a person


@dataclass(frozen=True, slots=True)
class Life:
    """How an agent's life ends, if not by a person."""

    ttl_s: float | None = None
    """Seconds from its spawn after which its time is over; None: it has no end."""
    on_expiry: Ending = Ending.PAUSE
    on_done: Ending = Ending.KEEP
    on_failed: Ending = Ending.KEEP


ENDLESS: Final = Life()


@dataclass(frozen=True, slots=True)
class Profile:
    """All that is the same for agents of one kind. The plain one makes what `spawn` alone makes."""

    name: Safe = EMPTY
    """Empty: none was named."""
    about: Safe = EMPTY
    """A word on what it is for."""
    image: str = ""
    """Name or digest of an image that was built; empty: swarm-tui's own."""
    vcpus: int = 1
    memory_mib: int | None = None
    """None: the setting local.memory_mib."""
    disk_mib: int | None = None
    """Size of the root disk as the guest sees it; None: the image's own."""
    repository: str = ""
    """Git repository whose `ref` becomes the workspace: an absolute path here, or a URL that git
    takes; empty: the image's own project."""
    ref: str = "HEAD"
    task: str = ""
    """What its agents shall do, if nothing else is said."""
    command: tuple[str, ...] = ()
    """The agent's program with its arguments, run in the workspace as the agent's user; `{task}`
    in a word stands for the task. Empty: the image's own agent."""
    environment: tuple[tuple[str, str], ...] = ()
    """Of that program, by name. `{task}` stands for itself here."""
    inherited: tuple[tuple[str, str], ...] = ()
    """Of that program, too: name → variable of the supervisor's own environment from which the
    value is taken when an agent is made. Such values are never shown, and stand in no record."""
    labels: tuple[Label, ...] = ()
    hosts: tuple[str, ...] = ()
    """On which they may be made; empty: on any that can."""
    ready: int = 0
    """How many are kept ready in advance, on each host."""
    life: Life = ENDLESS
    checkpoint: str = ""
    """How long after its newest snapshot a working agent gets one by itself, as `INTERVAL`; "off":
    never; empty: the setting snapshots.every."""

    def variables(self, environ: Mapping[str, str]) -> Mapping[str, str]:
        """The program's whole environment; `environ` is the supervisor's own.

        Raises SetupError when that lacks one, naming all that it lacks.
        """
        lacking = [origin for _, origin in self.inherited if not environ.get(origin)]
        if lacking:
            raise SetupError(
                f"The profile {self.name} needs {', '.join(lacking)}",
                "Not set in the environment in which swarm-tui runs.",
                f"export {lacking[0]}=… and start swarm-tui again.",
            )
        return dict(self.environment) | {name: environ[origin] for name, origin in self.inherited}


PLAIN: Final = Profile()
