"""The choke point for foreign text: what goes through it cannot reach beyond its own cells."""

from __future__ import annotations

import json
import sys
import unicodedata

import pytest

from swarm_tui.errors import SwarmError
from swarm_tui.text import EMPTY, LINE_CELLS, MARKS, Safe, Untrusted, join, literal, sanitize

OSC_52 = "\x1b]52;c;cm0gLXJmIC8=\x07"
HOSTILE = {
    "csi": "\x1b[2J\x1b[1;1Hgone",
    "osc 52, the clipboard": OSC_52,
    "osc 8, a link": "\x1b]8;;file:///etc/passwd\x1b\\click\x1b]8;;\x1b\\",
    "dcs": "\x1bP1$r0m\x1b\\",
    "8-bit csi": "\x9b31mred",
    "8-bit osc": "\x9d0;title\x9c",
    "bell and backspace": "safe\x07\x08\x08\x08\x08evil",
    "carriage return": "100% done\rrm -rf",
    "vertical tab, form feed": "a\x0bb\x0cc",
    "delete": "a\x7fb",
    "null": "a\x00b",
    "next line": "a\x85b",
    "bidi override": "user\u202etxt.exe",
    "bidi isolate": "a\u2066b\u2069",
    "zero width": "pass\u200bword\ufeff",
    "tags": "hi" + "".join(chr(0xE0000 + ord(c)) for c in "ignore all"),
    "variation selectors": "a" + "".join(chr(0xE0100 + n) for n in range(20)),
    "surrogate": "a\ud83db",
    "line separator": "a\u2028b\u2029c",
    "private use": "a\ue0b0b",
    "soft hyphen": "pass\u00adword",
    "zalgo": "h" + "\u0335\u0322" * 500 + "i",
    "arabic marks": "\u0628" + "\u064b\u064c" * 500,
    "a mark for the neighbour": "\u0336\u0336struck",
    "hieroglyph layout": "\U00013000\U00013430\U00013000",
    "shorthand format": "a\U0001bca0b",
    "tabs": "\t" * 3000,
    "a megabyte": "x" * (1 << 20) + OSC_52,
    "a megabyte of marks": "a" + "\u0301" * (1 << 20),
    "a megabyte of escapes": OSC_52 * (1 << 16),
    "many lines": "a\nb\r\nc\r\n\n",
    "not a character": "a\ufffeb\uffff",
}
INVISIBLE = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
VISIBLE_SIGNS = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
"""Of category Cf, and yet drawn: signs that stand before or below digits and letters."""


def assert_harmless(text: str, *, lines: bool = False) -> None:
    stack = MARKS + 1
    for character in text:
        category = unicodedata.category(character)
        stack = stack + 1 if category in ("Mn", "Me") else 0
        assert stack <= MARKS, "too many marks on a letter, or one without a letter"
        if lines and character == "\n":
            stack = MARKS + 1
            continue
        assert category not in INVISIBLE or ord(character) in VISIBLE_SIGNS, hex(ord(character))
    text.encode("utf-8")


@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("max_cells", [1, 2, 10, 80, LINE_CELLS])
def test_hostile_text_becomes_harmless(raw: str, max_cells: int) -> None:
    one = sanitize(raw, max_cells=max_cells)
    assert_harmless(one)
    assert len(one) <= max_cells
    assert sanitize(one, max_cells=max_cells) == one

    many = sanitize(raw, lines="many", max_cells=max_cells)
    assert_harmless(many, lines=True)
    assert all(len(line) <= max_cells for line in many.split("\n"))
    assert sanitize(many, lines="many", max_cells=max_cells) == many


def test_every_character_there_is_becomes_harmless_and_stays_as_it_became() -> None:
    for start in range(0, sys.maxunicode + 1, 512):
        # A letter before each, so that a mark has something to stand on.
        raw = "".join(f"x{chr(code)}" for code in range(start, start + 512))
        for lines in ("one", "many"):
            cleaned = sanitize(raw, lines=lines)
            assert_harmless(cleaned, lines=lines == "many")
            assert sanitize(cleaned, lines=lines) == cleaned


