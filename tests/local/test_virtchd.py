"""What is missing for Cloud Hypervisor, its daemon, and the choice between it and QEMU."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from swarm_tui.errors import SetupError
from swarm_tui.local import driver, virtchd
from swarm_tui.local.accel import Accel, Mode
from swarm_tui.local.driver import Choice, Driver, choose_driver, driver_of
from swarm_tui.local.virtchd import Lack, ensure_virtchd, lacks, stop_virtchd
from swarm_tui.premises import Survey
from swarm_tui.text import EMPTY, literal

STAND_IN = Path(__file__).with_name("stand_in_libvirtd.py")
ALL_THERE = Survey(
    system=literal("debian"),
    python=literal("3.11"),
    machine=literal("x86_64"),
    user=literal("root"),
    folder=Path("/nowhere"),
    is_served=False,
    kvm=EMPTY,
    daemon=None,
    driver=Path("/nowhere/virtchd"),
    unit_idle_s=None,
    vmm=None,
    vmm_version=EMPTY,
    disks={},
)


class Ground:
    """A machine that has all that is needed, and no daemon yet."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.patch = monkeypatch
        self.folder = folder
        self.programs = folder / "bin"
        self.programs.mkdir()
        self.socket = folder / "libvirt/virtchd-sock"
        (self.programs / "cloud-hypervisor").symlink_to("/bin/true")
        for name in ("virtchd", "start-virtchd"):
            (self.programs / name).symlink_to(STAND_IN)
        monkeypatch.setenv("PATH", f"{self.programs}:{os.environ['PATH']}")
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setattr(virtchd, "SOCKET", self.socket)
        self.has(driver=self.programs / "virtchd")

    def has(self, **facts: object) -> None:
        seen = replace(ALL_THERE, **facts)  # type: ignore[arg-type]
        self.patch.setattr(virtchd, "survey", lambda **_: seen)

    @property
    def starts(self) -> list[str]:
        return (self.folder / "libvirt/starts").read_text().splitlines()


@pytest.fixture
def ground(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ground]:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        yield Ground(Path(name), monkeypatch)
        stop_virtchd(Path(name))


def test_where_all_is_there_nothing_is_missing(ground: Ground) -> None:
    assert lacks(None) == []


@pytest.mark.parametrize(
    ("take", "what", "remedy"),
    [
        (lambda ground: ground.has(driver=None), "driver", "scripts/build-libvirt-ch"),
        (
            lambda ground: (ground.programs / "cloud-hypervisor").unlink(),
            "the program cloud-hypervisor",
            "https://github.com/cloud-hypervisor/cloud-hypervisor/releases",
        ),
        (
            lambda ground: ground.has(kvm=literal("there is no /dev/kvm")),
            "there is no /dev/kvm",
            "modprobe",
        ),
        (
            lambda ground: ground.patch.setattr(os, "geteuid", lambda: 1000),
            "root",
            "sudo",
        ),
    ],
    ids=["driver", "program", "kvm", "root"],
)
def test_each_missing_thing_is_named_with_its_remedy(
    ground: Ground, take: Callable[[Ground], None], what: str, remedy: str
) -> None:
    take(ground)
    (lack,) = lacks(None)
    assert what in lack.what
    assert remedy in lack.remedy
    with pytest.raises(SetupError) as raised:
        ensure_virtchd(ground.folder)
    assert what in raised.value.detail
    assert remedy in raised.value.hint


def test_all_that_is_missing_is_told_at_once(ground: Ground) -> None:
    ground.has(driver=None, kvm=literal("there is no /dev/kvm"))
    (ground.programs / "cloud-hypervisor").unlink()
    with pytest.raises(SetupError) as raised:
        ensure_virtchd(ground.folder)
    assert len(raised.value.detail.splitlines()) == 3
    assert len(raised.value.hint.splitlines()) == 3


def test_a_daemon_is_started_once_and_stays(ground: Ground) -> None:
    assert ensure_virtchd(ground.folder) == "ch:///system?mode=direct"
    assert ensure_virtchd(ground.folder) == "ch:///system?mode=direct"
    (start,) = ground.starts
    stop_virtchd(ground.folder)
    with pytest.raises(ProcessLookupError):
        os.kill(int(start.split()[0]), 0)


