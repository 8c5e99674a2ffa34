"""Reviews, comments and verdicts as JSON, and back, believing nothing of what is read.

Paths are bytes and need not be UTF-8: what is not, travels as lone surrogates ("surrogateescape").
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

from swarm_tui.handoff import Change, Comment, Commit, Flag, FlagKind, Review, Side
from swarm_tui.text import Safe, sanitize

_FORMAT: Final = "swarm-review 1"
_OID: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_MODE: Final = re.compile(r"[0-7]{6}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


def load(content: bytes) -> object:
    """JSON, each name once in an object. Raises ValueError for whatever is wrong with it."""
    try:
        return json.loads(content, object_pairs_hook=_once, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number")


class Fields:
    """The fields of a JSON object, each read as what it must be. Raises ValueError."""

    def __init__(self, raw: object) -> None:
        if not isinstance(raw, dict):
            raise ValueError("it is not an object")
        self._raw: Mapping[str, Any] = raw

    def text(self, key: str) -> str:
        value = self._raw.get(key)
        if not isinstance(value, str):
            raise self._wrong(key)
        return value

    def safe(self, key: str) -> Safe:
        return sanitize(self.text(key))

    def path(self, key: str) -> bytes:
        return self.text(key).encode("utf-8", "surrogateescape")

    def has(self, key: str) -> bool:
        return self._raw.get(key) is not None

    def whole(self, key: str, least: int = 0) -> int:
        value = self._raw.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self._wrong(key)
        return value

    def time(self, key: str) -> float:
        value = self._raw.get(key)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self._wrong(key)
        if not math.isfinite(value) or not 0 <= value < 1e11:
            raise self._wrong(key)
        return float(value)

    def truth(self, key: str) -> bool:
        value = self._raw.get(key)
        if not isinstance(value, bool):
            raise self._wrong(key)
        return value

    def side(self, key: str) -> Side:
        value = self.text(key)
        if value == "old":
            return "old"
        if value == "new":
            return "new"
        raise self._wrong(key)

    def oid(self, key: str, *, may_lack: bool = False) -> str:
        value = self.text(key)
        return value if may_lack and not value else self._fits(key, value, _OID)

    def mode(self, key: str) -> str:
        return self._fits(key, self.text(key), _MODE)

    def digest(self, key: str) -> str:
        return self._fits(key, self.text(key), _DIGEST)

    def items(self, key: str) -> Iterator[object]:
        value = self._raw.get(key)
        if not isinstance(value, list):
            raise self._wrong(key)
        return iter(value)

    def only(self, *keys: str) -> None:
        """Raise ValueError when there are other fields than these."""
        if other := sorted(self._raw.keys() - set(keys)):
            raise ValueError(f"{other[0]!r} is not known here")

    def _fits(self, key: str, value: str, pattern: re.Pattern[str]) -> str:
        if not pattern.fullmatch(value):
            raise self._wrong(key)
        return value

    def _wrong(self, key: str) -> ValueError:
        what = "is wrong" if key in self._raw else "is missing"
        return ValueError(f"{key!r} {what}")


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def _plain(value: Any) -> dict[str, Any]:
    """A record of ours with its paths as text."""
    found: dict[str, Any] = asdict(value)
    return {key: _text(part) if isinstance(part, bytes) else part for key, part in found.items()}


def encode_review(review: Review) -> bytes:
    content = asdict(review)
    content["format"] = _FORMAT
    content["changes"] = [_plain(change) for change in review.changes]
    content["flags"] = [_plain(flag) for flag in review.flags]
    return json.dumps(content, indent=1).encode()


def decode_review(content: bytes) -> Review:
    """Raises ValueError."""
    fields = Fields(load(content))
    if fields.text("format") != _FORMAT:
        raise ValueError("it is of another format")
    return Review(
        agent=fields.text("agent"),
        name=fields.safe("name"),
        number=fields.whole("number", least=1),
        taken=fields.time("taken"),
        base=fields.oid("base"),
        head=fields.oid("head"),
        tree=fields.oid("tree"),
        digest=fields.digest("digest"),
        changes=tuple(_change(Fields(raw)) for raw in fields.items("changes")),
        flags=tuple(_flag(Fields(raw)) for raw in fields.items("flags")),
        commits=tuple(_commit(Fields(raw)) for raw in fields.items("commits")),
        is_uncommitted=fields.truth("is_uncommitted"),
        why=fields.safe("why"),
    )


def _change(fields: Fields) -> Change:
    def optional(key: str) -> int | None:
        return fields.whole(key) if fields.has(key) else None

    return Change(
        path=fields.path("path"),
        old_mode=fields.mode("old_mode"),
        new_mode=fields.mode("new_mode"),
        old=fields.oid("old", may_lack=True),
        new=fields.oid("new", may_lack=True),
        old_path=fields.path("old_path") if fields.has("old_path") else None,
        added=optional("added"),
        removed=optional("removed"),
        old_size=optional("old_size"),
        new_size=optional("new_size"),
    )


def _flag(fields: Fields) -> Flag:
    return Flag(
        kind=FlagKind(fields.text("kind")),
        detail=fields.safe("detail"),
        path=fields.path("path"),
        line=fields.whole("line", least=1) if fields.has("line") else None,
    )


def _commit(fields: Fields) -> Commit:
    return Commit(
        oid=fields.oid("oid"),
        subject=fields.safe("subject"),
        author=fields.safe("author"),
        at=fields.time("at") if fields.has("at") else None,
    )


def encode_comment(comment: Comment) -> dict[str, Any]:
    return _plain(comment)


def decode_comment(fields: Fields) -> Comment:
    """Raises ValueError."""
    comment = Comment(
        id=fields.text("id"),
        text=fields.text("text"),
        path=fields.path("path"),
        side=fields.side("side"),
        first=fields.whole("first"),
        last=fields.whole("last"),
        quote=fields.text("quote"),
    )
    if comment.last < comment.first:
        raise ValueError("the last line is before the first")
    return comment
