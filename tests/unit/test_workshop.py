"""The files of VMs on their host: sent, copied, checked; as an outpost far away takes the calls."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swarm_tui.adapters.road.workshop import RemoteWorkshop
from swarm_tui.errors import HostError, SetupError, SwarmError
from swarm_tui.outpost.desk import NAMES, Desk
from swarm_tui.outpost.wire import decode_result, encode_arguments
from swarm_tui.outpost.workshop import PIECE, Workbench, send

MIB = 1 << 20


class Wire:
    """What a road does, without one: each call goes to an outpost's desk and back as JSON."""

    def __init__(self, data: Path) -> None:
        self._desk = Desk(data, data / "snapshots")
        self.sent = 0

    def ask_from_thread(self, call: Callable[..., Any], arguments: Any, _: float) -> Any:
        raw = json.dumps(encode_arguments(arguments))
        self.sent += len(raw)
        answer = json.loads(json.dumps(self._desk.answer(NAMES[call], json.loads(raw))))
        return decode_result(call, answer)


@pytest.fixture
def wire(tmp_path: Path) -> Wire:
    return Wire(tmp_path / "far")


@pytest.fixture
def shop(wire: Wire) -> RemoteWorkshop:
    return RemoteWorkshop(wire)  # type: ignore[arg-type]


def make_sparse(path: Path) -> Path:
    with open(path, "wb") as file:
        file.truncate(64 * MIB)
        file.seek(5 * MIB + 17)
        file.write(os.urandom(2 * MIB))
        file.seek(40 * MIB)
        file.write(b"text " * 100_000)
    return path


def test_a_disk_arrives_whole_and_its_holes_are_not_sent(
    tmp_path: Path, wire: Wire, shop: RemoteWorkshop
) -> None:
    disk = make_sparse(tmp_path / "base.raw")
    target = shop.root() / "images/abc/base.raw"
    told: list[int] = []
    send(shop, disk, target, told.append)
    assert target.read_bytes() == disk.read_bytes()
    assert target.stat().st_blocks * 512 < 4 * MIB
    assert wire.sent < 4 * MIB
    assert told == sorted(told)
    assert [path.name for path in target.parent.iterdir()] == ["base.raw"]
    before = wire.sent
    send(shop, disk, target)
    assert wire.sent - before < 1000, "what is there is not sent again"


def test_what_was_damaged_on_its_way_is_no_image(tmp_path: Path, shop: RemoteWorkshop) -> None:
    disk = make_sparse(tmp_path / "base.raw")
    target = shop.root() / "images/abc/base.raw"
    put, count = shop.put, 0

    def lose(partial: Path, offset: int, piece: str) -> None:
        nonlocal count
        count += 1
        if count != 2:
            put(partial, offset, piece)

    shop.put = lose  # type: ignore[method-assign]
    with pytest.raises(HostError, match="damaged on its way"):
        send(shop, disk, target)
    assert count > 2
    assert not list(target.parent.iterdir())
    with pytest.raises(HostError, match="damaged on its way"):
        put(shop.begin(target, MIB), 0, "no base64")


def test_nothing_outside_is_touched(tmp_path: Path, shop: RemoteWorkshop) -> None:
    root = shop.root()
    own = tmp_path / "own"
    own.write_text("mine")
    calls: list[Callable[[], object]] = [
        lambda: shop.remove(own),
        lambda: shop.remove(root / "agents/../../../own"),
        lambda: shop.remove(root),
        lambda: shop.write(own, "yours"),
        lambda: shop.copy(own, root / "agents/x"),
        lambda: shop.begin(own, 5),
    ]
    for call in calls:
        with pytest.raises(SwarmError, match="no file of the workshop"):
            call()
    assert own.read_text() == "mine"


def test_an_agents_files_are_made_and_go(shop: RemoteWorkshop) -> None:
    folder = shop.root() / "agents/0b5e"
    shop.make_folder(folder)
    shop.write(folder / "initrd", "first ")
    shop.extend(folder / "initrd", folder / "more", "c2Vjb25k")
    assert (folder / "more").read_text() == "first second"
    assert (folder / "more").stat().st_mode & 0o777 == 0o600
    shop.copy(folder / "more", folder / "copy")
    assert (folder / "copy").read_text() == "first second"
    shop.remove(folder)
    shop.remove(folder)
    assert not shop.has(folder)
    assert shop.room() > PIECE


def test_a_port_is_free_there(shop: RemoteWorkshop) -> None:
    port = shop.free_port([])
    assert shop.is_free(port)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert not shop.is_free(port)


def test_without_its_tools_it_says_what_to_install(
    shop: RemoteWorkshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shop.root() / "agents/0b5e"
    shop.make_folder(folder)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("shutil.which", lambda name, path="": None)
    with pytest.raises(SwarmError, match="qemu-img") as raised:
        shop.overlay(folder / "base", folder / "disk")
    assert "qemu-utils" in raised.value.hint


def test_addresses_are_given_once_and_again_when_their_agents_are_gone(
    shop: RemoteWorkshop,
) -> None:
    root = shop.root()
    facts = {"bridge": "swarm-test", "addresses": "10.140.0.0/29"}
    (root / "network.json").write_text(json.dumps(facts))
    agents = [root / f"agents/{number}" for number in range(6)]
    taken = [shop.take_address(folder, ["10.140.0.3"]) for folder in agents[:4]]
    assert taken == ["10.140.0.2", "10.140.0.4", "10.140.0.5", "10.140.0.6"]
    with pytest.raises(SetupError, match="No address is free"):
        shop.take_address(agents[4], ["10.140.0.3"])
    assert not shop.has(agents[4]), "nothing is left of who got none"
    shop.remove(agents[1])
    assert shop.take_address(agents[5], ["10.140.0.3"]) == "10.140.0.4"


def test_both_ends_have_the_same_calls() -> None:
    for name in (name for name in vars(RemoteWorkshop) if not name.startswith("_")):
        assert NAMES[getattr(Workbench, name)] == f"Workbench.{name}"
