"""A saved memory under another name, and forks of real agents."""

from __future__ import annotations

import struct
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from swarm_tui.errors import SnapshotError
from swarm_tui.local.accel import Mode
from swarm_tui.local.copies import rename_saved
from swarm_tui.local.home import Mould
from swarm_tui.local.image import Image
from swarm_tui.local.machine import Machine, render, rewrite
from swarm_tui.model import AgentId, HostName, Power, Vm
from swarm_tui.tag import parse_tag, render_tag
from swarm_tui.text import literal

HEADER = struct.Struct("=16sIIIII56s")
STREAM = b"QEVM" + bytes(range(256)) * 100


def write_saved(path: Path, version: int = 2, cookie: bytes = b"<cookie/>") -> None:
    xml = b"<domain><name>ember</name></domain>\0"
    data = xml + (cookie + b"\0" if cookie else b"")
    head = HEADER.pack(
        b"LibvirtQemudSave", version, len(data), 0, 0, len(xml) if cookie else 0, bytes(56)
    )
    path.write_bytes(head + data + STREAM)


@pytest.mark.parametrize("cookie", [b"<cookie/>", b""])
def test_only_the_header_becomes_another(tmp_path: Path, cookie: bytes) -> None:
    write_saved(tmp_path / "saved", cookie=cookie)
    before = (tmp_path / "saved").read_bytes()
    longer = "a-name-that-is-much-longer"
    rename_saved(tmp_path / "saved", tmp_path / "fork", lambda xml: xml.replace("ember", longer))
    raw = (tmp_path / "fork").read_bytes()
    magic, version, length, running, compression, cookie_at, _ = HEADER.unpack(raw[: HEADER.size])
    assert (magic, version, running, compression) == (b"LibvirtQemudSave", 2, 1, 0)
    data = raw[HEADER.size : HEADER.size + length]
    assert data.startswith(f"<domain><name>{longer}</name></domain>\0".encode())
    assert data[cookie_at:].rstrip(b"\0") == cookie if cookie else cookie_at == 0
    assert raw[HEADER.size + length :] == STREAM
    assert (tmp_path / "saved").read_bytes() == before


def test_another_format_is_refused_and_no_fork_is_made_of_it(tmp_path: Path) -> None:
    write_saved(tmp_path / "saved", version=3)
    with pytest.raises(SnapshotError, match="cannot be forked"):
        rename_saved(tmp_path / "saved", tmp_path / "fork", str)
    (tmp_path / "other").write_bytes(b"not a save")
    with pytest.raises(SnapshotError, match="none of QEMU's"):
        rename_saved(tmp_path / "other", tmp_path / "other-fork", str)


def test_a_rewritten_definition_is_wholly_the_new_one(image: Image, tmp_path: Path) -> None:
    source = Machine(AgentId("0b0e7c6e-0000-4000-8000-00000000000a"), "old", tmp_path / "a", 22101)
    target = Machine(AgentId("c1f7d5a3-0000-4000-8000-00000000000b"), "new", tmp_path / "b", 22102)
    definition = render(source, Mould(image), tmp_path / "initrd", Mode.TCG)
    inactive = definition.replace("<domain ", "<inactiveDomain ").replace("</domain>", "")
    checkpoint = f"<domainsnapshot>{definition}{inactive}</inactiveDomain></domainsnapshot>"
    tag = render_tag(Vm(target.id, literal("new"), HostName("local"), Power.OFF).tag)
    for xml in (definition, checkpoint):
        text = rewrite(xml, source, target, tag)
        for trace in ("old", source.id, str(source.folder), "22101", "0b:0e:7c"):
            assert trace not in text
        root = ET.fromstring(text)
        domains = [node for node in root.iter() if node.tag in ("domain", "inactiveDomain")]
        assert [node.findtext("name") for node in domains] == ["new"] * len(domains)
        assert all(parse_tag(node) is not None for node in domains)
        assert text.count(str(target.disk)) == len(domains)
