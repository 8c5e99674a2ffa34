"""The life of one simulated agent: a story that follows from a seed and the seconds it has lived.

A life is a row of steps (think, read, edit, test…). A step has steady rates and a few lines to
say, so whatever is asked at some moment is computed then, from the step that it falls into: ten
thousand lives cost nothing while nobody looks. A life stands still while its VM is stopped or
its agent frozen, can be put into JSON, and goes on from there exactly.
"""

from __future__ import annotations

import math
from collections import deque
from itertools import islice
from typing import Any, Final

from swarm_tui.adapters.simulated.script import Draws, Line, Script, Step
from swarm_tui.adapters.simulated.tasks import MODELS
from swarm_tui.model import Counters, EventBatch, EventKind, GuestEvent
from swarm_tui.text import EMPTY, literal, sanitize

LINE_BYTES: Final = 256
"""Each line of a simulated guest's event file is padded to this, so that a byte offset tells at
once how many events came before it."""

_KIB: Final = 1 << 10
_MIB: Final = 1 << 20
_FOR_EVER: Final = math.inf
_BATCH: Final = 500
"""Events read at once, at most."""


def _make_wobble() -> tuple[float, ...]:
    draws = Draws(7)
    return tuple(draws.uniform(0.0, 0.45) for _ in range(256))


_WOBBLE: Final = _make_wobble()
"""Ticks by which the counters run ahead of the time, tick by tick: rates that never stand still.
Neighbours differ by less than one, so a total never goes back."""


