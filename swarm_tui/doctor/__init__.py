"""Name what is missing or broken before it hurts: what, why, and what to do.

Every check looks at one thing and cannot keep the others from looking. Nothing is changed, but for
the VM that `is_probing` allows, which is removed again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from swarm_tui.config import Loaded, load
from swarm_tui.doctor import desk, hosts, machine
from swarm_tui.doctor.finding import Check, Finding, Ground, Level, fail, failed
from swarm_tui.errors import ConfigError, SwarmError
from swarm_tui.model import HostName

__all__ = ["Finding", "Level", "examine", "examine_host"]

CHECKS: Final[tuple[Check, ...]] = (
    desk.libraries,
    desk.settings,
    desk.themes,
    desk.profiles,
    desk.folders,
    desk.store,
    desk.terminal,
    machine.programs,
    machine.image_tools,
    machine.virtualization,
    machine.memory,
    machine.room,
    machine.limits,
    hosts.daemon,
    hosts.hosts,
    hosts.cloud_hypervisor,
    hosts.passage,
)


def examine(
    file: Path | None = None, environ: Mapping[str, str] = os.environ, *, is_probing: bool = False
) -> Sequence[Finding]:
    """Look at everything; `file` is another configuration file. Blocks for some seconds at most.

    `is_probing`: prove by small VMs, too, that Cloud Hypervisor works, which takes longer.
    """
    findings: list[Finding] = []
    checks = CHECKS
    try:
        loaded = load(environ, file=file)
    except ConfigError as error:
        findings += [
            fail("configuration", "is not valid", problem, error.hint)
            for problem in error.detail.splitlines()
        ]
        checks = tuple(check for check in CHECKS if check is not desk.settings)
        loaded = _defaults(environ)
    ground = Ground(loaded, environ, os.getuid(), is_probing)
    for check in checks:
        findings += _collect(check, ground)
    return findings


def examine_host(loaded: Loaded, name: HostName, *, is_probing: bool = False) -> Sequence[Finding]:
    """Look at one host, which is configured or the local one. Blocks as `examine`."""
    ground = Ground(loaded, os.environ, os.getuid(), is_probing)
    return _collect(hosts.host(name), ground)


def _defaults(environ: Mapping[str, str]) -> Loaded:
    """What holds where the settings cannot be read."""
    kept = ("HOME", "SWARM_TUI_HOME")
    bare = {
        name: value for name, value in environ.items() if name in kept or name.startswith("XDG_")
    }
    return load(bare, file=Path(os.devnull))


def _collect(check: Check, ground: Ground) -> list[Finding]:
    found: list[Finding] = []
    try:
        for finding in check(ground):
            found.append(finding)  # noqa: PERF402 - what was found before an error is kept
    except SwarmError as error:
        found.append(failed(check.__name__, error))
    except OSError as error:
        found.append(fail(check.__name__, "could not be examined", str(error)))
    return found
