"""What the doctor says of a host for Cloud Hypervisor: each lack with its remedy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from swarm_tui.doctor import Finding, Level, ch
from swarm_tui.model import Capabilities
from swarm_tui.premises import Daemon, Format, Survey
from swarm_tui.text import EMPTY, literal, sanitize

SURVEY = Survey(
    system=literal("debian"),
    python=literal("3.11.2"),
    machine=literal("x86_64"),
    user=literal("me"),
    folder=Path("/home/me/.local/share/swarm-tui"),
    kvm=EMPTY,
    daemon=Daemon(literal("virtchd"), 42, is_mended=True),
    driver=Path("/opt/libvirt-ch/sbin/virtchd"),
    unit_idle_s=None,
    is_served=True,
    vmm=Path("/usr/local/bin/cloud-hypervisor"),
    vmm_version=literal("cloud-hypervisor v53.0"),
    disks={},
)
CAPABILITIES = Capabilities(driver="CH", version="53.0.0", library="11.3.0", missing={}, sources={})
FEDORA = replace(SURVEY, system=literal("fedora"))


def examine(survey: Survey, capabilities: Capabilities | None = CAPABILITIES) -> dict[str, Finding]:
    findings = [*ch.examine(ch.Ground("host lab", survey, capabilities))]
    assert all(finding.why for finding in findings if finding.level is not Level.OK)
    return {finding.name.removeprefix("host lab: "): finding for finding in findings}


def test_a_sound_host_has_nothing_to_mend() -> None:
    found = examine(SURVEY)
    assert {finding.level for finding in found.values()} == {Level.OK}
    assert found.keys() == {"driver", "cloud-hypervisor", "kvm", "daemon", "restore"}


@pytest.mark.parametrize(
    ("survey", "remedy"),
    [(SURVEY, "scripts/build-libvirt-ch"), (FEDORA, "dnf install libvirt-daemon-driver-ch")],
)
def test_a_missing_driver_comes_with_the_way_to_get_one(survey: Survey, remedy: str) -> None:
    found = examine(replace(survey, driver=None, daemon=None), None)["driver"]
    assert found.level is Level.FAIL
    assert remedy in found.remedy


@pytest.mark.parametrize(
    ("survey", "remedy"), [(SURVEY, "virtchd-swarm"), (FEDORA, "enable --now virtchd.socket")]
)
def test_a_daemon_that_does_not_run_is_to_be_started(survey: Survey, remedy: str) -> None:
    found = examine(replace(survey, daemon=None), None)["driver"]
    assert (found.level, found.what) == (Level.FAIL, "no libvirt daemon runs there")
    assert remedy in found.remedy


def test_what_keeps_the_driver_away_is_told_instead_of_the_driver() -> None:
    found = examine(replace(SURVEY, vmm=None, vmm_version=EMPTY), None)
    assert "driver" not in found
    assert "PATH" in found["cloud-hypervisor"].what
    found = examine(replace(SURVEY, kvm=literal("there is no /dev/kvm")), None)
    assert "driver" not in found
    assert (found["kvm"].level, found["kvm"].what) == (Level.FAIL, "there is no /dev/kvm")


@pytest.mark.parametrize(
    ("version", "level", "why"),
    [
        ("v53.0", Level.OK, ""),
        ("v52.0.0", Level.OK, ""),
        ("v51.1", Level.WARN, "CVE-2026-45782"),
        ("v50.0", Level.WARN, "CVE-2026-27211"),
        ("v39.0", Level.FAIL, "network"),
        ("unknown", Level.FAIL, "unknown"),
    ],
)
def test_old_versions_are_told_with_what_is_wrong_with_them(
    version: str, level: Level, why: str
) -> None:
    told = sanitize(f"cloud-hypervisor {version}")
    capabilities = replace(CAPABILITIES, version=version.removeprefix("v"))
    found = examine(replace(SURVEY, vmm_version=told), capabilities)["cloud-hypervisor"]
    assert found.level is level
    assert why in found.why


def test_a_daemon_that_met_another_version_is_to_be_started_again() -> None:
    found = examine(SURVEY, replace(CAPABILITIES, version="51.0.0"))["cloud-hypervisor"]
    assert found.level is Level.WARN
    assert "restart virtchd" in found.remedy
    assert "orphans" in found.remedy


@pytest.mark.parametrize(
    ("survey", "remedy"), [(SURVEY, "--unit"), (FEDORA, "/etc/sysconfig/virtchd")]
)
def test_a_daemon_that_ends_when_idle_is_told_running_or_not(survey: Survey, remedy: str) -> None:
    running = replace(survey, daemon=Daemon(literal("virtchd"), 42, idle_s=120))
    waiting = replace(survey, daemon=None, unit_idle_s=120)
    for found in (examine(running)["daemon"], examine(waiting, None)["daemon"]):
        assert (found.level, found.what) == (
            Level.WARN,
            "ends after 120 s without a client",
        )
        assert remedy in found.remedy


@pytest.mark.parametrize(("is_mended", "level"), [(True, Level.OK), (False, Level.WARN)])
def test_a_libvirt_that_is_not_ours_may_not_restore(is_mended: bool, level: Level) -> None:
    survey = replace(SURVEY, daemon=Daemon(literal("virtchd"), 42, is_mended=is_mended))
    found = examine(survey)["restore"]
    assert found.level is level
    assert "--probe" in found.what + found.remedy


def test_what_ends_vmms_is_missed() -> None:
    found = examine(replace(SURVEY, is_served=False))["systemd-machined"]
    assert found.level is Level.WARN
    assert "systemd-container" in found.remedy


def test_the_rules_for_disks() -> None:
    whole, bare, layered = (Path(f"/agents/{name}") for name in ("whole", "bare", "layered"))
    assert examine(replace(SURVEY, disks={whole: Format.PARTITIONED}))["disks"].level is Level.OK
    found = examine(replace(SURVEY, disks={layered: Format.QCOW2}))["disks"]
    assert (found.level, found.what) == (Level.FAIL, "/agents/layered is qcow2")
    disks = {bare: Format.BARE, whole: Format.PARTITIONED}
    found = examine(replace(SURVEY, disks=disks))["disks"]
    assert found.level is Level.WARN
    assert "first sector" in found.why
    old = replace(SURVEY, vmm_version=literal("v50.0"), disks=disks)
    assert examine(old)["disks"].level is Level.OK, "older versions take such writes"
    many = {Path(f"/{number}"): Format.QCOW2 for number in range(5)}
    assert "/0, /1, /2 and 2 more" in examine(replace(SURVEY, disks=many))["disks"].what
