"""Facts: what was seen, in the past tense.

`seq` is taken when the question was asked, so that a late answer never overwrites a newer one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from swarm_tui.model import (
    AgentId,
    Counters,
    EventBatch,
    Host,
    HostName,
    Link,
    Operation,
    Record,
    Vm,
)
from swarm_tui.text import EMPTY, Safe


@dataclass(frozen=True, slots=True)
class VmSeen:
    vm: Vm
    seq: int


@dataclass(frozen=True, slots=True)
class VmGone:
    agent: AgentId
    seq: int
    host: HostName | None = None
    """The host that was asked; only the one that an agent is on can say that it is gone."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A whole list of a host: whoever is not on it is gone."""

    host: HostName
    vms: tuple[Vm, ...]
    seq: int


@dataclass(frozen=True, slots=True)
class HostSeen:
    host: Host


@dataclass(frozen=True, slots=True)
class Sampled:
    host: HostName
    counters: Mapping[AgentId, Counters]


@dataclass(frozen=True, slots=True)
class GuestSampled:
    """Network totals told by the guest itself, where the host cannot tell them."""

    agent: AgentId
    monotonic: float
    net_received: int
    net_sent: int


@dataclass(frozen=True, slots=True)
class GuestHeard:
    agent: AgentId
    batch: EventBatch


@dataclass(frozen=True, slots=True)
class LinkChanged:
    agent: AgentId
    link: Link
    reason: Safe = EMPTY


@dataclass(frozen=True, slots=True)
class Recorded:
    """The catalogue's record of an agent changed (or, with None, went)."""

    agent: AgentId
    record: Record | None


@dataclass(frozen=True, slots=True)
class OperationChanged:
    agent: AgentId
    operation: Operation | None


Fact = (
    VmSeen
    | VmGone
    | Listed
    | HostSeen
    | Sampled
    | GuestSampled
    | GuestHeard
    | LinkChanged
    | Recorded
    | OperationChanged
)
