"""Files side by side: every difference is on a row, and nothing is passed over in silence."""

from __future__ import annotations

import pytest

from swarm_tui.errors import ReviewError
from swarm_tui.handoff import ABSENT, Change
from swarm_tui.review.diff import (
    FileDiff,
    Pair,
    Row,
    Span,
    emphasis,
    hunks,
    make,
    side_by_side,
    split_lines,
    unified,
)
from swarm_tui.text import sanitize

FILE = "100644"
OLD, NEW = "a" * 40, "b" * 40


def change(
    old_mode: str = FILE, new_mode: str = FILE, sizes: tuple[int, int] | None = None
) -> Change:
    old, new = ("" if mode == ABSENT else oid for mode, oid in ((old_mode, OLD), (new_mode, NEW)))
    old_size, new_size = sizes or (None, None)
    return Change(b"some.txt", old_mode, new_mode, old, new, old_size=old_size, new_size=new_size)


def lines(first: int, last: int) -> list[bytes]:
    return [b"line %d" % number for number in range(first, last + 1)]


def blob(*parts: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for part in parts for line in part)


@pytest.fixture
def two_spans() -> FileDiff:
    """Of 40 lines, line 10 changed and 30 and 31 became one."""
    old = blob(lines(1, 40))
    new = blob(lines(1, 9), [b"ten"], lines(11, 29), [b"thirty"], lines(32, 40))
    return make(change(), old, new, [Span(9, 1, 9, 1), Span(29, 2, 29, 1)])


def test_unified_shows_changes_in_context_and_counts_what_it_hides(two_spans: FileDiff) -> None:
    rows = unified(two_spans)
    assert list(rows)[:7] == [
        Row("gap", 1, 1, hidden=6),
        Row("context", 7, 7),
        Row("context", 8, 8),
        Row("context", 9, 9),
        Row("removed", 10, None),
        Row("added", None, 10),
        Row("context", 11, 11),
    ]
    assert [row.hidden for row in rows if row.kind == "gap"] == [6, 13, 6]
    assert rows[-1] == Row("gap", 35, 34, hidden=6)
    assert two_spans.text("new", 10) == "ten"
    assert two_spans.text("old", 31) == "line 31"


@pytest.mark.parametrize("context", [0, 1, 3, 12, None])
def test_every_line_is_on_a_row_or_counted_as_hidden(
    two_spans: FileDiff, context: int | None
) -> None:
    for rows in (unified(two_spans, context), side_by_side(two_spans, context)):
        hidden = sum(row.hidden for row in rows)
        shown = [row for row in rows if row.kind != "gap"]
        assert [row.old for row in shown if row.old] == sorted(row.old for row in shown if row.old)
        assert sum(row.old is not None for row in shown) + hidden == 40
        assert sum(row.new is not None for row in shown) + hidden == 39
        assert (hidden == 0) is (context in (12, None))


def test_a_single_line_is_not_hidden_behind_a_gap() -> None:
    old, new = lines(1, 9), [b"first", *lines(2, 8), b"last"]
    diff = make(change(), blob(old), blob(new), [Span(0, 1, 0, 1), Span(8, 1, 8, 1)])
    assert "gap" not in [row.kind for row in unified(diff, 3)]
    assert [row.hidden for row in unified(diff, 2) if row.kind == "gap"] == [3]


def test_rows_can_be_taken_by_slice_and_from_the_end(two_spans: FileDiff) -> None:
    rows = unified(two_spans, None)
    assert rows[9:11] == [Row("removed", 10, None), Row("added", None, 10)]
    assert rows[-1] == list(rows)[-1]
    with pytest.raises(IndexError):
        rows[len(rows)]


def test_hunk_jumps_land_on_the_first_changed_row(two_spans: FileDiff) -> None:
    for rows in (unified(two_spans), side_by_side(two_spans)):
        found = [rows[position] for position in hunks(rows)]
        assert [row.old for row in found] == [10, 30]


def test_the_row_of_a_line_is_found_also_behind_a_gap(two_spans: FileDiff) -> None:
    rows = unified(two_spans)
    shown = rows.find("new", 30)
    assert shown is not None
    assert rows[shown] == Row("added", None, 30)
    hidden = rows.find("old", 2)
    assert hidden is not None
    assert rows[hidden].kind == "gap"
    assert rows.find("new", 40) is None


def test_side_by_side_pairs_lines_that_are_alike() -> None:
    old = [b"first = compute(1)", b"second = compute(2, None)"]
    new = [b"import sys", b"", b"second = compute(2, sys)", b"return second"]
    diff = make(change(), blob(old), blob(new), [Span(0, 2, 0, 4)])
    assert list(side_by_side(diff)) == [
        Pair("changed", 1, 1),
        Pair("changed", None, 2),
        Pair("changed", 2, 3),
        Pair("changed", None, 4),
    ]


def test_lines_without_likeness_stand_by_their_order() -> None:
    diff = make(change(), b"abc\ndef\nghi\n", b"rst\nuvw\n", [Span(0, 3, 0, 2)])
    assert [(pair.old, pair.new) for pair in side_by_side(diff)] == [(1, 1), (2, 2), (3, None)]


def test_a_large_span_stands_by_order() -> None:
    old, new = lines(1, 30_000), [b"x", *lines(1, 30_000)]
    diff = make(change(), blob(old), blob(new), [Span(0, 30_000, 0, 30_001)])
    pairs = side_by_side(diff)
    assert len(pairs) == 30_001
    assert pairs[20_000] == Pair("changed", 20_001, 20_001)
    assert pairs[-1] == Pair("changed", None, 30_001)