class Life:
    """One agent's story; times given to it are a clock's monotonic seconds."""

    __slots__ = (
        "_anchor_at",
        "_anchor_position",
        "_end",
        "_file",
        "_kept",
        "_leak",
        "_memory",
        "_origin",
        "_pace",
        "_phase",
        "_said",
        "_scale",
        "_script",
        "_speed",
        "_step",
        "_step_start",
        "_tick",
        "_totals",
        "_wall_zero",
        "_warped_start",
        "has_crashed",
        "total",
    )

    def __init__(
        self,
        seed: int,
        task: int,
        *,
        fate: str = "works",
        lived: float = 0.0,
        speed: float = 1.0,
        tick_s: float = 1.0,
        kept: int = 64,
        calm: float = 1.0,
    ) -> None:
        """`lived` seconds lie behind it already; it stands still until `go`.

        `tick_s` is how often its figures change; `kept` is how many events it remembers; `calm`
        is how much longer than usual it takes over each step.
        """
        draws = Draws(seed)
        self._script = Script(draws, task, fate, lived=lived, calm=calm)
        self._speed = speed
        self._scale = 1.0 / speed
        self._tick = tick_s * speed
        self._kept = kept
        self._phase = draws.uniform(0.0, 256.0)
        self._memory = draws.whole(140, 420) * _MIB
        self._leak = draws.uniform(8, 60) * _KIB
        self._totals = [
            lived * draws.uniform(0.05, 0.25),
            lived * draws.uniform(20, 90) * _KIB,
            lived * draws.uniform(10, 60) * _KIB,
            lived * draws.uniform(4, 30) * _KIB,
            lived * draws.uniform(2, 12) * _KIB,
        ]
        self._anchor_at = 0.0
        self._anchor_position = lived
        self._pace = 0.0
        self._wall_zero = 0.0
        self._file: deque[tuple[float, Line]] = deque()
        self._origin = int(lived / 4)
        """Events that count as written before the story began; nobody can read them."""
        self.total = self._origin
        """Events ever written."""
        self.has_crashed = False
        self._begin(self._script.first(), lived)

    # Time

    def go(self, at: float, wall: float) -> None:
        """Let it live from the moment `at` on, which may lie ahead; `wall` is the time there."""
        self.live(at)
        self._anchor_position = self.position(at)
        self._anchor_at = at
        self._pace = self._speed
        self._date(self._anchor_position, wall)

    def halt(self, now: float) -> None:
        """Let it stand still."""
        self.live(now)
        self._anchor_position = self.position(now)
        self._anchor_at = now
        self._pace = 0.0

    def position(self, now: float) -> float:
        """Seconds lived."""
        return self._anchor_position + self._pace * max(0.0, now - self._anchor_at)

    def due(self) -> float:
        """When something happens next by itself; infinity when nothing will."""
        if not self._pace:
            return _FOR_EVER
        lines = self._step.lines
        after = lines[self._said].after if self._said < len(lines) else self._step.seconds
        turn = self._step_start + after
        return self._anchor_at + (turn - self._anchor_position) * self._scale

    def live(self, now: float) -> None:
        """Catch up with the time: go through all steps and lines up to now."""
        position = self.position(now)
        self._pass_steps(position)
        self._say_until(position)

    def _pass_steps(self, position: float) -> None:
        while position >= self._end:
            end = self._end
            self._say_until(end)
            self._settle(end)
            self._begin(self._script.next(self._step.stage, self._step_start), end)

    # What can be seen of it

    def counters(self, now: float, memory_given: int | None) -> Counters:
        position = self._anchor_position + self._pace * max(0.0, now - self._anchor_at)
        if position >= self._end:
            self._pass_steps(position)
        step = self._step
        cpu, read, written, received, sent = self._totals
        into = self._warp(position) - self._warped_start
        used = self._memory + step.memory + int(self._leak * (position % 3600.0))
        scale = self._scale
        return Counters(
            now,
            int((cpu + step.cpu * into) * scale * 1e9),
            used,
            memory_given,
            used + 96 * _MIB,
            int((read + step.read * into) * scale),
            int((written + step.written * into) * scale),
            int((received + step.received * into) * scale),
            int((sent + step.sent * into) * scale),
        )

    def read(self, offset: int) -> EventBatch:
        """Events after a byte offset of its event file; see `LINE_BYTES`."""
        index = offset // LINE_BYTES
        if index > self.total:
            index = 0
        oldest = self.total - len(self._file)
        dropped = max(0, oldest - max(index, self._origin))
        start = max(index, oldest)
        stop = min(self.total, start + _BATCH)
        lines = islice(self._file, start - oldest, stop - oldest)
        events = tuple(self._event(at, line) for at, line in lines)
        return EventBatch(events, stop * LINE_BYTES, dropped)

    # What can be done to it

    def answer(self, verdict: str, text: str, now: float, wall: float) -> None:
        """A verdict came in, asked for or not; what it does from now on follows from it."""
        self.live(now)
        position = self.position(now)
        self._date(position, wall)
        self._settle(position)
        said, step = self._script.answer(verdict, text, position)
        self._emit(position, EventKind.STATUS, said)
        self._begin(step, position)

    @property
    def task(self) -> int:
        """Which of `TASKS` it works on, counted round and round."""
        return self._script.task

    def answered(self) -> tuple[tuple[str, str], ...]:
        """The verdicts, and what was said with them, that its commits have taken up."""
        script = self._script
        return tuple(script.answers[: script.taken])

    def inherit(self, former: Life) -> None:
        """What an earlier life in the same VM was told, which its commits show, still counts."""
        script, old = self._script, former._script
        script.answers, script.taken = list(old.answers), old.taken

    def branch(self, chance: int, parent: str, now: float, wall: float) -> None:
        """It is a fork's from now on: its log begins anew, and what it draws is its own.

        What its parent waits for, it waits for, too.
        """
        position = self.position(now)
        self._date(position, wall)
        self._script.draws.state ^= Draws(chance).state
        self._file.clear()
        self._origin = self.total = 0
        self._emit(position, EventKind.LOG, f"forked from {parent}; what was before is in its log")
        for line in self._step.lines[: self._said]:
            if line.kind in (EventKind.ASK, EventKind.DONE):
                self._write(position, line)

    def note(self, text: str, now: float, wall: float) -> None:
        """A message came in."""
        self.live(now)
        position = self.position(now)
        self._date(position, wall)
        self._emit(position, EventKind.LOG, f"inbox: {text}")

    def flood(self, lines: list[str], now: float) -> None:
        """Say many lines at once."""
        self.live(now)
        self._kept = max(self._kept, min(len(lines), 2 * _BATCH))
        for line in lines:
            self._emit(self.position(now), EventKind.LOG, line)

    # Saved state

    def to_json(self, now: float) -> dict[str, Any]:
        """All of it, as it stands at this moment."""
        self.live(now)
        script = self._script
        return {
            "seed": script.draws.state,
            "task": script.task,
            "fate": [script.fate, script.fate_at],
            "cycle": script.cycle,
            "answers": script.answers,
            "taken": script.taken,
            "calm": script.calm,
            "speed": self._speed,
            "tick": self._tick,
            "kept": self._kept,
            "phase": self._phase,
            "memory": self._memory,
            "leak": self._leak,
            "totals": self._totals,
            "lived": self.position(now),
            "step": [None if value == _FOR_EVER else value for value in self._step],
            "step_start": self._step_start,
            "said": self._said,
            "origin": self._origin,
            "total": self.total,
            "file": [[at, list(line)] for at, line in self._file],
        }

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Life:
        """Raises KeyError, TypeError or ValueError when it is no saved life."""
        life = cls(0, raw["task"], speed=raw["speed"], kept=raw["kept"], calm=raw["calm"])
        script = life._script
        script.draws.state, script.cycle = raw["seed"], raw["cycle"]
        script.fate, script.fate_at = raw["fate"]
        script.answers = [(str(verdict), str(text)) for verdict, text in raw["answers"]]
        script.taken = raw["taken"]
        life._tick = raw["tick"]
        life._phase = raw["phase"]
        life._memory = raw["memory"]
        life._leak = raw["leak"]
        life._totals = [float(total) for total in raw["totals"]]
        life._anchor_position = float(raw["lived"])
        stage, seconds, lines, *rates = raw["step"]
        lines = tuple(Line(*line) for line in lines)
        step = Step(stage, _FOR_EVER if seconds is None else seconds, lines, *rates)
        life._begin(step, float(raw["step_start"]), said=raw["said"])
        life._origin, life.total = raw["origin"], raw["total"]
        life._file = deque((at, Line(*line)) for at, line in raw["file"])
        return life

    # Steps

    def _begin(self, step: Step, position: float, said: int = 0) -> None:
        self._step = step
        self._step_start = position
        self._warped_start = self._warp(position)
        self._said = said
        self._end = position + step.seconds
        self.has_crashed = step.stage == "crash"

    def _say_until(self, position: float) -> None:
        lines, start = self._step.lines, self._step_start
        while self._said < len(lines) and start + lines[self._said].after <= position:
            line = lines[self._said]
            self._said += 1
            self._write(start + line.after, line)

    def _emit(self, position: float, kind: EventKind, text: str) -> None:
        self._write(position, Line(0.0, kind, text))

    def _write(self, position: float, line: Line) -> None:
        """Append to the event file; most of it is never read, so it is cheap to write."""
        self._file.append((self._wall_zero + position * self._scale, line))
        self.total += 1
        if len(self._file) > self._kept:
            self._file.popleft()

    def _date(self, position: float, wall: float) -> None:
        """It may have stood still until now, and still do so."""
        self._wall_zero = wall - position * self._scale

    def _event(self, at: float, line: Line) -> GuestEvent:
        kind = EventKind(line.kind)
        is_usage = kind is EventKind.USAGE
        model = literal(MODELS[self._script.task % len(MODELS)]) if is_usage else EMPTY
        text = sanitize(line.text)
        return GuestEvent(kind, text, round(at, 3), model, line.tokens_in, line.tokens_out)

    def _settle(self, position: float) -> None:
        """Add what the step has used to the totals."""
        step, totals = self._step, self._totals
        into = self._warp(position) - self._warped_start
        rates = (step.cpu, step.read, step.written, step.received, step.sent)
        for index, rate in enumerate(rates):
            totals[index] += rate * into

    def _warp(self, position: float) -> float:
        ticks = position / self._tick + self._phase
        whole = int(ticks)
        low, high = _WOBBLE[whole & 255], _WOBBLE[(whole + 1) & 255]
        return position + (low + (high - low) * (ticks - whole)) * self._tick
