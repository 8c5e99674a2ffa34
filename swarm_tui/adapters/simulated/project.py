"""Where the work of simulated agents is, for reviews: real git repositories, made when needed.

Each agent's follows from its task and the answers that it has taken up, so that one that was saved
and restored, or comes from a fork, has the same commits. Nothing of it is ever run.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from swarm_tui.adapters.simulated import edits, shop
from swarm_tui.adapters.simulated.edits import Edit, File, Files, Part, Work
from swarm_tui.adapters.simulated.tasks import TASKS, Task
from swarm_tui.adapters.simulated.works import WORKS
from swarm_tui.errors import DeadlineExceeded
from swarm_tui.handoff import EXECUTABLE, SYMLINK
from swarm_tui.model import AgentId, Completed
from swarm_tui.review.git import Git, end, storage
from swarm_tui.review.pull import script
from swarm_tui.text import sanitize

BASE: Final = "a905d76ff8eb8ff923f0327b56f4a5f0db9fb47e"
"""The commit with which every simulated agent begins; it follows from `shop` and `_BASE_AT`."""

_BASE_AT: Final = 1_762_164_000
"""Unix seconds: 3 November 2025, 10:00 UTC."""
_OWNER: Final = "Mira Holt <mira@shop.invalid>"
_AGENT: Final = "simulated agent <agent@simulated.invalid>"
_PULLING: Final = script("/", "", None, timeout_s=1).partition("\n")[2]
"""What `review.pull` runs in a guest, below its first line, which sets the arguments."""


@dataclass(frozen=True, slots=True)
class State:
    """From what an agent's work follows."""

    task: int
    text: str
    """What the agent was told to do."""
    answers: tuple[tuple[str, str], ...]
    """Verdict and message of those that it has taken up, oldest first."""
    begun: int
    """When the agent was made, Unix seconds."""


