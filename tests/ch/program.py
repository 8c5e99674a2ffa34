"""A stand-in for `cloud-hypervisor`. It is not Cloud Hypervisor: QEMU runs the guest, emulated.

libvirt's CH driver starts it, as `cloud-hypervisor --api-socket fd=N --event-monitor path=FIFO`,
through a script that tests put into virtchd's PATH, which adds `--settings FILE`. The process that
libvirt knows becomes QEMU when the VM boots, so that the threads, the memory, the input and output
and the cgroup of the domain's id are the guest's; a child of it answers the API. Each ends with the
other.

What is otherwise than in Cloud Hypervisor:
- The VM is a QEMU q35, emulated in software, and its firmware takes part in a reboot.
- A VM that was shut down by vm.shutdown cannot boot again in the same process, which keeps its
  memory. Disks and taps are let go as there.
- After vm.snapshot a second one needs a vm.resume in between.
- If QEMU cannot read a memory file that is as long as it should be, the process ends.
- A reboot keeps the vCPUs' threads; there they are new ones, and dom.vcpus() fails from then on.
- No hotplug; no latencies among the counters; a console with few features; no vsock, no VFIO.
- Serial output that nobody reads is kept up to the kernel's few KiB, not up to 1 MiB.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

from .event import Events
from .hardware import FIRST_FD
from .server import serve
from .settings import Settings, read_settings
from .vmm import Turn, Vmm

_FIFO_SUFFIX: Final = "-event-monitor-fifo"
_MOST_BYTES: Final = 1 << 17
_MOST_FDS: Final = 64
_LIBVIRT_POLL_S: Final = 0.01
_LAST_EVENTS_S: Final = 1.0


def main(arguments: Sequence[str]) -> None:
    given = dict(zip(arguments[::2], arguments[1::2], strict=False))
    settings = Path(given["--settings"])
    if "--version" in arguments:
        print(f"cloud-hypervisor v{read_settings(settings).version}")
        return
    listener = socket.socket(fileno=int(given["--api-socket"].removeprefix("fd=")))
    listener.set_inheritable(False)
    fifo = Path(given["--event-monitor"].removeprefix("path="))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.getpid()
    if os.fork() == 0:
        ours.close()
        attend(pid, listener, fifo, settings, theirs)
    theirs.close()
    listener.close()
    become_qemu(ours)


# The process that libvirt knows


def become_qemu(control: socket.socket) -> NoReturn:
    """Wait for the order to do so. It has the arguments, the environment and descriptors."""
    _name_thread("cloud-hypervisor")
    message, fds, _, _ = socket.recv_fds(control, _MOST_BYTES, _MOST_FDS)
    if not message:
        os._exit(1)
    order = json.loads(message)
    _end_with(control)
    for number, fd in enumerate(fds, start=FIRST_FD):
        os.dup2(fd, number)
        os.close(fd)
    os.execvpe(order["words"][0], order["words"], order["environment"])


def _end_with(peer: socket.socket) -> None:
    """Have the kernel kill this process, whatever it runs, when the peer is closed."""
    fd = fcntl.fcntl(peer, fcntl.F_DUPFD, FIRST_FD + _MOST_FDS)  # stays open in QEMU
    fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)


def _name_thread(name: str) -> None:
    Path("/proc/self/comm").write_text(name)


# The process that answers for it


def attend(
    pid: int, listener: socket.socket, fifo: Path, settings: Path, control: socket.socket
) -> NoReturn:
    """Serve the API for as long as that process lives."""
    _name_thread("ch-stand-in")
    lives = os.pidfd_open(pid)
    if os.getppid() != pid:
        os._exit(1)

    def wait() -> None:
        if select.select([lives], [], [], _LIBVIRT_POLL_S)[0]:
            os._exit(1)

    events = Events(fifo, wait)
    events.tell("vmm", "starting")
    name = fifo.name.removesuffix(_FIFO_SUFFIX)
    vmm = Vmm(name, pid, settings, events, _order(control))
    following = threading.Thread(target=vmm.follow, daemon=True)
    following.start()
    threading.Thread(target=_exit_after, args=(lives, following), daemon=True).start()
    serve(listener, vmm, name, read_settings(settings).log)


def _exit_after(lives: int, following: threading.Thread) -> None:
    select.select([lives], [], [])
    following.join(_LAST_EVENTS_S)
    os._exit(0)


def _order(control: socket.socket) -> Turn:
    def turn(words: Sequence[str], fds: Sequence[int], settings: Settings) -> None:
        environment = {key: of for key, of in os.environ.items() if key != "PYTHONPATH"}
        if settings.threads:
            environment["LD_PRELOAD"] = settings.threads
        order = {"words": [settings.qemu, *words], "environment": environment}
        socket.send_fds(control, [json.dumps(order).encode()], list(fds))

    return turn


if __name__ == "__main__":
    main(sys.argv[1:])
