"""The libvirt daemon of the local swarm: one that runs already, else one of our own.

A user's own daemon needs neither privileges nor configuration; root shares the machine's. Where
systemd or another client runs one, that is used. Nothing in /etc is read or changed.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from signal import SIGTERM
from typing import Final

from swarm_tui.errors import SetupError
from swarm_tui.local import reaper

START_S: Final = 15.0
STOP_S: Final = 10.0
POLL_S: Final = 0.02
IDLE_S: Final = 120
"""A user's own daemon ends after so long without a client and a VM; libvirt's own does, too."""

SYSTEM: Final = "qemu:///system"
SESSION: Final = "qemu:///session"
SYSTEM_RUN: Final = Path("/run/libvirt")
QEMU_USER: Final = "libvirt-qemu"
KVM: Final = Path("/dev/kvm")

_PROGRAMS: Final = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "libvirtd": "libvirt-daemon",
    "virtlogd": "libvirt-daemon",
}
"""Program that a swarm needs → the Debian package that holds it."""
_DRIVERS: Final = tuple(
    f"{place}/libvirt/connection-driver/libvirt_driver_qemu.so"
    for place in ("lib/*", "lib64", "lib")
)
_SOCKETS: Final = ("libvirt-sock", "virtqemud-sock")
"""Of the one daemon for all drivers, and of that for QEMU alone, which some systems have."""


def ensure_daemon(folder: Path) -> str:
    """The URI of a libvirt daemon that answers; started if there is none.

    Blocks: some milliseconds, or about half a second to start one. `folder` keeps what belongs
    to a daemon of ours (process ids, logs). Raises SetupError.
    """
    uri, run = place()
    if not _is_up(run):
        with lock(folder):
            if not _is_up(run):
                _check_installed()
                _prepare(folder, run)
                idle = [] if os.geteuid() == 0 else ["--timeout", str(IDLE_S)]
                start(folder, "libvirtd", ["libvirtd", *idle], lambda: _is_up(run))
    return uri


def stop_daemon(folder: Path) -> None:
    """Stop the daemon that `ensure_daemon` started with this folder, if any; VMs go on.

    Raises SetupError when it does not end.
    """
    with lock(folder):
        keeper = stop(folder, "libvirtd")
        if keeper is None:
            return
        # While QEMU processes are left, they write their consoles through the log daemon, and
        # the reaper waits for them.
        logger = _process(folder / "virtlogd.pid", marker=str(folder))
        if logger and not _children(keeper):
            os.kill(logger, SIGTERM)
            _wait(lambda: not _runs(logger), STOP_S, "virtlogd does not end")


def stop(folder: Path, name: str) -> int | None:
    """Stop what `start` started with this folder and name, if it runs; returns its reaper.

    Raises SetupError when it does not end.
    """
    keeper = _process(folder / f"{name}-reaper.pid", marker=str(folder))
    daemon = _process(folder / f"{name}.pid", marker=name)
    if keeper is None or daemon is None or _parent(daemon) != keeper:
        return None
    os.kill(keeper, SIGTERM)
    _wait(lambda: not _runs(daemon), STOP_S, f"{name} does not end")
    return keeper


def place() -> tuple[str, Path]:
    """The URI for this user, and the folder of its daemon's sockets."""
    if os.geteuid() == 0:
        return SYSTEM, SYSTEM_RUN
    # libvirt asks g_get_user_runtime_dir(), which falls back to the cache folder.
    named = os.environ.get("XDG_RUNTIME_DIR") or os.environ.get("XDG_CACHE_HOME")
    return SESSION, (Path(named) if named else Path.home() / ".cache") / "libvirt"


def _is_up(run: Path) -> bool:
    return any(answers(run / name) for name in _SOCKETS)


