"""What goes by the road to a host: snapshots, libvirt's protocol, SSH to guests; and what a cut
does to it, by a real OpenSSH server.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

import pytest

from swarm_tui.adapters.road import road as roads
from swarm_tui.adapters.road.outpost import RemoteSnapshots
from swarm_tui.adapters.road.road import Road
from swarm_tui.adapters.ssh import SshGuest
from swarm_tui.errors import (
    GuestUnreachable,
    HostDenied,
    HostKeyChanged,
    HostUnreachable,
    SnapshotError,
)
from swarm_tui.lifecycle.ground import in_thread
from swarm_tui.model import Address, AgentId, HostName, Record
from swarm_tui.snapshot import Archive, Draft, Snapshots
from swarm_tui.text import literal

from .follower import hear_some
from .openssh import SSHD, Server
from .sshd import LONG_S, StandInGuest
from .test_road import descendants, told
from .travel import HOST, Travel, open_outpost, until

pytestmark = pytest.mark.skipif(SSHD is None, reason="openssh-server is not installed")

AGENT = AgentId("6f1c7b0e-0000-4000-8000-000000000001")
MAKER = "CH 52.0.0"
DAEMON = b"hello"


async def echo_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Stands in for a libvirt daemon: says what it is told, until it is hung up on."""
    try:
        while chunk := await reader.read(1024):
            writer.write(chunk)
            await writer.drain()
    except ConnectionError:
        return
    finally:
        writer.close()


@asynccontextmanager
async def listening(server: Server) -> AsyncIterator[None]:
    """With a daemon on the host, whose clients are gone at the end."""
    clients: set[asyncio.Task[None]] = set()

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clients.add(asyncio.create_task(echo_all(reader, writer)))

    daemon = await asyncio.start_unix_server(serve, server.folder / "daemon")
    yield
    server.cut()
    daemon.close()
    await asyncio.gather(*clients)


@pytest.fixture
async def server(travel: Travel) -> AsyncIterator[Server]:
    server = travel.start()
    async with listening(server):
        yield server


def socket_of(uri: str) -> Path:
    return Path(uri.partition("socket=")[2])


async def echo(path: Path, said: bytes) -> bytes:
    """What comes back from a socket; empty when it is hung up."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(said)
    try:
        async with asyncio.timeout(LONG_S):
            return await reader.read(len(said))
    finally:
        writer.close()


# libvirt


async def test_libvirt_is_reached_by_a_socket_of_our_own(travel: Travel, server: Server) -> None:
    road = travel.road(server)
    outpost = await open_outpost(road)
    uri = await road.libvirt_uri()
    here = socket_of(uri)
    assert uri == f"qemu+unix:///system?mode=direct&socket={here}"
    assert await echo(here, DAEMON) == DAEMON
    assert stat.S_IMODE(here.parent.stat().st_mode) == 0o700
    assert len(str(here)) < 100
    assert await road.libvirt_uri() == uri
    await outpost.close()
    assert not here.parent.exists()


async def test_a_cut_closes_libvirts_socket_at_once(travel: Travel, server: Server) -> None:
    road = travel.road(server)
    outpost = await open_outpost(road)
    here = socket_of(await road.libvirt_uri())
    reader, writer = await asyncio.open_unix_connection(here)
    writer.write(DAEMON)
    assert await reader.readexactly(len(DAEMON)) == DAEMON
    server.cut()
    async with asyncio.timeout(LONG_S):
        assert await reader.read() == b""
    writer.close()
    with pytest.raises(HostUnreachable):
        await road.libvirt_uri()
    await outpost.open()
    assert await echo(socket_of(await road.libvirt_uri()), DAEMON) == DAEMON


@contextmanager
def served(path: Path) -> Iterator[None]:
    """A socket with somebody behind it; afterwards it is left there with nobody."""
    path.parent.mkdir()
    with closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(str(path))
        listening.listen()
        yield


async def test_sockets_of_processes_that_were_killed_are_removed(
    travel: Travel, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        runtime = Path(folder)
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        with served(runtime / "swarm-tui-road-dead/0"):
            pass
        os.mkdir(runtime / "swarm-tui-road-new")
        with served(runtime / "other-dead/0"):
            pass
        roads = [travel.road(server), travel.road(server)]
        with served(runtime / "swarm-tui-road-live/0"):
            uris = [await carry(road) for road in roads]
            left = set(os.listdir(runtime))
        made = {socket_of(uri).parent.name for uri in uris}
        assert left == {"swarm-tui-road-new", "swarm-tui-road-live", "other-dead"} | made
        assert len(made) == 2
        await travel.end()


async def carry(road: Road) -> str:
    await open_outpost(road)
    return await road.libvirt_uri()


async def test_a_host_without_a_daemon_is_told(travel: Travel) -> None:
    road = travel.road(travel.start())
    await open_outpost(road)
    with pytest.raises(HostUnreachable, match="No libvirt daemon") as caught:
        await road.libvirt_uri()
    assert "systemctl start virtqemud" in caught.value.hint


async def test_a_host_that_forwards_nothing_is_told(travel: Travel) -> None:
    server = travel.start("DisableForwarding yes")
    async with listening(server):
        road = travel.road(server)
        await open_outpost(road)
        with pytest.raises(HostDenied, match="does not lead to") as caught:
            await road.libvirt_uri()
    assert "AllowStreamLocalForwarding" in caught.value.hint


# One connection, for as long as it is held


async def test_all_share_one_connection(travel: Travel, server: Server) -> None:
    road = travel.road(server)
    outposts = await asyncio.gather(*(open_outpost(road) for _ in range(10)))
    assert len(server.sessions()) == 1
    for outpost in outposts[1:]:
        await outpost.close()
    assert await outposts[0].measure({}) == {}
    await outposts[0].close()
    await until(lambda: not server.sessions())


async def test_a_failure_is_told_to_all_who_wait_and_holds_nothing(
    travel: Travel, server: Server
) -> None:
    server.stop()
    road = travel.road(server)
    results = await asyncio.gather(*(open_outpost(road) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [HostUnreachable] * 3
    server.start()
    outpost = await open_outpost(road)
    await outpost.close()
    await until(lambda: not server.sessions())


async def test_who_gives_up_while_it_is_built_leaves_nothing(
    travel: Travel, server: Server
) -> None:
    road = travel.road(server)
    opening = asyncio.create_task(open_outpost(road))
    await until(server.sessions)
    opening.cancel()
    await asyncio.wait({opening})
    await until(lambda: not server.sessions())
    with pytest.raises(HostUnreachable):
        await road.libvirt_uri()


async def test_a_connection_that_only_seems_to_stand_is_made_anew(
    travel: Travel, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roads, "SOUND_S", 0.2)
    outpost = await travel.outpost(server)
    server.hush()
    await outpost.open()
    assert await outpost.measure({}) == {}


async def test_a_guest_gives_up_no_connection_for_others(
    travel: Travel, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that is slow for a moment must not lose a save over that."""
    monkeypatch.setattr(roads, "SOUND_S", 0.0)
    road = travel.road(server)
    outpost = await open_outpost(road)
    here = socket_of(await road.libvirt_uri())
    await road.hold(object())
    assert await outpost.measure({}) == {}
    assert await echo(here, DAEMON) == DAEMON


