"""A guest in QEMU: what a VMM does with it once it is there."""

from __future__ import annotations

import fcntl
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from .hardware import Config
from .qmp import Qmp, QmpError, Report

_TUNGETIFF: Final = 0x800454D2
_UNLIMITED: Final = 1 << 40
_STATE: Final = "state"


class Machine:
    def __init__(
        self,
        config: Config,
        monitor: socket.socket,
        locks: Sequence[int],
        taps: Mapping[str, Sequence[int]],
        report: Report,
    ) -> None:
        """Waits until QEMU is there, and gives it the locks. Raises QmpError."""
        self._config = config
        self._taps = {id: _interface(fds[0]) for id, fds in taps.items() if fds}
        self._qmp = Qmp(monitor, report)
        self._locks = [f"lock{number}" for number, _ in enumerate(locks)]
        for name, lock in zip(self._locks, locks, strict=True):
            self._qmp.run("getfd", fd=lock, fdname=name)

    def run(self) -> None:
        self._qmp.run("cont")

    def stop(self) -> None:
        self._qmp.run("stop")

    def reset(self) -> None:
        self._qmp.run("system_reset")

    def press_power_button(self) -> None:
        self._qmp.run("system_powerdown")

    def quit(self) -> None:
        with suppress(QmpError):  # it answers or it does not, and ends in any case
            self._qmp.run("quit")

    def give_up(self) -> None:
        """Stop for good, and let go of disks and taps."""
        self.stop()
        for nic in self._taps:
            self._qmp.run("netdev_del", id=f"net{nic}")
        for name in self._locks:
            self._qmp.run("closefd", fdname=name)

    def write_state(self, fd: int) -> None:
        """Write memory and devices of the stopped guest. Raises QmpError, as on a full disk."""
        self._qmp.run("migrate-set-parameters", max_bandwidth=_UNLIMITED)
        self._qmp.run("getfd", fd=fd, fdname=_STATE)
        self._qmp.run("migrate", uri=f"fd:{_STATE}")
        self._wait_migrated()

    def read_state(self, fd: int) -> None:
        """Take what `write_state` wrote; QEMU ends if it cannot. Raises QmpError."""
        self._qmp.run("getfd", fd=fd, fdname=_STATE)
        self._qmp.run("migrate-incoming", uri=f"fd:{_STATE}")
        self._wait_migrated()

    def _wait_migrated(self) -> None:
        while True:
            now = self._qmp.run("query-migrate")
            if now.get("status") == "completed":
                return
            if now.get("status") == "failed":
                raise QmpError(now.get("error-desc", "QEMU does not say why"))
            time.sleep(0.01)

    def counters(self) -> Mapping[str, Mapping[str, int]]:
        """As vm.counters has them; without latencies."""
        counters: dict[str, Mapping[str, int]] = {}
        stats = {of["node-name"]: of["stats"] for of in self._qmp.run("query-blockstats")}
        for disk in self._config.get("disks") or ():
            of = stats[disk["id"].lstrip("_")]
            counters[disk["id"]] = {
                "read_bytes": of["rd_bytes"],
                "read_ops": of["rd_operations"],
                "write_bytes": of["wr_bytes"],
                "write_ops": of["wr_operations"],
            }
        for nic, interface in self._taps.items():
            counters[nic] = _traffic(interface)
        return counters


def _interface(tap: int) -> str:
    """The name of a tap's network interface (TUNGETIFF)."""
    answer = fcntl.ioctl(tap, _TUNGETIFF, bytes(40))
    name: bytes = struct.unpack_from("16s", answer)[0]
    return name.rstrip(b"\0").decode()


def _traffic(interface: str) -> Mapping[str, int]:
    """From the guest's side: what the host sends, it receives."""
    counts = {}
    for way, host in (("rx", "tx"), ("tx", "rx")):
        for unit, file in (("bytes", "bytes"), ("frames", "packets")):
            path = Path("/sys/class/net", interface, "statistics", f"{host}_{file}")
            counts[f"{way}_{unit}"] = int(path.read_text())
    return counts
