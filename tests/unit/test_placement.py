"""On which host a new agent is made, and what is said of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from swarm_tui.command import Spawn
from swarm_tui.errors import HostError, Refused, Unsupported, UsageError
from swarm_tui.model import HostName
from swarm_tui.placement import Room, choose, forecast
from swarm_tui.ports import Needs
from swarm_tui.profile import Profile
from swarm_tui.supervisor import RESERVE
from swarm_tui.text import Safe, literal, sanitize

from .lab import Lab, until
from .standin import HOST, Call

GIB = 1 << 30
NEEDS = Needs(GIB // 4, GIB // 8)


def room(name: str, free_gib: float | None, *, alike: int = 0, promised: float = 0.0) -> Room:
    free = None if free_gib is None else int(free_gib * GIB)
    return Room(
        HostName(name),
        needs=NEEDS,
        free=free,
        promised=int(promised * GIB),
        agents=alike,
        alike=alike,
        unknown=literal("" if free else "the driver does not tell it"),
    )


def test_the_fewest_of_its_kind_go_first_and_then_the_most_memory() -> None:
    rooms = [room("lab1", 8, alike=2), room("lab2", 5.1, alike=1), room("lab3", 4, alike=1)]
    placed = choose(rooms, 0)
    assert (placed.host, placed.free) == ("lab2", int(5.1 * GIB))
    assert placed.reason == (
        "on lab2: 5.1 GiB free, 1 agent; lab1 has 8.0 GiB free; lab3 has 4.0 GiB free"
    )


def test_what_is_promised_and_what_stays_free_counts_as_taken() -> None:
    rooms = [room("lab1", 4, promised=3.5), room("lab2", 1)]
    placed = choose(rooms, GIB // 2)
    assert placed.host == "lab2"
    assert "lab1 has 0.5 GiB free beside 3.5 GiB promised" in placed.reason
    with pytest.raises(Refused) as raised:
        choose([room("lab1", 4, promised=3.5)], GIB // 2)
    assert raised.value.title == "No host has memory for another agent"
    assert "256 MiB and, as an estimate, 128 MiB" in raised.value.detail
    assert "512 MiB of each host stay free" in raised.value.detail


def test_unknown_memory_is_not_taken_for_plenty() -> None:
    untold, full = room("edge", None), room("lab", 0.1)
    with pytest.raises(Refused, match="unknown amount of memory free \\(the driver does not tell"):
        choose([untold, full], 0)
    assert choose([untold, room("lab", 1, alike=9)], 0).host == "lab"
    named = choose([untold], 0)
    assert named.free is None
    assert named.reason.startswith("on edge: an unknown amount of memory free")


def test_a_host_with_an_obstacle_says_which() -> None:
    away = Room(HostName("edge"), obstacle=literal("is out of reach"))
    assert choose([away, room("lab", 1)], 0).reason.endswith("; edge: is out of reach")
    with pytest.raises(Refused, match="edge: is out of reach"):
        choose([away], 0)


def test_a_forecast_counts_each_before_the_next() -> None:
    told = forecast([room("lab1", 1.5), room("lab2", 0.75)], 0, 9)
    assert told.counts == {"lab1": 4, "lab2": 2}
    assert isinstance(told.error, Refused)
    assert [one.host for one in told.placed[:4]] == ["lab1", "lab2", "lab1", "lab2"]
    assert forecast([room("lab1", 1.5)], 0, 4).error is None


# With a supervisor


@pytest.fixture
def lab(memory_path: Path) -> Lab:
    made = Lab(memory_path)
    made.world.memory_free = room_for(6)
    made.add_host("lab2").memory_free = room_for(5)
    return made


def room_for(agents: int) -> int:
    return RESERVE + agents * (256 << 20)


async def test_twenty_spawns_where_ten_have_room(lab: Lab) -> None:
    """The agent that is there already may still grow to what it was given."""
    gate = asyncio.Event()
    for world in lab.worlds:
        world.plans["spawn"] = Call(gate=gate)
    async with lab.running() as supervisor:
        assert len(supervisor.foresee(Spawn(), 20).placed) == 10
        steps: list[Safe] = []
        asked = [
            asyncio.create_task(supervisor.do(Spawn(), lambda step, _: steps.append(step)))
            for _ in range(20)
        ]
        # Those without a place are told so while the others are still being made.
        await until(lambda: sum(one.done() for one in asked) == 10)
        assert len(supervisor.foresee(Spawn(), 1).placed) == 0
        gate.set()
        ended = await asyncio.gather(*asked, return_exceptions=True)
        refused = [end for end in ended if isinstance(end, Refused)]
        done = [end for end in ended if isinstance(end, str)]
        assert (len(done), len(refused)) == (10, 10)
        assert all("No host has memory" in str(error) for error in refused)
        assert [len(world.agents()) for world in lab.worlds] == [6, 5]
        assert len(supervisor.acts()) == 10, "a spawn without a place is no act"
        for end in done:
            assert "answers after" in end
            assert "; on l" in end
        assert any(step.startswith("on lab2: ") for step in steps)
        assert all("GiB free" in act.detail for act in supervisor.acts())
        # What was promised to them is what they are counted with now: nothing twice, nothing lost.
        with pytest.raises(Refused):
            await supervisor.do(Spawn())


async def test_a_spawn_that_fails_gives_its_place_back(lab: Lab) -> None:
    lab.worlds[1].memory_free = room_for(1)
    lab.worlds[1].plans["spawn"] = Call(before=HostError("it broke"))
    async with lab.running() as supervisor:
        for _ in range(3):
            with pytest.raises(HostError, match="it broke"):
                await supervisor.do(Spawn(HostName("lab2")))
        lab.worlds[1].plans.clear()
        spawned = await supervisor.spawn(Spawn(HostName("lab2")))
        assert (spawned.host, spawned.reason[:8]) == ("lab2", "on lab2:")


async def test_profiles_of_one_name_are_spread_and_kept_to_their_hosts(lab: Lab) -> None:
    lab.add_host("lab3")
    wide = Profile(sanitize("wide"))
    narrow = Profile(sanitize("narrow"), hosts=("lab2",))
    async with lab.running() as supervisor:
        counts = supervisor.foresee(Spawn(profile=wide), 6).counts
        assert counts == {HOST: 2, "lab2": 2, "lab3": 2}
        assert supervisor.foresee(Spawn(profile=narrow), 9).counts == {"lab2": 5}
        with pytest.raises(UsageError, match="narrow are not made on lab3"):
            await supervisor.do(Spawn(HostName("lab3"), profile=narrow))
        with pytest.raises(Unsupported, match="No agents can be made on nowhere"):
            await supervisor.do(Spawn(HostName("nowhere")))


async def test_a_host_that_does_not_tell_is_taken_only_when_it_is_named(lab: Lab) -> None:
    lab.worlds[0].memory_free = None
    lab.worlds[1].memory_free = room_for(1)
    async with lab.running() as supervisor:
        assert supervisor.foresee(Spawn(), 3).counts == {"lab2": 1}
        assert "unknown amount of memory" in await supervisor.do(Spawn(HOST))
