"""What there is on this host for running VMs under libvirt's Cloud Hypervisor driver.

The driver looks for KVM and for `cloud-hypervisor` once, when its daemon starts, in the daemon's
own environment, and without either it is not there at all (ch_driver.c of libvirt 11.3). So the
daemon is found first, and then all is looked at as that one does.
"""

from __future__ import annotations

import errno
import fcntl
import getpass
import os
import platform
import re
import shlex
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from swarm_tui.errors import HostDenied, HostUnreachable
from swarm_tui.outpost.daemon import find_socket
from swarm_tui.paths import locate
from swarm_tui.premises import Daemon, Format, Survey
from swarm_tui.text import EMPTY, Safe, literal, sanitize

STAMP: Final = "swarm-tui.stamp"
"""In the prefix that scripts/build-libvirt-ch makes."""

_DAEMONS: Final = ("virtchd", "libvirtd")
_DRIVERS: Final = (
    "usr/sbin/virtchd",
    "usr/bin/virtchd",
    "usr/local/sbin/virtchd",
    "opt/libvirt-ch/sbin/virtchd",
    "usr/lib64/libvirt/connection-driver/libvirt_driver_ch.so",
    "usr/lib/libvirt/connection-driver/libvirt_driver_ch.so",
    "usr/lib/*/libvirt/connection-driver/libvirt_driver_ch.so",
)
_OWN_DRIVER: Final = ".local/share/swarm-tui/libvirt-ch/sbin/virtchd"
_ARGUMENTS: Final = (
    "usr/lib/systemd/system/virtchd.service",
    "etc/systemd/system/virtchd.service",
    "etc/systemd/system/virtchd.service.d/*.conf",
    "etc/sysconfig/virtchd",
    "etc/default/virtchd",
)
"""Where systemd is told the daemon's arguments; what stands later goes before."""
_ROOT: Final = Path("/")
_VARIABLE: Final = re.compile(r'^[^#\n]*\bVIRTCHD_ARGS=["\']?([^"\'\n]*)', re.M)
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""systemd's own for services."""
_SYSTEMD: Final = Path("/run/systemd/system")
_VMM: Final = "cloud-hypervisor"
_ANSWER_S: Final = 5.0

_KVM: Final = Path("/dev/kvm")
_MSHV: Final = Path("/dev/mshv")
_KVM_CREATE_VM: Final = 0xAE01
"""linux/kvm.h"""


def survey(is_session: bool, named: Path | None, disks: Sequence[Path]) -> Survey:
    """As `ports.Outpost.survey`."""
    pid = _find_daemon(is_session, named)
    vmm = _find_vmm(pid)
    return Survey(
        system=_system(),
        python=sanitize(platform.python_version()),
        machine=sanitize(platform.machine()),
        user=sanitize(getpass.getuser()),
        folder=locate().data,
        kvm=_kvm_obstacle(is_session),
        daemon=_daemon(pid) if pid else None,
        driver=_find_driver(),
        unit_idle_s=_idle_s(_unit_arguments()),
        is_served=_is_served(),
        vmm=vmm,
        vmm_version=_version(pid, vmm) if vmm else EMPTY,
        disks={disk: _format(disk) for disk in disks},
        image=_find_image(),
    )


def _system() -> Safe:
    with suppress(OSError):
        told = platform.freedesktop_os_release()
        return sanitize(f"{told['ID']} {told.get('ID_LIKE', '')}".strip())
    return EMPTY


def _find_image() -> Path | None:
    finished = (locate().cache / "images").glob("*/image.json")
    newest = max(finished, key=_written_at, default=None)
    return newest.parent if newest else None


def _written_at(path: Path) -> float:
    with suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def _find_daemon(is_session: bool, named: Path | None) -> int | None:
    """Who listens at the socket; where systemd does, the daemon that it has started for it."""
    with suppress(HostUnreachable, HostDenied, OSError):
        pid = _listener(find_socket("ch", is_session, named))
        if _name(pid) in _DAEMONS:
            return pid
    running = {_name(pid): pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc")))}
    return next((running[name] for name in _DAEMONS if name in running), None)


def _listener(path: Path) -> int:
    credentials = struct.Struct("3i")
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        probe.settimeout(_ANSWER_S)
        probe.connect(str(path))
        told = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, credentials.size)
    return int(credentials.unpack(told)[0])


