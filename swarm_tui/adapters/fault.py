"""libvirt's errors in our words.

libvirt's error numbers (virErrorNumber in virterror.h) are a stable interface, but several stand
for a dozen different things; then the system's errno decides where libvirt passes it on, and else
the message, which both the daemon and QEMU write in English unless an administrator set a locale.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from swarm_tui.errors import (
    AgentGone,
    Busy,
    HostDenied,
    HostError,
    HostUnreachable,
    Refused,
    StorageFull,
    SwarmError,
    Unsupported,
)
from swarm_tui.model import HostName


class Code(IntEnum):
    """The numbers of virErrorNumber that mean something to us."""

    NO_MEMORY = 2
    NO_SUPPORT = 3
    NO_CONNECT = 5
    INVALID_CONN = 6
    INVALID_ARG = 8
    XML_ERROR = 27
    DOM_EXIST = 28
    OPERATION_DENIED = 29
    XML_DETAIL = 35
    SYSTEM_ERROR = 38
    NO_DOMAIN = 42
    AUTH_FAILED = 45
    OPERATION_INVALID = 55
    CONFIG_UNSUPPORTED = 67
    OPERATION_TIMEOUT = 68
    ARGUMENT_UNSUPPORTED = 74
    AUTH_CANCELLED = 79
    OPERATION_UNSUPPORTED = 84
    NO_DOMAIN_METADATA = 80
    RESOURCE_BUSY = 87
    ACCESS_DENIED = 88
    AUTH_UNAVAILABLE = 94


@dataclass(frozen=True, slots=True)
class Fault:
    """What a libvirtError carries."""

    code: int | None
    errno: int | None
    """libvirt's `int1`, which holds the errno of a SYSTEM_ERROR."""
    message: str


_DENIED: Final = {
    Code.OPERATION_DENIED,
    Code.AUTH_FAILED,
    Code.AUTH_CANCELLED,
    Code.AUTH_UNAVAILABLE,
    Code.ACCESS_DENIED,
}
_UNSUPPORTED: Final = {
    Code.NO_SUPPORT,
    Code.CONFIG_UNSUPPORTED,
    Code.ARGUMENT_UNSUPPORTED,
    Code.OPERATION_UNSUPPORTED,
}
_REFUSED: Final = {Code.OPERATION_INVALID, Code.XML_ERROR, Code.XML_DETAIL, Code.DOM_EXIST}
_BUSY: Final = {Code.OPERATION_TIMEOUT, Code.RESOURCE_BUSY}

_NO_ROOM: Final = re.compile("No space left on device|Disk quota exceeded|not enough space", re.I)
_NO_MEMORY: Final = re.compile("Cannot allocate memory|cannot set up guest memory", re.I)
_NOT_ALLOWED: Final = re.compile("Permission denied|access denied", re.I)
_EXISTS: Final = re.compile("already exists with uuid")
_FORWARD: Final = re.compile(r"host forwarding rule '[a-z]+:[^:']*:(\d+)-")

_HINT_DENIED: Final = (
    "Join the group libvirt (sudo usermod -aG libvirt $USER, then log in again), "
    "or allow org.libvirt.unix.manage by polkit."
)
_HINT_SSH_DENIED: Final = "Try the same login by ssh; it must work without a question."
_HINT_NO_DAEMON: Final = "Is libvirtd running there? (sudo systemctl start libvirtd)"


def is_unsupported(code: int | None) -> bool:
    """The driver lacks the call, or the flag with which it was called."""
    return code in _UNSUPPORTED or code == Code.INVALID_ARG


def to_error(fault: Fault, host: HostName, doing: str, *, is_connected: bool) -> SwarmError:
    """The error for `fault`, met while `doing` ("save the VM") on `host`.

    `is_connected`: the connection still stands. A daemon that cannot reach its own log daemon
    fails with the same numbers as a client that cannot reach the daemon.
    """
    code, message = fault.code, fault.message
    if not is_connected or code == Code.INVALID_CONN:
        return _unreached(fault, host)
    if "virtlogd" in message:
        hint = "Start libvirt's log daemon there: sudo systemctl start virtlogd, or virtlogd -d."
        return HostError(f"Host {host} cannot {doing}", message, hint)
    if code == Code.NO_DOMAIN:
        return AgentGone("The VM is not there any more", message)
    if fault.errno in (errno.ENOSPC, errno.EDQUOT) or _NO_ROOM.search(message):
        return StorageFull(f"No room to {doing}", message, "Free some space, then try again.")
    if code == Code.NO_MEMORY or fault.errno == errno.ENOMEM or _NO_MEMORY.search(message):
        hint = "Its memory is used up: pause or kill an agent, then try again."
        return HostError(f"Host {host} has no memory to {doing}", message, hint)
    if forward := _FORWARD.search(message):
        hint = f"Port {forward[1]} is taken: see who listens there (ss -ltnp), then try again."
        return HostError(f"Host {host} cannot {doing}", message, hint)
    if code in _DENIED or fault.errno in (errno.EACCES, errno.EPERM):
        return HostDenied(f"Host {host} does not allow to {doing}", message, _HINT_DENIED)
    if code in _UNSUPPORTED:
        return Unsupported(f"The driver of host {host} cannot {doing}", message)
    if code in _BUSY:
        return Busy(f"Cannot {doing} now", message, "Something else is at work on it: try again.")
    if code in _REFUSED or _EXISTS.search(message):
        return Refused(f"Cannot {doing}", message)
    return HostError(f"Host {host} could not {doing}", message)


def _unreached(fault: Fault, host: HostName) -> SwarmError:
    message = fault.message
    if fault.code == Code.NO_CONNECT:
        return Unsupported(f"libvirt has no driver for host {host}", message)
    if fault.code in _DENIED or fault.errno in (errno.EACCES, errno.EPERM):
        return HostDenied(f"No permission to use host {host}", message, _HINT_DENIED)
    if _NOT_ALLOWED.search(message) or "Host key verification failed" in message:
        return HostDenied(f"Host {host} does not let us in", message, _HINT_SSH_DENIED)
    hint = _HINT_NO_DAEMON if fault.code == Code.SYSTEM_ERROR else ""
    return HostUnreachable(f"Host {host} is out of reach", message, hint)
