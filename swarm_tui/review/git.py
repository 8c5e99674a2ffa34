"""The machine's git, run so that nothing in a repository can choose what runs or what is hidden.

Each command gets an environment from scratch and no configuration but ours, which outranks that of
the repository; limits on its memory, time and files; a deadline; and a cap on what it may say.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import shutil
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from swarm_tui.errors import ReviewError, SetupError, StorageFull

OLDEST: Final = (2, 32)
"""The first git that takes our configuration from its environment (GIT_CONFIG_GLOBAL)."""
BIG_FILE_BYTES: Final = 8 << 20
"""Of larger files no lines are compared; git treats them as binary."""

_TIMEOUT_S: Final = 60.0
_CPU_S: Final = 120
_MEMORY_KIB: Final = 4 << 20
"""Of address space, which holds the files that git maps, too."""
_ALLOCATION_BYTES: Final = 512 << 20
_FILE_BLOCKS: Final = (4 << 30) // 512
_OUTPUT_BYTES: Final = 64 << 20
_SAID_BYTES: Final = 64 << 10
"""Kept of what a command says on standard error."""
_CHUNK_BYTES: Final = 1 << 20

_LIMITED: Final = (
    'ulimit -c 0; ulimit -t "$1"; ulimit -v "$2" 2>/dev/null; ulimit -f "$3"; shift 3; exec "$@"'
)
"""A shell, because limits can be set from another thread only with `preexec_fn`, which is unsafe
in a program with threads. A hard limit that is lower already is as good."""

_CONFIG: Final[Mapping[str, str]] = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.attributesFile": "/dev/null",
    "core.excludesFile": "/dev/null",
    "core.alternateRefsCommand": "false",
    "core.protectHFS": "true",
    "core.protectNTFS": "true",
    "core.pager": "cat",
    "core.quotePath": "true",
    "core.bigFileThreshold": str(BIG_FILE_BYTES),
    "core.packedGitWindowSize": "32m",
    "core.packedGitLimit": "512m",
    "core.fsync": "committed,loose-object,reference",
    "diff.renameLimit": "200",
    "fetch.fsckObjects": "true",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "pack.windowMemory": "64m",
    "protocol.allow": "never",
    "receive.fsckObjects": "true",
    "safe.bareRepository": "all",
    "safe.directory": "*",
    "transfer.fsckObjects": "true",
}
_EMPTY_TREES: Final = {
    40: "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
    64: "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321",
}
"""By the length of an object id."""

OID: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


class GitFailed(ReviewError):
    """A command ended with another status than was asked for."""

    def __init__(self, title: str, status: int, said: bytes) -> None:
        self.status = status
        self.said = said
        told = said.decode("utf-8", "replace").strip()
        if status < 0:
            told = f"{told}\ngit was ended by {signal.Signals(-status).name}".strip()
        super().__init__(title, told or f"git ended with status {status} and said nothing.")


@dataclass(frozen=True, slots=True)
class Git:
    """git on one repository."""

    directory: Path | None = None
    """The repository's git directory; None: git looks for one."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """More environment: where objects are, which attributes count."""

    def using(self, **variables: str) -> Git:
        """The same with more environment variables."""
        return Git(self.directory, {**self.variables, **variables})

    async def run(
        self,
        *arguments: str,
        stdin: bytes | IO[bytes] = b"",
        title: str = "git could not do its part of the review",
        statuses: Sequence[int] = (0,),
        limit_bytes: int = _OUTPUT_BYTES,
        timeout_s: float = _TIMEOUT_S,
    ) -> bytes:
        """Standard output of a command that ended with one of `statuses`.

        `stdin` may be a file, read from where it stands. Raises GitFailed (a ReviewError) for
        another status, ReviewError for more output than `limit_bytes` or when it takes too long,
        and SetupError when there is no git.
        """
        output = bytearray()
        stream = self.stream(
            *arguments,
            stdin=stdin,
            title=title,
            statuses=statuses,
            limit_bytes=limit_bytes,
            timeout_s=timeout_s,
        )
        async with contextlib.aclosing(stream):
            async for chunk in stream:
                output += chunk
        return bytes(output)

    async def stream(
        self,
        *arguments: str,
        stdin: bytes | IO[bytes] = b"",
        title: str = "git could not do its part of the review",
        statuses: Sequence[int] = (0,),
        limit_bytes: int = _OUTPUT_BYTES,
        timeout_s: float = _TIMEOUT_S,
    ) -> AsyncGenerator[bytes, None]:
        """As `run`, in pieces as they come; a reader that stops early ends the command."""
        source = asyncio.subprocess.PIPE if isinstance(stdin, bytes) else stdin
        process = await self.start(*arguments, stdin=source)
        assert process.stdout
        deadline = asyncio.get_running_loop().time() + timeout_s
        said = asyncio.create_task(_read_said(process))
        fed = asyncio.create_task(_feed(process, stdin if isinstance(stdin, bytes) else b""))
        total = 0
        try:
            while True:
                async with asyncio.timeout_at(deadline):
                    chunk = await process.stdout.read(_CHUNK_BYTES)
                if not chunk:
                    break
                total += len(chunk)
                if total > limit_bytes:
                    raise ReviewError(
                        title, f"git {arguments[0]} gives more than {limit_bytes >> 20} MiB."
                    )
                yield chunk
            async with asyncio.timeout_at(deadline):
                status = await process.wait()
                heard = await said
            if status not in statuses:
                raise GitFailed(title, status, heard)
        except TimeoutError as late:
            raise ReviewError(
                title, f"git {arguments[0]} was not done after {timeout_s:g} s, and was stopped."
            ) from late
        finally:
            fed.cancel()
            await end(process)
            await asyncio.wait((said, fed))

    async def start(
        self,
        *arguments: str,
        stdin: int | IO[bytes] = asyncio.subprocess.PIPE,
        stderr: int = asyncio.subprocess.PIPE,
    ) -> asyncio.subprocess.Process:
        """Start a command whose pipes the caller serves; `end` it. Raises SetupError."""
        return await asyncio.create_subprocess_exec(
            *("sh", "-c", _LIMITED, "sh", str(_CPU_S), str(_MEMORY_KIB), str(_FILE_BLOCKS)),
            *(find(), *arguments),
            stdin=stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            env=self._environment(),
            cwd="/",
            limit=_CHUNK_BYTES,
            start_new_session=True,
        )

    def _environment(self) -> dict[str, str]:
        settings = {
            f"GIT_CONFIG_{part}_{number}": text
            for number, setting in enumerate(_CONFIG.items())
            for part, text in zip(("KEY", "VALUE"), setting, strict=True)
        }
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": "/nonexistent",
            "LC_ALL": "C",
            "TZ": "UTC",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_COUNT": str(len(_CONFIG)),
            **settings,
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_GRAFT_FILE": "/nonexistent",
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_ALLOC_LIMIT": str(_ALLOCATION_BYTES),
            "GIT_AUTHOR_NAME": "swarm-tui",
            "GIT_AUTHOR_EMAIL": "swarm@localhost",
            "GIT_COMMITTER_NAME": "swarm-tui",
            "GIT_COMMITTER_EMAIL": "swarm@localhost",
            **({"GIT_DIR": str(self.directory)} if self.directory else {}),
            **self.variables,
        }


