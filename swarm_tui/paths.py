"""Where things live, and with which modes.

A user's folders follow the XDG base directory specification. As root, data and cache lie below
/var instead: there libvirt may run QEMU as a user of its own (`libvirt-qemu` on Debian), which
can neither traverse /root nor read below it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from swarm_tui.errors import SetupError, StorageFull

NAME: Final = "swarm-tui"
HOME_VARIABLE: Final = "SWARM_TUI_HOME"
"""When set, all four folders lie below it; for tests and for trying things out."""


@dataclass(frozen=True, slots=True)
class Paths:
    """The four folders of the program, and what lies at which place in them."""

    config: Path
    data: Path
    state: Path
    cache: Path

    @property
    def config_file(self) -> Path:
        return self.config / "config.toml"

    @property
    def themes(self) -> Path:
        """The user's own themes, beside those that are shipped."""
        return self.config / "themes"

    @property
    def profiles(self) -> Path:
        """The user's own profiles, beside those that are shipped."""
        return self.config / "profiles"

    @property
    def views(self) -> Path:
        """The user's own views of the fleet."""
        return self.config / "views.toml"

    @property
    def allowed_signers(self) -> Path:
        """Whose signatures on verdicts count."""
        return self.config / "allowed_signers"

    @property
    def reviewer_key(self) -> Path:
        """A key to sign with, for who has none."""
        return self.config / "reviewer_key"

    @property
    def known_hosts(self) -> Path:
        """Hosts that were trusted here, besides those of ~/.ssh/known_hosts."""
        return self.config / "known_hosts"

    @property
    def reviews(self) -> Path:
        return self.state / "reviews"

    @property
    def snapshots(self) -> Path:
        return self.data / "snapshots"

    @property
    def mirrors(self) -> Path:
        """Repositories that were fetched from elsewhere; approved work lands in them."""
        return self.data / "repositories"

    @property
    def catalogue(self) -> Path:
        return self.state / "catalogue"

    @property
    def store(self) -> Path:
        """The file of the shared store, where none is configured."""
        return self.state / "store.db"

    @property
    def audit_log(self) -> Path:
        return self.state / "audit.jsonl"

    def make(self) -> None:
        """Make the folders that are not there. Raises SetupError, StorageFull."""
        make_private(self.config)
        make_private(self.state)
        make_traversable(self.data)
        make_traversable(self.cache)


def locate(environ: Mapping[str, str] = os.environ, uid: int | None = None) -> Paths:
    """The folders by environment and user; nothing is made or read.

    Raises SetupError when the user has no home folder.
    """
    own = environ.get(HOME_VARIABLE)
    if own:
        root = Path(own).absolute()
        return Paths(root / "config", root / "data", root / "state", root / "cache")
    config = _xdg(environ, "XDG_CONFIG_HOME", ".config")
    state = _xdg(environ, "XDG_STATE_HOME", ".local/state")
    if (os.getuid() if uid is None else uid) == 0:
        return Paths(config, Path("/var/lib") / NAME, state, Path("/var/cache") / NAME)
    return Paths(
        config,
        _xdg(environ, "XDG_DATA_HOME", ".local/share"),
        state,
        _xdg(environ, "XDG_CACHE_HOME", ".cache"),
    )


def _xdg(environ: Mapping[str, str], variable: str, below_home: str) -> Path:
    # A relative path in such a variable is invalid and must be ignored, says the specification.
    folder = Path(environ.get(variable, ""))
    if folder.is_absolute():
        return folder / NAME
    home = Path(environ.get("HOME", ""))
    if not home.is_absolute():
        try:
            home = Path.home()
        except RuntimeError as error:
            raise SetupError(
                "No home folder",
                "HOME is not set and the user database has no home for this user.",
                f"Set HOME, or {HOME_VARIABLE} to a folder for everything.",
            ) from error
    return home / below_home / NAME


def make_private(folder: Path) -> Path:
    """Make `folder` for its owner alone (0700). Raises SetupError, StorageFull."""
    return _make(folder, 0o700, forbidden=0o077)


def make_traversable(folder: Path) -> Path:
    """Make `folder` so that others reach a file in it by name but cannot list it (0711).

    Raises SetupError, StorageFull.
    """
    return _make(folder, 0o711, forbidden=0o022)


def _make(folder: Path, wanted: int, forbidden: int) -> Path:
    try:
        folder.mkdir(mode=wanted, parents=True, exist_ok=True)
        mode = stat.S_IMODE(folder.stat().st_mode)
        mended = (mode | wanted) & ~forbidden
        if mode != mended:  # an earlier folder, or a umask that took bits away
            folder.chmod(mended)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull("No room for a folder", f"{folder}: {error.strerror}") from error
        raise SetupError(
            "A folder cannot be made",
            f"{folder}: {error.strerror}",
            "Mend its permissions, or name another folder in [paths] of the configuration.",
        ) from error
    return folder
