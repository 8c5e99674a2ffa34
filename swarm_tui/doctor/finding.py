"""What a check says, and what it stands on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from swarm_tui.config import Loaded
from swarm_tui.errors import SetupError, SwarmError
from swarm_tui.text import EMPTY, Safe, sanitize

SBIN: Final = "/usr/local/sbin:/usr/sbin:/sbin"
"""Programs that Debian keeps out of a user's PATH."""


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"  # works, but worse than it could
    FAIL = "fail"  # something that was asked for cannot work


@dataclass(frozen=True, slots=True)
class Finding:
    name: Safe
    """What was looked at."""
    level: Level
    what: Safe
    why: Safe = EMPTY
    """Why it matters, or what the system said."""
    remedy: Safe = EMPTY
    exit_code: int = 0
    """What a command returns for which this was the first failure."""


@dataclass(frozen=True, slots=True)
class Ground:
    """The machine and the settings that are examined."""

    loaded: Loaded
    environ: Mapping[str, str]
    uid: int
    is_probing: bool = False
    """Small VMs may be made and removed again, as a proof."""

    def find(self, program: str) -> Path | None:
        found = shutil.which(program, path=f"{self.environ.get('PATH', os.defpath)}:{SBIN}")
        return Path(found) if found else None

    def lack(self, name: str, what: str, why: str, remedy: str = "") -> Finding:
        """Something that only the local swarm needs: no failure where hosts are configured."""
        tell = warn if self.loaded.config.hosts else fail
        return tell(name, what, why, remedy)

    def install(self, *packages: str) -> str:
        """The line that brings Debian packages."""
        sudo = "" if self.uid == 0 else "sudo "
        return f"{sudo}apt-get install --no-install-recommends {' '.join(packages)}"


Check = Callable[[Ground], Iterator[Finding]]


def ok(name: str, what: str) -> Finding:
    return Finding(sanitize(name), Level.OK, sanitize(what))


def warn(name: str, what: str, why: str, remedy: str = "") -> Finding:
    return Finding(sanitize(name), Level.WARN, sanitize(what), _lines(why), _lines(remedy))


def fail(
    name: str, what: str, why: str, remedy: str = "", *, exit_code: int = SetupError.exit_code
) -> Finding:
    return Finding(
        sanitize(name), Level.FAIL, sanitize(what), _lines(why), _lines(remedy), exit_code
    )


def failed(name: str, error: SwarmError) -> Finding:
    return fail(name, error.title, error.detail, error.hint, exit_code=error.exit_code)


def _lines(text: str) -> Safe:
    return sanitize(text, lines="many")