async def test_an_outpost_that_dies_is_started_again(travel: Travel, server: Server) -> None:
    outpost = await travel.outpost(server)
    programs = descendants(*server.sessions())
    (ours,) = [pid for pid in programs if "memfd_create" in told(pid, "cmdline")]
    os.kill(ours, signal.SIGSTOP)
    asked = asyncio.create_task(outpost.measure({}))
    os.kill(ours, signal.SIGKILL)
    with pytest.raises(HostUnreachable):
        await asked
    await outpost.open()
    assert await outpost.measure({}) == {}


# Snapshots


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    disk = tmp_path / "disk.img"
    disk.write_text("the agent's work")
    return disk


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def append(path: Path, content: bytes) -> None:
    with open(path, "ab") as file:
        file.write(content)


async def plan(snapshots: Archive, disk: Path) -> Draft:
    draft = await in_thread(snapshots.draft, AGENT)
    record = Record(AGENT, literal("ember"), HOST)
    await in_thread(snapshots.plan, draft, record, "<domain/>", MAKER, [disk])
    return draft


async def test_a_snapshot_is_made_and_restored_there(
    travel: Travel, server: Server, disk: Path
) -> None:
    road = travel.road(server, snapshots=travel.folder / "elsewhere")
    await open_outpost(road)
    snapshots: Archive = RemoteSnapshots(road)
    draft = await plan(snapshots, disk)
    assert draft.folder.parent == travel.folder / "elsewhere" / AGENT
    assert await in_thread(snapshots.drafts, AGENT) == [draft]
    assert not await in_thread(snapshots.has_memory, draft)
    draft.memory.write_text("all that it thinks")
    assert not await in_thread(snapshots.is_torn, draft)
    made = await in_thread(snapshots.seal, AGENT, draft)
    assert await in_thread(snapshots.ids, AGENT) == [made.id]
    assert await in_thread(snapshots.read, AGENT, made.id) == made
    assert await in_thread(snapshots.definition, AGENT, made.id) == "<domain/>"
    await in_thread(snapshots.verify, AGENT, made.id, MAKER)
    memory = await in_thread(snapshots.stage, AGENT, made.id)
    assert (read(memory), read(disk)) == ("all that it thinks", "the agent's work")
    await in_thread(snapshots.unstage, AGENT, made.id)
    assert read(disk) == ""
    with pytest.raises(SnapshotError, match="another hypervisor"):
        await in_thread(snapshots.verify, AGENT, made.id, "CH 51.0.0")
    other = await plan(snapshots, disk)
    aside = await in_thread(snapshots.set_aside, other)
    await in_thread(snapshots.put_back, aside)
    await in_thread(snapshots.discard, aside)
    assert await in_thread(snapshots.prune, AGENT, []) == []
    await in_thread(snapshots.remove, AGENT)
    assert await in_thread(snapshots.ids, AGENT) == []


