"""The guest's side of the contract, added to a foreign image: nothing of the image is replaced.

All that is ours lies below /usr/lib/swarm and brings its own shell, tools, loader and libraries, so
that it runs on any distribution's userland, and on none. What is written elsewhere, and told in
`Outcome.changes`: users, the network's three files, and a few that are there only if missing.
"""

from __future__ import annotations

import os
import posixpath
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from swarm_tui.local.image import parse_hex
from swarm_tui.local.oci.account import OURS, find_account
from swarm_tui.local.oci.tree import Directory, File, Hostile, Link, Tree

if TYPE_CHECKING:
    from swarm_tui.local.oci.unpack import Unpacker

HOME: Final = "/usr/lib/swarm"
_SHELL: Final = f"{HOME}/shell"
_WORKSPACE: Final = "/workspace"
_TEXT_BYTES: Final = 4 << 20
_MOVED: Final = {
    "#!/bin/sh": f"#!{HOME}/bin/sh",
    "-s /bin/sh": f"-s {HOME}/bin/sh",
    "/usr/sbin/dropbear": f"{HOME}/bin/dropbear",
    "/lib/modules/": f"{HOME}/modules/",
}
"""Where our scripts find what they need, there and here."""
_LEFT_OUT: Final = ("usr/lib/swarm/agent", "usr/lib/swarm/heartbeat", "usr/lib/swarm/tasks")
"""The scripted example needs Python."""
_PLACES: Final = {
    "etc/rcS": f"{HOME}/rcS",
    "etc/fstab": f"{HOME}/fstab",
    "etc/acpi/PWRF/00000080": "/etc/acpi/PWRF/00000080",
    "etc/nsswitch.conf": "/etc/nsswitch.conf",
    "usr/bin/swarm": f"{HOME}/bin/swarm",
    "usr/bin/login-console": f"{HOME}/login-console",
}
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SHELLS: Final = ("/bin/bash", "/usr/bin/bash", "/bin/sh", "/usr/bin/sh", "/bin/ash")


def furnish(unpacker: Unpacker) -> None:
    """Raises Hostile where the image leaves no room for it."""
    Furnisher(unpacker).work()


