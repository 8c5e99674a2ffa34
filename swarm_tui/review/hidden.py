"""Text that is not what it looks like: invisible, turned round, out of sight, or in disguise.

What `swarm_tui.text.sanitize` would show as something else is found here, but for what living
languages and emoji need.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

_PLAIN: Final = bytes([0x09, 0x0A, 0x0D, *range(0x20, 0x7F)])
_AS_SPACES: Final = bytes.maketrans(b"\t", b" ")
_FAR: Final = 100
"""So many blanks in a row that what follows is to the right of every screen."""
_BLANKS: Final = re.compile(rf"(?<=\S)[ \t]{{{_FAR},}}(?=\S)")
_CHARACTER: Final = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\xad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5"
    "\\u180b-\\u180f\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\u3164\\ud800-\\uf8ff"
    "\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff0-\\ufffb\\ufffe\\uffff\\U00013430-\\U00013440"
    "\\U0001bca0-\\U0001bca3\\U0001d173-\\U0001d17a\\U000e0000-\\U0010ffff]"
)
_RETURN: Final = r"\r(?!\Z)"
"""Elsewhere than at the end of a line, which is a matter of systems."""

_CYRILLIC: Final = "\\u0400-\\u0482\\u048a-\\u052f\\u1c80-\\u1c8f\\ua640-\\ua66e\\ua680-\\ua69d"
_CHEROKEE: Final = "\\u13a0-\\u13fd\\uab70-\\uabbf"
_STYLED: Final = "\\U0001d400-\\U0001d6a3\\uff21-\\uff3a\\uff41-\\uff5a"
"""Mathematical and full-width Latin letters; in Python's identifiers they mean the plain ones."""
_GREEK: Final = "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧονικρ"
"""Letters that look like Latin ones; others, such as in Δt and μs, hide nothing."""
_OF_FORMULAS: Final = "νικρ"
"""Of these, what stands beside Latin letters in hν and ρr; in longer words it is a disguise."""
_LIKE_LATIN: Final = re.compile(f"[{_CYRILLIC}{_CHEROKEE}{_STYLED}{_GREEK}]")
_LATIN: Final = "A-Za-z\\u00c0-\\u00d6\\u00d8-\\u00f6\\u00f8-\\u024f"
_LATIN_LETTER: Final = re.compile(f"[{_LATIN}]")
_WORD: Final = re.compile(r"[^\W\d_]+")
_IN_FORMULA: Final = 3

_EMOJI: Final = (
    "[\\xa9\\xae\\u203c\\u2049\\u2100-\\u2bff\\u3030\\u303d\\u3297\\u3299\\U0001f000-\\U0001faff]"
    "[\\ufe0e\\ufe0f]?[\\U0001f3fb-\\U0001f3ff]?"
)
_NEEDED: Final = re.compile(
    # Persian and the scripts of India join and part letters so.
    "(?<=[\\u0600-\\u109f])[\\u200c\\u200d](?=[\\u0600-\\u109f])"
    # The flags of England, Scotland and Wales are spelt with tags.
    "|\\U0001f3f4\\U000e0067\\U000e0062(?:\\U000e0065\\U000e006e\\U000e0067"
    "|\\U000e0073\\U000e0063\\U000e0074|\\U000e0077\\U000e006c\\U000e0073)\\U000e007f"
    f"|(?:{_EMOJI})(?:\\u200d(?:{_EMOJI}))*|[0-9#*]\\ufe0f\\u20e3"
)
_NAMED: Final = 4
MANY: Final = 1000


@dataclass(frozen=True, slots=True)
class Hidden:
    """What is hidden in some lines."""

    index: int
    """Of the first such line, from 0."""
    count: int
    """Of such lines; no more than `MANY` are looked for."""
    what: str
    """Names of characters, not the characters."""


def find(lines: Sequence[bytes], *, is_start: bool = False) -> Hidden | None:
    """What is hidden in these lines; `is_start`: a byte order mark may begin the first."""
    if is_start and lines:
        lines = [lines[0].removeprefix(b"\xef\xbb\xbf"), *lines[1:]]
    suspect = _suspect(b"\n".join(lines))
    if suspect is None:
        return None
    indexes = []
    whats: dict[str, None] = {}
    for index, line in enumerate(lines):
        text = line.decode("utf-8", "replace")
        if suspect.search(text) and (found := _in_line(text)):
            indexes.append(index)
            whats |= dict.fromkeys(found)
        if len(indexes) == MANY:
            break
    if not indexes:
        return None
    names = list(whats)
    if len(names) > _NAMED:
        names[_NAMED:] = [f"{len(names) - _NAMED} more"]
    return Hidden(indexes[0], len(indexes), ", ".join(names))


def in_name(text: str) -> str:
    """What is hidden in a name; empty: nothing."""
    return ", ".join(_in_line(text))


def _suspect(blob: bytes) -> re.Pattern[str] | None:
    """What a line must match to be worth a closer look, for the characters that are there."""
    present = set(blob.translate(None, _PLAIN).decode("utf-8", "replace"))
    shapes = []
    if odd := "".join(filter(_CHARACTER.match, present - {"\r"})):
        shapes.append(f"[{re.escape(odd)}]")
    if alike := "".join(filter(_LIKE_LATIN.match, present)):
        shapes.append(f"[{alike}](?:(?=[{_LATIN}])|(?<=[{_LATIN}].))")
    if blob.count(b"\r") > blob.count(b"\r\n") + blob.endswith(b"\r"):
        shapes.append(_RETURN)
    if b" " * _FAR in blob.translate(_AS_SPACES):
        shapes.append(_BLANKS.pattern)
    return re.compile("|".join(shapes)) if shapes else None


def _in_line(text: str) -> Sequence[str]:
    """What is hidden in one line, each once."""
    if text == "\f":  # between the parts of old sources
        return []
    found = [_named(odd) for odd in _CHARACTER.findall(_NEEDED.sub("", text)) if odd != "\r"]
    if re.search(_RETURN, text):
        found.append(_named("\r"))
    if re.search(_BLANKS, text):
        found.append("blanks that push the rest of a line out of sight")
    found += [f"{_named(odd)} among Latin letters" for odd in _disguised(text)]
    return list(dict.fromkeys(found))


def _disguised(text: str) -> Iterator[str]:
    """A letter of each word that has letters of another script among Latin ones."""
    if not _LIKE_LATIN.search(text):
        return
    for word in _WORD.findall(text):
        odds = _LIKE_LATIN.findall(word)
        latin = len(_LATIN_LETTER.findall(word)) if odds else 0
        for odd in odds if latin else ():
            if odd not in _OF_FORMULAS or latin >= _IN_FORMULA:
                yield odd
                break


@lru_cache
def _named(character: str) -> str:
    code = ord(character)
    if code < 0x20 or 0x7F <= code < 0xA0:
        name = "control character"
    elif 0xE000 <= code <= 0xF8FF or code >= 0xF0000:
        name = "private use"
    else:
        name = unicodedata.name(character, "no character")
    return f"U+{code:04X} {name}"
