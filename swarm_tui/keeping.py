"""`gc`: what could go, and why; then it goes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from swarm_tui import spool
from swarm_tui.acting import CONNECT_S
from swarm_tui.amount import render_age, render_bytes
from swarm_tui.audit import Audit
from swarm_tui.bootstrap import (
    local_folder,
    make_supervisor,
    open_audit,
    open_catalogue,
)
from swarm_tui.catalogue import Catalogue
from swarm_tui.command import Discard
from swarm_tui.config import Loaded
from swarm_tui.errors import Refused, SwarmError
from swarm_tui.fact import GuestHeard
from swarm_tui.leftover import SETTLED_S, Leftover, measure, newest
from swarm_tui.lifespan import due, may_end
from swarm_tui.model import AgentId, HostName, HostState, Snapshot, Verb
from swarm_tui.profile import Profile
from swarm_tui.profiles import load as load_profiles
from swarm_tui.report import error_object, write_json, write_table
from swarm_tui.retention import Keeping, gone_back_to, holding, keeping, plan
from swarm_tui.snapshot import Archive
from swarm_tui.supervisor import Supervisor
from swarm_tui.text import Safe, join, literal, sanitize

_DAY_S: Final = 86_400.0
_SPOOL_BYTES: Final = 64 << 10
_WORD: Final = "gc"


@dataclass(frozen=True, slots=True)
class View:
    """What is known when it is decided what could go."""

    supervisor: Supervisor
    catalogue: Catalogue
    alive: frozenset[AgentId]
    """Agents that a host or a record knows of, or on which somebody acts."""
    local: Path
    """The folder of the local swarm; it may not exist."""
    profiles: Path
    """The folder of a person's own profiles."""
    cache: Path
    """The folder in which images are."""
    saved: Path
    """The folder of this machine's snapshots."""
    rules: Keeping
    """Of snapshots."""
    is_whole: bool
    """All configured hosts were asked: who is on none of them is nowhere."""


async def gc(loaded: Loaded, connect: str | None, *, is_dry: bool, is_json: bool) -> int:
    """Tell what would go and why, or have it go; 0 when all of that went well."""
    async with _looking(loaded, connect) as view:
        stays = await _hindered(view)
        found = await find(view)
        outcomes: list[SwarmError | None] = []
        if not is_dry:
            audit = open_audit(loaded)
            for one in found:
                outcomes.append(await _remove(audit, one))
                if not is_json:
                    print(_line(one, outcomes[-1]), flush=True)
        unasked = [
            host.name for host in view.supervisor.store.hosts() if host.state is not HostState.UP
        ]
    total = sum(one.size_bytes or 0 for one in found)
    if is_json:
        items = [
            {
                "kind": one.kind,
                "name": one.name,
                "reason": one.reason,
                "place": one.place,
                "size_bytes": one.size_bytes,
                "error": error_object(outcome) if outcome else None,
                "is_gone": not is_dry and outcome is None,
            }
            for one, outcome in zip(found, outcomes or [None] * len(found), strict=True)
        ]
        write_json(
            {"items": items, "stays": stays, "size_bytes": total, "hosts_not_asked": unasked}
        )
    elif is_dry:
        rows = [_row(one) for one in found]
        if rows:
            write_table(("KIND", "NAME", "SIZE", "WHERE", "WHY"), rows)
        print(f"{len(found)} would go, {render_bytes(total)}" if found else "nothing would go")
    elif not found:
        print("nothing to remove")
    if not is_json:
        for told in stays:
            print(f"stays: {told['name']}: {told['why']}")
        for host in unasked:
            print(f"not asked: host {host}; what may be of it stays")
    return 1 if any(outcomes) else 0


