"""A visit to one host: libvirt's answer, what lies beside it, and a proof where one is allowed."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

from swarm_tui.doctor import ch, probe
from swarm_tui.doctor.finding import Finding, Ground, failed, ok, warn
from swarm_tui.doctor.machine import images
from swarm_tui.errors import SwarmError
from swarm_tui.model import Capabilities, Hint, Vm
from swarm_tui.ports import Hypervisor, Outpost
from swarm_tui.premises import Survey
from swarm_tui.snapshot import Archive

_NEEDS: Final = ("save", "restore")
_MIB: Final = 1 << 20


async def visit(ground: Ground, hypervisor: Hypervisor) -> list[Finding]:
    name = f"host {hypervisor.host}"
    findings: list[Finding] = []
    capabilities: Capabilities | None = None
    vms: Sequence[Vm] = ()
    try:
        try:
            capabilities = await hypervisor.open(_ignore)
            vms = await hypervisor.list()
            findings += await _answer(name, hypervisor, capabilities)
        except SwarmError as error:
            findings.append(failed(name, error))
        if _has_outpost(hypervisor.uri):
            seen = await _look_beside(ground, hypervisor, capabilities, vms)
            findings += [finding for finding in seen if not _is_told(finding, findings)]
    finally:
        await hypervisor.close()
    return findings


def _ignore(_hint: Hint) -> None:
    """Nothing is watched."""


async def _answer(name: str, hypervisor: Hypervisor, capabilities: Capabilities) -> list[Finding]:
    asked = time.perf_counter()
    await hypervisor.facts()
    answered_ms = (time.perf_counter() - asked) * 1000
    answer = ok(
        name,
        f"{hypervisor.uri} answers in {answered_ms:.1f} ms: {capabilities.driver} "
        f"{capabilities.version}, libvirt {capabilities.library or 'n/a'}",
    )
    return [answer, *_lacks(name, capabilities.missing)]


def _lacks(name: str, missing: Mapping[str, str]) -> Iterator[Finding]:
    """What the host cannot do; only what agents need is worth a warning."""
    others: dict[str, list[str]] = {}
    for what, why in missing.items():
        if what in _NEEDS:
            yield warn(name, f"cannot {what}", why, "Agents there cannot be paused.")
        else:
            others.setdefault(why, []).append(what)
    for why, lacking in others.items():
        yield ok(f"{name}: lacks", f"{', '.join(lacking)} ({why})")


def _has_outpost(uri: str) -> bool:
    """Nothing of ours goes to a host of QEMU's that is this one, or that is reached without SSH."""
    scheme = urlsplit(uri).scheme
    return scheme.endswith("+ssh") or scheme == "ch"


def _is_told(finding: Finding, before: Sequence[Finding]) -> bool:
    """A host that is out of reach is so for all who ask."""
    return any((finding.what, finding.why) == (other.what, other.why) for other in before)


async def _look_beside(
    ground: Ground, hypervisor: Hypervisor, capabilities: Capabilities | None, vms: Sequence[Vm]
) -> list[Finding]:
    from swarm_tui.bootstrap import make_outpost

    name = f"host {hypervisor.host}"
    outpost, archive = make_outpost(ground.loaded, hypervisor.host)
    try:
        async with _opened(outpost):
            parts = urlsplit(hypervisor.uri)
            named = parse_qs(parts.query).get("socket", [None])[0]
            survey = await outpost.survey(
                parts.path == "/session",
                Path(named) if named else None,
                [disk for vm in vms for disk in vm.disks or ()],
            )
            host = ch.Ground(name, survey, capabilities)
            findings = [*ch.way(host)]
            is_ch = parts.scheme.partition("+")[0] == "ch"
            findings += [*(ch.examine(host) if is_ch else ())]
            folder = _snapshots(ground, hypervisor, survey)
            findings.append(_room(name, folder, await outpost.room(folder), vms))
            if is_ch and capabilities and ground.is_probing:
                is_here = not parts.scheme.endswith("+ssh")
                built = images(ground.loaded.paths.cache) if is_here else []
                image = built[-1] if built else survey.image
                findings.append(await _prove(hypervisor, outpost, archive, image))
    except SwarmError as error:
        return [failed(f"{name}: outpost", error)]
    return findings


@asynccontextmanager
async def _opened(outpost: Outpost) -> AsyncIterator[None]:
    try:
        await outpost.open()
        yield
    finally:
        await outpost.close()


def _snapshots(ground: Ground, hypervisor: Hypervisor, survey: Survey) -> Path:
    """Where they are kept of the host's agents, on that host."""
    if not urlsplit(hypervisor.uri).scheme.endswith("+ssh"):
        return ground.loaded.config.snapshots.folder
    entry = ground.loaded.config.hosts.get(hypervisor.host)
    return (entry.snapshots if entry else None) or survey.folder / "snapshots"


def _room(name: str, folder: Path, free: int, vms: Sequence[Vm]) -> Finding:
    needed = sum(vm.memory_bytes or 0 for vm in vms)
    told = f"{free // _MIB} MiB free at {folder}"
    if free >= needed:
        return ok(f"{name}: room", told)
    return warn(
        f"{name}: room",
        f"{told}, and its agents' memory is {needed // _MIB} MiB",
        "A pause to a snapshot writes the agent's memory to disk.",
        "Free some space there.",
    )


async def _prove(
    hypervisor: Hypervisor, outpost: Outpost, archive: Archive, image: Path | None
) -> Finding:
    name = f"host {hypervisor.host}: probe"
    own = probe.Boot(image / "vmlinux", image / "initrd.img") if image else None
    boot = await probe.find_boot(hypervisor, own)
    if boot is None:
        return warn(
            name,
            "no guest image is known there",
            "The proof boots what an agent of that host boots, or its local swarm's image.",
            "`swarm-tui demo` there builds one.",
        )
    return await probe.prove(name, hypervisor, boot, outpost, archive)
