"""What is kept of reviews survives crashes, other sessions and damage."""

from __future__ import annotations

import multiprocessing
import os
from dataclasses import replace
from pathlib import Path

import pytest

from swarm_tui.errors import NotFound, Refused, ReviewError, StorageFull
from swarm_tui.handoff import Comment
from swarm_tui.model import AgentId, Judgement
from swarm_tui.review.shelf import Shelf

from .sample import AGENT, COMMENT, ODD_PATH, review, verdict


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "reviews")


def draft_file(shelf: Shelf) -> Path:
    return shelf.folder(AGENT) / "drafts.jsonl"


def test_a_review_is_read_as_it_was_written(shelf: Shelf) -> None:
    assert shelf.next_number(AGENT) == 1
    assert shelf.last(AGENT) is None
    shelf.write(review(1))
    shelf.write(review(2, head="e" * 40))
    assert shelf.read(AGENT, 1) == review(1)
    assert shelf.last(AGENT) == review(2, head="e" * 40)
    assert shelf.numbers(AGENT) == [1, 2]
    assert shelf.next_number(AGENT) == 3
    assert shelf.agents() == [AGENT]


def test_a_number_is_not_given_twice_after_a_crash(shelf: Shelf) -> None:
    (shelf.folder(AGENT) / "reviews" / "4").mkdir(parents=True)
    assert shelf.numbers(AGENT) == []
    assert shelf.next_number(AGENT) == 5


def test_a_review_is_written_once(shelf: Shelf) -> None:
    shelf.write(review(1))
    with pytest.raises(Refused, match="is there already"):
        shelf.write(review(1, head="e" * 40))
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
        b"\0" * 100,
        b"[]",
        b"[" * 100_000,
        b"\xff\xfe{}",
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
def test_a_damaged_review_is_told_with_its_file(shelf: Shelf, content: bytes) -> None:
    shelf.write(review(1))
    path = shelf.folder(AGENT) / "reviews/1/review.json"
    path.write_bytes(GOOD)
    assert shelf.read(AGENT, 1).taken == 1
    path.write_bytes(content)
    with pytest.raises(ReviewError) as raised:
        shelf.read(AGENT, 1)
    assert "reviews/1/review.json" in raised.value.detail


def test_hostile_text_in_a_review_is_safe_when_it_is_read(shelf: Shelf) -> None:
    shelf.write(review(1))
    path = shelf.folder(AGENT) / "reviews/1/review.json"
    path.write_bytes(GOOD.replace(b'"why": ""', b'"why": "\\u001b[2J\\u202e"'))
    assert shelf.read(AGENT, 1).why == "␛[2J\ufffd"


def test_drafts_are_there_after_a_restart(shelf: Shelf, tmp_path: Path) -> None:
    pasted = Comment("c2", "see\x1b[2J\nthis \ud800", ODD_PATH, "old", 3, 3, "x\tŷ")
    shelf.comment(AGENT, 1, COMMENT)
    shelf.comment(AGENT, 1, pasted)
    shelf.comment(AGENT, 1, replace(COMMENT, text="Better: `sum`."))
    shelf.comment(AGENT, 2, replace(COMMENT, id="c3"))
    shelf.mark(AGENT, "k1", is_viewed=True)
    shelf.mark(AGENT, "k2", is_viewed=True)
    shelf.mark(AGENT, "k1", is_viewed=False)
    drafts = Shelf(tmp_path / "reviews").drafts(AGENT, 1)
    assert drafts.comments == (replace(COMMENT, text="Better: `sum`."), pasted)
    assert drafts.viewed == {"k2"}
    assert [comment.id for comment in shelf.drafts(AGENT, 2).comments] == ["c3"]
    assert shelf.drafts(AGENT, 2).viewed == {"k2"}
    shelf.drop(AGENT, 1, "c1")
    assert shelf.drafts(AGENT, 1).comments == (pasted,)


def test_what_another_session_notes_is_seen(shelf: Shelf, tmp_path: Path) -> None:
    assert shelf.drafts(AGENT, 1).comments == ()
    Shelf(tmp_path / "reviews").comment(AGENT, 1, COMMENT)
    assert shelf.drafts(AGENT, 1).comments == (COMMENT,)


def test_a_line_cut_by_a_crash_costs_no_other(shelf: Shelf) -> None:
    shelf.comment(AGENT, 1, COMMENT)
    with draft_file(shelf).open("ab") as file:
        file.write(b'{"op": "comment", "review": 1, "comm')
    assert shelf.drafts(AGENT, 1).comments == (COMMENT,)
    shelf.comment(AGENT, 1, replace(COMMENT, id="c2"))
    assert [comment.id for comment in shelf.drafts(AGENT, 1).comments] == ["c1", "c2"]


