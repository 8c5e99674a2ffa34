"""Our tools for guests with a foreign userland: a shell, an SSH server, git, each self-contained.

They are those of our own image. busybox is static; the others get the loader and the libraries
that lie beside them, by their interpreter and DT_RPATH (ld.so(8)), so that neither musl nor an
older or newer glibc of the image has any part in them, and no environment variable is needed that
their children would inherit.

    bin/      busybox and its applets, git, dropbear
    lib/      loader and libraries
    modules/  drivers that are loaded after the boot, and their order
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from swarm_tui.outpost.programs import make_folder, run

_HOME: Final = "/usr/lib/swarm"
_PROGRAMS: Final = {"git": "usr/bin/git", "dropbear": "usr/sbin/dropbear"}
_GIT_NAMES: Final = ("git-upload-pack", "git-receive-pack", "git-upload-archive")
_LIBRARIES: Final = "usr/lib/x86_64-linux-gnu"
_LOADER: Final = "ld-linux-x86-64.so.2"


def make_kit(root: Path, drivers: Path, target: Path) -> None:
    """Take it out of `root`, an unpacked tree of our own packages.

    Raises Failed, SetupError, StorageFull, OSError.
    """
    for name in ("bin", "lib", "modules"):
        make_folder(target / name)
    shutil.copy(root / "bin/busybox", target / "bin/busybox")
    for applet in run([str(target / "bin/busybox"), "--list"]).decode().split():
        if applet != "busybox":
            (target / "bin" / applet).symlink_to("busybox")
    waiting: list[str] = [_LOADER]
    for name, place in _PROGRAMS.items():
        program = target / "bin" / name
        shutil.copy(root / place, program)
        waiting.extend(_needed(program))
        loader = ["--set-interpreter", f"{_HOME}/lib/{_LOADER}"]
        run(["patchelf", *loader, "--force-rpath", "--set-rpath", f"{_HOME}/lib", str(program)])
    for name in _GIT_NAMES:
        (target / "bin" / name).symlink_to("git")
    while waiting:
        library = target / "lib" / waiting.pop()
        if not library.exists():
            shutil.copy(root / _LIBRARIES / library.name, library)
            waiting.extend(_needed(library))
    for path in target.joinpath("lib").iterdir():
        path.chmod(0o755)
    for path in drivers.iterdir():
        shutil.copy(path, target / "modules" / path.name)


def _needed(program: Path) -> Sequence[str]:
    return run(["patchelf", "--print-needed", str(program)]).decode().split()
