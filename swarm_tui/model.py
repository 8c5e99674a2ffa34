"""The words of the product as frozen records: what is known, what may be asked, what was seen.

Times are Unix seconds (wall clock) unless a name says `monotonic`. `None` means that nobody knows;
it is shown as "n/a", never as 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, NewType

from swarm_tui.label import Label
from swarm_tui.profile import ENDLESS, Life, Occasion
from swarm_tui.text import EMPTY, Safe

AgentId = NewType("AgentId", str)
"""The domain's UUID, lower case with dashes."""
HostName = NewType("HostName", str)
SnapshotId = NewType("SnapshotId", str)
"""Folder name of a snapshot: UTC time of its making and a random suffix; sorts by age."""


_STALE_POLLS: Final = 4
_STALE_S: Final = 5.0
"""A host that answers later than this, and than so many polls, is stale."""


class State(StrEnum):
    """What an agent is doing; the same word on the screen, in CSS and in JSON."""

    STARTING = "starting"
    RUNNING = "running"
    ASKING = "asking"  # waits for a human
    FROZEN = "frozen"  # its processes are stopped inside the guest
    PAUSED = "paused"  # vCPUs stopped, RAM kept
    SAVED = "saved"  # full state on disk, RAM freed
    DONE = "done"
    FAILED = "failed"
    LOST = "lost"  # host or VM out of reach: last known facts, with their age
    UNKNOWN = "unknown"


class Verb(StrEnum):
    """What a person can do; the same word for key, command, policy row, audit field and CLI."""

    SPAWN = "spawn"
    PAUSE = "pause"
    RESUME = "resume"
    REVIEW = "review"
    COMPARE = "compare"
    APPROVE = "approve"
    SEND_BACK = "send-back"
    REJECT = "reject"
    KILL = "kill"
    END = "end"
    EXTEND = "extend"
    FORK = "fork"
    MESSAGE = "message"
    SHELL = "shell"
    LOGS = "logs"
    CHECKPOINT = "checkpoint"
    ROLL_BACK = "roll-back"
    MARK = "mark"
    DISCARD = "discard"


class Cause(StrEnum):
    """What a snapshot was made for."""

    PAUSE = "pause"
    CHECKPOINT = "checkpoint"  # a person wanted it, and the agent went on
    REVIEW = "review"
    TURN = "turn"
    INTERVAL = "interval"
    ROLL_BACK = "roll-back"  # the present, before it was given up for a checkpoint
    FORK = "fork"


class Judgement(StrEnum):
    """What a reviewer decides; the same word for key, audit field, inbox message and CLI verb."""

    APPROVE = "approve"
    SEND_BACK = "send-back"
    REJECT = "reject"


class Power(StrEnum):
    """A VM as its hypervisor tells it."""

    RUNNING = "running"
    PAUSED = "paused"
    OFF = "off"
    CRASHED = "crashed"
    UNKNOWN = "unknown"


class Link(StrEnum):
    """Our SSH link into a guest."""

    NONE = "none"  # not tried, or nothing to reach
    CONNECTING = "connecting"
    UP = "up"
    DOWN = "down"
    RESTING = "resting"  # reached in turn, because there are many


class HostState(StrEnum):
    CONNECTING = "connecting"
    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Address:
    """How to reach a guest by SSH, and how to know that it is the right one."""

    host: str
    port: int
    host_key: str
    """OpenSSH public key line ("ssh-ed25519 AAAA…") that the guest must present."""
    identity: Path
    """Our private key file."""
    user: str = "agent"
    """Login for a person's shell; supervision logs in as root."""
    workspace: str = "/workspace"
    via: HostName | None = None
    """The host through whose own connection the guest is reached; None: from here directly."""


@dataclass(frozen=True, slots=True)
class Tag:
    """What we write into a domain's definition when it is made; never changed afterwards."""

    task: Safe = EMPTY
    owner: Safe = EMPTY
    created: float | None = None
    base: str = ""
    """Commit of the workspace at spawn, against which reviews are made; hex or empty."""
    address: Address | None = None
    labels: tuple[Label, ...] = ()
    """By key, each key once."""


@dataclass(frozen=True, slots=True)
class Vm:
    """One virtual machine with our tag, as described by its hypervisor."""

    id: AgentId
    name: Safe
    host: HostName
    power: Power
    reason: Safe = EMPTY
    """Why it is in that power state, in the hypervisor's words ("saved", "crashed", …)."""
    memory_bytes: int | None = None
    vcpus: int | None = None
    disks: tuple[Path, ...] | None = ()
    """Writable file-backed disks, in the definition's order. None: its host cannot tell now."""
    tag: Tag = Tag()
    is_orphan: bool = False
    """It runs, but its host's libvirt daemon knows nothing of it, as after a restart of that."""
    is_left_behind: bool = False
    """It is off for libvirt, but its VMM did not end and nobody can steer it any more."""


