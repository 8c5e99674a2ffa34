"""The program itself, which also counts what it holds when it is sent SIGUSR2.

Run as a program: the first argument is a folder to write to, the others are swarm-tui's own.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import signal
import sys
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path

import timed

from swarm_tui.ui import app

COUNTS = "counts.json"
FRAMES = "frames.json"
_MANY = 50
_NUMBER = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|\d+")


class CountedApp(timed.TimedApp):
    def on_mount(self) -> None:  # Textual calls that of each class
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, self._count)

    def _count(self) -> None:
        tasks = Counter(_NUMBER.sub("#", task.get_name()) for task in asyncio.all_tasks())
        gc.collect()
        objects = Counter(type(each).__name__ for each in gc.get_objects())
        told = {
            "tasks": tasks,
            "objects": dict(objects.most_common(60)),
            "collected": sum(objects.values()),
            "sizes": dict(_sizes(self, "app", 5, set())),
            "screens": [type(screen).__name__ for screen in self.screen_stack],
        }
        file = FOLDER / f"{COUNTS}.new"
        file.write_text(json.dumps(told))
        os.replace(file, FOLDER / COUNTS)


def _sizes(owner: object, path: str, depth: int, seen: set[int]) -> Iterator[tuple[str, int]]:
    """How many things each container holds that the program's own objects lead to."""
    if id(owner) in seen or depth == 0:
        return
    seen.add(id(owner))
    names = [*getattr(owner, "__dict__", ()), *getattr(type(owner), "__slots__", ())]
    for name in names:
        value = getattr(owner, name, None)
        here = f"{path}.{name}"
        if isinstance(value, dict | set | list | deque | Counter):
            if len(value) >= _MANY:
                yield here, len(value)
            elif isinstance(value, dict):
                for key, each in list(value.items()):
                    if type(each).__module__.startswith("swarm_tui."):
                        yield from _sizes(each, f"{here}[{key}]", depth - 1, seen)
        elif type(value).__module__.startswith("swarm_tui."):
            yield from _sizes(value, here, depth - 1, seen)


if __name__ == "__main__":
    FOLDER = Path(sys.argv[1])
    timed.TARGET = FOLDER / FRAMES
    app.SwarmApp = CountedApp  # type: ignore[misc]
    from swarm_tui.cli import main

    sys.exit(main(sys.argv[2:]))
