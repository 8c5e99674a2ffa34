"""Pseudo-terminals for a VM's serial port and console."""

from __future__ import annotations

import os
import tty
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Terminal:
    path: str
    """What a reader opens."""
    master: int
    slave: int
    """Kept open, or the guest's side would hang up for as long as nobody reads."""

    def close(self) -> None:
        os.close(self.master)
        os.close(self.slave)


def open_terminal() -> Terminal:
    master, slave = os.openpty()
    tty.setraw(slave)
    return Terminal(os.ttyname(slave), master, slave)
