"""Checks of what is the user's: terminal, settings, folders, and the program's own parts."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import re
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from swarm_tui.database import open_database
from swarm_tui.doctor.finding import Finding, Ground, fail, failed, ok, warn
from swarm_tui.doctor.machine import nearest

_LIBRARIES: Final = (
    ("textual", "textual"),
    ("asyncssh", "asyncssh"),
    ("libvirt-python", "libvirt"),
)
_SECRET: Final = re.compile("KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL", re.IGNORECASE)
_COLUMNS: Final = 80
_LINES: Final = 24


def libraries(ground: Ground) -> Iterator[Finding]:
    yield ok("python", f"{platform.python_version()} at {sys.executable}")
    for distribution, module in _LIBRARIES:
        try:
            importlib.import_module(module)
        except ImportError as error:
            yield fail(
                distribution,
                "cannot be loaded",
                str(error),
                "Install the package again: scripts/demo does, or pip install swarm-tui.",
            )
        else:
            yield ok(distribution, importlib.metadata.version(distribution))


def settings(ground: Ground) -> Iterator[Finding]:
    file = ground.loaded.file
    if file.exists():
        yield ok("configuration", f"{file} is valid")
    else:
        yield ok("configuration", f"no {file}: everything has its default")


def themes(ground: Ground) -> Iterator[Finding]:
    from swarm_tui.ui.theme import builtin_folder, load_themes

    ui = ground.loaded.config.ui
    found = load_themes((builtin_folder(), ui.themes))
    for problem in found.problems:
        yield failed("theme", problem)
    if ui.theme in found.palettes:
        yield ok("theme", f"{ui.theme}; there are {', '.join(sorted(found.palettes))}")
    else:
        yield fail(
            "theme",
            f"there is no theme {ui.theme!r}",
            f"ui.theme names it; there are {', '.join(sorted(found.palettes))}.",
            f"Name one of these, or put {ui.theme}.toml into {ui.themes}.",
        )


def profiles(ground: Ground) -> Iterator[Finding]:
    from swarm_tui.profiles import load

    found = load(ground.loaded.paths.profiles)
    for entry in found.entries:
        if entry.error:
            yield failed(f"profile {entry.name}", entry.error)
            continue
        profile = entry.profile
        written = (
            [name for name, _ in profile.environment if _SECRET.search(name)] if profile else []
        )
        if written:
            yield warn(
                f"profile {entry.name}",
                f"{', '.join(written)}: the value stands in the file",
                f"Whoever reads {entry.file} has it.",
                f'Write {written[0]} = {{ from = "{written[0]}" }}, and set that for swarm-tui.',
            )
    names = ", ".join(str(profile.name) for profile in found.usable)
    yield ok("profiles", f"{names}; your own are in {ground.loaded.paths.profiles}")


def folders(ground: Ground) -> Iterator[Finding]:
    paths = ground.loaded.paths
    for name, folder in (
        ("state folder", paths.state),
        ("data folder", paths.data),
        ("cache folder", paths.cache),
        ("snapshot folder", ground.loaded.config.snapshots.folder),
        ("catalogue", paths.catalogue),
    ):
        if obstacle := _obstacle(folder):
            yield fail(name, f"{folder} is not writable", obstacle, _remedy(folder))
        else:
            yield ok(name, str(folder))
    log = paths.audit_log
    if log.exists() and not os.access(log, os.W_OK):
        yield fail(
            "audit log",
            f"{log} is not writable",
            "No verb is done without its record.",
            _remedy(log),
        )
    else:
        yield ok("audit log", str(log))


def store(ground: Ground) -> Iterator[Finding]:
    with closing(open_database(ground.loaded.config.store.url)) as database:
        if database.folder and not Path(database.place).exists():
            yield ok("shared store", f"{database.place}, which is made when it is first used")
            return
        began = time.monotonic()
        database.check()  # what it raises tells all, and is told
        took_ms = 1000 * (time.monotonic() - began)
        yield ok("shared store", f"{database.place} answers in {took_ms:.0f} ms")


def _obstacle(folder: Path) -> str:
    """Why no file can be made there; empty when one can, or the folder can be made."""
    place = nearest(folder)
    if place != folder:
        blocked = next((part for part in (folder, *folder.parents) if part.exists()), place)
        if blocked != place:
            return f"{blocked} is not a folder"
        return "" if os.access(place, os.W_OK | os.X_OK) else f"{place} is not writable for you"
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as file:
            file.write(b"x" * 4096)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _remedy(path: Path) -> str:
    place = path if path.exists() else nearest(path)
    facts = place.stat()
    if facts.st_uid != os.getuid():
        return f"sudo chown -R $USER {place} (it is owned by user {facts.st_uid})"
    if not facts.st_mode & stat.S_IWUSR:
        return f"chmod u+w {place}"
    return "Make room, or name another folder in [paths] of the configuration."


def terminal(ground: Ground) -> Iterator[Finding]:
    tty = next((stream for stream in (sys.stdout, sys.stderr) if stream.isatty()), None)
    if tty is None:
        yield ok("terminal", "none here, so it is not examined")
        return
    columns, lines = os.get_terminal_size(tty.fileno())
    if columns < _COLUMNS or lines < _LINES:
        yield warn(
            "terminal size",
            f"{columns}×{lines}",
            f"Below {_COLUMNS}×{_LINES} not everything finds its place.",
            "Make the window larger.",
        )
    else:
        yield ok("terminal size", f"{columns}×{lines}")
    if (tty.encoding or "").lower().replace("-", "") != "utf8":
        yield warn(
            "terminal encoding",
            f"{tty.encoding}, not UTF-8",
            "Glyphs and sparklines are drawn with ASCII.",
            "Set LANG to a UTF-8 locale such as C.UTF-8.",
        )
    else:
        yield ok("terminal encoding", "UTF-8")
    yield _colours(ground)


def _colours(ground: Ground) -> Finding:
    kind = ground.environ.get("TERM", "")
    if kind in ("", "dumb", "unknown"):
        return fail(
            "terminal kind",
            f"TERM is {kind!r}",
            "Such a terminal cannot place text on the screen.",
            "Use a terminal emulator, or set TERM to what yours is, e.g. xterm-256color.",
        )
    if ground.environ.get("NO_COLOR"):
        return ok("colours", "none, because NO_COLOR is set")
    if ground.environ.get("COLORTERM") in ("truecolor", "24bit"):
        return ok("colours", f"16 million ({kind})")
    if "256" in kind:
        return ok("colours", f"256 ({kind}); themes look best with 16 million")
    return warn(
        "colours",
        f"few ({kind})",
        "Themes are made for 256 colours or more.",
        "Set TERM to e.g. xterm-256color, or COLORTERM=truecolor, if your terminal has them.",
    )
