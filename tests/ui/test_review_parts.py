"""What the review screen is made of: lines of a page, marks, colours, and what may go wrong."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from dataclasses import replace

import pytest
from stand_in import START
from stand_in_reading import change_of, make_reading, spans_of
from textual.color import Color

from swarm_tui.handoff import Comment, Side
from swarm_tui.model import AgentId
from swarm_tui.review.diff import FileDiff, make, side_by_side, unified
from swarm_tui.text import literal, sanitize
from swarm_tui.ui import lexer, paint
from swarm_tui.ui.about import tell_review
from swarm_tui.ui.marks import ABOUT, Marks
from swarm_tui.ui.page import Ladder
from swarm_tui.ui.search import Matches, find_in
from swarm_tui.ui.shade import Shades, colour
from swarm_tui.ui.sheet import Para, Sheet, Words, break_para, no_rows, open_ends
from swarm_tui.ui.theme import builtin_folder, load_themes
from swarm_tui.ui.tree import order

OLD = b"".join(b"line %d\n" % number for number in range(1, 101))
NEW = OLD.replace(b"line 20\n", b"line twenty\n").replace(b"line 80\n", b"a\nb\n")


def diff_of(old: bytes | None, new: bytes | None) -> FileDiff:
    return make(change_of("a.txt", old, new), old, new, spans_of(old, new))


def tell(sheet: Sheet) -> list[str]:
    """Each line in short: "20>", a gap's count, a word."""
    told = []
    for index in range(len(sheet)):
        item = sheet[index]
        if isinstance(item, Words):
            told.append(item.text)
        elif item.kind == "gap":
            told.append(f"..{item.hidden}")
        else:
            told.append(f"{item.old or ''}>{item.new or ''}")
    return told


# Lines


def test_rows_stand_between_words_and_gaps() -> None:
    head = [Para(literal("flagged")), Para(literal("noted"))]
    sheet = Sheet(head, unified(diff_of(OLD, NEW)), (), (), 80)
    assert tell(sheet)[:8] == [
        *("flagged", "noted", "..16"),
        *("17>17", "18>18", "19>19", "20>", ">20"),
    ]
    assert tell(sheet)[-2:] == ["83>84", "..17"]


@pytest.mark.parametrize("layout", [unified, side_by_side])
def test_every_line_is_found_where_it_stands(layout) -> None:  # type: ignore[no-untyped-def]
    diff = diff_of(OLD, NEW)
    comments = [
        Comment("1", "here", b"a.txt", "new", 20, 20),
        Comment("2", "x", b"a.txt", "old", 50, 50),
    ]
    sheet = Sheet([Para(literal("top"))], layout(diff), comments, [(5, 9)], 80)
    sides: tuple[tuple[Side, int], ...] = (("old", 100), ("new", 101))
    for side, count in sides:
        for line in range(1, count + 1):
            index = sheet.find(side, line)
            assert index is not None
            item = sheet[index]
            assert not isinstance(item, Words)
            first = item.old if side == "old" else item.new
            assert first is not None
            assert first <= line < first + max(1, item.hidden)
    assert sheet.find("new", 102) is None


def test_opened_lines_part_a_gap_and_the_rest_stays_one() -> None:
    sheet = Sheet((), unified(diff_of(OLD, NEW)), (), [(5, 8), (30, 33), (900, 950)], 80)
    told = tell(sheet)
    assert told[:5] == ["..4", "5>5", "6>6", "7>7", "..9"]
    assert "30>30" in told
    assert sum(int(line[2:]) for line in told if line.startswith("..")) == 100 - 6 - 6 - 8


def test_a_gap_of_one_line_is_the_line_itself() -> None:
    sheet = Sheet((), unified(diff_of(OLD, NEW)), (), [(2, 16)], 80)
    assert tell(sheet)[:3] == ["1>1", "2>2", "3>3"]


def test_a_gap_gives_up_its_ends_or_all() -> None:
    long, short = unified(diff_of(OLD, NEW))[0], unified(diff_of(OLD, NEW))[-1]
    assert open_ends(short) == [(85, 102)]
    middle = unified(diff_of(OLD, NEW), 0)
    gap = next(row for row in middle if row.hidden > 40)
    assert open_ends(gap) == [(21, 41), (60, 80)]
    assert open_ends(long) == [(1, 17)]


def test_a_comment_stands_below_its_last_line_and_one_without_a_line_at_the_top() -> None:
    comments = [
        Comment("1", "two\nlines", b"a.txt", "new", 20, 20),
        Comment("2", "lost", b"a.txt", "new", 700, 700),
    ]
    told = tell(Sheet((), unified(diff_of(OLD, NEW)), comments, (), 80))
    assert told[:2] == ["✎ comment on line 700", "lost"]
    at = told.index(">20")
    assert told[at + 1 : at + 4] == ["✎ comment on line 20", "two", "lines"]