class Furnisher:
    def __init__(self, unpacker: Unpacker) -> None:
        self._unpacker = unpacker
        self._tree: Tree = unpacker.tree
        self._job = unpacker.job
        self._tell = unpacker.outcome.changes.append
        self._note = unpacker.outcome.notes.append
        self._account = OURS

    def work(self) -> None:
        tree = self._tree
        self._account = find_account(
            self._job.user, self._lines("/etc/passwd"), self._lines("/etc/group")
        )
        self._note("its programs run " + (self._account.told or "as agent"))
        for node in tree.root.children.values():
            # It leads to the same, also from the initramfs, where keys are put into homes.
            if isinstance(node, Link) and node.target.startswith(b"/"):
                node.target = node.target.lstrip(b"/") or b"."
        # A link of the image's in the way would lead ours elsewhere, or in a circle.
        self._free(HOME)
        for folder in ("dev", "proc", "sys", "run", "mnt", "var/log", "etc/dropbear", "etc/swarm"):
            tree.ensure_folder(f"/{folder}")
        tree.ensure_folder("/tmp", 0o1777)
        for part in ("bin", "lib", "modules"):
            self._graft(Path(self._job.kit) / part, f"{HOME}/{part}")
        self._put_scripts()
        self._put_users()
        self._put_network()
        self._put_environment()
        self._put_program()
        self._put_workspace()

    def _put_scripts(self) -> None:
        guest = Path(self._job.guest)
        for path in sorted(guest.glob("root/**/*")) + sorted(guest.glob("oci/**/*")):
            relative = "/".join(path.relative_to(guest).parts[1:])
            if relative in _LEFT_OUT or not path.is_file():
                continue
            if relative.startswith("usr/lib/swarm/"):
                target = f"/{relative}"
            elif relative in _PLACES:
                target = _PLACES[relative]
            else:
                continue
            if not target.startswith(HOME) and self._tree.find(target) is not None:
                continue
            text = path.read_text()
            for ours, theirs in _MOVED.items():
                text = text.replace(ours, theirs)
            text = text.replace(OURS.owner, self._account.owner)
            self._write(target, text, 0o755 if text.startswith("#!") else 0o644)
        reseed = parse_hex((guest / "reseed.hex").read_text())
        self._put(f"{HOME}/reseed", reseed, 0o755)
        if self._tree.find("/usr/local/bin/swarm") is None:
            self._tree.ensure_folder("/usr/local/bin")
            self._link("/usr/local/bin/swarm", f"{HOME}/bin/swarm")

    def _put_users(self) -> None:
        """root and agent, with our shell: it leads to the image's own with its environment set."""
        passwd = self._lines("/etc/passwd")
        uid, gid = str(self._account.uid), str(self._account.gid)
        others = [line for line in passwd if line.partition(":")[0] not in ("root", "agent")]
        for line in passwd:
            fields = line.split(":")
            if fields[0] == "agent":
                self._tell("the image's own user agent is ours now")
            elif fields[2:3] == [uid] and self._account.uid == OURS.uid:
                self._tell(f"the image's user {fields[0][:40]} has the agent's number {uid}")
        own = [f"root:x:0:0:root:/root:{_SHELL}", f"agent:x:{uid}:{gid}:agent:/home/agent:{_SHELL}"]
        self._write("/etc/passwd", _text([*own, *others]), 0o644)
        groups = self._lines("/etc/group")
        names = {line.partition(":")[0] for line in groups}
        groups = [line for line in groups if line.partition(":")[0] != "agent"]
        missing = [
            line for name, line in (("root", "root:x:0:"), ("tty", "tty:x:5:")) if name not in names
        ]
        groups = [_joined(line) if _is_of(line, *self._account.groups) else line for line in groups]
        if all(line.split(":")[2:3] != [gid] for line in [*missing, *groups]):
            missing.append(f"agent:x:{gid}:")
        self._write("/etc/group", _text([*missing, *groups]), 0o644)
        shadow = [line for line in self._lines("/etc/shadow") if not _is_of(line, "agent", "root")]
        shadow = ["root:*:19000::::::", "agent:*:19000::::::", *shadow]
        self._write("/etc/shadow", _text(shadow), 0o600)
        shells = [line for line in self._lines("/etc/shells") if line != _SHELL]
        self._write("/etc/shells", _text([*shells, _SHELL]), 0o644)
        self._tell(f"root and agent (number {uid}) log in through {_SHELL}, by key only")
        for folder, owner in (("/root", (0, 0)), ("/home/agent", self._owner)):
            home = self._tree.ensure_folder(folder, 0o700)
            home.mode &= ~0o022  # the SSH server trusts no keys in a home that others may write to
            ssh = self._tree.ensure_folder(f"{folder}/.ssh")
            ssh.mode = 0o700
            for node in (home, ssh):
                node.uid, node.gid = owner
            if "authorized_keys" in [os.fsdecode(name) for name in ssh.children]:
                ssh.children.pop(b"authorized_keys")
                self._tell(f"{folder}/.ssh/authorized_keys of the image lets nobody in")
            self._put(f"{folder}/.ssh/authorized_keys", b"", 0o600, owner)

    def _put_network(self) -> None:
        for name in ("hosts", "resolv.conf"):
            text = (Path(self._job.guest) / "root/etc" / name).read_text()
            self._write(f"/etc/{name}", text, 0o644)
        for name in ("hostname", "machine-id"):  # a guest is given its own
            if self._tree.find(f"/etc/{name}") is not None:
                self._tree.drop(f"etc/{name}".encode())
        self._tell("/etc/hosts, hostname, machine-id and resolv.conf are the guest's own")
        config = "\n".join(self._lines("/etc/gitconfig"))
        safe = "[safe]\n\tdirectory = /workspace"
        self._write("/etc/gitconfig", f"{config}\n{safe}\n".lstrip(), 0o644)

    def _put_environment(self) -> None:
        given = dict(self._job.environment)
        path = given.get("PATH") or _PATH
        given["PATH"] = f"{path}:{HOME}/bin"
        lines = [f"export {name}={shlex.quote(value)}" for name, value in given.items()]
        self._write("/etc/swarm/environment", _text(lines), 0o644)
        real = next((s for s in _SHELLS if self._tree.is_program(s)), f"{HOME}/bin/sh")
        self._write("/etc/swarm/shell", real + "\n", 0o644)

    def _put_program(self) -> None:
        """What the image itself runs: like a profile's command, and only where that names none."""
        if not self._job.program:
            self._note(
                "without a profile's command it runs nothing: it names no program of its own"
            )
            return
        folder, words = self._folder(), shlex.join(self._job.program)
        self._note(f"without a profile's command it runs, in {folder[:80]}: {words[:200]}")
        told = shlex.quote(f"agent cannot enter {folder}; this runs in $PWD")
        lines = [f"#!{HOME}/bin/sh", "# What the image says that it runs, where it says so."]
        lines += [f"cd {shlex.quote(folder)} || echo {told} >&2", f"exec {words}"]
        self._write(f"{HOME}/agent", _text(lines), 0o755)
        self._write("/etc/swarm/program", f"exec {HOME}/agent\n", 0o644)

    def _folder(self) -> str:
        """Where the image's own program begins; a container's would be made if it was missing."""
        folder = posixpath.normpath("/" + self._job.folder.lstrip("/"))
        if not self._job.folder or f"{folder}/".startswith(f"{_WORKSPACE}/"):
            return _WORKSPACE
        there = self._tree.find(folder)
        if there is None:
            self._tree.ensure_folder(folder)
        return folder if there is None or isinstance(there, Directory) else _WORKSPACE

    def _put_workspace(self) -> None:
        there = self._tree.root.children.get(b"workspace")
        if isinstance(there, Directory) and there.children:
            aside = "/workspace.image"
            while self._tree.find(aside) is not None:
                aside += "_"
            self._tree.root.children[aside[1:].encode()] = there
            self._tell(f"/workspace of the image is {aside} now")
        self._tree.drop(b"workspace")
        self._graft(Path(self._job.kit) / "workspace", _WORKSPACE, self._owner)

    # How

    @property
    def _owner(self) -> tuple[int, int]:
        return self._account.uid, self._account.gid

    def _free(self, path: str) -> None:
        parent = path.rpartition("/")[0]
        self._tree.ensure_folder(parent)
        if self._tree.find(path) is not None:
            self._tell(f"the image's own {path} is left out")
        self._tree.drop(path.encode())

    def _graft(self, source: Path, target: str, owner: tuple[int, int] = (0, 0)) -> None:
        for parent, folders, names in os.walk(source):
            here = f"{target}/{os.path.relpath(parent, source)}"
            folder = self._tree.ensure_folder(here)
            folder.uid, folder.gid = owner
            for name in (*names, *(f for f in folders if (Path(parent) / f).is_symlink())):
                path = Path(parent) / name
                if path.is_symlink():
                    self._link(f"{here}/{name}", os.readlink(path))
                else:
                    mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
                    self._put(f"{here}/{name}", path.read_bytes(), mode, owner)

    def _write(self, target: str, text: str, mode: int) -> None:
        self._put(target, text.encode("utf-8", "surrogateescape"), mode)

    def _put(self, target: str, content: bytes, mode: int, owner: tuple[int, int] = (0, 0)) -> None:
        kept = self._unpacker.keep(content)
        self._tree.ensure_folder(target.rpartition("/")[0])
        self._tree.put(target.encode(), File(mode, *owner, content=kept))

    def _link(self, path: str, target: str) -> None:
        self._tree.put(path.encode(), Link(0o777, target=target.encode()))

    def _lines(self, path: str) -> Sequence[str]:
        """Of a file of the image; none where there is none."""
        node = self._tree.find(path)
        if not isinstance(node, File):
            return []
        if node.content.stat().st_size > _TEXT_BYTES:
            raise Hostile(f"a {path} of more than {_TEXT_BYTES >> 20} MiB")
        return node.content.read_text("utf-8", "surrogateescape").splitlines()


def _is_of(line: str, *users: str) -> bool:
    return line.partition(":")[0] in users


def _joined(group: str) -> str:
    """A line of /etc/group with agent among its members."""
    fields = [*group.split(":"), "", "", ""][:4]
    return ":".join([*fields[:3], ",".join(filter(None, (fields[3], "agent")))])


def _text(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
