"""What an outpost far away needs of us: a few modules as source, in one small archive."""

from __future__ import annotations

import io
import zipfile
from functools import cache
from importlib.resources import files
from typing import Final

MODULES: Final = (
    "__init__.py",
    "durable.py",
    "errors.py",
    "label.py",
    "manifest.py",
    "model.py",
    "outpost/__init__.py",
    "outpost/accel.py",
    "outpost/daemon.py",
    "outpost/desk.py",
    "outpost/ledger.py",
    "outpost/network.py",
    "outpost/process.py",
    "outpost/programs.py",
    "outpost/saved.py",
    "outpost/serve.py",
    "outpost/survey.py",
    "outpost/vmm.py",
    "outpost/wire.py",
    "outpost/workshop.py",
    "paths.py",
    "premises.py",
    "profile.py",
    "snapshot.py",
    "text.py",
)
OLD_PYTHON: Final = 86
"""Exit status where Python is older than 3.11; its version is on standard output."""

_START: Final = "; ".join(
    (
        "import os, sys",
        f"sys.version_info >= (3, 11) or print(sys.version) or sys.exit({OLD_PYTHON})",
        'archive = os.memfd_create("swarm-tui")',
        'file = open(archive, "wb", closefd=False)',
        "file.write(sys.stdin.buffer.read(int(sys.argv[1])))",
        "file.close()",
        'sys.path.insert(0, "/proc/self/fd/" + str(archive))',
        "from swarm_tui.outpost.serve import main",
        "main()",
    )
)
"""Nothing is written on the host: the archive stays in memory. Any Python 3 can read this line, and
any login shell can quote it."""


@cache
def archive() -> bytes:
    """The modules as a zip file, to be sent to the command's standard input first."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as zipped:
        for module in MODULES:
            zipped.writestr(f"swarm_tui/{module}", (files("swarm_tui") / module).read_bytes())
    return buffer.getvalue()


def command() -> str:
    """The command line for the host's login shell."""
    return f"exec python3 -I -c '{_START}' {len(archive())}"