def test_a_difference_outside_of_the_spans_is_never_passed_over() -> None:
    old = blob(lines(1, 20))
    new = blob(lines(1, 4), [b"os.system('x')"], lines(6, 19), [b"harmless"])
    with pytest.raises(ReviewError, match="does not fit"):
        make(change(), old, new, [Span(19, 1, 19, 1)])
    make(change(), old, new, [Span(4, 1, 4, 1), Span(19, 1, 19, 1)])


@pytest.mark.parametrize(
    "spans", [[Span(0, 9, 0, 9)], [Span(2, 1, 2, 1), Span(0, 1, 0, 1)], [Span(0, -1, 0, 1)]]
)
def test_spans_that_fit_no_file_are_refused(spans: list[Span]) -> None:
    with pytest.raises(ReviewError):
        make(change(), blob(lines(1, 3)), blob(lines(1, 3)), spans)


def test_only_a_newline_ends_a_line() -> None:
    assert split_lines(b"a\rb\r\nc\x0bd\x85\xe2\x80\xa8e\n") == [
        b"a\rb\r",
        b"c\x0bd\x85\xe2\x80\xa8e",
    ]
    assert list(split_lines(b"")) == []
    assert split_lines(b"\n") == [b""]


def test_hostile_text_is_made_visible_when_shown() -> None:
    diff = make(change(), b"a\n", b"\x1b]52;c;!\x07 \xe2\x80\xae\xff\r\n", [Span(0, 1, 0, 1)])
    assert diff.text("new", 1) == "␛]52;c;!␇ \ufffd\ufffd␍"


def test_a_line_of_megabytes_is_cut_when_shown() -> None:
    diff = make(change(), b"", "ü".encode() * 3_000_000, [Span(0, 0, 0, 1)])
    assert diff.text("new", 1) == "ü" * 4095 + "…"


def test_a_missing_newline_at_the_end_is_told_and_marked() -> None:
    diff = make(change(), b"same\n", b"same", [])
    assert diff.note == "no newline at the end of the new file"
    assert [row.kind for row in unified(diff)] == ["removed", "added"]
    both = make(change(), b"a", b"b", [Span(0, 1, 0, 1)])
    assert both.note == "no newline at the end of both files"


def test_binary_content_is_not_shown_but_told() -> None:
    diff = make(change(), b"text\n", b"PNG\0" + bytes(2048), [Span(0, 1, 0, 1)])
    assert (list(diff.old), list(diff.new), list(diff.spans)) == ([], [], [])
    assert diff.note == "binary: 5 Bytes -> 2 KiB"
    late = make(change(), b"", b"x" * 8000 + b"\0\n", [Span(0, 0, 0, 1)])
    assert len(late.new) == 1


def test_content_too_large_to_show_is_told() -> None:
    diff = make(change(sizes=(10, 5 << 20)), b"text\n", None, [])
    assert diff.note == "too large to show: 5 Bytes -> 5 MiB"
    assert list(unified(diff)) == []


def test_a_symlink_is_its_target_on_one_line() -> None:
    diff = make(change(ABSENT, "120000"), None, b"../../etc/\npasswd", [])
    assert diff.text("new", 1) == "../../etc/␊passwd"
    assert [row.kind for row in unified(diff)] == ["added"]
    assert diff.note == "symlink"


def test_a_binary_file_that_became_a_symlink_shows_the_target() -> None:
    diff = make(change(FILE, "120000"), b"\0\0", b"/etc/passwd", [])
    assert diff.text("new", 1) == "/etc/passwd"
    assert "file -> symlink" in diff.note
    assert "binary" in diff.note


def test_a_submodule_is_its_commit() -> None:
    diff = make(change("160000", "160000"), None, None, [])
    assert diff.text("old", 1) == f"Subproject commit {OLD}"
    assert diff.text("new", 1) == f"Subproject commit {NEW}"
    assert [row.kind for row in unified(diff)] == ["removed", "added"]


def test_a_change_of_mode_alone_is_told_and_its_lines_can_be_read() -> None:
    diff = make(change(FILE, "100755"), b"a\nb\n", b"a\nb\n", [])
    assert diff.note == "file -> executable (mode 100644 -> 100755)"
    assert list(unified(diff)) == [Row("gap", 1, 1, hidden=2)]
    assert [row.kind for row in unified(diff, None)] == ["context", "context"]


def parts(text: str, ranges: object) -> list[str]:
    assert isinstance(ranges, tuple)
    return [text[start:end] for start, end in ranges]


def test_emphasis_marks_the_words_that_differ() -> None:
    old, new = sanitize("total = add(first, second)"), sanitize("total = subtract(first, third)")
    in_old, in_new = emphasis(old, new)
    assert parts(old, in_old) == ["add", "second"]
    assert parts(new, in_new) == ["subtract", "third"]


def test_emphasis_joins_words_that_differ_in_a_row() -> None:
    old, new = sanitize("return the old thing now"), sanitize("return the brand new thing now")
    assert [parts(text, found) for text, found in zip((old, new), emphasis(old, new), strict=True)]
    assert parts(new, emphasis(old, new)[1]) == ["brand new"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("import os", "def totally_other(thing):"),
        ("same", "same"),
        ("", "new"),
        ("a " * 300, "a " * 299 + "b"),
        ("x" + "a b " * 120, "y" + "a b " * 120),
    ],
)
def test_emphasis_says_nothing_where_it_would_not_help(old: str, new: str) -> None:
    assert emphasis(sanitize(old), sanitize(new)) == ((), ())
