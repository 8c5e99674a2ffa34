"""Where a libvirt daemon of this host listens."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from swarm_tui.errors import HostDenied, HostUnreachable

_ANSWER_S: Final = 5.0


def find_socket(driver: str, is_session: bool, named: Path | None) -> Path:
    """The socket of the daemon for a driver ("qemu", "ch"); `named` overrules.

    The driver's own daemon goes before the one for all (libvirt, remote_sockets.c). Raises
    HostUnreachable when none listens, HostDenied when this login may not speak to it.
    """
    places = [named] if named else _places(driver, is_session)
    refused: list[Path] = []
    for place in places:
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
            probe.settimeout(_ANSWER_S)
            try:
                probe.connect(str(place))
            except PermissionError:
                refused.append(place)
            except OSError:
                continue
            else:
                return place
    if refused:
        raise HostDenied(
            "The login may not use libvirt there",
            f"{refused[0]} is closed to it.",
            "Let it join the group libvirt (sudo usermod -aG libvirt USER), or log in as root.",
        )
    raise HostUnreachable(
        "No libvirt daemon listens there",
        f"Looked at {', '.join(str(place) for place in places)}.",
        f"Start it: sudo systemctl start virt{driver}d.socket (or libvirtd).",
    )


def _places(driver: str, is_session: bool) -> Sequence[Path]:
    names = (f"virt{driver}d-sock", "libvirt-sock")
    return [folder / name for name in names for folder in _folders(is_session)]


def _folders(is_session: bool) -> Sequence[Path]:
    if not is_session:
        return [Path("/run/libvirt")]
    # Over SSH, the variable of a desktop's session may be missing; then GLib takes the cache.
    named = os.environ.get("XDG_RUNTIME_DIR")
    runtime = Path(named) if named else Path(f"/run/user/{os.getuid()}")
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return [runtime / "libvirt", Path(cache) / "libvirt"]