def test_what_runs_has_found_all_it_needs(ground: Ground) -> None:
    ensure_virtchd(ground.folder)
    ground.has(driver=None, kvm=literal("closed to us"))
    assert lacks(None) == []


def test_a_daemon_that_fails_gives_its_last_words(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_FAILS", "yes")
    with pytest.raises(SetupError, match="virtchd does not start") as raised:
        ensure_virtchd(ground.folder)
    assert "cannot find a hypervisor" in raised.value.detail


def test_another_daemon_may_be_named(ground: Ground) -> None:
    named = ground.folder / "other-sock"
    with pytest.raises(SetupError) as raised:
        ensure_virtchd(ground.folder, named)
    assert str(named) in raised.value.detail
    assert "local.virtchd" in raised.value.hint
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(named))
        server.listen()
        uri = ensure_virtchd(ground.folder, named)
    assert uri == f"ch:///system?socket={named}"
    assert not (ground.folder / "libvirt").exists(), "none was started"


# The choice


@pytest.mark.parametrize(
    ("uri", "wanted"),
    [
        ("ch:///system", Driver.CH),
        ("ch+ssh://lab/system", Driver.CH),
        ("qemu:///system", Driver.QEMU),
        ("qemu+ssh://cher/system", Driver.QEMU),
    ],
)
def test_a_connection_tells_its_driver(uri: str, wanted: Driver) -> None:
    assert driver_of(uri) is wanted


class Circumstances:
    """What `choose_driver` looks at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.missing: list[Lack] = []
        self.accel = Accel(Mode.KVM, "KVM: Linux boots with it.")
        monkeypatch.setattr(driver, "lacks", lambda named: self.missing)
        monkeypatch.setattr(driver, "build_image", lambda cache, say: None)
        monkeypatch.setattr(driver, "choose_accel", lambda image, cache, force: self.accel)

    def choose(
        self, wanted: str = "auto", occupied: Driver | None = None, accel: str = "auto"
    ) -> Choice:
        return choose_driver(
            wanted,  # type: ignore[arg-type]
            occupied,
            virtchd=None,
            accel=accel,  # type: ignore[arg-type]
            cache=Path("/none"),
            say=lambda step: None,
        )


@pytest.fixture
def circumstances(monkeypatch: pytest.MonkeyPatch) -> Circumstances:
    return Circumstances(monkeypatch)


def test_cloud_hypervisor_is_chosen_where_all_of_it_is_there(circumstances: Circumstances) -> None:
    assert circumstances.choose().driver is Driver.CH


def test_qemu_is_chosen_where_something_is_missing(circumstances: Circumstances) -> None:
    circumstances.missing = [Lack("the program cloud-hypervisor", "Get it")]
    choice = circumstances.choose()
    assert choice.driver is Driver.QEMU
    assert "the program cloud-hypervisor" in choice.reason


def test_qemu_is_chosen_where_linux_does_not_boot_with_kvm(circumstances: Circumstances) -> None:
    circumstances.accel = Accel(Mode.TCG, "Software emulation: /dev/kvm opens, but nothing boots.")
    choice = circumstances.choose()
    assert choice.driver is Driver.QEMU
    assert "nothing boots" in choice.reason


def test_qemu_is_chosen_where_emulation_is_asked_for(circumstances: Circumstances) -> None:
    assert circumstances.choose(accel="tcg").driver is Driver.QEMU


def test_what_is_asked_for_is_chosen_whatever_is_there(circumstances: Circumstances) -> None:
    circumstances.missing = [Lack("the program cloud-hypervisor", "Get it")]
    assert circumstances.choose("ch").driver is Driver.CH
    circumstances.missing = []
    assert circumstances.choose("qemu").driver is Driver.QEMU


def test_a_swarm_keeps_its_driver_while_it_has_agents(circumstances: Circumstances) -> None:
    assert circumstances.choose(occupied=Driver.QEMU).driver is Driver.QEMU
    assert circumstances.choose("ch", Driver.CH).driver is Driver.CH
    with pytest.raises(SetupError, match="run under QEMU") as raised:
        circumstances.choose("ch", Driver.QEMU)
    assert "swarm-tui demo --down" in raised.value.hint
