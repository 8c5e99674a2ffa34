"""What pause, resume and fork cost over the bare libvirt calls, on real VMs of a swarm of its own.

The bare calls are made on the same VM by libvirt-python, in turn with ours. Both the port's call
and the whole verb are set against them: the verb also freezes, digests, syncs, waits for the guest
and thaws it.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import libvirt
from figure import Figure, median, significant

from swarm_tui.adapters.libvirt import LibvirtHypervisor
from swarm_tui.bootstrap import ensure_local, local_folder, local_host, make_supervisor, open_local
from swarm_tui.command import Command, Kill, Pause, Resume, Spawn
from swarm_tui.config import Loaded, load
from swarm_tui.local.accel import Mode
from swarm_tui.local.daemon import stop_daemon
from swarm_tui.local.machine import Machine, rewrite
from swarm_tui.model import Agent, AgentId, Link, State
from swarm_tui.supervisor import Supervisor
from swarm_tui.text import Safe

T = TypeVar("T")

OVERHEAD_PERCENT = 10.0
FORK_S = {Mode.TCG: 1.1, Mode.KVM: 0.5}
WAIT_S = 60.0
QUIET_S = 1.0
"""Between two measures, for what a verb leaves to be done later."""

_BRANCH = re.compile(r"swarm/\S+")
"""Another one in each round."""
_TIMED = ("save", "restore", "fork")
"""Methods of the port that are timed inside of the verbs."""


class Stopwatch:
    """Seconds of things, each done several times."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}
        self.steps: dict[str, dict[str, list[float]]] = {}
        """Of a verb, by what it told of its progress."""

    @contextmanager
    def lap(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self._add(self.seconds, name, begun)

    async def do(self, supervisor: Supervisor, command: Command) -> None:
        """Time a verb, its steps, and the port's calls in it."""
        steps = self.steps.setdefault(command.verb, {})
        step, begun = "", time.perf_counter()

        def progress(told: Safe, _fraction: float | None) -> None:
            nonlocal step, begun
            told_plainly = _BRANCH.sub("a branch", told)
            if told_plainly != step:
                if step:
                    self._add(steps, step, begun)
                step, begun = told_plainly, time.perf_counter()

        with self._timing_the_port(), self.lap(command.verb):
            await supervisor.do(command, progress)
        self._add(steps, step, begun)

    def median(self, name: str) -> float:
        return median(self.seconds[name])

    def medians(self, *names: str) -> dict[str, object]:
        return {
            f"{name}, s": {
                "median": significant(self.median(name)),
                "least": significant(min(self.seconds[name])),
            }
            for name in names
        }

    def median_steps(self, verb: str) -> dict[str, float]:
        return {step: significant(median(seconds)) for step, seconds in self.steps[verb].items()}

    @contextmanager
    def _timing_the_port(self) -> Iterator[None]:
        originals = {name: getattr(LibvirtHypervisor, name) for name in _TIMED}
        for name, method in originals.items():
            setattr(LibvirtHypervisor, name, self._wrap(name, method))
        try:
            yield
        finally:
            for name, method in originals.items():
                setattr(LibvirtHypervisor, name, method)

    def _wrap(self, name: str, method: Callable[..., Awaitable[T]]) -> Callable[..., Awaitable[T]]:
        @functools.wraps(method)
        async def timed(*arguments: Any) -> T:
            with self.lap(name):
                return await method(*arguments)

        return timed

    def _add(self, table: dict[str, list[float]], name: str, begun: float) -> None:
        table.setdefault(name, []).append(time.perf_counter() - begun)


def verbs(_folder: Path, is_quick: bool) -> Iterator[Figure]:
    """Pause, resume and fork of real VMs, against the same libvirt calls made bare."""
    watch = Stopwatch()
    with at_home() as loaded:
        mode = asyncio.run(_measure(loaded, watch, 4 if is_quick else 10))
    yield from _figures(watch, mode)


@contextmanager
def at_home() -> Iterator[Loaded]:
    """A swarm of this measure's own; only the image is the same as of any other."""
    cache, before = load().paths.cache, os.environ.get("SWARM_TUI_HOME")
    # Below /var/tmp: QEMU may run as a user of its own, who cannot pass a private folder.
    home = Path(tempfile.mkdtemp(prefix="swarm-tui-bench-", dir="/var/tmp"))
    home.chmod(0o711)
    os.environ["SWARM_TUI_HOME"] = str(home)
    try:
        loaded = load(overrides={"paths.cache": str(cache)})
        try:
            yield loaded
        finally:
            stop_daemon(local_folder(loaded.paths))
    finally:
        if before is None:
            del os.environ["SWARM_TUI_HOME"]
        else:
            os.environ["SWARM_TUI_HOME"] = before
        shutil.rmtree(home)


def _figures(watch: Stopwatch, mode: Mode) -> Iterator[Figure]:
    for verb, call in (("pause", "save"), ("resume", "restore"), ("spawn", "fork")):
        bare = watch.median(f"bare {call}")
        count = len(watch.seconds[f"bare {call}"])
        how = (
            f"median of {count} on one VM of 256 MiB ({mode}), in turn with the bare libvirt "
            "call; a daemon's round trips and the page cache are the same for both"
        )
        yield Figure(
            f"{call}: our port's call over the bare one",
            (watch.median(call) / bare - 1) * 100,
            "%",
            how,
            OVERHEAD_PERCENT,
            detail=watch.medians(call, f"bare {call}"),
        )
        yield Figure(
            f"{verb}: the whole verb over the bare {call}",
            (watch.median(verb) / bare - 1) * 100,
            "%",
            f"{how}; the verb also does what its steps name",
            OVERHEAD_PERCENT,
            detail=watch.medians(verb, f"bare {call}") | {"steps, s": watch.median_steps(verb)},
        )
    yield Figure(
        "fork to SSH-ready",
        watch.median("spawn"),
        "s",
        "the verb spawn on a warm template of 256 MiB: disk copied, forked, given its own keys "
        "and name, and a command run by SSH with its new host key",
        FORK_S[mode],
        detail=watch.medians(
            "bare fork", "its checkpoint's removal", "bare fork until its SSH banner"
        ),
    )


async def _measure(loaded: Loaded, watch: Stopwatch, rounds: int) -> Mode:
    uri = await asyncio.to_thread(ensure_local, loaded)
    bare = await asyncio.to_thread(libvirt.open, uri)
    async with open_local(loaded) as spawner:
        try:
            mode = (await spawner.prepare(ignore)).accel
            async with make_supervisor(loaded) as supervisor:
                await supervisor.connected(WAIT_S)
                await supervisor.do(Spawn(local_host(loaded)))
                (agent,) = own(supervisor, loaded)
                for _ in range(rounds):
                    await _pause_and_resume(supervisor, agent.id, watch)
                    await asyncio.to_thread(save_bare, bare, agent, loaded, watch)
                    await until_running(supervisor, agent.id)
                    await watch.do(supervisor, Spawn(local_host(loaded)))
                    for spawned in own(supervisor, loaded):
                        if spawned.id != agent.id:
                            await supervisor.do(Kill(spawned.id))
                    await asyncio.sleep(QUIET_S)
                    await asyncio.to_thread(_fork_bare, bare, loaded, watch)
        finally:
            await spawner.down()
            await asyncio.to_thread(bare.close)
    return mode


async def _pause_and_resume(supervisor: Supervisor, agent: AgentId, watch: Stopwatch) -> None:
    await until_running(supervisor, agent)
    await watch.do(supervisor, Pause(agent))
    await asyncio.sleep(QUIET_S)
    await watch.do(supervisor, Resume(agent))
    await until_running(supervisor, agent)


def own(supervisor: Supervisor, loaded: Loaded) -> Sequence[Agent]:
    """The agents of this measure: those of others may live on the same host."""
    folder = local_folder(loaded.paths)
    return [
        agent
        for agent in supervisor.store.agents()
        if agent.vm and any(disk.is_relative_to(folder) for disk in agent.vm.disks or ())
    ]


def save_bare(connection: Any, agent: Agent, loaded: Loaded, watch: Stopwatch) -> None:
    folder = loaded.config.snapshots.folder
    target = folder / "bare"  # beside our own snapshots: the same file system
    domain = connection.lookupByUUIDString(agent.id)
    with watch.lap("bare save"):
        domain.save(str(target))
    time.sleep(QUIET_S)
    with watch.lap("bare restore"):
        connection.restoreFlags(str(target), None, libvirt.VIR_DOMAIN_SAVE_RUNNING)
    target.unlink()
    time.sleep(QUIET_S)


def _fork_bare(connection: Any, loaded: Loaded, watch: Stopwatch) -> None:
    """The libvirt calls of a fork, its files and texts prepared before."""
    (facts,) = (local_folder(loaded.paths) / "templates").glob("*/template.json")
    template = facts.parent
    known = json.loads(facts.read_text())
    source = Machine(AgentId(known["id"]), known["name"], template, known["port"])
    folder = local_folder(loaded.paths) / "bare-fork"
    folder.mkdir(mode=0o711)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    target = Machine(AgentId(str(uuid.uuid4())), "bare-fork", folder, port)
    copy = ["cp", "--reflink=auto", "--sparse=always", str(source.disk), str(target.disk)]
    subprocess.run(copy, check=True)
    tag = "<bench xmlns='urn:swarm-tui:bench'/>"  # none of ours: our supervisor leaves it alone
    definition, checkpoint = (
        rewrite((template / name).read_text(), source, target, tag)
        for name in ("definition.xml", "checkpoint.xml")
    )
    with watch.lap("bare fork until its SSH banner"):
        with watch.lap("bare fork"):
            domain = connection.defineXML(definition)
            redefine = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE
            snapshot = domain.snapshotCreateXML(checkpoint, redefine)
            domain.revertToSnapshot(snapshot, libvirt.VIR_DOMAIN_SNAPSHOT_REVERT_RUNNING)
            with watch.lap("its checkpoint's removal"):
                snapshot.delete()
        _wait_for_banner(port)
    domain.destroy()
    domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA)
    shutil.rmtree(folder)
    time.sleep(QUIET_S)


def _wait_for_banner(port: int) -> None:
    end = time.perf_counter() + WAIT_S
    while time.perf_counter() < end:
        try:
            with socket.create_connection(("127.0.0.1", port), 2) as link:
                if link.recv(4) == b"SSH-":
                    return
        except OSError:
            pass
        time.sleep(0.01)
    raise TimeoutError("the fork did not answer")


async def until_running(supervisor: Supervisor, agent: AgentId) -> None:
    """Until it runs and the supervisor's own link is up, so that no reconnect is measured."""
    async with asyncio.timeout(WAIT_S):
        while True:
            now = supervisor.store.agent(agent)
            if now and now.state in (State.RUNNING, State.ASKING) and now.link is Link.UP:
                return
            await asyncio.sleep(0.05)


def ignore(step: Safe, fraction: float | None) -> None:
    pass
