"""Repositories of profiles, made ready to be delivered into guests.

    <mirrors>/NAME-KEY.git    what was fetched from a URL; approved work lands there, too
    <archives>/KEY/*.tar      a commit with its past, as the .git of a workspace

A guest gets objects, one branch and no remote. Whatever runs git runs it here as reviews do (see
`git`); only fetching from a URL is done with the owner's own settings, by which git finds proxies
and passwords.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import tarfile
import time
from collections import defaultdict
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from swarm_tui import durable
from swarm_tui.errors import ReviewError, SetupError, UsageError
from swarm_tui.ports import Progress, Source
from swarm_tui.review import landing
from swarm_tui.review.git import OID, Git, GitFailed
from swarm_tui.text import sanitize

LIMIT_BYTES: Final = 512 << 20
"""Of a pack; a repository with more comes without its past, and one whose files are more not."""
FETCH_S: Final = 600.0
PACK_S: Final = 300.0
KEPT_S: Final = 86400.0
"""An archive that was not asked for in so long goes."""

_TITLE: Final = "The repository cannot be made ready"
_REF: Final = re.compile(r"[^\s\x00-\x1f\x7f:-][^\s\x00-\x1f\x7f:]{0,250}")
_URL: Final = re.compile(r"(?:https?|ssh|git|file)://[!-~]+|[A-Za-z0-9][\w.@-]*:(?!:)[!-~]+")
_BRANCH: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,200}")
_PASSED: Final = (
    *("HOME", "XDG_CONFIG_HOME", "SSH_AUTH_SOCK", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"),
)
"""Of our environment, to who fetches."""
_OLD_MISTAKES: Final = ("zeroPaddedFilemode", "badTimezone", "missingSpaceBeforeDate")
"""Of commits that are in many old repositories and harm nobody."""


@dataclass(frozen=True, slots=True)
class _Found:
    """A commit, and the repository here that has it."""

    repository: Path
    git: Git
    commit: str
    branch: str


class Depot:
    """Of one process; several may use the same folders."""

    def __init__(self, mirrors: Path, archives: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        self._mirrors = mirrors
        self._archives = archives
        self._limit_bytes = limit_bytes
        self._fetching: dict[tuple[str, str], asyncio.Task[_Found]] = {}
        self._packing: defaultdict[Path, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def get(self, repository: str, ref: str, on_progress: Progress) -> Source:
        """The commit that `ref` names now, as what a guest can take.

        `repository` is an absolute path here or a URL. Raises UsageError for what is neither,
        SetupError when it cannot be had, StorageFull.
        """
        if not _REF.fullmatch(ref):
            raise UsageError("This is no name of a commit", sanitize(ref, max_cells=200))
        if repository.startswith("/"):
            found = await _find(Path(repository), ref)
        elif _URL.fullmatch(repository):
            found = await self._fetch_once(repository, ref, on_progress)
        else:
            raise UsageError(
                "This is no repository",
                sanitize(repository, max_cells=200),
                "An absolute path, or a URL: https://…, ssh://…, git://…, user@host:path.",
            )
        try:
            return await self._pack_once(found, on_progress)
        except ReviewError as error:
            raise SetupError(_TITLE, f"{repository}: {error.detail}", error.hint) from error

    async def _fetch_once(self, url: str, ref: str, on_progress: Progress) -> _Found:
        """Who asks while it is being fetched gets what that brings."""
        key = (url, ref)
        if key not in self._fetching:
            task = asyncio.create_task(self._fetch(url, ref, on_progress), name="fetch")
            self._fetching[key] = task
            task.add_done_callback(lambda _: self._fetching.pop(key))
        return await asyncio.shield(self._fetching[key])

    async def _fetch(self, url: str, ref: str, on_progress: Progress) -> _Found:
        shown = sanitize(_without_password(url), max_cells=100)
        on_progress(sanitize(f"fetching {ref} of {shown}"), None)
        mirror = self._mirrors / f"{_plain_name(url)}-{_key(url)}.git"
        here = f"refs/swarm/fetched/{_key(ref)}"
        relaxed = (part for name in _OLD_MISTAKES for part in ("-c", f"fetch.fsck.{name}=ignore"))
        git = Git(mirror, _owners_environment())
        try:
            await self._make_mirror(mirror)
            await git.run(
                *relaxed,
                *("fetch", "-q", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules"),
                *("--", url, f"+{ref}:{here}"),
                timeout_s=FETCH_S,
            )
            told = await Git(mirror).run("rev-parse", "--verify", f"{here}^{{commit}}")
        except ReviewError as error:
            raise SetupError(
                f"{ref} could not be fetched",
                f"{shown}: {sanitize(error.detail, lines='many', max_cells=400)}",
                "Try: git ls-remote with the same URL.",
            ) from error
        branch = ref.removeprefix("refs/heads/")
        is_name = _BRANCH.fullmatch(branch) and branch != "HEAD" and not OID.fullmatch(branch)
        return _Found(mirror, Git(mirror), told.decode().strip(), branch if is_name else "main")

    async def _make_mirror(self, mirror: Path) -> None:
        """See that it is there. A repository that is initialized again stays as it is."""
        with durable.storage("make a mirror", SetupError):
            mirror.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not mirror.joinpath("config").is_file():
            await Git().run("init", "-q", "--bare", "--template=", "--", str(mirror))

    async def _pack_once(self, found: _Found, on_progress: Progress) -> Source:
        folder = self._archives / _key(str(found.git.directory))
        archive = folder / f"{found.commit}-{_key(found.branch)}.tar"
        async with self._packing[archive]:
            if not archive.exists():
                on_progress(sanitize(f"packing {found.branch} at {found.commit[:12]}"), None)
                await self._pack(found, archive)
                await asyncio.to_thread(_prune, self._archives)
            with durable.storage("make a repository ready", SetupError):
                os.utime(archive)
                size = archive.stat().st_size
        return Source(found.repository, found.commit, archive, size)

    async def _pack(self, found: _Found, archive: Path) -> None:
        git, commit = found.git, found.commit
        told = await git.run("rev-list", "--disk-usage", "--objects", commit, timeout_s=PACK_S)
        shallow = await _shallow(git)
        revisions = f"{commit}\n"
        if int(told) > self._limit_bytes:
            revisions, shallow = f"--shallow {commit}\n{revisions}", f"{commit}\n"
        with durable.storage("make a repository ready", SetupError):
            archive.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with TemporaryDirectory(dir=self._archives, prefix=".making-") as folder:
                work = Path(folder)
                packs = work / ".git/objects/pack"
                packs.mkdir(parents=True)
                await self._write_pack(git, packs / f"pack-{commit}.pack", revisions)
                _write_repository(work / ".git", commit, found.branch, shallow)
                done = work / "archive.tar"
                await asyncio.to_thread(_archive, work / ".git", done)
                done.rename(archive)

    async def _write_pack(self, git: Git, pack: Path, revisions: str) -> None:
        stream = git.stream(
            *("pack-objects", "--revs", "--stdout", "--delta-base-offset", "-q"),
            stdin=revisions.encode(),
            title=_TITLE,
            limit_bytes=self._limit_bytes,
            timeout_s=PACK_S,
        )
        with open(pack, "wb") as file:  # noqa: ASYNC230 - as fast as git gives it
            async with aclosing(stream):
                async for chunk in stream:
                    file.write(chunk)
        # Here and not in the guest, where it would take minutes under emulation.
        await git.run("index-pack", str(pack), title=_TITLE, timeout_s=PACK_S)


async def _find(repository: Path, ref: str) -> _Found:
    try:
        git = await landing.open_repository(repository)
    except ReviewError as error:
        raise SetupError(error.title, error.detail, error.hint) from error
    try:
        told = await git.run("rev-parse", "--verify", f"{ref}^{{commit}}")
    except GitFailed as error:
        raise SetupError(
            f"{sanitize(ref)} is no commit there",
            f"{repository}\n{sanitize(error.detail, lines='many')}",
            "Name a branch, a tag or a commit that it has.",
        ) from error
    name = await git.run("rev-parse", "--symbolic-full-name", ref)
    branch = name.decode("utf-8", "replace").strip().removeprefix("refs/heads/")
    is_name = _BRANCH.fullmatch(branch) and branch != "HEAD" and not branch.startswith("refs/")
    return _Found(repository, git, told.decode().strip(), branch if is_name else "main")


async def _shallow(git: Git) -> str:
    """Commits that have no past in the repository, one a line."""
    place = await landing.path_in(git, "shallow")
    with durable.storage("read a repository", SetupError):
        return place.read_text() if place.exists() else ""


def _write_repository(folder: Path, commit: str, branch: str, shallow: str) -> None:
    """All of a work tree's .git but its objects."""
    lines = ["[core]", "\tbare = false", "\tfilemode = true", "\tlogallrefupdates = true"]
    version = 0
    if len(commit) == 64:
        version = 1
        lines += ["[extensions]", "\tobjectformat = sha256"]
    lines.insert(1, f"\trepositoryformatversion = {version}")
    (folder / "refs/heads").mkdir(parents=True)
    (folder / "config").write_text("\n".join(lines) + "\n")
    (folder / "HEAD").write_text(f"ref: refs/heads/{branch}\n")
    (folder / "packed-refs").write_text(f"{commit} refs/heads/{branch}\n")
    if shallow:
        (folder / "shallow").write_text(shallow)


