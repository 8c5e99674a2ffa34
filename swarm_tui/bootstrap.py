"""The only file that names concrete adapters: it joins them to a supervisor, as configured.

Imports of adapters stand inside the functions: each is needed by some commands only, and a
command must not pay for what it does not use.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from swarm_tui import database
from swarm_tui.cadence import SILENT, Cadence, cadence
from swarm_tui.catalogue import Catalogue
from swarm_tui.config import Loaded
from swarm_tui.database import Database
from swarm_tui.errors import DeadlineExceeded, HostError, SetupError, SwarmError
from swarm_tui.inventory import Inventory, Kept
from swarm_tui.model import Agent, HostName
from swarm_tui.paths import Paths, locate
from swarm_tui.person import login
from swarm_tui.ports import (
    Guest,
    Hypervisor,
    Outpost,
    Signer,
    Spawner,
)
from swarm_tui.settings import PRINCIPAL, HostEntry, is_far
from swarm_tui.spool import Spool
from swarm_tui.text import Safe, literal, sanitize

if TYPE_CHECKING:
    from swarm_tui.adapters.road.road import Road
    from swarm_tui.adapters.simulated import SimulatedSwarm
    from swarm_tui.audit import Audit
    from swarm_tui.lifecycle import Terms
    from swarm_tui.local.spawner import LocalSpawner
    from swarm_tui.profile import Profile
    from swarm_tui.review.shelf import Shelf
    from swarm_tui.snapshot import Archive, Snapshots
    from swarm_tui.supervisor import Supervisor

LOCAL: Final = (HostName("local"), HostName("local-swarm"))
"""Names for the host on which the local swarm lives, where none is configured for it: the first
that is free."""
CONNECTED: Final = HostName("connected")
"""Name of the host that --connect names."""


def open_database(loaded: Loaded) -> Database:
    """The shared store; nothing is opened before its first use."""
    return database.open_database(loaded.config.store.url)


def open_catalogue(loaded: Loaded, store: Database | None = None) -> Catalogue:
    return Catalogue(store or open_database(loaded), loaded.paths.catalogue)


def open_logs(loaded: Loaded) -> Spool:
    return Spool(loaded.paths.catalogue, loaded.config.logs.quota_mib << 20)


def open_snapshots(loaded: Loaded) -> Snapshots:
    from swarm_tui.snapshot import Snapshots

    return Snapshots(loaded.config.snapshots.folder)


def open_shelf(loaded: Loaded, store: Database | None = None) -> Shelf:
    from swarm_tui.review.shelf import Shelf

    return Shelf(loaded.paths.reviews, store or open_database(loaded))


def open_audit(loaded: Loaded, store: Database | None = None) -> Audit:
    from swarm_tui.audit import Audit

    return Audit(loaded.paths.audit_log, store or open_database(loaded))


def make_guest(
    loaded: Loaded | None = None,
    connect: str | None = None,
    *,
    roads: Mapping[HostName, Road] | None = None,
) -> Guest:
    """The way into guests: directly, or by `roads` (None: those to all hosts that there are)."""
    from swarm_tui.adapters.ssh import SshGuest

    if roads is None:
        roads = _make_roads(loaded, _uris(loaded, connect)) if loaded else {}
    return SshGuest(ways=roads)


def make_signer(loaded: Loaded) -> Signer:
    """The reviewer's key as configured; where none is to be used, it still checks signatures."""
    from swarm_tui.adapters.choice import ChosenSigner, make_key
    from swarm_tui.adapters.signature import SshSigner

    key = loaded.config.review.key
    if key == loaded.paths.reviewer_key and not loaded.paths.reviewer_key.exists():
        make_key(loaded.paths.reviewer_key)
    if isinstance(key, Path) or key == "agent":
        return SshSigner(key, os.environ)
    return ChosenSigner(os.environ, loaded.paths.reviewer_key)


def make_terms(loaded: Loaded, store: Database | None = None) -> Terms:
    """On which terms reviews are made."""
    from swarm_tui.adapters.late import LateSigner
    from swarm_tui.lifecycle import Terms

    review = loaded.config.review
    return Terms(
        shelf=open_shelf(loaded, store),
        reviewer=sanitize(review.reviewer or _reviewer()),
        signer=None if review.key == "none" else LateSigner(partial(make_signer, loaded)),
        allowed_signers=review.allowed_signers,
        pack_bytes=review.pack_mib << 20,
    )


