"""A real virtchd in folders of its own, with Cloud Hypervisor or the stand-in for it.

The driver's folders are compiled in (/run/libvirt/ch and others), so virtchd runs in a mount
namespace where they are the bench's: another virtchd on this machine notices nothing. The socket
is reached by its path. Needs root.
"""

from __future__ import annotations

import atexit
import fnmatch
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from swarm_tui.local.accel import Mode, choose_accel
from swarm_tui.local.image import Image

from .settings import Fault, Kind, Settings, read_settings, write_settings

TESTS: Final = Path(__file__).parents[1]
START_S: Final = 20.0
END_S: Final = 10.0
_REAPER: Final = TESTS.parent / "swarm_tui/local/reaper.py"
_OWN: Final = "SWARM_TUI_CH_BENCH"
"""A variable of all processes of a bench but its reapers, with its folder."""
_CONF: Final = """\
auth_unix_rw = "none"
auth_unix_ro = "none"
unix_sock_dir = "{sockets}"
"""
_STATE: Final = {
    "/run/libvirt/ch": "run",
    "/var/lib/libvirt/ch": "lib",
    "/var/log/libvirt/ch": "log",
}
"""What of the machine's is the bench's own in virtchd's sight."""


class NoDriver(Exception):
    """There is no bench on this machine; the text says why."""


def find_hypervisor(image: Image, cache: Path) -> Path | None:
    """The real cloud-hypervisor, where there is one and KVM boots Linux; else None."""
    program = shutil.which("cloud-hypervisor")
    if program and choose_accel(image, cache).mode is Mode.KVM:
        return Path(program)
    return None


def find_driver() -> Path:
    """The program that starts virtchd in the foreground. Raises NoDriver."""
    if os.geteuid() != 0:
        raise NoDriver("virtchd's system instance needs root")
    if not Path("/dev/kvm").exists():
        raise NoDriver("libvirt's CH driver wants a /dev/kvm, if only to look at it")
    script = TESTS.parent / "scripts/build-libvirt-ch"
    prefix = subprocess.run([script, "--print"], capture_output=True, text=True, check=True)
    program = Path(prefix.stdout.strip()) / "sbin/start-virtchd"
    if not program.exists():
        raise NoDriver(f"{program} is not there: run {script}")
    return program


