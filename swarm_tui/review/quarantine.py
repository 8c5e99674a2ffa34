"""Where a guest's objects are held, checked and read: a bare repository of ours for each agent.

The rules:
- What a guest sends is bytes for `index-pack` with strict checks, under limits, in a folder apart;
  a refused pack leaves nothing behind. Nothing is ever checked out.
- Git runs only here, with an environment, a configuration and attributes of ours (see `git`);
  nothing that the guest's repository holds can choose a program or hide a line.
- Whatever is told about a change is computed from objects that were hashed here.
- The owner's repository on this machine lends objects (`lender`); it is trusted, and only read.
  Where there is none, or it lacks the base, the guest sends the base, too, whose id we know.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import ExitStack, aclosing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Literal, Self

from swarm_tui import durable
from swarm_tui.errors import Busy, ReviewError
from swarm_tui.handoff import Change
from swarm_tui.review import landing, survey, sweep
from swarm_tui.review.blobs import MISSING, Blobs, Facts, facts
from swarm_tui.review.diff import Span
from swarm_tui.review.git import (
    OID,
    Git,
    GitFailed,
    check_version,
    ignoring_attributes,
    side_by_side,
    storage,
)
from swarm_tui.review.refusal import REFUSED, explain
from swarm_tui.review.survey import Survey
from swarm_tui.review.sweep import Sides

MOST_OBJECTS: Final = 500_000
MOST_COMMITS: Final = 10_000
MOST_OBJECT_BYTES: Final = 256 << 20
"""Of one file; git has it in memory as a whole at times."""
MOST_LISTED_BYTES: Final = 16 << 20
"""Of one folder."""
MOST_COMMIT_BYTES: Final = 256 << 10
MOST_BYTES: Final = 2 << 30
"""Of all objects together, unpacked."""

_HEADER: Final = re.compile(
    rb"swarm-pack 1 ([0-9a-f]{40}|[0-9a-f]{64}) (clean|uncommitted) (packed|empty)\n"
)
_STALE_S: Final = 600.0
_LONGEST_HEADER: Final = 128
_PACK_HEADER: Final = 12
_NO_ATTRIBUTES: Final = (
    "* !diff !text !eol !crlf !ident !filter !working-tree-encoding !whitespace !merge\n"
)


@dataclass(frozen=True, slots=True)
class Header:
    """The first line of what a guest sends: its claims."""

    head: str
    is_uncommitted: bool
    is_empty: bool


class Quarantine:
    """One agent's objects. Several processes may use one folder at the same time.

    `close` it, or use it as an async context manager.
    """

    def __init__(self, folder: Path, lender: Path | None = None) -> None:
        """`folder` is made when it is first needed; `lender` is the owner's repository."""
        self._folder = folder.absolute()
        self._lender = lender
        self._repository = self._folder / "repository"
        self._plain = Git(self._repository)
        self._blobs: Blobs | None = None
        self._needs: dict[str, bool] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def beside(self, other: Quarantine) -> Quarantine:
        """The objects of both, to compare contents; nothing is to be taken there. Close it, too."""
        both = Quarantine(self._folder, self._lender)
        both._plain = self._plain.using(
            GIT_ALTERNATE_OBJECT_DIRECTORIES=_quoted(other._repository / "objects")
        )
        return both

    async def prepare(self, base: str) -> bool:
        """Make ready for objects on top of `base`; whether the guest must send the base, too.

        Raises ReviewError, SetupError (no usable git), StorageFull.
        """
        if base in self._needs:
            return self._needs[base]
        if not OID.fullmatch(base):
            raise ReviewError(
                "Nobody knows what the agent began with",
                f"Its base is on record as “{base}”, which is no commit.",
                "Only agents that were made with a workspace can be reviewed.",
            )
        with storage():
            (self._folder / "incoming").mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self._repository.exists():
            with self._alone():
                await self._make(base)
        is_there = await landing.has_commit(self._plain, base)
        if not is_there and self._lender:
            loan = None
            with suppress(ReviewError):  # told when something is to land there
                loan = await landing.find_loan(self._lender, base)
            if loan:
                self._borrow(loan)
                await self.close()
                is_there = True
        self._needs[base] = not is_there
        return self._needs[base]

    async def take(self, pack: Path, number: int, base: str) -> Header:
        """Check what a guest sent and keep it as review `number`.

        `pack` is as `pull` downloads it: a header line and a pack. A number that was taken before
        is replaced. Raises ReviewError, Busy; then nothing of it is kept.
        """
        needs_base = await self.prepare(base)
        with _opened(pack, "rb") as file, self._alone():
            header = _read_header(file)
            if not header.is_empty:
                await self._admit(file, header.head, base, needs_base=needs_base)
            elif header.head != base:
                raise ReviewError(REFUSED, "It names a commit and does not send it.")
            elif needs_base:
                raise ReviewError(REFUSED, "It does not send the commit that it began with.")
            await self._pin(number, base, header.head)
        self._needs[base] = False
        return header

    async def take_base(self, pack: Path, base: str) -> None:
        """Check a base, sent as a pack like that of `take`, and keep it without its past.

        Raises ReviewError, Busy; then nothing of it is kept.
        """
        with _opened(pack, "rb") as file, self._alone():
            header = _read_header(file)
            if header.is_empty or header.head != base:
                raise ReviewError(REFUSED, "It is not the commit that the agent began with.")
            await self._admit(file, base, base, needs_base=True)
            pin = f"update refs/bases/{base} {base}\n"
            await self._plain.run("update-ref", "--no-deref", "--stdin", stdin=pin.encode())
        self._needs[base] = False

    async def pack(self, target: IO[bytes], base: str, head: str, limit_bytes: int) -> None:
        """Write into a file what `head` has and `base` has not. Raises ReviewError."""
        await self._pack(target, base, f"{head}\n^{base}\n", limit_bytes, "--thin")

    async def pack_base(self, target: IO[bytes], base: str, limit_bytes: int) -> bool:
        """Write a base without its past into a file; False: it is more than `limit_bytes`."""
        try:
            await self._pack(target, base, f"--shallow {base}\n{base}\n", limit_bytes)
        except GitFailed:
            raise
        except ReviewError:  # too large, or it takes too long, which is the same
            return False
        return True

    async def _pack(
        self, target: IO[bytes], base: str, revs: str, limit_bytes: int, *options: str
    ) -> None:
        stream = self._git(base).stream(
            *("pack-objects", "--revs", "--stdout", "--delta-base-offset", "-q", *options),
            stdin=revs.encode(),
            limit_bytes=limit_bytes,
        )
        async with aclosing(stream):
            async for chunk in stream:
                with storage():
                    target.write(chunk)

    async def survey(self, base: str, head: str) -> Survey:
        """Raises ReviewError, also when there are more changes than can be reviewed."""
        return await survey.survey(self._git(base), base, head)

    def patch(self, base: str, head: str) -> AsyncGenerator[bytes, None]:
        """The canonical patch: the same bytes for the same content, on every machine."""
        return survey.patch(self._git(base), self._reader(base), base, head)

    async def digest(self, base: str, head: str) -> str:
        """ "sha256:…" of the bytes of `patch`."""
        return await survey.digest(self._git(base), self._reader(base), base, head)

    async def blob(self, oid: str) -> bytes | None:
        """The content of a file; None when it is larger than `blobs.MOST_SHOWN_BYTES`."""
        return await self._reader(oid).read(oid)

    async def spans(self, old: str, new: str) -> Sequence[Span]:
        """What differs between two blobs; an empty id stands for no lines at all.

        Raises ReviewError, also for more than `blobs.MOST_SHOWN_BYTES`.
        """
        if not (old or new):
            return ()
        oid = old or new
        return await survey.spans(self._git(oid), self._reader(oid), old, new)

    def contents(
        self, base: str, head: str, changes: Sequence[Change]
    ) -> AsyncGenerator[Sequence[Sides], None]:
        """Both sides of all changes of a survey and what differs, in portions. Raises ReviewError.

        For many files; `blob` and `spans` are for one.
        """
        return sweep.sweep(self._git(base), self._reader(base), base, head, changes)

    async def paths(self, commit: str) -> tuple[Sequence[bytes], bool]:
        """The files of a tree, at most `sweep.MOST_PATHS`, and whether these are all."""
        return await sweep.list_paths(self._git(commit), commit)

    async def head_of(self, number: int) -> str | None:
        """The head that is kept as review `number`."""
        name = f"refs/reviews/{number:d}"
        if not self._repository.exists():
            return None
        return (await landing.read_refs(self._plain, name)).get(name)

    async def forget(self, number: int) -> None:
        """Let go of a review's objects. Not there is fine. Raises Busy."""
        if not self._repository.exists():
            return
        with self._alone():
            await self._plain.run("update-ref", "-d", f"refs/reviews/{number:d}")
            await self._plain.run("repack", "-a", "-d", "-l", "-q")

    async def land(
        self,
        target: Path,
        base: str,
        head: str,
        branch: str,
        attachments: Mapping[str, bytes],
    ) -> None:
        """Make `head` a new branch of the repository at `target`, with its verdict beside it.

        All or nothing. Done already is fine; raises Refused when the branch is another commit or
        has another verdict, ReviewError when the repository cannot take it.
        """
        with self._alone(), self.incoming() as folder, _opened(folder / "pack", "x+b") as pack:
            await landing.land(self._git(base), pack, target, base, head, branch, attachments)

    async def land_result(self, target: Path, base: str, head: str, ref: str) -> None:
        """Make `head` known to the repository at `target` under a ref that is no branch.

        Done already is fine. Raises Refused, ReviewError, Busy.
        """
        with self._alone(), self.incoming() as folder, _opened(folder / "pack", "x+b") as pack:
            await landing.land_result(self._git(base), pack, target, base, head, ref)

    async def close(self) -> None:
        """End the processes that read objects."""
        if self._blobs:
            await self._blobs.close()
            self._blobs = None

    def _git(self, oid: str) -> Git:
        """git as it shows contents. Raises ReviewError."""
        if not OID.fullmatch(oid):
            raise ReviewError("This is no object id", oid)
        return self._plain.using(**ignoring_attributes(oid))

    def _reader(self, oid: str) -> Blobs:
        if not self._blobs:
            self._blobs = Blobs(self._git(oid))
        return self._blobs

    async def _make(self, base: str) -> None:
        """Make the repository, as a whole or not at all."""
        await check_version(self._plain)
        kind = "sha1" if len(base) == 40 else "sha256"
        with self.incoming() as folder:
            made = folder / "repository"
            await Git(made).run(
                *("init", "--quiet", "--bare", "--template=", f"--object-format={kind}"),
                title="The quarantine repository cannot be made",
            )
            with storage():
                (made / "info").mkdir(exist_ok=True)
                (made / "objects/info").mkdir(exist_ok=True)
                (made / "info/attributes").write_text(_NO_ATTRIBUTES)
                if not self._repository.exists():  # or else another process was faster
                    made.rename(self._repository)
                durable.sync_folder(self._folder)

    async def _pin(self, number: int, base: str, head: str) -> None:
        refs = f"update refs/reviews/{number:d} {head}\nupdate refs/bases/{base} {base}\n"
        await self._plain.run("update-ref", "--no-deref", "--stdin", stdin=refs.encode())

    async def _admit(self, file: IO[bytes], head: str, base: str, *, needs_base: bool) -> None:
        """Let a pack in, or raise ReviewError and keep nothing."""
        with self.incoming() as folder:
            objects, shallow = folder / "objects", self._repository / "shallow"
            with storage():
                (objects / "info").mkdir(parents=True)
                (objects / "pack").mkdir()
                lent = os.fsencode(self._repository / "objects")
                (objects / "info/alternates").write_bytes(lent + b"\n")
                # A base that the guest sends comes without what was before it.
                if needs_base:
                    shallow = folder / "shallow"
                    shallow.write_text(f"{base}\n")
            apart = self._git(base).using(
                GIT_OBJECT_DIRECTORY=str(objects), GIT_SHALLOW_FILE=str(shallow)
            )
            try:
                await _unpack(apart, file)
                await _check_objects(apart, objects, head, base)
                async with side_by_side() as group:
                    group.create_task(_check_history(apart, head, base))
                    group.create_task(survey.check_size(apart, base, head))
            except GitFailed as failure:
                raise explain(failure) from failure
            with storage():
                if needs_base:
                    durable.write(self._repository / "shallow", f"{base}\n".encode())
                self._let_in(objects)

    def _borrow(self, loan: landing.Loan) -> None:
        with storage():
            if loan.shallow.exists():
                durable.write(self._repository / "shallow", loan.shallow.read_bytes())
            alternates = self._repository / "objects/info/alternates"
            durable.write(alternates, os.fsencode(loan.objects) + b"\n")

    def _let_in(self, objects: Path) -> None:
        packs = self._repository / "objects/pack"
        # The index last: a pack is seen by it.
        for file in sorted((objects / "pack").iterdir(), key=lambda path: path.suffix == ".idx"):
            file.rename(packs / file.name)
        durable.sync_folder(packs)

    @contextmanager
    def incoming(self) -> Iterator[Path]:
        """A folder of its own for what is under way, removed in the end, or by `take` later on."""
        folder = self._folder / "incoming" / secrets.token_hex(8)
        with storage():
            folder.mkdir(parents=True, mode=0o700)
        with _locked(folder):
            try:
                yield folder
            finally:
                shutil.rmtree(folder)

    def _sweep(self) -> None:
        """Remove what killed processes left under way."""
        with storage():
            for folder in (self._folder / "incoming").iterdir():
                with suppress(BlockingIOError, FileNotFoundError, ReviewError):
                    # One that was made just now may not be locked yet.
                    if time.time() - folder.stat().st_mtime > _STALE_S:
                        with _locked(folder):
                            shutil.rmtree(folder)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One at a time may add and remove. Raises Busy."""
        try:
            with _locked(self._folder):
                self._sweep()
                yield
        except BlockingIOError as error:
            raise Busy(
                "Another session is at work on this agent's review",
                str(self._folder),
                "Wait until it is done.",
            ) from error


def _quoted(path: Path) -> str:
    """One path of a list, as git(1) has it: it may hold a colon."""
    plain = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{plain}"'


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Raises BlockingIOError. A lock of a process ends with it."""
    with storage():
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


