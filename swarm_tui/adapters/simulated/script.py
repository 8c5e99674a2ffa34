"""What a simulated agent does next, and the words it finds for it: one step after another."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final, NamedTuple

from swarm_tui.adapters.simulated.tasks import FAILURES, FIXES, TASKS, THOUGHTS, Task

_MASK: Final = (1 << 64) - 1
_UNIT: Final = 2.0**-53
_KIB: Final = 1 << 10
_MIB: Final = 1 << 20


class Draws:
    """Random numbers whose whole state is one integer, so that it can be saved.

    A linear congruential generator with Knuth's constants for MMIX, of which the high bits count.
    """

    __slots__ = ("state",)

    def __init__(self, seed: int) -> None:
        self.state = seed & _MASK
        for _ in range(4):  # neighbouring seeds go apart
            self.state = (self.state ^ (self.state >> 29)) * 0xBF58476D1CE4E5B9 & _MASK

    def uniform(self, low: float, high: float) -> float:
        self.state = state = (self.state * 6364136223846793005 + 1442695040888963407) & _MASK
        return low + (high - low) * (state >> 11) * _UNIT

    def whole(self, low: int, high: int) -> int:
        """Both ends included."""
        return min(high, int(self.uniform(low, high + 1)))

    def pick(self, choices: tuple[str, ...]) -> str:
        return choices[self.whole(0, len(choices) - 1)]


class Line(NamedTuple):
    """Something that the agent says `after` so many seconds of its step."""

    after: float
    kind: str
    text: str
    tokens_in: int = 0
    tokens_out: int = 0


class Step(NamedTuple):
    """A while of doing one thing. Rates are bytes per second of the story."""

    stage: str
    seconds: float
    lines: tuple[Line, ...]
    cpu: float
    """Cores in use."""
    memory: int = 0
    """Bytes in use above the agent's usual."""
    read: float = 0.0
    written: float = 0.0
    received: float = 0.0
    sent: float = 0.0


