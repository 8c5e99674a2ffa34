"""KVM or software emulation: found out by booting Linux, because nothing else can be trusted.

/dev/kvm opens and libvirt's capabilities offer KVM on machines where a guest then hangs for ever
(nested hosts without VT-x, for one).
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from swarm_tui.errors import SetupError

QEMU: Final = "qemu-system-x86_64"
PROBE_MARK: Final = b"SWARM-PROBE-OK"
"""What an image prints on its serial port when booted with `rdinit=/probe`."""
PROBE_TIMEOUT_S: Final = 5.0
_KVM: Final = Path("/dev/kvm")


class Mode(StrEnum):
    """What runs the guests' instructions; QEMU's and libvirt's word for TCG differ."""

    KVM = "kvm"
    TCG = "tcg"

    @property
    def domain_type(self) -> str:
        """libvirt's `<domain type=…>`."""
        return "kvm" if self is Mode.KVM else "qemu"


@dataclass(frozen=True, slots=True)
class Accel:
    mode: Mode
    reason: str
    """Why, in a sentence for people; of emulation also how to mend it, where that is known."""


def require_x86_64() -> None:
    """Raise SetupError on other architectures: they have other kernels and boot protocols."""
    if platform.machine() != "x86_64":
        raise SetupError(
            "A swarm needs an x86-64 machine so far", f"This one is {platform.machine()}."
        )


def choose_accel(kernel: Path, initrd: Path, answers: Path, force: str = "auto") -> Accel:
    """The best that works here. Blocks: up to five seconds, once per kernel, QEMU and machine.

    `kernel` and `initrd` boot the probe; `answers` is a file that remembers what came of it.
    `force` is "auto", or the mode ("kvm", "tcg") that must be.

    Raises SetupError when `force` asks for KVM that is not there, QEMU is missing, or the machine
    is not x86-64.
    """
    require_x86_64()
    qemu = shutil.which(QEMU)
    if qemu is None:
        raise SetupError(
            "QEMU is not installed",
            f"No {QEMU} in PATH.",
            "apt-get install --no-install-recommends qemu-system-x86",
        )
    if force == "tcg":
        return Accel(Mode.TCG, "Software emulation, as asked for.")
    obstacle = _obstacle()
    if force == "kvm":
        if obstacle:
            raise SetupError("KVM is not to be had here", obstacle)
        return Accel(Mode.KVM, "KVM, as asked for.")
    if obstacle:
        return Accel(Mode.TCG, f"Software emulation: {obstacle}")
    key = _key(kernel, Path(qemu))
    known = _read(answers)
    if known and known[0] == key:
        return known[1]
    accel = _probe(qemu, kernel, initrd)
    _write(answers, key, accel)
    return accel


def _obstacle() -> str:
    """Why KVM need not be tried; empty when it may work."""
    if not _KVM.exists():
        return f"there is no {_KVM} (no virtualization, or the kvm module is not loaded)."
    if not os.access(_KVM, os.R_OK | os.W_OK):
        return f"{_KVM} is not writable for you: adduser YOU kvm, then log in again."
    return ""


def _probe(qemu: str, kernel: Path, initrd: Path) -> Accel:
    command = [qemu, "-machine", "q35,accel=kvm", "-cpu", "host", "-m", "128", "-nodefaults"]
    command += ["-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"]
    command += ["-kernel", str(kernel), "-initrd", str(initrd)]
    command += ["-append", "console=ttyS0 quiet rdinit=/probe"]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROBE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as expired:
        # It may have come up and then failed to power off.
        output, complaint = expired.stdout or b"", ""
    else:
        output, complaint = done.stdout, done.stderr.decode("utf-8", "replace").partition("\n")[0]
    if PROBE_MARK in output:
        return Accel(Mode.KVM, "KVM: Linux boots with it.")
    if complaint:
        return Accel(Mode.TCG, f"Software emulation: QEMU cannot use KVM here: {complaint}")
    return Accel(
        Mode.TCG,
        f"Software emulation: {_KVM} opens, but Linux did not boot with it"
        f" in {PROBE_TIMEOUT_S:g} s (a nested host without VT-x or SVM?).",
    )


def _key(kernel: Path, qemu: Path) -> str:
    """Changes whenever the answer may."""
    with open(kernel, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    program, device = qemu.stat(), _KVM.stat()
    parts = (digest, platform.release(), platform.version())
    numbers = (program.st_size, program.st_mtime_ns, device.st_ino, device.st_rdev, device.st_mode)
    return " ".join([*parts, *map(str, numbers)])


def _read(answers: Path) -> tuple[str, Accel] | None:
    try:
        stored = json.loads(answers.read_text())
        return str(stored["key"]), Accel(Mode(stored["mode"]), str(stored["reason"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(answers: Path, key: str, accel: Accel) -> None:
    temporary = answers.with_name(f".{answers.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps({"key": key, **asdict(accel)}))
        temporary.rename(answers)
    except OSError as error:
        raise SetupError("The answer of the KVM probe cannot be kept", str(error)) from error