@asynccontextmanager
async def _looking(loaded: Loaded, connect: str | None) -> AsyncIterator[View]:
    """A supervisor that has read every host that answers, and what guests said until now."""
    async with make_supervisor(loaded, connect=connect, is_following=False) as supervisor:
        await supervisor.connected(CONNECT_S)
        catalogue = open_catalogue(loaded)
        try:
            update = await asyncio.to_thread(catalogue.update, 0)
            for agent in supervisor.store.agents():
                folder = catalogue.folder(agent.id)
                batch, _ = await asyncio.to_thread(spool.read, folder, _SPOOL_BYTES)
                if batch.events:
                    supervisor.store.apply(GuestHeard(agent.id, batch))
            hosts = supervisor.store.hosts()
            alive = {agent.id for agent in supervisor.store.agents()}
            alive |= update.records.keys() | update.claimants.keys() | update.problems.keys()
            is_whole = all(host.state is HostState.UP for host in hosts) and not connect
            yield View(
                supervisor,
                catalogue,
                frozenset(alive),
                local_folder(loaded.paths),
                loaded.paths.profiles,
                loaded.paths.cache,
                loaded.config.snapshots.folder,
                keeping(loaded.config.snapshots),
                is_whole,
            )
        finally:
            catalogue.close()


async def _hindered(view: View) -> Sequence[Mapping[str, str]]:
    """Whom a rule would end or pause, and why it does not."""
    now = time.time()
    found = ((agent, due(agent, now)) for agent in view.supervisor.store.agents())
    return [
        {"name": agent.name, "host": agent.host, "why": f"{one.told}, but {one.hindrance}"}
        for agent, one in found
        if one and one.hindrance and may_end(agent)
    ]


async def _remove(audit: Audit, one: Leftover) -> SwarmError | None:
    """Do it; verbs on agents are in the audit log by themselves."""
    if one.kind in ("agent", "snapshot"):
        try:
            await one.remove()
        except SwarmError as error:
            return error
        return None

    async def act() -> Safe:
        await one.remove()
        return join((literal("removed"), one.place))

    try:
        await audit.around(
            _WORD,
            act,
            agent=None,
            host=HostName(one.place if one.kind == "record" else ""),
            detail=f"{one.kind} {one.name}: {one.reason}",
            is_unknown=lambda error: False,
            on_fault=lambda error: None,
            on_end=lambda entry: None,
        )
    except SwarmError as error:
        return error
    return None


# What could go


async def find(view: View) -> Sequence[Leftover]:
    """All that nobody needs any more, for all that is known. Raises SwarmError."""
    return [one for look in _FINDERS for one in await look(view)]


async def _agents(view: View) -> Sequence[Leftover]:
    """Those that a rule ends or pauses now."""
    rules = view.supervisor.rules
    return [
        Leftover(
            "agent",
            agent.name,
            join((one.told, literal(f"its rule says {one.ending}")), "; "),
            sanitize(agent.host),
            await asyncio.to_thread(_disk_bytes, agent.vm.disks if agent.vm else None),
            lambda agent=agent, one=one: rules.carry_out(agent, one),  # type: ignore[misc]
        )
        for agent, one in (await rules.find()).items()
    ]


async def _snapshots(view: View) -> Sequence[Leftover]:
    """Those that are kept here and that the rules of retention let go; nothing that is held."""
    archive, store = view.supervisor.snapshots, view.supervisor.store
    records = await asyncio.to_thread(view.catalogue.records)
    held = holding(lambda: records)
    there = {
        agent: await asyncio.to_thread(_read_all, archive, agent.id) for agent in store.agents()
    }
    total = sum(one.size_bytes for snapshots in there.values() for one in snapshots)
    return [
        Leftover(
            "snapshot",
            join((agent.name, literal(one.snapshot.id))),
            one.reason,
            sanitize(agent.host),
            one.snapshot.size_bytes,
            lambda agent=agent, one=one: view.supervisor.do(  # type: ignore[misc]
                Discard(agent.id, one.snapshot.id)
            ),
        )
        for agent, snapshots in there.items()
        for one in plan(
            snapshots,
            view.rules,
            {**gone_back_to(agent.record), **held(agent.id)},
            time.time(),
            total,
        )
    ]


def _read_all(archive: Archive, agent: AgentId) -> Sequence[Snapshot]:
    return [archive.read(agent, snapshot) for snapshot in archive.ids(agent)]


