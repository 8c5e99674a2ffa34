"""A guest of our image in a bare QEMU under software emulation, for tests of the guest's side."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from swarm_tui.local.accel import QEMU
from swarm_tui.local.guest import dropbear_key
from swarm_tui.local.image import COMMAND_LINE, Image, write_initrd

BOOT_S = 60.0
ANSWER_S = 20.0


def make_key(path: Path) -> str:
    """Make an ed25519 key pair; the public key line."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)]
    subprocess.run(command, check=True)
    return path.with_suffix(".pub").read_text()


def make_disk(image: Image, path: Path) -> Path:
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(image.base)]
    subprocess.run([*command, str(path)], check=True)
    return path


@dataclass
class Machine:
    """A running guest. `host_key` is the public key line that it must present."""

    process: subprocess.Popen[bytes]
    monitor: Path
    console: Path
    port: int
    identity: Path
    host_key: str

    def connect(
        self, user: str = "root", host_key: str = ""
    ) -> AbstractAsyncContextManager[asyncssh.SSHClientConnection]:
        key = asyncssh.import_public_key(host_key or self.host_key)
        return asyncssh.connect(
            "127.0.0.1",
            self.port,
            username=user,
            client_keys=[str(self.identity)],
            known_hosts=([key], [], []),
            config=None,
            agent_path=None,
            connect_timeout=ANSWER_S,
            login_timeout=ANSWER_S,
        )

    async def run(self, script: str, *, user: str = "root", stdin: str = "") -> str:
        """Standard output of a script; fails the test when its exit status is not 0."""
        done = await self.attempt(script, user=user, stdin=stdin)
        assert done.exit_status == 0, f"{script}: {done.exit_status} {done.stderr!r}"
        return str(done.stdout)

    async def attempt(
        self, script: str, *, user: str = "root", stdin: str = ""
    ) -> asyncssh.SSHCompletedProcess:
        async with self.connect(user) as connection:
            return await connection.run(script, input=stdin, timeout=ANSWER_S)

    async def wait_for(self, script: str, *, user: str = "root") -> str:
        """What the script prints, once it succeeds."""
        deadline = time.monotonic() + ANSWER_S
        while True:
            done = await self.attempt(script, user=user)
            if done.exit_status == 0:
                return str(done.stdout)
            assert time.monotonic() < deadline, f"never came true: {script}"
            await asyncio.sleep(0.1)

    def command(self, line: str) -> None:
        """Have QEMU's monitor do something, and wait for it."""
        with _dial(self.monitor) as connection:
            _read_until(connection, b"(qemu) ")
            connection.sendall(line.encode() + b"\n")
            answer = _read_until(connection, b"(qemu) ")
        assert b"Error" not in answer, answer

    def type(self, text: str, until: bytes) -> None:
        """Type on the serial console, and wait for an answer."""
        with _dial(self.console) as connection:
            connection.sendall(text.encode())
            _read_until(connection, until)

    def await_banner(self) -> None:
        # User-mode networking takes every connection; only a banner tells that the guest answers.
        deadline = time.monotonic() + BOOT_S
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                    connection.settimeout(0.2)
                    if connection.recv(4) == b"SSH-":
                        return
            except OSError:
                pass
            assert self.process.poll() is None, "QEMU ended"
            assert time.monotonic() < deadline, "the guest does not answer"
            time.sleep(0.02)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def _dial(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(ANSWER_S)
    connection.connect(str(path))
    return connection


def _read_until(connection: socket.socket, text: bytes) -> bytes:
    heard = b""
    while text not in heard:
        more = connection.recv(4096)
        assert more, heard
        heard += more
    return heard


def boot(
    image: Image,
    folder: Path,
    disk: Path,
    identity: Path,
    host_key: Path,
    options: Sequence[str] = (),
    *,
    arguments: str = "",
    network: str = "",
    guest: str = "",
) -> Machine:
    """Start a guest and wait until its SSH server answers.

    `disk` is of the format that its name ends in. `arguments` are added to the kernel's,
    `network` to QEMU's user-mode network, in which `guest` is the guest's address.
    """
    folder.mkdir(exist_ok=True)
    initrd = folder / "initrd.img"
    authorized = identity.with_suffix(".pub").read_text()
    write_initrd(image, initrd, authorized, dropbear_key(host_key.read_bytes()))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    monitor = folder / "monitor"
    console = folder / "console"
    command = [QEMU, "-machine", "q35", "-accel", "tcg,tb-size=64", "-cpu", "max", "-m", "256"]
    command += ["-nodefaults", "-no-user-config", "-display", "none"]
    command += ["-chardev", f"socket,id=tty,path={console},server=on,wait=off"]
    command += ["-serial", "chardev:tty"]
    command += ["-monitor", f"unix:{monitor},server=on,wait=off"]
    command += ["-kernel", str(image.kernel_elf), "-initrd", str(initrd), "-append"]
    command += [f"{COMMAND_LINE} {arguments}"]
    command += ["-drive", f"file={disk},if=virtio,format={disk.suffix[1:]},cache=unsafe"]
    command += ["-netdev", f"user,id=net{network},hostfwd=tcp:127.0.0.1:{port}-{guest}:22"]
    command += ["-device", "virtio-net-pci,netdev=net,romfile="]
    process = subprocess.Popen([*command, *options], stdin=subprocess.DEVNULL)
    public = host_key.with_suffix(".pub").read_text()
    machine = Machine(process, monitor, console, port, identity, public)
    try:
        machine.await_banner()
    except BaseException:
        machine.stop()
        raise
    return machine
