"""What tests ask of the stand-in: a JSON file that it reads anew for each request."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any


class Kind(StrEnum):
    """What goes wrong."""

    HANG = "hang"
    """No answer, and none to any other request, for as long as the fault is set."""
    DELAY = "delay"
    """An answer after `seconds`."""
    ERROR = "error"
    """An answer with `status` and `messages`."""
    CRASH = "crash"
    """The VMM is gone at once, as by SIGKILL; it tells nobody."""
    FULL = "full"
    """Only for vm.snapshot: no room is left after `room_bytes` of memory."""


class Moment(StrEnum):
    BEFORE = "before"
    """Nothing was done yet."""
    DURING = "during"
    """Only for vm.snapshot: after `room_bytes` of memory were written."""
    AFTER = "after"
    """All was done, and only the answer is missing."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong each time that an operation is asked for."""

    operation: str
    """As in the API's path: `vm.pause`."""
    kind: Kind
    moment: Moment = Moment.BEFORE
    domain: str = ""
    """Name of the only domain that it happens to; all, if empty."""
    seconds: float = 0
    status: int = 500
    messages: tuple[str, ...] = ("Error from API", "A test asked for this error")
    room_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Settings:
    """How the stand-in behaves."""

    version: str = "52.0"
    """Of the Cloud Hypervisor that it pretends to be."""
    qemu: str = "qemu-system-x86_64"
    accel: str = "tcg,tb-size=64"
    threads: str = ""
    """The library made of threads.c; without it, libvirt knows no CPU times."""
    log: str = ""
    """File that gets a line of JSON for each request."""
    refuses_other_versions: bool = False
    """Whether a snapshot of another version cannot be restored."""
    faults: tuple[Fault, ...] = field(default=())

    @property
    def refuses_sector_0(self) -> bool:
        """Whether writes to the first sector fail on disks whose type it was not told.

        Cloud Hypervisor does so from 50.1 on (virtio-devices/src/block.rs), and libvirt does not
        tell it.
        """
        return tuple(int(part) for part in self.version.split(".")) >= (50, 1)


def read_settings(path: Path) -> Settings:
    stored: Mapping[str, Any] = json.loads(path.read_bytes())
    faults = tuple(
        Fault(**{**fault, "kind": Kind(fault["kind"]), "moment": Moment(fault["moment"])})
        for fault in stored["faults"]
    )
    return Settings(**{**stored, "faults": faults})


def write_settings(path: Path, settings: Settings) -> None:
    """Replace the file at once, so that a reader finds the old or the new."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(json.dumps(asdict(settings), indent=1))
    temporary.rename(path)
