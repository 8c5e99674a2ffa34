"""The event FIFO, as Cloud Hypervisor writes it (event_monitor/src/lib.rs)."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


class Events:
    def __init__(self, path: Path, wait: Callable[[], None]) -> None:
        """Opens the FIFO once libvirt has opened its end; calls `wait` until then."""
        self._began = time.monotonic()
        self._fd = -1
        while self._fd < 0:
            try:
                self._fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                wait()

    def tell(self, source: str, event: str) -> None:
        passed = time.monotonic() - self._began
        told = {
            "timestamp": {"secs": int(passed), "nanos": int(passed % 1 * 1e9)},
            "source": source,
            "event": event,
            "properties": None,
        }
        # Nobody reads once virtchd is gone, and a VMM goes on without.
        with suppress(BrokenPipeError, BlockingIOError):
            os.write(self._fd, json.dumps(told, indent=2).encode() + b"\n\n")