def test_changes_are_jumped_to_from_anywhere() -> None:
    comments = [Comment("1", "said", b"a.txt", "new", 20, 20)]
    sheet = Sheet([Para(literal("top"))], unified(diff_of(OLD, NEW)), comments, [(90, 95)], 80)
    told = tell(sheet)
    first, second = told.index("20>"), told.index("80>")
    for index in range(len(sheet)):
        below, above = sheet.next_hunk(index, 1), sheet.next_hunk(index, -1)
        assert below == next((at for at in (first, second) if at > index), None)
        assert above == next((at for at in (second, first) if at < index), None)
    assert sheet.hunk_number(len(sheet) - 1) == (2, 2)


def test_a_page_without_a_diff_has_its_words_only() -> None:
    sheet = Sheet([Para(literal("binary"))], no_rows(), (), (), 80)
    assert tell(sheet) == ["binary"]
    assert sheet.next_hunk(0, 1) is None
    assert len(Sheet((), no_rows(), (), (), 80)) == 0


def test_long_words_are_broken_under_their_lead() -> None:
    words = break_para(Para(sanitize("one two three " * 10), lead="⚑ "), 40)
    assert len(words) > 2
    assert [line.lead for line in words[:2]] == ["⚑ ", "  "]
    assert "".join(line.text for line in words) == "one two three " * 10


def test_a_ladder_finds_items_of_any_height() -> None:
    ladder = Ladder(3, [1, 3, 2])
    assert [ladder.at(line) for line in range(6)] == [
        *((0, 0), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1)),
    ]
    assert ladder.at(6) == ladder.at(-1) == (None, 0)
    assert [ladder.height_of(index) for index in range(3)] == [1, 3, 2]
    assert Ladder(0, []).at(0) == (None, 0)
    assert Ladder(2).top(1) == 1


# Searching


def test_matches_are_in_the_order_of_the_page() -> None:
    diff = diff_of(b"a x\nb\nc x\nd\n", b"a x\nB x\nb2\nd x\n")
    matches = Matches(diff, "X")
    assert matches.places == [("new", 1), ("old", 3), ("new", 2), ("new", 4)]
    place, visited = None, []
    while place := matches.next(place, 1):
        visited.append(place)
    assert visited == matches.places
    while place := matches.next(place, -1):
        visited.append(place)
    assert visited[4:] == matches.places[::-1]


def test_places_in_a_line() -> None:
    assert find_in("aXbx", "x") == [(1, 2), (3, 4)]
    assert find_in("İx", "x") == [(0, 2)]  # its casefolded form is longer
    assert find_in("abc", "x") == []


# Marks and order


def test_folders_stand_before_files_and_each_by_name() -> None:
    paths = ("z.py", "a/z.py", "a/b/c.py", "B.py", "a/a.py")
    changes = order(change_of(path, b"1\n", b"2\n") for path in paths)
    assert [change.path.decode() for change in changes] == [
        *("a/b/c.py", "a/a.py", "a/z.py", "B.py", "z.py"),
    ]


def test_a_mark_of_the_whole_change_counts_for_what_changed_since() -> None:
    reading = make_reading(
        AgentId("a"), literal("moss"), {"a": (b"1\n", b"3\n"), "b": (b"1\n", b"2\n")}
    )
    marks = Marks(reading.review, reading.drafts())
    later = [change_of("a", b"2\n", b"3\n"), change_of("gone", b"1\n", None)]
    marks.show(later, is_since=True)
    assert marks.key(0) == reading.review.changes[0].key
    assert marks.key(1) == marks.changes[1].key
    assert marks.next_unviewed(ABOUT) == 0
    reading.mark(marks.key(0), is_viewed=True)
    marks.drafts = reading.drafts()
    assert marks.next_unviewed(ABOUT) == marks.next_unviewed(0) == 1
    reading.mark(marks.key(1), is_viewed=True)
    marks.drafts = reading.drafts()
    assert marks.next_unviewed(0) is None


def test_a_review_tells_its_age_and_that_part_was_not_committed() -> None:
    review = make_reading(AgentId("a"), literal("moss"), {"a": (b"1\n", b"3\n")}).review
    told = [para.text for para in tell_review(replace(review, is_uncommitted=True), START + 80)]
    assert any("1m ago" in text for text in told)
    assert any("not committed" in text for text in told)
    assert "no flags" in told


# Colours


def shades() -> Shades:
    return Shades(load_themes([builtin_folder()]).palettes["midnight"].variables())


