"""What one thing that a person can do consists of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from swarm_tui.command import Command
from swarm_tui.model import AgentId, Verb

Place = Literal[
    "fleet",
    "agent",
    "logs",
    "review",
    "audit",
    "hosts",
    "waiting",
    "results",
    "timeline",
    "compare",
]

FLEET: Final[tuple[Place, ...]] = ("fleet",)
AGENT: Final[tuple[Place, ...]] = ("agent",)
REVIEW: Final[tuple[Place, ...]] = ("review",)
WAITING: Final[tuple[Place, ...]] = ("waiting",)
BOTH: Final[tuple[Place, ...]] = ("fleet", "agent")
STEER: Final[tuple[Place, ...]] = (*BOTH, *WAITING)
"""Where agents can be acted on."""
LOGS: Final[tuple[Place, ...]] = ("agent", "logs")
AUDIT: Final[tuple[Place, ...]] = ("audit",)
HOSTS: Final[tuple[Place, ...]] = ("hosts",)
RESULTS: Final[tuple[Place, ...]] = ("results",)
TIMELINE: Final[tuple[Place, ...]] = ("timeline",)
COMPARE: Final[tuple[Place, ...]] = ("compare",)
DIFFS: Final[tuple[Place, ...]] = ("review", "compare")
"""Where what changed in files is read."""
ALL: Final[tuple[Place, ...]] = (
    "fleet",
    "agent",
    "logs",
    "review",
    "audit",
    "hosts",
    "waiting",
    "results",
    "timeline",
    "compare",
)


class Section(StrEnum):
    """Headings of the help screen and the README."""

    VERBS = "Steer agents"
    REVIEW = "Review"
    MOVE = "Move"
    VIEW = "Look"
    LOG = "Read a log"
    APP = "The program"


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that can be done, with its keys."""

    id: str
    keys: tuple[str, ...]
    """Textual's names; the first one is shown."""
    section: Section
    label: str
    """One or two words for the footer; empty: not in the footer."""
    help: str
    places: tuple[Place, ...] = STEER
    verb: Verb | None = None
    """Policy is asked about this verb; a refusal greys the key and is told when it is pressed."""
    is_quick: bool = False
    acts_on_agent: bool = False
    """It acts on the agent under the cursor, or on those selected, so that it must not hit
    another one that has just come there."""
    command: Callable[[AgentId], Command] | None = None
    """Makes the supervisor's command; None: the screen itself does it."""
    told: str = ""
    """How the keys are written, where they are bound by the widget that moves."""

    @property
    def is_bound(self) -> bool:
        """Whether the keys are the screen's own."""
        return not self.told
