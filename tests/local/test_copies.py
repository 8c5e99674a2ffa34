"""A saved memory under another name, and forks of real agents."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from swarm_tui.errors import SnapshotError
from swarm_tui.local.copies import rename_saved

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
