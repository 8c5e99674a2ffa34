"""What a guest may say to the user's own terminal during a shell.

A full-screen program needs the terminal raw, so its bytes are not sanitized like other guest text.
They are filtered instead: what draws passes, what reaches beyond the session does not.

Dropped: the clipboard (OSC 52), titles, links, notifications, files and every other OSC but
colours; DCS, APC, PM and SOS strings, which carry graphics, key definitions and passthrough; the
answerback, reports of the title and of the screen's content, moving and resizing of the window,
printing, locking of the keyboard, a change of the character encoding, and 8-bit controls.
Sequences: ECMA-48 and xterm's ctlseqs.
"""

from __future__ import annotations

import re
from typing import Final

_LONGEST_SEQUENCE: Final = 256
_LONGEST_COLOURS: Final = 512

_BEGINNING: Final = re.compile(rb"[\x05\x1b\xc2]")
"""Where something that is not plain text may begin. U+0080 to U+009F begin with 0xC2 in UTF-8, and
some terminals obey them; a lone byte of that range is malformed UTF-8 and obeyed by none."""
_BEGINNING_8_BIT: Final = re.compile(rb"[\x05\x1b\x80-\x9f]")

_CONTROL: Final = re.compile(rb"\x1b\[([0-?]*)([ -/]*)([@-~])")
_ESCAPE: Final = re.compile(rb"\x1b([ -/]*)([0-~])")
_UNFINISHED: Final = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|[ -/]*)\Z")
_MALFORMED: Final = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|[ -/]*)")
_COLOURS: Final = re.compile(
    rb"\x1b\]((?:4|1[0-9]|104|11[0-9])(?:;[0-9A-Za-z:/#?;.,%-]*)?)(?:\x07|\x1b\\)"
)
_UNFINISHED_COLOURS: Final = re.compile(rb"\x1b\][0-9A-Za-z:/#?;.,%-]*\x1b?\Z")
_STRING_END: Final = re.compile(rb"[\x07\x18\x1a\x1b]")

_STRING_STARTS: Final = frozenset(b"]PX^_k")
"""After ESC: OSC, DCS, SOS, PM, APC, and the title of screen and tmux."""

_FORBIDDEN_WINDOW_ACTIONS: Final = frozenset({*range(1, 11), 20, 21})
"""CSI … t: moving, resizing and hiding the window; reports of its titles."""

_OFF_AT_REST: Final = frozenset(
    {1, 3, 5, 6, 9, 47, 66, 69, 1047, 1049, 2004, 2026, 2031, 2048}
    | {1000, 1001, 1002, 1003, 1004, 1005, 1006, 1015, 1016}
)
_ON_AT_REST: Final = frozenset({7, 25})
"""Private modes of a terminal that nobody has touched: wrapping and the cursor are on, the rest
(cursor keys, alternate screens, mouse, focus, paste, synchronised output…) is off."""


