"""reaper.py PIDFILE COMMAND…: run a daemon, and collect at once the processes that it leaves.

libvirt's QEMU processes daemonize: when one ends, process 1 must collect it, and libvirt waits
until it has. A lazy process 1, as many containers have, makes every destroy and save a second
slower. This process adopts them instead (PR_SET_CHILD_SUBREAPER, as `tini -s` does), and stays
until the last one has ended. PIDFILE gets the command's process id.

Run by its path, apart from the package: it needs nothing but the standard library.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

_PR_SET_CHILD_SUBREAPER = 36
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(arguments: Sequence[str]) -> int:
    """The command's exit status, once it and all that it left behind have ended.

    128 and its number when a signal ended it, as shells say it.
    """
    pid_file, *command = arguments
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        print(f"no sub-reaper: {os.strerror(ctypes.get_errno())}", file=sys.stderr)
    pid = os.spawnvp(os.P_NOWAIT, command[0], command)

    def forward(number: int, _frame: FrameType | None) -> None:
        os.kill(pid, number)

    for number in _FORWARDED:
        signal.signal(number, forward)
    Path(pid_file).write_text(f"{pid}\n")  # from now on, signals are passed on
    status = 0
    while True:
        try:
            ended, raw = os.waitpid(-1, 0)
        except ChildProcessError:
            return status if status >= 0 else 128 - status
        if ended == pid:
            status = os.waitstatus_to_exitcode(raw)
            for number in _FORWARDED:
                signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