def answers(path: Path) -> bool:
    """Whether somebody listens; a socket that was left behind refuses."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(2)
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


def _check_installed() -> None:
    path = _environment()["PATH"]
    packages = {package for name, package in _PROGRAMS.items() if not shutil.which(name, path=path)}
    drivers = [file for place in _DRIVERS for file in Path("/usr").glob(place)]
    if not drivers:
        packages.add("libvirt-daemon-driver-qemu")
    elif os.geteuid() == 0 and _lacks_qemu_user(drivers[0]):
        packages.add("libvirt-daemon-system")
        if not Path("/run/systemd/system").exists():  # else it would bring systemd
            packages.add("libvirt-daemon-system-sysv")
    if packages:
        raise SetupError(
            "Missing for a local swarm: " + ", ".join(sorted(packages)),
            hint="apt-get install --no-install-recommends " + " ".join(sorted(packages)),
        )


def _lacks_qemu_user(driver: Path) -> bool:
    """As root, Debian's driver runs QEMU as a user of its own and refuses to load without it.

    In Debian 12 another package makes that user than the one that holds the driver.
    """
    try:
        pwd.getpwnam(QEMU_USER)
    except KeyError:
        return b"\0" + QEMU_USER.encode() + b"\0" in driver.read_bytes()
    return False


def _prepare(folder: Path, run: Path) -> None:
    if os.geteuid() != 0:
        return
    if not answers(run / "virtlogd-sock"):
        # A user's daemon starts this one by itself.
        _run(["virtlogd", "--daemon", "--pid-file", str(folder / "virtlogd.pid")])
    with suppress(OSError, KeyError):  # without it all works, slowly
        _share_kvm()


def start(folder: Path, name: str, command: Sequence[str], is_up: Callable[[], bool]) -> None:
    """Start a daemon and wait until `is_up` says so; its last words make a SetupError else.

    It stays when we go. `name` is part of its program's, and names its files in `folder`.
    """
    pid_file, log = folder / f"{name}.pid", folder / f"{name}.log"
    pid_file.unlink(missing_ok=True)
    with open(log, "wb") as output:
        process = subprocess.Popen(
            # Isolated, and by its path: the daemon's folder is not ours.
            [sys.executable, "-I", reaper.__file__, str(pid_file), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env=_environment(),
            start_new_session=True,
        )
    (folder / f"{name}-reaper.pid").write_text(f"{process.pid}\n")
    try:
        _wait(lambda: is_up() or process.poll() is not None, START_S, f"{name} does not start")
    except SetupError:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
        raise
    if not is_up():  # or another one was quicker
        raise SetupError(
            f"{name} does not start", "\n".join(log.read_text(errors="replace").splitlines()[-5:])
        )
    # It outlives us on purpose, and must not be called a leak for that.
    process.returncode = 0


def _share_kvm() -> None:
    """Let QEMU's user at KVM, as udev does, where there is no udev (in containers, mostly).

    libvirt probes QEMU with more rights than it runs it with. When only root may open the device
    the two disagree, and libvirt probes anew at each look: ten seconds for a definition instead
    of none. Raises OSError, and KeyError when there is no such user.
    """
    device = KVM.stat()
    user = pwd.getpwnam(QEMU_USER)
    is_open = (
        device.st_mode & stat.S_IWOTH
        or (device.st_mode & stat.S_IWGRP and device.st_gid == user.pw_gid)
        or (device.st_mode & stat.S_IWUSR and device.st_uid == user.pw_uid)
    )
    if not is_open and not Path("/run/udev/control").exists():
        os.chown(KVM, user.pw_uid, -1)


def _run(command: list[str]) -> None:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        env=_environment(),
        check=False,
    )
    if done.returncode != 0:
        raise SetupError(f"{command[0]} does not start", done.stderr)


def _environment() -> Mapping[str, str]:
    """Ours, with the folders of daemons on the path, and without our silencing of libvirt."""
    kept = {name: value for name, value in os.environ.items() if name != "LIBVIRT_LOG_OUTPUTS"}
    return kept | {"PATH": f"{kept.get('PATH', os.defpath)}:/usr/sbin:/sbin"}


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """One at a time starts or stops; the kernel lets go of it when we die."""
    with open(folder / "daemon.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _wait(is_done: Callable[[], bool], limit_s: float, title: str) -> None:
    deadline = time.monotonic() + limit_s
    while not is_done():
        if time.monotonic() > deadline:
            raise SetupError(title, f"nothing happened in {limit_s:g} s")
        time.sleep(POLL_S)


def _process(pid_file: Path, marker: str) -> int | None:
    """The process named by a file of ours, if it still is the one that we mean."""
    try:
        pid = int(pid_file.read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if marker.encode() in command else None


def _runs(pid: int) -> bool:
    """Not only as a zombie, which its parent may collect late."""
    return _status(pid)[:1] not in ([], ["Z"])


def _parent(pid: int) -> int | None:
    status = _status(pid)
    return int(status[1]) if status else None


def _status(pid: int) -> list[str]:
    """State, parent and so on (proc(5), stat); empty when there is no such process."""
    try:
        # pid (comm) state ppid …: the name may hold anything, also brackets.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _children(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
