"""The rehearsal of scripts/demo under Cloud Hypervisor, or the stand-in for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ch.bench import NoDriver, find_driver

pytestmark = pytest.mark.vm

ROOT = Path(__file__).parents[2]
LIMIT_S = 300.0


def test_a_whole_review_passes_and_says_what_ran_the_vms(image_cache: Path) -> None:
    try:
        find_driver()
    except NoDriver as reason:
        pytest.skip(str(reason))
    command = [sys.executable, str(ROOT / "scripts/demo.d/cloud_hypervisor.py")]
    command += [str(Path(sys.executable).with_name("swarm-tui")), "demo", "--driver", "ch"]
    done = subprocess.run(
        [*command, "--check", "--review", "--agents", "1"],
        env={**os.environ, "SWARM_TUI_PATHS_CACHE": str(image_cache)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    told = json.loads(done.stdout)
    assert told["ok"] is True
    assert told["driver"] == "ch"
    is_stand_in = "stand-in" in done.stderr
    assert told["vmm"].startswith("stand-in of the tests" if is_stand_in else "CH ")
    assert told["verified"]["branch"] == "swarm/agent-01/2"
    assert told["counter"]["before"] < told["counter"]["after"] < told["counter"]["later"]
