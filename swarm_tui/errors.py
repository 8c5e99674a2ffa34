"""Every failure that a user can meet, in one small tree.

    SwarmError                  title, detail, hint; `exit_code` is what the command line returns
    ├── UsageError          2   the request itself makes no sense
    ├── NotFound            3   no such agent, host or snapshot (or more than one answers)
    ├── Refused             4   policy says no: wrong state, missing capability
    │   └── Busy            4   another verb is at work on this agent
    ├── HostError           5   the libvirt host
    │   ├── HostUnreachable     no daemon, no route, connection lost
    │   ├── HostDenied          no permission on the socket, or no login
    │   │   └── HostKeyUnknown      nobody has vouched for its SSH key
    │   ├── Unsupported         the driver cannot do this
    │   └── AgentGone           the VM is not there any more
    ├── GuestError          6   the guest, over SSH
    │   ├── GuestUnreachable    refused, timed out, cut
    │   ├── HostKeyChanged      it answered with a key that is not the pinned one
    │   └── GuestFailed         it answered, and the command failed
    ├── DeadlineExceeded    7   no answer in time: the outcome is unknown
    ├── ConfigError         8   config or theme file
    ├── SnapshotError       9   incomplete, altered, or made by something else
    ├── StorageFull        10   no room
    ├── AuditError         11   the record cannot be written, so nothing was done; or it was altered
    ├── SetupError         12   a program, package or image that we need is missing
    ├── ReviewError        13   what the guest gave cannot be reviewed, or a verdict is void
    ├── SignatureError     14   a verdict cannot be signed, or its signature does not hold
    ├── ImageError         16   a foreign image that is damaged, hostile or too large
    └── StoreError         15   the shared store: it refuses, or may only be read
        ├── StoreUnreachable    locked, gone, refused, cut; it may come back by itself
        ├── StoreDamaged        what is in it is not what was written
        ├── StoreNewer          its schema is of a newer program
        └── ClaimLost           the agent was ours and may be somebody else's by now

Adapters map their library's errors into this tree once, with the cause chained; the edges
(command line, app) show title, detail and hint.
"""

from __future__ import annotations

from typing import ClassVar, Final

from swarm_tui.text import Safe, sanitize

_LINES: Final = 200


class SwarmError(Exception):
    """A failure told to a person: what happened, why, and what to do."""

    exit_code: ClassVar[int] = 1

    def __init__(self, title: str, detail: str = "", hint: str = "") -> None:
        """All three may carry foreign text: they are sanitized here."""
        self.title: Safe = sanitize(title, max_cells=200)
        self.detail: Safe = sanitize(_shortened(detail), lines="many", max_cells=400)
        self.hint: Safe = sanitize(hint, lines="many", max_cells=400)
        super().__init__(self.title)

    def __str__(self) -> str:
        return ": ".join(part for part in (self.title, self.detail) if part)


def _shortened(text: str) -> str:
    lines = text.split("\n")
    if len(lines) <= _LINES:
        return text
    return "\n".join([*lines[:_LINES], f"… and {len(lines) - _LINES} more lines"])


class UsageError(SwarmError):
    exit_code = 2


class NotFound(SwarmError):
    exit_code = 3


class Refused(SwarmError):
    exit_code = 4


class Busy(Refused):
    pass


class HostError(SwarmError):
    exit_code = 5


class HostUnreachable(HostError):
    pass


class HostDenied(HostError):
    pass


class HostKeyUnknown(HostDenied):
    """A host whose key nobody has vouched for. It was told nothing."""

    def __init__(self, title: str, detail: str, hint: str, entry: str) -> None:
        super().__init__(title, detail, hint)
        self.entry = entry
        """The line for a known_hosts file by which it would be trusted."""


class Unsupported(HostError):
    pass


class AgentGone(HostError):
    pass


class GuestError(SwarmError):
    exit_code = 6


class GuestUnreachable(GuestError):
    pass


class GuestCut(GuestUnreachable):
    """The connection broke when the guest had been asked: it may have done it, or may not."""


class HostKeyChanged(GuestError):
    pass


class GuestFailed(GuestError):
    pass


class DeadlineExceeded(SwarmError):
    exit_code = 7


class ConfigError(SwarmError):
    exit_code = 8


class SnapshotError(SwarmError):
    exit_code = 9


class StorageFull(SwarmError):
    exit_code = 10


class AuditError(SwarmError):
    exit_code = 11


class SetupError(SwarmError):
    exit_code = 12


class ReviewError(SwarmError):
    exit_code = 13


class SignatureError(SwarmError):
    exit_code = 14


class ImageError(SwarmError):
    exit_code = 16


class StoreError(SwarmError):
    exit_code = 15


class StoreUnreachable(StoreError):
    pass


class StoreDamaged(StoreError):
    pass


class StoreNewer(StoreError):
    pass


class ClaimLost(StoreError):
    pass
