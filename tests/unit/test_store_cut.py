"""The shared store is cut off in the middle of every verb: it is told, and no state is lost."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final, Protocol

import pytest
from postgres import Cluster

from swarm_tui.catalogue import Pace
from swarm_tui.command import (
    Approve,
    Checkpoint,
    Compare,
    End,
    Extend,
    Fork,
    Kill,
    Pause,
    Reject,
    Resume,
    Review,
    RollBack,
    Say,
    SendBack,
    Spawn,
)
from swarm_tui.database import sqlite
from swarm_tui.errors import StorageFull, StoreError, SwarmError
from swarm_tui.handoff import Comment
from swarm_tui.model import State
from swarm_tui.snapshot import Snapshots
from swarm_tui.supervisor import Supervisor

from .hall import Hall, make_hall
from .lab import Lab, hurry_store, until
from .standin import AGENT, HOST
from .workbench import STANDS_AT

PACE: Final = Pace(beat_s=0.05, fence_s=30, dead_s=60, retry_s=0.1)
_ASIDE: Final = ("open", "list", "describe", "counters", "facts", "definition")
"""Calls that are made beside every verb."""
ROOM: Final = 4 << 20


class Cut(Protocol):
    """One way to lose the store."""

    url: str

    def cut(self) -> None: ...

    def mend(self) -> None: ...


class Stopped:
    """PostgreSQL ended at once, as by a crash."""

    def __init__(self, server: Cluster, url: str) -> None:
        self.url = url
        self._server = server
        self._is_cut = False

    def cut(self) -> None:
        self._is_cut = True
        self._server.stop()

    def mend(self) -> None:
        if self._is_cut:
            self._is_cut = False
            self._server.start()


class Locked:
    """SQLite's file held by somebody else who writes, for longer than anybody waits."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "store.db"
        self.url = f"sqlite://{self.path}"
        self._other: sqlite3.Connection | None = None

    def cut(self) -> None:
        self._other = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        self._other.execute("PRAGMA locking_mode = NORMAL")
        self._other.execute("BEGIN IMMEDIATE")

    def mend(self) -> None:
        if self._other:
            self._other.close()
            self._other = None


class Unwritable(Locked):
    """SQLite may only read, as on a file system that was mounted so after an error."""

    is_cut = False

    def cut(self) -> None:
        Unwritable.is_cut = True

    def mend(self) -> None:
        Unwritable.is_cut = False


class Damaged(Locked):
    """SQLite's file is no database any more; then its owner puts it back."""

    def cut(self) -> None:
        for part in self._parts():
            shutil.copyfile(part, part.with_name(f"kept-{part.name}"))
        self.path.rename(self.path.with_name("damaged"))
        for part in self._parts():
            part.unlink()
        self.path.write_bytes(b"not a database" * 1000)

    def mend(self) -> None:
        kept = list(self.path.parent.glob("kept-*"))
        if kept:
            for part in self._parts():
                part.unlink()
        for part in kept:
            part.rename(part.with_name(part.name.removeprefix("kept-")))

    def _parts(self) -> list[Path]:
        return [path for path in self.path.parent.glob("store.db*") if path.suffix != ".db-shm"]


