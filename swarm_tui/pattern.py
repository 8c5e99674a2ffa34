"""Regular expressions that a person types: with smart case, and never slow.

RE2 (https://github.com/google/re2/wiki/Syntax) takes time linear in the text, whatever the
expression; it knows no back-references and no look-around.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from swarm_tui.errors import UsageError

LONGEST: Final = 1000
"""Characters of an expression."""
_MEMORY_BYTES: Final = 8 << 20
_ESCAPED: Final = re.compile(r"\\(?:[pP]\{[^}]*\}|x\{[^}]*\}|.)|\[:\w+:\]|\(\?P?<\w*>")


@dataclass(frozen=True, slots=True)
class Pattern:
    """A compiled expression; without a capital letter in it, case makes no difference."""

    text: str
    _compiled: Any
    _in_lines: Any

    def matches(self, text: str) -> bool:
        return self._compiled.search(text) is not None

    def among(self, lines: Sequence[str]) -> list[bool]:
        """Which of many lines match: quicker than one by one where few do."""
        found = [False] * len(lines)
        starts, place = [], 0
        encoded = [line.encode("utf-8", "replace") for line in lines]
        for line in encoded:
            starts.append(place)
            place += len(line) + 1
        text = b"\n".join(encoded)
        place = 0
        while lines and (match := self._in_lines.search(text, place)):
            number = bisect_right(starts, match.start()) - 1
            found[number] = True
            if number + 1 == len(lines):
                break
            place = starts[number + 1]
        return found

    def spans(self, text: str) -> Sequence[tuple[int, int]]:
        """Every place in a text, as [start, end); empty matches are left out."""
        return [
            match.span() for match in self._compiled.finditer(text) if match.end() > match.start()
        ]


def compile_pattern(text: str) -> Pattern:
    """Raises UsageError, which says what is wrong with the expression."""
    import re2  # only where something is searched: it is a library of some megabytes

    if len(text) > LONGEST:
        raise UsageError("The expression is too long", f"{len(text)} characters, of {LONGEST}")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MEMORY_BYTES
    options.case_sensitive = any(letter.isupper() for letter in _ESCAPED.sub("", text))
    try:
        compiled = re2.compile(text, options)
        options.never_nl = True
        return Pattern(text, compiled, re2.compile(f"(?m:{text})", options))
    except re2.error as error:
        told = error.args[0] if error.args else "it cannot be read"
        reason = told.decode("utf-8", "replace") if isinstance(told, bytes) else str(told)
        raise UsageError("This is no regular expression", reason, _hint(reason)) from error


def _hint(reason: str) -> str:
    if "perl operator" in reason or "escape sequence" in reason:
        return "Look-around and back-references are not known; \\ before a sign takes it literally."
    return "A \\ before a sign takes it literally."
