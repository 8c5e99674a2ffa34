"""What an outpost tells of its host: processes, disks, and what runs VMs there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from swarm_tui.text import Safe


@dataclass(frozen=True, slots=True)
class Process:
    """A process on a host, told apart from a later one that has its number."""

    pid: int
    started: int
    """Clock ticks from the host's boot to its start (proc(5), stat, field 22)."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a host's kernel knows of one VMM's process. Totals only grow; `None` is unknown."""

    process: Process
    cpu_ns: int | None = None
    """Of the whole process, vCPUs and the VMM's own threads."""
    memory_host: int | None = None
    """Resident bytes."""
    disk_read: int | None = None
    disk_written: int | None = None
    net_received: int | None = None
    """By the guest; the host's tap has sent it."""
    net_sent: int | None = None


class Format(StrEnum):
    """What a disk's file is, by its first bytes."""

    PARTITIONED = "partitioned"
    BARE = "bare"  # raw, without a partition table: a file system begins where the disk begins
    QCOW2 = "qcow2"
    HIDDEN = "hidden"  # not there, or closed to our login


@dataclass(frozen=True, slots=True)
class Daemon:
    """A libvirt daemon that runs on a host and may hold the Cloud Hypervisor driver."""

    name: Safe
    """"virtchd", or "libvirtd" for the one that holds all drivers."""
    pid: int
    idle_s: int | None = None
    """After how long without a client it ends; None: never."""
    is_mended: bool = False
    """It was built by scripts/build-libvirt-ch, and so can restore."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What there is on a host for running VMs under Cloud Hypervisor, as our login sees it."""

    system: Safe
    """What calls itself so: "debian", "fedora"; with those that it is like."""
    python: Safe
    machine: Safe
    """The processor's kind: "x86_64"."""
    user: Safe
    folder: Path
    """Where our data lies there, or will lie."""
    kvm: Safe
    """Why KVM does not serve; empty: it makes VMs, or only the daemon may try."""
    daemon: Daemon | None
    """The one that answers, or would."""
    driver: Path | None
    """The driver or its daemon, where it is installed."""
    unit_idle_s: int | None
    """As `Daemon.idle_s`, by what systemd is told; None: never, or there is no such unit."""
    is_served: bool
    """systemd-machined is there, by which libvirt ends VMMs, or there is no systemd at all."""
    vmm: Path | None
    """The program `cloud-hypervisor` that the daemon finds."""
    vmm_version: Safe
    """As that says now; a daemon remembers what it said when the daemon was started."""
    disks: Mapping[Path, Format]
    image: Path | None = None
    """The newest guest image that a local swarm there was made of."""
