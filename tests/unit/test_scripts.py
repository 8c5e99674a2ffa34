"""The scripts, as far as they can be tried without installing anything."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHELL_TOOLS = ("bash", "dirname", "env", "getent", "grep", "id", "sha256sum")


@pytest.mark.parametrize("script", ["demo", "test", "check"])
def test_scripts_are_sound_and_executable(script: str) -> None:
    path = ROOT / "scripts" / script
    assert os.access(path, os.X_OK)
    subprocess.run(["bash", "-n", path, ROOT / "scripts/setup.sh"], check=True)


def test_without_apt_the_missing_packages_are_named(tmp_path: Path) -> None:
    for tool in SHELL_TOOLS:
        found = shutil.which(tool)
        assert found
        (tmp_path / tool).symlink_to(found)
    done = subprocess.run(
        [ROOT / "scripts/demo", "--check"],
        env={"PATH": str(tmp_path), "HOME": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3
    assert done.stdout == "", "standard output belongs to the program"
    for package in ("qemu-system-x86", "libvirt-clients", "tmux"):
        assert package in done.stderr
