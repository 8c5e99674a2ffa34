"""QEMU's machine protocol over a socket whose other end QEMU was started with."""

from __future__ import annotations

import json
import queue
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

ANSWER_S: Final = 60.0
CLOSED: Final = "CLOSED"
"""Reported as an event once QEMU has ended."""

Report = Callable[[str, Mapping[str, Any]], None]
"""Called with the name and the data of each event, in a thread of the protocol's own."""


class QmpError(Exception):
    """QEMU refused, is gone, or does not answer."""


class Qmp:
    def __init__(self, connection: socket.socket, report: Report) -> None:
        """Waits until QEMU is ready. Raises QmpError if it ends instead."""
        self._connection = connection
        self._report = report
        self._answers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._asking = threading.Lock()
        threading.Thread(target=self._read, daemon=True).start()
        self._answer()  # its greeting
        self.run("qmp_capabilities")

    def run(self, command: str, *, fd: int = -1, **arguments: Any) -> Any:
        """What QEMU returns; `fd` goes with the command. Raises QmpError."""
        options = {name.replace("_", "-"): value for name, value in arguments.items()}
        asked = json.dumps({"execute": command, "arguments": options}).encode()
        with self._asking:
            try:
                socket.send_fds(self._connection, [asked], [fd] if fd >= 0 else [])
            except OSError as error:
                raise QmpError(f"{command}: QEMU is gone") from error
            answer = self._answer()
        if "error" in answer:
            raise QmpError(f"{command}: {answer['error']['desc']}")
        return answer["return"]

    def _answer(self) -> dict[str, Any]:
        try:
            answer = self._answers.get(timeout=ANSWER_S)
        except queue.Empty:
            raise QmpError("QEMU does not answer") from None
        if not answer:
            self._answers.put({})
            raise QmpError("QEMU has ended")
        return answer

    def _read(self) -> None:
        with self._connection.makefile("rb") as lines:
            for line in lines:
                message = json.loads(line)
                if "event" in message:
                    self._report(message["event"], message.get("data", {}))
                else:
                    self._answers.put(message)
        self._answers.put({})
        self._report(CLOSED, {})
