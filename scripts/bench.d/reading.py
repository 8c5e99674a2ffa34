"""How quick a review is read: a large diff opens, scrolls, and thousands of files are passed.

Run as a program, it shows the screen on the review of a real repository, without a VM behind it.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import swarms
from figure import Figure, percentile, spread
from program import Program

LINES = 50_000
BLOCK = 25
"""Lines in each block of changes, and between two of them."""
FILES = 5_000
OPEN_MS = 200.0
KEY_P95_MS = 33.0
READY_S = 60.0
ANSWER_S = 5.0

_FIRST = re.compile(rb"value_0000025_new")
_ANY = re.compile(rb"value_\d{7}")
_SMALL = re.compile(rb"file_(\d{4})\.py")
_SETTLED_S = 1.5
"""After the first paint the file's colours come in; keys are measured from then on."""


def reading(folder: Path, is_quick: bool) -> Iterator[Figure]:
    """A file of 50,000 changed lines, and a tree of 5,000 files."""
    repository = folder / "reviewed"
    _make_repository(repository)
    for when, is_ahead in (("not read ahead", False), ("read ahead", True)):
        opened = [_open_large(folder, repository, is_ahead) for _ in range(3 if is_quick else 9)]
        yield Figure(
            f"key to first change, {LINES} changed lines, {when}",
            percentile(opened, 50) * 1e3,
            "ms",
            "median time from J (read ahead: the next file), or from enter among the files (not: "
            "one further down), until the first change is drawn in a pty of 200 × 50, side by "
            "side; both blobs and their difference come from git; half of "
            f"{LINES} lines replaced, in blocks of {BLOCK}; a fresh program each time",
            OPEN_MS,
            detail=spread([sample * 1e3 for sample in opened]),
        )
    count = 60 if is_quick else 240
    with _program(folder, repository, "large") as program:
        _open(program, is_ahead=True)
        program.drain(_SETTLED_S)
        for name, keys, wait in (
            ("line to line", ("\x1b[B", "\x1b[A"), _moved),
            ("page to page", ("\x04", "\x15"), _drawn(_ANY)),
            ("change to change", ("j", "k"), _moved),
        ):
            samples = _press(program, keys, wait, count)
            yield _keys_figure(f"{LINES} changed lines, {name}", samples)
    with _program(folder, repository, "small") as program:
        program.wait_for(_SMALL, READY_S)
        program.drain(_SETTLED_S)
        samples = _press(program, ("J",), _drawn(_SMALL), count)
        yield _keys_figure(f"{FILES} files, file to file", samples)


def _keys_figure(what: str, samples: Sequence[float]) -> Figure:
    return Figure(
        f"key to paint in a review, {what}, p95",
        percentile(samples, 95) * 1e3,
        "ms",
        "keys pressed in turn at random moments, until what they lead to is drawn in the pty's "
        "output; 200 × 50, side by side, in colour",
        KEY_P95_MS,
        detail=spread([sample * 1e3 for sample in samples]),
    )


def _open_large(folder: Path, repository: Path, is_ahead: bool) -> float:
    with _program(folder, repository, "large") as program:
        return _open(program, is_ahead=is_ahead)


def _open(program: Program, *, is_ahead: bool) -> float:
    """Seconds from the key to the file's first change."""
    program.wait_for(re.compile(rb"about this review"), READY_S)
    program.drain(1.0)
    if not is_ahead:
        program.press("\t")
        program.drain(0.2)
        program.press("G")
        program.drain(0.5)
    program.clear()
    begun = time.perf_counter()
    program.press("J" if is_ahead else "\r")
    return program.wait_for(_FIRST, READY_S) - begun


def _press(
    program: Program, keys: Sequence[str], wait: Callable[[Program], None], count: int
) -> Sequence[float]:
    moments, samples = random.Random(1), []
    for press in range(count):
        program.clear()
        begun = time.perf_counter()
        program.press(keys[press % len(keys)])
        wait(program)
        samples.append(time.perf_counter() - begun)
        program.drain(moments.uniform(0.05, 0.2))
    return samples


def _moved(program: Program) -> None:
    """The cursor was drawn anew."""
    end = time.perf_counter() + ANSWER_S
    while program.selected_row() is None:
        if not program.read(end - time.perf_counter()):
            raise TimeoutError("the cursor did not move")