@dataclass(frozen=True, slots=True)
class Counters:
    """One reading of a VM's counters. Totals only grow while the VM lives; `None` is unknown."""

    monotonic: float
    cpu_ns: int | None = None
    memory_used: int | None = None
    memory_given: int | None = None
    memory_host: int | None = None
    """Resident size of the VMM on the host, bytes."""
    disk_read: int | None = None
    disk_written: int | None = None
    net_received: int | None = None
    net_sent: int | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Rates made of two readings; seen from the guest (received = by the guest)."""

    at: float = field(compare=False)
    cpu_percent: float | None = None
    """100 is one core of the host."""
    memory_used: int | None = None
    memory_given: int | None = None
    memory_host: int | None = None
    disk_read_per_s: float | None = None
    disk_written_per_s: float | None = None
    net_received_per_s: float | None = None
    net_sent_per_s: float | None = None
    is_net_claimed: bool = False
    """The network rates are the guest's own claim, because the host cannot tell them."""


class EventKind(StrEnum):
    LOG = "log"
    STATUS = "status"
    TOOL = "tool"
    USAGE = "usage"
    ASK = "ask"
    DONE = "done"
    FAILED = "failed"  # its program ended without success
    OTHER = "other"  # a line that is not of the contract; shown as it is, sanitized


@dataclass(frozen=True, slots=True)
class GuestEvent:
    """One line of a guest's /run/swarm/events.jsonl; all but `heard` and `missed` is its claim."""

    kind: EventKind
    text: Safe
    at: float | None = None
    model: Safe = EMPTY
    tokens_in: int = 0
    tokens_out: int = 0
    heard: float | None = field(default=None, compare=False)
    """When we read it, by our own clock, the same for all of a batch. None: nobody noted it."""
    missed: int = field(default=0, compare=False)
    """Lines between the one before it and this one that came too fast to be read out."""


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Events read from a guest's file; `offset` is the byte after the last one."""

    events: tuple[GuestEvent, ...]
    offset: int
    dropped: int = 0
    """Lines that are not among the events because they came faster than we read them out."""
    raw: bytes | None = field(default=None, compare=False)
    """All lines as the guest wrote them, for the spool; None: only `events` are known."""
    heard: float | None = field(default=None, compare=False)
    is_known: bool = False
    """It was heard before: it tells how the agent stands, and is no news."""
    is_ours: bool = False
    """We say it; it is not in the guest's file."""


@dataclass(frozen=True, slots=True)
class Rewound:
    """An agent was set back to an earlier state of it."""

    at: float
    """When that was done."""
    to: float
    """From when the state is that it went on from."""
    told: Safe
    """"rolled back to green tests"."""
    snapshot: SnapshotId | None = None
    """That state."""


@dataclass(frozen=True, slots=True)
class Birth:
    """What an agent was made of, and how its life ends. Unlike its tag it is kept by us alone."""

    profile: Safe = EMPTY
    repository: Path | None = None
    """The owner's repository, in which its approved work lands; None: its host's."""
    parent: AgentId | None = None
    snapshot: SnapshotId | None = None
    """Of its parent, if it was forked from one."""
    life: Life = ENDLESS
    expires: float | None = None
    """When its time is over."""
    is_pinned: bool = False
    """A person wants it kept: no rule touches it."""
    acted: Occasion | None = None
    """The occasion on which its rule was carried out: not again on the same one."""
    unkept: Safe = EMPTY
    """Why its result could not be kept: then no rule ends it until a person acts."""
    checkpoint: str = ""
    """Its profile's; see `Profile.checkpoint`."""
    rewound: Rewound | None = None
    """The last time that it was set back, of which its log tells."""
    memory_mib: int | None = None
    """Given to it; for those who cannot ask its VM yet. None: nobody wrote it down."""


@dataclass(frozen=True, slots=True)
class Record:
    """What our own catalogue keeps of an agent across restarts of everything else."""

    id: AgentId
    name: Safe
    host: HostName
    is_frozen: bool = False
    """We stopped its processes in the guest and have not thawed them."""
    saved_in: SnapshotId | None = None
    """The snapshot that holds its present state, if it is paused to disk."""
    saving_in: SnapshotId | None = None
    """The snapshot that a pause is writing; by it a pause that was cut off can be completed."""
    verb: Verb | None = None
    """A verb in flight, written before it begins and cleared when its outcome is known."""
    review: int | None = None
    """Number of the review that is open on it: its work stands still until there is a verdict."""
    verdict: Judgement | None = None
    """Given on that review, and not carried out to its end yet."""
    since: float | None = None
    """When `is_frozen` or `saved_in` last changed."""
    birth: Birth = Birth()


@dataclass(frozen=True, slots=True)
class Origin:
    """Why a snapshot was made, and for whom."""

    cause: Cause = Cause.PAUSE
    told: Safe = EMPTY
    """Which of its kind: "review 3", "turn 7", "every 10 min"."""
    by: Safe = EMPTY
    """Who asked for it; empty: nobody has told."""


