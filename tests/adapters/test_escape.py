"""What a guest's shell may do to the user's terminal, and what is undone when it ends."""

from __future__ import annotations

import random

import pytest

from swarm_tui.adapters.escape import OutputFilter


def passed(data: bytes, *, is_utf8: bool = True) -> bytes:
    return OutputFilter(is_utf8=is_utf8).feed(data)


@pytest.mark.parametrize(
    "wanted",
    [
        b"plain text\r\n\ttab \x07bell \x08\x08",
        "Grüße, 日本語, 🎉 and ° » Â".encode(),
        b"\x1b[1;38;2;1;2;3mcolour\x1b[0m",
        b"\x1b[?1049h\x1b[2J\x1b[H\x1b[?25l\x1b[?2004h\x1b[?1000;1006h",
        b"\x1b[10;20r\x1b[5;1H\x1bM\x1b7\x1b8\x1bD\x1b(0lqk\x1b(B\x1b=\x1b>",
        b"\x1b[6n\x1b[c\x1b[>c\x1b[18t\x1b[22;0;0t\x1b[2 q\x1b[>4;2m\x1b[?u\x1b[>1u\x1b[<u",
        b"\x1b[?2026h\x1b[38:2::1:2:3m\x1b[4:3m\x1b[!p\x1bc",
    ],
)
def test_what_full_screen_programs_use_passes_unchanged(wanted: bytes) -> None:
    assert passed(wanted) == wanted


@pytest.mark.parametrize(
    ("hostile", "left"),
    [
        (b"a\x1b]52;c;ZXZpbA==\x07b", b"ab"),
        (b"a\x1b]52;c;ZXZpbA==\x1b\\b", b"ab"),
        (b"a\x1b]0;title\x07b\x1b]2;title\x1b\\c", b"abc"),
        (b"a\x1b]8;;http://evil\x1b\\text\x1b]8;;\x1b\\b", b"atextb"),
        (b"a\x1b]1337;File=:AAAA\x07b\x1b]9;notify\x07c\x1b]777;notify\x07d", b"abcd"),
        (b"a\x1bP+q544e\x1b\\b\x1b_Gq=1\x1b\\c\x1b^pm\x1b\\d\x1bXsos\x1b\\e", b"abcde"),
        (b"a\x1bPtmux;\x1b\x1b]52;c;eA==\x07\x1b\\b", b"ab"),
        (b"a\x1bktmux title\x1b\\b", b"ab"),
        (b"a\x1b]52;c;never ends", b"a"),
        (b"a\x1b]52;c;cut short\x18b", b"ab"),
        (b"a\x1b]52;c;next\x1b[1mb", b"a\x1b[1mb"),
        (b"a\xc2\x9d52;c;eA==\xc2\x9cb\xc2\x9b31m", b"a52;c;eA==b31m"),
        (b"a\x05b", b"ab"),
        (b"a\x1b[21tb\x1b[20tc\x1b[3;0;0td\x1b[8;10;10te", b"abcde"),
        (b"a\x1b[5ib\x1b[?5ic\x1b[2hd\x1b[1;1;1;1;9;9*ye", b"abcde"),
        (b"a\x1b%@b\x1b%Gc\x1b Gd", b"abcd"),
        (b"a\x1b[1\x1b]52;c;eA==\x07b", b"ab"),
        (b"a\x1b[1\x002mb", b"a\x002mb"),
        (b"a\x1b\x1b]52;c;eA==\x07b", b"ab"),
        (b"a\x1b]4;1;rgb:ff/00/00\x00\x07b", b"ab"),
    ],
)
def test_what_reaches_beyond_the_session_is_dropped(hostile: bytes, left: bytes) -> None:
    assert passed(hostile) == left


def test_colours_pass_and_end_in_one_way() -> None:
    assert passed(b"\x1b]11;?\x07\x1b]4;1;rgb:ff/0/0\x1b\\") == (
        b"\x1b]11;?\x1b\\\x1b]4;1;rgb:ff/0/0\x1b\\"
    )


def test_a_terminal_that_is_not_utf_8_gets_no_8_bit_controls() -> None:
    assert passed(b"a\x9d52;c;eA==\x9cb\x9b1mc \xe4", is_utf8=False) == b"a52;c;eA==b1mc \xe4"


def test_nothing_depends_on_how_the_stream_is_cut() -> None:
    pieces = [
        *(b"text ", "ü日".encode(), b"\x1b[1;31m", b"\x1b]52;c;eA==\x07", b"\x1b]11;?\x1b\\"),
        *(b"\x1bPq#0\x1b\\", b"\x1b[?1049h", b"\x1b", b"[", b"]", b"\x9c", b"\xc2", b"\xc2\x9d"),
        *(b"\x18", b"\x1b(B", b"\x05", b";", b"7", b"\x1b]4;", b"\x07", b"\x1b\\"),
    ]
    chance = random.Random(1)
    for _ in range(300):
        stream = b"".join(chance.choices(pieces, k=30)) + b"\x18\x18"
        whole = passed(stream)
        one_by_one = OutputFilter()
        assert b"".join(one_by_one.feed(stream[at : at + 1]) for at in range(len(stream))) == whole
        assert b"\x1b]52" not in whole
        assert b"\x1bP" not in whole


def test_little_is_held_back() -> None:
    for beginning in (b"\x1b]11;", b"\x1b[", b"\x1b]52;", b"\x1bP", b"\x1b("):
        output_filter = OutputFilter()
        output_filter.feed(beginning)
        for _ in range(100):
            output_filter.feed(b"1" * 10_000)
            assert len(output_filter._held) < 1000


def test_the_end_undoes_what_the_guest_left_on() -> None:
    output_filter = OutputFilter()
    output_filter.feed(
        b"\x1b[?1049h\x1b[?25l\x1b[?1002;1006h\x1b[?2004h\x1b[?7l\x1b[4h\x1b[1;5r\x1b[>1u\x1b[5 q"
        b"\x1b]11;#000\x07\x1b[31m"
    )
    undone = output_filter.restore()
    for end in (
        *(b"\x1b[?1049l", b"\x1b[?25h", b"\x1b[?1002l", b"\x1b[?1006l", b"\x1b[?2004l"),
        *(
            b"\x1b[?7h",
            b"\x1b[4l",
            b"\x1b[r",
            b"\x1b[<1u",
            b"\x1b[0 q",
            b"\x1b]111\x07",
            b"\x1b[0m",
        ),
    ):
        assert end in undone


def test_the_end_touches_nothing_that_was_put_back() -> None:
    output_filter = OutputFilter()
    output_filter.feed(
        b"\x1b[?1049h\x1b[?25l text \x1b[?25h\x1b[?1049l\x1b[>1u\x1b[<u\x1b[2;3r\x1b[r"
    )
    undone = output_filter.restore()
    for untouched in (b"1049", b"25l", b"\x1b[r", b"u"):
        assert untouched not in undone
    assert OutputFilter().restore() == b""
