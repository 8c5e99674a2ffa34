"""The owner's repository of a local swarm: what its agents began with, and where their work lands.

It is an ordinary bare repository that the person may clone, fetch from and push to.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from swarm_tui.local.image import Image
from swarm_tui.outpost.programs import Failed, run, telling

NAME: Final = "project.git"
_VARIABLES: Final = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null"}


def ensure_project(folder: Path, image: Image) -> Path:
    """The repository below `folder`, with the image's base commit in it. Blocks.

    Made from the image where it is not there yet; else nothing but a missing base is added.
    Raises SetupError, StorageFull.
    """
    target = folder / NAME
    with telling("make the repository of the agents' project"):
        if not target.exists():
            partial = folder / f".{NAME}.partial"
            shutil.rmtree(partial, ignore_errors=True)  # of an attempt that was killed
            _git("clone", "-q", "--bare", "--template=", str(image.project), str(partial))
            _git("-C", str(partial), "remote", "remove", "origin")
            partial.rename(target)
        if not _has(target, image.base_commit):
            branch = f"refs/heads/base-{image.base_commit[:12]}"
            _git("-C", str(target), "fetch", "-q", str(image.project), f"HEAD:{branch}")
    return target


def _has(repository: Path, commit: str) -> bool:
    try:
        _git("-C", str(repository), "cat-file", "-e", f"{commit}^{{commit}}")
    except Failed:
        return False
    return True


def _git(*arguments: str) -> None:
    run(["git", *arguments], variables=_VARIABLES)
