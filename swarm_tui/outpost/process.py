"""What this host's kernel knows of processes. Linux only; all from proc(5).

Sources, each chosen because every login may read it, or because there is no other:
- start, CPU: /proc/PID/stat. utime and stime are those of all threads, with guest time in utime.
- memory: /proc/PID/statm. `smaps_rollup` is exact, but walks the page tables of the whole guest and
  is closed to other users.
- disk: /proc/PID/io, which counts what really went to and from storage, so nothing that the page
  cache answered; it is closed to other users. For them the same number of the VM's own cgroup,
  where libvirt made one (machine.slice, or a folder called machine).
- network: /proc/net/dev, one read for all taps.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from swarm_tui.errors import DeadlineExceeded, HostDenied, HostError
from swarm_tui.premises import Footprint, Process

END_S: Final = 10.0
"""How long a killed process may take to go; one that waits for a dead disk takes for ever."""

_TICK_NS: Final = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_DEAD: Final = ("Z", "X")
_CGROUPS: Final = Path("/sys/fs/cgroup")


def measure(asked: Mapping[int, Sequence[str]]) -> Mapping[int, Footprint]:
    """As `ports.Outpost.measure`."""
    traffic = _traffic() if any(asked.values()) else {}
    footprints = {pid: _footprint(pid, [traffic.get(tap) for tap in asked[pid]]) for pid in asked}
    return {pid: footprint for pid, footprint in footprints.items() if footprint}


def holders(files: Sequence[Path]) -> Mapping[Path, Process]:
    """As `ports.Outpost.holders`.

    Raises HostDenied when a file is held, or may be, by a process that this login cannot look into.
    """
    wanted: dict[tuple[int, int], list[Path]] = {}
    for file in files:
        try:
            status = file.stat()
        except FileNotFoundError:
            continue
        except PermissionError as error:
            raise _hidden(file) from error
        wanted.setdefault((status.st_dev, status.st_ino), []).append(file)
    found: dict[Path, Process] = {}
    is_all_seen = True
    for pid in _pids():
        try:
            for node in _written(pid):
                for file in wanted.get(node, ()):
                    if process := find(pid):
                        found[file] = process
        except PermissionError:
            is_all_seen = False
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
    if not is_all_seen:
        for paths in wanted.values():
            if paths[0] not in found and not _is_surely_free(paths[0]):
                raise _hidden(paths[0])
    return found


def end(process: Process) -> None:
    """As `ports.Outpost.end`. Raises DeadlineExceeded, HostDenied."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    except OSError as error:
        raise HostError(f"Process {process.pid} cannot be ended", str(error)) from error
    try:
        # Asked while the handle holds it: the number cannot have gone to another since.
        if find(process.pid) != process:
            return
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        if not poll.poll(END_S * 1000):
            raise DeadlineExceeded(
                f"Process {process.pid} was killed and does not go",
                f"waited {END_S:g} s; it may wait for a disk that does not answer",
            )
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise HostDenied(
            f"Process {process.pid} may not be ended",
            "It belongs to another user of the host.",
            "Log in to the host as root.",
        ) from error
    finally:
        os.close(handle)


def find(pid: int) -> Process | None:
    """The living process of that number."""
    fields = _stat(pid)
    return Process(pid, int(fields[19])) if fields else None


def _stat(pid: int) -> Sequence[str] | None:
    """The fields of /proc/PID/stat from the third on; None when no living process has it."""
    try:
        # Its second field is the program's name in brackets, and may itself hold brackets.
        fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in _DEAD else fields


def _footprint(pid: int, taps: Sequence[tuple[int, int] | None]) -> Footprint | None:
    fields = _stat(pid)
    if fields is None:
        return None
    try:
        resident = int(_read(f"/proc/{pid}/statm").split()[1]) * _PAGE
        disk = _disk(pid)
    except (FileNotFoundError, ProcessLookupError):
        return None
    # What a tap has received the guest has sent. Without a tap, or with one gone, nobody knows.
    known = [tap for tap in taps if tap]
    is_known = bool(taps) and len(known) == len(taps)
    return Footprint(
        process=Process(pid, int(fields[19])),
        cpu_ns=(int(fields[11]) + int(fields[12])) * _TICK_NS,
        memory_host=resident,
        disk_read=disk[0],
        disk_written=disk[1],
        net_received=sum(sent for _, sent in known) if is_known else None,
        net_sent=sum(received for received, _ in known) if is_known else None,
    )


def _disk(pid: int) -> tuple[int | None, int | None]:
    try:
        told = dict(line.split(": ") for line in _read(f"/proc/{pid}/io").splitlines())
        return int(told["read_bytes"]), int(told["write_bytes"])
    except PermissionError:
        return _cgroup_disk(pid)


def _cgroup_disk(pid: int) -> tuple[int | None, int | None]:
    """The same of the VM's cgroup: `0::/machine.slice/machine-ch….scope/libvirt/emulator`, say."""
    parts = _read(f"/proc/{pid}/cgroup").strip().rpartition("::/")[2].split("/")
    if len(parts) < 2 or parts[0] not in ("machine", "machine.slice"):
        return None, None  # it shares its cgroup with others
    try:
        devices = _read(str(_CGROUPS.joinpath(*parts[:2], "io.stat"))).split()
    except OSError:
        return None, None  # cgroup v1, or its io controller is off
    totals = [field.partition("=") for field in devices if "=" in field]
    read, written = (
        sum(int(count) for name, _, count in totals if name == wanted)
        for wanted in ("rbytes", "wbytes")
    )
    return read, written


def _traffic() -> Mapping[str, tuple[int, int]]:
    """Bytes received and sent by each interface of this network namespace."""
    interfaces: dict[str, tuple[int, int]] = {}
    for line in _read("/proc/net/dev").splitlines()[2:]:
        name, _, counts = line.partition(":")
        fields = counts.split()
        interfaces[name.strip()] = int(fields[0]), int(fields[8])
    return interfaces


def _pids() -> Iterable[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _written(pid: int) -> Iterator[tuple[int, int]]:
    """Device and inode of each regular file that the process has open for writing."""
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        link = f"/proc/{pid}/fd/{descriptor}"
        try:
            # The link's own mode tells how the file was opened; sockets and pipes have no path.
            if os.lstat(link).st_mode & 0o200 and os.readlink(link).startswith("/"):
                status = os.stat(link)
                yield status.st_dev, status.st_ino
        except (FileNotFoundError, ProcessLookupError):
            continue  # closed meanwhile


def _is_surely_free(file: Path) -> bool:
    """Whether the kernel vouches that nobody has the file open for writing.

    It grants a read lease on no other file, to the file's owner (fcntl(2), F_SETLEASE).
    """
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # Who opens it in this very moment waits and has us told, by a signal that ends nobody.
        fcntl.fcntl(handle, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def _hidden(file: Path) -> HostDenied:
    return HostDenied(
        "Who uses a disk cannot be told",
        f"{file} may be in use by a process of another user.",
        "Log in to the host as root.",
    )


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
