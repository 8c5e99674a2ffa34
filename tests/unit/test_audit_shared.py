"""The logs of several homes in one store: both ways, nothing lost, nothing double."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from cut import away, cut_at

from swarm_tui.audit import Audit, Outcome
from swarm_tui.database import Database, open_database
from swarm_tui.errors import AuditError, StoreError, StoreUnreachable
from swarm_tui.model import Verb

from .standin import AGENT


class Homes:
    """Machines that share a store."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder = folder
        self.database = database

    def file(self, name: str) -> Path:
        return self.folder / name / "audit.jsonl"

    def audit(self, name: str) -> Audit:
        return Audit(self.file(name), self.database)


@pytest.fixture
def homes(tmp_path: Path, database: Database) -> Homes:
    return Homes(tmp_path, database)


def intend(audit: Audit, verb: Verb = Verb.PAUSE, agent: str = AGENT) -> str:
    return audit.intend(verb, agent=agent, name="ember", host="local", detail="\0\ud800")


def told(audit: Audit, agent: str | None = None) -> list[tuple[str, Outcome | None]]:
    return [(act.verb, act.outcome) for act in audit.recent(agent)]


def rows(database: Database) -> int:
    with database.read() as transaction:
        [[count]] = transaction.rows("SELECT count(*) FROM log_lines")
    return int(count)


def test_two_homes_see_each_others_acts(homes: Homes) -> None:
    one, two = homes.audit("one"), homes.audit("two")
    entry = intend(one)
    intend(two, Verb.KILL, "another")
    assert told(one) == told(two) == [("pause", None), ("kill", None)]
    one.conclude(entry, Outcome.DONE)
    assert told(two, AGENT) == [("pause", Outcome.DONE)]
    assert told(two, "another") == [("kill", None)]
    assert [act.verb for act in two.since(0.0)] == ["pause", "kill"]
    assert not two.since(2e9 * 2)
    assert rows(homes.database) == 3
    [other] = two.verify().others
    assert other.seq == 2
    assert str(homes.file("one")) in other.place


def test_without_the_store_there_is_no_intent_and_the_file_says_so(homes: Homes) -> None:
    audit = homes.audit("one")
    with away(homes.database):
        with pytest.raises(AuditError) as raised:
            intend(audit)
        assert "out of reach" in raised.value.detail
        assert isinstance(raised.value.__cause__, StoreUnreachable)
        assert told(audit) == [("pause", Outcome.FAILED)]
        assert audit.gap
    assert told(homes.audit("two")) == []
    intend(audit, Verb.RESUME)
    assert told(homes.audit("two")) == [("pause", Outcome.FAILED), ("resume", None)]
    assert rows(homes.database) == 3
    assert audit.lag is None


def test_an_outcome_comes_to_the_store_when_it_is_back(homes: Homes) -> None:
    audit, other = homes.audit("one"), homes.audit("two")
    entry = intend(audit)
    with away(homes.database):
        audit.conclude(entry, Outcome.DONE, "saved")
        assert audit.lag
        assert told(audit) == [("pause", Outcome.DONE)]
    assert told(other) == [("pause", None)], "the other one cannot know yet"
    assert told(audit) == [("pause", Outcome.DONE)], "what the file has counts at home"
    homes.audit("one").catch_up()  # as a process does that starts
    assert told(other) == [("pause", Outcome.DONE)]
    audit.catch_up()
    assert audit.lag is None
    assert rows(homes.database) == 2


@pytest.mark.parametrize("at", range(1, 6))
def test_the_store_is_cut_off_at_each_step_of_an_intent_and_of_an_outcome(
    homes: Homes, at: int
) -> None:
    audit, other = homes.audit("one"), homes.audit("two")
    with cut_at(homes.database, at), pytest.raises(AuditError):
        intend(audit)
    entry = intend(audit, Verb.KILL)
    with cut_at(homes.database, at):
        audit.conclude(entry, Outcome.DONE)
        assert audit.lag
    audit.catch_up()
    assert told(other) == [("pause", Outcome.FAILED), ("kill", Outcome.DONE)]
    assert rows(homes.database) == 4
    assert not audit.verify().others


def test_processes_of_one_home_write_side_by_side(homes: Homes, store_url: str) -> None:
    """Each with its own handles on file and store, as processes have them."""

    def go(_number: int) -> None:
        with closing(open_database(store_url)) as own:
            audit = Audit(homes.file("one"), own)
            for _ in range(8):
                audit.conclude(intend(audit), Outcome.DONE)

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(go, range(3)))
    assert told(homes.audit("two")) == [("pause", Outcome.DONE)] * 24
    assert rows(homes.database) == 48
    proof = homes.audit("one").verify().proof
    assert proof.head
    assert proof.head.seq == 48


