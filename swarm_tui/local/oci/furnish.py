"""The guest's side of the contract, added to a foreign image: nothing of the image is replaced.

All that is ours lies below /usr/lib/swarm and brings its own shell, tools, loader and libraries, so
that it runs on any distribution's userland, and on none. What is written elsewhere, and told in
`Outcome.changes`: users, the network's three files, and a few that are there only if missing.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from swarm_tui.local.image import parse_hex
from swarm_tui.local.oci.tree import Directory, File, Hostile, Link, Tree

if TYPE_CHECKING:
    from swarm_tui.local.oci.unpack import Job, Unpacker

HOME: Final = "/usr/lib/swarm"
AGENT: Final = 1000
_SHELL: Final = f"{HOME}/shell"
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


def furnish(unpacker: Unpacker, job: Job) -> None:
    """Raises Hostile where the image leaves no room for it."""
    Furnisher(unpacker, job).work()


class Furnisher:
    def __init__(self, unpacker: Unpacker, job: Job) -> None:
        self._unpacker = unpacker
        self._tree: Tree = unpacker.tree
        self._job = job
        self._tell = unpacker.outcome.changes.append

    def work(self) -> None:
        tree = self._tree
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
            self._write(target, text, 0o755 if text.startswith("#!") else 0o644)
        reseed = parse_hex((guest / "reseed.hex").read_text())
        self._put(f"{HOME}/reseed", reseed, 0o755, 0)
        if self._tree.find("/usr/local/bin/swarm") is None:
            self._tree.ensure_folder("/usr/local/bin")
            self._link("/usr/local/bin/swarm", f"{HOME}/bin/swarm")

    def _put_users(self) -> None:
        """root and agent, with our shell: it leads to the image's own with its environment set."""
        passwd = self._lines("/etc/passwd")
        uid = str(AGENT)
        others = [line for line in passwd if line.partition(":")[0] not in ("root", "agent")]
        for line in passwd:
            fields = line.split(":")
            if fields[0] == "agent":
                self._tell("the image's own user agent is ours now")
            elif len(fields) > 2 and fields[2] == uid:
                self._tell(f"the image's user {fields[0][:40]} has the agent's number {uid}")
        own = [f"root:x:0:0:root:/root:{_SHELL}", f"agent:x:{uid}:{uid}:agent:/home/agent:{_SHELL}"]
        self._write("/etc/passwd", _text([*own, *others]), 0o644)
        groups = self._lines("/etc/group")
        names = {line.partition(":")[0] for line in groups}
        groups = [line for line in groups if line.partition(":")[0] != "agent"]
        missing = [
            line for name, line in (("root", "root:x:0:"), ("tty", "tty:x:5:")) if name not in names
        ]
        self._write("/etc/group", _text([*missing, f"agent:x:{uid}:", *groups]), 0o644)
        shadow = [line for line in self._lines("/etc/shadow") if not _is_of(line, "agent", "root")]
        shadow = ["root:*:19000::::::", "agent:*:19000::::::", *shadow]
        self._write("/etc/shadow", _text(shadow), 0o600)
        shells = [line for line in self._lines("/etc/shells") if line != _SHELL]
        self._write("/etc/shells", _text([*shells, _SHELL]), 0o644)
        self._tell(f"root and agent (number {uid}) log in through {_SHELL}, by key only")
        for folder, owner in (("/root", 0), ("/home/agent", AGENT)):
            home = self._tree.ensure_folder(folder, 0o700, owner)
            home.mode &= ~0o022  # the SSH server trusts no keys in a home that others may write to
            home.uid = home.gid = owner
            ssh = self._tree.ensure_folder(f"{folder}/.ssh", 0o700, owner)
            ssh.mode, ssh.uid, ssh.gid = 0o700, owner, owner
            if "authorized_keys" in [os.fsdecode(name) for name in ssh.children]:
                ssh.children.pop(b"authorized_keys")
                self._tell(f"{folder}/.ssh/authorized_keys of the image lets nobody in")

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
        if self._job.program:
            words = " ".join(shlex.quote(word) for word in self._job.program)
            script = f"#!{HOME}/bin/sh\n# The image's own entry point.\nexec {words}\n"
            self._write(f"{HOME}/agent", script, 0o755)

    def _put_workspace(self) -> None:
        there = self._tree.root.children.get(b"workspace")
        if isinstance(there, Directory) and there.children:
            aside = "/workspace.image"
            while self._tree.find(aside) is not None:
                aside += "_"
            self._tree.root.children[aside[1:].encode()] = there
            self._tell(f"/workspace of the image is {aside} now")
        self._tree.drop(b"workspace")
        self._graft(Path(self._job.kit) / "workspace", "/workspace", AGENT)

    # How

    def _free(self, path: str) -> None:
        parent = path.rpartition("/")[0]
        self._tree.ensure_folder(parent)
        if self._tree.find(path) is not None:
            self._tell(f"the image's own {path} is left out")
        self._tree.drop(path.encode())

    def _graft(self, source: Path, target: str, owner: int = 0) -> None:
        for parent, folders, names in os.walk(source):
            here = f"{target}/{os.path.relpath(parent, source)}"
            folder = self._tree.ensure_folder(here, 0o755, owner)
            folder.uid = folder.gid = owner
            for name in (*names, *(f for f in folders if (Path(parent) / f).is_symlink())):
                path = Path(parent) / name
                if path.is_symlink():
                    self._link(f"{here}/{name}", os.readlink(path))
                else:
                    mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
                    self._put(f"{here}/{name}", path.read_bytes(), mode, owner)

    def _write(self, target: str, text: str, mode: int) -> None:
        self._put(target, text.encode("utf-8", "surrogateescape"), mode, 0)

    def _put(self, target: str, content: bytes, mode: int, owner: int) -> None:
        kept = self._unpacker.keep(content)
        self._tree.ensure_folder(target.rpartition("/")[0])
        self._tree.put(target.encode(), File(mode, owner, owner, content=kept))

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


def _text(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