class Script:
    """Decides an agent's steps. All of its state can be put into JSON."""

    __slots__ = ("answers", "calm", "cycle", "draws", "fate", "fate_at", "taken", "task")

    def __init__(
        self, draws: Draws, task: int, fate: str, *, lived: float = 0.0, calm: float = 1.0
    ) -> None:
        self.calm = calm
        """How much longer than usual it takes over each step."""
        self.draws = draws
        self.task = task
        self.fate = fate
        self.fate_at = lived + _first_turn(fate, draws)
        """From when on the fate may strike, in seconds lived."""
        self.cycle = draws.whole(2, 40) if lived else 0
        self.answers: list[tuple[str, str]] = []
        """Verdicts and their messages, as they came in."""
        self.taken = 0
        """How many of them are in its commits."""

    def first(self) -> Step:
        return self.plan("commit" if self.fate in ("asking", "done") else "think")

    def answer(self, verdict: str, text: str, position: float) -> tuple[str, Step]:
        """What it says to a verdict, and what it does then."""
        said = {
            "approve": "approved: going on with the next part",
            "send-back": f"sent back: {text.partition(chr(10))[0] or 'see the comments'}",
            "reject": "rejected: starting over",
        }.get(verdict, "answered")
        self.answers.append((verdict, text))
        is_soon = verdict == "send-back"
        if is_soon and self.fate != "asking":
            self.fate = "asks"  # also one that was reviewed unasked
        self.fate_at = position + self.draws.uniform(*((20, 40) if is_soon else (180, 480)))
        return said, self.plan("edit" if is_soon else "think")

    def next(self, stage: str, position: float) -> Step:
        """The step after one of `stage` that began at `position`."""
        return self.plan(self._follow(stage, position))

    def _follow(self, stage: str, position: float) -> str:
        """What comes after the step that just ended."""
        match stage:
            case "think":
                return "read" if self.draws.uniform(0, 1) < 0.6 else "edit"
            case "read":
                return "think" if self.draws.uniform(0, 1) < 0.35 else "edit"
            case "edit":
                return "edit" if self.draws.uniform(0, 1) < 0.25 else "test"
            case "test":
                return "commit"
            case "fail":
                return "think" if self.draws.uniform(0, 1) < 0.4 else "edit"
        self.cycle += 1
        if self.fate == "works" or position < self.fate_at:
            return "install" if self.cycle % 9 == 4 else "think"
        return {"finishes": "done", "done": "done", "crashes": "crash"}.get(self.fate, "ask")

    def plan(self, stage: str) -> Step:
        step = self._plan(stage)
        if self.calm == 1.0:
            return step
        lines = tuple(line._replace(after=line.after * self.calm) for line in step.lines)
        return step._replace(seconds=step.seconds * self.calm, lines=lines)

    def _plan(self, stage: str) -> Step:
        draws, task = self.draws, TASKS[self.task % len(TASKS)]
        file = draws.pick(task.files)
        lines: tuple[Line, ...]
        match stage:
            case "think":
                seconds = draws.uniform(3.0, 9.0)
                thought = draws.pick(THOUGHTS).format(symbol=task.symbol, file=file)
                tokens_in, tokens_out = draws.whole(2_000, 40_000), draws.whole(150, 2_200)
                lines = (
                    Line(0.4, "status", f"thinking about {task.symbol}"),
                    Line(seconds * 0.7, "log", thought),
                    Line(seconds * 0.9, "usage", "", tokens_in, tokens_out),
                )
                sent, received = tokens_in * 4 / seconds, tokens_out * 40 / seconds
                return Step(stage, seconds, lines, 0.04, received=received, sent=sent)
            case "read":
                seconds = draws.uniform(1.2, 4.0)
                lines = (
                    Line(0.1, "tool", f"Read {file} ({draws.whole(40, 900)} lines)"),
                    Line(seconds * 0.6, "tool", f"Grep {task.symbol} in {_folder(file)}/"),
                )
                return Step(stage, seconds, lines, 0.18, read=draws.uniform(0.3, 6.0) * _MIB)
            case "edit":
                seconds = draws.uniform(1.5, 5.0)
                changed = f"+{draws.whole(1, 60)} −{draws.whole(0, 24)}"
                lines = (
                    Line(0.2, "status", f"editing {file}"),
                    Line(seconds * 0.8, "tool", f"Edit {file} {changed}"),
                )
                return Step(stage, seconds, lines, 0.12, written=draws.uniform(20, 400) * _KIB)
            case "test":
                return self._plan_test(task)
            case "commit":
                oid = f"{draws.whole(0, 0xFFFFFFF):07x}"
                fix = draws.pick(FIXES)
                if self.taken < len(self.answers):
                    fix = _TAKING_UP.get(self.answers[-1][0], fix)
                    self.taken = len(self.answers)
                lines = (
                    Line(0.2, "tool", f"Bash git commit -qm '{fix}'"),
                    Line(0.7, "log", f"[swarm {oid}] {fix}"),
                )
                return Step(stage, 1.5, lines, 0.3, written=900 * _KIB)
            case "install":
                size = draws.whole(20, 300)
                lines = (
                    Line(0.2, "status", "installing what the tests need"),
                    Line(4.5, "log", f"installed {draws.whole(3, 60)} packages, {size} MB"),
                )
                rate = size * _MIB / 6.0
                return Step(stage, 6.0, lines, 0.55, 64 * _MIB, 0.0, rate, rate * 0.4, rate / 50)
            case "ask":
                lines = (Line(0.0, "ask", self._question(task)),)
            case "done":
                said = f"{task.symbol}: all {draws.whole(40, 400)} tests pass, branch is ready"
                lines = (Line(0.0, "done", said),)
            case _:
                lines = (
                    Line(0.0, "log", "Killed"),
                    Line(0.0, "log", "kernel: Out of memory: killed process 412 (node)"),
                )
        return Step(stage, math.inf, lines, 0.005)

    def _plan_test(self, task: Task) -> Step:
        draws = self.draws
        seconds = draws.uniform(4.0, 14.0)
        cases = draws.whole(8, 120)
        lines = [
            Line(0.1, "status", "running the tests"),
            Line(0.2, "tool", f"Bash {_runner(task.test)}"),
            Line(1.0, "log", f"collected {cases} tests"),
        ]
        lines += [
            Line(1.0 + (seconds - 1.5) * share / 100, "log", f"{cases * share // 100} passed")
            for share in (30, 60)
        ]
        fails = draws.uniform(0, 1) < 0.35
        if fails:
            lines.append(Line(seconds - 0.4, "log", draws.pick(FAILURES)))
            verdict = f"1 failed, {cases - 1} passed in {seconds:.1f} s"
        else:
            verdict = f"{cases} passed in {seconds:.1f} s"
        lines.append(Line(seconds - 0.2, "log", verdict))
        return Step(
            "fail" if fails else "test",
            seconds,
            tuple(lines),
            draws.uniform(0.55, 1.0),
            draws.whole(40, 260) * _MIB,
            draws.uniform(0.1, 4.0) * _MIB,
            draws.uniform(0.1, 2.0) * _MIB,
            2 * _KIB,
            1 * _KIB,
        )

    def _question(self, task: Task) -> str:
        last = self.answers[-1][0] if self.answers else ""
        return {
            "approve": f"next part of {task.symbol} ready",
            "send-back": "took up your comments, tests pass",
            "reject": "made another plan; is it better?",
        }.get(last, f"{task.symbol} ready, tests pass")


_TAKING_UP: Final = {
    "approve": "go on with the next part",
    "send-back": "take up the review",
    "reject": "plan a second try",
}


def fates(agents: int) -> Iterator[str]:
    """What becomes of each agent: most work on, a few ask, finish or crash, spread evenly.

    Who asks or finishes has a task with work to show (see `works`).
    """
    special = {1: "asking", 5: "asks", 8: "finishes", 12: "done", 19: "asks later", 23: "crashes"}
    for index in range(agents):
        yield special.get(index % len(TASKS), "works")


def _first_turn(fate: str, draws: Draws) -> float:
    """Seconds until the fate strikes, at the end of some piece of work."""
    low, high = {
        "asking": (0, 0),
        "done": (0, 0),
        "asks": (20, 60),
        "asks later": (180, 420),
        "finishes": (90, 240),
        "crashes": (60, 200),
    }.get(fate, (0, 0))
    return draws.uniform(low, high)


def _folder(file: str) -> str:
    return file.rpartition("/")[0] or "."


def _runner(test: str) -> str:
    if test.endswith(".py"):
        return f"pytest -q {test}"
    if test.endswith(".go"):
        return f"go test ./{_folder(test)}/"
    if test.endswith(".rs"):
        return "cargo test --test compat"
    return f"npx vitest run {test}"
