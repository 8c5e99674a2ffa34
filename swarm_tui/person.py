"""Who runs this program, as the system knows them."""

from __future__ import annotations

import os
import socket


def login() -> str:
    """The login name, or the user's number where a container runs us without a name."""
    return _name() or str(os.getuid())


def actor() -> str:
    """Login name and machine: who acts, for whom it matters from where."""
    return f"{_name() or f'uid {os.getuid()}'}@{socket.gethostname()}"


def _name() -> str:
    """Empty where there is none."""
    import getpass  # takes milliseconds, and `ls` seldom needs it

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
