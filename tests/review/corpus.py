"""Repositories to review: an owner's, an agent's clone of it, and what a hostile guest makes of it.

Whatever would run a command runs `Workshop.trap`, which leaves a canary when it runs outside of
the guest.
"""

from __future__ import annotations

import os
import subprocess
import zlib
from hashlib import sha1
from pathlib import Path

from swarm_tui.model import Address
from swarm_tui.review.pull import Pulled, pull
from swarm_tui.review.quarantine import Quarantine

from .local import LocalGuest

_ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Agent",
    "GIT_AUTHOR_EMAIL": "agent@example.org",
    "GIT_COMMITTER_NAME": "Agent",
    "GIT_COMMITTER_EMAIL": "agent@example.org",
    "GIT_AUTHOR_DATE": "@1700000000 +0000",
    "GIT_COMMITTER_DATE": "@1700000000 +0000",
    "IN_GUEST": "yes",
}


class Workshop:
    """An owner's repository, an agent's workspace, and a quarantine between them."""

    def __init__(self, folder: Path, *, is_lent: bool = True) -> None:
        self.folder = folder
        self.owner = folder / "owner"
        self.workspace = folder / "workspace"
        self.canary = folder / "canary"
        self.trap = folder / "trap"
        self.trap.write_text(f'#!/bin/sh\n[ -n "$IN_GUEST" ] || touch {self.canary}\nexec cat\n')
        self.trap.chmod(0o755)
        run("init", "-q", "--initial-branch=main", str(self.owner), cwd=folder)
        for number in range(20):
            (self.owner / f"file{number}.py").write_text(f"print({number})\n" * 30)
        self.base = commit(self.owner, "Begin")
        run("clone", "-q", "--no-local", str(self.owner), str(self.workspace), cwd=folder)
        self.guest = LocalGuest()
        self.lender = self.owner if is_lent else None
        self.quarantine = Quarantine(folder / "quarantine", self.lender)
        self.steps: list[str] = []

    @property
    def address(self) -> Address:
        return Address("guest", 22, "ssh-ed25519 AAAA", Path("/key"), workspace=str(self.workspace))

    def write(self, name: str, text: str | bytes) -> None:
        path = self.workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    def commit(self, message: str = "Work") -> str:
        return commit(self.workspace, message)

    def git(self, *arguments: str, stdin: bytes = b"") -> str:
        """In the agent's workspace."""
        return run(*arguments, cwd=self.workspace, stdin=stdin)

    async def pull(
        self, number: int = 1, *, limit_bytes: int = 8 << 20, timeout_s: float = 60
    ) -> Pulled:
        return await pull(
            self.guest,
            self.address,
            self.quarantine,
            number,
            self.base,
            lambda step, _: self.steps.append(step),
            limit_bytes=limit_bytes,
            timeout_s=timeout_s,
        )

    def listing(self) -> dict[str, object]:
        """Every file and folder of the workshop but what a guest has, with size and time."""
        found: dict[str, object] = {}
        for path in sorted(self.folder.rglob("*")):
            if self.workspace in (path, *path.parents):
                continue
            status = path.lstat()
            found[str(path)] = (status.st_size, status.st_mtime_ns) if path.is_file() else None
        return found

    def kept(self) -> set[str]:
        """What the quarantine repository consists of."""
        repository = self.folder / "quarantine" / "repository"
        return {str(path) for path in repository.rglob("*")}

    # Objects that git itself would not make

    def put(self, kind: str, content: bytes) -> str:
        """Write a loose object into the agent's repository, right or wrong."""
        raw = f"{kind} {len(content)}\0".encode() + content
        oid = sha1(raw).hexdigest()
        path = self.workspace / ".git/objects" / oid[:2] / oid[2:]
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(zlib.compress(raw))
        return oid

    def tree(self, *entries: tuple[str, bytes, str]) -> str:
        """A tree of (mode, name, object id), sorted or not as given."""
        lines = (
            mode.encode() + b" " + name + b"\0" + bytes.fromhex(oid) for mode, name, oid in entries
        )
        return self.put("tree", b"".join(lines))

    def adopt(self, tree: str, *parents: str) -> str:
        """A commit of a tree, made the agent's head; its index and files are not touched."""
        lines = [f"tree {tree}", *(f"parent {parent}" for parent in parents or (self.base,))]
        who = "Agent <agent@example.org> 1700000000 +0000"
        text = "\n".join([*lines, f"author {who}", f"committer {who}", "", "Work", ""])
        return self.put("commit", text.encode())

    def forge(self, head: str, *revisions: str, claim: str | None = None) -> None:
        """Let the guest send a pack of `head` (and `revisions`), whatever its repository is."""
        pack = subprocess.run(
            # Newer versions of git have a limit here that a hostile guest has not.
            [
                *("git", "-c", "core.maxTreeDepth=100000"),
                *("pack-objects", "--revs", "--thin", "--stdout", "-q"),
            ],
            input="\n".join([head, *(revisions or (f"^{self.base}",)), ""]).encode(),
            cwd=self.workspace,
            env=_ENVIRONMENT,
            capture_output=True,
            check=True,
        ).stdout
        self.send(pack, claim or head)

    def send_only(self, *oids: str) -> None:
        """Let the guest send just these loose objects, the first one as its head."""
        self.send(raw_pack(*map(self._loose, oids)), oids[0])

    def _loose(self, oid: str) -> tuple[int, bytes]:
        raw = zlib.decompress((self.workspace / ".git/objects" / oid[:2] / oid[2:]).read_bytes())
        header, content = raw.split(b"\0", 1)
        return [b"", b"commit", b"tree", b"blob", b"tag"].index(header.split()[0]), content

    def send(self, pack: bytes, head: str) -> None:
        self.guest.forged = f"swarm-pack 1 {head} clean packed\n".encode() + pack


