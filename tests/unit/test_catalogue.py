"""Records on disk: replaced whole, never guessed at, and held by one process at a time."""

from __future__ import annotations

import itertools
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from swarm_tui.catalogue import Catalogue
from swarm_tui.errors import Busy, NotFound, StorageFull, SwarmError
from swarm_tui.model import AgentId, Record, SnapshotId, Verb
from swarm_tui.text import literal

from .standin import AGENT, HOST

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
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(tmp_path / "catalogue")


def test_a_record_is_read_as_it_was_written(catalogue: Catalogue) -> None:
    assert catalogue.record(AGENT) is None
    assert not catalogue.records()
    written = catalogue.write(RECORD)
    assert catalogue.record(AGENT) == written
    assert replace(written, since=None) == RECORD
    assert catalogue.records() == [written]
    catalogue.remove(AGENT)
    catalogue.remove(AGENT)
    assert catalogue.record(AGENT) is None
    assert not catalogue.records()


def test_since_tells_when_the_agent_changed_and_not_when_a_verb_began(
    catalogue: Catalogue,
) -> None:
    saved = catalogue.write(replace(RECORD, verb=None))
    assert catalogue.write(replace(RECORD, verb=Verb.RESUME)).since == saved.since
    thawed = catalogue.write(replace(RECORD, is_frozen=False))
    assert thawed.since is not None
    assert saved.since is not None
    assert thawed.since > saved.since


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"verb": "fly"}',
        '{"verb": []}',
        '{"saved_in": "../../etc"}',
        '{"saved_in": {"a": 1}}',
        '{"saving_in": ".hidden"}',
        "\\xff",
    ],
)
def test_a_damaged_record_is_an_error_and_stays(
    catalogue: Catalogue, tmp_path: Path, content: str
) -> None:
    """Taken for none, it would be overwritten, and with it the way back to the saved state."""
    catalogue.write(RECORD)
    path = tmp_path / "catalogue" / AGENT / "record.json"
    path.write_text(content)
    with pytest.raises(SwarmError, match="cannot be read") as raised:
        catalogue.record(AGENT)
    assert str(path) in raised.value.detail
    with pytest.raises(SwarmError):
        catalogue.write(RECORD)
    assert path.read_text() == content


def test_one_damaged_record_does_not_hide_the_others(catalogue: Catalogue, tmp_path: Path) -> None:
    catalogue.write(RECORD)
    other = catalogue.write(replace(RECORD, id=AgentId("6f1c7b0e-0000-4000-8000-000000000002")))
    (tmp_path / "catalogue" / AGENT / "record.json").write_text("{")
    (tmp_path / "catalogue" / "a stray file").write_text("")
    problems: list[SwarmError] = []
    assert catalogue.records(problems.append) == [other]
    assert len(problems) == 1
    with pytest.raises(SwarmError):
        catalogue.records()


def test_hostile_fields_are_harmless(catalogue: Catalogue, tmp_path: Path) -> None:
    catalogue.write(RECORD)
    path = tmp_path / "catalogue" / AGENT / "record.json"
    path.write_text(
        json.dumps({"name": "\x1b[2J", "host": 7, "is_frozen": "yes", "since": "now", "new": 1})
    )
    record = catalogue.record(AGENT)
    assert record == Record(AGENT, literal("␛[2J"), record.host if record else HOST)
    path.write_text('{"since": NaN}')
    record = catalogue.record(AGENT)
    assert record
    assert record.since is None


def test_a_full_disk_leaves_the_old_record(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = catalogue.write(RECORD)

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFull):
        catalogue.write(replace(RECORD, saved_in=None))
    assert catalogue.record(AGENT) == old
    assert [path.name for path in (tmp_path / "catalogue" / AGENT).iterdir()] == ["record.json"]


def test_each_version_of_a_record_is_told_from_the_last(catalogue: Catalogue) -> None:
    seen = []
    for number in range(20):
        catalogue.write(replace(RECORD, name=literal(f"ember-{number}")))
        seen.append(catalogue.stamps()[AGENT])
    assert all(one != next_one for one, next_one in itertools.pairwise(seen))


def test_one_at_a_time(catalogue: Catalogue) -> None:
    other = AgentId("6f1c7b0e-0000-4000-8000-000000000002")
    assert not catalogue.is_locked(AGENT)
    with catalogue.lock(AGENT), catalogue.lock(other):
        assert catalogue.is_locked(AGENT)
        with pytest.raises(Busy), catalogue.lock(AGENT):
            pytest.fail("both hold it")
    assert not catalogue.is_locked(AGENT)
    with catalogue.lock(AGENT):
        pass


def test_a_lock_is_let_go_whatever_happens(catalogue: Catalogue) -> None:
    with pytest.raises(ZeroDivisionError), catalogue.lock(AGENT):
        raise ZeroDivisionError
    with catalogue.lock(AGENT):
        pass


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", ".hidden"])
def test_no_id_leads_out_of_the_folder(catalogue: Catalogue, name: str) -> None:
    with pytest.raises(NotFound):
        catalogue.folder(AgentId(name))
