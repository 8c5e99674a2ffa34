"""The app is told to end by a signal: it leaves in order, and takes its temporary files along."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from terminal import Terminal


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    terminal = Terminal([sys.executable, "-m", "swarm_tui", "demo", "--simulated", "3"])
    terminal.until(lambda heard: b"running" in heard)
    assert list(tmp_path.glob("swarm-tui-simulated-*"))
    os.kill(terminal.pid, number)
    terminal.until(lambda heard: b"\x1b[?1049l" in heard)
    _, status = os.waitpid(terminal.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + number
    assert not list(tmp_path.glob("swarm-tui-simulated-*")), "its temporary files are left"
    os.close(terminal.master)
