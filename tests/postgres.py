"""A PostgreSQL cluster of the tests' own, of the system's programs, on a socket in a folder."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg
from memory import FOLDER, is_roomy

USER: Final = "tests"
STARTS_IN_S: Final = 60.0
_SETTINGS: Final = {
    "listen_addresses": "",
    "max_connections": "60",
    "shared_buffers": "16MB",
}


_HASTY: Final = {"fsync": "off", "full_page_writes": "off"}
"""For tests, which outlive no power cut."""


class Cluster:
    """One server; `stop` and `start` it at will."""

    def __init__(self, folder: Path, *, is_durable: bool = False) -> None:
        self.folder = folder
        self._settings = _SETTINGS | ({} if is_durable else _HASTY)
        self._programs = _find_programs()
        self._server: subprocess.Popen[bytes] | None = None
        self._databases = 0
        # PostgreSQL refuses to run as root.
        self._user: dict[str, Any] = {}
        if os.getuid() == 0:
            entry = pwd.getpwnam("nobody")
            os.chown(folder, entry.pw_uid, entry.pw_gid)
            self._user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        command = ["initdb", "--no-sync", "-A", "trust", "-U", USER, "-E", "UTF8"]
        self._run([*command, "--locale=C.UTF-8", "-D", str(folder / "data")])

    def start(self) -> None:
        pairs = self._settings.items()
        settings = [part for name, value in pairs for part in ("-c", f"{name}={value}")]
        log = (self.folder / "log").open("ab")
        with log:
            self._server = subprocess.Popen(
                [
                    str(self._programs / "postgres"),
                    *("-D", str(self.folder / "data"), "-k", str(self.folder), *settings),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                **self._user,
            )
        deadline = time.monotonic() + STARTS_IN_S
        while True:
            try:
                psycopg.connect(self.url("postgres")).close()
            except psycopg.OperationalError:
                told = (self.folder / "log").read_text()
                assert self._server.poll() is None, told
                assert time.monotonic() < deadline, told
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """At once, with all connections cut, as by a crash; it recovers at the next start."""
        if self._server:
            self._server.send_signal(3)  # SIGQUIT: "immediate shutdown"
            self._server.wait(STARTS_IN_S)
            self._server = None

    def url(self, database: str) -> str:
        return f"postgresql://{USER}@/{database}?host={self.folder}"

    def make_database(self) -> str:
        """The URL of a new, empty one."""
        self._databases += 1
        name = f"test_{self._databases}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        return self.url(name)

    def drop_database(self, url: str) -> None:
        name = url.rpartition("?")[0].rpartition("/")[2]
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _run(self, command: list[str]) -> None:
        subprocess.run(
            [str(self._programs / command[0]), *command[1:]],
            check=True,
            capture_output=True,
            cwd=self.folder,
            **self._user,
        )


@contextmanager
def cluster(*, is_durable: bool = False) -> Iterator[Cluster]:
    """A running one. Its folder's name is short: a socket's has at most 107 characters."""
    is_in_memory = not is_durable and is_roomy()
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir=FOLDER if is_in_memory else "/tmp"))
    made = Cluster(folder, is_durable=is_durable)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder)


def _find_programs() -> Path:
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"),
        key=lambda path: int(path.parts[4].partition(".")[0]),
    )
    if found:
        return found[-1].parent
    on_path = shutil.which("postgres")
    assert on_path, "PostgreSQL is not installed; scripts/test gets Debian's package"
    return Path(on_path).parent
