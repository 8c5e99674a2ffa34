"""Whose rights a foreign image's programs have: those of the user that it names, never root's.

That user's numbers and groups become those of `agent`, as whom all programs run: what the image
gave to its user is the agent's then. Its home is not: keys and git's identity are in our own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_HIGHEST: Final = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class Account:
    uid: int
    gid: int
    groups: Sequence[str] = ()
    """More of the image's groups whose rights it has, by name."""
    told: str = ""

    @property
    def owner(self) -> str:
        return f"{self.uid}:{self.gid}"


OURS: Final = Account(1000, 1000)


def find_account(named: str, passwd: Sequence[str], groups: Sequence[str]) -> Account:
    """Who `agent` is, by the image's User and the lines of its files.

    User is as in the OCI image specification (config.md): user, uid, user:group, uid:gid or a mix.
    """
    user, separator, group = named.partition(":")
    entry = next((f for f in _fields(passwd, 4) if user in (f[0], f[2]) and user), [])
    uid = _number(entry[2] if entry else user)
    gid = 0  # as where no user is known by the number
    if separator:
        found = (fields[2] for fields in _fields(groups, 3) if group in (fields[0], fields[2]))
        gid = _number(next(found, group))
    elif entry:
        gid = _number(entry[3])
    if not user or uid == 0:
        return _ours("as agent: it would have them run as root")
    if uid < 0 or gid < 0:
        return _ours(f"as agent: its user {named[:80]} is not in its /etc/passwd or /etc/group")
    more = [] if separator or not entry else _groups_of(entry[0], groups)
    return Account(uid, gid, more, f"as agent, with the rights of its user {named[:80]}")


def _ours(told: str) -> Account:
    return Account(OURS.uid, OURS.gid, (), told)


def _groups_of(user: str, groups: Sequence[str]) -> Sequence[str]:
    return [fields[0] for fields in _fields(groups, 4) if user in fields[3].split(",")]


def _fields(lines: Sequence[str], least: int) -> Sequence[Sequence[str]]:
    return [fields for line in lines if len(fields := line.split(":")) >= least]


def _number(text: str) -> int:
    """-1: it is none that a user can have."""
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        return -1
    return number if (number := int(text)) <= _HIGHEST else -1