@dataclass
class Bench:
    """virtchd, its VMMs and their folders; all of it below `folder`, which must be short."""

    folder: Path
    driver: Path
    hypervisor: Path | None = None
    """The real cloud-hypervisor; the stand-in if None."""
    _reapers: list[subprocess.Popen[bytes]] = field(default_factory=list, init=False)

    @property
    def uri(self) -> str:
        return f"ch:///system?socket={self.folder}/virtchd-sock"

    @property
    def is_stand_in(self) -> bool:
        return self.hypervisor is None

    @property
    def emulator(self) -> Path:
        """For a definition's <emulator>, which may be left out, too."""
        return self.folder / "bin/cloud-hypervisor"

    @property
    def log(self) -> Path:
        """A line of JSON for each request that the stand-in has answered."""
        return self.folder / "requests.log"

    # virtchd

    def start(self) -> None:
        """Return once it answers."""
        assert not self._pid_file.exists(), "it runs"
        self._furnish()
        binds = " && ".join(
            f"mkdir -p {place} && mount --bind {self.folder / own} {place}"
            for place, own in _STATE.items()
        )
        # As a host's own process 1, the reaper collects at once what has ended.
        command = [sys.executable, "-B", str(_REAPER), str(self._pid_file)]
        command += ["env", f"{_OWN}={self.folder}", "unshare", "--mount", "--propagation", "slave"]
        command += ["sh", "-c", f'{binds} && exec "$0" --config "$1" --pid-file "$2"']
        command += [str(self.driver), str(self.folder / "virtchd.conf")]
        command += [str(self.folder / "virtchd.pid")]
        path = f"{self.emulator.parent}:{os.environ['PATH']}"
        with open(self.folder / "virtchd.log", "ab") as log:
            reaper = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PATH": path},
            )
        self._reapers.append(reaper)
        self._await_answer(reaper)

    def kill(self) -> None:
        """As by a crash: its VMMs go on, and it forgets them."""
        self._end_virtchd(signal.SIGKILL)

    def restart(self) -> None:
        """As `systemctl restart virtchd`: its VMMs go on."""
        self._end_virtchd(signal.SIGTERM)
        self.start()

    def stop(self) -> None:
        """End virtchd and all VMMs; what they left on this machine is removed, the folder not."""
        self._end_virtchd(signal.SIGKILL)
        for pid in self._pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for reaper in self._reapers:
            reaper.wait(END_S)  # all that they had to collect
        self._reapers.clear()
        for log in (self.folder / "log").glob("*.log"):
            _remove_cgroups(log.stem)

    def vmm_pids(self) -> Sequence[int]:
        """Of all VMMs that live, whether libvirt knows them or not; the domain's id is one."""
        return [pid for pid in self._pids() if _comm(pid) == "cloud-hyperviso"]

    # The stand-in

    def configure(self, **changes: Any) -> None:
        """Change `Settings`; a version counts from virtchd's next start on, as there."""
        if not self.is_stand_in:
            raise NoDriver("Cloud Hypervisor itself cannot be told to fail")
        write_settings(self._settings, replace(read_settings(self._settings), **changes))

    def set_fault(self, operation: str, kind: Kind, **details: Any) -> None:
        """Have this go wrong from now on; see `Fault`."""
        faults = read_settings(self._settings).faults
        self.configure(faults=(*faults, Fault(operation, kind, **details)))

    def clear_faults(self) -> None:
        self.configure(faults=())

    @contextmanager
    def fault(self, operation: str, kind: Kind, **details: Any) -> Iterator[None]:
        self.set_fault(operation, kind, **details)
        try:
            yield
        finally:
            self.clear_faults()

    # Inside

    @property
    def _settings(self) -> Path:
        return self.folder / "stand-in.json"

    @property
    def _pid_file(self) -> Path:
        """Of the virtchd that runs; not there when none does."""
        return self.folder / "running.pid"

    def _furnish(self) -> None:
        for own in (*_STATE.values(), "lib/save", "bin"):
            (self.folder / own).mkdir(parents=True, exist_ok=True)
        (self.folder / "virtchd.conf").write_text(_CONF.format(sockets=self.folder))
        if self.emulator.is_symlink() or self.emulator.exists():
            return
        if self.hypervisor:
            self.emulator.symlink_to(self.hypervisor)
            return
        settings = Settings(threads=_name_threads(), log=str(self.log))
        write_settings(self._settings, settings)
        self.emulator.write_text(
            f"#!/bin/sh\nPYTHONPATH={TESTS} exec {sys.executable} -B -m ch.program"
            f' --settings {self._settings} "$@"\n'
        )
        self.emulator.chmod(0o755)

    def _await_answer(self, reaper: subprocess.Popen[bytes]) -> None:
        def answers() -> bool:
            log = (self.folder / "virtchd.log").read_text
            assert reaper.poll() is None, f"virtchd ended: {log()}"
            with socket.socket(socket.AF_UNIX) as client, suppress(OSError):
                client.connect(str(self.folder / "virtchd-sock"))
                return True
            return False

        await_that(answers, START_S, "virtchd answers")

    def _end_virtchd(self, number: signal.Signals) -> None:
        if not self._pid_file.exists():
            return
        with suppress(ProcessLookupError):
            process = os.pidfd_open(int(self._pid_file.read_text()))
            # One that waits for a VMM that hangs does not end by itself; systemd kills it then.
            for signal_number in (number, signal.SIGKILL):
                signal.pidfd_send_signal(process, signal_number)
                if select.select([process], [], [], END_S)[0]:
                    break
            os.close(process)
        self._pid_file.unlink()
        (self.folder / "virtchd-sock").unlink(missing_ok=True)

    def _pids(self) -> Sequence[int]:
        mark = f"{_OWN}={self.folder}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if mark in (path / "environ").read_bytes().split(b"\0"):
                    found.append(int(path.name))
        return found


def await_that(is_true: Any, within_s: float, what: str) -> None:
    """Wait for a condition; fail the test if it does not come true in time."""
    deadline = time.monotonic() + within_s
    while not is_true():
        assert time.monotonic() < deadline, f"never came true: {what}"
        time.sleep(0.02)


@cache
def _name_threads() -> str:
    """Compile threads.c, for all benches of this process; empty without a compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return ""
    folder = Path(tempfile.mkdtemp(prefix="ch-threads-", dir="/var/tmp"))
    atexit.register(shutil.rmtree, folder)
    library = folder / "threads.so"
    source = Path(__file__).with_name("threads.c")
    options = ["-shared", "-fPIC", "-O", "-Wall"]
    subprocess.run([compiler, *options, "-o", library, source], check=True)
    return str(library)


def _comm(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def _remove_cgroups(domain: str) -> None:
    """Those that libvirt could not remove, because it does not end VMMs without machined."""
    name = re.sub("[^A-Za-z0-9-]", "", domain)
    # By os.walk, because it passes over what other VMs take away meanwhile.
    for parent, folders, _ in os.walk("/sys/fs/cgroup"):
        if not Path(parent).name.startswith("machine"):
            continue
        for group in fnmatch.filter(folders, f"ch-*-{name}.libvirt-ch"):
            for folder, _, _ in os.walk(Path(parent, group), topdown=False):
                with suppress(OSError):  # another bench has a VM of that name
                    os.rmdir(folder)
