"""New agents and their records: before, during and after, and when a spawn is cut off."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from swarm_tui.command import Kill, Spawn
from swarm_tui.errors import Busy, HostError, HostUnreachable, SetupError
from swarm_tui.label import make_labels
from swarm_tui.model import AgentId, Birth, Record, State, Verb
from swarm_tui.ports import OnNamed, Order, Progress, Source, Spawned
from swarm_tui.profile import Ending, Life, Profile
from swarm_tui.review.depot import Depot
from swarm_tui.text import literal

from .lab import Lab, hurry_store, until
from .standin import AGENT, HOST, Call, StandInSpawner

SECOND = AgentId("6f1c7b0e-0000-4000-8000-000000000002")


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry_store(monkeypatch)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def profile(**facts: object) -> Profile:
    return Profile(literal("web"), **facts)  # type: ignore[arg-type]


async def test_an_agent_is_on_record_and_on_the_screen_before_it_is_there(lab: Lab) -> None:
    plan = lab.world.plans["spawn"] = Call(gate=asyncio.Event())
    life = Life(60.0, Ending.END)
    async with lab.running() as supervisor:
        spawning = asyncio.create_task(
            supervisor.do(Spawn(HOST, "cobalt", profile=profile(life=life, checkpoint="10m")))
        )
        await until(lambda: supervisor.store.agent(SECOND) is not None)
        assert SECOND not in lab.world.agents()
        record = lab.catalogue.record(SECOND)
        assert record
        assert (record.verb, record.name, record.birth.profile) == (Verb.SPAWN, "cobalt", "web")
        assert (record.birth.life, record.birth.checkpoint) == (life, "10m")
        agent = supervisor.store.agent(SECOND)
        assert agent
        assert (agent.state, agent.name) == (State.STARTING, "cobalt")
        assert agent.operation
        assert agent.operation.verb is Verb.SPAWN
        with pytest.raises(Busy):
            await supervisor.do(Kill(SECOND))
        assert plan.gate
        plan.gate.set()
        await spawning
        after = lab.catalogue.record(SECOND)
        assert after
        assert (after.verb, after.birth) == (None, record.birth)
        assert not lab.catalogue.claimants()
        await until(lambda: lab.state(supervisor, SECOND) in (State.RUNNING, State.STARTING))
        known = supervisor.store.agent(SECOND)
        assert known
        assert known.operation is None
        await supervisor.do(Kill(SECOND))


async def test_of_a_spawn_that_fails_nothing_is_left(lab: Lab) -> None:
    lab.world.plans["spawn"] = Call(before=HostError("no room"))
    async with lab.running() as supervisor:
        with pytest.raises(HostError, match="no room"):
            await supervisor.do(Spawn(HOST, "cobalt"))
        assert lab.catalogue.record(SECOND) is None
        assert not lab.catalogue.claimants()
        assert supervisor.store.agent(SECOND) is None
        del lab.world.plans["spawn"]
        spawned = await supervisor.spawn(Spawn(HOST, "cobalt"))
        assert lab.catalogue.record(spawned.agent)


async def test_a_spawn_goes_on_when_nobody_waits_for_it(lab: Lab) -> None:
    plan = lab.world.plans["spawn"] = Call(gate=asyncio.Event())
    async with lab.running() as supervisor:
        spawning = asyncio.create_task(supervisor.do(Spawn(HOST, "cobalt")))
        await until(lambda: supervisor.store.agent(SECOND) is not None)
        spawning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await spawning
        assert plan.gate
        plan.gate.set()
        await until(lambda: (record := lab.catalogue.record(SECOND)) and record.verb is None)
    assert SECOND in lab.world.agents()


@pytest.mark.parametrize("is_there", [True, False])
async def test_what_a_killed_spawn_left_goes_at_the_next_start(lab: Lab, is_there: bool) -> None:
    if is_there:
        lab.world.add(SECOND, "cobalt")
    birth = Birth(literal("web"), Path("/owner"))
    lab.catalogue.write(Record(SECOND, literal("cobalt"), HOST, verb=Verb.SPAWN, birth=birth))
    async with lab.running() as supervisor:
        await until(lambda: lab.catalogue.record(SECOND) is None)
        await until(lambda: supervisor.store.agent(SECOND) is None)
        assert lab.world.agents() == [AGENT]
        assert "discard" in lab.world.calls, "its files may be there although its VM is not"
        assert lab.state(supervisor) is State.RUNNING


async def test_a_spawn_whose_host_is_lost_is_ended_when_it_is_there_again(lab: Lab) -> None:
    lab.world.plans["spawn"] = Call(after=HostUnreachable("cut"))
    lab.world.plans["describe"] = Call(before=HostUnreachable("cut"))
    async with lab.running() as supervisor:
        with pytest.raises(HostUnreachable):
            await supervisor.do(Spawn(HOST, "cobalt"))
        assert SECOND in lab.world.agents()
        record = lab.catalogue.record(SECOND)
        assert record
        assert record.verb is Verb.SPAWN
        lab.world.plans.clear()
        await until(lambda: lab.world.agents() == [AGENT])
        await until(lambda: lab.catalogue.record(SECOND) is None)


class NoticingSpawner(StandInSpawner):
    """A stand-in that remembers what it was asked for."""

    orders: list[Order]

    async def spawn(self, order: Order, on_progress: Progress, on_named: OnNamed) -> Spawned:
        self.orders.append(order)
        return await super().spawn(order, on_progress, on_named)


class StandInDepot(Depot):
    async def get(self, repository: str, ref: str, on_progress: Progress) -> Source:
        return Source(Path(repository), ref, Path("/archive"), 1)


async def test_an_order_has_all_that_the_profile_says(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "hunter2")
    noticing = NoticingSpawner(lab.world)
    noticing.orders = []
    supervisor = lab.make()
    place = supervisor._places[HOST]
    nursery = supervisor._nursery
    monkeypatch.setattr(nursery, "_depot", StandInDepot(Path("/m"), Path("/a")))
    asked = profile(
        task="Its own",
        repository="/owner/repository",
        ref="main",
        environment=(("PLAIN", "1"),),
        inherited=(("SECRET", "TOKEN"),),
        labels=(*make_labels(["team=web", "kind=agent"]),),
    )
    async with supervisor:
        await supervisor.connected(30)
        object.__setattr__(place.site, "spawner", noticing)
        await supervisor.do(Spawn(HOST, labels=make_labels(["team=core"]), profile=asked))
        record = lab.catalogue.record(SECOND)
        assert record
        assert record.birth.repository == Path("/owner/repository")
        assert supervisor.repository(SECOND) == Path("/owner/repository")
        assert supervisor.repository(AGENT) == lab.home / "owner.git"
        told = [str(entry) for entry in supervisor.acts()]
    [order] = noticing.orders
    assert order.task == "Its own"
    assert order.environment == {"PLAIN": "1", "SECRET": "hunter2"}
    assert {(label.key, label.value) for label in order.labels} == {
        ("team", "core"),
        ("kind", "agent"),
    }
    assert order.source
    assert order.source.commit == "main"
    assert "hunter2" not in repr(order)
    assert told
    assert "hunter2" not in "".join(told)
    assert not [
        path for path in lab.home.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()
    ]


async def test_what_the_environment_lacks_is_told_before_anything_is_made(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOKEN", raising=False)
    async with lab.running() as supervisor:
        with pytest.raises(SetupError, match="TOKEN"):
            await supervisor.do(Spawn(HOST, profile=profile(inherited=(("SECRET", "TOKEN"),))))
    assert "spawn" not in lab.world.calls
    assert lab.catalogue.record(SECOND) is None
