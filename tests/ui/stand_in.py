"""A stand-in for the supervisor: the real store, filled with facts by hand, and no hosts behind it.

What is commanded is written down, and takes effect by facts as it would with real hosts.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stand_in_console import StandInConsole
from textual import events
from textual.pilot import Pilot
from unseen import unseen

from swarm_tui.audit import Audit
from swarm_tui.audit import Entry as Audited
from swarm_tui.command import Approve, Command, Kill, Pause, Reject, Resume, Review, SendBack, Spawn
from swarm_tui.errors import Refused, SwarmError
from swarm_tui.fact import (
    Fact,
    GuestHeard,
    HostSeen,
    LinkChanged,
    OperationChanged,
    Recorded,
    Sampled,
    VmGone,
    VmSeen,
)
from swarm_tui.inventory import Kept
from swarm_tui.label import make_labels
from swarm_tui.lifecycle import Terms
from swarm_tui.model import (
    Address,
    Agent,
    AgentId,
    Capabilities,
    Counters,
    EventBatch,
    EventKind,
    GuestEvent,
    Host,
    HostName,
    HostState,
    Link,
    Operation,
    Power,
    Record,
    SnapshotId,
    Tag,
    Verb,
    Vm,
)
from swarm_tui.paths import locate
from swarm_tui.placement import Forecast, Promises
from swarm_tui.policy import Decision, Deny, decide
from swarm_tui.ports import Console, Needs, Progress
from swarm_tui.profile import Profile
from swarm_tui.results import Result, Results
from swarm_tui.review.desk import Reading
from swarm_tui.review.shelf import Shelf
from swarm_tui.spool import Spool
from swarm_tui.stocks import Stocks
from swarm_tui.store import Store
from swarm_tui.supervisor import Supervisor
from swarm_tui.text import Safe, sanitize
from swarm_tui.ui.app import Settings, SwarmApp

START = 1_795_438_800.0
"""2026-11-23 13:00:00 UTC."""
MIB = 1 << 20


@dataclass
class Clock:
    """Wall and monotonic time, moved by hand."""

    at: float = START

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at - START

    def pass_by(self, seconds: float) -> None:
        self.at += seconds


class StandInResults(Results):
    """What the screen reads of results."""

    def __init__(self, swarm: StandInSupervisor) -> None:
        self._swarm = swarm

    def list(self) -> Sequence[Result]:
        if isinstance(self._swarm.told_results, SwarmError):
            raise self._swarm.told_results
        return self._swarm.told_results


class StandInSpawner:
    """Would make agents of 256 MiB."""

    def needs(self, profile: Profile) -> Needs:
        return Needs((profile.memory_mib or 256) * MIB, 0)


@dataclass
class StandInSupervisor(Supervisor):
    """Conforms to what the screens use of Supervisor."""

    clock: Clock = field(default_factory=Clock)
    done: list[Command] = field(default_factory=list)
    failure: BaseException | None = None
    """What the next commands end with."""
    gate: asyncio.Event | None = None
    """Commands wait for it, when there is one."""
    console_output: Sequence[bytes] = ()
    console_failure: SwarmError | None = None
    spawning_hosts: tuple[HostName, ...] = (HostName("local"),)
    refreshed: int = 0
    faults: list[BaseException] = field(default_factory=list)
    readings: dict[AgentId, Reading] = field(default_factory=dict)
    """The reviews that are opened, or would be taken."""
    owners: Path | None = Path("/home/hanne/src/invoices")
    seq: int = 0
    ended: list[Audited] = field(default_factory=list)
    """Verbs that have just ended."""
    logs: Spool | None = None
    shown: Collection[AgentId] = ()
    """Who is on the screen."""
    told_acts: Sequence[Audited] | SwarmError = ()
    """What was done before, oldest first."""
    told_results: Sequence[Result] | SwarmError = ()
    """What was kept of ended agents, the newest first."""
    told_past: Sequence[Kept] | SwarmError = ()
    """The checkpoints of any agent, the oldest first."""
    past_problem: SwarmError | None = None
    """Why its host could not be asked for them."""

    def __post_init__(self) -> None:
        self.stocks = Stocks()
        self.store = Store(self.clock.now)
        home = locate().data
        forkers = {HostName(host): StandInSpawner() for host in ("local", "lab-2", "attic")}
        self.promises = Promises(self.store, forkers, 512 * MIB)
        self.audit = Audit(home)
        self.results = StandInResults(self)
        self.terms = Terms(Shelf(home), sanitize("hanne@example.org"), None, home, 1 << 20)

    # What the screens use

    def may(self, verb: Verb, agent: AgentId | None, *, is_quick: bool = False) -> Decision:
        known = self.store.agent(agent) if agent else None
        host = self.store.host(known.host if known else HostName("local"))
        return decide(verb, known, host.capabilities if host else None, is_quick=is_quick)

    def acts(self, agent: str | None = None) -> Sequence[Audited]:
        if isinstance(self.told_acts, SwarmError):
            raise self.told_acts
        return [act for act in self.told_acts if agent in (None, act.agent)]

    async def past(self, agent: AgentId) -> tuple[Sequence[Kept], SwarmError | None]:
        if isinstance(self.told_past, SwarmError):
            raise self.told_past
        return self.told_past, self.past_problem

    def take_ended(self) -> Sequence[Audited]:
        ended, self.ended = self.ended, []
        return ended

    def spawners(self) -> Sequence[HostName]:
        return self.spawning_hosts

    def foresee(self, command: Spawn, count: int = 1) -> Forecast:
        """256 MiB each, on the hosts that can."""
        spawners = {host: StandInSpawner() for host in self.spawning_hosts}
        return Promises(self.store, spawners, 512 * MIB).foresee(command, count)

    def take_faults(self) -> Sequence[BaseException]:
        faults, self.faults = self.faults, []
        return faults

    def show(self, agents: Collection[AgentId]) -> None:
        self.shown = agents

    def repository(self, agent: AgentId) -> Path | None:
        return self.owners

    async def reading(self, agent: AgentId) -> Reading:
        return self.readings[agent]

    async def refresh(self, agent: AgentId | None = None) -> None:
        self.refreshed += 1

    async def do(self, command: Command, on_progress: Progress | None = None) -> Safe:
        self.done.append(command)
        if self.gate:
            await self.gate.wait()
        if self.failure:
            raise self.failure
        if isinstance(command, Spawn):
            self.add(command.name or "newcomer", task=command.task)
            return sanitize(f"{command.name} answers after 0.9 s")
        decision = self.may(command.verb, command.agent)
        if isinstance(decision, Deny):
            raise Refused("not possible now", decision.reason)
        agent = self.agent(command.agent)
        assert agent.vm
        match command:
            case Pause(is_quick=True):
                self.set_power(agent, Power.PAUSED)
            case Pause():
                self.apply(
                    Recorded(agent.id, Record(agent.id, agent.name, agent.host, saved_in=SNAPSHOT))
                )
                self.set_power(agent, Power.OFF)
            case Resume():
                self.apply(Recorded(agent.id, Record(agent.id, agent.name, agent.host)))
                self.set_power(agent, Power.RUNNING)
                self.apply(LinkChanged(agent.id, Link.UP))
            case Review():
                self.save(agent, review=self.readings[agent.id].review.number)
            case Approve() | SendBack() | Reject():
                self.apply(Recorded(agent.id, Record(agent.id, agent.name, agent.host)))
                self.set_power(agent, Power.RUNNING)
            case Kill():
                self.apply(Recorded(agent.id, None))
                self.seq += 1
                self.apply(VmGone(agent.id, self.seq))
        return sanitize(f"{command.verb} is done")

    def console(self, agent: AgentId) -> contextlib.AbstractAsyncContextManager[Console]:
        @asynccontextmanager
        async def opened() -> AsyncIterator[Console]:
            if self.console_failure:
                raise self.console_failure
            yield StandInConsole(self.console_output)

        return opened()

    # What tests do to it

    def save(self, agent: Agent, review: int | None = None) -> None:
        """It is saved, with a review open on it if one is named."""
        record = Record(agent.id, agent.name, agent.host, saved_in=SNAPSHOT, review=review)
        self.apply(Recorded(agent.id, record))
        self.set_power(agent, Power.OFF)

    def apply(self, fact: Fact) -> None:
        self.store.apply(fact)

    def agent(self, agent: AgentId) -> Agent:
        known = self.store.agent(agent)
        assert known
        return known

    def named(self, name: str) -> Agent:
        return next(agent for agent in self.store.agents() if agent.name == name)

    def add_host(
        self,
        name: str = "local",
        state: HostState = HostState.UP,
        *,
        detail: str = "",
        missing: dict[str, str] | None = None,
        driver: str = "QEMU",
    ) -> None:
        self.apply(
            HostSeen(
                Host(
                    HostName(name),
                    sanitize("qemu:///session" if name == "local" else f"qemu+ssh://{name}/system"),
                    state,
                    self.clock.now() - 95,
                    sanitize(detail),
                    capabilities=Capabilities(
                        driver,
                        "7.2.22",
                        missing=missing or {},
                        sources={
                            "cpu_ns": "libvirt cpu.time",
                            "memory_used": "guest balloon",
                            "memory_host": "VMM resident size",
                            "disk_read": "libvirt block.rd",
                            "net_received": "told by the guest",
                        },
                    ),
                )
            )
        )

    def add(
        self,
        name: str,
        *,
        host: str = "local",
        power: Power = Power.RUNNING,
        task: str = "",
        age: float = 600.0,
        reason: str = "",
        memory_mib: int = 256,
        address: str = "127.0.0.1",
        folder: str = "/var/lib/swarm",
        owner: str = "hanne",
        labels: Sequence[str] = (),
    ) -> AgentId:
        self.seq += 1
        number = len(self.store.agents()) + 1
        agent = AgentId(f"0b5e{number:04x}-77aa-4c11-9d20-{number:012x}")
        tag = Tag(
            sanitize(task),
            sanitize(owner),
            self.clock.now() - age,
            "1405df66cbe219b0bf6355bc3d60361a8376b6b4",
            address=Address(address, 2200 + number, "ssh-ed25519 AAAA", Path("/k/id")),
            labels=make_labels(labels),
        )
        vm = Vm(
            agent,
            sanitize(name),
            HostName(host),
            power,
            sanitize(reason),
            memory_mib * MIB,
            2,
            (Path(f"{folder}/{number}.raw"),),
            tag,
        )
        self.apply(VmSeen(vm, self.seq))
        self.apply(LinkChanged(agent, Link.UP))
        return agent

    def set_power(self, agent: Agent, power: Power) -> None:
        assert agent.vm
        self.seq += 1
        vm = Vm(
            agent.id,
            agent.name,
            agent.host,
            power,
            memory_bytes=agent.vm.memory_bytes,
            vcpus=2,
            disks=agent.vm.disks,
            tag=agent.tag,
        )
        self.apply(VmSeen(vm, self.seq))

    def begin(self, agent: AgentId, step: str, fraction: float | None = None) -> None:
        """A verb is at work."""
        now = self.clock.now()
        self.apply(OperationChanged(agent, Operation(Verb.PAUSE, sanitize(step), fraction, now)))

    def end(self, agent: AgentId) -> None:
        """The verb at work has come to its end."""
        self.apply(OperationChanged(agent, None))

    def hear(self, agent: AgentId, kind: EventKind, text: str, *, at: float | None = None) -> None:
        event = GuestEvent(kind, sanitize(text), self.clock.now() if at is None else at)
        self.apply(GuestHeard(agent, EventBatch((event,), 0)))

    def sample(self, agent: AgentId, seconds: int = 40, *, phase: float = 0.0) -> None:
        """A made-up but steady course of load, one sample a second."""
        cpu = read = written = received = sent = 0
        host = self.agent(agent).host
        for second in range(seconds):
            wave = (math.sin(second / 5 + phase) + 1) / 2
            cpu += int((wave * 1.6 + 0.05) * 1e9)
            read += int(wave * 40_000)
            written += int(wave * 900_000)
            received += int(wave * 12_000)
            sent += int(wave * 3_000)
            reading = Counters(
                self.clock.monotonic() - seconds + second,
                cpu,
                int((90 + 60 * wave + second) * MIB),
                256 * MIB,
                310 * MIB,
                read,
                written,
                received,
                sent,
            )
            self.apply(Sampled(host, {agent: reading}))


SNAPSHOT = SnapshotId("20261123T125512Z-4f2a")


def make_fleet(clock: Clock | None = None) -> StandInSupervisor:
    """Twelve agents in every state, on two hosts and a third that is out of reach."""
    swarm = StandInSupervisor(clock=clock or Clock())
    swarm.add_host("local")
    swarm.add_host("lab-2")
    tasks = (
        "make the parser faster",
        "port the importer to the new API",
        "find the leak in the worker pool",
        "write the migration for invoices",
    )
    for number, name in enumerate(
        ("ember", "cobalt", "juniper", "moss", "slate", "wren", "quartz", "fern", "onyx", "sage")
    ):
        host = "local" if number % 3 else "lab-2"
        agent = swarm.add(name, host=host, task=tasks[number % 4], age=200.0 * (number + 1))
        swarm.sample(agent, phase=number)
        swarm.hear(agent, EventKind.STATUS, f"editing src/{name}.py")
        swarm.hear(agent, EventKind.TOOL, "pytest -q tests")
        swarm.hear(agent, EventKind.LOG, f"{40 + number} passed in 2.{number} s")
    swarm.clock.pass_by(30)
    swarm.hear(swarm.named("moss").id, EventKind.ASK, "review: 3 files changed, tests pass")
    swarm.clock.pass_by(160)
    swarm.hear(swarm.named("fern").id, EventKind.ASK, "which of the two schemas?")
    swarm.clock.pass_by(45)
    swarm.hear(swarm.named("sage").id, EventKind.DONE, "all invoices migrate")
    swarm.set_power(swarm.named("slate"), Power.PAUSED)
    wren = swarm.named("wren")
    swarm.apply(Recorded(wren.id, Record(wren.id, wren.name, wren.host, saved_in=SNAPSHOT)))
    swarm.set_power(wren, Power.OFF)
    swarm.set_power(swarm.named("onyx"), Power.CRASHED)
    quartz = swarm.named("quartz")
    swarm.apply(Recorded(quartz.id, Record(quartz.id, quartz.name, quartz.host, is_frozen=True)))
    starting = swarm.add("tern", task="read the logs of the night", age=4)
    swarm.apply(LinkChanged(starting, Link.CONNECTING))
    swarm.add_host("attic")
    lost = swarm.add("pike", host="attic", age=90_000)
    swarm.hear(lost, EventKind.LOG, "waiting for the linter")
    swarm.clock.pass_by(12)
    swarm.add_host("attic", HostState.DOWN, detail="no route to host; next try in 8 s")
    swarm.store.take_dirty()
    return swarm


def make_app(
    swarm: StandInSupervisor, settings: Settings | None = None, argv: Sequence[str] = ("true",)
) -> SwarmApp:
    return SwarmApp(
        swarm,
        settings or Settings(),
        lambda agent: [*argv, agent],
        now=swarm.clock.now,
        monotonic=swarm.clock.monotonic,
    )


@contextmanager
def utc() -> Iterator[None]:
    """Times of day are drawn in UTC within."""
    was = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"
    time.tzset()
    try:
        yield
    finally:
        if was is None:
            del os.environ["TZ"]
        else:
            os.environ["TZ"] = was
        time.tzset()


@asynccontextmanager
async def running(app: SwarmApp, size: tuple[int, int] = (80, 24)) -> AsyncIterator[Pilot[Any]]:
    with utc(), unseen():
        async with app.run_test(size=size, notifications=True) as pilot:
            await pilot.pause()
            yield pilot


async def until(pilot: Pilot[Any], holds: Callable[[], object], what: str = "") -> None:
    """Wait until something holds, for at most five seconds."""
    deadline = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < deadline, f"never came to pass: {what}"
        await pilot.pause(0.02)


def type_ahead(app: SwarmApp, *keys: str) -> None:
    """Press keys faster than any of them can be done with."""
    for key in keys:
        app.post_message(events.Key(key, key if len(key) == 1 else None))


def seen(app: SwarmApp) -> str:
    """The whole screen as text."""
    lines = app.screen._compositor.render_strips(app.size)
    return "\n".join(strip.text for strip in lines)