def _drawn(wanted: re.Pattern[bytes]) -> Callable[[Program], None]:
    def wait(program: Program) -> None:
        program.wait_for(wanted, ANSWER_S)

    return wait


def _program(folder: Path, repository: Path, which: str) -> Program:
    command = [sys.executable, __file__, str(folder / f"home-{which}"), str(repository), which]
    return Program(command, swarms.environ(folder))


# The repository


def _make_repository(repository: Path) -> None:
    """A base, and two branches on it: one changes a large file, one many small ones."""
    subprocess.run(["git", "init", "-q", "--bare", repository], check=True)
    old = "".join(f"value_{line:07} = 'old' + name_{line}  # why\n" for line in range(LINES))
    new = "".join(
        f"value_{line:07}_new = 'new' + name_{line}\n"
        if line // BLOCK % 2
        else f"value_{line:07} = 'old' + name_{line}  # why\n"
        for line in range(LINES)
    )
    large = [f"large_{number}.py" for number in range(3)]
    stream = [_commit("base", None), *(_file(path, old) for path in large)]
    stream += [_file(_path(number), f"a = {number}\nb = 1\n") for number in range(FILES)]
    stream += [_commit("large", "base"), *(_file(path, new) for path in large)]
    stream.append(_commit("small", "base"))
    stream += [_file(_path(number), f"a = {number}\nb = 2\n") for number in range(FILES)]
    subprocess.run(
        ["git", "-C", repository, "fast-import", "--quiet"],
        input="".join(stream).encode(),
        check=True,
    )


def _path(number: int) -> str:
    return f"package_{number // 100:02}/file_{number:04}.py"


def _commit(branch: str, parent: str | None) -> str:
    start = f"from refs/heads/{parent}\n" if parent else ""
    who = "committer bench <bench@localhost> 1700000000 +0000"
    return f"commit refs/heads/{branch}\n{who}\ndata 0\n{start}"


def _file(path: str, content: str) -> str:
    return f"M 100644 inline {path}\ndata {len(content)}\n{content}\n"


# The program


def show(home: Path, repository: Path, branch: str) -> None:
    """The review screen on one branch, over a fleet of one simulated agent."""
    from swarm_tui.bootstrap import make_simulated
    from swarm_tui.ui.app import Settings, SwarmApp
    from swarm_tui.ui.court import Terms
    from swarm_tui.ui.review import ReviewScreen

    home.mkdir(exist_ok=True)
    review, folder = asyncio.run(_survey(home, repository, branch))

    class Reader(SwarmApp):
        def on_ready(self) -> None:
            super().on_ready()
            screen = ReviewScreen(self._swarm, agent, _open_reading(), Terms(), _decided)
            self.push_screen(screen)

    from swarm_tui.model import AgentId
    from swarm_tui.review.desk import Reading
    from swarm_tui.review.quarantine import Quarantine
    from swarm_tui.review.shelf import Shelf

    agent = AgentId(review.agent)

    def _open_reading() -> Reading:
        return Reading(Shelf(home / "reviews"), Quarantine(folder, repository), review, None)

    def _decided(_verdict: object) -> None:
        raise AssertionError("nothing is decided here")

    supervisor, _ = make_simulated(1, home)

    async def run() -> None:
        async with supervisor:
            await Reader(supervisor, Settings(), lambda _: []).run_async()

    asyncio.run(run())


async def _survey(home: Path, repository: Path, branch: str):  # type: ignore[no-untyped-def]
    from swarm_tui.handoff import Review
    from swarm_tui.review.quarantine import Quarantine
    from swarm_tui.text import literal

    def commit(name: str) -> str:
        command = ["git", "-C", repository, "rev-parse", name]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    folder = home / "quarantine"
    quarantine = Quarantine(folder, repository)
    base, head = commit("base"), commit(branch)
    await quarantine.prepare(base)
    survey = await quarantine.survey(base, head)
    await quarantine.close()
    review = Review(
        "0b5e0001-77aa-4c11-9d20-000000000001",
        literal("bench"),
        1,
        time.time(),
        base,
        head,
        commit(f"{branch}^{{tree}}"),
        "sha256:" + "0" * 64,
        survey.changes,
    )
    return review, folder


if __name__ == "__main__":
    os.chdir("/")
    show(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
