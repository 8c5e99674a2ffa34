"""Checks of libvirt: the daemon here, and every host with a round trip."""

from __future__ import annotations

import asyncio
import os
import pwd
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from swarm_tui.doctor.finding import Finding, Ground, fail, failed, ok, warn
from swarm_tui.errors import SwarmError
from swarm_tui.model import Hint
from swarm_tui.ports import Hypervisor

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

    for host in ground.loaded.config.hosts.values():
        if host.identity and (obstacle := _key_obstacle(host.identity)):
            yield fail(
                f"host {host.name}",
                f"its key {host.identity} cannot be used",
                obstacle,
                f"chmod 600 {host.identity}, or name another one in hosts.{host.name}.identity",
            )
    hypervisors = make_hypervisors(ground.loaded)
    yield from asyncio.run(_visit_all(hypervisors))
    if not hypervisors:
        yield ok("hosts", "none is configured, and no local swarm was brought up yet")


async def _visit_all(hypervisors: Sequence[Hypervisor]) -> list[Finding]:
    found = await asyncio.gather(*map(_visit, hypervisors))
    return [finding for findings in found for finding in findings]


async def _visit(hypervisor: Hypervisor) -> list[Finding]:
    name = f"host {hypervisor.host}"

    def ignore(_hint: Hint) -> None:
        """Nothing is watched."""

    try:
        capabilities = await hypervisor.open(ignore)
        asked = time.perf_counter()
        await hypervisor.facts()
        answered_ms = (time.perf_counter() - asked) * 1000
    except SwarmError as error:
        return [failed(name, error)]
    finally:
        await hypervisor.close()
    answer = ok(
        name,
        f"{hypervisor.uri} answers in {answered_ms:.1f} ms: {capabilities.driver} "
        f"{capabilities.version}, libvirt {capabilities.library or 'n/a'}",
    )
    return [answer] + [
        warn(name, f"cannot {need}", capabilities.missing[need], "Agents there cannot be paused.")
        for need in ("save", "restore")
        if need in capabilities.missing
    ]


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