def ignoring_attributes(oid: str) -> dict[str, str]:
    """Variables that make git (2.41 and later) take attributes from an empty tree only.

    `oid` tells the kind of the object ids. Older ones read none from trees in a bare repository.
    """
    return {"GIT_ATTR_SOURCE": _EMPTY_TREES[len(oid)]}


def find() -> str:
    """git's path. Raises SetupError."""
    program = shutil.which("git")
    if not program:
        raise SetupError(
            "git is missing", "Reviews need it on this machine.", "Install the package git."
        )
    return program


async def check_version(git: Git) -> None:
    """Raise SetupError for a git that would not take all of our configuration."""
    told = await git.run("version", title="git does not tell its version")
    version = re.match(rb"git version (\d+)\.(\d+)", told)
    if not version or (int(version[1]), int(version[2])) < OLDEST:
        raise SetupError(
            "git is too old",
            told.decode("utf-8", "replace"),
            f"Reviews need {OLDEST[0]}.{OLDEST[1]} or later on this machine.",
        )


@contextlib.asynccontextmanager
async def side_by_side() -> AsyncIterator[asyncio.TaskGroup]:
    """Tasks at the same time; the first failure ends the others, and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None


@contextlib.contextmanager
def storage() -> Iterator[None]:
    """Map the operating system's answers about our own files: StorageFull or ReviewError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull("No room for the agent's work", str(error)) from error
        raise ReviewError("The agent's work could not be kept", str(error)) from error


async def end(process: asyncio.subprocess.Process) -> None:
    """Kill a command with all that it started, if it still runs."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if process.stdin:
        process.stdin.close()
    if process.stdout:
        # Until its end has been read, asyncio keeps the pipe open.
        while await process.stdout.read(_CHUNK_BYTES):
            pass
    await process.wait()


async def _feed(process: asyncio.subprocess.Process, data: bytes) -> None:
    if not process.stdin:
        return
    # A command may end without a look at its input.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(data)
        await process.stdin.drain()
        process.stdin.close()


async def _read_said(process: asyncio.subprocess.Process) -> bytes:
    assert process.stderr
    kept = bytearray()
    while chunk := await process.stderr.read(_CHUNK_BYTES):
        kept += chunk[: _SAID_BYTES - len(kept)]
    return bytes(kept)
