"""Layers in memory: what replaces what, and that no name leads out of the tree."""

from __future__ import annotations

import gzip
import io
import tarfile
from hashlib import sha256
from pathlib import Path

import pytest

from swarm_tui.local.oci.limits import Limits
from swarm_tui.local.oci.tree import Directory, File, Hostile, Link, Tree
from swarm_tui.local.oci.unpack import Job, Layer, Unpacker

Entry = tuple[str, bytes, str]
"""Path, kind as tar has it, content or target."""


def layer(folder: Path, entries: list[Entry], number: int, mode: int = 0o644) -> Layer:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, kind, text in entries:
            member = tarfile.TarInfo(path)
            member.type, member.mode = kind, 0o755 if kind == tarfile.DIRTYPE else mode
            if kind == tarfile.REGTYPE:
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text.encode()))
            else:
                member.linkname = text
                archive.addfile(member)
    raw = buffer.getvalue()
    packed = gzip.compress(raw)
    path_ = folder / f"{number}.blob"
    path_.write_bytes(packed)
    return Layer(str(path_), sha256(packed).hexdigest(), sha256(raw).hexdigest(), "gzip")


def unpack(folder: Path, *layers: list[Entry], limits: Limits | None = None) -> Unpacker:
    limits = limits or Limits()
    unpacker = Unpacker(Job(str(folder), [], limits, "", "", [], []))
    for number, entries in enumerate(layers):
        unpacker.add(number, layer(folder, entries, number))
    return unpacker


F, D, S, H = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


def text(tree: Tree, path: str) -> str:
    node = tree.find(path)
    assert isinstance(node, File), path
    return node.content.read_text()


def test_whiteouts_opaque_folders_and_hard_links(tmp_path: Path) -> None:
    tree = unpack(
        tmp_path,
        [("usr", D, ""), ("lib", S, "usr"), ("usr/a", F, "old"), ("usr/b", F, "b"), ("o/x", F, "")],
        [("usr/c", H, "usr/b"), ("lib/.wh.b", F, ""), ("lib/a", F, "new")],
        [("o/y", F, "y"), ("o/.wh..wh..opq", F, ""), ("usr/.wh.gone", F, "")],
    ).tree
    assert text(tree, "/usr/a") == "new"
    assert text(tree, "/lib/c") == "b"
    assert tree.find("/usr/b") is None
    folder = tree.find("/o")
    assert isinstance(folder, Directory)
    assert set(folder.children) == {b"y"}


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([("../evil", F, "x")], "leads upwards"),
        ([("a/../../evil", F, "x")], "leads upwards"),
        ([("a", F, ""), ("a/.wh.b", F, "")], "through a file"),
        ([(".wh...", F, "")], "whiteout of no file"),
        ([("h", H, "../../etc/shadow")], "leads upwards"),
        ([("h", H, "/etc/shadow")], "hard link to what is no file"),
        ([(".", S, "/tmp")], "replace the root"),
        ([("l", S, "l"), ("l/f", F, "")], "circle"),
        ([("l", S, "")], "no file system can hold"),
        ([("d/" * 300 + "f", F, "")], "nested"),
        ([("n" * 300, F, "")], "name that no file"),
        ([("p/" * 1100 + "f", F, "")], "a path of more than"),
        ([(f"f{number}", F, "") for number in range(30)], "more than 20 files"),
        ([("big", F, "x" * 300_000)], "MiB of files"),
    ],
)
def test_hostile_layers_are_refused(tmp_path: Path, entries: list[Entry], reason: str) -> None:
    limits = Limits(inodes=20 if len(entries) > 20 else 1000, unpacked_bytes=200_000)
    with pytest.raises(Hostile, match=reason):
        unpack(tmp_path, entries, limits=limits)
    assert {path.name for path in tmp_path.iterdir()} <= {"0.blob", "content"}


def test_links_out_of_the_image_stay_inside(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    work = tmp_path / "work"
    work.mkdir()
    entries = [("out", S, f"../../..{outside}"), ("out/f", F, "caught")]
    unpacker = unpack(work, entries)
    unpacker.write_out()
    assert list(outside.iterdir()) == []
    assert (work / "root" / str(outside)[1:] / "f").read_text() == "caught"


def test_devices_are_left_out_and_rights_are_the_guests_alone(tmp_path: Path) -> None:
    unpacker = Unpacker(Job(str(tmp_path), [], Limits(), "", "", [], []))
    entries = [("dev/null", tarfile.CHRTYPE, ""), ("su", F, "x"), ("pipe", tarfile.FIFOTYPE, "")]
    unpacker.add(0, layer(tmp_path, entries, 0, mode=0o4755))
    unpacker.write_out()
    assert unpacker.outcome.counts == {"device nodes": 1}
    assert unpacker.outcome.set_id == 1
    assert (tmp_path / "root/su").stat().st_mode & 0o7111 == 0
    assert (tmp_path / "root/pipe").is_file()
    assert "mode=104755" in (tmp_path / "owners").read_text()


def test_a_layer_that_is_not_what_its_digest_says(tmp_path: Path) -> None:
    unpacker = Unpacker(Job(str(tmp_path), [], Limits(), "", "", [], []))
    good = layer(tmp_path, [("f", F, "x")], 0)
    with pytest.raises(Hostile, match="digest"):
        unpacker.add(0, Layer(good.file, "0" * 64, good.diff_id, "gzip"))
    with pytest.raises(Hostile, match="unpacks to something else"):
        unpacker.add(0, Layer(good.file, good.digest, "0" * 64, "gzip"))


def test_a_link_is_not_a_folder(tmp_path: Path) -> None:
    tree = unpack(tmp_path, [("a", S, "b")]).tree
    assert isinstance(tree.root.children[b"a"], Link)
    assert tree.find("/a") is None
