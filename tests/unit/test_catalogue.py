"""Our records in the shared store: replaced whole, never guessed at, told to everybody."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from swarm_tui.catalogue import Catalogue
from swarm_tui.database import Database, open_database
from swarm_tui.errors import NotFound, SwarmError
from swarm_tui.model import AgentId, Record, SnapshotId, Verb
from swarm_tui.text import literal

from .standin import AGENT, HOST

DEADLINE_S = 30.0
OTHER = AgentId("6f1c7b0e-0000-4000-8000-000000000002")
RECORD = Record(
    AGENT,
    literal("ember"),
    HOST,
    is_frozen=True,
    saved_in=SnapshotId("20261123T125512Z-4f2a"),
    saving_in=SnapshotId("20261123T125513Z-4f2b"),
    verb=Verb.RESUME,
)


@pytest.fixture
def catalogue(database: Database, tmp_path: Path) -> Iterator[Catalogue]:
    with closing(Catalogue(database, tmp_path / "catalogue")) as opened:
        yield opened


@pytest.fixture
def another(store_url: str, tmp_path: Path) -> Iterator[Catalogue]:
    """That of another supervisor."""
    opened = Catalogue(open_database(store_url), tmp_path / "catalogue", who="pat@lab")
    with closing(opened):
        yield opened


def run(database: Database, sql: str, *values: str) -> None:
    with database.write() as transaction:
        assert transaction.run(sql, *values) == 1
        transaction.touch("record", AGENT)


def let_pass(database: Database, moment: float) -> None:
    """Wait until the store's clock, which counts milliseconds, is beyond that moment."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        with database.read() as transaction:
            if transaction.now() > moment:
                return
        assert time.monotonic() < deadline


def test_a_record_is_read_as_it_was_written(catalogue: Catalogue, another: Catalogue) -> None:
    assert catalogue.record(AGENT) is None
    assert not catalogue.records()
    written = catalogue.write(RECORD)
    assert another.record(AGENT) == written
    assert replace(written, since=None) == RECORD
    assert catalogue.records() == [written]
    another.remove(AGENT)
    another.remove(AGENT)
    assert catalogue.record(AGENT) is None
    assert not catalogue.records()


def test_since_tells_when_the_agent_changed_and_not_when_a_verb_began(
    catalogue: Catalogue, database: Database
) -> None:
    saved = catalogue.write(replace(RECORD, verb=None))
    assert saved.since is not None
    let_pass(database, saved.since)
    assert catalogue.write(replace(RECORD, verb=Verb.RESUME)).since == saved.since
    thawed = catalogue.write(replace(RECORD, is_frozen=False))
    assert thawed.since is not None
    assert thawed.since > saved.since


@pytest.mark.parametrize(
    ("column", "value"),
    [("verb", "fly"), ("saved_in", "../../etc"), ("saving_in", ".hidden"), ("verdict", "maybe")],
)
def test_a_damaged_record_is_an_error_and_stays(
    catalogue: Catalogue, database: Database, column: str, value: str
) -> None:
    """Taken for none, it would be overwritten, and with it the way back to the saved state."""
    other = catalogue.write(replace(RECORD, id=OTHER))
    catalogue.write(RECORD)
    run(database, f"UPDATE records SET {column} = ? WHERE agent = ?", value, AGENT)
    with pytest.raises(SwarmError, match="cannot be read") as raised:
        catalogue.record(AGENT)
    assert AGENT in raised.value.detail
    with pytest.raises(SwarmError, match="cannot be read"):
        catalogue.write(RECORD)
    problems: list[SwarmError] = []
    assert catalogue.records(problems.append) == [other]
    assert len(problems) == 1
    with pytest.raises(SwarmError):
        catalogue.records()
    assert catalogue.update(0).problems.keys() == {AGENT}
    with database.read() as transaction:
        [[kept]] = transaction.rows(f"SELECT {column} FROM records WHERE agent = ?", AGENT)
        assert kept == value


def test_hostile_text_is_harmless(catalogue: Catalogue, database: Database) -> None:
    catalogue.write(RECORD)
    run(database, "UPDATE records SET name = ? WHERE agent = ?", "\x1b[2J", AGENT)
    record = catalogue.record(AGENT)
    assert record
    assert record.name == "␛[2J"


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", ".hidden"])
def test_no_id_leads_out_of_the_folder(catalogue: Catalogue, name: str) -> None:
    for ask in (catalogue.folder, catalogue.remove, catalogue.record):
        with pytest.raises(NotFound):
            ask(AgentId(name))


