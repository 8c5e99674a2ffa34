"""Other programs and the file system, as `outpost.programs` has them."""

from swarm_tui.outpost.programs import (
    PROGRAMS,
    Failed,
    Say,
    environment,
    failure,
    find,
    locked,
    make_folder,
    missing_programs,
    replace,
    require_programs,
    run,
    telling,
)

__all__ = [
    "PROGRAMS",
    "Failed",
    "Say",
    "environment",
    "failure",
    "find",
    "locked",
    "make_folder",
    "missing_programs",
    "replace",
    "require_programs",
    "run",
    "telling",
]
