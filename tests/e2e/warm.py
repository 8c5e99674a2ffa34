"""The program, started from a process that has loaded its modules already: the same, but sooner.

Each command is a process of its own, forked from one that has run nothing yet. Tests run hundreds
of commands, and to load the modules for each takes longer than most of them do.
"""

from __future__ import annotations

import array
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import IO, Self

_MODULES = (
    *("acting", "adapters.late", "adapters.libvirt", "adapters.ssh", "attach", "auditing"),
    *("bootstrap", "cli", "database.sqlite", "listening", "local.forks", "local.spawner"),
    *("local.swarm", "report", "review.proof", "reviewing", "spawning", "supervisor"),
)


class Warm:
    """Starts commands, one after the other."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self._socket = ours
        with theirs:
            command = [sys.executable, __file__, str(theirs.fileno())]
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
            )
        self._answers = ours.makefile()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._answers.close()
        self._socket.close()
        self._process.wait()

    def run(
        self, arguments: Sequence[str], environ: Mapping[str, str], stdin: str, timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """As `subprocess.run` would, with what it wrote captured."""
        with (
            tempfile.TemporaryFile("w+") as given,
            tempfile.TemporaryFile("w+") as out,
            tempfile.TemporaryFile("w+") as error,
        ):
            given.write(stdin)
            given.seek(0)
            self._send(arguments, environ, (given, out, error))
            pid = int(self._answers.readline())
            self._socket.settimeout(timeout_s)
            try:
                status = int(self._answers.readline())
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise
            finally:
                self._socket.settimeout(None)
            out.seek(0)
            error.seek(0)
            return subprocess.CompletedProcess([*arguments], status, out.read(), error.read())

    def _send(
        self, arguments: Sequence[str], environ: Mapping[str, str], files: Sequence[IO[str]]
    ) -> None:
        request = json.dumps([[*arguments], dict(environ), os.getcwd()]).encode()
        fds = array.array("i", [file.fileno() for file in files])
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)]
        self._socket.sendmsg([len(request).to_bytes(4)], rights)
        self._socket.sendall(request)


def serve(connection: socket.socket) -> None:
    """Fork for each request, tell the process, and how it ended."""
    for module in _MODULES:
        import_module(f"swarm_tui.{module}")
    room = socket.CMSG_SPACE(3 * array.array("i").itemsize)
    while True:
        size, ancillary, _, _ = connection.recvmsg(4, room)
        if not size:
            return
        fds = array.array("i")
        fds.frombytes(ancillary[0][2])
        request = b""
        while len(request) < int.from_bytes(size):
            request += connection.recv(int.from_bytes(size) - len(request))
        pid = os.fork()
        if pid == 0:
            connection.close()
            arguments, environ, folder = json.loads(request)
            become(arguments, environ, folder, fds)
        for fd in fds:
            os.close(fd)
        connection.sendall(f"{pid}\n".encode())
        _, status = os.waitpid(pid, 0)
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def become(
    arguments: Sequence[str], environ: Mapping[str, str], folder: str, fds: Sequence[int]
) -> None:
    """Be the program, with this for its standard streams."""
    from swarm_tui.cli import main

    for target, fd in enumerate(fds):
        os.dup2(fd, target)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    sys.argv[1:] = arguments
    sys.exit(main())


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as given:
        serve(given)