def test_drafts_of_the_wrong_shape_are_told(shelf: Shelf) -> None:
    shelf.comment(AGENT, 1, COMMENT)
    with draft_file(shelf).open("ab") as file:
        file.write(b'{"op": "comment", "review": 1, "comment": {"id": 5}}\n')
    with pytest.raises(ReviewError) as raised:
        shelf.drafts(AGENT, 1)
    assert "drafts.jsonl" in raised.value.detail


def _note_many(root: Path, writer: int, count: int) -> None:
    shelf = Shelf(root)
    for number in range(count):
        shelf.comment(AGENT, 1, Comment(f"{writer}-{number}", "x" * 5000))


def test_two_processes_may_note_at_once(shelf: Shelf, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [
        context.Process(target=_note_many, args=(tmp_path / "reviews", writer, 40))
        for writer in range(2)
    ]
    for process in writers:
        process.start()
    for process in writers:
        process.join(60)
        assert process.exitcode == 0
    found = {comment.id for comment in shelf.drafts(AGENT, 1).comments}
    assert found == {f"{writer}-{number}" for writer in range(2) for number in range(40)}


def test_a_full_disk_leaves_no_half_line(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.comment(AGENT, 1, COMMENT)
    before = draft_file(shelf).read_bytes()
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr("swarm_tui.review.shelf.os.write", lambda fd, data: write(fd, data[:7]))
        with pytest.raises(StorageFull):
            shelf.comment(AGENT, 1, replace(COMMENT, id="c2"))
    assert draft_file(shelf).read_bytes() == before


def test_a_verdict_is_read_as_it_was_signed(shelf: Shelf) -> None:
    shelf.write(review(1))
    assert shelf.verdict(AGENT, 1) is None
    decided = replace(verdict(), signature="-----BEGIN SSH SIGNATURE-----\n")
    shelf.write_verdict(decided)
    found = shelf.verdict(AGENT, 1)
    assert found == decided
    assert found.payload == decided.payload
    folder = shelf.folder(AGENT) / "reviews/1"
    assert (folder / "verdict.json").read_bytes() == decided.payload
    assert (folder / "verdict.json.sig").read_text() == decided.signature


def test_the_second_reviewer_is_told_who_decided(shelf: Shelf) -> None:
    shelf.write(review(1))
    shelf.write_verdict(replace(verdict(by="ann"), signature="ann's"))
    with pytest.raises(Refused) as raised:
        shelf.write_verdict(replace(verdict(Judgement.REJECT, by="bob"), signature="bob's"))
    assert "ann@example.org approved it at 20" in raised.value.detail
    found = shelf.verdict(AGENT, 1)
    assert found is not None
    assert (found.reviewer, found.signature) == ("ann@example.org", "ann's")


def test_a_signature_without_its_verdict_is_not_taken_for_another(shelf: Shelf) -> None:
    shelf.write(review(1))
    (shelf.folder(AGENT) / "reviews/1/verdict.json.sig").write_text("of a crashed session")
    shelf.write_verdict(verdict())
    found = shelf.verdict(AGENT, 1)
    assert found is not None
    assert found.signature == ""


def test_a_verdict_about_other_content_is_refused(shelf: Shelf) -> None:
    shelf.write(review(1, head="e" * 40))
    with pytest.raises(ReviewError, match="something else"):
        shelf.write_verdict(verdict())
    assert shelf.verdict(AGENT, 1) is None


def test_an_altered_verdict_is_told_with_its_file(shelf: Shelf) -> None:
    shelf.write(review(1))
    shelf.write_verdict(verdict())
    path = shelf.folder(AGENT) / "reviews/1/verdict.json"
    path.write_bytes(path.read_bytes().replace(b"Nearly", b"Hardly"))
    with pytest.raises(ReviewError) as raised:
        shelf.verdict(AGENT, 1)
    assert "reviews/1/verdict.json" in raised.value.detail


def test_steps_are_noted_once_each_and_torn_ones_do_not_count(shelf: Shelf) -> None:
    shelf.write(review(1))
    shelf.write_verdict(verdict())
    shelf.note_step(AGENT, 1, "landed")
    shelf.note_step(AGENT, 1, "landed")
    with (shelf.folder(AGENT) / "reviews/1/steps").open("ab") as file:
        file.write(b"void")
    found = shelf.verdict(AGENT, 1)
    assert found is not None
    assert found.steps == ("landed",)
    shelf.note_step(AGENT, 1, "delivered")
    again = shelf.verdict(AGENT, 1)
    assert again is not None
    assert again.steps[:2] == ("landed", "delivered")


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


def test_nothing_is_left_of_an_agent_without_verdicts(shelf: Shelf) -> None:
    shelf.write(review(1))
    shelf.remove(AGENT)
    shelf.remove(AGENT)
    assert shelf.agents() == []
