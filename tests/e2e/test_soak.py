"""The soak, in its short form: what grows, leaks or is left behind."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.vm

SOAK = Path(__file__).parents[2] / "scripts/soak"


def test_nothing_grows_leaks_or_is_left_behind() -> None:
    done = subprocess.run([SOAK, "--short"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