class Full(Locked):
    """No room where SQLite's file is, on a real file system of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._filler = folder / "filler"

    def cut(self) -> None:
        with self._filler.open("wb", buffering=0) as file:
            for size in (1 << 16, 1 << 12):
                try:
                    while True:
                        file.write(b"x" * size)
                except OSError:
                    continue

    def mend(self) -> None:
        self._filler.unlink(missing_ok=True)


CUTS: Final = ("stopped", "locked", "unwritable", "damaged", "full")


@pytest.fixture(params=CUTS)
def cut(
    request: pytest.FixtureRequest, memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cut]:
    folder = memory_path / "shared"
    folder.mkdir()
    made: Cut
    match request.param:
        case "stopped":
            server: Cluster = request.getfixturevalue("postgres")
            made = Stopped(server, request.getfixturevalue("postgres_url"))
        case "locked":
            made = Locked(folder)
        case "unwritable":
            made = Unwritable(folder)
            begin = sqlite.SqliteDriver.begin

            def begin_so(
                self: sqlite.SqliteDriver, connection: object, *, is_writing: bool
            ) -> None:
                assert isinstance(connection, sqlite3.Connection)
                connection.execute(f"PRAGMA query_only = {int(Unwritable.is_cut)}")
                begin(self, connection, is_writing=is_writing)

            monkeypatch.setattr(sqlite.SqliteDriver, "begin", begin_so)
        case "damaged":
            made = Damaged(folder)
        case "full":
            mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(folder)]
            if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
                pytest.skip("a file system can be mounted by root only")
            made = Full(folder)
    try:
        yield made
    finally:
        made.mend()
        if request.param == "full":
            subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def hall(memory_path: Path, cut: Cut, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hall]:
    hurry_store(monkeypatch)
    monkeypatch.setattr(sqlite, "BUSY_S", 0.05)
    hall = make_hall(memory_path / "hall", url=cut.url)
    hall.work()
    with closing(hall.catalogue):
        yield hall


@pytest.fixture
def lab(hall: Hall, cut: Cut) -> Iterator[Lab]:
    lab = Lab(hall.home, cut.url, PACE)
    with closing(lab.catalogue):
        yield lab


Act = Callable[[Supervisor, Hall], Awaitable[object]]


async def approve(supervisor: Supervisor, hall: Hall) -> None:
    review = hall.look()
    await supervisor.do(Approve(AGENT, review.number, review.digest, "well done"))


async def send_back(supervisor: Supervisor, hall: Hall) -> None:
    review = hall.taken()
    comment = Comment("c1", "Mend this.", b"work.txt", first=1, last=1)
    hall.shelf.comment(AGENT, review.number, comment)
    await supervisor.do(SendBack(AGENT, review.number, review.digest))


async def reject(supervisor: Supervisor, hall: Hall) -> None:
    review = hall.taken()
    await supervisor.do(Reject(AGENT, review.number, review.digest, "No.", is_kept=True))


async def roll_back(supervisor: Supervisor, hall: Hall) -> None:
    chosen, *_ = Snapshots(hall.home / "snapshots").ids(AGENT)
    await supervisor.do(RollBack(AGENT, chosen))


VERBS: Final[dict[str, tuple[type[Pause] | type[Review] | type[Checkpoint] | None, Act]]] = {
    "pause": (None, lambda supervisor, _: supervisor.do(Pause(AGENT))),
    "resume": (Pause, lambda supervisor, _: supervisor.do(Resume(AGENT))),
    "review": (None, lambda supervisor, _: supervisor.do(Review(AGENT))),
    "compare": (None, lambda supervisor, _: supervisor.do(Compare(AGENT))),
    "compare-saved": (Pause, lambda supervisor, _: supervisor.do(Compare(AGENT))),
    "approve": (Review, approve),
    "send-back": (Review, send_back),
    "reject": (Review, reject),
    "kill": (None, lambda supervisor, _: supervisor.do(Kill(AGENT))),
    "end": (None, lambda supervisor, _: supervisor.do(End(AGENT))),
    "extend": (None, lambda supervisor, _: supervisor.do(Extend(AGENT, 60.0))),
    "spawn": (None, lambda supervisor, _: supervisor.do(Spawn(HOST))),
    "checkpoint": (None, lambda supervisor, _: supervisor.do(Checkpoint(AGENT))),
    "roll-back": (Checkpoint, roll_back),
    "fork": (None, lambda supervisor, _: supervisor.do(Fork(AGENT))),
    "message": (None, lambda supervisor, _: supervisor.do(Say(AGENT, "hello"))),
}


STEPS: Final = {"extend": (1,), "spawn": (1, 2), "message": (1, 2)}
"""Of verbs that have fewer than six: `extend` asks nobody but the store."""


def pairs() -> Iterator[tuple[str, str, int]]:
    """Each verb with each way to lose the store and at each step, and each way at each step.

    How a store fails and how a verb is taken up again meet in one error, so not all three at once.
    """
    for first, verb in enumerate(VERBS):
        steps = STEPS.get(verb, (1, 3, 6))
        for number, way in enumerate(CUTS, first):
            yield verb, way, steps[number % len(steps)]


@pytest.mark.parametrize(("verb", "cut", "at"), pairs(), indirect=["cut"])
async def test_the_store_is_lost_within_a_verb(
    hall: Hall, lab: Lab, cut: Cut, verb: str, at: int
) -> None:
    before, act = VERBS[verb]
    async with lab.running() as supervisor:
        if before:
            await supervisor.do(before(AGENT))
        steps: list[str] = []

        def on_step(step: str) -> None:
            if step.rpartition(" ")[2] not in _ASIDE:
                steps.append(step)
                if len(steps) == at:
                    cut.cut()

        lab.world.on_step = on_step
        failure: SwarmError | None = None
        try:
            await act(supervisor, hall)
        except SwarmError as error:
            failure = error
        lab.world.on_step = lambda _step: None
        assert len(steps) >= at or verb == "extend", "it has fewer steps"
        if len(steps) < at:
            return
        assert failure is None or isinstance(failure, StoreError | StorageFull), repr(failure)
        if supervisor.store.agent(AGENT):
            with pytest.raises((StoreError, StorageFull)):
                await supervisor.do(Kill(AGENT))
        cut.mend()
        await assert_whole(supervisor, hall, lab, verb)


async def assert_whole(supervisor: Supervisor, hall: Hall, lab: Lab, verb: str) -> None:
    """The store is there again: all comes to a good end, once."""
    await until(lambda: supervisor.store.outage is None, "the store was not found again")
    if verb == "spawn":
        await supervisor.refresh()
        assert lab.world.calls.count("spawn") == 1
        # Made, or called off before its host had made it: then nothing of it is left.
        await until(
            lambda: {agent.id for agent in supervisor.store.agents()} == set(lab.world.agents()),
            "what is shown is not what there is",
        )
    elif verb == "kill":
        await until(lambda: settled(supervisor, lab), "the cut was not mended")
        if supervisor.store.agent(AGENT):
            await supervisor.do(Kill(AGENT))
        assert not lab.world.agents()
        assert not lab.catalogue.records()
        return
    await until(lambda: settled(supervisor, lab), "the cut was not mended")
    if lab.state(supervisor) is not State.RUNNING:
        await supervisor.do(Resume(AGENT))
    assert lab.world.counter() == STANDS_AT
    assert lab.world.is_working()
    assert lab.state(supervisor) is State.RUNNING
    record = lab.catalogue.record(AGENT)
    assert record is None or (record.verb, record.saved_in, record.is_frozen) == (None, None, False)
    messages = hall.messages()
    assert len(messages) <= 1
    verdict = hall.shelf.verdict(AGENT, 1) if hall.shelf.numbers(AGENT) else None
    if verdict:
        assert [message["verdict"] for message in messages] == [verdict.judgement]
        assert hall.landed() == (verdict.head if verb == "approve" else None)


def settled(supervisor: Supervisor, lab: Lab) -> bool:
    """Nobody is at work on it, and what the screen shows is what is recorded."""
    known = supervisor.store.agent(AGENT)
    if known is None:
        return not lab.world.agents()
    record = lab.catalogue.record(AGENT)
    is_open = record is not None and record.verb is not None and not may_stay(record.verb)
    return known.operation is None and not is_open and not lab.catalogue.claimants()


def may_stay(verb: str) -> bool:
    """Only a person can say how to go on with a kill."""
    return verb == "kill"


async def test_what_is_lost_is_told_and_what_was_known_stays(
    hall: Hall, lab: Lab, cut: Cut
) -> None:
    async with lab.running() as supervisor:
        await supervisor.do(Pause(AGENT))
        cut.cut()
        for command in (Resume(AGENT), Kill(AGENT)):
            calls = len(lab.world.calls)
            with pytest.raises((StoreError, StorageFull)) as raised:
                await supervisor.do(command)
            assert raised.value.hint
            changing = {"restore", "destroy", "undefine"}
            assert not changing & set(lab.world.calls[calls:]), "it began"
        assert lab.state(supervisor) is State.SAVED
        if isinstance(cut, Stopped | Damaged):  # what may still be read is not out of reach
            await until(lambda: supervisor.store.outage, "the outage was not told")
            await asyncio.sleep(0)
        cut.mend()
        await until(lambda: supervisor.store.outage is None, "it was not found again")
        await supervisor.do(Resume(AGENT))
    assert hall.world.is_working()


async def test_a_saved_agent_is_not_said_to_have_failed_while_nothing_is_known(
    hall: Hall, lab: Lab, cut: Cut
) -> None:
    async with lab.running() as supervisor:
        await supervisor.do(Pause(AGENT))
    if not isinstance(cut, Stopped | Damaged):
        pytest.skip("it may still be read")
    cut.cut()
    async with lab.running() as supervisor:
        await until(lambda: supervisor.store.outage, "the outage was not told")
        assert lab.state(supervisor) is State.UNKNOWN
        cut.mend()
        await until(lambda: lab.state(supervisor) is State.SAVED, "it was not found again")
        await supervisor.do(Resume(AGENT))
    assert hall.world.is_working()