async def _records(view: View) -> Sequence[Leftover]:
    """Of agents that their host, which was asked, has not any more, and that are saved nowhere."""
    store, catalogue = view.supervisor.store, view.catalogue
    up = {host.name for host in store.hosts() if host.state is HostState.UP}
    there = {agent.id for agent in store.agents()}
    found = []
    for record in await asyncio.to_thread(catalogue.records, lambda error: None):
        is_held = record.saved_in or record.saving_in or record.verb or record.id in there
        if is_held or record.host not in up or record.birth.is_pinned:
            continue
        if await asyncio.to_thread(view.supervisor.snapshots.ids, record.id):
            continue  # something of it is on the disk
        folder = catalogue.folder(record.id)
        if time.time() - await asyncio.to_thread(newest, folder) < SETTLED_S:
            continue

        async def remove(agent: AgentId = record.id) -> None:
            await asyncio.to_thread(_forget, catalogue, agent)

        found.append(
            Leftover(
                "record",
                record.name,
                literal("its host has no such VM any more, and nothing of it is saved"),
                sanitize(record.host),
                await asyncio.to_thread(measure, folder),
                remove,
            )
        )
    return found


def _forget(catalogue: Catalogue, agent: AgentId) -> None:
    with catalogue.claim(agent, Verb.KILL) as claim:
        record = claim.record(agent)
        if record and (record.saved_in or record.saving_in or record.verb):
            raise Refused(f"{record.name} was acted on just now", "", "Its record stays.")
        claim.remove(agent)


async def _logs(view: View) -> Sequence[Leftover]:
    """Of agents that are nowhere any more."""
    return await _folders(
        view, view.catalogue.root, "log", "of an agent that no host has any more", _drop_folder
    )


async def _reviews(view: View) -> Sequence[Leftover]:
    """Objects that were taken from agents that are nowhere any more; verdicts stay."""
    shelf = view.supervisor.terms.shelf

    async def remove(path: Path) -> None:
        await asyncio.to_thread(shelf.remove, AgentId(path.parent.name))

    root = shelf.folder(AgentId("x")).parent
    return await _folders(
        view,
        root,
        "review",
        "objects of an agent that no host has any more; its verdicts stay",
        remove,
        part="quarantine.git",
    )


async def _folders(
    view: View,
    root: Path,
    kind: str,
    why: str,
    remove: Callable[[Path], Awaitable[None]],
    part: str = "",
) -> Sequence[Leftover]:
    if not view.is_whole:
        return []  # it may be on a host that does not answer
    found = []
    for folder in await asyncio.to_thread(_children, root):
        path = folder / part if part else folder
        age_s = time.time() - await asyncio.to_thread(newest, path)
        if AgentId(folder.name) in view.alive or not path.exists() or age_s < _DAY_S:
            continue

        async def check_and_remove(path: Path = path, agent: str = folder.name) -> None:
            if view.supervisor.store.agent(AgentId(agent)):
                raise Refused("It is needed by now", str(path))
            await remove(path)

        found.append(
            Leftover(
                kind,
                sanitize(folder.name),
                literal(f"{why}; untouched for {render_age(age_s)}"),
                sanitize(str(path)),
                await asyncio.to_thread(measure, path),
                check_and_remove,
            )
        )
    return found


async def _drop_folder(path: Path) -> None:
    from swarm_tui import durable

    with durable.storage("remove what is left over"):
        await asyncio.to_thread(durable.remove_folder, path)


async def _spawns(view: View) -> Sequence[Leftover]:
    """Folders of VMs that were never defined, because their spawn was killed."""
    snapshots = view.supervisor.snapshots

    async def remove(path: Path) -> None:
        if await asyncio.to_thread(snapshots.ids, AgentId(path.name)):
            raise Refused("Something of it is saved", str(path))
        await _drop_folder(path)

    return [
        one
        for one in await _folders(
            view, view.local / "agents", "spawn", "files of a spawn that was cut off", remove
        )
        if not await asyncio.to_thread(snapshots.ids, AgentId(one.name))
    ]


