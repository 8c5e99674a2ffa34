"""What goes by which rule, and what never does."""

from __future__ import annotations

from swarm_tui.model import (
    AgentId,
    Birth,
    Cause,
    HostName,
    Origin,
    Record,
    Snapshot,
    SnapshotId,
)
from swarm_tui.retention import Keeping, holds, plan
from swarm_tui.text import EMPTY, literal

AGENT = AgentId("6f1c7b0e-0000-4000-8000-000000000001")
FORK = AgentId("6f1c7b0e-0000-4000-8000-000000000002")
MIB = 1 << 20


def made(
    number: int,
    *,
    cause: Cause = Cause.TURN,
    title: str = "",
    is_pinned: bool = False,
    mib: int = 100,
) -> Snapshot:
    return Snapshot(
        SnapshotId(f"s{number}"),
        AGENT,
        literal("ember"),
        float(number),
        mib * MIB,
        "QEMU 7.2",
        is_frozen=False,
        digests={},
        origin=Origin(cause),
        title=literal(title) if title else EMPTY,
        is_pinned=is_pinned,
    )


def gone(rules: Keeping, *snapshots: Snapshot, now: float = 0.0, total: int = 0) -> dict[str, str]:
    held = {SnapshotId("s9"): literal("it is the present")}
    return {one.snapshot.id: one.reason for one in plan(snapshots, rules, held, now, total)}


def test_the_newest_stay_of_those_that_nobody_asked_for() -> None:
    past = [made(number) for number in range(4)]
    assert gone(Keeping(keep=2), *past) == dict.fromkeys(
        ("s0", "s1"), "more than the 2 that are kept"
    )
    assert not gone(Keeping(keep=4), *past)
    asked = made(0, cause=Cause.CHECKPOINT)
    assert list(gone(Keeping(keep=1), asked, *past[1:])) == ["s1", "s2"]


def test_old_ones_go() -> None:
    day_s = 86400.0
    rules = Keeping(keep=9, age_s=3 * day_s)
    asked = made(1, cause=Cause.CHECKPOINT)
    gone_then = gone(rules, made(0), asked, made(2), now=3 * day_s + 1.5)
    assert gone_then == dict.fromkeys(("s0", "s1"), "older than 3 days")


def test_the_oldest_go_while_they_take_up_too_much() -> None:
    past = [made(number) for number in range(4)]
    rules = Keeping(agent_bytes=250 * MIB)
    assert gone(rules, *past) == dict.fromkeys(("s0", "s1"), "over the 250 MiB of its agent")
    rules = Keeping(total_bytes=900 * MIB)
    assert list(gone(rules, *past, total=1100 * MIB)) == ["s0", "s1"]
    assert not gone(rules, *past, total=900 * MIB)


def test_what_one_rule_takes_counts_for_the_next() -> None:
    past = [made(number) for number in range(4)]
    assert list(gone(Keeping(keep=2, agent_bytes=200 * MIB), *past)) == ["s0", "s1"]


def test_what_is_held_never_goes() -> None:
    named, pinned, present = made(1, title="green"), made(2, is_pinned=True), made(9)
    rules = Keeping(keep=0, age_s=1.0, agent_bytes=1, total_bytes=1)
    found = gone(rules, made(0), named, pinned, present, now=1e9, total=1 << 40)
    assert list(found) == ["s0"]


def test_the_present_a_review_and_a_fork_hold() -> None:
    record = Record(AGENT, literal("ember"), HostName("lab"), saved_in=SnapshotId("s1"), review=3)
    fork = Record(
        FORK,
        literal("cobalt"),
        HostName("lab"),
        birth=Birth(parent=AGENT, snapshot=SnapshotId("s2")),
    )
    assert holds(record, [record, fork]) == {"s1": "review 3", "s2": "cobalt was forked from it"}


def test_neither_age_nor_size_takes_the_newest() -> None:
    rules = Keeping(age_s=1.0, agent_bytes=1, total_bytes=1)
    assert list(gone(rules, made(0), made(1), now=1e9, total=1 << 40)) == ["s0"]
    assert not gone(rules, made(0), now=1e9, total=1 << 40)
