"""One process at a time acts on an agent, whoever dies, sleeps or is cut off."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from postgres import Cluster

from swarm_tui.catalogue import Catalogue, Pace
from swarm_tui.database import open_database
from swarm_tui.errors import Busy, ClaimLost, StoreUnreachable
from swarm_tui.model import AgentId, Record, Verb
from swarm_tui.text import literal

from .standin import AGENT, HOST

DEADLINE_S = 30.0
QUICK = Pace(beat_s=0.05, fence_s=0.6, dead_s=1.2, retry_s=0.2)
"""For what takes seconds otherwise."""
RECORD = Record(AGENT, literal("ember"), HOST)

HOLD = """
import sys, time
from pathlib import Path
from swarm_tui.catalogue import Catalogue
from swarm_tui.database import open_database
from swarm_tui.model import AgentId, Verb
catalogue = Catalogue(open_database(sys.argv[1]), Path(sys.argv[2]), who="pat@lab")
with catalogue.claim(AgentId(sys.argv[3]), Verb.PAUSE):
    print("held", flush=True)
    time.sleep(60)
"""


class Desks:
    """Opens the catalogues of supervisors that share a store, and closes them."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self._folder = folder
        self._opened: list[Catalogue] = []

    def __call__(self, who: str = "", place: str = "", pace: Pace | None = None) -> Catalogue:
        database = open_database(self.url)
        self._opened.append(Catalogue(database, self._folder, who=who, place=place, pace=pace))
        return self._opened[-1]

    def close(self) -> None:
        for catalogue in self._opened:
            catalogue.close()


@pytest.fixture
def opened(store_url: str, tmp_path: Path) -> Iterator[Desks]:
    """Supervisors on this machine."""
    with closing(Desks(store_url, tmp_path / "catalogue")) as desks:
        yield desks


@pytest.fixture
def far(postgres_url: str, tmp_path: Path) -> Iterator[Desks]:
    """Supervisors that are to be on different machines, which share no file."""
    with closing(Desks(postgres_url, tmp_path / "catalogue")) as desks:
        yield desks


def until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


def can_claim(catalogue: Catalogue) -> bool:
    try:
        catalogue.claim(AGENT, Verb.RESUME).release()
    except Busy:
        return False
    return True


def test_one_at_a_time(opened: Desks) -> None:
    one, two = opened("ann@desk"), opened("pat@lab")
    with one.claim(AGENT, Verb.KILL), one.claim(AgentId("other"), Verb.PAUSE):
        with pytest.raises(Busy) as raised:
            two.claim(AGENT, Verb.PAUSE)
        assert raised.value.detail == "ann@desk is killing it."
        with pytest.raises(Busy):
            one.claim(AGENT, Verb.PAUSE)
        assert {claimant.is_ours for claimant in one.claimants().values()} == {True}
    assert not two.claimants()
    with pytest.raises(ZeroDivisionError), two.claim(AGENT, Verb.PAUSE):
        raise ZeroDivisionError
    assert can_claim(one)
    with one.database.read() as transaction:
        assert not transaction.rows("SELECT * FROM holders"), "nobody holds anything"


def test_never_two_at_once_whoever_hammers(opened: Desks) -> None:
    inside: list[int] = []
    taken: list[int] = []

    def hammer(number: int) -> None:
        catalogue = opened(f"user-{number}")
        until_s = time.monotonic() + 1.0
        while time.monotonic() < until_s or number not in taken:
            try:
                claim = catalogue.claim(AGENT, Verb.PAUSE)
            except Busy:
                continue
            inside.append(number)
            assert inside == [number]
            claim.check()
            catalogue.write(RECORD)
            taken.append(number)
            inside.remove(number)
            claim.release()
            time.sleep(0.005)  # let others have a turn

    with ThreadPoolExecutor(4) as threads:
        for hammering in [threads.submit(hammer, number) for number in range(4)]:
            hammering.result(DEADLINE_S)
    assert set(taken) == {0, 1, 2, 3}


def test_verbs_on_many_agents_of_one_process_come_and_go_at_once(opened: Desks) -> None:
    catalogue = opened("ann@desk")

    def hammer(number: int) -> None:
        for _ in range(15):
            catalogue.claim(AgentId(f"agent-{number}"), Verb.PAUSE).release()

    with ThreadPoolExecutor(8) as threads:
        for hammering in [threads.submit(hammer, number) for number in range(8)]:
            hammering.result(DEADLINE_S)
    assert not catalogue.claimants()


