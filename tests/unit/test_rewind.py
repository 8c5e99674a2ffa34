"""The log of an agent that was set back: no line comes twice, and one says that it was."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from swarm_tui.command import Checkpoint, RollBack
from swarm_tui.event import parse_event
from swarm_tui.model import EventBatch, Snapshot, State
from swarm_tui.snapshot import Snapshots
from swarm_tui.spool import Writer, known_bytes, recall
from swarm_tui.supervisor import Supervisor

from .lab import Lab, hurry_store, until
from .standin import AGENT


@pytest.fixture
def lab(memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    hurry_store(monkeypatch)
    return Lab(memory_path)


def line(text: str, kind: str = "log") -> bytes:
    return json.dumps({"kind": kind, "text": text}).encode() + b"\n"


def usage(tokens: int) -> bytes:
    return json.dumps({"kind": "usage", "tokens_in": tokens, "tokens_out": 1}).encode() + b"\n"


def batch(begin: int, *lines: bytes, heard: float | None = None) -> EventBatch:
    raw = b"".join(lines)
    events = tuple(parse_event(one, heard) for one in raw.split(b"\n") if one)
    return EventBatch(events, begin + len(raw), 0, raw, heard)


def say(lab: Lab, told: EventBatch) -> int:
    """The guest says it; where its file ends then."""
    lab.guest.batches.setdefault(lab.world.state(AGENT)["port"], []).append(told)
    lab.guest.news.set()
    return told.offset


def said(supervisor: Supervisor) -> Sequence[str]:
    return [event.text for event in supervisor.store.log(AGENT).events]


def snapshot(lab: Lab) -> Snapshot:
    files = Snapshots(lab.home / "snapshots")
    return files.read(AGENT, files.ids(AGENT)[0])


async def test_no_line_comes_twice_and_no_token_counts_twice(lab: Lab) -> None:
    async with lab.running(is_following=True) as supervisor:
        await until(lambda: supervisor.store.agent(AGENT))
        kept = say(lab, batch(0, line("one"), usage(100), line("may I?", "ask")))
        await until(lambda: lab.state(supervisor) is State.ASKING)
        await supervisor.do(Checkpoint(AGENT, "good"))
        late, lost = line("written before, heard after"), line("given up", "status")
        say(lab, batch(kept, late, lost, usage(10)))
        await until(lambda: lab.state(supervisor) is State.RUNNING)
        await supervisor.do(RollBack(AGENT, snapshot(lab).id))
        await until(lambda: "rolled back to good" in said(supervisor))
        assert lab.state(supervisor) is State.ASKING, "what it asked then is asked no more"
        say(lab, batch(kept, late, line("anew", "status"), usage(1)))
        await until(lambda: "anew" in said(supervisor))
        assert lab.guest.offsets[-1] == kept
        told = ["one", "", "may I?", "written before, heard after", "given up", ""]
        assert said(supervisor)[:9] == [*told, "rolled back to good", "anew", ""]
        agent = supervisor.store.agent(AGENT)
        assert agent
        assert (agent.tokens_in, agent.state) == (111, State.RUNNING)
        end = kept + len(late + line("anew", "status") + usage(1))
    async with lab.running(is_following=True) as supervisor:
        await until(lambda: said(supervisor))
        assert said(supervisor)[-3:] == ["rolled back to good", "anew", ""]
        await until(lambda: lab.guest.offsets[-1] == end)
        assert said(supervisor).count("rolled back to good") == 1, "a restart tells it again"


async def test_who_only_looks_later_finds_it_told_as_well(lab: Lab) -> None:
    """The way back was taken by a process that follows nobody."""
    async with lab.running(is_following=True) as supervisor:
        await until(lambda: supervisor.store.agent(AGENT))
        kept = say(lab, batch(0, line("one")))
        await until(lambda: said(supervisor) == ["one"])
    async with lab.running() as supervisor:
        await supervisor.do(Checkpoint(AGENT, "good"))
        await supervisor.do(RollBack(AGENT, snapshot(lab).id))
    async with lab.running(is_following=True) as supervisor:
        await until(lambda: "rolled back to good" in said(supervisor))
        await until(lambda: lab.guest.offsets[-1] == kept)
        assert said(supervisor) == ["one", "rolled back to good"]


def write(folder: Path, *batches: EventBatch) -> None:
    with Writer(folder) as writer:
        for one in batches:
            writer.append(one)


def test_where_the_log_stood_on_the_branch_of_that_time(tmp_path: Path) -> None:
    first = batch(0, line("one"), heard=10.0)
    given_up = batch(first.offset, line("given up"), heard=20.0)
    mark = EventBatch((parse_event(b"rolled back", 30.0),), first.offset, heard=30.0, is_ours=True)
    anew = batch(first.offset, line("anew, and longer than what was given up"), heard=40.0)
    beyond = batch(anew.offset, line("beyond"), heard=50.0)
    write(tmp_path, first, given_up, mark, anew, beyond)
    found = recall(tmp_path, 45.0)
    assert [event.text for event in found.events] == ["one", "rolled back", anew.events[0].text]
    assert (found.offset, found.after) == (anew.offset, beyond.raw)
    assert recall(tmp_path, 15.0).after == given_up.raw
    assert recall(tmp_path, 25.0).offset == given_up.offset
    assert recall(tmp_path / "none", 25.0).offset == 0


@pytest.mark.parametrize(
    ("raw", "after", "size"),
    [
        (b"a\nb\n", b"a\nb\nc\n", 4),
        (b"a\nbx\n", b"a\nby\n", 2),
        (b"a\nb\nc\n", b"a\n", 2),
        (b"x\n", b"a\n", 0),
        (b"a\n", b"", 0),
    ],
)
def test_only_whole_lines_were_heard(raw: bytes, after: bytes, size: int) -> None:
    assert known_bytes(raw, after) == size
