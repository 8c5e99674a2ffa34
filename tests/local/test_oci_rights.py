"""What programs of a foreign image may do in the guest, as whom, and where they begin."""

from __future__ import annotations

import io
import os
import re
import subprocess
import tarfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from swarm_tui.local.disk import FIRST_BYTE, make_foreign_disk
from swarm_tui.local.guest import IDENTIFY
from swarm_tui.local.image import GUEST
from swarm_tui.local.oci.account import find_account
from swarm_tui.local.oci.furnish import furnish
from swarm_tui.local.oci.layout import Config
from swarm_tui.local.oci.limits import Limits
from swarm_tui.local.oci.tree import Directory, File
from swarm_tui.local.oci.unpack import Job, Layer, Unpacker

PASSWD = ["root:x:0:0:root:/root:/bin/sh", "node:x:1001:50:Node:/home/node:/bin/sh", "broken"]
GROUPS = ["root:x:0:", "staff:x:50:", "docker:x:99:bob,node", "audio:x:29:bob", "bad:x"]


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("", (1000, 1000, [])),
        ("root", (1000, 1000, [])),
        ("0:0", (1000, 1000, [])),
        ("node", (1001, 50, ["docker"])),
        ("1001", (1001, 50, ["docker"])),
        ("node:audio", (1001, 29, [])),
        ("node:29", (1001, 29, [])),
        ("7777", (7777, 0, [])),
        ("7777:8888", (7777, 8888, [])),
        ("nobody-there", (1000, 1000, [])),
        ("node:nobody-there", (1000, 1000, [])),
        ("-1", (1000, 1000, [])),
        ("4294967295", (1000, 1000, [])),
        ("٣", (1000, 1000, [])),
        ("broken", (1000, 1000, [])),
    ],
)
def test_the_agent_has_the_rights_of_the_images_user_but_never_roots(
    named: str, expected: tuple[int, int, list[str]]
) -> None:
    account = find_account(named, PASSWD, GROUPS)
    assert (account.uid, account.gid, list(account.groups)) == expected
    assert account.told.startswith("as agent")


@pytest.mark.parametrize(
    ("entrypoint", "command", "runs"),
    [
        ([], ["bash"], []),
        ([], ["/bin/sh", "-c", "bash -l"], []),
        ([], ["sh", "-c", "serve"], ["sh", "-c", "serve"]),
        ([], ["node", "app.js"], ["node", "app.js"]),
        (["/start"], ["bash"], ["/start", "bash"]),
        ([], [], []),
    ],
)
def test_a_shell_for_a_person_is_no_program(
    entrypoint: list[str], command: list[str], runs: list[str]
) -> None:
    assert Config(entrypoint, command, [], "", "", {}, "", []).program == runs


def member(name: str, content: bytes = b"", **looks: Any) -> tuple[tarfile.TarInfo, bytes]:
    found = tarfile.TarInfo(name)
    found.size, found.mode = len(content), 0o755
    for key, value in looks.items():
        setattr(found, key, value)
    return found, content


