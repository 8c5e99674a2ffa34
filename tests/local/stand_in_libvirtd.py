#!/usr/bin/env python3
"""A stand-in for libvirtd, or by that name for virtchd: listens where a user's own would.

It ends when it is told to.

It serves the tests of starting and stopping only; all that speak to a daemon use a real one.
"""

import os
import signal
import socket
import sys
import time
from pathlib import Path

if os.environ.get("STAND_IN_FAILS"):
    print("error: cannot find a hypervisor", file=sys.stderr)
    sys.exit(3)
run = Path(os.environ["XDG_RUNTIME_DIR"]) / "libvirt"
run.mkdir(exist_ok=True)
path = run / ("virtchd-sock" if "virtchd" in sys.argv[0] else "libvirt-sock")
path.unlink(missing_ok=True)
with open(run / "starts", "a") as starts:
    starts.write(f"{os.getpid()} {' '.join(sys.argv[1:])}\n")
if os.fork() == 0:  # as a VM that outlives the daemon, in a session of its own
    os.setsid()
    time.sleep(float(os.environ.get("STAND_IN_VM_S", "0")))
    os._exit(0)
with socket.socket(socket.AF_UNIX) as server:
    server.bind(str(path))
    server.listen()
    signal.sigwait({signal.SIGTERM})
