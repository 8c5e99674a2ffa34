"""The audit screen: everybody's acts, as they come."""

from __future__ import annotations

from dataclasses import replace

from stand_in import START, StandInSupervisor, make_app, make_fleet, running, seen, until
from test_safety import CORPUS, check

from swarm_tui.audit import Entry, Outcome
from swarm_tui.errors import AuditError, StoreUnreachable
from swarm_tui.text import sanitize


def act(
    swarm: StandInSupervisor, number: int, name: str, outcome: Outcome | None = Outcome.DONE
) -> Entry:
    agent = swarm.named(name)
    return Entry(
        id=sanitize(f"act-{number}"),
        at=START + number,
        actor=sanitize("hanne@desk" if number % 2 else "ida@lab"),
        verb=sanitize("pause" if number % 3 else "approve"),
        agent=sanitize(agent.id),
        name=agent.name,
        host=sanitize(agent.host),
        detail=sanitize(f"what {number} was about"),
        outcome=outcome,
        ended=START + number + 4 if outcome else None,
    )


async def test_acts_of_all_newest_first_and_of_one() -> None:
    swarm = make_fleet()
    swarm.told_acts = [
        act(swarm, 1, "ember"),
        act(swarm, 2, "moss", Outcome.FAILED),
        act(swarm, 3, "ember", None),
    ]
    app = make_app(swarm)
    async with running(app) as pilot:
        await pilot.press("A")
        await until(pilot, lambda: "what 3" in seen(app), "the acts")
        rows = [row for row in seen(app).splitlines() if "what " in row]
        assert [sign in row for row, sign in zip(rows, "…✗✓", strict=False)] == [True] * 3
        assert [("moss" in row, "ember" in row) for row in rows[:3]] == [
            (False, True),
            (True, False),
            (False, True),
        ]
        assert "ida@lab" in rows[1]
        assert "not ended" in seen(app), "of the one under the cursor all is told"
        await pilot.press("j", "j")
        assert "13:00:01 approve" not in seen(app)
        assert "pause ember on lab-2 by hanne@desk: done in 4s" in seen(app)
        await pilot.press("enter")
        await until(pilot, lambda: "moss" not in seen(app), "the acts on one agent")
        assert "on ember" in seen(app)
        assert "2 acts" in seen(app)
        await pilot.press("enter")
        await until(pilot, lambda: "moss" in seen(app), "the acts on all agents")
        await pilot.press("escape")
        assert "acts" not in seen(app).splitlines()[0]


async def test_from_an_agent_its_own_acts_are_shown() -> None:
    swarm = make_fleet()
    swarm.told_acts = [act(swarm, 1, "ember"), act(swarm, 2, "moss")]
    app = make_app(swarm)
    async with running(app) as pilot:
        await pilot.press("enter")
        shown = seen(app).splitlines()[0].split()[1]
        swarm.told_acts = [act(swarm, 1, shown), act(swarm, 2, "ember")]
        await pilot.press("A")
        await until(pilot, lambda: f"on {shown}" in seen(app).splitlines()[0], "whose acts")
        await until(pilot, lambda: "1 act " in seen(app), "its act")


async def test_the_cursor_stays_on_its_act_when_others_act() -> None:
    swarm = make_fleet()
    acts = [act(swarm, number, "moss") for number in range(40)]
    swarm.told_acts = acts[:30]
    app = make_app(swarm)
    async with running(app) as pilot:
        await pilot.press("A")
        await until(pilot, lambda: "what 29" in seen(app), "the acts")
        await pilot.press("pagedown")
        cursor = next(row for row in seen(app).splitlines() if row.startswith("▌"))
        swarm.told_acts = [*acts, replace(acts[0], id=sanitize("again"))]
        await until(pilot, lambda: "41 acts" in seen(app), "the new acts")
        assert cursor in seen(app).splitlines()
        await pilot.press("end")
        assert "what 0 " in seen(app)
        await pilot.press("home")
        swarm.told_acts = [*acts, act(swarm, 77, "moss")]
        await until(pilot, lambda: "what 77" in seen(app), "the newest under the cursor")


async def test_a_log_that_cannot_be_read_is_told_once_and_what_was_read_stays() -> None:
    swarm = make_fleet()
    swarm.told_acts = [act(swarm, 1, "moss")]
    app = make_app(swarm)
    async with running(app) as pilot:
        await pilot.press("A")
        await until(pilot, lambda: "what 1" in seen(app), "the act")
        swarm.told_acts = AuditError("The audit log cannot be read", "no such luck")
        await until(pilot, lambda: "cannot be read now" in seen(app), "that it is stale")
        assert "what 1" in seen(app)
        swarm.audit.gap = StoreUnreachable("The store is out of reach")
        swarm.told_acts = []
        await until(pilot, lambda: "only what was done from here" in seen(app), "the gap")
        await until(pilot, lambda: "nothing was done yet" in seen(app), "the next reading")
        assert len(app._notifications) <= 1


async def test_the_audit_screen_is_safe() -> None:
    swarm = make_fleet()
    text = sanitize("".join(CORPUS), max_cells=400)
    hostile = Entry(text, START, text, text, text, text, text, text, Outcome.FAILED, START + 1)
    swarm.told_acts = [hostile]
    app = make_app(swarm)
    async with running(app, (120, 20)) as pilot:
        await pilot.press("A")
        await until(pilot, lambda: "1 act" in seen(app), "the act")
        check(app)
        await pilot.press("enter")
        await until(pilot, lambda: "on " in seen(app).splitlines()[0], "whose acts")
        check(app)
