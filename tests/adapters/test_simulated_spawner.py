"""Simulated agents are forked, and kept ready, as real ones are."""

from __future__ import annotations

from pathlib import Path

from swarm_tui.adapters.simulated import ManualClock, SimulatedSwarm
from swarm_tui.command import Fork, Pause
from swarm_tui.model import State
from swarm_tui.ports import Order, Spawned
from swarm_tui.profile import Profile
from swarm_tui.text import literal

from .test_simulated_reviews import floor

QUICK = Profile(literal("quick"), ready=2)


async def test_forks_go_on_as_somebody_else_and_wait_for_what_their_parent_waits_for(
    tmp_path: Path,
) -> None:
    async with floor(6, tmp_path) as made:
        asking = made.ids[1]
        await made.until_asking(asking, "is_locked ready")
        told = await made.supervisor.do(Fork(asking, 2, task="try another way"))
        assert "lockout stood still for" in told
        parent = made.agent(asking)
        forks = [one for one in made.supervisor.store.agents() if one.id not in made.ids]
        assert {fork.name for fork in forks} == {"lockout-1", "lockout-2"}
        assert {fork.tag.task for fork in forks} == {"try another way"}
        assert len({one.tag.address for one in (parent, *forks)}) == 3
        for fork in forks:
            assert fork.record
            assert fork.record.birth.parent == asking
            await made.until_asking(fork.id, "is_locked ready")
            said = [event.text for event in made.supervisor.store.log(fork.id).events]
            assert said[0] == "forked from lockout; what was before is in its log"
            assert "inbox: try another way" in said
        taken = await made.review(forks[0].id)
        assert taken.changes, "it has its parent's work"


async def test_what_is_saved_is_forked_and_stays_saved(tmp_path: Path) -> None:
    async with floor(3, tmp_path) as made:
        await made.supervisor.do(Pause(made.ids[0]))
        await made.supervisor.do(Fork(made.ids[0], prefix="other"))
        assert made.agent(made.ids[0]).state is State.SAVED
        [fork] = [one for one in made.supervisor.store.agents() if one.id not in made.ids]
        await made.until(lambda: made.agent(fork.id).state is State.RUNNING)


async def test_of_what_is_ready_spawns_take_and_what_is_not_is_made() -> None:
    spawner = SimulatedSwarm(0, clock=ManualClock()).spawner()
    order = Order(profile=QUICK)
    assert await spawner.replenish(order, quiet)
    assert not await spawner.replenish(order, quiet)
    for _ in range(3):
        assert isinstance(await spawner.spawn(order, quiet, unheard), Spawned)
    [stock] = await spawner.stocks([order])
    assert (stock.ready, stock.wanted, stock.hits, stock.misses) == (0, 2, 2, 1)
    assert await spawner.replenish(order, quiet)
    assert await spawner.drain(QUICK) == 1


def quiet(_step: str, _fraction: float | None) -> None:
    pass


async def unheard(_agent: str, _name: str) -> None:
    pass
