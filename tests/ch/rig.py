"""A bench with a bridge and a libvirt connection, for tests of the driver and of the stand-in."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import libvirt
import pytest

from swarm_tui.local.image import Image

from .bench import Bench, NoDriver, await_that, find_driver, find_hypervisor
from .bridge import Bridge, make_bridge
from .guest import Guest, make_guest

SOON_S: Final = 20.0


@dataclass
class Rig:
    folder: Path
    bench: Bench
    bridge: Bridge
    image: Image
    libvirt: Any = None
    _count: int = field(default=0, init=False)

    def connect(self) -> None:
        """To the daemon that runs now; after a restart again."""
        libvirt.registerErrorHandler(lambda _context, _error: None, None)  # they are raised
        self.libvirt = libvirt.open(self.bench.uri)

    def make(self, name: str) -> Guest:
        self._count += 1
        return make_guest(name, self.folder / name, self.image, self.bridge, self._count)

    def start(self, guest: Guest, xml: str = "") -> Any:
        """Its domain, defined and started; the guest boots."""
        self.libvirt.defineXML(xml or guest.xml()).create()
        return self.domain(guest)

    def domain(self, guest: Guest) -> Any:
        """As libvirt knows it now: a domain object keeps the id that it had."""
        return self.libvirt.lookupByName(guest.name)

    def end_vmm(self, pid: int) -> None:
        """What libvirt leaves undone after a destroy or a save where there is no machined."""
        if pid in self.bench.vmm_pids():
            os.kill(pid, signal.SIGKILL)
            await_that(lambda: pid not in self.bench.vmm_pids(), SOON_S, "the VMM ends")

    def ask(self, guest: Guest, method: str, operation: str) -> tuple[int, Any]:
        """Status and answer of a VMM's own API."""
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(SOON_S)
        connection.sock.connect(str(self.bench.folder / f"run/{guest.name}-socket"))
        connection.request(method, f"/api/v1/{operation}")
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, json.loads(content) if content else None

    def requests(self, guest: Guest, operation: str) -> list[dict[str, Any]]:
        """Those of one kind that its VMM has answered."""
        lines = [json.loads(line) for line in self.bench.log.read_text().splitlines()]
        wanted = (guest.name, operation)
        return [line for line in lines if (line["domain"], line["operation"]) == wanted]


@contextmanager
def open_rig(image: Image, cache: Path) -> Iterator[Rig]:
    """Skips the test where there is no driver."""
    with ExitStack() as stack:
        # Short, because of sockets, and on a disk, because VMs are saved there.
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="ch-", dir="/var/tmp"))
        folder = Path(name)
        folder.chmod(0o711)
        try:
            bench = Bench(folder / "bench", find_driver(), find_hypervisor(image, cache))
        except NoDriver as reason:
            pytest.skip(str(reason))
        rig = Rig(folder, bench, stack.enter_context(make_bridge()), image)
        stack.callback(bench.stop)
        bench.start()
        rig.connect()
        yield rig


def await_state(domain: Any, state: int) -> None:
    await_that(lambda: domain.state()[0] == state, SOON_S, f"state {state}")


def type_on(terminal: Path, text: str, until: str) -> str:
    """What a terminal says, up to and with some words, after a text was typed on it."""
    said = b""
    deadline = time.monotonic() + SOON_S
    fd = os.open(terminal, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        os.write(fd, text.encode())
        while until.encode() not in said:
            assert time.monotonic() < deadline, said
            try:
                said += os.read(fd, 4096)
            except BlockingIOError:
                time.sleep(0.02)
    finally:
        os.close(fd)
    return said.decode("utf-8", "replace")
