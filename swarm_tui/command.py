"""What a person asks for: imperative, one command for each verb that acts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from swarm_tui.label import Label
from swarm_tui.model import AgentId, Cause, HostName, Origin, SnapshotId, Verb
from swarm_tui.profile import PLAIN, Occasion, Profile

BY_HAND: Final = Origin(Cause.CHECKPOINT)

FORKS: Final = 50
"""At most in one act."""


@dataclass(frozen=True, slots=True)
class Spawn:
    host: HostName | None = None
    """None: the best of those that can make it."""
    name: str = ""
    """Empty: the next free name."""
    task: str = ""
    labels: tuple[Label, ...] = ()
    """Besides those of the profile."""
    profile: Profile = PLAIN
    verb: Verb = field(default=Verb.SPAWN, init=False)


@dataclass(frozen=True, slots=True)
class Pause:
    agent: AgentId
    is_quick: bool = False
    """Only stop the vCPUs: nothing is saved and the RAM stays in use."""
    occasion: Occasion = Occasion.ASKED
    """Of the rule that has it paused."""
    verb: Verb = field(default=Verb.PAUSE, init=False)


@dataclass(frozen=True, slots=True)
class Resume:
    """Bring it back; a verdict that was given but not carried out yet is carried out with it."""

    agent: AgentId
    verb: Verb = field(default=Verb.RESUME, init=False)


@dataclass(frozen=True, slots=True)
class Kill:
    """End the VM and remove its disk, its snapshots and its record.

    `is_graceful`: its guest is asked to shut down first, and given some seconds for that.
    """

    agent: AgentId
    is_graceful: bool = False
    verb: Verb = field(default=Verb.KILL, init=False)


@dataclass(frozen=True, slots=True)
class End:
    """Keep what has come of the agent (branch, log, usage, reason); only then kill it."""

    agent: AgentId
    occasion: Occasion = Occasion.ASKED
    """Of the rule that has it ended."""
    verb: Verb = field(default=Verb.END, init=False)


@dataclass(frozen=True, slots=True)
class Extend:
    """Give the agent more time, from its end or, where that is past, from now."""

    agent: AgentId
    by_s: float | None
    """None: it has no end any more."""
    is_pinned: bool = False
    """No rule touches it from now on, whatever becomes of it."""
    verb: Verb = field(default=Verb.EXTEND, init=False)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Keep a snapshot of the agent while it goes on."""

    agent: AgentId
    title: str = ""
    """The name that a person gives it."""
    origin: Origin = BY_HAND
    verb: Verb = field(default=Verb.CHECKPOINT, init=False)


@dataclass(frozen=True, slots=True)
class RollBack:
    """Keep the present, and let the agent go on from an earlier snapshot."""

    agent: AgentId
    snapshot: SnapshotId
    verb: Verb = field(default=Verb.ROLL_BACK, init=False)


@dataclass(frozen=True, slots=True)
class Mark:
    """Give a snapshot a person's name and pin, in place of those that it had."""

    agent: AgentId
    snapshot: SnapshotId
    title: str
    is_pinned: bool
    verb: Verb = field(default=Verb.MARK, init=False)


@dataclass(frozen=True, slots=True)
class Discard:
    """Remove a snapshot."""

    agent: AgentId
    snapshot: SnapshotId
    verb: Verb = field(default=Verb.DISCARD, init=False)


@dataclass(frozen=True, slots=True)
class Shell:
    """Record that a person opens a shell; the shell itself is the caller's."""

    agent: AgentId
    verb: Verb = field(default=Verb.SHELL, init=False)


@dataclass(frozen=True, slots=True)
class Fork:
    """Make agents that go on from where this one stands, each with an identity of its own.

    The agent itself stays as it is; a running one stands still for a moment.
    """

    agent: AgentId
    count: int = 1
    prefix: str = ""
    """Their names begin with it; empty: with the agent's own name."""
    task: str = ""
    """What they shall do; empty: what it does."""
    snapshot: SnapshotId | None = None
    """Where they begin; None: where the agent stands now."""
    verb: Verb = field(default=Verb.FORK, init=False)


@dataclass(frozen=True, slots=True)
class Say:
    """Put a message into the agent's inbox."""

    agent: AgentId
    text: str
    verb: Verb = field(default=Verb.MESSAGE, init=False)


@dataclass(frozen=True, slots=True)
class Review:
    """Freeze the agent, take its work into quarantine, and save the VM."""

    agent: AgentId
    verb: Verb = field(default=Verb.REVIEW, init=False)


@dataclass(frozen=True, slots=True)
class Compare:
    """Take the agent's work as it is now, for a comparison; the agent goes on."""

    agent: AgentId
    verb: Verb = field(default=Verb.COMPARE, init=False)


@dataclass(frozen=True, slots=True)
class Approve:
    """Land what was reviewed, and resume the agent with that in its inbox."""

    agent: AgentId
    review: int
    digest: str
    """Of what the reviewer has seen: another one is refused."""
    message: str = ""
    verb: Verb = field(default=Verb.APPROVE, init=False)


@dataclass(frozen=True, slots=True)
class SendBack:
    """Resume the agent with the review's comments in its inbox."""

    agent: AgentId
    review: int
    digest: str
    message: str = ""
    verb: Verb = field(default=Verb.SEND_BACK, init=False)


@dataclass(frozen=True, slots=True)
class Reject:
    """Resume the agent with the refusal in its inbox, or end it."""

    agent: AgentId
    review: int
    digest: str
    message: str = ""
    is_kept: bool = True
    """False: the agent is killed instead of resumed."""
    verb: Verb = field(default=Verb.REJECT, init=False)


Verdict = Approve | SendBack | Reject
Past = Checkpoint | RollBack | Mark | Discard
Command = (
    Past
    | Fork
    | Spawn
    | Pause
    | Resume
    | Kill
    | End
    | Extend
    | Shell
    | Say
    | Review
    | Compare
    | Verdict
)
