"""The doctor at a real virtchd: what it sees there, and what a throw-away VM proves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from adapters.openssh import SSHD, Server

from swarm_tui.cli import main
from swarm_tui.config import load
from swarm_tui.doctor import Finding, Level, examine_host
from swarm_tui.local.image import Image
from swarm_tui.model import HostName

from .bench import Bench
from .settings import Kind

pytestmark = pytest.mark.vm

Examine = Callable[..., Mapping[str, Finding]]


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    home = folder / "home"
    monkeypatch.setenv("SWARM_TUI_HOME", str(home))
    return home


@pytest.fixture
def examine(bench: Bench, home: Path, image_cache: Path, folder: Path) -> Examine:
    """What is found at the bench; by what is looked at."""
    file = folder / "config.toml"
    file.write_text(f"[hosts.lab]\nuri = '{bench.uri}'\n[paths]\ncache = '{image_cache}'\n")

    def run(*, is_probing: bool = False) -> Mapping[str, Finding]:
        found = examine_host(load(file=file), HostName("lab"), is_probing=is_probing)
        return {finding.name.removeprefix("host lab: "): finding for finding in found}

    return run


def test_a_sound_host_is_told_to_be_so(bench: Bench, examine: Examine) -> None:
    found = examine()
    assert {name for name, finding in found.items() if finding.level is Level.FAIL} == set()
    assert found["driver"].what == "Cloud Hypervisor's, in virtchd"
    assert str(bench.emulator) in found["cloud-hypervisor"].what
    assert "stays while nobody is connected" in found["daemon"].what
    assert found["restore"].level is Level.OK


def test_another_version_than_the_daemon_met_is_told(bench: Bench, examine: Examine) -> None:
    if not bench.is_stand_in:
        pytest.skip("there is one Cloud Hypervisor only")
    assert examine()["cloud-hypervisor"].level is Level.OK
    bench.configure(version="53.0")
    found = examine()["cloud-hypervisor"]
    assert found.level is Level.WARN
    assert "v53.0 now" in found.what


def test_a_throw_away_vm_proves_that_agents_come_back(
    bench: Bench, examine: Examine, image: Image, home: Path
) -> None:
    found = examine(is_probing=True)["probe"]
    assert found.level is Level.OK, found
    assert "went on where it stood" in found.what
    assert bench.vmm_pids() == []
    assert left_in(home) == []


def test_a_host_that_cannot_restore_is_found_out(
    bench: Bench, examine: Examine, image: Image, home: Path
) -> None:
    if not bench.is_stand_in:
        pytest.skip("Cloud Hypervisor itself cannot be told to fail")
    bench.set_fault("vm.restore", Kind.ERROR)
    found = examine(is_probing=True)["probe"]
    assert (found.level, found.exit_code) == (Level.FAIL, 5)
    assert found.what == "a VM was saved, and cannot be restored"
    assert "scripts/build-libvirt-ch" in found.remedy
    assert left_in(home) == []


@pytest.mark.skipif(SSHD is None, reason="there is no OpenSSH server")
def test_a_host_behind_ssh_is_examined_where_it_is(
    bench: Bench, home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(folder))  # what the developer's own ssh knows stays out
    server = Server(folder / "server")
    server.start()
    place = f"{server.user}@{server.address}:{server.port}"
    uri = f"ch+ssh://{place}/system?socket={bench.folder}/virtchd-sock"
    options = ["--identity", str(server.identity), "--fingerprint", server.fingerprint]
    try:
        assert main(["host", "add", "lab", uri, *options]) == 0
        found = {str(one.name): one for one in examine_host(load(), HostName("lab"))}
    finally:
        server.stop()
    assert {one.level for one in found.values()} == {Level.OK}
    assert f"answers as {server.user}" in found["host lab: outpost"].what
    assert str(bench.emulator) in found["host lab: cloud-hypervisor"].what
    assert str(server.home) in found["host lab: room"].what, "it is the room of that host"


def left_in(home: Path) -> list[Path]:
    """What the probe has not removed again."""
    places = [home / "data/snapshots", home / "data/ledger"]
    return [path for place in places if place.exists() for path in place.iterdir()]