def _reviewer() -> str:
    """Under which name a person signs who has not said it: as git knows them."""
    command = ["git", "config", "--global", "--get", "user.email"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return _principal()
    email = done.stdout.strip()
    return email if PRINCIPAL.accepts(email) else _principal()


def _principal() -> str:
    principal = f"{login()}@{socket.gethostname()}"
    return principal if PRINCIPAL.accepts(principal) else "reviewer"


def make_hypervisor(host: HostName, uri: str, road: Road | None = None) -> Hypervisor:
    """`road` leads to a host far away."""
    if uri.startswith(("ch:", "ch+")):
        from swarm_tui.adapters.ch import ChHypervisor

        if road:
            from swarm_tui.adapters.road.outpost import RemoteOutpost

            outpost: Outpost = RemoteOutpost(road)
            return ChHypervisor(host, uri, outpost, resolve=road.libvirt_uri, lead=road.lead)
        from swarm_tui.outpost.local import LocalOutpost

        # One for all that speak to this machine's daemon, whatever their other folders.
        return ChHypervisor(host, uri, LocalOutpost(locate().data / "ledger"))
    from swarm_tui.adapters.libvirt import LibvirtHypervisor

    return LibvirtHypervisor(host, uri, way=road)


def _make_roads(loaded: Loaded, uris: Mapping[HostName, str]) -> Mapping[HostName, Road]:
    """Our own connections to those hosts that are far away."""
    far = {name: uri for name, uri in uris.items() if is_far(uri)}
    if not far:
        return {}
    from swarm_tui.adapters.road.road import Road

    roads = {}
    for name, uri in far.items():
        entry = loaded.config.hosts.get(name)
        roads[name] = Road(
            name,
            uri,
            loaded.paths.known_hosts,
            snapshots=entry.snapshots if entry else None,
            guest_identity=entry.guest_identity if entry else None,
        )
    return roads


async def greet(loaded: Loaded, host: HostEntry) -> Safe:
    """The fingerprint of the SSH key that a host shows; raises as `road.greeting.greet`."""
    from swarm_tui.adapters.road import greeting

    return await greeting.greet(host.name, host.connection, loaded.paths.known_hosts)


def make_outpost(
    loaded: Loaded, host: HostName, connect: str | None = None
) -> tuple[Outpost, Archive]:
    """What we have on a host beside libvirt, by a connection of its own."""
    road = _make_roads(loaded, _uris(loaded, connect)).get(host)
    if road is None:
        from swarm_tui.outpost.local import LocalOutpost

        return LocalOutpost(locate().data / "ledger"), open_snapshots(loaded)
    from swarm_tui.adapters.road.outpost import RemoteOutpost, RemoteSnapshots

    return RemoteOutpost(road), RemoteSnapshots(road)


async def read_snapshots(
    loaded: Loaded, agent: Agent, connect: str | None = None
) -> tuple[Sequence[Kept], SwarmError | None]:
    """The agent's snapshots, oldest first, and why the host could not be asked for them.

    Raises StoreError.
    """
    inventory = Inventory(open_database(loaded))
    outpost, archive = make_outpost(loaded, agent.host, connect)
    try:
        await outpost.open()
        return await asyncio.to_thread(inventory.look, archive, agent.id, agent.host)
    except (HostError, DeadlineExceeded) as error:
        return await asyncio.to_thread(inventory.known, agent.id), error
    finally:
        await outpost.close()


def make_hypervisors(
    loaded: Loaded,
    connect: str | None = None,
    roads: Mapping[HostName, Road] | None = None,
) -> Sequence[Hypervisor]:
    """One for each host: `connect` alone when given, else those configured and the local one.

    `roads` lead to those far away; None: each has one of its own.
    """
    uris = _uris(loaded, connect)
    if roads is None:
        roads = _make_roads(loaded, uris)
    return [make_hypervisor(name, uri, roads.get(name)) for name, uri in uris.items()]


def _uris(loaded: Loaded, connect: str | None = None) -> Mapping[HostName, str]:
    if connect:
        return {CONNECTED: connect}
    uris = {host.name: host.connection for host in loaded.config.hosts.values()}
    if local := local_uri(loaded.paths):
        uris[local_host(loaded)] = local
    return uris


def make_supervisor(
    loaded: Loaded, *, connect: str | None = None, is_following: bool = True
) -> Supervisor:
    """A supervisor over real hosts, not started yet."""
    from swarm_tui import profiles
    from swarm_tui.adapters.late import LateGuest
    from swarm_tui.local.spawner import LocalSpawner
    from swarm_tui.retention import keeping
    from swarm_tui.review.depot import Depot
    from swarm_tui.site import Site, Timing
    from swarm_tui.stocks import Stocks
    from swarm_tui.supervisor import Supervisor

    loaded.paths.make()
    _raise_file_limit()
    roads = _make_roads(loaded, _uris(loaded, connect))
    guest = LateGuest(partial(make_guest, roads=roads))
    store = open_database(loaded)
    sites = [
        Site(
            hypervisor,
            _make_spawner(loaded, hypervisor, guest, roads.get(hypervisor.host)),
            _repository(loaded, hypervisor),
            snapshots=_remote_snapshots(roads.get(hypervisor.host)),
            unspawning=_unspawning(hypervisor),
        )
        for hypervisor in make_hypervisors(loaded, connect, roads)
    ]
    depot = Depot(loaded.paths.mirrors, loaded.paths.cache / "depot")
    stockers = {
        site.hypervisor.host: site.spawner
        for site in sites
        if isinstance(site.spawner, LocalSpawner)
    }
    return Supervisor(
        sites,
        guest,
        open_catalogue(loaded, store),
        open_snapshots(loaded),
        open_audit(loaded, store),
        make_terms(loaded, store),
        keeping=keeping(loaded.config.snapshots),
        cadence=cadence(loaded.config.snapshots),
        reserve=loaded.config.supervisor.reserve_mib << 20,
        timing=Timing(poll_s=loaded.config.supervisor.poll_s),
        is_following=is_following,
        logs=open_logs(loaded) if is_following else None,
        depot=depot,
        stocks=Stocks(stockers, lambda: profiles.load(loaded.paths.profiles).usable, depot),
    )


def _remote_snapshots(road: Road | None) -> Archive | None:
    if road is None:
        return None
    from swarm_tui.adapters.road.outpost import RemoteSnapshots

    return RemoteSnapshots(road)


def _repository(loaded: Loaded, hypervisor: Hypervisor) -> Path | None:
    """The owner's repository of a host's agents; a local swarm has one of its own."""
    host = loaded.config.hosts.get(hypervisor.host)
    configured = (host.repository if host else None) or loaded.config.review.repository
    if configured is None and (
        hypervisor.uri == local_uri(loaded.paths) or _makes_agents_there(hypervisor)
    ):
        from swarm_tui.local.project import NAME

        return local_folder(loaded.paths) / NAME
    return configured


def _raise_file_limit() -> None:
    """Each guest takes a socket and a lock: let this process open as many files as it may."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def make_simulated(
    agents: int,
    home: Path,
    guest: Guest | None = None,
    logs: Spool | None = None,
    wanted: Callable[[], Sequence[Profile]] = tuple,
    rule: Cadence = SILENT,
) -> tuple[Supervisor, SimulatedSwarm]:
    """A supervisor over a simulated swarm; what it keeps is in `home`, which the caller removes.

    Its verdicts are signed by nobody. With a `guest` its agents are reached in another way. Of the
    `wanted` profiles some are pretended to be ready; `rule`: by which checkpoints are made.
    """
    from swarm_tui.adapters.simulated import SimulatedSwarm
    from swarm_tui.audit import Audit
    from swarm_tui.lifecycle import Terms
    from swarm_tui.review.shelf import Shelf
    from swarm_tui.site import Site
    from swarm_tui.snapshot import Snapshots
    from swarm_tui.stocks import Stocks
    from swarm_tui.supervisor import Supervisor

    swarm = SimulatedSwarm(agents, folder=home)
    hypervisor, spawner = swarm.hypervisor(), swarm.spawner()
    store = database.open_database(f"sqlite://{home / 'store.db'}")
    supervisor = Supervisor(
        [Site(hypervisor, spawner, swarm.repository)],
        guest or swarm.guest,
        Catalogue(store, home / "catalogue"),
        Snapshots(home / "snapshots"),
        Audit(home / "audit.jsonl", store),
        Terms(
            Shelf(home / "reviews", store),
            literal("nobody"),
            None,
            home / "allowed_signers",
            1 << 20,
        ),
        cadence=rule,
        logs=logs,
        stocks=Stocks({hypervisor.host: spawner}, wanted),
    )
    return supervisor, swarm


# The local swarm


def local_folder(paths: Paths) -> Path:
    return paths.data / "local"


def local_uri(paths: Paths) -> str | None:
    """The libvirt connection of the local swarm; None while it has never been brought up."""
    try:
        return (local_folder(paths) / "uri").read_text().strip() or None
    except FileNotFoundError:
        return None


def local_host(loaded: Loaded) -> HostName:
    """The host on which the local swarm lives: one that is configured, or one of our own."""
    hosts = loaded.config.hosts
    uri = local_uri(loaded.paths)
    for host in hosts.values():
        if uri and _is_same_daemon(host.connection, uri):
            return host.name
    return next(name for name in LOCAL if name not in hosts)


def _is_same_daemon(uri: str, other: str) -> bool:
    """How a socket is looked for makes no difference to what is found."""
    return uri.replace("?mode=direct", "") == other.replace("?mode=direct", "")


def ensure_local(loaded: Loaded, say: Callable[[str], None] = lambda step: None) -> str:
    """See that a libvirt daemon runs for the local swarm, and remember how to reach it.

    Blocks. Raises SetupError.
    """
    from swarm_tui import durable
    from swarm_tui.local.daemon import ensure_daemon
    from swarm_tui.local.driver import Driver, choose_driver, driver_of
    from swarm_tui.local.virtchd import ensure_virtchd
    from swarm_tui.outpost.network import ensure_network, kept_network
    from swarm_tui.paths import make_traversable

    paths, local = loaded.paths, loaded.config.local
    paths.make()
    folder = make_traversable(local_folder(paths))
    known = local_uri(paths)
    named = local.virtchd if isinstance(local.virtchd, Path) else None
    choice = choose_driver(
        local.driver,
        driver_of(known) if known and any((folder / "agents").glob("*")) else None,
        virtchd=named,
        accel=local.accel,
        cache=paths.cache,
        say=say,
    )
    say(choice.reason)
    if choice.driver is Driver.CH:
        uri = ensure_virtchd(folder, named)
        if kept_network(folder):  # saved agents need it, and it may have gone with a reboot
            ensure_network(folder, local.network, say)
    else:
        uri = ensure_daemon(folder)
    if uri != known:
        with durable.storage("remember the local swarm"):
            durable.write(folder / "uri", f"{uri}\n".encode())
    return uri


def _makes_agents_there(hypervisor: Hypervisor) -> bool:
    return hypervisor.uri.startswith(("qemu+ssh:", "ch+ssh:"))


def _unspawning(hypervisor: Hypervisor) -> str:
    """Why no agents can be made on a host for which there is no spawner."""
    return "only the local swarm and hosts behind SSH get what agents are made of"


def _make_spawner(
    loaded: Loaded, hypervisor: Hypervisor, guest: Guest, road: Road | None
) -> Spawner | None:
    if hypervisor.uri == local_uri(loaded.paths):
        return _make_local_spawner(loaded, hypervisor, guest)
    if road is None or not _makes_agents_there(hypervisor):
        return None
    from swarm_tui.adapters.road.workshop import RemoteWorkshop
    from swarm_tui.local.home import Home
    from swarm_tui.local.spawner import FarSpawner

    paths, local, entry = loaded.paths, loaded.config.local, loaded.config.hosts.get(road.host)
    home = Home(
        local_folder(paths),
        hypervisor,
        guest,
        local.memory_mib,
        via=road.host,
        own_identity=entry.guest_identity if entry else None,
    )
    return FarSpawner(home, paths.cache, local, RemoteWorkshop(road))


def _make_local_spawner(loaded: Loaded, hypervisor: Hypervisor, guest: Guest) -> LocalSpawner:
    from swarm_tui.local.spawner import LocalSpawner

    paths, local = loaded.paths, loaded.config.local
    return LocalSpawner(local_folder(paths), paths.cache, local, hypervisor, guest)


@asynccontextmanager
async def open_local(loaded: Loaded) -> AsyncIterator[LocalSpawner]:
    """The local swarm by itself, without a supervisor. Raises HostUnreachable, SetupError."""
    uri = local_uri(loaded.paths)
    if uri is None:
        raise SetupError(
            "There is no local swarm", "None was ever brought up here.", "swarm-tui demo makes one."
        )
    hypervisor = make_hypervisor(local_host(loaded), uri)
    guest = make_guest()
    try:
        await hypervisor.open(lambda hint: None)
        yield _make_local_spawner(loaded, hypervisor, guest)
    finally:
        await guest.close()
        await hypervisor.close()
