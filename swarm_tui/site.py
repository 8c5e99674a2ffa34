"""One host: what works on it, and what watches it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from swarm_tui.catalogue import Claim
from swarm_tui.errors import SwarmError
from swarm_tui.inventory import Inventory, Kept, indexed
from swarm_tui.lifecycle import Timeline, fenced
from swarm_tui.lifecycle.ground import work_in
from swarm_tui.model import AgentId, Capabilities, HostName, Record
from swarm_tui.ports import Forker, Guest, Hypervisor, Spawner
from swarm_tui.retention import Retention
from swarm_tui.snapshot import Archive
from swarm_tui.watch import HostWatch
from swarm_tui.watch.task import Apply

THREADS: Final = 4
"""Of each host for its agents' files, made when they are needed."""


@dataclass(frozen=True, slots=True)
class Timing:
    poll_s: float = 1.0
    relist_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Site:
    """One host with what works on it."""

    hypervisor: Hypervisor
    spawner: Spawner | None = None
    repository: Path | None = None
    """The owner's repository, in which its agents' approved work lands."""
    guest: Guest | None = None
    """How to reach this host's guests, where it is not the supervisor's common way."""
    snapshots: Archive | None = None
    """Where this host's snapshots are kept, where it is not the supervisor's common place."""
    unspawning: str = "it has no image to make agents of"
    """Why it has no spawner, where it has none; for people."""


@dataclass(frozen=True, slots=True)
class Place:
    """A site that is watched, with threads of its own: none of it waits for another host."""

    site: Site
    watch: HostWatch
    guest: Guest
    threads: ThreadPoolExecutor

    @classmethod
    def of(
        cls,
        site: Site,
        guest: Guest,
        apply: Apply,
        before_list: Callable[[], Awaitable[None]],
        timing: Timing,
    ) -> Place:
        """`guest` is the common way to guests; for the others see `HostWatch`."""
        watch = HostWatch(
            site.hypervisor,
            apply,
            poll_s=timing.poll_s,
            relist_s=timing.relist_s,
            before_list=before_list,
            missing=_missing(site),
        )
        threads = ThreadPoolExecutor(THREADS, f"files of {site.hypervisor.host}")
        return cls(site, watch, site.guest or guest, threads)

    def lifecycle(
        self,
        claim: Claim,
        snapshots: Archive,
        inventory: Inventory,
        retention: Retention,
        on_record: Callable[[Record], None],
    ) -> Timeline | None:
        """The sequences for one agent while it is ours; None while it was never connected.

        `snapshots` is the common place, `inventory` what everybody knows of them. The present
        task's files are worked on in our threads from here on.
        """
        if self.watch.capabilities is None:
            return None
        self.work_here()
        check, spawner = claim.check, self.site.spawner
        return Timeline(
            hypervisor=fenced(self.site.hypervisor, check),
            capabilities=self.watch.capabilities,
            guest=fenced(self.guest, check),
            catalogue=claim,
            snapshots=fenced(
                indexed(self.site.snapshots or snapshots, inventory, self.site.hypervisor.host),
                check,
            ),
            spawner=fenced(spawner, check) if spawner else None,
            retention=retention,
            on_record=on_record,
        )

    async def past(
        self, agent: AgentId, snapshots: Archive, inventory: Inventory
    ) -> tuple[Sequence[Kept], SwarmError | None]:
        """As `Inventory.look`, in our threads; `snapshots` is the common place."""
        archive, host = self.site.snapshots or snapshots, self.site.hypervisor.host
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.threads, inventory.look, archive, agent, host)

    def work_here(self) -> None:
        """The present task's files are worked on in our threads from here on."""
        work_in(self.threads)

    def close(self) -> None:
        """Begin nothing more; what hangs is not waited for."""
        self.threads.shutdown(wait=False, cancel_futures=True)


def _missing(site: Site) -> dict[str, str]:
    missing = {} if site.spawner else {"spawn": site.unspawning}
    if not isinstance(site.spawner, Forker):
        missing["fork"] = "agents can only be forked where swarm-tui makes them, on this machine"
    elif site.spawner.unforking:
        missing["fork"] = site.spawner.unforking
    return missing


def spawning(places: Mapping[HostName, Place]) -> Capabilities | None:
    """Of a host that can make agents; if none can, the reason of each."""
    reasons = []
    for name, place in places.items():
        if able := place.watch.capabilities:
            if "spawn" not in able.missing:
                return able
            reasons.append(f"{name}: {able.missing['spawn']}")
    if not reasons:
        return None
    return Capabilities("", "", missing={"spawn": f"no host here can ({'; '.join(reasons)})"})
