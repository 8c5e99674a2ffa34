"""What a host has for Cloud Hypervisor, seen as its libvirt daemon sees it.

The daemon is a stand-in: a copy of Python that listens at a socket under the name of virtchd.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swarm_tui.local.disk import write_table
from swarm_tui.outpost import survey as look
from swarm_tui.outpost.survey import survey
from swarm_tui.outpost.wire import decode_result, encode
from swarm_tui.premises import Format

LISTEN = """
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("ready", flush=True)
while True:
    listener.accept()
"""

StartDaemon = Callable[..., int]


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    folder = tmp_path / "prefix"
    (folder / "sbin").mkdir(parents=True)
    shutil.copy(Path(sys.executable).resolve(), folder / "sbin/virtchd")
    return folder


@pytest.fixture
def start(prefix: Path, tmp_path: Path) -> Iterator[StartDaemon]:
    """Start the stand-in with options and a PATH; it listens at `socket`."""
    running: list[subprocess.Popen[str]] = []

    def run(*options: str, path: Path) -> int:
        process = subprocess.Popen(
            [str(prefix / "sbin/virtchd"), "-c", LISTEN, str(tmp_path / "socket"), *options],
            env={"PATH": str(path), "PYTHONHOME": sys.base_prefix},
            stdout=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        return process.pid

    yield run
    for process in running:
        process.kill()
        process.communicate()


def programs(folder: Path, version: str) -> Path:
    folder.mkdir()
    program = folder / "cloud-hypervisor"
    program.write_text(f"#!/bin/sh\necho {version}\necho more\n")
    program.chmod(0o755)
    return folder


def test_all_is_seen_as_the_daemon_sees_it(
    start: StartDaemon, prefix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{programs(tmp_path / 'ours', 'v1')}:{os.environ['PATH']}")
    theirs = programs(tmp_path / "theirs", "cloud-hypervisor v52.0")
    pid = start("--timeout", "120", path=theirs)
    (prefix / "swarm-tui.stamp").touch()
    found = survey(False, tmp_path / "socket", [])
    assert found.daemon
    assert (found.daemon.name, found.daemon.pid) == ("virtchd", pid)
    assert (found.daemon.idle_s, found.daemon.is_mended) == (120, True)
    assert found.vmm == theirs / "cloud-hypervisor"
    assert found.vmm_version == "cloud-hypervisor v52.0"
    assert found.machine == os.uname().machine


@pytest.mark.parametrize(
    ("options", "idle_s"),
    [((), None), (("--timeout=0",), None), (("-t", "30"), 30), (("--timeout=soon",), None)],
)
def test_a_daemon_that_ends_when_idle_is_known(
    start: StartDaemon, tmp_path: Path, options: tuple[str, ...], idle_s: int | None
) -> None:
    start(*options, path=tmp_path)
    found = survey(False, tmp_path / "socket", [])
    assert found.daemon
    assert (found.daemon.idle_s, found.daemon.is_mended) == (idle_s, False)
    assert found.vmm is None
    assert found.vmm_version == ""


def test_what_systemd_would_tell_the_daemon_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look, "_ROOT", tmp_path)
    unit = tmp_path / "usr/lib/systemd/system/virtchd.service"
    unit.parent.mkdir(parents=True)
    unit.write_text('[Service]\nEnvironment=VIRTCHD_ARGS="--timeout 120"\n')
    assert survey(False, None, []).unit_idle_s == 120
    ours = tmp_path / "etc/sysconfig/virtchd"
    ours.parent.mkdir(parents=True)
    ours.write_text("# VIRTCHD_ARGS='--timeout 7'\nVIRTCHD_ARGS=\n")
    assert survey(False, None, []).unit_idle_s is None


def test_a_systemd_without_machined_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look, "_ROOT", tmp_path)
    monkeypatch.setattr(look, "_SYSTEMD", tmp_path / "none")
    assert survey(False, None, []).is_served
    monkeypatch.setattr(look, "_SYSTEMD", tmp_path)
    assert not survey(False, None, []).is_served
    machined = tmp_path / "usr/lib/systemd/systemd-machined"
    machined.parent.mkdir(parents=True)
    machined.touch()
    assert survey(False, None, []).is_served


def test_the_newest_guest_image_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWARM_TUI_HOME", str(tmp_path))
    images = tmp_path / "cache/images"
    for age_s, name in ((10, "new"), (20, "old"), (0, "unfinished")):
        (images / name).mkdir(parents=True)
        if name != "unfinished":
            facts = images / name / "image.json"
            facts.touch()
            os.utime(facts, (1e9 - age_s, 1e9 - age_s))
    assert survey(False, None, []).image == images / "new"


def test_disks_are_told_by_their_first_bytes(tmp_path: Path) -> None:
    whole, bare, layered = (tmp_path / name for name in ("whole", "bare", "layered"))
    with open(whole, "wb+") as file:
        file.truncate(4 << 20)
        write_table(file)
    bare.write_bytes(bytes(4096))
    layered.write_bytes(b"QFI\xfb" + bytes(4096))
    gone = tmp_path / "gone"
    assert survey(False, None, [whole, bare, layered, gone]).disks == {
        whole: Format.PARTITIONED,
        bare: Format.BARE,
        layered: Format.QCOW2,
        gone: Format.HIDDEN,
    }


def test_a_device_that_makes_no_vm_is_no_kvm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look, "_MSHV", tmp_path / "mshv")
    monkeypatch.setattr(look, "_KVM", tmp_path / "kvm")
    assert survey(False, None, []).kvm == "there is no /dev/kvm"
    monkeypatch.setattr(look, "_KVM", Path("/dev/null"))
    assert survey(False, None, []).kvm.startswith("/dev/kvm makes no VM: ")


def test_it_survives_its_way_from_another_host(tmp_path: Path) -> None:
    found = survey(False, None, [tmp_path / "gone"])
    assert decode_result(survey, json.loads(json.dumps(encode(found)))) == found