@contextmanager
def _opened(path: Path, mode: Literal["rb", "x+b"]) -> Iterator[IO[bytes]]:
    with ExitStack() as stack:
        with storage():
            file = stack.enter_context(open(path, mode, buffering=0))
        yield file


def _read_header(file: IO[bytes]) -> Header:
    """Leaves the file where the pack begins."""
    line = os.pread(file.fileno(), _LONGEST_HEADER, 0)
    header = _HEADER.match(line)
    if not header:
        raise ReviewError(REFUSED, "What the guest sent does not begin with the header of a pack.")
    file.seek(header.end())
    return Header(header[1].decode(), header[2] == b"uncommitted", header[3] == b"empty")


async def _unpack(git: Git, file: IO[bytes]) -> None:
    """Check the pack that `file` stands at, and keep it unless it holds nothing."""
    begin = os.pread(file.fileno(), _PACK_HEADER, file.tell())
    if len(begin) < _PACK_HEADER or begin[:4] != b"PACK":
        raise ReviewError(REFUSED, "Behind the header there is no pack.")
    count = int.from_bytes(begin[8:12], "big")
    if count > MOST_OBJECTS:
        raise ReviewError(REFUSED, f"It holds {count:,} objects; {MOST_OBJECTS:,} are allowed.")
    if count:
        await git.run("index-pack", "--stdin", "--strict", "--fix-thin", stdin=file, title=REFUSED)


