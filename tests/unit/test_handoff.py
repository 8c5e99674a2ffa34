"""Review and verdict on one agent: what stands still, what lands, what is told, what fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm_tui.command import Approve
from swarm_tui.errors import (
    DeadlineExceeded,
    GuestFailed,
    NotFound,
    Refused,
    ReviewError,
    StorageFull,
    SwarmError,
)
from swarm_tui.handoff import Comment, FlagKind
from swarm_tui.model import Power

from .hall import Hall, git, make_hall
from .standin import AGENT, Call
from .workbench import quiet


@pytest.fixture
def hall(memory_path: Path) -> Hall:
    hall = make_hall(memory_path)
    hall.work()
    return hall


async def test_a_review_holds_what_was_done_and_the_agent_stands_still(hall: Hall) -> None:
    hall.work("notes.txt", "not committed\n", is_committed=False)
    head = git(hall.workspace, "rev-parse", "HEAD")
    told = await hall.review()
    assert "review 1 is open: 2 files" in told
    hall.assert_open()
    review = hall.taken()
    assert [bytes(change.path) for change in review.changes] == [b"notes.txt", b"work.txt"]
    assert review.is_uncommitted
    assert review.why == "please"
    assert git(hall.workspace, "rev-parse", "HEAD") == head, "the agent's branch was moved"
    assert git(hall.workspace, "status", "--short") == "?? notes.txt", "its index was touched"


async def test_an_approval_lands_the_exact_commit_and_the_agent_goes_on(hall: Hall) -> None:
    await hall.review()
    review = hall.taken()
    told = await hall.approve()
    assert "review 1: approve (not signed), landed as swarm/ember/1;" in told
    assert hall.landed() == review.head
    [message] = hall.messages()
    assert (message["kind"], message["verdict"]) == ("verdict", "approve")
    assert "well done" in message["text"]
    hall.assert_free()
    verdict = hall.shelf.verdict(AGENT, 1)
    assert verdict
    assert verdict.steps == ("landed", "delivered")


async def test_comments_are_sent_back_with_file_line_and_text(hall: Hall) -> None:
    await hall.review()
    await hall.send_back()
    [message] = hall.messages()
    assert message["verdict"] == "send-back"
    assert "work.txt:1" in message["text"]
    assert "Mend this." in message["text"]
    assert hall.landed() is None
    hall.assert_free()


async def test_what_is_refused_can_be_kept_or_killed(hall: Hall) -> None:
    await hall.review()
    await hall.reject()
    assert [message["verdict"] for message in hall.messages()] == ["reject"]
    hall.assert_free()
    hall.work("more.txt")
    await hall.review()
    await hall.reject(is_kept=False)
    assert hall.vm() is None
    assert hall.landed() is None
    assert hall.shelf.verdict(AGENT, 2), "a verdict outlives its agent"


async def test_a_saved_agent_is_reviewed_without_going_on(hall: Hall) -> None:
    await hall.pause()
    counter = hall.stands_at
    await hall.review()
    hall.assert_open()
    await hall.approve()
    assert hall.world.counter() == counter
    hall.assert_free()


async def test_an_agent_that_is_resumed_without_a_verdict_keeps_its_comments(hall: Hall) -> None:
    await hall.review()
    hall.shelf.comment(AGENT, 1, Comment("c1", "Why?", b"work.txt", first=1, last=1, quote="done"))
    assert "goes on" in await hall.go_on()
    hall.assert_free()
    hall.work("work.txt", "first\ndone\n")
    await hall.review()
    [comment] = hall.shelf.drafts(AGENT, 2).comments
    assert (comment.text, comment.first) == ("Why?", 2), "it stays with its line"


async def test_what_could_not_be_taken_is_flagged(hall: Hall) -> None:
    """Root may read all, so what git cannot add is a nested repository without a commit."""
    git(hall.workspace, "init", "-q", "nested")
    told = await hall.review()
    assert "review 1 is open: 1 file, 1 flag;" in told
    [flag] = hall.taken().flags
    assert (flag.kind, flag.path) == (FlagKind.LEFT_OUT, b"")
    assert "nested" in flag.detail


# What is refused


async def test_only_what_was_seen_can_be_approved(hall: Hall) -> None:
    hall.work("run.sh", "rm -rf /\n", is_committed=False)
    (hall.workspace / "run.sh").chmod(0o755)
    await hall.review()
    review = hall.taken()
    assert review.flags
    with pytest.raises(Refused, match="not seen"):
        await hall._judge(Approve(AGENT, 1, review.digest))
    hall.assert_open()
    await hall.approve()
    hall.assert_free()


async def test_another_content_than_the_reviewer_saw_is_refused(hall: Hall) -> None:
    await hall.review()
    for command in (
        Approve(AGENT, 1, "sha256:" + "0" * 64),
        Approve(AGENT, 2, hall.taken().digest),
    ):
        with pytest.raises((Refused, NotFound)):
            await hall._judge(command)
    hall.assert_open()


async def test_of_two_reviewers_one_wins_and_the_other_is_told(hall: Hall) -> None:
    await hall.review()
    record, vm = hall.record, hall.vm()
    await hall.send_back()
    review = hall.taken()
    with pytest.raises(Refused, match="decided already") as raised:
        await hall.handoff.judge(vm, record, Approve(AGENT, 1, review.digest), quiet)
    assert "ann sent back" in raised.value.detail
    assert hall.landed() is None
    hall.assert_free()


async def test_a_head_that_moved_makes_the_verdict_void(hall: Hall) -> None:
    await hall.review()
    hall.work("sneaked.txt")  # as if the guest's processes had not stood still
    with pytest.raises(ReviewError, match="void"):
        await hall.approve()
    assert hall.landed() is None
    assert hall.messages() == []
    hall.assert_free()
    await hall.review()
    await hall.approve()
    assert hall.landed(2) == git(hall.workspace, "rev-parse", "HEAD")


async def test_a_name_that_was_somebody_elses_before_meets_none_of_its_branches(hall: Hall) -> None:
    for branch in ("swarm/ember/7", "swarm/ember/x", "swarm/embers/9"):
        git(hall.owner, "branch", branch, "main")
    assert "review 8 is open" in await hall.review()
    await hall.approve()
    assert hall.landed(8) == hall.taken().head


async def test_a_branch_that_is_there_already_is_not_moved(hall: Hall) -> None:
    await hall.review()
    git(hall.owner, "branch", "swarm/ember/1", "main")
    with pytest.raises(Refused, match="branch"):
        await hall.approve()
    hall.assert_open()
    git(hall.owner, "branch", "-D", "swarm/ember/1")
    await hall.approve()
    hall.assert_free()


async def test_a_repository_of_something_else_is_refused_before_anything_is_signed(
    hall: Hall,
) -> None:
    await hall.review()
    hall.owner.rename(hall.home / "elsewhere")
    git(hall.home, "init", "-q", "--bare", str(hall.owner))
    with pytest.raises(Refused, match="cannot be landed"):
        await hall.approve()
    hall.assert_open()
    assert hall.shelf.verdict(AGENT, 1) is None


async def test_without_a_repository_nothing_is_decided(hall: Hall) -> None:
    await hall.review()
    hall.owner.rename(hall.home / "elsewhere")
    with pytest.raises(SwarmError):
        await hall.approve()
    hall.assert_open()
    assert hall.shelf.verdict(AGENT, 1) is None


# What fails

ERRORS = (
    GuestFailed("It did not work"),
    DeadlineExceeded("No answer in time"),
    StorageFull("No room"),
)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("call", ["freeze", "download", "definition", "save", "check_saved"])
@pytest.mark.parametrize("is_saved", [False, True], ids=["running", "saved"])
async def test_a_review_that_fails_leaves_the_agent_as_it_was(
    hall: Hall, call: str, error: SwarmError, is_saved: bool
) -> None:
    if is_saved:
        await hall.pause()
    error = type(error)(error.title)
    hall.world.plans[call] = Call(before=error)
    with pytest.raises(type(error)) as raised:
        await hall.review()
    hall.world.plans.clear()
    # Of the host: it may still do what it was asked. A guest that does not answer has said nothing.
    is_host = call in ("definition", "save", "check_saved")
    is_unknown = is_host and isinstance(error, DeadlineExceeded)
    if not is_unknown:
        assert "nothing was lost" in raised.value.hint.lower()
    hall.assert_truthful()
    if not (is_saved or is_unknown):
        hall.assert_free()
    if hall.record.verb:
        await hall.recover()
    await hall.review()
    hall.assert_open()
    await hall.approve()
    hall.assert_free()


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("call", ["restore", "run", "deliver", "thaw"])
async def test_a_verdict_that_fails_half_way_is_delivered_by_a_resume(
    hall: Hall, call: str, error: SwarmError
) -> None:
    await hall.review()
    review = hall.taken()
    hall.world.plans[call] = Call(before=type(error)(error.title))
    with pytest.raises(type(error)) as raised:
        await hall.approve()
    assert "The approve is kept; resume the agent to deliver it." in raised.value.hint
    hall.world.plans.clear()
    hall.assert_truthful()
    assert hall.shelf.verdict(AGENT, 1), "the verdict was lost"
    await hall.go_on()
    assert hall.landed() == review.head
    assert len(hall.messages()) == 1
    hall.assert_free()
    assert hall.world.power() is Power.RUNNING
