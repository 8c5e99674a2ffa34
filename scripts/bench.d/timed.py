"""The program itself, which also writes down when each frame was due and when it came.

Run as a program: the first argument is the file to write, the others are swarm-tui's own.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

from swarm_tui.ui import app
from swarm_tui.ui.app import TICK_S, SwarmApp

LATE_S = 1 / 30
"""A frame that is later than this is one that a person can notice."""


class TimedApp(SwarmApp):
    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.frames: list[float] = []

    def _tick(self) -> None:
        self.frames.append(time.perf_counter())
        super()._tick()

    def exit(self, *arguments: Any, **named: Any) -> None:
        TARGET.write_text(json.dumps(self.frames))
        super().exit(*arguments, **named)


def read_late(file: Path, after: float) -> tuple[int, int, float]:
    """Of the frames after a moment: how many came late, how many there were, the longest wait.

    The clock is `time.perf_counter`, which all processes of a machine share.
    """
    frames = [frame for frame in json.loads(file.read_text()) if frame >= after]
    waits = [later - sooner for sooner, later in itertools.pairwise(frames)]
    late = sum(wait > TICK_S + LATE_S for wait in waits)
    return late, len(waits), max(waits, default=0.0)


if __name__ == "__main__":
    TARGET = Path(sys.argv[1])
    app.SwarmApp = TimedApp  # type: ignore[misc]
    from swarm_tui.cli import main

    sys.exit(main(sys.argv[2:]))
