"""Regular expressions that a person types: with smart case, and never slow.

RE2 (https://github.com/google/re2/wiki/Syntax) takes time linear in the text, whatever the
expression; it knows no back-references and no look-around.
"""

from __future__ import annotations

import re
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

    def matches(self, text: str) -> bool:
        return self._compiled.search(text) is not None

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
        return Pattern(text, re2.compile(text, options))
    except re2.error as error:
        told = error.args[0] if error.args else "it cannot be read"
        reason = told.decode("utf-8", "replace") if isinstance(told, bytes) else str(told)
        raise UsageError("This is no regular expression", reason, _hint(reason)) from error


def _hint(reason: str) -> str:
    if "perl operator" in reason or "escape sequence" in reason:
        return "Look-around and back-references are not known; \\ before a sign takes it literally."
    return "A \\ before a sign takes it literally."
