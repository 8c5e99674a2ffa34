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
    (0x1D173, 0x1D17A),
    (0xE0000, 0x10FFFF),  # tags and the upper private planes
)
_REPLACEMENT: Final = "\ufffd"

_HOSTILE: Final = re.compile(
    "[\\x00-\\x09\\x0b-\\x1f\\x7f"
    + "".join(f"\\U{low:08x}-\\U{high:08x}" for low, high in _DROPPED)
    + "]"
)
_COMBINING: Final = "[\\u0300-\\u036f\\u0483-\\u0489\\u20d0-\\u20ff]"
_COMBINING_RUN: Final = re.compile(f"({_COMBINING}{{2}}){_COMBINING}+")


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
    U+FFFD, tabs become spaces, runs of more than two combining marks are cut, and each line is
    capped at `max_cells` characters with an ellipsis. With `lines="one"` a newline becomes ␊.
    """
    raw = text.reveal() if isinstance(text, Untrusted) else Untrusted(text).reveal()
    if raw.isascii() and raw.isprintable():  # the common case, and the hot one
        return Safe(raw if len(raw) <= max_cells else raw[: max_cells - 1] + "…")
    if lines == "many":
        parts = raw.replace("\r\n", "\n").split("\n")
        return Safe("\n".join(_clean_line(part, max_cells) for part in parts))
    return Safe(_clean_line(raw.replace("\n", _PICTURES[0x0A]), max_cells))


def _clean_line(line: str, max_cells: int) -> str:
    # Cut first with room to spare, so that a line of megabytes costs no more than a short one.
    cut = line[: max_cells + 1].expandtabs(TAB_CELLS)
    cleaned = _COMBINING_RUN.sub(r"\1", _HOSTILE.sub(_visible, cut))
    return cleaned if len(cleaned) <= max_cells else cleaned[: max_cells - 1] + "…"


def _visible(match: re.Match[str]) -> str:
    return _PICTURES.get(ord(match.group()), _REPLACEMENT)


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
