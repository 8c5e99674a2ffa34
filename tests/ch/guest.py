"""A guest of our image as a domain for libvirt's CH driver, and how to reach it."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import asyncssh
from local.machine import make_key

from swarm_tui.local.guest import dropbear_key
from swarm_tui.local.image import COMMAND_LINE, Image, write_initrd

from .bridge import Bridge

BOOT_S: Final = 60.0
ANSWER_S: Final = 20.0
END_S: Final = 1.0
"""The connection of a guest that has ended may never be closed."""
MEMORY_MIB: Final = 256
PTY: Final = "<serial type='pty'><target port='0'/></serial>"


@dataclass(frozen=True)
class Guest:
    """What a domain is made of, in a folder of its own."""

    name: str
    folder: Path
    image: Image
    bridge: Bridge
    number: int

    @property
    def disk(self) -> Path:
        return self.folder / "disk.raw"

    @property
    def host(self) -> str:
        return str(self.bridge.guest(self.number))

    def xml(self, *, vcpus: int = 1, disks: Sequence[Path] = (), serial: str = PTY) -> str:
        """The definition; `disks` come after the root disk."""
        files = "".join(
            f"<disk type='file' device='disk'><driver name='qemu' type='raw'/>"
            f"<source file='{path}'/><target dev='vd{letter}' bus='virtio'/></disk>"
            for path, letter in zip((self.disk, *disks), "abcdefgh", strict=False)
        )
        words = f"{COMMAND_LINE} {self.bridge.command_line(self.number)}"
        return (
            f"<domain type='kvm'><name>{self.name}</name>"
            f"<memory unit='MiB'>{MEMORY_MIB}</memory><vcpu>{vcpus}</vcpu>"
            f"<os><type arch='x86_64'>hvm</type><kernel>{self.image.kernel_elf}</kernel>"
            f"<initrd>{self.folder}/initrd.img</initrd><cmdline>{words}</cmdline></os>"
            f"<devices>{files}{self.bridge.interface(self.number)}"
            f"{serial}</devices></domain>"
        )

    def connect(self) -> AbstractAsyncContextManager[asyncssh.SSHClientConnection]:
        return asyncssh.connect(
            self.host,
            username="root",
            client_keys=[str(self.folder / "login")],
            known_hosts=([self._host_key], [], []),
            config=None,
            agent_path=None,
            connect_timeout=ANSWER_S,
            login_timeout=ANSWER_S,
        )

    async def run(self, script: str) -> str:
        """What a script prints; waits for a guest that boots. Fails the test if it fails."""
        deadline = time.monotonic() + BOOT_S
        while True:
            try:
                async with self.connect() as connection:
                    done = await connection.run(script, check=True, timeout=ANSWER_S)
                    return str(done.stdout)
            except (OSError, asyncssh.DisconnectError):
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)

    async def end(self, script: str) -> None:
        """Run a script, once, that ends the guest, and with it the connection."""
        async with self.connect() as connection:
            with suppress(asyncssh.Error):
                await connection.run(script, timeout=END_S)

    @cached_property
    def _host_key(self) -> asyncssh.SSHKey:
        return asyncssh.read_public_key(self.folder / "host.pub")


def make_guest(name: str, folder: Path, image: Image, bridge: Bridge, number: int = 1) -> Guest:
    guest = Guest(name, folder, image, bridge, number)
    folder.mkdir()
    authorized = make_key(folder / "login")
    make_key(folder / "host")
    host_key = dropbear_key((folder / "host").read_bytes())
    write_initrd(image, folder / "initrd.img", authorized, host_key)
    copy = ["cp", "--sparse=always", "--reflink=auto"]
    subprocess.run([*copy, image.base, guest.disk], check=True)
    return guest