async def _check_objects(git: Git, objects: Path, head: str, base: str) -> None:
    """That nothing new is larger than we handle, and that head and base are commits."""
    new = list(_read_indexes(objects / "pack"))
    known = await facts(git, [head, base, *new])
    for one in (known[oid] for oid in new):
        if one.size > _most(one):
            raise ReviewError(
                REFUSED,
                f"It holds a {one.kind} of {one.size >> 10:,} KiB; {_most(one) >> 10:,} KiB are "
                f"allowed.",
            )
    commits = sum(known[oid].kind == "commit" for oid in new)
    if commits > MOST_COMMITS:
        raise ReviewError(REFUSED, f"It holds {commits:,} commits; {MOST_COMMITS:,} are allowed.")
    total = sum(known[oid].size for oid in new)
    if total > MOST_BYTES:
        raise ReviewError(
            REFUSED, f"It unpacks to {total >> 20:,} MiB; {MOST_BYTES >> 20:,} MiB are allowed."
        )
    for oid, role in ((base, "began with"), (head, "names as its head")):
        kind = known[oid].kind
        if kind != "commit":
            what = "is not in it" if kind == MISSING else f"is a {kind}, not a commit"
            raise ReviewError(REFUSED, f"{oid}, which the agent {role}, {what}.")


def _most(one: Facts) -> int:
    limits = {"blob": MOST_OBJECT_BYTES, "tree": MOST_LISTED_BYTES}
    return limits.get(one.kind, MOST_COMMIT_BYTES)


def _read_indexes(folder: Path) -> Iterator[str]:
    """The object ids in packs' indexes, version 2, that our git wrote (gitformat-pack(5))."""
    for path in folder.glob("*.idx"):
        index = path.read_bytes()
        width = len(path.stem.removeprefix("pack-")) // 2
        start = 8 + 256 * 4
        count = int.from_bytes(index[start - 4 : start], "big")
        for at in range(start, start + count * width, width):
            yield index[at : at + width].hex()


async def _check_history(git: Git, head: str, base: str) -> None:
    """That all that the head needs is there."""
    await git.run(
        *("rev-list", "--objects", "--quiet", "--stdin"),
        stdin=f"{head}\n^{base}\n".encode(),
        title=REFUSED,
    )
