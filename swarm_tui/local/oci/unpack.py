"""The layers of an image become one tree of plain files; run as a process of its own.

Standard input is a `Job` as JSON, standard output what became of it. All parsing of layers is done
here, so that what runs wild in it can be limited and killed. umoci would unpack them, too, but it
knows no limits, makes set-uid files in earnest, and without root the files' owners are lost.

    <work>/content/N    files as they come, under names of ours
    <work>/root/        the tree: what is in it belongs to us and cannot be executed by others
    <work>/owners       whose it shall be in the guest, and with which modes: fakeroot's own format
    <work>/capabilities what programs may do there, see `capability`; only where there are such
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import resource
import stat
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from swarm_tui.local.oci.capability import ATTRIBUTE, is_sound
from swarm_tui.local.oci.furnish import furnish
from swarm_tui.local.oci.limits import Limits
from swarm_tui.local.oci.tree import Directory, File, Hostile, Link, Node, Pipe, Tree, shown

MEMORY_BYTES: Final = 4 << 30
"""Address space of the process."""
EXAMPLES: Final = 5
_CHUNK: Final = 1 << 20
_LAST_SECOND: Final = (1 << 32) - 1
_LINK_BYTES: Final = 4095
_ATTRIBUTES: Final = ("SCHILY.xattr.", "LIBARCHIVE.xattr.")
_CAPABILITY: Final = f"{_ATTRIBUTES[0]}{ATTRIBUTE}"
_NO_ID: Final = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Layer:
    file: str
    digest: str
    """SHA-256 of the file, in hex."""
    diff_id: str
    """The same of what it holds, unpacked."""
    compression: str
    """"gzip", "zstd" or empty."""


@dataclass(frozen=True, slots=True)
class Job:
    work: str
    layers: Sequence[Layer]
    limits: Limits
    kit: str
    guest: str
    environment: Sequence[tuple[str, str]]
    program: Sequence[str]
    user: str = ""
    folder: str = ""


@dataclass(slots=True)
class Outcome:
    """What is told of an unpacked image. Paths in it are the image's own words."""

    inodes: int = 0
    size: int = 0
    """Bytes of all files."""
    set_id: int = 0
    """Set-uid and set-gid programs; they are so in the guest only."""
    capabilities: int = 0
    """Programs with capabilities; they are so in the guest only."""
    dropped: dict[str, list[str]] = field(default_factory=dict)
    """Kind → how many, and some of their paths."""
    counts: dict[str, int] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """How its programs run."""

    def drop(self, kind: str, path: bytes) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + 1
        paths = self.dropped.setdefault(kind, [])
        if len(paths) < EXAMPLES:
            paths.append(path.decode("utf-8", "replace")[:200])


