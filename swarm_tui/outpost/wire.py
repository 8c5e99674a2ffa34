"""Calls and answers as bytes: JSON with its length before it, read back by type hints.

Both ends read what they are told as hostile: a value that is not of the hinted type is Garbled, and
what is typed Safe is sanitized on its way in.
"""

from __future__ import annotations

import json
import re
import struct
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, Final

from swarm_tui import errors
from swarm_tui.errors import HostError, SwarmError
from swarm_tui.model import AgentId, SnapshotId
from swarm_tui.text import Safe, sanitize

LENGTH: Final = struct.Struct("!I")
"""Before each message, in bytes."""
MOST_BYTES: Final = 64 << 20

_HIGHEST: Final = 1 << 63
_NAMES: Final[Mapping[Any, re.Pattern[str]]] = {
    AgentId: re.compile(r"[0-9A-Za-z][0-9A-Za-z-]{0,63}"),
    SnapshotId: re.compile(r"[0-9A-Za-z][0-9A-Za-z.-]{0,63}"),
}
"""What is part of a path on either end."""


class Garbled(ValueError):
    """What came is not what was to come."""


def pack(message: object) -> bytes:
    """Raises Garbled for what is too long to be sent."""
    content = json.dumps(message, separators=(",", ":")).encode()
    if len(content) > MOST_BYTES:
        raise Garbled(f"{len(content)} bytes are too many for one message")
    return LENGTH.pack(len(content)) + content


def length(header: bytes) -> int:
    """Of the message that follows. Raises Garbled."""
    (size,) = LENGTH.unpack(header)
    if size > MOST_BYTES:
        raise Garbled(f"a message of {size} bytes")
    return int(size)


def unpack(content: bytes) -> Mapping[str, Any]:
    """One message without its length. Raises Garbled."""
    try:
        message = json.loads(content, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise Garbled(f"no JSON: {type(error).__name__}") from error
    if not isinstance(message, dict):
        raise Garbled("no object")
    return message


def _refuse(constant: str) -> None:
    raise ValueError(constant)  # NaN and its like are no times and no sizes


def encode(value: Any) -> Any:
    """A value as JSON has it. Keys need not be text, so a mapping becomes a list of pairs."""
    if is_dataclass(value):
        return {field.name: encode(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return [[encode(key), encode(item)] for key, item in value.items()]
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    return value


def encode_arguments(arguments: Sequence[object]) -> Sequence[Any]:
    return [encode(argument) for argument in arguments]


def decode_arguments(work: Callable[..., object], raw: object) -> Sequence[Any]:
    """The arguments for `work`, without its `self`. Raises Garbled."""
    *kinds, _ = _kinds(work)
    if not isinstance(raw, list) or len(raw) > len(kinds):
        raise Garbled("wrong arguments")
    return [decode(kind, argument) for kind, argument in zip(kinds, raw, strict=False)]


def decode_result(work: Callable[..., object], raw: object) -> Any:
    """What `work` has returned on the other end. Raises Garbled."""
    return decode(_kinds(work)[-1], raw)


@cache
def _kinds(work: Callable[..., object]) -> Sequence[Any]:
    return list(typing.get_type_hints(work).values())


def decode(kind: Any, raw: Any) -> Any:
    """A value of the kind that a type hint names. Raises Garbled."""
    if kind is Safe:
        return sanitize(decode(str, raw), lines="many")
    if isinstance(kind, typing.NewType):
        value = decode(kind.__supertype__, raw)
        if (name := _NAMES.get(kind)) and not name.fullmatch(value):
            raise Garbled(f"no {kind.__name__}")
        return value
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return None if raw is None else decode(parts[0], raw)
    if origin is not None and issubclass(origin, Mapping):
        return dict(_pair(parts, item) for item in _list(raw))
    if origin is not None:
        return [decode(parts[0], item) for item in _list(raw)]
    if is_dataclass(kind):
        return _decode_record(kind, raw)
    return _decode_plain(kind, raw)


def _decode_plain(kind: type[Any], raw: Any) -> Any:
    if kind is float and isinstance(raw, int) and not isinstance(raw, bool):
        return float(raw)
    if kind is int and (isinstance(raw, bool) or not isinstance(raw, int) or abs(raw) >= _HIGHEST):
        raise Garbled("no number")
    if issubclass(kind, Path | Enum):
        if not isinstance(raw, str) or "\0" in raw:
            raise Garbled("no text")
        try:
            return kind(raw)
        except ValueError as error:
            raise Garbled(f"no {kind.__name__}") from error
    if not isinstance(raw, kind):
        raise Garbled(f"no {kind.__name__}")
    return raw


def _decode_record(kind: Any, raw: Any) -> Any:
    hints = _hints(kind)
    if not isinstance(raw, dict) or raw.keys() != hints.keys():
        raise Garbled(f"no {kind.__name__}")
    return kind(**{name: decode(hint, raw[name]) for name, hint in hints.items()})


@cache
def _hints(kind: type[Any]) -> Mapping[str, Any]:
    return {field.name: typing.get_type_hints(kind)[field.name] for field in fields(kind)}


def _pair(kinds: Sequence[Any], raw: Any) -> tuple[Any, Any]:
    if not isinstance(raw, list) or len(raw) != 2:
        raise Garbled("no pair")
    return decode(kinds[0], raw[0]), decode(kinds[1], raw[1])


def _list(raw: Any) -> list[Any]:
    if not isinstance(raw, list):
        raise Garbled("no list")
    return raw


_ERRORS: Final = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type)
    and issubclass(kind, SwarmError)
    and kind.__init__ is SwarmError.__init__
}


def encode_error(error: SwarmError) -> Sequence[str]:
    return [type(error).__name__, error.title, error.detail, error.hint]


def decode_error(raw: object) -> SwarmError:
    """The error of the other end, of the same class. Raises Garbled."""
    if not isinstance(raw, list) or len(raw) != 4:
        raise Garbled("no error")
    name, title, detail, hint = (decode(str, part) for part in raw)
    return _ERRORS.get(name, HostError)(title, detail, hint)
