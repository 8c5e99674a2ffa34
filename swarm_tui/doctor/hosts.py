"""Checks of libvirt: the daemon here, and every host with a round trip."""

from __future__ import annotations

import asyncio
import os
import pwd
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from swarm_tui.doctor.finding import Check, Finding, Ground, fail, ok, warn
from swarm_tui.doctor.visit import visit
from swarm_tui.model import HostName
from swarm_tui.ports import Hypervisor
from swarm_tui.settings import HostEntry

_SOCKETS: Final = (Path("/run/libvirt/libvirt-sock"), Path("/run/libvirt/virtqemud-sock"))
_DAEMONS: Final = ("libvirtd", "virtqemud")
_DRIVERS: Final = tuple(
    f"usr/{place}/libvirt/connection-driver/libvirt_driver_qemu.so"
    for place in ("lib/*", "lib64", "lib")
)
_QEMU_USER: Final = "libvirt-qemu"


def daemon(ground: Ground) -> Iterator[Finding]:
    programs = [path for name in _DAEMONS if (path := ground.find(name))]
    socket = next((path for path in _SOCKETS if _is_there(path)), None)
    if not programs:
        yield ground.lack(
            "libvirt",
            "no daemon is installed",
            "It runs the VMs of this machine; hosts elsewhere need none here.",
            ground.install("libvirt-daemon", "libvirt-daemon-driver-qemu"),
        )
        return
    driver = next((file for place in _DRIVERS for file in Path("/").glob(place)), None)
    if driver is None:
        yield ground.lack(
            "libvirt's QEMU driver",
            "not installed",
            "The daemon cannot run QEMU without it.",
            ground.install("libvirt-daemon-driver-qemu"),
        )
    elif ground.uid == 0 and _lacks_qemu_user(driver):
        yield ground.lack(
            "libvirt's QEMU driver",
            f"there is no user {_QEMU_USER}",
            "As root, the driver runs QEMU as that user and does not load without it.",
            ground.install("libvirt-daemon-system", "libvirt-daemon-system-sysv"),
        )
    if socket is None:
        yield ok("libvirt", f"{programs[0]}; it is started when it is needed")
    elif os.access(socket, os.R_OK | os.W_OK):
        yield ok("libvirt", f"a daemon listens at {socket}")
    elif any(_is_system(host.uri) for host in ground.loaded.config.hosts.values()):
        yield fail(
            "libvirt",
            f"{socket} is not writable for you",
            "A configured host is this machine's system daemon.",
            "sudo usermod -aG libvirt $USER, then log in again; or use qemu:///session",
        )
    else:
        yield ok("libvirt", f"{programs[0]}; a daemon of your own is used (qemu:///session)")


def _is_there(socket: Path) -> bool:
    try:
        return socket.is_socket()
    except PermissionError:
        return True  # behind a folder that is closed to us


def _lacks_qemu_user(driver: Path) -> bool:
    """In Debian 12 another package makes that user than the one that holds the driver."""
    try:
        pwd.getpwnam(_QEMU_USER)
    except KeyError:
        return _QEMU_USER.encode() in driver.read_bytes()
    return False


def hosts(ground: Ground) -> Iterator[Finding]:
    from swarm_tui.bootstrap import make_hypervisors

    for entry in ground.loaded.config.hosts.values():
        yield from _keys(entry)
    hypervisors = make_hypervisors(ground.loaded)
    yield from asyncio.run(_visit_all(ground, hypervisors))
    if not hypervisors:
        yield ok("hosts", "none is configured, and no local swarm was brought up yet")


def host(name: HostName) -> Check:
    """The check of one of them alone."""

    def host(ground: Ground) -> Iterator[Finding]:
        from swarm_tui.bootstrap import make_hypervisors

        if entry := ground.loaded.config.hosts.get(name):
            yield from _keys(entry)
        hypervisors = [one for one in make_hypervisors(ground.loaded) if one.host == name]
        yield from asyncio.run(_visit_all(ground, hypervisors))

    return host


async def _visit_all(ground: Ground, hypervisors: Sequence[Hypervisor]) -> list[Finding]:
    # Two probes at once would slow each other down.
    if ground.is_probing:
        return [found for one in hypervisors for found in await visit(ground, one)]
    found = await asyncio.gather(*(visit(ground, hypervisor) for hypervisor in hypervisors))
    return [finding for findings in found for finding in findings]


def cloud_hypervisor(ground: Ground) -> Iterator[Finding]:
    """Whether the local swarm could run on Cloud Hypervisor, where it does not yet."""
    from swarm_tui.bootstrap import local_uri
    from swarm_tui.local.virtchd import lacks

    local = ground.loaded.config.local
    if local.driver == "qemu" or (local_uri(ground.loaded.paths) or "").startswith("ch"):
        return
    missing = lacks(local.virtchd if isinstance(local.virtchd, Path) else None)
    if local.driver == "ch":
        for lack in missing:
            yield ground.lack(
                "cloud-hypervisor",
                f"missing for the local swarm: {lack.what}",
                "local.driver is ch.",
                lack.remedy,
            )
    elif missing:
        what = "; ".join(lack.what for lack in missing)
        yield ok(
            "cloud-hypervisor", f"the local swarm runs on QEMU; for this one is missing: {what}"
        )
    if not missing:
        yield ok("cloud-hypervisor", "the local swarm can run on it")


def _keys(entry: HostEntry) -> Iterator[Finding]:
    for setting, path in (
        ("identity", entry.identity),
        ("guest_identity", entry.guest_identity),
    ):
        if path and (obstacle := _key_obstacle(path)):
            yield fail(
                f"host {entry.name}",
                f"its key {path} cannot be used",
                obstacle,
                f"chmod 600 {path}, or name another one in hosts.{entry.name}.{setting}",
            )


def _key_obstacle(identity: Path) -> str:
    try:
        mode = identity.stat().st_mode
    except OSError as error:
        return error.strerror or str(error)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        return "others may read it, so ssh refuses it"
    return "" if os.access(identity, os.R_OK) else "it is not readable for you"


def passage(ground: Ground) -> Iterator[Finding]:
    """A system daemon runs QEMU as a user of its own, who must get to the disks."""
    uris = [host.uri for host in ground.loaded.config.hosts.values()]
    if ground.uid == 0 or not any(_is_system(uri) for uri in uris):
        return
    for folder in (ground.loaded.paths.data, ground.loaded.config.snapshots.folder):
        closed = [
            part
            for part in (folder, *folder.parents)
            if part.is_dir() and not part.stat().st_mode & stat.S_IXOTH
        ]
        if closed:
            yield warn(
                "passage for QEMU",
                f"{closed[-1]} is closed to others",
                f"The system daemon runs QEMU as a user of its own, who must reach {folder}.",
                f"chmod o+x {closed[-1]}, use qemu:///session, or set paths.data elsewhere",
            )


def _is_system(uri: str) -> bool:
    return uri.partition("?")[0] == "qemu:///system"
