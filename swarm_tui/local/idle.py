"""What was made of an image for agents to come: templates and pools, which go with the image.

An agent names its image itself and has a disk of its own, but boots with a file of its template
(see `machine.rewrite`): as long as one of an image is left, its templates stay.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from swarm_tui.leftover import measure
from swarm_tui.outpost.programs import Say, locked

_FACTS = "template.json"


def find_idle(swarms: Sequence[Path], image: Path) -> Sequence[Path]:
    """The folders below these local swarms that nothing but the next agents of an image needs.

    Those that are half made are left out: a VM of one may be left. Blocks.
    """
    return [
        folder for swarm in swarms for folder in sorted(_makings(swarm)) if _is_of(folder, image)
    ]


def tell_idle(folder: Path) -> str:
    """It in words."""
    if folder.parent.name == "templates":
        return f"template {folder.name}"
    return f"pool {folder.parent.name}"


@contextmanager
def hidden_idle(swarms: Sequence[Path], image: Path, say: Say) -> Iterator[Callable[[], None]]:
    """Keep from everybody what `find_idle` finds; yields what removes it for good.

    What was not removed is there again afterwards. Waits for whoever makes or removes some of it.
    Blocks.
    """
    idle = find_idle(swarms, image)
    hidden: list[tuple[Path, Path]] = []

    def remove() -> None:
        while hidden:
            _, doomed = hidden.pop()
            size = measure(doomed) >> 20
            shutil.rmtree(doomed)
            say(f"{tell_idle(doomed.with_name(doomed.name[1:]))} went with it, {size} MiB")

    with ExitStack() as stack:
        for lock in dict.fromkeys(folder.parent / "lock" for folder in idle):
            stack.enter_context(locked(lock, say))
        try:
            for folder in idle:
                if _is_of(folder, image):  # still, now that nobody else is at it
                    doomed = folder.with_name(f".{folder.name}")  # swept where we are killed
                    shutil.rmtree(doomed, ignore_errors=True)
                    folder.rename(doomed)
                    hidden.append((folder, doomed))
            yield remove
        finally:
            for folder, doomed in hidden:
                doomed.rename(folder)


def _makings(swarm: Path) -> Iterator[Path]:
    for kind in ("templates/*/", "pools/*/*/"):
        for folder in swarm.glob(kind):
            if not folder.name.startswith("."):
                yield folder


def _is_of(folder: Path, image: Path) -> bool:
    homes = [folder] if folder.parent.name == "templates" else [*folder.glob("*/")]
    return all((home / _FACTS).exists() for home in homes if not home.name.startswith(".")) and any(
        _names(home / "definition.xml", image) for home in homes
    )


def _names(definition: Path, image: Path) -> bool:
    """Whether its kernel is the image's."""
    try:
        return f"{image}/" in definition.read_text(errors="replace")
    except OSError:
        return False
