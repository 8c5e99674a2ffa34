"""The guests' network, in network namespaces of the tests' own: nothing of the host is touched."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from ipaddress import IPv4Network
from pathlib import Path
from subprocess import DEVNULL
from typing import TypeVar

import pytest

from swarm_tui.errors import SetupError
from swarm_tui.outpost import network
from swarm_tui.outpost.network import Network, ensure_network, kept_network, remove_network
from swarm_tui.outpost.programs import find

pytestmark = pytest.mark.skipif(
    os.getuid() != 0 or not find("ip"), reason="only root may make networks, and only with ip"
)

Answer = TypeVar("Answer")
CLONE_NEWNET = 0x40000000
SHORT_S = 0.5
PORT = 7


class Machine:
    """A network namespace, and a thread within; as good as a machine to the network."""

    def __init__(self) -> None:
        """Raises OSError where namespaces may not be made."""
        self._thread = ThreadPoolExecutor(1)
        self.do(self._enter)
        self.id = self.do(threading.get_native_id)
        self.ip("link set lo up")

    @staticmethod
    def _enter() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "unshare")

    def do(self, act: Callable[[], Answer]) -> Answer:
        return self._thread.submit(act).result()

    def ip(self, words: str) -> str:
        return self.do(lambda: subprocess.check_output(["ip", *words.split()], text=True))

    def listen(self) -> socket.socket:
        return self.do(lambda: socket.create_server(("", PORT)))

    def reaches(self, address: object) -> bool:
        """Whether a server at this address answers."""

        def ask() -> bool:
            with suppress(OSError), socket.create_connection((str(address), PORT), SHORT_S):
                return True
            return False

        return self.do(ask)

    def join(self, other: Machine, own: str, theirs: str) -> None:
        """A cable from this one's plug `own` to the other one's."""
        self.ip(f"link add {own} type veth peer name {theirs} netns {other.id}")
        self.ip(f"link set {own} up")
        other.ip(f"link set {theirs} up")

    def close(self) -> None:
        self._thread.shutdown()


@pytest.fixture
def host() -> Iterator[Machine]:
    try:
        machine = Machine()
    except OSError as error:
        pytest.skip(f"no network namespace can be made: {error}")
    yield machine
    machine.close()


def silent(_: str) -> None:
    pass


def ensure(host: Machine, folder: Path, wanted: str = "auto") -> Network:
    return host.do(lambda: ensure_network(folder, wanted, silent))


def links(host: Machine) -> set[str]:
    return {link["ifname"] for link in json.loads(host.ip("-json link"))}


def rules(host: Machine) -> list[str]:
    """What there is in the packet filters beside empty tables and chains of the system."""
    commands = [["iptables", *table, "-S"] for table in ([], ["-t", "nat"])]
    commands.append(["nft", "list", "tables"])
    installed = [command for command in commands if shutil.which(command[0])]

    def ask() -> list[str]:
        return [
            line
            for command in installed
            for line in subprocess.check_output(command, text=True, stderr=DEVNULL).splitlines()
            if not line.startswith("-P ") and "swarm" in line
        ]

    return host.do(ask)


def choose_filter(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let there be only this one of the two packet filters."""
    if name != "none" and not shutil.which(name):
        pytest.skip(f"{name} is not installed")
    monkeypatch.setattr(
        "swarm_tui.outpost.network.find",
        lambda program: (
            None
            if program.startswith(("iptables", "nft")) and not program.startswith(name)
            else find(program)
        ),
    )


