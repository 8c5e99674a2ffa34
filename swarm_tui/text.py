"""The one choke point for text that we did not write.

Whatever comes from a guest, a host, git or libvirt enters the program as `Untrusted`, which
refuses to be formatted. `sanitize` is the only way to a `Safe` string, and only `Safe` text goes
to a screen. Terminal toolkits strip nothing by themselves: an escape sequence in a log line or a
VM's name would reach the user's terminal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, Literal, NewType

Safe = NewType("Safe", str)
"""Text that holds no control, bidirectional, invisible or surrogate character (but newline, where
asked for). Made by `sanitize`, `literal` and `join` only; a test greps for other constructions."""

EMPTY: Final = Safe("")
TAB_CELLS: Final = 4
LINE_CELLS: Final = 4096

_PICTURES: Final = {code: chr(0x2400 + code) for code in range(0x20)} | {0x7F: "\u2421"}
"""C0 and DEL have visible pictures, so that hostile output is seen instead of vanishing."""

_DROPPED: Final = (
    (0x80, 0x9F),  # C1: an 8-bit CSI starts here
    (0xAD, 0xAD),  # soft hyphen
    (0x34F, 0x34F),  # combining grapheme joiner
    (0x61C, 0x61C),  # Arabic letter mark
    (0x115F, 0x1160),  # Hangul fillers
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),  # zero width, direction marks
    (0x2028, 0x202E),  # line and paragraph separators, bidi embeddings
    (0x2060, 0x206F),  # word joiner, bidi isolates, deprecated formats
    (0x3164, 0x3164),
    (0xD800, 0xDFFF),  # surrogates
    (0xE000, 0xF8FF),  # private use: fonts draw anything there
    (0xFE00, 0xFE0F),  # variation selectors
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFFB),
    (0xFFFE, 0xFFFF),  # no characters; XML refuses them
    (0x13430, 0x13440),  # hieroglyph layout
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0x10FFFF),  # tags and the upper private planes
)
_REPLACEMENT: Final = "\ufffd"

_HOSTILE: Final = re.compile(
    "[\\x00-\\x1f\\x7f" + "".join(f"\\U{low:08x}-\\U{high:08x}" for low, high in _DROPPED) + "]"
)
_EMOJI_STYLE: Final = re.compile("([\\u203c-\\u3299\\U0001f000-\\U0001faff])\\ufe0f")
"""A sign and the selector that asks for its coloured form: common, and safe to leave out."""

MARKS: Final = 3
"""Marks that may be stacked on one letter; no living script needs more."""
_MARK_BLOCKS: Final = (
    "[\\u0300-\\u036f\\u0483-\\u0489\\u0591-\\u1cff\\u1dc0-\\u1dff\\u20d0-\\u20ff\\u2ce0-\\u2dff"
    "\\u3020-\\u309f\\ua66f-\\uabff\\ufb1e\\ufe20-\\ufe2f\\U00010000-\\U0001efff]"
)
"""Where Unicode has its combining marks, among letters: the first, quick look."""
_CROWDED: Final = re.compile(f"^{_MARK_BLOCKS}|{_MARK_BLOCKS}{{{MARKS + 1}}}")
_DOTTED_CIRCLE: Final = "\u25cc"


class Untrusted:
    """Text or bytes from outside; it cannot be printed or formatted by accident.

    Bytes are read as UTF-8, and what is not UTF-8 becomes U+FFFD.
    """

    __slots__ = ("_raw",)

    def __init__(self, raw: str | bytes) -> None:
        self._raw = raw if isinstance(raw, str) else raw.decode("utf-8", "replace")

    def reveal(self) -> str:
        """The raw text, for parsing only: never for a screen, a log or an error."""
        return self._raw

    def __str__(self) -> str:
        raise TypeError("Untrusted text must pass sanitize() before it is shown")

    __format__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Untrusted({len(self._raw)} characters)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Untrusted) and self._raw == other._raw

    def __hash__(self) -> int:
        return hash(self._raw)


def sanitize(
    text: Untrusted | str | bytes,
    *,
    lines: Literal["one", "many"] = "one",
    max_cells: int = LINE_CELLS,
) -> Safe:
    """Make foreign text safe to show.

    Controls become visible pictures (␛ for ESC), invisible and bidirectional characters become
    U+FFFD, tabs become spaces, stacks of combining marks are cut to `MARKS`, a mark without a
    letter gets a dotted circle, and a line of more than `max_cells` (at least 1) characters ends
    there with an ellipsis. With `lines="one"` a newline becomes ␊.
    """
    raw = text.reveal() if isinstance(text, Untrusted) else Untrusted(text).reveal()
    if raw.isascii() and raw.isprintable():  # the common case, and the hot one
        return Safe(raw if len(raw) <= max_cells else _cut(raw, max_cells))
    if lines == "many":
        parts = raw.replace("\r\n", "\n").split("\n")
        return Safe("\n".join(_clean_line(part, max_cells) for part in parts))
    return Safe(_clean_line(raw, max_cells))


def _clean_line(line: str, max_cells: int) -> str:
    # Cut first with room to spare, so that a line of megabytes costs no more than a short one.
    head = line[: max_cells + 1].expandtabs(TAB_CELLS)
    cleaned = _HOSTILE.sub(_visible, _EMOJI_STYLE.sub(r"\1", head))
    if _CROWDED.search(cleaned):
        cleaned = _thin(cleaned)
    is_whole = len(line) <= max_cells + 1 and len(cleaned) <= max_cells
    return cleaned if is_whole else _cut(cleaned, max_cells)


def _cut(line: str, max_cells: int) -> str:
    return line[: max(max_cells - 1, 0)] + "…"


def _visible(match: re.Match[str]) -> str:
    return _PICTURES.get(ord(match.group()), _REPLACEMENT)


def _thin(line: str) -> str:
    """Stacks of marks cut, and a letter for a mark at the line's beginning to stand on."""
    import unicodedata

    kept: list[str] = []
    stack = 0
    for character in line:
        is_mark = unicodedata.category(character) in ("Mn", "Me")
        stack = stack + 1 if is_mark else 0
        if is_mark and not kept:
            kept.append(_DOTTED_CIRCLE)
        if stack <= MARKS:
            kept.append(character)
    return "".join(kept)


def literal(text: str) -> Safe:
    """Text written in this program's own source; it is checked, not cleaned.

    Raises ValueError when the text would not pass `sanitize` unchanged.
    """
    if sanitize(text, lines="many", max_cells=len(text) + 1) != text:
        raise ValueError("a literal must be plain text")
    return Safe(text)


def join(parts: Iterable[Safe], separator: str = " ") -> Safe:
    """Join safe parts, empty ones left out; `separator` is the program's own text."""
    return Safe(literal(separator).join(part for part in parts if part))