def test_no_call_of_an_archive_is_forgotten() -> None:
    def calls(kind: type) -> set[str]:
        return {name for name, value in vars(kind).items() if callable(value) and name[0] != "_"}

    assert calls(RemoteSnapshots) == calls(Snapshots) == calls(Archive)


async def test_a_seal_that_is_cut_off_is_finished_on_the_host(
    travel: Travel, server: Server, disk: Path
) -> None:
    road = travel.road(server)
    outpost = await open_outpost(road)
    snapshots = RemoteSnapshots(road)
    draft = await plan(snapshots, disk)
    append(draft.memory, os.urandom(1 << 20) * 128)
    sealing = asyncio.create_task(in_thread(snapshots.seal, AGENT, draft))
    await until(lambda: not disk.exists())  # it begins with the disk
    server.cut()
    with pytest.raises(HostUnreachable):
        await sealing
    with pytest.raises(HostUnreachable):
        await in_thread(snapshots.ids, AGENT)
    await outpost.open()
    assert await in_thread(snapshots.ids, AGENT) == [draft.id]
    assert await in_thread(snapshots.drafts, AGENT) == []


# Guests


def via(address: Address, host: HostName = HOST) -> Address:
    return Address(address.host, address.port, address.host_key, address.identity, via=host)


@pytest.fixture
async def road(travel: Travel, server: Server) -> Road:
    return travel.road(server)


@pytest.fixture
async def guest(stand_in: StandInGuest, road: Road) -> AsyncIterator[SshGuest]:
    connected = SshGuest(str(stand_in.run_folder), ways={HOST: road})
    yield connected
    await connected.close()


async def test_a_guest_is_reached_by_way_of_its_host(
    guest: SshGuest, stand_in: StandInGuest, server: Server
) -> None:
    address = via(stand_in.address)
    done = await guest.run(address, "cat; echo $SSH_CONNECTION", stdin=b"hi ", timeout_s=LONG_S)
    assert done.stdout.startswith(b"hi ")
    assert len(server.sessions()) == 1
    stand_in.events.write_text('{"kind":"log","text":"working"}\n')
    stream = guest.events(address, 0)
    batch = await hear_some(stream)
    assert batch.events[0].text == "working"
    await guest.close()
    await until(lambda: not server.sessions())


async def test_a_guest_is_shown_nothing_of_the_users(
    guest: SshGuest, stand_in: StandInGuest, travel: Travel
) -> None:
    other = travel.ssh / "id_ed25519"
    other.write_bytes(stand_in.host_key.export_private_key())
    travel.configure("Host *", f"IdentityFile {other}")
    stand_in.authorized = stand_in.host_key.convert_to_public()
    with pytest.raises(Exception, match="refuses our SSH key"):
        await guest.run(via(stand_in.address), "true", timeout_s=LONG_S)
    assert stand_in.offered == [stand_in.client_key.get_fingerprint()]


async def test_a_guests_key_is_pinned_behind_a_host_too(
    guest: SshGuest, stand_in: StandInGuest, server: Server, travel: Travel
) -> None:
    address = via(stand_in.address)
    pinned = Address(address.host, address.port, server.public_key, address.identity, via=HOST)
    travel.trusted.write_text(f"[{address.host}]:{address.port} {address.host_key}\n")
    with pytest.raises(HostKeyChanged):
        await guest.run(pinned, "true", timeout_s=LONG_S)


async def test_a_guest_that_does_not_answer_is_told_with_its_way(
    guest: SshGuest, stand_in: StandInGuest
) -> None:
    await stand_in.stop()
    with pytest.raises(GuestUnreachable, match="by way of lab"):
        await guest.run(via(stand_in.address), "true", timeout_s=1)


async def test_a_host_out_of_reach_takes_its_guests_along(
    guest: SshGuest, stand_in: StandInGuest, server: Server
) -> None:
    address = via(stand_in.address)
    await guest.run(address, "true", timeout_s=LONG_S)
    server.cut()
    server.stop()
    with pytest.raises(GuestUnreachable, match="out of reach"):
        await guest.run(address, "true", timeout_s=1)
    server.start()
    await guest.run(address, "true", timeout_s=LONG_S)
    with pytest.raises(GuestUnreachable, match="no connection to host nowhere"):
        await guest.run(via(address, HostName("nowhere")), "true", timeout_s=1)


async def test_a_cut_road_ends_a_guests_stream(
    guest: SshGuest, stand_in: StandInGuest, server: Server
) -> None:
    stand_in.events.write_text('{"kind":"log","text":"one"}\n')
    stream = guest.events(via(stand_in.address), 0)
    offset = (await hear_some(stream)).offset
    server.cut()
    with pytest.raises(GuestUnreachable):
        await anext(stream)
    append(stand_in.events, b'{"kind":"log","text":"two"}\n')
    again = guest.events(via(stand_in.address), offset)
    assert [event.text for event in (await hear_some(again)).events] == ["two"]
