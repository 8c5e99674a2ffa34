"""Run a command where Cloud Hypervisor works, else on the tests' stand-in for it, saying so.

The command prints one JSON object. In the stand-in's case its "vmm" tells that the VMs ran on
QEMU in software emulation, whatever libvirt's driver took it for; the driver itself is real.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from ch.bench import Bench, NoDriver, find_driver

from swarm_tui.config import Loaded, load
from swarm_tui.errors import SwarmError
from swarm_tui.local.driver import Driver, choose_driver

VMM = "stand-in of the tests: QEMU, software emulation"


def main(command: Sequence[str]) -> int:
    loaded = load()
    if (obstacle := find_obstacle(loaded)) is None:
        return subprocess.call(command)
    say(f"Cloud Hypervisor itself does not work here: {obstacle}")
    say("its part is played by the tests' stand-in: QEMU, in software emulation, behind the real")
    say("libvirt driver. This proves the program, not Cloud Hypervisor.")
    signal.signal(signal.SIGTERM, leave)
    with tempfile.TemporaryDirectory(prefix="swarm-ch-", dir="/var/tmp") as folder:
        try:
            bench = Bench(Path(folder), find_driver())
        except NoDriver as error:
            say(f"nor does the stand-in: {error}")
            return 3
        try:
            bench.start()
            return run(command, loaded, Path(folder))
        finally:
            bench.stop()


def find_obstacle(loaded: Loaded) -> str | None:
    """Why the product would not choose Cloud Hypervisor by itself; None: it would."""
    try:
        choice = choose_driver(
            "auto", None, virtchd=None, accel="auto", cache=loaded.paths.cache, say=say
        )
    except SwarmError as error:
        return str(error)
    return None if choice.driver is Driver.CH else choice.reason


def run(command: Sequence[str], loaded: Loaded, folder: Path) -> int:
    """In a home of its own: what is kept of agents belongs to one daemon, and this one is gone
    soon.
    """
    environment = {
        **os.environ,
        "SWARM_TUI_LOCAL_VIRTCHD": str(folder / "virtchd-sock"),
        "SWARM_TUI_HOME": str(folder / "home"),
        "SWARM_TUI_PATHS_CACHE": str(loaded.paths.cache),
    }
    program, *arguments = command
    if loaded.file.exists():
        arguments = ["--config", str(loaded.file), *arguments]
    done = subprocess.run(
        [program, *arguments], env=environment, stdout=subprocess.PIPE, check=False
    )
    try:
        told = json.loads(done.stdout)
    except ValueError:
        sys.stdout.buffer.write(done.stdout)
    else:
        print(json.dumps({**told, "vmm": VMM}, indent=2, ensure_ascii=False))
    return done.returncode


def say(text: str) -> None:
    print(f"==> {text}", file=sys.stderr, flush=True)


def leave(_number: int, _frame: FrameType | None) -> None:
    sys.exit(143)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
