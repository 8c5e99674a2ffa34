"""The bench's virtchd, wherever this is started, until standard input ends.

`python virtchd.py FOLDER CACHE`; it says "ready" once it answers at FOLDER/virtchd-sock.
"""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]


def main(folder: Path, cache: Path) -> None:
    sys.path.insert(0, str(TESTS))
    from ch.bench import Bench, find_driver, find_hypervisor

    from swarm_tui.local.image import build_image

    image = build_image(cache, lambda step: print(step, file=sys.stderr))
    bench = Bench(folder, find_driver(), find_hypervisor(image, cache))
    try:
        bench.start()
        print("ready", flush=True)
        sys.stdin.read()
    finally:
        bench.stop()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