def _name(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def _daemon(pid: int) -> Daemon:
    arguments: Sequence[str] = ()
    with suppress(OSError):
        arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    is_mended = False
    with suppress(OSError):  # closed to other logins; then nobody knows
        program = Path(os.readlink(f"/proc/{pid}/exe"))
        is_mended = program.parents[1].joinpath(STAMP).exists()
    return Daemon(sanitize(_name(pid)), pid, _idle_s(arguments), is_mended)


def _idle_s(arguments: Sequence[str]) -> int | None:
    """From a libvirt daemon's arguments: `--timeout N`; 0 means never."""
    for place, argument in enumerate(arguments):
        option, _, value = argument.partition("=")
        if option in ("-t", "--timeout"):
            told = value or next(iter(arguments[place + 1 :]), "")
            return int(told) or None if told.isdecimal() else None
    return None


def _unit_arguments() -> Sequence[str]:
    told = ""
    for pattern in _ARGUMENTS:
        for file in sorted(_ROOT.glob(pattern)):
            with suppress(OSError, UnicodeDecodeError):
                for match in _VARIABLE.finditer(file.read_text()):
                    told = match[1]
    try:
        return shlex.split(told)
    except ValueError:
        return told.split()


def _find_driver() -> Path | None:
    places = [file for pattern in _DRIVERS for file in _ROOT.glob(pattern)]
    with suppress(RuntimeError):
        places.append(Path.home() / _OWN_DRIVER)
    return next((place for place in places if place.exists()), None)


def _is_served() -> bool:
    places = ("usr/lib/systemd/systemd-machined", "lib/systemd/systemd-machined")
    return not _SYSTEMD.exists() or any((_ROOT / place).exists() for place in places)


def _find_vmm(pid: int | None) -> Path | None:
    """As the daemon finds it; where its environment is closed to us, as systemd's services do."""
    path = f"{_PATH}:{os.environ.get('PATH', '')}"
    with suppress(OSError):
        for entry in _environment(pid):
            name, _, value = entry.partition("=")
            path = value if name == "PATH" else path
    found = shutil.which(_VMM, path=":".join(_seen_by(pid, folder) for folder in path.split(":")))
    if found is None:
        return None
    return Path(found.removeprefix(_root_of(pid)))


def _environment(pid: int | None) -> Iterator[str]:
    if pid is not None:
        content = Path(f"/proc/{pid}/environ").read_bytes()
        yield from content.decode("utf-8", "replace").split("\0")


def _seen_by(pid: int | None, path: str) -> str:
    """The path by which we reach what a process finds at `path`: it may have mounts of its own."""
    return f"{_root_of(pid)}{path}"


def _root_of(pid: int | None) -> str:
    root = f"/proc/{pid}/root"
    try:
        os.stat(f"{root}/")
    except OSError:  # no process, or one of another user's
        return ""
    return root


def _version(pid: int | None, vmm: Path) -> Safe:
    try:
        done = subprocess.run(
            [_seen_by(pid, str(vmm)), "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_ANSWER_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return literal("it does not answer")
    except OSError as error:
        return sanitize(f"it cannot be run: {error.strerror}")
    return sanitize(done.stdout.decode("utf-8", "replace").partition("\n")[0], max_cells=200)


def _kvm_obstacle(is_session: bool) -> Safe:
    """By having it make a VM; that a guest then runs only a boot can prove."""
    if _MSHV.exists():
        return EMPTY
    try:
        device = os.open(_KVM, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return literal("there is no /dev/kvm")
    except OSError as error:
        is_ours = error.errno not in (errno.EACCES, errno.EPERM) or is_session
        return sanitize(f"/dev/kvm: {error.strerror}") if is_ours else EMPTY
    try:
        os.close(fcntl.ioctl(device, _KVM_CREATE_VM, 0))
    except OSError as error:
        return sanitize(f"/dev/kvm makes no VM: {error.strerror}")
    finally:
        os.close(device)
    return EMPTY


def _format(disk: Path) -> Format:
    try:
        with open(disk, "rb") as file:
            start = file.read(1024)
    except OSError:
        return Format.HIDDEN
    if start.startswith(b"QFI\xfb"):
        return Format.QCOW2
    # A GUID partition table's header is in the second sector (UEFI Specification, 5.3.2).
    return Format.PARTITIONED if start[512:520] == b"EFI PART" else Format.BARE