@pytest.mark.parametrize("name", ["iptables", "nft"])
def test_guests_reach_the_world_and_nobody_else(
    host: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    choose_filter(name, monkeypatch)
    with ExitStack() as stack:
        world, first, second = (Machine() for _ in range(3))
        for machine in (world, first, second):
            stack.callback(machine.close)
        host.join(world, "uplink", "eth0")
        host.ip("address add 198.51.100.1/24 dev uplink")
        host.ip("route add default via 198.51.100.2")
        for address in ("198.51.100.2/24", "169.254.169.254/32"):
            world.ip(f"address add {address} dev eth0")

        made = ensure(host, tmp_path)
        assert list(made.limits) == []
        world.ip(f"route add {made.addresses} via 198.51.100.1")
        free = made.guests
        here, there = next(free), next(free)
        for guest, own in ((first, here), (second, there)):
            tap = f"tap{guest.id}"
            host.join(guest, tap, "eth0")
            host.ip(f"link set {tap} master {made.bridge}")
            host.ip(f"link set {tap} type bridge_slave isolated on")
            guest.ip(f"address add {made.interface(own)} dev eth0")
            guest.ip(f"route add default via {made.gateway}")
        servers = [
            stack.enter_context(machine.listen()) for machine in (world, host, first, second)
        ]

        assert host.reaches(here)
        assert host.reaches(there)
        assert first.reaches("198.51.100.2")
        met, (seen, _) = servers[0].accept()
        met.close()
        assert seen == "198.51.100.1"
        for forbidden in (there, made.gateway, "198.51.100.1", "169.254.169.254"):
            assert not first.reaches(forbidden), forbidden
        first.ip(f"route add {there}/32 via {made.gateway}")
        assert not first.reaches(there)
        assert not world.reaches(here)
        first.ip("address add 198.51.100.9/32 dev eth0")
        first.ip(f"route change default via {made.gateway} src 198.51.100.9")
        assert not first.reaches("198.51.100.2")


@pytest.mark.parametrize("name", ["iptables", "nft"])
def test_it_is_made_once_and_taken_away_wholly(
    host: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    choose_filter(name, monkeypatch)
    other = tmp_path / "other"
    other.mkdir()
    neighbour = ensure(host, other)
    before = links(host), rules(host)

    made = ensure(host, tmp_path)
    assert not made.addresses.overlaps(neighbour.addresses)
    assert made.bridge in links(host)
    during = rules(host)
    assert len(during) > len(before[1])
    assert ensure(host, tmp_path, "10.9.8.0/24") == made
    assert rules(host) == during

    host.do(lambda: remove_network(tmp_path))
    assert (links(host), rules(host)) == before
    assert kept_network(tmp_path) is None
    host.do(lambda: remove_network(tmp_path))


def test_after_a_reboot_it_is_made_again_with_the_same_addresses(
    host: Machine, tmp_path: Path
) -> None:
    made = ensure(host, tmp_path)
    fresh = Machine()
    try:
        assert made.bridge not in links(fresh)
        assert ensure(fresh, tmp_path) == made
        assert made.bridge in links(fresh)
        assert str(made.gateway) in fresh.ip(f"-4 address show dev {made.bridge}")
    finally:
        fresh.close()


def test_addresses_that_the_host_has_a_way_to_are_not_taken(host: Machine, tmp_path: Path) -> None:
    host.ip("link add elsewhere type bridge")
    host.ip("link set elsewhere up")
    host.ip("route add 10.0.0.0/9 dev elsewhere")
    host.ip("route add 10.128.0.0/10 dev elsewhere")
    for _ in range(5):
        made = ensure(host, tmp_path)
        assert not made.addresses.overlaps(IPv4Network("10.0.0.0/9"))
        assert not made.addresses.overlaps(IPv4Network("10.128.0.0/10"))
        host.do(lambda: remove_network(tmp_path))
    with pytest.raises(SetupError, match=r"10\.130\.0\.0/24 is taken") as raised:
        ensure(host, tmp_path, "10.130.0.0/24")
    assert "local.network" in raised.value.hint
    assert kept_network(tmp_path) is None
    host.ip("route add 10.192.0.0/10 dev elsewhere")
    with pytest.raises(SetupError, match="No network is free"):
        ensure(host, tmp_path)


def test_without_a_packet_filter_it_says_what_is_missing(
    host: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose_filter("none", monkeypatch)
    (limit,) = ensure(host, tmp_path).limits
    assert "no way out" in limit
    assert "apt-get install" in limit


def test_a_packet_filter_that_fails_is_told_of(
    host: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = tmp_path / "iptables-restore"
    stand_in.write_text("#!/bin/sh\necho 'Table does not exist' >&2; exit 3\n")
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (limit,) = ensure(host, tmp_path).limits
    assert "no way out" in limit
    assert "Table does not exist" in limit


def test_a_host_that_must_not_forward_is_told_of(
    host: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed = tmp_path / "sealed"
    sealed.mkdir()
    monkeypatch.setattr(network, "_FORWARDING", sealed)
    (limit,) = ensure(host, tmp_path).limits
    assert "no way out" in limit
    assert str(sealed) in limit


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ("search lan\nnameserver 127.0.0.53\nnameserver fe80::1%2\n", None),
        ("nameserver\nnameserver ::1\nnameserver 192.0.2.53\n", "192.0.2.53"),
    ],
)
def test_guests_ask_a_name_server_that_answers_them(
    host: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: str, found: str | None
) -> None:
    resolvers = tmp_path / "resolv.conf"
    resolvers.write_text(lines)
    monkeypatch.setattr(network, "_RESOLVERS", (tmp_path / "none", resolvers))
    made = ensure(host, tmp_path)
    assert str(made.nameserver) == str(found)
    assert any("name server" in limit for limit in made.limits) == (found is None)


def test_without_the_program_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swarm_tui.outpost.network.find", lambda _: None)
    with pytest.raises(SetupError) as raised:
        ensure_network(tmp_path, "auto", silent)
    assert raised.value.hint == "apt-get install --no-install-recommends iproute2"


def test_a_record_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "network.json").write_text("{}")
    with pytest.raises(SetupError, match="cannot be read"):
        kept_network(tmp_path)
