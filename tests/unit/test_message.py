"""A message to an agent: it is in the inbox, or the person who sent it knows that it is not."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from swarm_tui.audit import Outcome
from swarm_tui.command import Pause, Say
from swarm_tui.errors import Busy, DeadlineExceeded, GuestUnreachable, Refused, UsageError
from swarm_tui.model import State

from .lab import Lab, until
from .standin import AGENT, Call


@pytest.fixture
def lab(memory_path: Path) -> Lab:
    return Lab(memory_path)


def inbox(lab: Lab) -> list[str]:
    """What it holds, in the order in which a guest reads it."""
    files = sorted(lab.world.inbox().iterdir()) if lab.world.inbox().exists() else []
    messages = [json.loads(file.read_text()) for file in files]
    assert {message["kind"] for message in messages} <= {"message"}
    return [message["text"] for message in messages]


async def test_messages_come_in_their_order_and_are_on_record(lab: Lab) -> None:
    texts = [f"number {number}" for number in range(5)]
    async with lab.running() as supervisor:
        for text in texts:
            assert text in await supervisor.do(Say(AGENT, text))
        assert inbox(lab) == texts
        assert {(entry.verb, entry.outcome) for entry in supervisor.acts(AGENT)} == {
            ("message", Outcome.DONE)
        }
        assert lab.state(supervisor) is State.RUNNING
        assert lab.world.is_working()


async def test_a_long_message_arrives_whole_and_is_recorded_in_short(lab: Lab) -> None:
    text = "first line\r\nzweite Zeile ü\n" + "x" * 60_000 + " the end"
    async with lab.running() as supervisor:
        await supervisor.do(Say(AGENT, f"\n{text}\n"))
    assert inbox(lab) == [text.replace("\r", "")]
    recorded = (lab.home / "audit.jsonl").read_text()
    assert "first line zweite Zeile" in recorded
    assert "the end" not in recorded


@pytest.mark.parametrize(
    ("text", "why"),
    [("", "empty"), (" \n\t", "empty"), ("ü" * (32 << 10) + "!", "too long")],
    ids=["nothing", "blank", "too long"],
)
async def test_what_cannot_be_sent_is_refused(lab: Lab, text: str, why: str) -> None:
    async with lab.running() as supervisor:
        with pytest.raises(UsageError, match=why):
            await supervisor.do(Say(AGENT, text))
    assert inbox(lab) == []


async def test_no_message_gets_into_an_agent_that_is_being_saved(lab: Lab) -> None:
    gate = asyncio.Event()
    lab.world.plans["save"] = Call(gate=gate)
    async with lab.running() as supervisor, lab.running() as other:
        pausing = asyncio.create_task(supervisor.do(Pause(AGENT)))
        await until(lambda: "save" in lab.world.calls, "it is being saved")
        for anybody in (supervisor, other):
            with pytest.raises(Busy):
                await anybody.do(Say(AGENT, "hurry"))
        gate.set()
        await pausing
        with pytest.raises(Refused, match="not possible now") as refused:
            await supervisor.do(Say(AGENT, "hurry"))
        assert "it is saved" in refused.value.detail
    assert inbox(lab) == []


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (GuestUnreachable("It does not answer"), Outcome.FAILED),
        (DeadlineExceeded("No answer in time"), Outcome.UNKNOWN),
    ],
)
async def test_a_guest_that_cannot_be_told_is_named(
    lab: Lab, error: Exception, outcome: Outcome
) -> None:
    lab.world.plans["deliver"] = Call(before=error)
    async with lab.running() as supervisor:
        with pytest.raises(type(error)):
            await supervisor.do(Say(AGENT, "hello"))
        [entry] = supervisor.acts(AGENT)
        assert entry.outcome is outcome