def test_who_dies_lets_go_at_once(opened: Desks, store_url: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, store_url, str(tmp_path / "catalogue"), AGENT]
    catalogue = opened()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(Busy, match="verb is at work"):
            catalogue.claim(AGENT, Verb.KILL)
        assert catalogue.claimants()[AGENT].is_alive
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not catalogue.claimants()[AGENT].is_alive
        assert can_claim(catalogue)
    assert not catalogue.claimants()


def test_of_many_who_take_over_one_succeeds(opened: Desks, store_url: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, store_url, str(tmp_path / "catalogue"), AGENT]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"held\n"
        process.kill()
    catalogues = [opened(str(number)) for number in range(4)]
    start = threading.Barrier(4)

    def take(catalogue: Catalogue) -> bool:
        start.wait(DEADLINE_S)
        try:
            catalogue.claim(AGENT, Verb.RESUME)
        except Busy:
            return False
        return True

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(take, catalogues)) == [False, False, False, True]


# On two machines


def test_a_machine_that_is_heard_is_alive_however_long_its_verb_takes(far: Desks) -> None:
    here, there = far("pat@here", "here", QUICK), far("pat@there", "there", QUICK)
    with here.claim(AGENT, Verb.PAUSE) as claim:
        began = time.monotonic()
        while time.monotonic() - began < 2 * QUICK.dead_s:
            assert not can_claim(there)
            claim.check()
            time.sleep(0.05)


def test_who_is_not_heard_stops_before_another_goes_on(
    far: Desks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The heart of it: at no time may two of them begin a step."""
    here, there = far("pat@here", "here", QUICK), far("pat@there", "there", QUICK)
    claim = here.claim(AGENT, Verb.PAUSE)
    claim.write(RECORD)
    # Its heartbeat stops, as if only its way to the store were cut.
    monkeypatch.setattr(here.database, "write", cut_off)
    stopped = 0.0
    while not can_claim(there):
        if not stopped:
            try:
                claim.check()
            except ClaimLost:
                stopped = time.monotonic()
    assert stopped, "the other went on before it had stopped"
    with pytest.raises(ClaimLost):
        claim.check()
    monkeypatch.undo()  # the way is there again
    with pytest.raises(ClaimLost):
        here.write(RECORD, claims=claim._claims)
    claim.release()
    assert can_claim(there)
    assert can_claim(here)


def cut_off() -> None:
    raise StoreUnreachable("The store is out of reach")


def test_who_was_taken_over_learns_it(far: Desks) -> None:
    here, there = far("pat@here", "here", Pace(0.5, 60, 0.1)), far("pat@there", "there", QUICK)
    claim = here.claim(AGENT, Verb.PAUSE)
    until(lambda: can_claim_and_keep(there))
    with pytest.raises(ClaimLost):
        claim.write(RECORD)
    assert there.record(AGENT) is None
    with pytest.raises(ClaimLost):
        claim.check()
    claim.release()
    assert not can_claim(here)


def can_claim_and_keep(catalogue: Catalogue) -> bool:
    with catalogue.database.write() as transaction:  # it was not heard for long
        transaction.run("UPDATE holders SET beat = beat - 100 WHERE who = 'pat@here'")
    try:
        catalogue.claim(AGENT, Verb.RESUME)
    except Busy:
        return False
    return True


def test_a_server_that_comes_back_in_time_costs_nobody_the_agent(
    far: Desks, postgres: Cluster
) -> None:
    patient = Pace(beat_s=0.05, fence_s=30, dead_s=60, retry_s=20)
    here, there = far("pat@here", "here", patient), far("pat@there", "there", patient)
    with here.claim(AGENT, Verb.PAUSE) as claim:
        postgres.stop()
        with pytest.raises(StoreUnreachable):
            there.claim(AGENT, Verb.KILL)
        with ThreadPoolExecutor(1) as thread:
            writing = thread.submit(claim.write, RECORD)
            postgres.start()
            assert writing.result(DEADLINE_S).id == AGENT
        claim.check()
        assert not can_claim(there)
    assert there.record(AGENT)


def test_what_is_let_go_of_while_the_store_is_away_is_free_afterwards(
    far: Desks, postgres: Cluster
) -> None:
    here, there = far("pat@here", "here", QUICK), far("pat@there", "there", Pace())
    claim = here.claim(AGENT, Verb.PAUSE)
    postgres.stop()
    try:
        claim.release()
    finally:
        postgres.start()
    until(lambda: can_claim(there))
