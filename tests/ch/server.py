"""The REST API on its UNIX socket: HTTP whose requests may bring file descriptors along."""

from __future__ import annotations

import io
import json
import os
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Final, NoReturn

from .vmm import Refusal, Vmm

ROOT: Final = "/api/v1/"
_MOST_FDS: Final = 253
"""That a message can bring (SCM_MAX_FD)."""


def serve(listener: socket.socket, vmm: Vmm, name: str, log: str) -> NoReturn:
    """Answer all that connect, for ever."""
    while True:
        connection, _ = listener.accept()
        arguments = (connection, vmm, name, log)
        threading.Thread(target=_Connection.answer, args=arguments, daemon=True).start()


class _Reader(io.RawIOBase):
    """Reads from a connection, and keeps the descriptors that come along."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.fds: list[int] = []

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data, fds, _, _ = socket.recv_fds(self._connection, len(buffer), _MOST_FDS)
        self.fds += fds
        buffer[: len(data)] = data
        return len(data)


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # libvirt reads an answer at one go

    @classmethod
    def answer(cls, connection: socket.socket, vmm: Vmm, name: str, log: str) -> None:
        with connection:
            cls(connection, vmm, name, log)

    def __init__(self, connection: socket.socket, vmm: Vmm, name: str, log: str) -> None:
        self._vmm = vmm
        self._name = name
        self._log = log
        super().__init__(connection, "", None)  # type: ignore[arg-type]

    def setup(self) -> None:
        super().setup()
        self._reader = _Reader(self.request)
        self.rfile = io.BufferedReader(self._reader)

    def version_string(self) -> str:
        return "Cloud Hypervisor API"

    def do_GET(self) -> None:
        self._respond()

    def do_PUT(self) -> None:
        self._respond()

    def _respond(self) -> None:
        began = time.monotonic()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fds, self._reader.fds = self._reader.fds, []
        operation = self.path.removeprefix(ROOT)
        count = len(fds)
        try:
            answer = self._vmm.handle(self.command, operation, body, fds)
            status = 204 if answer is None else 200
        except Refusal as refusal:
            status, answer = refusal.status, list(refusal.messages)
        content = b"" if answer is None else json.dumps(answer).encode()
        self._note(operation, count, status, answer if status >= 400 else None, began)
        self.send_response(status)
        if content:
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()
        self._vmm.conclude()

    def _note(self, operation: str, fds: int, status: int, error: object, began: float) -> None:
        """A line for the tests' log."""
        if self._log:
            line = {
                "domain": self._name,
                "operation": operation,
                "descriptors": fds,
                "status": status,
                "error": error,
                "took_s": round(time.monotonic() - began, 3),
            }
            fd = os.open(Path(self._log), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            with open(fd, "w") as file:
                file.write(json.dumps(line) + "\n")

    def log_message(self, format: str, *args: object) -> None:
        """Standard error is the domain's log, and holds what QEMU says."""
