"""Checks of a host for Cloud Hypervisor: what libvirt said of it, and what our outpost found there.

Sources of what is known to be broken: Cloud Hypervisor's release notes and advisories
(CVE-2026-27211, CVE-2026-45782), its virtio-devices/src/block.rs, and libvirt's src/ch of 11.3.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from swarm_tui.doctor.finding import Finding, fail, ok, warn
from swarm_tui.model import Capabilities
from swarm_tui.premises import Format, Survey

GUIDE: Final = "docs/cloud-hypervisor.md"

_Version = tuple[int, ...]

_SOUND_VMM: Final = (52,)
_SECTOR_RULE: Final = (50, 1)
"""From here on a raw disk whose type libvirt does not tell takes no write at its first sector."""
_SAVES_NETWORK: Final = (40,)
_NAMED_DISKS: Final = 3


@dataclass(frozen=True, slots=True)
class Ground:
    """What is known of one host with, or without, the driver."""

    name: str
    """What the findings begin with: "host lab"."""
    survey: Survey
    capabilities: Capabilities | None
    """What libvirt told at the connection; None: there was none, which is told elsewhere."""

    @property
    def remedies(self) -> Mapping[str, str]:
        return _FEDORA if "fedora" in self.survey.system.split() else _DEBIAN


Check = Callable[[Ground], Iterator[Finding]]

_DEBIAN: Final = {
    "driver": "scripts/build-libvirt-ch, then scripts/build-libvirt-ch --unit, on the host",
    "start": "sudo systemctl start virtchd-swarm, or PREFIX/sbin/start-virtchd where there is no"
    " systemd",
    "restart": "sudo systemctl restart virtchd-swarm",
    "machined": "sudo apt-get install systemd-container",
    "idle": "Run it by the unit of scripts/build-libvirt-ch --unit, which sets no --timeout",
}
_FEDORA: Final = {
    "driver": "sudo dnf install libvirt-daemon-driver-ch, on the host",
    "start": "sudo systemctl enable --now virtchd.socket",
    "restart": "sudo systemctl restart virtchd",
    "machined": "sudo dnf install systemd-container",
    "idle": "Put VIRTCHD_ARGS= into /etc/sysconfig/virtchd, and sudo systemctl restart virtchd",
}


def examine(ground: Ground) -> Iterator[Finding]:
    """Everything that can be told without making a VM."""
    for check in _CHECKS:
        yield from check(ground)


def driver(ground: Ground) -> Iterator[Finding]:
    survey, name = ground.survey, f"{ground.name}: driver"
    if ground.capabilities:
        told = survey.daemon.name if survey.daemon else "a daemon that is hidden from this login"
        yield ok(name, f"Cloud Hypervisor's, in {told}")
    elif survey.driver is None:
        yield fail(
            name,
            "libvirt has no Cloud Hypervisor driver there",
            "Debian and Ubuntu leave it out of their libvirt.",
            f"{ground.remedies['driver']}; see {GUIDE}",
        )
    elif survey.daemon is None:
        yield fail(
            name,
            "no libvirt daemon runs there",
            f"{survey.driver} is installed.",
            ground.remedies["start"],
        )


def vmm(ground: Ground) -> Iterator[Finding]:
    survey, name = ground.survey, f"{ground.name}: cloud-hypervisor"
    if survey.vmm is None:
        yield fail(
            name,
            "is not in the daemon's PATH",
            "The driver looks for it when its daemon starts, and is not there without it.",
            f"Install it as /usr/local/bin/cloud-hypervisor (see {GUIDE}), then"
            f" {ground.remedies['restart']}",
        )
        return
    now = _version(survey.vmm_version)
    if now is None:
        yield fail(
            name,
            f"{survey.vmm} does not tell its version",
            survey.vmm_version or "It said nothing.",
            f"Install it anew; see {GUIDE}",
        )
        return
    yield from _age(ground, name, now)
    if ground.capabilities and _version(ground.capabilities.version) != now:
        yield warn(
            name,
            f"is {_told(now)} now, and the daemon started with {ground.capabilities.version}",
            "The driver judges what it can do by the version that it met at its start.",
            f"{ground.remedies['restart']}; VMs that run become orphans, which `u` adopts",
        )


def _age(ground: Ground, name: str, now: _Version) -> Iterator[Finding]:
    if now < _SAVES_NETWORK:
        yield fail(
            name,
            f"{ground.survey.vmm} is {_told(now)}",
            f"libvirt saves VMs with a network from {_told(_SAVES_NETWORK)} on only.",
            f"Install {_told(_SOUND_VMM)} or newer; see {GUIDE}",
        )
    elif now < _SOUND_VMM:
        yield warn(
            name,
            f"{ground.survey.vmm} is {_told(now)}",
            "A guest can use known faults of it against the host: CVE-2026-45782 up to v51, and"
            " CVE-2026-27211 up to v50.0.",
            f"Install {_told(_SOUND_VMM)} or newer; see {GUIDE}",
        )
    else:
        yield ok(name, f"{ground.survey.vmm} is {_told(now)}")


def kvm(ground: Ground) -> Iterator[Finding]:
    survey, name = ground.survey, f"{ground.name}: kvm"
    if survey.kvm:
        yield fail(
            name,
            survey.kvm,
            "Cloud Hypervisor has no software emulation; its driver is not there without KVM.",
            "Switch on virtualization in the firmware and load kvm_intel or kvm_amd, then"
            f" {ground.remedies['restart']}",
        )
    else:
        yield ok(name, "is there; that a guest boots with it, `doctor --probe` proves")


def idle(ground: Ground) -> Iterator[Finding]:
    daemon, name = ground.survey.daemon, f"{ground.name}: daemon"
    idle_s = daemon.idle_s if daemon else ground.survey.unit_idle_s
    if idle_s:
        yield warn(
            name,
            f"ends after {idle_s} s without a client",
            "The driver keeps its VMs in memory only: those that run then become orphans.",
            ground.remedies["idle"],
        )
    elif daemon:
        yield ok(name, f"{daemon.name} (process {daemon.pid}) stays while nobody is connected")


def machined(ground: Ground) -> Iterator[Finding]:
    if not ground.survey.is_served:
        yield warn(
            f"{ground.name}: systemd-machined",
            "is not installed",
            "By it alone libvirt ends the VMM of a VM that was stopped or saved, which else keeps"
            " its memory and its disk.",
            ground.remedies["machined"],
        )


def restore(ground: Ground) -> Iterator[Finding]:
    daemon, capabilities = ground.survey.daemon, ground.capabilities
    if capabilities is None:
        return
    name = f"{ground.name}: restore"
    if daemon and daemon.is_mended:
        yield ok(name, "libvirt was built with our fixes; `doctor --probe` proves them")
    else:
        yield warn(
            name,
            f"libvirt {capabilities.library} was not built by scripts/build-libvirt-ch",
            "libvirt 11.3 restores no VM at all, and none with a network card; older and newer"
            " sources have at least one of these faults. An agent that is paused to a snapshot"
            " may not come back.",
            "Prove it with `swarm-tui doctor --probe`; if it fails: scripts/build-libvirt-ch",
        )


def disks(ground: Ground) -> Iterator[Finding]:
    """The rules for disks: raw, partitioned, nothing written to the first sector."""
    name = f"{ground.name}: disks"
    formats = ground.survey.disks
    layered = [disk for disk, found in formats.items() if found is Format.QCOW2]
    bare = [disk for disk, found in formats.items() if found is Format.BARE]
    seen = [disk for disk, found in formats.items() if found is not Format.HIDDEN]
    if layered:
        yield fail(
            name,
            f"{_named(layered)} is qcow2",
            "libvirt does not tell Cloud Hypervisor a disk's format, nor lets it follow a backing"
            " file.",
            f"qemu-img convert -O raw SOURCE TARGET while the VM is off; see {GUIDE}",
        )
    if bare and (_version(ground.survey.vmm_version) or ()) >= _SECTOR_RULE:
        yield warn(
            name,
            f"{_named(bare)} has no partition table",
            "From v50.1 on Cloud Hypervisor refuses writes to the first sector of such a disk: a"
            " file system that begins there breaks.",
            f"Make it anew with a GUID partition table, root=/dev/vda1; see {GUIDE}",
        )
    elif seen and not layered:
        yield ok(name, f"{len(seen)} looked at, raw")


def way(ground: Ground) -> Iterator[Finding]:
    """Of any host."""
    survey = ground.survey
    system = survey.system.partition(" ")[0] or "an unknown system"
    yield ok(
        f"{ground.name}: outpost",
        f"answers as {survey.user}, by Python {survey.python} on {system}, {survey.machine}",
    )


_CHECKS: Final[Sequence[Check]] = (driver, vmm, kvm, idle, machined, restore, disks)


def _version(text: str) -> _Version | None:
    """The numbers of "cloud-hypervisor v52.0" or "11.3.0", as three."""
    found = re.search(r"(\d{1,6})\.(\d{1,6})(?:\.(\d{1,6}))?", text)
    return tuple(int(part or 0) for part in found.groups()) if found else None


def _told(version: _Version) -> str:
    return f"v{'.'.join(map(str, (*version, 0)[:2]))}"


def _named(disks: Sequence[Path]) -> str:
    more = len(disks) - _NAMED_DISKS
    names = ", ".join(map(str, disks[:_NAMED_DISKS]))
    return f"{names} and {more} more" if more > 0 else names