async def _pools(view: View) -> Sequence[Leftover]:
    """Agents made in advance of profiles that are no more; of one that cannot be read they stay."""
    profiles = await asyncio.to_thread(load_profiles, view.profiles)
    names = {entry.name for entry in profiles.entries}
    found = []
    for host, stocks in (await view.supervisor.stocks.read()).items():
        for stock in stocks:
            if stock.profile in names or not (stock.ready or stock.stale or stock.size_bytes):
                continue

            async def remove(host: HostName = host, name: Safe = stock.profile) -> None:
                await view.supervisor.stocks.drain(host, Profile(name))

            count = stock.ready + stock.stale
            found.append(
                Leftover(
                    "pool",
                    stock.profile,
                    literal(f"{count} made in advance, and there is no such profile any more"),
                    sanitize(host),
                    stock.size_bytes,
                    remove,
                )
            )
    return found


async def _images(view: View) -> Sequence[Leftover]:
    """Foreign images whose name a newer build bears, and that nothing runs on; named ones stay."""
    from swarm_tui.local.oci.shelf import find_users, list_images, list_swarms, remove_image

    if not view.is_whole:
        return []  # what runs on it may be on a host that does not answer
    profiles = await asyncio.to_thread(load_profiles, view.profiles)
    named = [profile.image for profile in profiles.usable if profile.image]

    def users() -> Mapping[str, Sequence[str]]:
        return find_users(view.cache, view.local.parent, view.saved)

    used, swarms = await asyncio.to_thread(users), list_swarms(view.local.parent)
    found = []
    for entry in await asyncio.to_thread(list_images, view.cache):
        digest = entry.image.digest
        is_meant = any(digest.startswith(name) for name in named)
        is_new = time.time() - entry.made < SETTLED_S
        if entry.names or digest in used or is_meant or is_new:
            continue

        async def remove(digest: str = digest) -> None:
            await asyncio.to_thread(
                lambda: remove_image(view.cache, digest, users, lambda step: None, swarms)
            )

        found.append(
            Leftover(
                "image",
                entry.title,
                literal("it has no name any more, and nothing runs on it"),
                sanitize(str(entry.image.folder)),
                entry.size,
                remove,
            )
        )
    return found


async def _locks(view: View) -> Sequence[Leftover]:
    """Lock files of processes that died, and files that a cut write left."""
    root = view.catalogue.root.parent
    found = []
    for path in await asyncio.to_thread(_temporary, root):

        async def remove(path: Path = path) -> None:
            await asyncio.to_thread(path.unlink, missing_ok=True)

        found.append(
            Leftover(
                "file",
                sanitize(path.name),
                literal("a write that was cut off, and never took its place"),
                sanitize(str(path)),
                measure(path),
                remove,
            )
        )
    return found


def _temporary(root: Path) -> Sequence[Path]:
    """Names as `durable.write` and `durable.copy` give them, old, of processes that are gone."""
    found = []
    for path in (*root.glob(".*.[0-9]*"), *root.glob("*/.*.[0-9]*"), *root.glob("*/*/.*.[0-9]*")):
        pid = path.name.rpartition(".")[2]
        is_old = time.time() - newest(path) > SETTLED_S
        if path.is_file() and pid.isdigit() and is_old and not Path("/proc", pid).exists():
            found.append(path)
    return found


def _children(root: Path) -> Sequence[Path]:
    try:
        return sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] != ".")
    except FileNotFoundError:
        return []


def _disk_bytes(disks: Sequence[Path] | None) -> int | None:
    return None if disks is None else sum(measure(disk) for disk in disks)


Finder = Callable[[View], Awaitable[Sequence[Leftover]]]
_FINDERS: Final[tuple[Finder, ...]] = (
    _agents,
    _snapshots,
    _records,
    _spawns,
    _pools,
    _images,
    _logs,
    _reviews,
    _locks,
)


def _row(one: Leftover) -> Sequence[str]:
    return (one.kind, one.name, render_bytes(one.size_bytes), one.place, one.reason)


def _line(one: Leftover, error: SwarmError | None) -> str:
    how = f"stays: {error}" if error else f"gone; {one.reason}"
    return f"{one.kind} {one.name} ({render_bytes(one.size_bytes)}): {how}"