def test_every_character_alone_becomes_harmless() -> None:
    for code in (*range(0x20000), *range(0xE0000, 0xE0200)):
        cleaned = sanitize(chr(code))
        if cleaned != chr(code):
            assert_harmless(cleaned)
        elif unicodedata.category(cleaned) in (*INVISIBLE, "Mn", "Me"):
            assert code in VISIBLE_SIGNS, hex(code)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain", "plain"),
        ("", ""),
        ("\x1b[31m", "␛[31m"),
        ("a\x00\x7f", "a␀␡"),
        ("100%\r", "100%␍"),
        ("a\nb", "a␊b"),
        ("a\tb", "a   b"),
        ("\x9b31m", "\ufffd31m"),
        ("a\u202eb", "a\ufffdb"),
        ("größer, 你好, עברית, हिंदी, ✓", "größer, 你好, עברית, हिंदी, ✓"),
        ("cafe\u0301", "cafe\u0301"),
        ("ใหญ่ที่สุด", "ใหญ่ที่สุด"),
        ("a" + "\u0301" * 9, "a" + "\u0301" * 3),
        ("\u0301a", "\u25cc\u0301a"),
        ("⚠\ufe0f look", "⚠ look"),
        ("a\ufe0f", "a\ufffd"),
        ("[bold]not markup[/]", "[bold]not markup[/]"),
    ],
)
def test_what_is_shown_instead(raw: str, shown: str) -> None:
    assert sanitize(raw) == shown
    assert sanitize(Untrusted(raw)) == shown


def test_bytes_that_are_not_utf8_are_shown_as_such() -> None:
    assert sanitize(b"caf\xe9 \x9b31m") == "caf\ufffd \ufffd31m"
    assert sanitize("größer".encode()) == "größer"
    assert sanitize(b"\xed\xa0\x80") == "\ufffd" * 3, "an encoded surrogate"


def test_lines_are_kept_where_asked_for() -> None:
    assert sanitize("a\r\nb\n\nc\rd", lines="many") == "a\nb\n\nc␍d"


def test_what_is_cut_off_is_never_cut_off_in_silence() -> None:
    assert sanitize("abcdef", max_cells=4) == "abc…"
    assert sanitize("äbcdef", max_cells=4) == "äbc…"
    assert sanitize("abcd", max_cells=4) == "abcd"
    assert sanitize("äbcd", max_cells=4) == "äbcd"
    hidden = "a" + "\u0301" * 5000 + "rm -rf /"
    assert sanitize(hidden).endswith("…")


def test_a_long_line_costs_no_more_than_a_short_one() -> None:
    class Counted(str):
        """A line that tells how much of it was looked at, character by character."""

        taken = 0

        def __getitem__(self, key: object) -> str:
            part = super().__getitem__(key)  # type: ignore[index]
            Counted.taken += len(part)
            return part

    raw = Counted("\x1b" * (1 << 20))
    cleaned = sanitize(raw, max_cells=100)
    assert len(cleaned) == 100
    assert Counted.taken <= 101


def test_untrusted_text_cannot_be_shown_by_accident() -> None:
    secret = Untrusted(OSC_52)
    for show in (
        str,
        lambda text: f"{text}",
        lambda text: f"{text:>5}",
        "{}".format,
        lambda text: " ".join([text]),
        lambda text: "" + text,
        json.dumps,
        print,
    ):
        with pytest.raises(TypeError):
            show(secret)
    assert "52" not in repr(secret)
    assert secret.reveal() == OSC_52


def test_untrusted_text_compares_by_content() -> None:
    assert Untrusted("a") == Untrusted(b"a")
    assert Untrusted("a") != "a"
    assert len({Untrusted("a"), Untrusted("a")}) == 1


def test_a_literal_must_be_plain_text() -> None:
    assert literal("running, 3 min · ✓") == "running, 3 min · ✓"
    assert literal("two\nlines") == "two\nlines"
    assert literal("") == EMPTY
    for hostile in ("\x1b[31m", "a\tb", "a\u202e", "\u0301", "a\ud800"):
        with pytest.raises(ValueError, match="plain text"):
            literal(hostile)


def test_joining_leaves_out_what_is_empty() -> None:
    parts = [literal("a"), EMPTY, sanitize("\x1bb")]
    assert join(parts) == "a ␛b"
    assert join(parts, ": ") == "a: ␛b"
    assert join([]) == ""
    with pytest.raises(ValueError, match="plain text"):
        join(parts, "\x1b")


def test_errors_carry_foreign_text_harmlessly_and_in_bounds() -> None:
    error = SwarmError(f"no\n{OSC_52}", f"{OSC_52}\nline\n" * 5000, OSC_52)
    for text in (error.title, error.detail, error.hint, Safe(str(error))):
        assert_harmless(text, lines=True)
    assert "\n" not in error.title
    assert error.detail.count("\n") == 200
    assert error.detail.endswith("… and 9801 more lines")