# What others did


def test_an_update_holds_what_changed_since(catalogue: Catalogue, another: Catalogue) -> None:
    first = catalogue.write(RECORD)
    start = another.update(0)
    assert start.is_all
    assert start.records == {AGENT: first}
    assert another.update(start.seq).records == {}
    second = catalogue.write(replace(RECORD, id=OTHER))
    catalogue.remove(AGENT)
    later = another.update(start.seq)
    assert later.records == {AGENT: None, OTHER: second}
    assert not later.is_all
    assert another.update(later.seq).records == {}


def test_many_changes_come_together(catalogue: Catalogue, another: Catalogue) -> None:
    seq = another.update(0).seq
    ids = [AgentId(f"agent-{number}") for number in range(60)]
    with catalogue.database.write() as transaction:
        for agent in ids:
            transaction.run(
                "INSERT INTO records (agent, name, host, is_frozen) VALUES (?, 'x', 'local', 0)",
                agent,
            )
            transaction.touch("record", agent)
    assert sorted(another.update(seq).records) == sorted(ids)


def test_a_claim_and_its_release_are_told(catalogue: Catalogue, another: Catalogue) -> None:
    with closing(catalogue.watch()) as watch:
        watch.wait(0)
        claim = another.claim(AGENT, Verb.PAUSE)
        assert watch.wait(DEADLINE_S)
        claimant = catalogue.update(0).claimants[AGENT]
        assert claimant.told == "pat@lab is pausing it"
        assert (claimant.is_alive, claimant.is_ours) == (True, False)
        assert abs(claimant.since - time.time()) < DEADLINE_S
        claim.release()
        assert watch.wait(DEADLINE_S)
        assert not catalogue.update(0).claimants


# Records of earlier versions


def leave(tmp_path: Path, agent: AgentId, content: str) -> Path:
    """What an earlier version kept of an agent."""
    path = tmp_path / "catalogue" / agent / "record.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    return path


def as_json(record: Record) -> str:
    names = ("name", "host", "is_frozen", "saved_in", "saving_in", "verb", "review", "verdict")
    fields = {name: getattr(record, name) for name in names}
    return json.dumps(fields | {"since": record.since})


def test_records_of_earlier_versions_are_taken_in_once(
    catalogue: Catalogue, another: Catalogue, tmp_path: Path
) -> None:
    old = replace(RECORD, since=12.5)
    path = leave(tmp_path, AGENT, as_json(old))
    (tmp_path / "catalogue" / "a stray file").write_text("")
    assert catalogue.records() == [old]
    assert not path.exists()
    catalogue.remove(AGENT)
    assert not another.records()


def test_what_the_store_has_goes_before_an_old_file(
    catalogue: Catalogue, another: Catalogue, tmp_path: Path
) -> None:
    """A crash between the two steps of taking it in must not bring an old state back."""
    now = catalogue.write(RECORD)
    leave(tmp_path, AGENT, as_json(replace(RECORD, is_frozen=False, saved_in=None)))
    assert another.records() == [now]


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", '{"verb": "fly"}', '{"verb": []}', '{"saved_in": "../../etc"}'),
        *('{"saved_in": {"a": 1}}', '{"saving_in": ".hidden"}', '{"review": true}', "\\xff"),
    ],
)
def test_a_damaged_file_is_told_and_left(
    catalogue: Catalogue, tmp_path: Path, content: str
) -> None:
    path = leave(tmp_path, AGENT, content)
    leave(tmp_path, OTHER, as_json(replace(RECORD, id=OTHER)))
    problems: list[SwarmError] = []
    assert [record.id for record in catalogue.records(problems.append)] == [OTHER]
    [problem] = problems
    assert str(path) in problem.detail
    with pytest.raises(SwarmError, match="cannot be read"):
        catalogue.record(AGENT)
    with pytest.raises(SwarmError, match="cannot be read"):
        catalogue.write(RECORD)
    assert path.read_text() == content
    path.write_text(as_json(RECORD))  # a person mended it
    record = catalogue.record(AGENT)
    assert record
    assert record.saved_in == RECORD.saved_in
