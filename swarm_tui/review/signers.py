"""Who may sign verdicts: the file of allowed signers, read as `ssh-keygen -Y verify` reads it.

The format is that of ssh-keygen(1), "ALLOWED SIGNERS". A line that cannot be read allows nobody;
as in OpenSSH, the lines after it still count.
"""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

NAMESPACE: Final = "swarm-verdict"
"""What our signatures are for; one made for anything else is no verdict."""

_PRINCIPALS: Final = re.compile(r'"(?P<quoted>[^"]*)"[ \t]*|(?P<plain>[^" \t]+)[ \t]+')
_KEY: Final = re.compile(r"(?P<type>[a-z][a-z0-9@.-]*)[ \t]+(?P<blob>[A-Za-z0-9+/]+=*)(?:[ \t].*)?")
_OPTION: Final = re.compile(
    r'(?P<name>[A-Za-z-]+)(?:="(?P<value>(?:\\"|[^"])*)")?(?P<end>,|[ \t]+)'
)
_TIME: Final = re.compile(r"(\d{8})(\d{4})?(\d{2})?(Z|UTC)?")


@dataclass(frozen=True, slots=True)
class Entry:
    """One line: who may sign with which key."""

    principals: str
    key: str
    """Type and base64."""
    namespaces: str | None = None
    is_authority: bool = False
    """The key certifies keys that sign."""
    valid_after: float | None = None
    valid_before: float | None = None

    def allows(self, principal: str, namespace: str, now: float) -> bool:
        """Whether the principal may sign for this namespace at that time."""
        return (
            _matches(principal, self.principals)
            and (self.namespaces is None or _matches(namespace, self.namespaces))
            and (self.valid_after is None or now >= self.valid_after)
            and (self.valid_before is None or now <= self.valid_before)
        )


def entries(text: str) -> Iterator[Entry]:
    """Every line that can be read."""
    for line in text.split("\n"):
        content = line.strip(" \t\r")
        if content and not content.startswith("#"):
            try:
                yield _entry(content)
            except ValueError:
                continue


def first_line(principal: str, key: str) -> str:
    """The line that allows a key ("ssh-ed25519 AAAA…") to sign verdicts as a principal."""
    return f'{principal} namespaces="{NAMESPACE}" {" ".join(key.split()[:2])}\n'


def _entry(line: str) -> Entry:
    principals = _PRINCIPALS.match(line)
    if principals is None:
        raise ValueError("no principals")
    who = principals["quoted"] if principals["plain"] is None else principals["plain"]
    rest = line[principals.end() :]
    key = _KEY.fullmatch(rest)
    # As OpenSSH: first as a key, so that an option is whatever is no type of a key.
    if key is not None and key["type"].startswith(("ssh-", "sk-", "ecdsa-")):
        return Entry(who, f"{key['type']} {key['blob']}")
    found: dict[str, str | None] = {}
    at = 0
    while True:
        option = _OPTION.match(rest, at)
        if option is None:
            raise ValueError("bad options")
        name = option["name"].lower()
        if name in found and name != "cert-authority":
            raise ValueError(f"{name} is there twice")
        found[name] = option["value"]
        at = option.end()
        if option["end"] != ",":
            break
    key = _KEY.fullmatch(rest[at:])
    if key is None:
        raise ValueError("no key")
    return _with_options(Entry(who, f"{key['type']} {key['blob']}"), found)


def _with_options(entry: Entry, found: dict[str, str | None]) -> Entry:
    def value(name: str) -> str | None:
        if name not in found:
            return None
        text = found.pop(name)
        if text is None:
            raise ValueError(f"{name} has no value")
        return text.replace('\\"', '"')

    namespaces, after, before = value("namespaces"), value("valid-after"), value("valid-before")
    is_authority = "cert-authority" in found
    if is_authority and found.pop("cert-authority") is not None:
        raise ValueError("cert-authority has a value")
    if found:
        raise ValueError(f"{next(iter(found))} is not known")
    valid_after = None if after is None else _seconds(after)
    valid_before = None if before is None else _seconds(before)
    if valid_after is not None and valid_before is not None and valid_before <= valid_after:
        raise ValueError("it is never valid")
    return Entry(entry.principals, entry.key, namespaces, is_authority, valid_after, valid_before)


def _seconds(text: str) -> float:
    """YYYYMMDD[HHMM[SS]][Z], of the local time zone without Z."""
    parts = _TIME.fullmatch(text)
    if parts is None or (parts[3] and not parts[2]):
        raise ValueError("no time")
    digits = (parts[1] + (parts[2] or "") + (parts[3] or "")).ljust(14, "0")
    moment = time.strptime(digits, "%Y%m%d%H%M%S")
    if parts[4]:
        return float(calendar.timegm(moment))
    return time.mktime(moment)


def _matches(word: str, patterns: str) -> bool:
    """OpenSSH's match_pattern_list: "*" and "?", separated by commas, "!" takes away."""
    is_in = False
    for pattern in patterns.split(","):
        wanted = pattern.removeprefix("!")
        if _like(wanted).fullmatch(word):
            if wanted != pattern:
                return False
            is_in = True
    return is_in


def _like(pattern: str) -> re.Pattern[str]:
    shapes = {"*": ".*", "?": "."}
    # Stars in a row mean one: as many as are written would take for ever to try.
    parts = re.sub(r"\*+", "*", pattern)
    return re.compile("".join(shapes.get(part, re.escape(part)) for part in parts), re.DOTALL)
