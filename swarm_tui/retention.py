"""Which snapshots of an agent are kept, and which go when there are newer ones.

Of those that nobody holds the newest stay, as many as `Keeping.keep` says; of these go the ones
that are too old, and the oldest while they take up more room than they may, but never the newest
of all. What a person asked for is not counted by `keep`; what a person named or pinned, or
something needs (it is the present, a review or a fork needs it) never goes, nor does by a rule what
the agent was rolled back to last.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from swarm_tui.model import AgentId, Cause, Record, Snapshot, SnapshotId
from swarm_tui.settings import Snapshots
from swarm_tui.text import Safe, literal, sanitize

_DAY_S: Final = 86_400.0
_ASKED_FOR: Final = frozenset({Cause.CHECKPOINT, Cause.ROLL_BACK})
"""What a person had kept: as it went on, or when it was given up for an earlier one."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """None: no limit."""

    keep: int = 8
    """How many that were made without a person's asking stay, besides those that are held."""
    age_s: float | None = None
    agent_bytes: int | None = None
    """What all snapshots of one agent may take up together."""
    total_bytes: int | None = None
    """What those of all agents may."""


KEEP_ALL: Final = Keeping(keep=1_000_000)


@dataclass(frozen=True, slots=True)
class Going:
    """A snapshot that goes, and by which rule."""

    snapshot: Snapshot
    reason: Safe


@dataclass(frozen=True, slots=True)
class Retention:
    """The rules, and what they need to know of other agents. The calls may block."""

    rules: Keeping = Keeping()
    holds: Callable[[AgentId], Mapping[SnapshotId, Safe]] = lambda agent: {}
    """What holds an agent's snapshots, in words, by the records as they are now."""
    total_bytes: Callable[[], int] = lambda: 0
    """What the snapshots of all agents take up."""


def plan(
    snapshots: Sequence[Snapshot],
    rules: Keeping,
    held: Mapping[SnapshotId, Safe],
    now: float,
    total_bytes: int = 0,
) -> Sequence[Going]:
    """What of one agent's snapshots, oldest first, would go, oldest first.

    `held`: those that something holds, with what; `total_bytes`: as in `Retention`.
    """
    free = [one for one in snapshots if one.id not in held and not one.is_held]
    counted = [one for one in free if one.origin.cause not in _ASKED_FOR]
    over = counted[: max(0, len(counted) - rules.keep)]
    going = {one.id: literal(f"more than the {rules.keep} that are kept") for one in over}
    spare = [one for one in free if one is not snapshots[-1]]
    if rules.age_s is not None:
        told = literal(f"older than {rules.age_s / _DAY_S:g} days")
        for one in spare:
            if now - one.created > rules.age_s:
                going.setdefault(one.id, told)
    own = sum(one.size_bytes for one in snapshots)
    for quota, used, whose in (
        (rules.agent_bytes, own, "of its agent"),
        (rules.total_bytes, max(own, total_bytes), "of all agents"),
    ):
        for one in spare:
            gone = sum(other.size_bytes for other in free if other.id in going)
            if quota is None or used - gone <= quota:
                break
            going.setdefault(one.id, literal(f"over the {quota >> 20} MiB {whose}"))
    return [Going(one, going[one.id]) for one in snapshots if one.id in going]


def holds(record: Record | None, others: Collection[Record]) -> Mapping[SnapshotId, Safe]:
    """What holds snapshots of an agent besides a person: its present, its review, its forks."""
    held: dict[SnapshotId, Safe] = {}
    if record is None:
        return held
    for snapshot, (first, *more) in forks(record.id, others).items():
        besides = f" and {len(more)} more" if more else ""
        were = "were" if more else "was"
        held[snapshot] = sanitize(f"{first.name}{besides} {were} forked from it")
    for name in (record.saved_in, record.saving_in):
        if name:
            told = "it is the present" if record.review is None else f"review {record.review}"
            held[name] = literal(told)
    return held


def gone_back_to(record: Record | None) -> Mapping[SnapshotId, Safe]:
    """What an agent was rolled back to last: a person may want to go there again, or discard it."""
    rewound = record.birth.rewound if record else None
    if rewound is None or rewound.snapshot is None:
        return {}
    return {rewound.snapshot: literal("it was rolled back to")}


def forks(agent: AgentId, others: Collection[Record]) -> Mapping[SnapshotId, Sequence[Record]]:
    """What was forked from an agent's snapshots, of each of them, by name."""
    below: dict[SnapshotId, list[Record]] = {}
    for other in sorted(others, key=lambda record: record.name):
        if other.birth.parent == agent and other.birth.snapshot:
            below.setdefault(other.birth.snapshot, []).append(other)
    return below


def holding(
    records: Callable[[], Collection[Record]],
) -> Callable[[AgentId], Mapping[SnapshotId, Safe]]:
    """`holds` of each of these agents."""

    def holds_of(agent: AgentId) -> Mapping[SnapshotId, Safe]:
        there = records()
        return holds(next((one for one in there if one.id == agent), None), there)

    return holds_of


def keeping(configured: Snapshots) -> Keeping:
    """The rules as they are configured."""
    return Keeping(
        keep=configured.keep,
        age_s=configured.age_days * _DAY_S or None,
        agent_bytes=configured.agent_mib << 20 or None,
        total_bytes=configured.total_mib << 20 or None,
    )


def tell_going(one: Going) -> Safe:
    """For a person, and for the audit log."""
    return literal(f"removed snapshot {one.snapshot.id} ({one.reason})")
