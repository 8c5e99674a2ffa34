"""Finding, starting and stopping a libvirt daemon, as a user without one; and reaping."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from swarm_tui.errors import SetupError
from swarm_tui.local import daemon, reaper
from swarm_tui.local.daemon import SESSION, SYSTEM, ensure_daemon, place, stop_daemon

WAIT_S = 10.0
STAND_IN = Path(__file__).with_name("stand_in_libvirtd.py")


def until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's runtime folder without a daemon, and a libvirtd of the tests' on the path."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        home = Path(name)
        programs = home / "bin"
        programs.mkdir()
        (programs / "libvirtd").symlink_to(STAND_IN)
        monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        monkeypatch.setenv("XDG_RUNTIME_DIR", name)
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        yield home
        stop_daemon(home)


def starts(folder: Path) -> list[str]:
    return (folder / "libvirt/starts").read_text().splitlines()


def test_a_user_has_a_daemon_of_their_own(folder: Path) -> None:
    assert ensure_daemon(folder) == SESSION
    (start,) = starts(folder)
    pid, *options = start.split()
    assert runs(int(pid))
    assert options == ["--timeout", "120"]
    assert ensure_daemon(folder) == SESSION
    assert starts(folder) == [start]


def test_root_shares_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert place() == (SYSTEM, Path("/run/libvirt"))


def test_a_user_without_a_runtime_folder_has_the_cache(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/ada")
    assert place() == (SESSION, Path("/home/ada/.cache/libvirt"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))  # where the fixture stops it


def test_many_at_once_start_one(folder: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ensure_daemon, [folder] * 8)) == {SESSION}
    assert len(starts(folder)) == 1


def test_stops_what_it_started(folder: Path) -> None:
    ensure_daemon(folder)
    pid = int(starts(folder)[0].split()[0])
    stop_daemon(folder)
    assert not runs(pid)
    stop_daemon(folder)
    ensure_daemon(folder)
    assert len(starts(folder)) == 2


def test_leaves_what_others_started(folder: Path) -> None:
    other = folder / "other"
    other.mkdir()
    ensure_daemon(other)
    pid = int(starts(folder)[0].split()[0])
    ensure_daemon(folder)
    stop_daemon(folder)
    assert runs(pid)
    stop_daemon(other)
    assert not runs(pid)


def test_never_stops_a_process_that_only_has_the_same_id(folder: Path) -> None:
    with subprocess.Popen(["sleep", "600"]) as innocent:
        for name in ("libvirtd-reaper.pid", "libvirtd.pid", "virtlogd.pid"):
            (folder / name).write_text(f"{innocent.pid}\n")
        stop_daemon(folder)
        assert innocent.poll() is None
        innocent.kill()


def test_vms_outlive_the_daemon(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN_VM_S", "600")
    ensure_daemon(folder)
    keeper = int((folder / "libvirtd-reaper.pid").read_text())
    pid = int(starts(folder)[0].split()[0])
    (vm,) = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    stop_daemon(folder)
    assert not runs(pid)
    assert runs(vm)
    assert runs(keeper)
    os.kill(vm, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{vm}").exists())
    until(lambda: not runs(keeper))


def test_a_daemon_that_does_not_start_tells_why(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_FAILS", "1")
    with pytest.raises(SetupError) as caught:
        ensure_daemon(folder)
    assert "cannot find a hypervisor" in caught.value.detail
    monkeypatch.delenv("STAND_IN_FAILS")
    assert ensure_daemon(folder) == SESSION


def test_a_daemon_that_never_listens_is_given_up(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "bin/libvirtd").unlink()
    (folder / "bin/libvirtd").symlink_to(str(shutil.which("sleep")))
    monkeypatch.setattr(daemon, "START_S", 0.3)
    with pytest.raises(SetupError):
        ensure_daemon(folder)


def test_what_is_missing_is_told_with_the_line_to_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, **_: None)
    with pytest.raises(SetupError) as caught:
        ensure_daemon(folder)
    assert caught.value.hint == (
        "apt-get install --no-install-recommends libvirt-daemon qemu-system-x86 qemu-utils"
    )


# The reaper


def reap(tmp_path: Path, script: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, reaper.__file__, str(tmp_path / "pid"), "sh", "-c", script]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def test_the_reaper_ends_as_its_command_does(tmp_path: Path) -> None:
    with reap(tmp_path, "exit 7") as process:
        assert process.wait(WAIT_S) == 7


def test_the_reaper_collects_at_once_what_its_command_left(tmp_path: Path) -> None:
    orphan = "(setsid sleep 600 & echo $!)"
    with reap(tmp_path, f"{orphan}; exec sleep 600") as process:
        assert process.stdout
        left = int(process.stdout.readline())
        os.kill(left, signal.SIGKILL)
        until(lambda: not Path(f"/proc/{left}").exists())
        until((tmp_path / "pid").exists)
        process.terminate()
        assert process.wait(WAIT_S) == 128 + signal.SIGTERM


def test_the_reaper_passes_signals_on(tmp_path: Path) -> None:
    with reap(tmp_path, "trap 'exit 5' TERM; echo; while :; do sleep 0.05; done") as process:
        assert process.stdout
        process.stdout.readline()
        until(lambda: (tmp_path / "pid").exists() and bool((tmp_path / "pid").read_text()))
        assert runs(int((tmp_path / "pid").read_text()))
        process.terminate()
        assert process.wait(WAIT_S) == 5