def run(*arguments: str, cwd: Path, stdin: bytes = b"") -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=cwd, env=_ENVIRONMENT, input=stdin, capture_output=True, check=True
    )
    return done.stdout.decode(errors="replace").strip()


def commit(repository: Path, message: str) -> str:
    run("add", "--all", cwd=repository)
    run("commit", "-q", "--allow-empty", "-m", message, cwd=repository)
    return run("rev-parse", "HEAD", cwd=repository)


def raw_pack(*objects: tuple[int, bytes]) -> bytes:
    """A pack of (type number, content), as gitformat-pack(5) has it."""
    parts = [b"PACK" + (2).to_bytes(4, "big") + len(objects).to_bytes(4, "big")]
    parts += (_entry(kind, len(content)) + zlib.compress(content) for kind, content in objects)
    body = b"".join(parts)
    return body + sha1(body).digest()


def delta_bomb(size: int) -> bytes:
    """A pack of a few bytes with a delta whose result is `size` bytes long."""
    base = bytes(1 << 16)
    name = sha1(f"blob {len(base)}\0".encode() + base).digest()
    copy = b"\x80"  # offset 0 and size 0, which stands for 0x10000
    delta = _varint(len(base)) + _varint(size) + copy * (size >> 16)
    entry = _entry(7, len(delta)) + name + zlib.compress(delta)
    body = b"PACK" + (2).to_bytes(4, "big") + (2).to_bytes(4, "big")
    body += _entry(3, len(base)) + zlib.compress(base) + entry
    return body + sha1(body).digest()


def zeros(size: int) -> bytes:
    """A pack with one blob of `size` zeros, without ever having them."""
    packer = zlib.compressobj(1)
    parts = [b"PACK" + (2).to_bytes(4, "big") + (1).to_bytes(4, "big"), _entry(3, size)]
    chunk = bytes(1 << 20)
    parts += (packer.compress(chunk) for _ in range(size >> 20))
    body = b"".join([*parts, packer.flush()])
    return body + sha1(body).digest()


def _entry(kind: int, size: int) -> bytes:
    first = kind << 4 | size & 15
    size >>= 4
    return bytes([first | (0x80 if size else 0)]) + (_varint(size) if size else b"")


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])
