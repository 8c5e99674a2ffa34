"""A libvirt daemon of the bench's own, which serves libvirt's test driver and QEMU to everybody.

It is a user's daemon in folders of its own, beside whatever the machine runs; for root it runs as
`nobody`, because there is one daemon of root's on a machine. The domains of `test:///default` are
shared by all of its connections for as long as one is open.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import libvirt
import swarms
from program import cpu_seconds

START_S: Final = 15.0
_NOBODY: Final = 65534
_QEMU_MIB: Final = 16


class Daemon:
    """Serves until the end of its context, and takes all of its VMs with it."""

    def __init__(self, folder: Path) -> None:
        """`folder` must be reachable by others than its owner."""
        self._folder = folder
        self._agents = 0
        self.tests: Any = None
        """A connection to the test driver."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to serve, with no VMs."""
        environ = self._prepare()
        drop = ["setpriv", "--reuid", str(_NOBODY), "--regid", str(_NOBODY), "--clear-groups"]
        command = ["libvirtd", "--config", str(self._folder / "libvirtd.conf")]
        libvirt.registerErrorHandler(lambda _context, _error: None, None)  # they are raised
        self._log = (self._folder / "log").open("ab")
        self._process = subprocess.Popen(
            [*(drop if os.geteuid() == 0 else []), *command],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            cwd="/",
            env=environ,
            start_new_session=True,
        )
        self.tests = self._connect(self.test_uri)
        self._qemu = self._connect(self.qemu_uri)
        for domain in self.tests.listAllDomains():
            domain.destroy()
            if domain.isPersistent():
                domain.undefine()

    def kill(self) -> None:
        """End it as a crash would; its VMs of the test driver go with it."""
        self._process.kill()
        self._process.wait()
        self._log.close()

    def stop(self) -> None:
        """End it in order, and its VMs before."""
        for domain in self._qemu.listAllDomains():
            domain.destroy()
        self._qemu.close()
        self.tests.close()
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(START_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    @property
    def test_uri(self) -> str:
        return f"test+unix:///default?socket={self._socket}"

    @property
    def qemu_uri(self) -> str:
        return f"qemu+unix:///session?socket={self._socket}"

    def cpu_seconds(self) -> float:
        """What it has cost by now, without its VMs."""
        return cpu_seconds(self._process.pid)

    def test_agents(self, wanted: int) -> str:
        """See that there are so many running agents of the test driver; the URI to them."""
        for number in range(self._agents, wanted):
            self.tests.createXML(swarms.tested_domain(number))
        self._agents = max(self._agents, wanted)
        return self.test_uri

    def qemu_agents(self, count: int) -> str:
        """Start real VMs whose vCPUs never run, one QEMU process each; the URI to them."""
        for number in range(count):
            self._qemu.createXML(_qemu_domain(number), libvirt.VIR_DOMAIN_START_PAUSED)
        return self.qemu_uri

    @property
    def _socket(self) -> Path:
        return self._folder / "run" / "libvirt" / "libvirt-sock"

    def _prepare(self) -> Mapping[str, str]:
        owner = _NOBODY if os.geteuid() == 0 else os.geteuid()
        self._folder.mkdir(mode=0o755, exist_ok=True)
        environ = dict(os.environ, HOME=str(self._folder))
        for name, variable in (
            ("run", "XDG_RUNTIME_DIR"),
            ("config", "XDG_CONFIG_HOME"),
            ("cache", "XDG_CACHE_HOME"),
            ("data", "XDG_DATA_HOME"),
        ):
            (self._folder / name).mkdir(mode=0o700, exist_ok=True)
            os.chown(self._folder / name, owner, owner if owner == _NOBODY else -1)
            environ[variable] = str(self._folder / name)
        # Whoever reaches the socket may use it: only its owner, and root, do.
        (self._folder / "libvirtd.conf").write_text('auth_unix_rw = "none"\n')
        environ["PATH"] = f"{environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
        return environ

    def _connect(self, uri: str) -> Any:
        end = time.perf_counter() + START_S
        while True:
            try:
                return libvirt.open(uri)
            except libvirt.libvirtError:
                if self._process.poll() is not None or time.perf_counter() > end:
                    raise
                time.sleep(0.05)


def _qemu_domain(number: int) -> str:
    return (
        f"<domain type='qemu'><name>agent-{number:04}</name>"
        f"<uuid>{uuid.uuid5(uuid.NAMESPACE_OID, f'qemu {number}')}</uuid>"
        f"<metadata>{swarms.bench_tag(number)}</metadata>"
        f"<memory unit='MiB'>{_QEMU_MIB}</memory><vcpu>1</vcpu>"
        "<os><type arch='x86_64' machine='pc'>hvm</type></os>"
        "<devices><controller type='usb' model='none'/></devices></domain>"
    )