def _archive(folder: Path, target: Path) -> None:
    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        entry.mode = 0o755 if entry.isdir() else 0o644
        return entry

    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as tar:
        tar.add(folder, folder.name, filter=plain)


def _prune(archives: Path) -> None:
    """Also what was left by who was killed."""
    oldest = time.time() - KEPT_S
    for path in (*archives.glob("*/*.tar"), *archives.glob(".making-*")):
        try:
            if path.stat().st_mtime >= oldest:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        except FileNotFoundError:  # another process did it
            continue


def _owners_environment() -> dict[str, str]:
    home = os.environ.get("HOME", "")
    settings = [os.environ.get("GIT_CONFIG_GLOBAL", ""), f"{home}/.gitconfig"]
    settings.append(f"{os.environ.get('XDG_CONFIG_HOME') or home + '/.config'}/git/config")
    return {
        **{name: os.environ[name] for name in _PASSED if name in os.environ},
        "GIT_ALLOW_PROTOCOL": "https:http:ssh:git:file",
        "GIT_CONFIG_GLOBAL": next(filter(os.path.isfile, settings), "/dev/null"),
        "GIT_CONFIG_NOSYSTEM": "0",
        "GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND", "ssh -o BatchMode=yes"),
    }


def _without_password(url: str) -> str:
    return re.sub(r"(//[^/@]*):[^/@]*@", r"\1:…@", url)


def _plain_name(url: str) -> str:
    name = re.split(r"[/:]", url.rstrip("/").removesuffix(".git"))[-1]
    return re.sub(r"[^A-Za-z0-9._-]", "-", name)[:40].strip(".-") or "repository"


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