class Project:
    def __init__(self, folder: Path) -> None:
        """`folder` is there; what is made in it is the caller's to remove."""
        self._folder = folder
        self._made: dict[AgentId, State] = {}
        self._making = asyncio.Lock()

    @property
    def repository(self) -> Path:
        """The owner's, bare; there once the first agent's work was taken."""
        return self._folder / "project.git"

    async def run(
        self, agent: AgentId, state: State, pulling: Pulling, timeout_s: float
    ) -> Completed:
        """Run a script of `review.pull` on an agent's work.

        Raises ReviewError, SetupError (no git), StorageFull and DeadlineExceeded.
        """
        async with self._making:
            if not self.repository.exists():
                await _make(self.repository, [_base()], {}, is_bare=True)
            workspace = await self._workspace(agent, state)
        process = await asyncio.create_subprocess_exec(
            *("sh", "-c", pulling.on(workspace), "swarm"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(),
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(timeout_s):
                output, errors = await process.communicate()
        except TimeoutError as late:
            raise DeadlineExceeded(
                "The simulated guest does not answer", f"git took longer than {timeout_s:g} s"
            ) from late
        finally:
            await end(process)
        return Completed(process.returncode or 0, output, errors)

    def forget(self, agent: AgentId) -> None:
        """Remove an agent's work. Raises ReviewError."""
        if self._made.pop(agent, None):
            with storage():
                shutil.rmtree(self._path(agent))

    def _path(self, agent: AgentId) -> Path:
        return self._folder / "workspaces" / agent

    async def _workspace(self, agent: AgentId, state: State) -> Path:
        path = self._path(agent)
        if self._made.get(agent) != state:
            self.forget(agent)
            history, files = story(state)
            await _make(path, history, files, is_bare=False)
            self._made[agent] = state
        return path


@dataclass(frozen=True, slots=True)
class Pulling:
    """A script of `review.pull` for a guest: the only one that may run on this machine."""

    words: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Pulling | None:
        """None for any other script: what is meant for a guest must not run here."""
        first, _, rest = text.partition("\n")
        if rest != _PULLING:
            return None
        return cls(tuple(shlex.split(first)[3:]))

    def on(self, workspace: Path) -> str:
        """The same on a folder of this machine."""
        return f"set -- {shlex.join([str(workspace), *self.words])}\n{_PULLING}"


@dataclass(frozen=True, slots=True)
class Commit:
    message: str
    author: str
    at: int
    files: Files


def _base() -> Commit:
    files = {path: File(text) for path, text in shop.FILES.items()}
    return Commit("Version 0.9.2", _OWNER, _BASE_AT, files)


def story(state: State) -> tuple[Sequence[Commit], Files]:
    """The agent's history, and its files as they are now, of which some may be in no commit."""
    task = TASKS[state.task % len(TASKS)]
    work = WORKS.get(task.slug)
    if work is None or (state.text and state.text != task.text):
        task = replace(task, text=state.text or task.text)
        work = _plan(task)
    history = [_base()]

    def commit(message: str, files: Files) -> Files:
        at = max(state.begun, _BASE_AT) + len(history)
        history.append(Commit(message, _AGENT, at, files))
        return files

    files = history[0].files
    for part in work.parts:
        files = commit(part.message, edits.apply(files, part.edits))
    files = edits.apply(files, work.loose)
    later = list(work.later)
    for number, (verdict, said) in enumerate(state.answers, 1):
        if verdict == "reject":
            del history[1:]
            files, later = history[0].files, [_anew(task, said)]
        part = later.pop(0) if later else _more(task, number)
        if verdict == "send-back":
            files = edits.apply(edits.take_up(files, said), part.edits)
            commit(f"Take up the review\n\n{sanitize(said, lines='many')}", files)
        else:
            files = commit(part.message, edits.apply(files, part.edits))
    return history, files


def _plan(task: Task) -> Work:
    """Of an agent that has not written any code yet."""
    path = f"docs/plans/{task.slug}.md"
    plan = f"""\
# {task.text}

1. [x] Find out who relies on `{task.symbol}` today.
2. [ ] Write a test that fails: `{task.test}`.
3. [ ] Change {", ".join(f"`{file}`" for file in task.files)}.
4. [ ] Tell it in the release notes.
"""
    found = f"\nFound: one caller gives `{task.symbol}` an empty list; that must go on.\n"
    tick = Edit(path, "2. [x] Write", "2. [ ] Write")
    return Work(
        parts=(Part(f"Plan: {task.text}", (Edit(path, plan),)),),
        loose=(Edit(path, found),),
        later=(Part("Tick off the second step", (tick,)),),
    )


def _anew(task: Task, reason: str) -> Part:
    """How it begins again after its work was rejected."""
    quoted = "".join(f"> {line}\n" for line in sanitize(reason, lines="many").split("\n"))
    text = f"# {task.text}: a second try\n\nThe first one was rejected:\n\n{quoted}"
    return Part("Plan a second try", (Edit(f"docs/plans/{task.slug}.md", text),))


def _more(task: Task, number: int) -> Part:
    """What it goes on with when all that was thought up for it is done."""
    line = f"- Round {number} of: {task.text}.\n"
    return Part("Note what was done in the release notes", (Edit("CHANGES.md", line),))


# Repositories


async def _make(path: Path, history: Sequence[Commit], files: Files, *, is_bare: bool) -> None:
    """Raises ReviewError, SetupError and StorageFull."""
    await asyncio.to_thread(_clear, path)
    git = Git(path if is_bare else path / ".git")
    kind = ("--bare",) if is_bare else ()
    await git.run("init", "-q", *kind, "--template=", "--object-format=sha1", "-b", "main")
    await git.run("fast-import", "--quiet", stdin=b"".join(_stream(history)))
    if is_bare:
        return
    await asyncio.to_thread(_write, path, files)
    # What differs from the last commit is what the agent has not committed yet.
    await git.using(GIT_WORK_TREE=str(path)).run("reset", "-q", "--mixed")


def _stream(history: Sequence[Commit]) -> Iterator[bytes]:
    """The commits as `git fast-import` takes them."""
    before: Files = {}
    for commit in history:
        yield f"commit refs/heads/main\ncommitter {commit.author} {commit.at} +0000\n".encode()
        yield _data(commit.message + "\n")
        for path, file in commit.files.items():
            if before.get(path) != file:
                yield f"M {file.mode} inline {path}\n".encode() + _data(file.text)
        before = commit.files


def _data(text: str) -> bytes:
    content = text.encode()
    return b"data %d\n%b\n" % (len(content), content)


def _clear(path: Path) -> None:
    with storage():
        shutil.rmtree(path, ignore_errors=True)  # of an attempt that was cut off
        path.mkdir(parents=True)


def _write(folder: Path, files: Files) -> None:
    with storage():
        for name, file in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if file.mode == SYMLINK:
                path.symlink_to(file.text)
            else:
                path.write_text(file.text)
                path.chmod(0o755 if file.mode == EXECUTABLE else 0o644)


def _environment() -> dict[str, str]:
    """Nothing of the person's own git configuration counts in a guest."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": "/nonexistent",
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
    }
