"""A host far away on this machine: a network namespace of its own, an SSH server as its door.

In it everything is real, and as `swarm-tui demo` makes it: libvirtd, QEMU, agents. Its guests'
ports are open in that namespace only, and its libvirt has its sockets and its state in mounts of
its own. What it shares with us is the file system.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from adapters.openssh import SSHD, Server

from swarm_tui.local.daemon import stop_daemon

PROGRAMS = ("ip", "unshare", "nsenter", "mount")

_OWN = "/etc/libvirt/qemu /var/lib/libvirt /var/log/libvirt"
"""Besides /run, what two libvirt daemons cannot share."""
_ENTER = (
    "mount -t tmpfs -o mode=755 tmpfs /run && mkdir /run/sshd && "
    f'for own in {_OWN}; do mount -t tmpfs -o mode=755 tmpfs "$own" || exit; done && '
    "echo ready && exec sleep infinity"
)


def obstacle() -> str:
    """Why there can be none here; empty when there can."""
    if os.getuid() != 0:
        return "a network namespace needs root"
    if SSHD is None:
        return "openssh-server is not installed"
    lacking = [program for program in PROGRAMS if shutil.which(program) is None]
    return f"{', '.join(lacking)}: not installed" if lacking else ""


@dataclass(frozen=True)
class FarHost:
    namespace: str
    keeper: int
    """Process that lives there for as long as the host is there."""
    server: Server
    environ: dict[str, str]

    def uri(self, driver: str, socket: Path | None = None) -> str:
        """That of a libvirt there, as it is seen from here."""
        login = f"{self.server.user}@{self.server.address}:{self.server.port}"
        return f"{driver}+ssh://{login}/system" + (f"?socket={socket}" if socket else "")

    @property
    def network(self) -> Path:
        """What tells the host's processes from all others: their network namespace."""
        return Path(f"/proc/{self.keeper}/ns/net").readlink()

    def run(self, *command: str, timeout_s: float = 180.0) -> subprocess.CompletedProcess[str]:
        """A command there, as if somebody sat at it."""
        return subprocess.run(
            [*enter(self.keeper), *command],
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def begin(self, *command: str) -> subprocess.Popen[str]:
        """A program there that goes on until its standard input ends."""
        return subprocess.Popen(
            [*enter(self.keeper), *command],
            env=self.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )


def enter(keeper: int) -> list[str]:
    return ["nsenter", f"--target={keeper}", "--mount", "--net", f"--wd={Path.cwd()}", "--"]


@contextmanager
def far_host(folder: Path, environ: dict[str, str]) -> Iterator[FarHost]:
    """`environ` is that of its inhabitants; their swarm-tui keeps to `SWARM_TUI_HOME` in it."""
    # By chance, never by the process: a host that went keeps its names until its last process did.
    number = secrets.randbelow(2**15)
    namespace, near, far = f"far-{number}", f"far-{number}-0", f"far-{number}-1"
    # Benchmarks' own addresses (RFC 2544), of which nobody else makes use, four for each host.
    network = ipaddress.ip_network("198.18.0.0/15")[4 * number]
    ours, theirs = network + 1, network + 2
    ip("netns", "add", namespace)
    try:
        ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", namespace)
        ip("addr", "add", f"{ours}/30", "dev", near)
        ip("link", "set", near, "up")
        ip("-n", namespace, "addr", "add", f"{theirs}/30", "dev", far)
        ip("-n", namespace, "link", "set", far, "up")
        ip("-n", namespace, "link", "set", "lo", "up")
        with _keeper(namespace) as keeper:
            server = Server(folder, prefix=enter(keeper), address=str(theirs))
            server.home = Path(environ["SWARM_TUI_HOME"])
            server.start()
            try:
                yield FarHost(namespace, keeper, server, environ)
            finally:
                server.cut()
                server.stop()
                stop_daemon(server.home / "data/local")
    finally:
        ip("netns", "del", namespace)  # and, when its last process is gone, both ends of the cable


@contextmanager
def _keeper(namespace: str) -> Iterator[int]:
    command = ["ip", "netns", "exec", namespace, "unshare", "--mount", "sh", "-c", _ENTER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as keeper:
        try:
            assert keeper.stdout
            assert keeper.stdout.readline() == b"ready\n"
            yield keeper.pid
        finally:
            keeper.kill()


def ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
