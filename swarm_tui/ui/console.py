"""The serial console of a VM as lines of text; read only."""

from __future__ import annotations

import re
from codecs import getincrementaldecoder
from typing import Final

from swarm_tui.text import Safe, sanitize

LINES_AT_MOST: Final = 2000
_LINE_AT_MOST: Final = 16384
_SEQUENCE: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[()*+][ -~]|[=>78cDEHM])")
"""Whole sequences that only colour or place the text. They say nothing on lines of text, and are
left out so that it can be read; all other controls are seen as signs."""


class Transcript:
    """Makes lines of what a console sends; bytes may come in pieces of any size."""

    def __init__(self) -> None:
        self._decoder = getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def feed(self, data: bytes) -> list[Safe]:
        """The lines that are whole by now."""
        text = self._rest + self._decoder.decode(data)
        *whole, self._rest = text.replace("\r\n", "\n").split("\n")
        if len(self._rest) > _LINE_AT_MOST:
            whole.append(self._rest)
            self._rest = ""
        return [self._clean(line) for line in whole]

    @property
    def unfinished(self) -> Safe:
        """The line that has no end yet: a prompt, most of the time."""
        return self._clean(self._rest)

    def _clean(self, line: str) -> Safe:
        # A carriage return writes over the line: what came last is what a terminal would show.
        return sanitize(_SEQUENCE.sub("", line.rstrip("\r")).rpartition("\r")[2])
