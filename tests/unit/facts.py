"""Facts for the store, in few words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from swarm_tui.fact import GuestHeard, HostSeen, Recorded, Sampled
from swarm_tui.model import (
    Address,
    Agent,
    AgentId,
    Counters,
    EventBatch,
    EventKind,
    GuestEvent,
    Host,
    HostName,
    HostState,
    Power,
    Record,
    SnapshotId,
    State,
    Tag,
    Verb,
    Vm,
)
from swarm_tui.store import Store
from swarm_tui.text import Safe, literal

from .standin import AGENT, HOST

NOW = 100_000.0
OTHER = AgentId("6f1c7b0e-0000-4000-8000-000000000002")
SNAPSHOT = SnapshotId("20261123T125512Z-4f2a")
ADDRESS = Address("127.0.0.1", 22101, "ssh-ed25519 AAAA", Path("/key"))


@dataclass
class Clock:
    at: float = NOW

    def now(self) -> float:
        return self.at


def vm(
    power: Power = Power.RUNNING,
    agent: AgentId = AGENT,
    host: HostName = HOST,
    reason: str = "",
    created: float | None = 1000.0,
) -> Vm:
    return Vm(
        agent,
        literal("ember"),
        host,
        power,
        literal(reason),
        tag=Tag(created=created, address=ADDRESS),
    )


def host(state: HostState = HostState.UP, since: float = NOW, detail: str = "") -> HostSeen:
    return HostSeen(Host(HOST, literal("qemu:///system"), state, since, literal(detail)))


def record(
    *,
    saved: bool = False,
    frozen: bool = False,
    verb: Verb | None = None,
    since: float | None = None,
    review: int | None = None,
) -> Recorded:
    saved_in = SNAPSHOT if saved else None
    return Recorded(
        AGENT,
        Record(
            AGENT,
            literal("ember"),
            HOST,
            frozen,
            saved_in,
            verb=verb,
            since=since,
            review=review,
        ),
    )


def heard(kind: EventKind, text: str = "", at: float | None = None, offset: int = 10) -> GuestHeard:
    return GuestHeard(AGENT, EventBatch((GuestEvent(kind, literal(text), at),), offset))


def counters(monotonic: float, cpu_s: float, **more: int) -> Counters:
    return Counters(monotonic, cpu_ns=int(cpu_s * 1e9), **more)


def sample(*readings: tuple[AgentId, Counters], of: HostName = HOST) -> Sampled:
    return Sampled(of, dict(readings))


def known(store: Store, agent: AgentId = AGENT) -> Agent:
    found = store.agent(agent)
    assert found
    return found


def state(store: Store) -> tuple[State, Safe]:
    agent = known(store)
    return agent.state, agent.reason