class OutputFilter:
    """Filters one session's output as it streams, and knows what to undo when it ends.

    Nothing but an unfinished sequence is held back, at most `_LONGEST_COLOURS` bytes.
    """

    def __init__(self, *, is_utf8: bool = True) -> None:
        self._beginning = _BEGINNING if is_utf8 else _BEGINNING_8_BIT
        self._held = b""
        self._is_in_string = False
        self._modes: dict[tuple[bool, int], bool] = {}
        self._pushed_keyboards = 0
        self._undo: dict[str, bytes] = {}
        self._has_escaped = False

    def feed(self, data: bytes) -> bytes:
        """The part of `data` (and of what was held back before) that may reach the terminal."""
        data = self._held + data
        self._held = b""
        passed: list[bytes] = []
        at = 0
        while at < len(data):
            if self._is_in_string:
                end = _STRING_END.search(data, at)
                if not end:
                    break
                # An ESC ends the string too, and is looked at again as what it may begin.
                self._is_in_string = False
                at = end.start() if end.group() == b"\x1b" else end.end()
                continue
            found = self._beginning.search(data, at)
            if not found:
                passed.append(data[at:])
                break
            passed.append(data[at : found.start()])
            at = found.start()
            taken, let_through = self._take(data, at)
            self._has_escaped = True
            if not taken:
                self._held = data[at:]
                break
            passed.append(let_through)
            at += taken
        return b"".join(passed)

    def restore(self) -> bytes:
        """What brings the terminal back to rest after all that passed."""
        self._held, self._is_in_string = b"", False
        parts = []
        if self._pushed_keyboards:
            parts.append(b"\x1b[<%du" % self._pushed_keyboards)
        for (is_private, mode), is_on in self._modes.items():
            if is_private and is_on and mode in _OFF_AT_REST:
                parts.append(b"\x1b[?%dl" % mode)
            elif is_private and not is_on and mode in _ON_AT_REST:
                parts.append(b"\x1b[?%dh" % mode)
            elif not is_private and is_on:
                parts.append(b"\x1b[%dl" % mode)
        parts += self._undo.values()
        if self._has_escaped:  # colours, keypad and character set
            parts.append(b"\x1b[0m\x1b>\x1b(B\x0f")
        return b"".join(parts)

    def _take(self, data: bytes, at: int) -> tuple[int, bytes]:
        """How many bytes the sequence at `at` has, 0 while unfinished, and what passes of it."""
        if data[at] == 0xC2:
            if at + 1 == len(data):
                return 0, b""
            is_control = 0x80 <= data[at + 1] <= 0x9F
            return (2, b"") if is_control else (1, b"\xc2")
        if data[at] != 0x1B:
            return 1, b""
        if at + 1 < len(data) and data[at + 1] in _STRING_STARTS:
            return self._take_string(data, at)
        if control := _CONTROL.match(data, at):
            return len(control.group()), self._judge(control)
        if data[at + 1 : at + 2] != b"[" and (escape := _ESCAPE.match(data, at)):
            return len(escape.group()), _judge_escape(escape)
        if _UNFINISHED.match(data, at) and len(data) - at <= _LONGEST_SEQUENCE:
            return 0, b""
        malformed = _MALFORMED.match(data, at)
        return len(malformed.group()) if malformed else 1, b""

    def _take_string(self, data: bytes, at: int) -> tuple[int, bytes]:
        if colours := _COLOURS.match(data, at):
            self._undo["colours"] = b"\x1b]104\x07\x1b]110\x07\x1b]111\x07\x1b]112\x07"
            return len(colours.group()), b"\x1b]%s\x1b\\" % colours.group(1)
        if _UNFINISHED_COLOURS.match(data, at) and len(data) - at <= _LONGEST_COLOURS:
            return 0, b""
        self._is_in_string = True
        return 2, b""

    def _judge(self, control: re.Match[bytes]) -> bytes:
        """Let a control sequence pass or not, and remember what it leaves behind."""
        parameters, between, final = control.groups()
        numbers = [int(number[:6]) for number in re.findall(rb"\d+", parameters)]
        match between + final:
            case b"h" | b"l":
                is_private = parameters.startswith(b"?")
                if not is_private and 2 in numbers:
                    return b""
                self._note_modes(is_private, numbers, is_on=final == b"h")
            case b"t" if not numbers or numbers[0] in _FORBIDDEN_WINDOW_ACTIONS:
                return b""
            case b"i" | b"*y":
                return b""
            case b"r" if not parameters.startswith(b"?"):
                self._undo["margins"] = b"\x1b7\x1b[r\x1b8" if numbers else b""
            case b" q":
                self._undo["cursor"] = b"\x1b[0 q"
            case b"m" if parameters.startswith(b">"):
                self._undo["modified keys"] = b"\x1b[>4m"
            case b"u" if parameters.startswith(b">"):
                self._pushed_keyboards = min(self._pushed_keyboards + 1, 99)
            case b"u" if parameters.startswith(b"<"):
                popped = numbers[0] if numbers else 1
                self._pushed_keyboards = max(self._pushed_keyboards - popped, 0)
            case b"u" if parameters.startswith(b"="):
                self._undo["keyboard"] = b"\x1b[=0u"
        return control.group()

    def _note_modes(self, is_private: bool, modes: list[int], *, is_on: bool) -> None:
        for mode in modes:
            if mode in ((_OFF_AT_REST | _ON_AT_REST) if is_private else (4, 20)):
                self._modes[is_private, mode] = is_on


def _judge_escape(escape: re.Match[bytes]) -> bytes:
    """ESC and at most a few characters: all pass but those that change how bytes are read."""
    between, final = escape.groups()
    if between[:1] in (b"%", b" ") or final == b"\\":
        return b""
    return escape.group()
