"""New agents: the first of its kind, one from what is kept ready, twenty at once; beside virsh.

The bare road is what a person would type: `qemu-img create` of an overlay, `virsh define` of our
own definition under another name, `virsh start`, and waiting until SSH answers. virsh cannot clone
a VM with its memory (it refuses another UUID), so that a cold boot is all that it has.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import forking
from figure import Figure, median, significant, spread
from forking import Forks, measure_forks
from imaging import images
from verbs import at_home, ignore, own

from swarm_tui.bootstrap import ensure_local, local_folder, local_host, make_supervisor, open_local
from swarm_tui.command import Kill, Spawn
from swarm_tui.config import Loaded
from swarm_tui.local.accel import Mode
from swarm_tui.model import Agent
from swarm_tui.profile import PLAIN, Profile
from swarm_tui.supervisor import Supervisor
from swarm_tui.text import literal

CLAIM_S = {Mode.TCG: 1.1, Mode.KVM: 0.5}
TWENTY = 20
TWENTY_S = 12.0
WAIT_S = 120.0
AT_ONCE = (
    "one supervisor, from the first command until the last has answered by SSH and is somebody; "
    "their programs begin then"
)
_METADATA = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)


@dataclass
class Laps:
    """Seconds, each of one agent but for `at_once`."""

    mode: Mode = Mode.TCG
    first: float = 0.0
    claims: list[float] = field(default_factory=list)
    cold: list[float] = field(default_factory=list)
    """Bare."""
    at_once: float = 0.0
    each: list[float] = field(default_factory=list)
    bare_at_once: float = 0.0
    pooled: list[float] = field(default_factory=list)
    """Claimed from a pool."""
    fill: float = 0.0
    """Seconds for one ready agent, made in advance."""
    pooled_at_once: float = 0.0
    forks: Forks = field(default_factory=Forks)


def spawn(folder: Path, is_quick: bool) -> Iterator[Figure]:
    """New agents to SSH-ready: first, warm, twenty at once, forks; beside bare virsh and qemu-img.

    And the image of an OCI layout.
    """
    rounds, count = (4, 6) if is_quick else (15, TWENTY)
    with at_home() as loaded:
        laps = asyncio.run(_measure(loaded, rounds, count))
        yield from _figures(laps, count)
        yield from forking.figures(laps.forks)
        yield from images(loaded.paths.cache, folder)


def _figures(laps: Laps, count: int) -> Iterator[Figure]:
    bare = {"bare cold boot, s": spread(laps.cold)}
    yield Figure(
        "the first agent of its kind: booted, kept and started",
        laps.first,
        "s",
        f"no template was there; 256 MiB, {laps.mode}",
        detail=bare,
    )
    yield Figure(
        "warm claim to SSH-ready, p50",
        median(laps.claims),
        "s",
        "the verb spawn: disk copied, memory taken over, its own keys and name, a command by SSH",
        CLAIM_S[laps.mode],
        detail={"s": spread(laps.claims)} | bare,
    )
    yield Figure(
        "a warm claim over a bare cold boot",
        median(laps.claims) / median(laps.cold),
        "×",
        "medians; qemu-img create, virsh define, virsh start, until its SSH banner",
    )
    yield Figure(
        "claim from a pool to SSH-ready, p50",
        median(laps.pooled),
        "s",
        "as above, of a profile whose agents are made in advance",
        CLAIM_S[laps.mode],
        detail={"s": spread(laps.pooled), "making one ready, s": significant(laps.fill)},
    )
    yield Figure(
        f"{count} agents at once, from a pool",
        laps.pooled_at_once,
        "s",
        AT_ONCE,
        TWENTY_S if count == TWENTY else None,
    )
    yield Figure(
        f"{count} agents at once",
        laps.at_once,
        "s",
        AT_ONCE,
        TWENTY_S if count == TWENTY else None,
        detail={
            "each, s": spread(laps.each),
            "the same by bare virsh, s": significant(laps.bare_at_once),
        },
    )


async def _measure(loaded: Loaded, rounds: int, count: int) -> Laps:
    laps = Laps()
    uri = await asyncio.to_thread(ensure_local, loaded)
    async with open_local(loaded) as spawner:
        try:
            await asyncio.to_thread(_warm_cache, loaded)
            begun = time.perf_counter()
            laps.mode = (await spawner.prepare(ignore)).accel
            async with make_supervisor(loaded, is_following=False) as supervisor:
                await supervisor.connected(WAIT_S)
                await _spawn(supervisor, loaded)
                laps.first = time.perf_counter() - begun
                (model,) = own(supervisor, loaded)
                bare = Bare(uri, model, local_folder(loaded.paths) / "bare")
                for _ in range(rounds):
                    laps.claims.append(await _spawn(supervisor, loaded))
                    await _end_all(supervisor, loaded, but=model)
                    laps.cold += await asyncio.to_thread(bare.boot, 1)
                laps.forks = await measure_forks(supervisor, loaded, uri, model, rounds)
                await _end_all(supervisor, loaded, but=model)
                pool = Profile(literal("bench"), ready=count)
                for _ in range(-(-rounds // count)):
                    begun = time.perf_counter()
                    made = await supervisor.stocks.fill(local_host(loaded), pool, ignore)
                    laps.fill = (time.perf_counter() - begun) / max(1, made)
                    for _ in range(min(count, rounds)):
                        laps.pooled.append(await _spawn(supervisor, loaded, pool))
                        await _end_all(supervisor, loaded, but=model)
                await supervisor.stocks.fill(local_host(loaded), pool, ignore)
                begun = time.perf_counter()
                await asyncio.gather(*(_spawn(supervisor, loaded, pool) for _ in range(count)))
                laps.pooled_at_once = time.perf_counter() - begun
                await _end_all(supervisor, loaded, but=model)
                await supervisor.stocks.drain(local_host(loaded), pool)
                begun = time.perf_counter()
                laps.each = await asyncio.gather(
                    *(_spawn(supervisor, loaded) for _ in range(count))
                )
                laps.at_once = time.perf_counter() - begun
                await _end_all(supervisor, loaded, but=model)
                begun = time.perf_counter()
                await asyncio.to_thread(bare.boot, count)
                laps.bare_at_once = time.perf_counter() - begun
        finally:
            await spawner.down()
    return laps


def _warm_cache(loaded: Loaded) -> None:
    """The image is no part of any of this: its build is another measure."""
    from swarm_tui.local.image import build_image

    build_image(loaded.paths.cache, lambda step: None)


async def _spawn(supervisor: Supervisor, loaded: Loaded, profile: Profile = PLAIN) -> float:
    begun = time.perf_counter()
    await supervisor.spawn(Spawn(local_host(loaded), profile=profile))
    return time.perf_counter() - begun


async def _end_all(supervisor: Supervisor, loaded: Loaded, but: Agent) -> None:
    await supervisor.refresh()
    ended = [agent.id for agent in own(supervisor, loaded) if agent.id != but.id]
    await asyncio.gather(*(supervisor.do(Kill(agent)) for agent in ended))


class Bare:
    """VMs like one of ours, by virsh and qemu-img alone."""

    def __init__(self, uri: str, model: Agent, folder: Path) -> None:
        assert model.vm
        assert model.vm.disks
        assert model.tag.address
        self._virsh = ["virsh", "-q", "-c", uri]
        self._model, self._disk = model, model.vm.disks[0]
        self._port = model.tag.address.port
        self._folder = folder
        self._definition = self._run([*self._virsh, "dumpxml", "--inactive", model.id])
        told = self._run(["qemu-img", "info", "-U", "--output=json", str(self._disk)])
        facts = json.loads(told)
        self._base = [facts["full-backing-filename"], facts.get("backing-filename-format", "raw")]

    def boot(self, count: int) -> Sequence[float]:
        """So many at once, until the last one answers; the seconds of each. Then they are ended."""
        self._folder.mkdir(mode=0o711)
        names = [f"bare-{number}" for number in range(count)]
        try:
            with ThreadPoolExecutor(count) as pool:
                return list(pool.map(self._boot, names))
        finally:
            for name in names:
                for verb in ("destroy", "undefine"):
                    subprocess.run([*self._virsh, verb, name], capture_output=True, check=False)
            shutil.rmtree(self._folder)

    def _boot(self, name: str) -> float:
        begun = time.perf_counter()
        disk, port = self._folder / f"{name}.qcow2", _free_port()
        base, kind = self._base
        self._run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", kind, "-b", base, str(disk)])
        definition = _METADATA.sub("", self._definition)
        for was, now in (
            (str(self._disk), str(disk)),
            (f"<name>{self._model.name}</name>", f"<name>{name}</name>"),
            (f":{self._port}-:22", f":{port}-:22"),
            (str(self._disk.with_name("console.log")), str(disk.with_suffix(".log"))),
            (self._model.id, str(uuid.uuid4())),  # the last: it is in the paths
        ):
            definition = definition.replace(was, now)
        xml = disk.with_suffix(".xml")
        xml.write_text(definition)
        self._run([*self._virsh, "define", str(xml)])
        self._run([*self._virsh, "start", name])
        _wait_for_banner(port)
        return time.perf_counter() - begun

    def _run(self, command: Sequence[str]) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{command}: {done.stderr}")
        return done.stdout


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert isinstance(port, int)
    return port


def _wait_for_banner(port: int) -> None:
    end = time.perf_counter() + WAIT_S
    while time.perf_counter() < end:
        try:
            with socket.create_connection(("127.0.0.1", port), 2) as link:
                if link.recv(4) == b"SSH-":
                    return
        except OSError:
            pass
        time.sleep(0.02)
    raise TimeoutError("the bare VM did not answer")
