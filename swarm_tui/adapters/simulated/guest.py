"""The simulated swarm's side of `ports.Guest`: SSH into guests that are not there."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from swarm_tui.adapters.simulated.life import LINE_BYTES
from swarm_tui.adapters.simulated.project import Pulling, State
from swarm_tui.adapters.simulated.world import Machine, World
from swarm_tui.durable import storage
from swarm_tui.errors import GuestFailed, GuestUnreachable
from swarm_tui.event import render_event
from swarm_tui.model import Address, Completed, EventBatch, Message

_NOT_FOUND: Final = 127
_TAIL: Final = re.compile(r"file=\S+/events\.jsonl offset=(\d+)")
_NO_WORK: Final = "A simulated agent's work cannot be taken"
_GOLDEN: Final = 0.6180339887
_WELCOME: Final = (
    "This is a simulated agent; nothing runs here.\n"
    "A few commands answer (cat, echo, hostname, uptime, true, false); exit or Ctrl-D leaves.\n"
)


class SimulatedGuest:
    """Reaches every guest of the simulated swarm by its address."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._is_closed = False

    async def events(self, address: Address, offset: int) -> AsyncIterator[EventBatch]:
        machine = await self._connect(address, "events")
        link = machine.link
        is_first = True
        while True:
            batch = machine.life.read(offset)
            offset = batch.offset
            if batch.events or batch.dropped or is_first:
                is_first = False
                yield batch
            else:
                await self._world.change(machine)
            self._check(machine, link)
            self._world.live(machine)

    async def traffic(self, address: Address, interval_s: float) -> AsyncIterator[tuple[int, int]]:
        machine = await self._connect(address, "traffic")
        link = machine.link
        # Each guest at a moment of its own, as real connections come about: not all at once.
        due = self._world.clock.monotonic() - interval_s * (address.port * _GOLDEN % 1.0)
        while True:
            if machine.is_running:
                counters = machine.life.counters(self._world.clock.monotonic(), None)
                yield counters.net_received or 0, counters.net_sent or 0
            due = max(due + interval_s, self._world.clock.monotonic())
            await self._world.until(due)
            self._check(machine, link)

    async def freeze(self, address: Address, timeout_s: float) -> None:
        machine = await self._reach(address, "freeze", timeout_s)
        machine.is_frozen = True
        self._world.pace(machine)

    async def thaw(self, address: Address, timeout_s: float) -> None:
        machine = await self._reach(address, "thaw", timeout_s)
        if machine.is_frozen:
            machine.is_frozen = False
            self._world.pace(machine)

    async def refresh(self, address: Address, timeout_s: float) -> None:
        await self._reach(address, "refresh", timeout_s)

    async def deliver(self, address: Address, message: Message, timeout_s: float) -> None:
        machine = await self._reach(address, "deliver", timeout_s)
        now, wall = self._world.clock.monotonic(), self._world.clock.wall()
        if message.kind == "verdict":
            machine.life.answer(message.verdict, message.text, now, wall)
        else:
            machine.life.note(message.text, now, wall)
        self._world.poke(machine)

    async def run(
        self, address: Address, script: str, *, stdin: bytes = b"", timeout_s: float
    ) -> Completed:
        """Answers a few commands, one a line; any other ends with status 127.

        What a review asks is answered by this machine's git, in the simulated agent's repository.
        """
        machine = await self._reach(address, "run", timeout_s)
        if pulling := Pulling.parse(script):
            return await self._pull(machine, pulling, timeout_s)
        output, errors, status = "", "", 0
        for line in script.splitlines():
            said, complaint, status = self._answer(machine, line, stdin)
            output += said
            errors += complaint
            if status == _NOT_FOUND:
                break
        return Completed(status, output.encode(), errors.encode())

    async def download(
        self,
        address: Address,
        script: str,
        target: Path,
        *,
        stdin: bytes = b"",
        limit_bytes: int,
        timeout_s: float,
        on_bytes: Callable[[int], None] = lambda total: None,
    ) -> Completed:
        """Only what a review takes can be taken, see `run`, and the end of its events."""
        machine = await self._reach(address, "download", timeout_s)
        if tail := _TAIL.search(script):
            events = machine.life.read(int(tail[1])).events
            content = b"".join(render_event(event) + b"\n" for event in events)
            await asyncio.to_thread(target.write_bytes, content[-limit_bytes:])
            return Completed(0, b"", b"")
        pulling = Pulling.parse(script)
        if pulling is None:
            raise GuestFailed(_NO_WORK, f"Nothing runs in {machine.vm.name}.")
        done = await self._pull(machine, pulling, timeout_s)
        if len(done.stdout) > limit_bytes:
            raise GuestFailed(_NO_WORK, f"It is larger than {limit_bytes:,} bytes.")
        with storage("keep the simulated agent's work", GuestFailed):
            await asyncio.to_thread(target.write_bytes, done.stdout)
        on_bytes(len(done.stdout))
        return replace(done, stdout=b"")

    async def upload(
        self,
        address: Address,
        script: str,
        source: Path,
        *,
        timeout_s: float,
        on_bytes: Callable[[int], None] = lambda total: None,
    ) -> Completed:
        """Nothing takes anything in: the spawner of a simulated swarm only pretends to."""
        machine = await self._reach(address, "upload", timeout_s)
        raise GuestFailed("Nothing can be sent to it", f"Nothing runs in {machine.vm.name}.")

    async def _pull(self, machine: Machine, pulling: Pulling, timeout_s: float) -> Completed:
        project, tag, link = self._world.project, machine.vm.tag, machine.link
        if project is None:
            raise GuestFailed(_NO_WORK, "This simulated swarm was made without repositories.")
        life = machine.life
        state = State(life.task, tag.task, life.answered(), int(tag.created or 0))
        done = await project.run(machine.vm.id, state, pulling, timeout_s)
        self._check(machine, link)
        return done

    async def shell(self, address: Address, command: str | None, user: str | None) -> int:
        """A pretend shell that says so; with `command`, what `run` would say."""
        machine = await self._reach(address, "shell", 0.0)
        if command is not None:
            return self._print(machine, command)
        sys.stdout.write(_WELCOME)
        status = 0
        # Ctrl-C clears the line, as a shell's would, and does not end the whole program.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            while True:
                sys.stdout.write(f"{machine.vm.name} (simulated) $ ")
                sys.stdout.flush()
                line = await asyncio.to_thread(sys.stdin.readline)
                if not line:
                    sys.stdout.write("\n")
                    return status
                words = line.split()
                if words and words[0] in ("exit", "logout"):
                    return int(words[1]) & 255 if words[1:] and words[1].isdecimal() else status
                status = self._print(machine, line) if words else status
        finally:
            signal.signal(signal.SIGINT, before)

    async def forget(self, address: Address) -> None:
        machine = self._world.machine_at(address)
        if machine:
            self._world.cut(machine)

    async def close(self) -> None:
        self._is_closed = True
        for machine in self._world.machines():
            self._world.cut(machine)

    # Reaching a guest

    async def _connect(self, address: Address, call: str) -> Machine:
        """Wait until the guest has booted, as a connection's first packets would."""
        await self._world.sleep(call)
        self._world.fail(call)
        while True:
            machine = self._world.machine_at(address)
            if machine:
                self._world.live(machine)
            if machine is None or not machine.is_active:
                raise _unreachable("connection refused")
            self._check(machine, machine.link)
            if machine.boots_until <= self._world.clock.monotonic():
                return machine
            await self._world.until(machine.boots_until)

    async def _reach(self, address: Address, call: str, timeout_s: float) -> Machine:
        """As `_connect`, for a command: a VM whose vCPUs stand still does not answer in time."""
        machine = await self._connect(address, call)
        if not machine.is_running:
            await self._world.until(self._world.clock.monotonic() + timeout_s)
            if not machine.is_running:
                raise _unreachable(f"no answer in {timeout_s:g} s; its vCPUs are stopped")
        return machine

    def _check(self, machine: Machine, link: object) -> None:
        if self._is_closed:
            raise _unreachable("the connection was closed")
        if machine.site.is_lost:
            raise _unreachable("no route to host")
        if machine.is_cut:
            raise _unreachable("connection refused")
        if machine.link is not link:
            raise _unreachable("the connection was cut")

    # Commands

    def _answer(self, machine: Machine, line: str, stdin: bytes) -> tuple[str, str, int]:
        """Standard output, standard error and status of one command."""
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            return "", f"sh: {error}\n", 2
        if not words:
            return "", "", 0
        name, *arguments = words
        match name:
            case "true" | "false":
                return "", "", int(name == "false")
            case "echo":
                return " ".join(arguments) + "\n", "", 0
            case "hostname":
                return f"{machine.vm.name}\n", "", 0
            case "uptime":
                return self._file(machine, "/proc/uptime") or "", "", 0
            case "cat" if not arguments:
                return stdin.decode(errors="replace"), "", 0
            case "cat":
                files = [(path, self._file(machine, path)) for path in arguments]
                missing = "".join(
                    f"cat: {path}: not in this simulated guest\n"
                    for path, text in files
                    if not text
                )
                return "".join(text for _, text in files if text), missing, int(bool(missing))
        return "", f"sh: {name}: this is a simulated agent; nothing runs here\n", _NOT_FOUND

    def _file(self, machine: Machine, path: str) -> str | None:
        life, now = machine.life, self._world.clock.monotonic()
        life.live(now)
        match path:
            case "/run/swarm/counter":
                return f"{int(life.position(now))}\n"
            case "/proc/uptime":
                return f"{life.position(now):.2f} 0.00\n"
            case "/etc/hostname":
                return f"{machine.vm.name}\n"
            case "/etc/machine-id":
                return machine.vm.id.replace("-", "") + "\n"
            case "/run/swarm/task":
                return f"{machine.vm.tag.task}\n"
            case "/run/swarm/events.jsonl":
                events = life.read(0).events
                lines = [json.dumps({"kind": event.kind, "text": event.text}) for event in events]
                return "".join(f"{line:{LINE_BYTES - 1}}\n" for line in lines)
        return None

    def _print(self, machine: Machine, line: str) -> int:
        said, complaint, status = self._answer(machine, line, b"")
        sys.stdout.write(said)
        sys.stderr.write(complaint)
        sys.stdout.flush()
        return status


def _unreachable(why: str) -> GuestUnreachable:
    return GuestUnreachable("The simulated guest is out of reach", why)