class _Guarded(io.RawIOBase):
    """A layer's archive, which gives no more for headers than they may need."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.allowance = 0

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > self.allowance:
            raise Hostile("a file whose description is too long")
        self.allowance -= size
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


class Unpacker:
    def __init__(self, job: Job) -> None:
        self.job = job
        self._limits = job.limits
        self._work = Path(job.work)
        self._content = self._work / "content"
        self._number = 0
        self._unpacked = 0
        self.outcome = Outcome()
        limits = job.limits
        self.tree = Tree(limits.inodes, limits.path_bytes, limits.depth)
        self._content.mkdir(mode=0o700)

    def add(self, number: int, layer: Layer) -> None:
        """Apply a layer on top of the others."""
        archive = self._work / "layer.tar"
        try:
            self._decompress(layer, archive)
            self.tree.begin(number)
            with open(archive, "rb") as file:
                self._apply(_Guarded(file))
        finally:
            archive.unlink(missing_ok=True)

    def keep(self, content: bytes) -> Path:
        """Content of our own, as a file that may be put into the tree."""
        path = self._next()
        path.write_bytes(content)
        return path

    def _next(self) -> Path:
        self._number += 1
        return self._content / str(self._number)

    def _decompress(self, layer: Layer, target: Path) -> None:
        """Both digests are held against what was promised, before anything is read in it."""
        with open(layer.file, "rb") as packed:
            if hashlib.file_digest(packed, "sha256").hexdigest() != layer.digest:
                raise Hostile("a layer that is not what its digest says")
        digest = hashlib.sha256()
        room = self._limits.unpacked_bytes - self._unpacked
        with _opened(layer) as source, open(target, "xb") as file:
            while chunk := source.read(_CHUNK):
                room -= len(chunk)
                if room < 0:
                    raise Hostile(_too_much(self._limits))
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != layer.diff_id:
            raise Hostile("a layer that unpacks to something else than its configuration says")

    def _apply(self, file: _Guarded) -> None:
        file.allowance = self._limits.header_bytes
        archive = tarfile.open(fileobj=file, mode="r:", errors="surrogateescape")  # noqa: SIM115 it is only read
        before = 0
        while True:
            file.allowance = self._limits.header_bytes
            member = archive.next()
            if member is None:
                break
            # It keeps all of them otherwise.
            archive.members.clear()  # type: ignore[attr-defined]
            if member.size < 0 or archive.offset <= before:
                raise Hostile("an archive whose sizes make no sense")
            before = archive.offset
            self._enter(archive, member, file)
        file.allowance = self._limits.header_bytes
        file.seek(archive.offset)
        if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise Hostile("a layer that is damaged after " + f"{archive.offset:,} bytes")

    def _enter(self, archive: tarfile.TarFile, member: tarfile.TarInfo, file: _Guarded) -> None:
        path = _bytes(member.name)
        if self.tree.white_out(path):
            return
        capability = self._capability(member, path)
        if member.islnk():
            self.tree.link(path, _bytes(member.linkname))
        elif member.ischr() or member.isblk():
            self.tree.drop(path)
            self.outcome.drop("device nodes", path)
        elif member.isreg():
            looks = self._looks(member)
            node = File(**looks, content=self._next(), capability=capability)
            self._write(archive, member, node.content, file)
            self.tree.put(path, node)
        elif member.issym():
            target = _bytes(member.linkname)
            if not 0 < len(target) <= _LINK_BYTES or b"\0" in target:
                raise Hostile("a link that no file system can hold: " + shown(path))
            self.tree.put(path, Link(**self._looks(member), target=target))
        elif member.isdir():
            self.tree.put(path, Directory(**self._looks(member)))
        elif member.isfifo():
            self.tree.put(path, Pipe(**self._looks(member)))
        else:
            self.outcome.drop("entries of an unknown kind", path)

    def _capability(self, member: tarfile.TarInfo, path: bytes) -> bytes:
        """That of a program; other extended attributes are left out."""
        named = [key for key in member.pax_headers if key.startswith(_ATTRIBUTES)]
        capability = _bytes(member.pax_headers.get(_CAPABILITY, ""))
        if set(named) - {_CAPABILITY}:
            self.outcome.drop("extended attributes", path)
        if not capability:
            return b""
        if not (member.isreg() and is_sound(capability)):
            self.outcome.drop("file capabilities that make no sense", path)
            return b""
        return capability

    def _looks(self, member: tarfile.TarInfo) -> Any:
        owners = [number if 0 <= number < _NO_ID else 0 for number in (member.uid, member.gid)]
        mtime = min(max(int(member.mtime), 0), _LAST_SECOND)
        return {"mode": member.mode & 0o7777, "uid": owners[0], "gid": owners[1], "mtime": mtime}

    def _write(
        self, archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path, file: _Guarded
    ) -> None:
        self._unpacked += member.size
        if self._unpacked > self._limits.unpacked_bytes:
            raise Hostile(_too_much(self._limits))
        source = archive.extractfile(member)
        assert source is not None  # it is a regular file
        left = member.size
        with open(target, "xb") as out:
            while left:
                file.allowance = _CHUNK
                chunk = source.read(min(left, _CHUNK))
                if not chunk:
                    raise Hostile("a layer that ends in the middle of a file")
                left -= len(chunk)
                if member.issparse() and not chunk.strip(b"\0"):
                    out.seek(len(chunk), os.SEEK_CUR)
                else:
                    out.write(chunk)
            out.truncate(member.size)

    def write_out(self) -> None:
        """Make the tree of plain files, and tell fakeroot what they shall be."""
        root = self._work / "root"
        owners = _Owners(self._work / "owners")
        outcome = self.outcome
        made: dict[int, tuple[int, bytes]] = {}
        folders: list[tuple[bytes, int]] = []
        root.mkdir(mode=0o700)
        base = os.fsencode(root)
        capabilities: list[str] = []
        with owners:
            for path, directory in self.tree.walk():
                here = base + path
                if path:
                    os.mkdir(here, 0o700)
                owners.note(os.lstat(here), stat.S_IFDIR, directory)
                folders.append((here, directory.mtime))
                for name, node in directory.children.items():
                    if isinstance(node, Directory):
                        continue
                    target = here + b"/" + name
                    known = made.get(id(node))
                    if known:
                        os.link(known[1], target, follow_symlinks=False)
                        continue
                    made[id(node)] = (len(made), target)
                    kind = _make(node, target)
                    if isinstance(node, File) and node.capability:
                        capabilities.append(f"{target.hex()} {node.capability.hex()}\n")
                    outcome.set_id += bool(node.mode & 0o6000 and kind == stat.S_IFREG)
                    os.utime(target, (node.mtime, node.mtime), follow_symlinks=False)
                    status = os.lstat(target)
                    outcome.size += status.st_size
                    owners.note(status, kind, node)
        for here, mtime in reversed(folders):
            os.utime(here, (mtime, mtime))
        outcome.inodes = len(made) + len(folders)
        outcome.capabilities = len(capabilities)
        if capabilities:
            (self._work / "capabilities").write_text("".join(capabilities))


def _make(node: Node, target: bytes) -> int:
    if isinstance(node, File):
        os.rename(node.content, target)
        return stat.S_IFREG
    if isinstance(node, Link):
        os.symlink(node.target, target)
        return stat.S_IFLNK
    # A pipe, in the guest: nobody here shall wait at one.
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    return stat.S_IFIFO


class _Owners:
    """What fakeroot shall say of files, as it saves that itself (fakeroot -s)."""

    def __init__(self, target: Path) -> None:
        self._file = open(target, "x", encoding="ascii")  # noqa: SIM115 see __exit__

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def note(self, status: os.stat_result, kind: int, node: Node) -> None:
        mode = kind | (0o777 if kind == stat.S_IFLNK else node.mode)
        self._file.write(
            f"dev={status.st_dev:x},ino={status.st_ino},mode={mode:o},uid={node.uid},"
            f"gid={node.gid},nlink={status.st_nlink},rdev=0\n"
        )


@contextmanager
def _opened(layer: Layer) -> Iterator[IO[bytes] | gzip.GzipFile]:
    if layer.compression == "gzip":
        with gzip.open(layer.file) as source:
            yield source
    elif layer.compression == "zstd":  # Python's own reader of it is younger than 3.11
        command = ["zstd", "-dcq", "--memory=256MB", layer.file]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            try:
                yield process.stdout
            except BaseException:
                process.kill()
                raise
            if process.wait() != 0:
                raise Hostile("a layer that cannot be decompressed")
    else:
        with open(layer.file, "rb") as plain:
            yield plain


def _too_much(limits: Limits) -> str:
    return f"more than {limits.unpacked_bytes >> 20:,} MiB of files"


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def main() -> int:
    given = json.load(sys.stdin)
    job = Job(
        **{
            **given,
            "layers": [Layer(**layer) for layer in given["layers"]],
            "limits": Limits(**given["limits"]),
        }
    )
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        unpacker = Unpacker(job)
        for number, layer in enumerate(job.layers):
            print(json.dumps({"layer": number + 1}), flush=True)
            unpacker.add(number, layer)
        unpacker.tree.begin(len(job.layers))
        print(json.dumps({"furnish": True}), flush=True)
        furnish(unpacker)
        unpacker.write_out()
    except (Hostile, UnicodeEncodeError) as error:
        told = str(error) if isinstance(error, Hostile) else "a name that is no text"
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        told = f"a layer that is damaged: {error}"
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(json.dumps({"full": str(error)}), flush=True)
        return 1
    except (RecursionError, MemoryError, OverflowError) as error:
        told = f"a layer made to exhaust its reader ({type(error).__name__})"
    else:
        print(json.dumps({"outcome": asdict(unpacker.outcome)}), flush=True)
        return 0
    print(json.dumps({"hostile": told}), flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
