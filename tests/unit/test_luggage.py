"""What is sent to hosts far away is all that it takes there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from swarm_tui.outpost import luggage


def test_the_outpost_starts_with_what_is_sent_and_nothing_else(tmp_path: Path) -> None:
    sent = tmp_path / "sent.zip"
    sent.write_bytes(luggage.archive())
    script = f"import sys; sys.path.insert(0, {str(sent)!r}); import swarm_tui.outpost.serve"
    # -S: no installed package, as on a host that has nothing of ours.
    command = [sys.executable, "-I", "-S", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
