"""The VMM: the API's operations on one VM, their order, their refusals, and faults on demand.

Texts and status codes of refusals are those of Cloud Hypervisor (vmm/src/api/mod.rs and vm.rs).
"""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from .disk import open_locked
from .event import Events
from .hardware import Config, Wiring, command, complete
from .machine import Machine
from .qmp import CLOSED, QmpError
from .settings import Fault, Kind, Moment, Settings, read_settings
from .snapshot import Snapshot, SnapshotError, snapshot_of
from .terminal import Terminal, open_terminal

FAULT_POLL_S: Final = 0.05
RESETS_APART_S: Final = 2.0
"""The firmware resets a machine once more after Linux did; that is the same reboot."""
_BLOCK: Final = 1 << 16

Turn = Callable[[Sequence[str], Sequence[int], Settings], None]
"""Turn the process that libvirt started into QEMU, with these arguments and descriptors."""


class Refusal(Exception):
    """An error for the API's client: what Cloud Hypervisor calls it, and the cause."""

    def __init__(self, *messages: str, status: int = 500) -> None:
        super().__init__(*messages)
        self.messages = messages
        self.status = status


class Vmm:
    """One VM's, from before it is created until after it has ended.

    Requests and what the guest does by itself are handled one after the other, as there.
    """

    def __init__(self, name: str, pid: int, settings: Path, events: Events, turn: Turn) -> None:
        """`pid` is the process that libvirt started."""
        self._name = name
        self._pid = pid
        self._settings_file = settings
        self._events = events
        self._turn = turn
        self._busy = threading.Lock()
        self._config: Config | None = None
        self._terminals: dict[str, Terminal] = {}
        self._taps: dict[str, Sequence[int]] = {}
        self._machine: Machine | None = None
        self._is_shut_down = False
        self._is_paused = False
        self._is_over = False
        self._reset = 0.0
        self._reports: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._operations: Mapping[str, tuple[str, str, Callable[[Any, list[int]], object]]] = {
            "vmm.ping": ("GET", "The VMM does not respond", self._ping),
            "vmm.shutdown": ("PUT", "The VMM could not shutdown", self._shutdown_vmm),
            "vm.info": ("GET", "The VM info is not available", self._info),
            "vm.counters": ("GET", "The VM counters are not available", self._counters),
            "vm.create": ("PUT", "The VM could not be created", self._create),
            "vm.delete": ("PUT", "The VM could not be deleted", self._delete),
            "vm.boot": ("PUT", "The VM could not boot", self._boot),
            "vm.shutdown": ("PUT", "The VM could not shutdown", self._shutdown),
            "vm.reboot": ("PUT", "The VM could not reboot", self._reboot),
            "vm.pause": ("PUT", "The VM could not be paused", self._pause),
            "vm.resume": ("PUT", "The VM could not resume", self._resume),
            "vm.snapshot": ("PUT", "The VM could not be snapshotted", self._snapshot),
            "vm.restore": ("PUT", "The VM could not be restored", self._restore),
            "vm.add-net": ("PUT", "The network device could not be added", self._add_net),
            "vm.add-disk": ("PUT", "The disk could not be added", self._add_disk),
            "vm.power-button": ("PUT", "The power button could not be pressed", self._press),
        }
        self._settings = read_settings(settings)

    # Requests

    def handle(self, method: str, operation: str, body: bytes, fds: list[int]) -> object:
        """What the API answers; None for an empty answer. Raises Refusal.

        The descriptors are taken over.
        """
        with self._busy:
            self._settings = read_settings(self._settings_file)
            try:
                return self._perform(method, operation, body, fds)
            finally:
                for fd in fds:  # those that nothing has taken
                    os.close(fd)

    def _perform(self, method: str, operation: str, body: bytes, fds: list[int]) -> object:
        if operation not in self._operations:
            raise Refusal("Not Found", status=404)
        wanted, failure, act = self._operations[operation]
        if method != wanted:
            raise Refusal("Bad Request", status=400)
        try:
            content = json.loads(body) if body else None
        except ValueError as error:
            raise Refusal("Failed to deserialize JSON", str(error), status=400) from error
        self._suffer(operation, Moment.BEFORE)
        try:
            answer = act(content, fds)
        except Refusal as refusal:
            messages = ("Error from API", failure, *refusal.messages)
            raise Refusal(*messages, status=refusal.status) from refusal
        except (OSError, SnapshotError, QmpError) as error:
            raise Refusal("Error from API", failure, str(error)) from error
        self._suffer(operation, Moment.AFTER)
        return answer

    def conclude(self) -> None:
        """End the process, if the request that was just answered asked for it."""
        if self._is_over:
            self._quit()

    # Faults

    def _fault(self, operation: str, moment: Moment) -> Fault | None:
        for fault in self._settings.faults:
            wanted = (fault.operation, fault.moment)
            if wanted == (operation, moment) and fault.domain in ("", self._name):
                return fault
        return None

    def _suffer(self, operation: str, moment: Moment) -> None:
        if fault := self._fault(operation, moment):
            self._happen(fault)

    def _happen(self, fault: Fault) -> None:
        if fault.kind is Kind.DELAY:
            time.sleep(fault.seconds)
        elif fault.kind is Kind.CRASH:
            self._crash()
        elif fault.kind is Kind.HANG:
            while fault in read_settings(self._settings_file).faults:
                time.sleep(FAULT_POLL_S)
        else:
            raise Refusal(*fault.messages, status=fault.status)

    def _crash(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os._exit(1)

    # The VMM

    def _ping(self, content: Any, fds: list[int]) -> object:
        version = self._settings.version
        return {
            "build_version": f"v{version}",
            "version": version,
            "pid": self._pid,
            "features": ["kvm"],
        }

    def _shutdown_vmm(self, content: Any, fds: list[int]) -> None:
        self._delete(content, fds)
        self._events.tell("vmm", "shutdown")
        self._is_over = True

    def _quit(self) -> None:
        if self._machine:
            self._machine.quit()
        else:
            os.kill(self._pid, signal.SIGTERM)  # it waits to become QEMU, and need no longer

    # The VM's configuration

    def _create(self, content: Any, fds: list[int]) -> None:
        if self._config is not None:
            raise Refusal("VM is already created")
        self._take(content)

    def _take(self, config: Config) -> None:
        complete(config)
        for device in ("serial", "console"):
            if config.get(device, {}).get("mode") == "Pty":
                self._terminals[device] = open_terminal()
                config[device]["file"] = self._terminals[device].path
        self._config = config

    def _delete(self, content: Any, fds: list[int]) -> None:
        if self._config is None:
            return
        if self._machine and not self._is_shut_down:
            self._shutdown(content, fds)
        self._config = None
        self._events.tell("vm", "deleted")

    def _add_net(self, nic: Any, fds: list[int]) -> None:
        config = self._unbooted()
        config["net"] = [*config.get("net", ()), {**nic, "fds": [-1] * len(fds) or None}]
        complete(config)
        self._taps[config["net"][-1]["id"]] = list(fds)
        fds.clear()

    def _add_disk(self, disk: Any, fds: list[int]) -> None:
        config = self._unbooted()
        config["disks"] = [*config.get("disks", ()), disk]
        complete(config)

    def _unbooted(self) -> Config:
        if self._config is None:
            raise Refusal("VM is not created", status=404)
        if self._machine:
            raise Refusal("The stand-in adds no devices to a running VM")
        return self._config

    def _info(self, content: Any, fds: list[int]) -> object:
        if self._config is None:
            raise Refusal("VM is not created", status=404)
        return {
            "config": self._config,
            "state": self._state,
            "memory_actual_size": self._config["memory"]["size"],
            "device_tree": {},
        }

    @property
    def _state(self) -> str:
        if self._machine is None or self._is_shut_down:
            return "Created"
        return "Paused" if self._is_paused else "Running"

    # The VM's life

    def _boot(self, content: Any, fds: list[int]) -> None:
        if self._config is None:
            raise Refusal("VM config is missing", status=404)
        self._events.tell("vm", "booting")
        self._start(self._config, is_restored=False).run()
        self._events.tell("vm", "booted")

    def _start(self, config: Config, *, is_restored: bool) -> Machine:
        """Have QEMU with the VM, stopped, with its disks locked."""
        if self._machine:
            raise Refusal("The stand-in starts a VM only once")
        for path in (config["payload"].get("kernel"), config["payload"].get("initramfs")):
            if path:
                os.close(os.open(path, os.O_RDONLY))
        locks = _lock_disks(config)
        ours, theirs = socket.socketpair()
        masters = {device: terminal.master for device, terminal in self._terminals.items()}
        wiring = Wiring(theirs.fileno(), masters, self._taps)
        words, passed = command(self._name, config, wiring, self._settings, is_restored=is_restored)
        with closing(theirs):
            self._turn(words, passed, self._settings)
        try:
            self._machine = Machine(config, ours, locks, self._taps, self._note)
        finally:
            for lock in locks:
                os.close(lock)
            self._drop_taps()
        return self._machine

    def _drop_taps(self) -> None:
        for fds in self._taps.values():
            for fd in fds:
                os.close(fd)
        self._taps = {}

    def _running(self) -> Machine:
        if self._machine is None or self._is_shut_down:
            raise Refusal("VM is not running")
        return self._machine

    def _pause(self, content: Any, fds: list[int]) -> None:
        machine = self._running()
        self._events.tell("vm", "pausing")
        if self._is_paused:
            raise Refusal(
                "Cannot pause VM",
                "Failed to pause migratable component",
                "Invalid transition: InvalidStateTransition(Paused, Paused)",
            )
        machine.stop()
        self._is_paused = True
        self._events.tell("vm", "paused")

    def _resume(self, content: Any, fds: list[int]) -> None:
        machine = self._running()
        self._events.tell("vm", "resuming")
        if not self._is_paused:
            raise Refusal(
                "Cannot resume VM",
                "Failed to resume migratable component",
                "Invalid transition: InvalidStateTransition(Running, Running)",
            )
        machine.run()
        self._is_paused = False
        self._events.tell("vm", "resumed")

    def _reboot(self, content: Any, fds: list[int]) -> None:
        machine = self._running()
        self._tell_reboot(machine.reset)
        machine.run()
        self._is_paused = False

    def _tell_reboot(self, act: Callable[[], None]) -> None:
        self._events.tell("vm", "rebooting")
        self._reset = time.monotonic()
        act()
        self._events.tell("vm", "rebooted")

    def _shutdown(self, content: Any, fds: list[int]) -> None:
        self._running().give_up()
        self._is_shut_down = True
        self._events.tell("vm", "shutdown")

    def _press(self, content: Any, fds: list[int]) -> None:
        self._running().press_power_button()

    def _counters(self, content: Any, fds: list[int]) -> object:
        return self._running().counters()

    # Saved VMs

    def _snapshot(self, content: Any, fds: list[int]) -> None:
        machine = self._running()
        self._events.tell("vm", "snapshotting")
        if not self._is_paused:
            raise Refusal(
                "Cannot take a snapshot of the VM",
                "Failed to snapshot migratable component",
                "Trying to snapshot while VM is running",
            )
        assert self._config is not None  # it runs
        snapshot = snapshot_of(content["destination_url"])
        version = self._settings.version
        fault = self._fault("vm.snapshot", Moment.DURING)
        fd = snapshot.begin(self._config, version)
        try:
            if fault:
                self._write_partly(machine, fd, fault)
            else:
                machine.write_state(fd)
        finally:
            os.close(fd)
        snapshot.finish(version)
        self._events.tell("vm", "snapshotted")

    def _write_partly(self, machine: Machine, target: int, fault: Fault) -> None:
        """Write the first bytes of the memory; then the fault happens."""
        source, sink = os.pipe()
        copying = threading.Thread(target=self._copy_partly, args=(source, target, fault))
        copying.start()
        try:
            machine.write_state(sink)
        except QmpError as error:
            raise Refusal(*fault.messages, status=fault.status) from error
        finally:
            os.close(sink)
            copying.join()

    def _copy_partly(self, source: int, target: int, fault: Fault) -> None:
        _copy(source, target, fault.room_bytes)
        try:
            self._happen(fault)
            _copy(source, target, sys.maxsize)
        except Refusal:
            pass  # QEMU finds that nobody reads any more
        finally:
            os.close(source)

    def _restore(self, content: Any, fds: list[int]) -> None:
        if self._config is not None:
            raise Refusal("VM is already created")
        self._events.tell("vm", "restoring")
        snapshot = snapshot_of(content["source_url"])
        settings = self._settings
        config = snapshot.read(settings.version, needs_same_version=settings.refuses_other_versions)
        self._taps = _sort_taps(config, content.get("net_fds") or (), fds)
        self._take(config)
        try:
            self._read(config, snapshot)
        except (OSError, QmpError, Refusal):
            self._config = None
            self._drop_taps()
            raise
        self._is_paused = True
        self._events.tell("vm", "restored")

    def _read(self, config: Config, snapshot: Snapshot) -> None:
        fd = os.open(snapshot.memory, os.O_RDONLY)
        try:
            self._start(config, is_restored=True).read_state(fd)
        finally:
            os.close(fd)

    # What the guest does by itself

    def _note(self, event: str, data: Mapping[str, Any]) -> None:
        """Called in QEMU's thread, which must not wait for us."""
        if event == "SHUTDOWN" and data["reason"] in ("guest-shutdown", "host-signal"):
            self._reports.put("shutdown")
        elif event == "RESET" and data["guest"]:
            self._reports.put("reset")
        elif event == CLOSED:
            self._reports.put("end")

    def follow(self) -> None:
        """Do what Cloud Hypervisor does when its guest ends or reboots, until QEMU has ended."""
        while (report := self._reports.get()) != "end":
            with self._busy:
                if report == "reset" and time.monotonic() - self._reset > RESETS_APART_S:
                    self._tell_reboot(lambda: None)
                elif report == "shutdown":
                    self._events.tell("vm", "shutdown")
                    self._events.tell("vm", "deleted")
                    self._events.tell("vmm", "shutdown")
                    self._quit()


def _copy(source: int, target: int, most_bytes: int) -> None:
    while most_bytes and (block := os.read(source, min(_BLOCK, most_bytes))):
        os.write(target, block)
        most_bytes -= len(block)


def _lock_disks(config: Config) -> list[int]:
    locks: list[int] = []
    for disk in config.get("disks") or ():
        try:
            locks.append(open_locked(disk["path"], is_readonly=bool(disk.get("readonly"))))
        except OSError as error:
            for lock in locks:
                os.close(lock)
            if not isinstance(error, BlockingIOError):
                raise
            raise Refusal(
                "Error manipulating disk locks",
                "Cannot lock images of all block devices",
                f"Failed to lock disk image {disk['path']}: already locked",
            ) from error
    return locks


def _sort_taps(
    config: Config, wanted: Sequence[Mapping[str, Any]], fds: list[int]
) -> dict[str, Sequence[int]]:
    """Which of the descriptors of a restore belong to which network device; all are taken."""
    counts = {nic["id"]: nic["num_fds"] for nic in wanted}
    if len(fds) != sum(counts.values()):
        raise Refusal("Bad Request", status=400)
    for nic in config.get("net") or ():
        if counts.get(nic["id"], 0) != len(nic.get("fds") or ()):
            raise Refusal(
                "Failed to validate config",
                f"Net id {nic['id']} is associated with FDs and is required",
            )
    return {id: [fds.pop(0) for _ in range(count)] for id, count in counts.items()}