def removed_at_the_end(lines: list[bytes]) -> list[bytes]:
    return lines[:-2]


def altered_at_the_end(lines: list[bytes]) -> list[bytes]:
    return [*lines[:-1], lines[-1].replace(b"ember", b"embar")]


@pytest.mark.parametrize(
    "tamper", [removed_at_the_end, altered_at_the_end, lambda lines: lines[:1]]
)
def test_what_was_removed_or_altered_at_the_end_is_noticed(
    homes: Homes, tamper: Callable[[list[bytes]], list[bytes]]
) -> None:
    audit = homes.audit("one")
    for _ in range(4):
        intend(audit)
    file = homes.file("one")
    file.write_bytes(b"".join(tamper(file.read_bytes().splitlines(keepends=True))))
    audit = homes.audit("one")
    with pytest.raises(AuditError) as raised:
        audit.verify()
    assert "line number 4, known to the store" in raised.value.detail
    with pytest.raises(AuditError):
        intend(audit, Verb.KILL)
    file.rename(file.with_name("evidence"))
    with pytest.raises(AuditError) as raised:
        audit.verify()
    assert "gone" in raised.value.title
    intend(audit, Verb.KILL)
    assert [verb for verb, _ in told(audit)] == ["pause"] * 4 + ["kill"]
    [other] = audit.verify().others
    assert other.seq == 4


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("DELETE FROM log_lines WHERE seq = 2", "number 2 is missing"),
        ("DELETE FROM log_lines WHERE seq = 4", "it ends at number 3 instead of 4"),
        ("UPDATE log_lines SET line = replace(line, 'ember', 'x') WHERE seq = 2", "number 2 is"),
        ("UPDATE log_lines SET line = replace(line, 'ember', 'x') WHERE seq = 4", "number 4 is"),
        ("UPDATE log_lines SET line = 'x' WHERE seq = 3", "number 3 is not"),
        ("UPDATE log_lines SET torn = 'x' WHERE seq = 3", "number 2 is not"),
    ],
)
def test_what_was_altered_in_the_store_is_noticed(homes: Homes, sql: str, problem: str) -> None:
    audit = homes.audit("one")
    for _ in range(4):
        intend(audit)
    with homes.database.write() as transaction:
        transaction.run(sql)
    with pytest.raises(AuditError) as raised:
        homes.audit("two").verify()
    assert problem in raised.value.detail


def test_an_older_log_and_a_torn_line_come_along(homes: Homes) -> None:
    file = homes.file("one")
    file.parent.mkdir(parents=True)
    old = '{"record": "intent", "id": "%s", "verb": "fork", "agent": "a", "at": %d}\n'
    file.write_text("".join(old % (number, number) for number in range(7)) + "\xff torn")
    audit = homes.audit("one")
    intend(audit)
    with file.open("ab") as log:
        log.write(b'{"seq": 2, "torn')
    intend(audit, Verb.KILL)
    assert [verb for verb, _ in told(homes.audit("two"))] == ["fork"] * 7 + ["pause", "kill"]
    assert rows(homes.database) == 10
    assert audit.verify().proof.torn == (10,)
    [other] = homes.audit("two").verify().others
    assert other.seq == 2


def test_a_long_log_is_brought_whole(homes: Homes) -> None:
    alone = Audit(homes.file("one"))
    for _ in range(450):
        intend(alone)
    homes.audit("one").catch_up()
    homes.audit("one").catch_up()
    assert rows(homes.database) == 450
    assert len(homes.audit("two").recent()) == 450


def test_other_failures_of_the_store_are_told_too(homes: Homes) -> None:
    with homes.database.write() as transaction:
        transaction.run("DROP TABLE log_lines")
    with pytest.raises(AuditError) as raised:
        intend(homes.audit("one"))
    assert isinstance(raised.value.__cause__, StoreError)


def test_acts_are_read_anew_only_when_something_was_written(
    homes: Homes,
) -> None:
    """They are looked at every second while they are shown."""
    one, two = homes.audit("one"), homes.audit("two")
    entry = intend(one)
    shown = two.recent()
    assert two.recent() is shown
    assert told(two, "another") == []
    one.conclude(entry, Outcome.DONE)
    assert told(two) == [("pause", Outcome.DONE)]
    with away(homes.database):
        assert told(two) == []
        assert two.gap
    assert told(two) == [("pause", Outcome.DONE)]
    assert two.gap is None
