"""A verdict is bound to content, has one form, and tells the agent what to do."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from swarm_tui.errors import ReviewError, UsageError
from swarm_tui.handoff import Change, Comment, Drafts, Verdict
from swarm_tui.model import Judgement
from swarm_tui.review.diff import Span, make
from swarm_tui.review.verdict import compose, parse, prove, quoted, read_comments

from .sample import AGENT, COMMENT, ODD_PATH, review, verdict


def said(message: str, *comments: Comment) -> str:
    return sent_back(message, *comments).message


def sent_back(message: str, *comments: Comment) -> Verdict:
    return compose(
        review(),
        Judgement.SEND_BACK,
        reviewer="ann@example.org",
        drafts=Drafts(comments),
        message=message,
        at=1.0,
        branch_name=lambda name, number: f"{name}/{number}",
    )


def test_the_payload_holds_all_that_was_decided_in_one_form() -> None:
    decided = verdict()
    content = json.loads(decided.payload)
    assert content == {
        "format": "swarm-verdict 1",
        "judgement": "approve",
        "agent": AGENT,
        "name": "spruce",
        "review": 1,
        "reviewer": "ann@example.org",
        "base": "a" * 40,
        "head": "b" * 40,
        "tree": "c" * 40,
        "digest": "sha256:" + "d" * 64,
        "at": 1763900100.5,
        "flags": ["hidden caf\ufffd/␛[2J.py:7", "history", "mode src/total.py"],
        "message": decided.message,
        "message_sha256": content["message_sha256"],
        "branch": "swarm/spruce/1",
    }
    assert decided.payload.endswith(b"}\n")
    assert list(content) == sorted(content)
    assert verdict().payload == decided.payload
    assert parse(decided.payload) == decided


def test_only_an_approval_names_a_branch() -> None:
    assert verdict(Judgement.SEND_BACK).branch == ""
    assert verdict(Judgement.REJECT).branch == ""


PAYLOAD = verdict().payload


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        PAYLOAD[:-1],
        PAYLOAD + b"\n",
        PAYLOAD.replace(b"Nearly", b"Hardly"),
        PAYLOAD.replace(b"approve", b"improve"),
        PAYLOAD.replace(b'"review": 1', b'"review": 1.0'),
        PAYLOAD.replace(b'"review": 1', b'"review": 1, "extra": 1'),
        PAYLOAD.replace(b'"review": 1', b'"review": 1, "review": 1'),
        PAYLOAD.replace(b"b" * 40, b"b" * 39),
        PAYLOAD.replace(b"swarm-verdict 1", b"swarm-verdict 2"),
        PAYLOAD.replace(b"spruce", b"\\u001bspruce"),
        PAYLOAD.replace(b"Nearly", b"\\ud800"),
        json.dumps(json.loads(PAYLOAD)).encode(),
        b"[" * 100_000,
        b"null",
    ],
)
def test_anything_else_is_no_verdict(payload: bytes) -> None:
    with pytest.raises(ReviewError, match="not a verdict"):
        parse(payload)


def test_what_landed_is_proved_against_the_verdict() -> None:
    decided = verdict()
    landed = {"head": "b" * 40, "tree": "c" * 40, "branch": "swarm/spruce/1"}
    prove(decided, **landed)
    prove(decided, **landed, base="a" * 40, digest="sha256:" + "d" * 64)
    for what, word in (("head", "commit"), ("tree", "tree"), ("branch", "branch")):
        with pytest.raises(ReviewError, match=f"The {word} is not the one") as raised:
            prove(decided, **{**landed, what: "f" * 40})
        assert "f" * 40 in raised.value.detail
    with pytest.raises(ReviewError, match="base"):
        prove(decided, **landed, base="f" * 40)
    with pytest.raises(ReviewError, match="digest"):
        prove(decided, **landed, digest="sha256:" + "0" * 64)


@pytest.mark.parametrize("judgement", [Judgement.SEND_BACK, Judgement.REJECT])
def test_only_an_approval_proves_anything(judgement: Judgement) -> None:
    with pytest.raises(ReviewError, match="not approved"):
        prove(verdict(judgement), head="b" * 40, tree="c" * 40, branch="")


def test_the_agent_reads_the_overall_text_and_numbered_comments_by_place() -> None:
    message = said(
        "Nearly there.\r\n",
        Comment("z", "Also drop\nthe second loop.", b"src/b.py", "old", 4, 4, "while True:"),
        COMMENT,
        Comment("y", "Name this file after what it does.", b"src/a.py"),
        Comment("x", "Run the tests."),
    )
    assert message == (
        "Nearly there.\n\n"
        "Run the tests.\n\n"
        "1. src/a.py\n"
        "   Name this file after what it does.\n\n"
        "2. src/b.py:4 (before the change)\n"
        "   > while True:\n"
        "   Also drop\n"
        "   the second loop.\n\n"
        "3. src/total.py:12-14\n"
        "   > for item in items:\n"
        "   Why not `sum`?"
    )


def test_the_order_of_drafts_does_not_change_what_is_signed() -> None:
    comments = [replace(COMMENT, id=str(number), text=str(number)) for number in range(5)]
    assert sent_back("x", *comments).payload == sent_back("x", *comments[::-1]).payload


def test_hostile_paths_and_lines_are_quoted_safely() -> None:
    message = said("", Comment("c", "Oh \ud800", ODD_PATH, "new", 1, 1, "\x1b]0;x\x07" + "y" * 999))
    assert message.startswith("1. caf\ufffd/␛[2J.py:1\n   > ␛]0;x␇yyy")
    assert "\x1b" not in message
    assert len(message) < 300


def test_a_message_that_cannot_be_delivered_is_refused_not_cut() -> None:
    assert len(said("ü" * 32_768).encode()) == 65_536
    with pytest.raises(UsageError, match="too long"):
        said("ü" * 32_768 + "x")


@pytest.mark.parametrize("judgement", [Judgement.SEND_BACK, Judgement.REJECT])
def test_something_must_be_said_to_an_agent_that_is_not_approved(judgement: Judgement) -> None:
    with pytest.raises(UsageError, match="Nothing is said"):
        compose(
            review(),
            judgement,
            reviewer="ann",
            drafts=Drafts(),
            message=" \n",
            at=1.0,
            branch_name=lambda name, number: "",
        )


def test_comments_are_read_from_plain_text() -> None:
    found = read_comments(
        b"Nearly there.\n"
        b"  Note: at 10 it fails.\n"
        b"\n"
        b"src/a.py:3: Too long.\n"
        b"    And too slow.\n"
        b"\n"
        b"\tSee above.\n"
        b"src/\xc3\xbc.py:10-12: Why?\r\n"
        b"lib/b.py:7:\n"
        b"  On the next line.\n"
    )
    assert found == [
        Comment("file-1", "Nearly there.\n  Note: at 10 it fails."),
        Comment("file-2", "Too long.\nAnd too slow.\n\nSee above.", b"src/a.py", "new", 3, 3),
        Comment("file-3", "Why?", "src/ü.py".encode(), "new", 10, 12),
        Comment("file-4", "On the next line.", b"lib/b.py", "new", 7, 7),
    ]


def test_comments_are_read_from_json() -> None:
    found = read_comments(
        b'\n [{"text": "all"}, {"path": "a b.py", "line": 2, "text": "x", "side": "old"},\n'
        b'{"path": "c", "line": 2, "last": 5, "text": "y"}, {"path": "d", "text": "z"}]'
    )
    assert found == [
        Comment("file-1", "all"),
        Comment("file-2", "x", b"a b.py", "old", 2, 2),
        Comment("file-3", "y", b"c", "new", 2, 5),
        Comment("file-4", "z", b"d"),
    ]


@pytest.mark.parametrize(
    ("file", "why"),
    [
        (b"", "nothing in it"),
        (b"\n  \n", "nothing in it"),
        (b"[]", "nothing in it"),
        (b"a.py:1: x\nb\n", "Line 2 is neither"),
        (b"a.py:0: x", "Line 1: 0-0"),
        (b"ok\na.py:5-4: x", "Line 2: 5-4"),
        (b"a.py:1:\n\nb.py:2: x", "Line 1: nothing is said"),
        (b"one\ntwo \xff", "Line 2 is not UTF-8"),
        (b'[{"text": "a"},\n{"text" 1}]', "Line 2: "),
        (b'[{"text": "a"}, {"text": 1}]', "Comment 2: 'text' is wrong"),
        (b'[{"text": "a", "lime": 1}]', "Comment 1: 'lime'"),
        (b'[{"text": "a", "line": 1}]', "Comment 1: there is a line"),
        (b'[{"path": "a", "line": 3, "last": 2, "text": "a"}]', "Comment 1: the last"),
        (b'[{"path": "a", "side": "both", "text": "a"}]', "'side' is wrong"),
        (b"x" * (1 << 20) + b"x", "larger"),
    ],
)
def test_a_file_that_cannot_be_meant_so_is_told_with_the_line(file: bytes, why: str) -> None:
    with pytest.raises(UsageError) as raised:
        read_comments(file)
    assert why in raised.value.detail


def test_a_comment_from_a_file_gets_the_line_that_it_is_about() -> None:
    diff = make(
        Change(b"a.py", "100644", "100644", "1" * 40, "2" * 40),
        b"one\n",
        b"one\ntwo\n",
        [Span(1, 0, 1, 1)],
    )
    comment = Comment("c", "x", b"a.py", "new", 2, 2)
    assert quoted(comment, diff).quote == "two"
    with pytest.raises(UsageError, match="no such line"):
        quoted(replace(comment, side="old"), diff)