OF_PAUSE: Final = Origin()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An immutable saved state: memory, devices, disks and the definition, with digests."""

    id: SnapshotId
    agent: AgentId
    name: Safe
    created: float
    size_bytes: int
    """On disk."""
    hypervisor: str
    """Driver and version that made it, e.g. "QEMU 7.2.22"; restoring needs the same."""
    is_frozen: bool
    digests: Mapping[str, str]
    """File name → "sha256:…"; every file of the snapshot but the manifest itself."""
    origin: Origin = OF_PAUSE
    title: Safe = EMPTY
    """The name that a person gave it; unlike all else it may change, as may the pin."""
    is_pinned: bool = False
    """A person holds it: no rule removes it."""

    @property
    def is_held(self) -> bool:
        """Whether a person named or pinned it."""
        return self.is_pinned or bool(self.title)


@dataclass(frozen=True, slots=True)
class Operation:
    """A verb at work on an agent, for the screen."""

    verb: Verb
    step: Safe
    fraction: float | None = None
    started: float = 0.0


@dataclass(frozen=True, slots=True)
class Agent:
    """All that is known of one agent, derived by the store; what every screen and list shows."""

    id: AgentId
    name: Safe
    host: HostName
    state: State
    since: float | None
    """When it entered `state`, as far as we know."""
    reason: Safe = EMPTY
    waits_since: float | None = None
    """Since when it waits for a human, and still while its review, its verdict or what stops it for
    a moment is at work: until then it keeps its place among those that wait. None: it does not."""
    seen: float = field(default=0.0, compare=False)
    """When its host last confirmed these facts; that alone makes no agent a changed one."""
    vm: Vm | None = None
    record: Record | None = None
    usage: Usage | None = None
    operation: Operation | None = None
    link: Link = Link.NONE
    heard: float | None = field(default=None, compare=False)
    """When its guest was last heard, as far as a link that is not up tells."""
    last_line: Safe = EMPTY
    last_line_at: float | None = None
    status: Safe = EMPTY
    tokens_in: int = 0
    tokens_out: int = 0
    model: Safe = EMPTY

    @property
    def tag(self) -> Tag:
        return self.vm.tag if self.vm else Tag()

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for a human: it asks, or its review is open."""
        record = self.record
        is_under_review = record is not None and record.review is not None and not record.verdict
        return self.state is State.ASKING or (self.state is State.SAVED and is_under_review)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What one connection can do, probed once; a missing one carries the reason shown to users."""

    driver: str
    """libvirt's driver name: "QEMU", "CH", "TEST"; "simulated" for the simulated swarm."""
    version: str
    """Hypervisor's version, e.g. "7.2.22"."""
    library: str = ""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Port method or counter name → reason why it is not there."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Counter name → where its number comes from."""


@dataclass(frozen=True, slots=True)
class Host:
    """One libvirt connection."""

    name: HostName
    uri: Safe
    state: HostState
    since: float
    detail: Safe = EMPTY
    """Why it is down, and when the next try is."""
    reason: Safe = EMPTY
    """Why it is down, alone: what its agents show."""
    seen: float | None = None
    capabilities: Capabilities | None = None
    memory_total: int | None = None
    memory_free: int | None = None
    cpus: int | None = None
    missing: Mapping[str, str] = field(default_factory=dict)
    """Which of these three nobody tells → the reason."""
    poll_s: float = 1.0
    """Seconds between two readings, as far as the host answers so soon."""
    latency_s: float | None = None
    """How long the last reading took."""
    next_try: float | None = None
    """When it is tried again, or infinity: never; None: nothing is waited for."""
    failure: Safe = EMPTY
    """The last failure in full, in lines; it stays when the host is back."""
    failed_at: float | None = None

    def stale_s(self, now: float) -> float | None:
        """Age of its last reading, when that is older than it should be; None: it is not.

        A host that is not up is not stale: then its agents are lost.
        """
        if self.state is not HostState.UP or self.seen is None:
            return None
        age_s = now - self.seen
        return age_s if age_s > max(_STALE_S, _STALE_POLLS * self.poll_s) else None


@dataclass(frozen=True, slots=True)
class Message:
    """One message for an agent's inbox, delivered as /run/swarm/inbox/<id>.json."""

    id: str
    kind: str
    """"message" or, for an answer to an ask, "verdict"."""
    text: str
    verdict: str = ""


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that ran to its end in a guest."""

    exit_status: int
    stdout: bytes
    stderr: bytes
    is_truncated: bool = False
    """A stream was longer than the cap of `ports.Guest.run`; its rest was thrown away."""


@dataclass(frozen=True, slots=True)
class Hint:
    """Something may have changed on a host: re-read it. An event is never the truth itself."""

    agent: AgentId | None
    """None: anything may have changed; list again."""
    kind: str
    """The library's word for it, for the event log: "started", "stopped", "closed"…"""