@pytest.mark.parametrize(
    "spans", [[], [(0, 3, "keyword")], [(2, 900, "string"), (-5, 2, "name"), (4, 4, "type")]]
)
def test_colours_change_no_character(spans: Sequence[tuple[int, int, str]]) -> None:
    text = "def read(日本): pass"
    line = colour(text, "added", shades(), spans=spans, words=[(4, 8)], matches=[(5, 90)])
    assert "".join(segment.text for segment in line) == text


async def test_source_is_coloured_by_a_process_apart() -> None:
    process = paint.Lexer()
    try:
        lines = await process.ask("a.py", "", 'def f():\n    return """x\ny"""  # z')
        assert lines is not None
        assert (0, 3, "keyword") in lines[0]
        assert any(role == "string" for *_, role in lines[2])
        assert any(role == "comment" for *_, role in lines[2])
        assert await process.ask("a.nothing", "", "x") is None
        shell = await process.ask("run", "#!/usr/bin/env bash", "if true; then")
        assert shell is not None
        assert any(role == "keyword" for *_, role in shell[0])
    finally:
        await process.close()


SAY = "import sys; out = sys.stdout.buffer; "


@pytest.mark.parametrize(
    "program",
    [
        "import time; time.sleep(60)",
        SAY + "out.write(b'\\xff\\xff\\xff\\xff'); out.flush(); input()",
        SAY + "out.write(b'\\0\\0\\0\\2[]'); out.flush(); input()",
        SAY + "out.write(b'\\0\\0\\0\\7{\"a\":1}'); out.flush(); input()",
        "raise SystemExit(3)",
        "import os, signal; os.kill(os.getpid(), signal.SIGPROF)",
    ],
)
async def test_a_lexer_that_is_late_dies_or_lies_leaves_the_text_plain(
    program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = asyncio.create_subprocess_exec

    async def spoilt(*_: str, **options: int) -> asyncio.subprocess.Process:
        return await real(sys.executable, "-c", program, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(paint, "ANSWER_S", 1.0)
    monkeypatch.setattr(asyncio, "create_subprocess_exec", spoilt)
    process = paint.Lexer()
    assert await process.ask("a.py", "", "x = 1") is None
    monkeypatch.setattr(asyncio, "create_subprocess_exec", real)
    monkeypatch.setattr(paint, "ANSWER_S", 20.0)
    assert await process.ask("a.py", "", "x = 1") is not None  # the next file has another one
    await process.close()


async def test_a_lexer_ends_itself_when_it_works_too_long() -> None:
    # The timer counts the process's own work: a busy machine does not make a file plain.
    code = (
        "import signal; from swarm_tui.ui import lexer; lexer.WORK_S = 0.2\n"
        "def lex(question):\n"
        "    while True: pass\n"
        "lexer.lex = lex; lexer.main()"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        code,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert process.stdin
    process.stdin.write(lexer.LENGTH.pack(2) + b"{}")
    async with asyncio.timeout(20):
        assert await process.wait() < 0


async def test_a_file_is_coloured_by_chunks_as_they_are_seen() -> None:
    source = b"".join(b"x%d = 'a'  # b\n" % number for number in range(3000))
    diff = diff_of(None, source)
    painted = asyncio.Event()
    process = paint.Lexer()
    coat = paint.Coat(
        make(change_of("a.py", None, source), None, source, diff.spans), process, painted.set
    )
    try:
        assert coat.spans("new", 2900) == ()
        async with asyncio.timeout(20):
            await painted.wait()
        assert any(role == "string" for *_, role in coat.spans("new", 2900))
        assert coat.spans("new", 10) == ()  # nobody has looked there yet; it is asked for now
    finally:
        coat.close()
        await process.close()


# Themes


@pytest.mark.parametrize("name", ["midnight", "daylight", "contrast"])
def test_code_can_be_read_on_every_ground(name: str) -> None:
    palette = load_themes([builtin_folder()]).palettes[name]
    least = 7.0 if name == "contrast" else 4.5
    shades = Shades(palette.variables())
    roles = [f"syntax-{key}" for key in palette.colours["syntax"]]
    for ground in ("plain", "panel", "added", "removed", "added-word", "removed-word"):
        for role in (*roles, "text-normal"):
            for is_cursor in (False, True):
                style = shades.style(role, ground, is_cursor=is_cursor)
                assert style.color
                assert style.bgcolor
                found = contrast(style.color.name, style.bgcolor.name)
                assert found >= (4.5 if is_cursor else least), (role, ground, is_cursor, found)


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        def linear(channel: float) -> float:
            return channel / 12.92 if channel <= 0.03928 else ((channel + 0.055) / 1.055) ** 2.4

        red, green, blue = (linear(part / 255) for part in Color.parse(colour).rgb)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