def unpack(place: Path, *members: tuple[tarfile.TarInfo, bytes], **given: Any) -> Unpacker:
    """A layer of these; `given` goes into the job."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    raw = buffer.getvalue()
    (place / "layer").write_bytes(raw)
    digest = sha256(raw).hexdigest()
    work, kit = place / "work", place / "kit"
    work.mkdir()
    for name in ("bin", "lib", "modules", "workspace"):
        (kit / name).mkdir(parents=True)
    (kit / "workspace/README").write_text("a project")
    layers = [Layer(str(place / "layer"), digest, digest, "")]
    given = {"program": [], **given}
    unpacker = Unpacker(Job(str(work), layers, Limits(), str(kit), str(GUEST), [], **given))
    unpacker.add(0, layers[0])
    unpacker.tree.begin(1)
    return unpacker


def furnished(place: Path, *members: tuple[tarfile.TarInfo, bytes], **given: Any) -> Unpacker:
    unpacker = unpack(place, *members, **given)
    furnish(unpacker)
    return unpacker


def read(unpacker: Unpacker, path: str) -> str:
    node = unpacker.tree.find(path)
    assert isinstance(node, File), path
    return node.content.read_text()


ETC = (
    member("etc/passwd", "\n".join(PASSWD).encode()),
    member("etc/group", "\n".join(GROUPS).encode()),
)


def test_what_is_the_users_in_the_image_is_the_agents(tmp_path: Path) -> None:
    unpacker = furnished(tmp_path, *ETC, user="node")
    assert "agent:x:1001:50:agent:/home/agent:" in read(unpacker, "/etc/passwd")
    assert read(unpacker, "/etc/passwd").index("agent:") < read(unpacker, "/etc/passwd").index(
        "node:"
    )
    groups = read(unpacker, "/etc/group").splitlines()
    assert "docker:x:99:bob,node,agent" in groups
    assert not any(line.startswith("agent:") for line in groups), "two groups of one number"
    for path in ("/workspace", "/workspace/README", "/home/agent", "/home/agent/.ssh"):
        node = unpacker.tree.find(path)
        assert node
        assert (node.uid, node.gid) == (1001, 50), path
    keys = unpacker.tree.find("/home/agent/.ssh/authorized_keys")
    assert isinstance(keys, File)
    assert (keys.uid, keys.gid, keys.mode) == (1001, 50, 0o600)
    assert "chown -R 1001:50 /run/swarm/inbox" in read(unpacker, "/usr/lib/swarm/rcS")
    assert not re.search("chown [0-9]", IDENTIFY), "that is another's in this guest"
    assert any("rights of its user node" in note for note in unpacker.outcome.notes)


def test_without_a_user_nothing_runs_as_root(tmp_path: Path) -> None:
    unpacker = furnished(tmp_path, *ETC)
    assert "agent:x:1000:1000:" in read(unpacker, "/etc/passwd")
    assert "agent:x:1000:" in read(unpacker, "/etc/group")
    assert any("would have them run as root" in note for note in unpacker.outcome.notes)
    assert unpacker.tree.find("/etc/swarm/program") is None


def run_own(unpacker: Unpacker, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The image's own program, by the shell of this machine."""
    script = read(unpacker, "/usr/lib/swarm/agent")
    return subprocess.run(
        ["sh", "-c", script], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_its_own_program_begins_in_its_own_folder(tmp_path: Path) -> None:
    app = tmp_path / "it's $HERE"
    app.mkdir()
    words = ["sh", "-c", 'pwd; printf "%s" "$1"', "x", "a 'b' $c"]
    unpacker = furnished(tmp_path, program=words, folder=f"{app}/../{app.name}/")
    done = run_own(unpacker, tmp_path)
    assert done.stdout == f"{app}\na 'b' $c"
    assert isinstance(unpacker.tree.find(str(app)), Directory), "a container's would be made"
    assert read(unpacker, "/etc/swarm/program") == "exec /usr/lib/swarm/agent\n"


def test_a_folder_that_the_agent_cannot_enter_is_told(tmp_path: Path) -> None:
    unpacker = furnished(tmp_path, program=["pwd"], folder=str(tmp_path / "locked"))
    done = run_own(unpacker, tmp_path)
    assert done.stdout.strip() == str(tmp_path)
    assert "agent cannot enter" in done.stderr


@pytest.mark.parametrize("folder", ["", "/workspace", "workspace/below", "/file"])
def test_the_workspace_is_where_else_it_begins(tmp_path: Path, folder: str) -> None:
    unpacker = furnished(tmp_path, member("file", b"x"), program=["true"], folder=folder)
    assert "cd /workspace " in read(unpacker, "/usr/lib/swarm/agent")
    workspace = unpacker.tree.find("/workspace")
    assert isinstance(workspace, Directory)
    assert set(workspace.children) == {b"README"}


def test_homes_behind_a_link_are_found_from_outside(tmp_path: Path) -> None:
    unpacker = furnished(
        tmp_path,
        member("var/home", type=tarfile.DIRTYPE),
        member("home", type=tarfile.SYMTYPE, linkname="/var/home"),
    )
    unpacker.write_out()
    assert (tmp_path / "work/root/home/agent/.ssh/authorized_keys").is_file()


RAW = bytes.fromhex("0100000200200000000000000000000000000000")
"""cap_net_raw, as setcap writes it."""


def test_file_capabilities_are_the_guests_alone(tmp_path: Path) -> None:
    def capable(name: str, value: bytes, **looks: Any) -> tuple[tarfile.TarInfo, bytes]:
        text = value.decode("utf-8", "surrogateescape")
        headers = {"SCHILY.xattr.security.capability": text}
        return member(name, b"x", pax_headers=headers, **looks)

    unpacker = unpack(
        tmp_path,
        capable("ping", RAW, uid=7),
        member("p", type=tarfile.LNKTYPE, linkname="ping"),
        capable("short", RAW[:-1]),
        capable("spaced", b"\1\0\0\3" + RAW[4:] + bytes(4)),
        capable("wrong", b"\7" + RAW[1:]),
        member("labelled", b"x", pax_headers={"SCHILY.xattr.security.selinux": "label"}),
    )
    unpacker.write_out()
    root, disk = tmp_path / "work/root", tmp_path / "disk"
    assert not any(os.listxattr(path) for path in root.iterdir())
    make_foreign_disk(root, disk, 32, 64, tmp_path / "work/owners", tmp_path / "work/capabilities")
    outcome = unpacker.outcome
    assert outcome.capabilities == 1
    assert outcome.counts == {"file capabilities that make no sense": 3, "extended attributes": 1}

    def look(request: str) -> str:
        command = ["debugfs", "-R", request, f"{disk}?offset={FIRST_BYTE}"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    for name in ("ping", "p"):
        assert RAW.hex(" ") in look(f"ea_get -x /{name} security.capability")
    for name in ("short", "spaced", "wrong", "labelled"):
        assert look(f"ea_list /{name}").strip() == ""
    assert "User:     7" in look("stat /ping")
    assert not any(os.listxattr(path) for path in root.iterdir())
