"""A VM's configuration, as Cloud Hypervisor's API has it, as QEMU's command line.

The machine is a q35: its timers work under emulation, those of QEMU's smaller microvm often do not,
and Linux then hangs as it boots or reboots.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from .settings import Settings

FIRST_FD: Final = 64
"""Descriptors are given to QEMU from this number on."""

Config = dict[str, Any]
"""VmConfig of the API (vmm/src/api/openapi/cloud-hypervisor.yaml)."""


@dataclass(slots=True)
class Passed:
    """Descriptors that go to QEMU, numbered in their order."""

    fds: list[int] = field(default_factory=list)

    def add(self, fd: int) -> int:
        """The number under which QEMU will have it."""
        self.fds.append(fd)
        return FIRST_FD + len(self.fds) - 1


@dataclass(frozen=True, slots=True)
class Wiring:
    """What a VM is connected to; descriptors of this process."""

    monitor: int
    terminals: Mapping[str, int]
    """Masters of the terminals of `serial` and `console`, of those that there are."""
    taps: Mapping[str, Sequence[int]]
    """By the id of the network device; one for each pair of queues."""


def complete(config: Config) -> None:
    """Give each device without an id the one that Cloud Hypervisor would."""
    for kind, ids in (("disks", "_disk"), ("net", "_net")):
        for number, device in enumerate(config.get(kind) or ()):
            device.setdefault("id", f"{ids}{number}")


def command(
    name: str, config: Config, wiring: Wiring, settings: Settings, *, is_restored: bool
) -> tuple[Sequence[str], Sequence[int]]:
    """QEMU's arguments, and the descriptors that it is to inherit. It starts stopped."""
    passed = Passed()
    monitor = passed.add(wiring.monitor)
    words = ["-name", f"guest={name},process=cloud-hypervisor,debug-threads=on"]
    words += ["-machine", "q35,usb=off,sata=off,smbus=off,vmport=off", "-accel", settings.accel]
    words += ["-cpu", "max", "-smp", str(config.get("cpus", {}).get("boot_vcpus", 1))]
    words += ["-m", f"size={config['memory']['size'] >> 10}k"]
    words += ["-nodefaults", "-no-user-config", "-display", "none", "-S", "-no-shutdown"]
    words += ["-chardev", f"socket,id=monitor,fd={monitor}", "-mon", "monitor,mode=control"]
    words += _boot(config["payload"])
    words += _consoles(config, wiring.terminals, passed)
    words += ["-device", "virtio-rng-pci"]
    for disk in config.get("disks") or ():
        words += _disk(disk, settings)
    for nic in config.get("net") or ():
        words += _nic(nic, wiring.taps.get(nic["id"], ()), passed)
    if is_restored:
        words += ["-incoming", "defer"]
    return words, passed.fds


def _boot(payload: Mapping[str, Any]) -> Sequence[str]:
    words = ["-kernel", payload.get("kernel") or payload["firmware"]]
    for option, key in (("-initrd", "initramfs"), ("-append", "cmdline")):
        if payload.get(key):
            words += [option, payload[key]]
    return words


def _consoles(config: Config, terminals: Mapping[str, int], passed: Passed) -> Sequence[str]:
    """COM1, and hvc0 where there is a console; a device that is off is there all the same."""
    words = []
    for device in ("serial", "console"):
        backend = f"null,id={device}"
        if device in terminals:
            number = passed.add(terminals[device])
            words += ["-add-fd", f"fd={number},set={number}"]
            backend = f"serial,id={device},path=/dev/fdset/{number}"
        elif config.get(device, {}).get("mode") == "Socket":
            path = config[device]["socket"].replace(",", ",,")
            backend = f"socket,id={device},server=on,wait=off,path={path}"
        words += ["-chardev", backend]
    words += ["-serial", "chardev:serial"]
    if "console" in terminals:
        words += ["-device", "virtio-serial-pci", "-device", "virtconsole,chardev=console"]
    return words


def _disk(disk: Mapping[str, Any], settings: Settings) -> Sequence[str]:
    node = disk["id"].lstrip("_")
    is_readonly = bool(disk.get("readonly"))
    # The locks are ours: QEMU's are of another kind than Cloud Hypervisor's.
    file: Mapping[str, Any] = {"driver": "file", "filename": disk["path"], "locking": "off"}
    if settings.refuses_sector_0 and not is_readonly and "image_type" not in disk:
        refusal = {"event": "none", "iotype": "write", "sector": 0, "errno": 5}
        file = {"driver": "blkdebug", "image": file, "inject-error": [refusal]}
    backend = {"driver": "raw", "node-name": node, "read-only": is_readonly, "file": file}
    device = f"virtio-blk-pci,id=dev_{node},drive={node},rerror=report,werror=report"
    return ["-blockdev", json.dumps(backend), "-device", device]


def _nic(nic: Mapping[str, Any], taps: Sequence[int], passed: Passed) -> Sequence[str]:
    numbers = [str(passed.add(tap)) for tap in taps]
    backend = f"tap,id={_net(nic)},{'fds' if len(numbers) > 1 else 'fd'}={':'.join(numbers)}"
    device = f"virtio-net-pci,netdev={_net(nic)},romfile="
    if nic.get("mac"):
        device += f",mac={nic['mac']}"
    if nic.get("mtu"):
        device += f",host_mtu={nic['mtu']}"
    if len(numbers) > 1:
        device += f",mq=on,vectors={2 * len(numbers) + 2}"
    return ["-netdev", backend, "-device", device]


def _net(nic: Mapping[str, Any]) -> str:
    return f"net{nic['id']}"
