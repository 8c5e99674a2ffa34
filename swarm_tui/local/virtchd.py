"""The libvirt daemon for Cloud Hypervisor: one that runs already, else one that we start.

Only root's is of use to a local swarm: bridges and taps take privileges. Where systemd listens for
it, that is enough.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from swarm_tui.errors import SetupError
from swarm_tui.local.daemon import SYSTEM_RUN, answers, lock, start, stop
from swarm_tui.outpost.programs import find
from swarm_tui.outpost.survey import survey

# Not by whichever daemon the client was built to ask first, which may be the one for QEMU.
SYSTEM: Final = "ch:///system?mode=direct"
SOCKET: Final = SYSTEM_RUN / "virtchd-sock"
VMM: Final = "cloud-hypervisor"


@dataclass(frozen=True, slots=True)
class Lack:
    """Something without which there is no local swarm under Cloud Hypervisor."""

    what: str
    remedy: str


def lacks(named: Path | None) -> Sequence[Lack]:
    """What is missing; empty: `ensure_virtchd` will find or start a daemon.

    `named` is the socket of the daemon to use, where one is named. Blocks for milliseconds.
    """
    return list(_lacks(named))


def _lacks(named: Path | None) -> Iterator[Lack]:
    if os.geteuid() != 0:
        yield Lack(
            "root: bridges, taps and the daemon are root's",
            "Run it by sudo, or choose QEMU, which needs no privileges: local.driver = qemu",
        )
    if named and not answers(named):
        yield Lack(
            f"a libvirt daemon at {named}: nobody answers there",
            "Start it, or set local.virtchd to auto",
        )
    if named or answers(SOCKET):
        return  # it runs, so it has found all of the rest
    seen = survey(is_session=False, named=None, disks=())
    if seen.driver is None:
        yield Lack(
            "libvirt's driver for Cloud Hypervisor",
            "On Debian and Ubuntu, scripts/build-libvirt-ch makes it;"
            " on Fedora, dnf install libvirt-daemon-driver-ch",
        )
    if not find(VMM):
        yield Lack(
            f"the program {VMM}",
            "Put version 52 or newer into PATH, e.g. /usr/local/bin:"
            " https://github.com/cloud-hypervisor/cloud-hypervisor/releases",
        )
    if seen.kvm:
        yield Lack(
            f"KVM: {seen.kvm}",
            "Switch virtualization on in the firmware or the outer hypervisor, then"
            " modprobe kvm_intel or kvm_amd",
        )


def ensure_virtchd(folder: Path, named: Path | None = None) -> str:
    """The URI of a daemon that answers; started if there is none and none is named.

    Blocks: some milliseconds, or about half a second to start one. `folder` keeps what belongs
    to a daemon of ours. Raises SetupError, with all that is missing and the remedies.
    """
    if missing := lacks(named):
        raise SetupError(
            "Something is missing for a local swarm under Cloud Hypervisor",
            "\n".join(lack.what for lack in missing),
            "\n".join(lack.remedy for lack in missing),
        )
    if named:
        return f"ch:///system?socket={named}"
    if not answers(SOCKET):
        with lock(folder):
            if not answers(SOCKET):
                start(folder, "virtchd", [_program()], lambda: answers(SOCKET))
    return SYSTEM


def stop_virtchd(folder: Path) -> None:
    """Stop the daemon that `ensure_virtchd` started with this folder, if any; VMs go on.

    Raises SetupError when it does not end.
    """
    with lock(folder):
        stop(folder, "virtchd")


def _program() -> str:
    """Of libvirt's own packages, or what scripts/build-libvirt-ch has made."""
    driver = survey(is_session=False, named=None, disks=()).driver
    if driver and driver.name == "virtchd":
        starter = driver.with_name("start-virtchd")
        return str(starter if starter.exists() else driver)
    return "virtchd"
