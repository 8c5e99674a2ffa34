"""What is kept of reviews survives crashes, other sessions and damage."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import pytest
from cut import away, cut_at

from swarm_tui.database import Database, open_database
from swarm_tui.errors import NotFound, Refused, ReviewError, StoreUnreachable
from swarm_tui.handoff import Comment
from swarm_tui.model import AgentId, Judgement
from swarm_tui.review.record import encode_comment, encode_review
from swarm_tui.review.shelf import Shelf

from .sample import AGENT, COMMENT, ODD_PATH, review, verdict


@pytest.fixture
def shelf(tmp_path: Path, database: Database) -> Shelf:
    return Shelf(tmp_path / "reviews", database)


@pytest.fixture
def other(tmp_path: Path, database: Database) -> Shelf:
    """On another machine."""
    return Shelf(tmp_path / "elsewhere", database)


def change(database: Database, sql: str, *values: str | bytes) -> None:
    """What somebody else did to the store."""
    with database.write() as transaction:
        assert transaction.run(sql, *values)


def test_a_review_is_read_as_it_was_written(shelf: Shelf) -> None:
    assert shelf.next_number(AGENT) == 1
    assert shelf.last(AGENT) is None
    shelf.write(review(1))
    shelf.write(review(2, head="e" * 40))
    assert shelf.read(AGENT, 1) == review(1)
    assert shelf.last(AGENT) == review(2, head="e" * 40)
    assert shelf.numbers(AGENT) == [1, 2]
    assert shelf.next_number(AGENT) == 3


def test_a_review_is_written_once(shelf: Shelf, other: Shelf) -> None:
    shelf.write(review(1))
    with pytest.raises(Refused, match="is there already"):
        other.write(review(1, head="e" * 40))
    assert shelf.read(AGENT, 1) == review(1)


@pytest.mark.parametrize("agent", ["", "..", "a/b", ".hidden"])
def test_an_id_that_is_no_name_reaches_no_file(shelf: Shelf, agent: str) -> None:
    with pytest.raises(NotFound):
        shelf.numbers(AgentId(agent))
    with pytest.raises(NotFound):
        shelf.read(AGENT, 1)


GOOD = (
    b'{"format": "swarm-review 1", "agent": "%s", "name": "n", "number": 1, "taken": 1,'
    b'"base": "%s", "head": "%s", "tree": "%s", "digest": "sha256:%s", "changes": [],'
    b'"flags": [], "commits": [], "is_uncommitted": false, "why": ""}'
) % (AGENT.encode(), b"a" * 40, b"b" * 40, b"c" * 40, b"d" * 64)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        GOOD[:-1],
        GOOD.replace(b"swarm-review 1", b"swarm-review 2"),
        GOOD.replace(b'"number": 1', b'"number": true'),
        GOOD.replace(b'"number": 1', b'"number": 2'),
        GOOD.replace(b'"taken": 1', b'"taken": NaN'),
        GOOD.replace(b'"taken": 1', b'"taken": 1e999'),
        GOOD.replace(b'"taken": 1', b'"taken": 1, "taken": 2'),
        GOOD.replace(b"b" * 40, b"--upload-pack=/bin/sh"),
        GOOD.replace(b'"changes": []', b'"changes": [1]'),
        GOOD.replace(b'"changes": []', b'"changes": {"path": 1}'),
        GOOD.replace(b'"flags": []', b'"flags": [{"kind": "none", "detail": "", "path": ""}]'),
        GOOD.replace(b'"name": "n"', b'"name": ["n"]'),
    ],
)
def test_a_damaged_review_is_told(shelf: Shelf, database: Database, content: bytes) -> None:
    shelf.write(review(1))
    change(database, "UPDATE reviews SET content = ?", GOOD.decode())
    assert shelf.read(AGENT, 1).taken == 1
    change(database, "UPDATE reviews SET content = ?", content.decode())
    with pytest.raises(ReviewError) as raised:
        shelf.read(AGENT, 1)
    assert f"review 1 of agent {AGENT}" in raised.value.detail
    assert database.place in raised.value.detail


def test_hostile_text_in_a_review_is_safe_when_it_is_read(shelf: Shelf, database: Database) -> None:
    shelf.write(review(1))
    hostile = GOOD.replace(b'"why": ""', b'"why": "\\u001b[2J\\u202e"')
    change(database, "UPDATE reviews SET content = ?", hostile.decode())
    assert shelf.read(AGENT, 1).why == "␛[2J\ufffd"


def test_reviewers_share_their_drafts(shelf: Shelf, other: Shelf) -> None:
    pasted = Comment("c2", "see\x1b[2J\nthis \ud800 \0", ODD_PATH, "old", 3, 3, "x\tŷ")
    shelf.comment(AGENT, 1, COMMENT)
    other.comment(AGENT, 1, pasted)
    other.comment(AGENT, 1, replace(COMMENT, text="Better: `sum`."))
    shelf.comment(AGENT, 2, replace(COMMENT, id="c3"))
    shelf.mark(AGENT, "k1", is_viewed=True)
    other.mark(AGENT, "k1", is_viewed=True)
    other.mark(AGENT, "k2", is_viewed=True)
    shelf.mark(AGENT, "k1", is_viewed=False)
    drafts = other.drafts(AGENT, 1)
    assert drafts == shelf.drafts(AGENT, 1)
    assert drafts.comments == (replace(COMMENT, text="Better: `sum`."), pasted)
    assert drafts.viewed == {"k2"}
    assert [comment.id for comment in shelf.drafts(AGENT, 2).comments] == ["c3"]
    shelf.drop(AGENT, 1, "c1")
    assert other.drafts(AGENT, 1).comments == (pasted,)


def test_drafts_of_the_wrong_shape_are_told(shelf: Shelf, database: Database) -> None:
    shelf.comment(AGENT, 1, COMMENT)
    change(database, "UPDATE comments SET content = ?", '{"id": 5}')
    with pytest.raises(ReviewError) as raised:
        shelf.drafts(AGENT, 1)
    assert "a comment on review 1" in raised.value.detail


def test_two_reviewers_may_note_at_once(shelf: Shelf, tmp_path: Path, store_url: str) -> None:
    assert shelf.drafts(AGENT, 1).comments == ()

    def note(writer: int) -> None:
        with closing(open_database(store_url)) as own:
            mine = Shelf(tmp_path / str(writer), own)
            for number in range(20):
                mine.comment(AGENT, 1, Comment(f"{writer}-{number}", "x" * 5000))

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(note, range(2)))
    found = {comment.id for comment in shelf.drafts(AGENT, 1).comments}
    assert found == {f"{writer}-{number}" for writer in range(2) for number in range(20)}


def test_a_verdict_is_read_as_it_was_signed(shelf: Shelf, other: Shelf, tmp_path: Path) -> None:
    shelf.write(review(1))
    assert shelf.verdict(AGENT, 1) is None
    decided = replace(verdict(), signature="-----BEGIN SSH SIGNATURE-----\n")
    shelf.write_verdict(decided)
    found = shelf.verdict(AGENT, 1)
    assert found == decided
    assert found.payload == decided.payload
    assert other.verdict(AGENT, 1) == decided
    for file in (
        shelf.folder(AGENT) / "verdicts/1.json",
        other.export(AGENT, 1, tmp_path / "export"),
    ):
        assert file.read_bytes() == decided.payload
        assert file.with_name("1.json.sig").read_text() == decided.signature
    with pytest.raises(NotFound):
        other.export(AGENT, 2, tmp_path)


def test_the_second_reviewer_is_told_who_decided(shelf: Shelf, other: Shelf) -> None:
    shelf.write(review(1))
    shelf.write_verdict(replace(verdict(by="ann"), signature="ann's"))
    with pytest.raises(Refused) as raised:
        other.write_verdict(replace(verdict(Judgement.REJECT, by="bob"), signature="bob's"))
    assert "ann@example.org approved it at 20" in raised.value.detail
    found = shelf.verdict(AGENT, 1)
    assert found is not None
    assert (found.reviewer, found.signature) == ("ann@example.org", "ann's")


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_verdict_that_is_cut_off_is_there_whole_or_not_at_all(
    shelf: Shelf, other: Shelf, database: Database, at: int
) -> None:
    shelf.write(review(1))
    with cut_at(database, at), pytest.raises(StoreUnreachable):
        shelf.write_verdict(verdict(by="ann"))
    decided = other.verdict(AGENT, 1)
    if decided is None:
        other.write_verdict(verdict(by="bob"))
        decided = other.verdict(AGENT, 1)
    assert shelf.verdict(AGENT, 1) == decided
    with pytest.raises(Refused):
        shelf.write_verdict(verdict(by="ann"))
    assert shelf.verdict(AGENT, 1) == decided


def test_of_two_verdicts_at_once_one_counts(shelf: Shelf, tmp_path: Path, store_url: str) -> None:
    shelf.write(review(1))
    start = Barrier(4)

    def decide(number: int) -> str:
        with closing(open_database(store_url)) as own:
            mine = Shelf(tmp_path / str(number), own)
            start.wait(30)
            try:
                mine.write_verdict(verdict(by=f"reviewer{number}"))
            except Refused as refused:
                return str(refused)
            return f"reviewer{number}"

    with ThreadPoolExecutor(4) as threads:
        told = list(threads.map(decide, range(4)))
    decided = shelf.verdict(AGENT, 1)
    assert decided is not None
    winner = decided.reviewer.partition("@")[0]
    assert [one for one in told if "decided already" not in one] == [winner]
    assert all(f"{winner}@example.org approved it" in one for one in told if one != winner)


def test_a_verdict_about_other_content_is_refused(shelf: Shelf) -> None:
    shelf.write(review(1, head="e" * 40))
    with pytest.raises(ReviewError, match="something else"):
        shelf.write_verdict(verdict())
    assert shelf.verdict(AGENT, 1) is None


def test_an_altered_verdict_is_told(shelf: Shelf, database: Database) -> None:
    shelf.write(review(1))
    shelf.write_verdict(verdict())
    altered = verdict().payload.replace(b"Nearly", b"Hardly")
    change(database, "UPDATE verdicts SET payload = ?", altered)
    with pytest.raises(ReviewError) as raised:
        shelf.verdict(AGENT, 1)
    assert "the verdict on review 1" in raised.value.detail


def test_steps_are_noted_once_each(shelf: Shelf, other: Shelf) -> None:
    shelf.write(review(1))
    shelf.write_verdict(verdict())
    shelf.note_step(AGENT, 1, "landed")
    other.note_step(AGENT, 1, "landed")
    found = shelf.verdict(AGENT, 1)
    assert found is not None
    assert found.steps == ("landed",)
    other.note_step(AGENT, 1, "delivered")
    again = shelf.verdict(AGENT, 1)
    assert again is not None
    assert again.steps == ("landed", "delivered")


def test_the_last_judged_review_is_what_the_next_one_is_compared_with(shelf: Shelf) -> None:
    for number in (1, 2, 3):
        shelf.write(review(number))
    assert shelf.last_judged(AGENT) is None
    shelf.write_verdict(verdict(Judgement.SEND_BACK, 1))
    shelf.write_verdict(verdict(Judgement.SEND_BACK, 2))
    assert shelf.last_judged(AGENT) == review(2)
    assert shelf.last_judged(AGENT, before=2) == review(1)


def test_verdicts_outlive_their_agent(shelf: Shelf) -> None:
    shelf.write(review(1))
    shelf.write(review(2))
    shelf.write_verdict(verdict())
    shelf.comment(AGENT, 2, COMMENT)
    shelf.quarantine(AGENT).mkdir()
    shelf.remove(AGENT)
    assert shelf.numbers(AGENT) == [1]
    assert shelf.verdict(AGENT, 1) == verdict()
    assert shelf.drafts(AGENT, 2).comments == ()
    assert not shelf.quarantine(AGENT).exists()


def test_a_store_that_is_away_is_told(shelf: Shelf, database: Database) -> None:
    shelf.write(review(1))
    with away(database):
        for work in (
            lambda: shelf.read(AGENT, 1),
            lambda: shelf.drafts(AGENT, 1),
            lambda: shelf.comment(AGENT, 1, COMMENT),
            lambda: shelf.write_verdict(verdict()),
        ):
            with pytest.raises(StoreUnreachable):
                work()
    assert shelf.drafts(AGENT, 1).comments == ()
    assert shelf.verdict(AGENT, 1) is None


# From before the store


def keep_in_folders(root: Path) -> None:
    folder = root / AGENT / "reviews" / "1"
    folder.mkdir(parents=True)
    (folder / "review.json").write_bytes(encode_review(review(1)))
    (folder / "verdict.json").write_bytes(verdict().payload)
    (folder / "verdict.json.sig").write_text("ann's")
    (folder / "steps").write_text("landed\ndelive")
    damaged = root / AGENT / "reviews" / "2"
    damaged.mkdir()
    (damaged / "review.json").write_bytes(b"\xff\0{")
    operations = [
        {"op": "comment", "review": 2, "comment": encode_comment(COMMENT)},
        {"op": "comment", "review": 2, "comment": encode_comment(replace(COMMENT, id="gone"))},
        {"op": "drop", "review": 2, "id": "gone"},
        {"op": "comment", "review": 2, "comment": {"id": 5}},
        {"op": "viewed", "key": "k1"},
        {"op": "viewed", "key": "k2"},
        {"op": "unviewed", "key": "k1"},
    ]
    lines = [json.dumps(operation) for operation in operations]
    (root / AGENT / "drafts.jsonl").write_text("\n".join([*lines, '{"op": "vie']))


@pytest.mark.parametrize("is_cut_off", [False, True])
def test_what_was_kept_in_folders_is_taken_over_once(
    shelf: Shelf, other: Shelf, database: Database, tmp_path: Path, is_cut_off: bool
) -> None:
    keep_in_folders(tmp_path / "reviews")
    if is_cut_off:
        with cut_at(database, 99), pytest.raises(StoreUnreachable):
            shelf.numbers(AGENT)
    assert shelf.numbers(AGENT) == [1, 2]
    assert other.read(AGENT, 1) == review(1)
    with pytest.raises(ReviewError):
        other.read(AGENT, 2)
    decided = other.verdict(AGENT, 1)
    assert decided == replace(verdict(), signature="ann's", steps=("landed",))
    assert other.drafts(AGENT, 2).comments == (COMMENT,)
    assert other.drafts(AGENT, 2).viewed == {"k2"}
    other.drop(AGENT, 2, COMMENT.id)
    assert Shelf(tmp_path / "reviews", database).drafts(AGENT, 2).comments == ()
