"""Checks of this machine: programs, virtualization, memory, room, limits."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from swarm_tui.doctor.finding import Finding, Ground, fail, ok, warn
from swarm_tui.errors import SetupError

_MIB: Final = 1 << 20
_IMAGE_MIB: Final = 512
"""What packages, kernel and guest image take in the cache, with room for the next one."""
_OVERLAY_MIB: Final = 128
"""What an agent writes to its own disk, about."""
_FILES: Final = 1024
"""Open files wanted: two an agent, and the program's own."""
_ANSWER_S: Final = 10.0

_PROGRAMS: Final = (
    ("qemu-system-x86_64", "qemu-system-x86", "it runs the agents of the local swarm"),
    ("qemu-img", "qemu-utils", "it makes the agents' disks"),
    ("ssh", "openssh-client", "libvirt hosts with +ssh in their URI are reached by it"),
    ("git", "git", "reviews and the guest image are made with it"),
)
_CGROUP: Final = Path("/sys/fs/cgroup")


def programs(ground: Ground) -> Iterator[Finding]:
    for program, package, why in _PROGRAMS:
        path = ground.find(program)
        if path is None:
            yield ground.lack(program, "not installed", why, ground.install(package))
        else:
            option = "-V" if program == "ssh" else "--version"
            yield ok(program, _first_line(path, option))
    tmux = ground.find("tmux")
    if tmux:
        yield ok("tmux", _first_line(tmux, "-V"))
    else:
        yield ok("tmux", "not installed; a shell then takes the whole screen while it lasts")


