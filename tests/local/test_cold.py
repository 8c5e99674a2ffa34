"""Agents under Cloud Hypervisor before they boot: places, files, definitions."""

from __future__ import annotations

import shutil
import stat
import subprocess
import uuid
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from swarm_tui.adapters.domain import parse_definition
from swarm_tui.adapters.libvirt import LibvirtHypervisor
from swarm_tui.adapters.ssh import SshGuest
from swarm_tui.errors import SetupError
from swarm_tui.local.cold import ColdBoots, render
from swarm_tui.local.home import Home, Mould
from swarm_tui.local.image import Image
from swarm_tui.local.machine import Machine
from swarm_tui.model import Address, AgentId, HostName, Power, Tag, Vm
from swarm_tui.outpost.network import Network
from swarm_tui.tag import render_tag
from swarm_tui.text import literal

NETWORK = Network("swarm-0123abcd", IPv4Network("10.9.8.0/29"), IPv4Address("192.0.2.53"))
KEY = "ssh-ed25519 AAAA test"


@pytest.fixture
def home(tmp_path: Path, image: Image) -> Home:
    made = Home(tmp_path, LibvirtHypervisor(HostName("none"), "test:///x"), SshGuest())
    made.make_folders()
    return made


@pytest.fixture
def boots(home: Home, monkeypatch: pytest.MonkeyPatch) -> ColdBoots:
    """As they are once the network is there."""
    ready = ColdBoots(home, "auto")
    monkeypatch.setattr(ready, "_made", NETWORK)
    return ready


def new_id() -> AgentId:
    return AgentId(str(uuid.uuid4()))


def test_each_agent_has_an_address_of_its_own(boots: ColdBoots) -> None:
    saved = Address("10.9.8.3", 22, KEY, Path("/key"))
    vms = [Vm(new_id(), literal("saved"), HostName("h"), Power.OFF, tag=Tag(address=saved))]
    seats = [boots.seat(new_id(), f"agent-{number}", vms, ()) for number in range(4)]
    assert [seat.host for seat in seats] == ["10.9.8.2", "10.9.8.4", "10.9.8.5", "10.9.8.6"]
    assert {seat.port for seat in seats} == {22}
    with pytest.raises(SetupError) as raised:
        boots.seat(new_id(), "one-too-many", vms, ())
    assert "10.9.8.0/29" in raised.value.detail
    assert "local.network" in raised.value.hint
    shutil.rmtree(seats[1].folder)
    assert boots.seat(new_id(), "another", vms, ()).host == "10.9.8.4"


def test_an_address_is_given_once_however_many_ask(home: Home, boots: ColdBoots) -> None:
    with ThreadPoolExecutor(5) as pool:
        seats = list(pool.map(lambda n: boots.seat(new_id(), f"a{n}", (), ()), range(5)))
    assert len({seat.host for seat in seats}) == 5


def test_its_files_are_for_root_alone_and_take_little_room(boots: ColdBoots, image: Image) -> None:
    machine = boots.seat(new_id(), "agent-01", (), ())
    host_key = boots.furnish(machine, Mould(image))
    disk, initrd = machine.folder / "disk.raw", machine.folder / "initrd.img"
    assert stat.S_IMODE(machine.folder.stat().st_mode) == 0o700
    for path in (disk, initrd):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert disk.stat().st_size == image.base.stat().st_size
    assert disk.stat().st_blocks <= image.base.stat().st_blocks * 1.1
    assert host_key.private in initrd.read_bytes()


def make_definition(folder: Path) -> tuple[Machine, str]:
    machine = Machine(new_id(), "agent-01", folder / "a & b", 22, "10.9.8.5")
    address = Address(machine.host, 22, KEY, Path("/keys/id"))
    tag = render_tag(Tag(task=literal("Mend <this> & that"), base="a" * 40, address=address))
    return machine, render(machine, Mould(Image(Path("/image & more"), "", "")), NETWORK, tag)


def test_a_definition_says_all_that_there_is(tmp_path: Path) -> None:
    machine, text = make_definition(tmp_path)
    parsed = parse_definition(text)
    assert (parsed.id, parsed.name, parsed.memory_bytes) == (machine.id, "agent-01", 256 << 20)
    assert parsed.disks == (machine.folder / "disk.raw",)
    assert parsed.tag
    assert parsed.tag.task == "Mend <this> & that"
    assert parsed.tag.address == Address("10.9.8.5", 22, KEY, Path("/keys/id"))
    root = ET.fromstring(text)
    assert root.findtext("os/kernel") == "/image & more/vmlinux"
    said = (root.findtext("os/cmdline") or "").split()
    assert "swarm.address=10.9.8.5/29" in said
    assert "swarm.gateway=10.9.8.1" in said
    assert "swarm.nameserver=192.0.2.53" in said
    (interface,) = root.iterfind("devices/interface")
    places = {child.tag: child.attrib for child in interface}
    assert places["source"] == {"bridge": "swarm-0123abcd"}
    assert places["mac"] == {"address": "02:00:0a:09:08:05"}
    assert places["port"] == {"isolated": "yes"}
    assert len(places["target"]["dev"]) <= 15
    assert root.find("devices/emulator") is None


@pytest.mark.skipif(not shutil.which("virt-xml-validate"), reason="libvirt-clients is not there")
def test_libvirt_knows_every_word_of_a_definition(tmp_path: Path) -> None:
    path = tmp_path / "definition.xml"
    path.write_text(make_definition(tmp_path)[1])
    command = ["virt-xml-validate", str(path), "domain"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
