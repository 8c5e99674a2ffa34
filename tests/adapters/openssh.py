"""A real OpenSSH server on a port of its own, with keys of its own: a host as far away as can be.

It lets the user of this process in, so everything that is done there is done on this machine.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh

SSHD = shutil.which("sshd", path=f"{os.defpath}:/usr/sbin:/usr/local/sbin")
WAIT_S = 30.0


@dataclass
class Server:
    """sshd in `folder`, with further lines of sshd_config(5)."""

    folder: Path
    options: Sequence[str] = ()
    prefix: Sequence[str] = ()
    """Command in which it is run: in a namespace of its own, say."""
    address: str = "127.0.0.1"
    user: str = field(default_factory=getpass.getuser)
    port: int = 0
    _process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.home = self.folder / "swarm"
        """Where everything of ours goes on that host."""
        self.identity = self.folder / "identity"
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(self.identity)
        key.write_public_key(self.folder / "authorized_keys")
        self.identity.chmod(0o600)
        self.change_key()

    @property
    def uri(self) -> str:
        return (
            f"qemu+ssh://{self.user}@{self.address}:{self.port}/system?keyfile={self.identity}"
            f"&socket={self.folder}/daemon"
        )

    @property
    def entry(self) -> str:
        """Its line for known_hosts."""
        return f"[{self.address}]:{self.port} {self.public_key}"

    def change_key(self) -> None:
        """Give it another host key; for the next start."""
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(self.folder / "host_key")
        (self.folder / "host_key").chmod(0o600)
        self.public_key = key.export_public_key().decode().strip()
        self.fingerprint = key.get_fingerprint()

    def start(self) -> None:
        """Listen; on the port of the time before, if there was one."""
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd as root needs it
        self.port = self.port or _free_port()
        lines = [
            f"ListenAddress {self.address}:{self.port}",
            f"HostKey {self.folder}/host_key",
            f"AuthorizedKeysFile {self.folder}/authorized_keys",
            f"PidFile {self.folder}/pid",
            "StrictModes no",
            "UsePAM no",
            "PermitRootLogin prohibit-password",
            "PasswordAuthentication no",
            *self.options,
            f"SetEnv SWARM_TUI_HOME={self.home}",
        ]
        config = self.folder / "sshd_config"
        config.write_text("".join(f"{line}\n" for line in lines))
        program = [*self.prefix, str(SSHD), "-f", str(config)]
        # Since 9.8 it shuts out for a while whose session was killed. Older ones know no such word.
        lenient = ["-o", "PerSourcePenalties=no"]
        if subprocess.run([*program, *lenient, "-t"], capture_output=True, check=False).returncode:
            lenient = []
        self._process = subprocess.Popen(
            [*program, *lenient, "-D", "-E", str(self.folder / "log")],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + WAIT_S
        while not (self.folder / "pid").exists():
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def stop(self) -> None:
        """Listen no more; who is connected stays so."""
        if self._process:
            self._process.terminate()
            self._process.wait()
            self._process = None
            (self.folder / "pid").unlink(missing_ok=True)

    def sessions(self) -> list[int]:
        """The processes that serve one connection each."""
        return [pid for pid in _children(self.folder) if _is_session(pid)]

    def cut(self) -> None:
        """Break every connection, as a host does that loses its power."""
        self._signal(signal.SIGKILL)

    def hush(self) -> None:
        """Let no connection carry anything any more, without breaking it."""
        self._signal(signal.SIGSTOP)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.sessions():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def _children(folder: Path) -> list[int]:
    """Of the listening sshd, whichever namespace it is in."""
    try:
        listener = int((folder / "pid").read_text())
    except FileNotFoundError:
        return []
    children = Path(f"/proc/{listener}/task/{listener}/children").read_text().split()
    return [int(pid) for pid in children]


def _is_session(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().startswith("sshd")
    except (FileNotFoundError, ProcessLookupError):  # it ended just now
        return False


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