def _first_line(program: Path, option: str) -> str:
    try:
        done = subprocess.run(
            [program, option],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_ANSWER_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"{program} does not answer"
    return done.stdout.decode("utf-8", "replace").partition("\n")[0]


def image_tools(ground: Ground) -> Iterator[Finding]:
    from swarm_tui.outpost.programs import PROGRAMS

    missing = [program for program in PROGRAMS if not ground.find(program)]
    if ground.uid == 0 and "fakeroot" in missing:
        missing.remove("fakeroot")  # root needs no pretence
    if missing:
        yield ground.lack(
            "guest image",
            f"cannot be built: no {', '.join(missing)}",
            "The local swarm's image is built from Debian packages with them.",
            ground.install(*sorted({PROGRAMS[program] for program in missing})),
        )
    elif not any(Path("/var/lib/apt/lists").glob("*_Packages*")):
        yield ground.lack(
            "guest image",
            "cannot be built: apt has no package lists",
            "The local swarm's image is built from Debian packages, which apt finds by its lists.",
            "apt-get update" if ground.uid == 0 else "sudo apt-get update",
        )
    else:
        yield ok("guest image", "everything to build it is there")


def virtualization(ground: Ground) -> Iterator[Finding]:
    """Asks the boot probe, for up to five seconds when nobody has before."""
    from swarm_tui.local.accel import Mode, choose_accel
    from swarm_tui.local.image import Image

    wanted = ground.loaded.config.local.accel
    device = Path("/dev/kvm")
    if platform.machine() != "x86_64":
        yield ground.lack(
            "machine",
            f"a {platform.machine()} machine",
            "The local swarm needs x86-64 so far; hosts elsewhere can be watched.",
            "Configure a libvirt host in [hosts.NAME].",
        )
    elif wanted == "tcg":
        yield ok("kvm", "not used: local.accel is tcg")
    elif not device.exists() or not os.access(device, os.R_OK | os.W_OK):
        is_there = device.exists()
        tell = ground.lack if wanted == "kvm" else warn
        yield tell(
            "kvm",
            f"{device} is not writable for you" if is_there else f"there is no {device}",
            "Agents run in software emulation, several times slower.",
            "sudo usermod -aG kvm $USER, then log in again" if is_there else "",
        )
    elif not (built := images(ground.loaded.paths.cache)):
        yield ok("kvm", f"{device} is writable; whether Linux boots with it is tried at first use")
    else:
        image = Image(built[-1], built[-1].name, "")
        try:
            accel = choose_accel(image, ground.loaded.paths.cache)
        except SetupError as error:
            yield fail("kvm", error.title, error.detail, error.hint)
            return
        if accel.mode is Mode.KVM:
            yield ok("kvm", accel.reason)
        else:
            tell = ground.lack if wanted == "kvm" else warn
            yield tell("kvm", "does not work here", accel.reason)


def images(cache: Path) -> list[Path]:
    """Finished guest images, the newest last."""
    found = (cache / "images").glob("*/image.json")
    return [facts.parent for facts in sorted(found, key=lambda facts: facts.stat().st_mtime)]


def memory(ground: Ground) -> Iterator[Finding]:
    local = ground.loaded.config.local
    needed = local.agents * local.memory_mib
    free = min(_free_memory_mib())
    if free >= needed:
        yield ok("memory", f"{free} MiB free; {local.agents} agents are given {needed} MiB")
    else:
        tell = ground.lack if free < local.memory_mib else warn
        yield tell(
            "memory",
            f"{free} MiB free, and {local.agents} agents are given {needed} MiB",
            "A guest that the system cannot give memory to is killed.",
            "Set local.agents or local.memory_mib lower, or end other programs.",
        )


def _free_memory_mib() -> Iterator[int]:
    """What is free in the machine, and what the limit of our control group leaves."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) // 1024
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    groups = [line.removeprefix("0::/") for line in lines if line.startswith("0::/")]
    for folder in {_CGROUP, *(_CGROUP / group for group in groups)}:
        try:
            limit = (folder / "memory.max").read_text().strip()
            used = int((folder / "memory.current").read_text())
        except FileNotFoundError:
            continue  # cgroup v1, or the root group, which has no limit
        if limit != "max":
            yield max(0, int(limit) - used) // _MIB


def room(ground: Ground) -> Iterator[Finding]:
    config, paths = ground.loaded.config, ground.loaded.paths
    agents, memory_mib = config.local.agents, config.local.memory_mib
    wanted = (
        (paths.cache, _IMAGE_MIB),
        (paths.data, (agents + 1) * (memory_mib + _OVERLAY_MIB)),
        (config.snapshots.folder, agents * (config.snapshots.keep + 1) * memory_mib),
    )
    needs: dict[int, tuple[int, list[Path]]] = {}
    for folder, need in wanted:
        device = nearest(folder).stat().st_dev
        before, folders = needs.get(device, (0, []))
        needs[device] = (before + need, [*folders, folder])
    for need, folders in needs.values():
        system = os.statvfs(nearest(folders[0]))
        free = system.f_bavail * system.f_frsize // _MIB
        name = f"room for {', '.join(map(str, folders))}"
        if system.f_files and not system.f_favail:
            yield fail(name, "no inodes left", "No file can be made.", "Remove files.")
        elif free >= need:
            yield ok(name, f"{free} MiB free; about {need} MiB are used by {agents} agents")
        else:
            tell = ground.lack if free < memory_mib else warn
            yield tell(
                name,
                f"{free} MiB free, and {agents} agents use about {need} MiB",
                "A pause to a snapshot writes the agent's memory to disk.",
                "Free some space, lower snapshots.keep, or set snapshots.folder elsewhere.",
            )


def nearest(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(part for part in (folder, *folder.parents) if part.is_dir())


def limits(ground: Ground) -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = max(_FILES, 8 * ground.loaded.config.local.agents)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        yield ok("open files", f"{soft} allowed")
    else:
        yield warn(
            "open files",
            f"{soft} allowed, {needed} wanted",
            "Each agent takes a few: connections, logs, consoles.",
            f"ulimit -n {needed if hard == resource.RLIM_INFINITY else min(needed, hard)}",
        )
