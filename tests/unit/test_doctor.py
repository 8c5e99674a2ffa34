"""The doctor: each thing that can be missing or broken is named, with what to do."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import struct
import sys
import termios
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import pytest
from postgres import Cluster

from swarm_tui.doctor import Finding, Level, examine
from swarm_tui.paths import locate

TEST_DRIVER = "test:///default"


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"SWARM_TUI_HOME": str(tmp_path), "PATH": os.environ["PATH"], "HOME": str(tmp_path)}


def of(findings: Sequence[Finding], name: str) -> Finding:
    (found,) = [finding for finding in findings if finding.name == name]
    return found


def configure(environ: Mapping[str, str], text: str) -> Path:
    file = Path(environ["SWARM_TUI_HOME"]) / "config.toml"
    file.write_text(text)
    return file


def test_a_sound_machine_has_no_failure_and_nothing_is_changed(
    environ: dict[str, str], tmp_path: Path
) -> None:
    file = configure(environ, f"[hosts.lab]\nuri = '{TEST_DRIVER}'\n")
    findings = examine(file, environ)
    assert not [finding for finding in findings if finding.level is Level.FAIL]
    for name in ("python", "textual", "asyncssh", "libvirt-python", "configuration", "theme"):
        assert of(findings, name).level is Level.OK
    assert "answers in" in of(findings, "host lab").what
    assert list(tmp_path.iterdir()) == [file]


def test_findings_go_into_json(environ: dict[str, str]) -> None:
    (first, *_) = json.loads(json.dumps([asdict(finding) for finding in examine(None, environ)]))
    assert first.keys() == {"name", "level", "what", "why", "remedy", "exit_code"}
    assert first["level"] == "ok"


def test_every_trouble_comes_with_a_reason(environ: dict[str, str]) -> None:
    file = configure(environ, "[local]\nagents = 200\nmemory_mib = 65536\n[ui]\ntheme = 'none'\n")
    troubles = [f for f in examine(file, environ) if f.level is not Level.OK]
    assert {"memory", "theme"} <= {finding.name for finding in troubles}
    assert all(finding.what and finding.why for finding in troubles)


def test_missing_programs_are_named_with_their_packages(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "bin"
    empty.mkdir()
    monkeypatch.setattr("swarm_tui.doctor.finding.SBIN", str(empty))
    findings = examine(None, environ | {"PATH": str(empty)})
    for name, package in (
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("qemu-img", "qemu-utils"),
        ("guest image", "e2fsprogs"),
        ("libvirt", "libvirt-daemon libvirt-daemon-driver-qemu"),
    ):
        finding = of(findings, name)
        assert finding.level is Level.FAIL
        assert package in finding.remedy
    assert of(findings, "tmux").level is Level.OK, "it is not needed"


def test_what_only_a_local_swarm_needs_is_no_failure_where_hosts_are_configured(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swarm_tui.doctor.finding.SBIN", str(tmp_path))
    file = configure(environ, f"[hosts.lab]\nuri = '{TEST_DRIVER}'\n")
    findings = examine(file, environ | {"PATH": str(tmp_path)})
    assert of(findings, "qemu-system-x86_64").level is Level.WARN


def test_each_mistake_in_the_configuration_is_a_finding_and_the_rest_is_looked_at(
    environ: dict[str, str],
) -> None:
    file = configure(environ, "[ui]\nveiw = 'table'\n[local]\nagents = 0\n")
    findings = examine(file, environ)
    told = [finding for finding in findings if finding.name == "configuration"]
    assert [finding.level for finding in told] == [Level.FAIL, Level.FAIL]
    assert "ui.veiw" in told[0].why
    assert "local.agents" in told[1].why
    assert of(findings, "memory").level is Level.OK


def test_a_broken_theme_file_is_named(environ: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "themes"
    folder.mkdir()
    (folder / "mine.toml").write_text("[surfaces]\nbackground = 'no colour'\n")
    findings = examine(None, environ | {"SWARM_TUI_UI_THEMES": str(folder)})
    (broken,) = [f for f in findings if f.name == "theme" and f.level is Level.FAIL]
    assert "mine.toml" in broken.what + broken.why


def test_a_broken_profile_and_a_secret_in_one_are_named(environ: dict[str, str]) -> None:
    folder = locate(environ).profiles
    folder.mkdir(parents=True)
    (folder / "bad.toml").write_text("vcpu = 2\n")
    (folder / "mine.toml").write_text("[environment]\nSHOP_TOKEN = 'hush-hush'\n")
    findings = examine(None, environ)
    broken = of(findings, "profile bad")
    assert broken.level is Level.FAIL
    assert "bad.toml:1: vcpu: unknown key; did you mean 'vcpus'?" in broken.why
    leak = of(findings, "profile mine")
    assert leak.level is Level.WARN
    assert "SHOP_TOKEN" in leak.what
    assert not any("hush-hush" in f.what + f.why + f.remedy for f in findings)
    assert "demo" in of(findings, "profiles").what


def test_a_host_out_of_reach_is_named_and_the_others_are_visited(environ: dict[str, str]) -> None:
    file = configure(
        environ,
        f"[hosts.gone]\nuri = 'qemu+unix:///session?socket=/nonexistent/sock'\n"
        f"[hosts.lab]\nuri = '{TEST_DRIVER}'\n",
    )
    findings = examine(file, environ)
    gone = of(findings, "host gone")
    assert gone.level is Level.FAIL
    assert "/nonexistent/sock" in gone.why
    assert of(findings, "host lab").level is Level.OK


def test_a_key_that_others_may_read_is_named(environ: dict[str, str], tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("secret")
    key.chmod(0o644)
    file = configure(environ, f"[hosts.lab]\nuri = '{TEST_DRIVER}'\nidentity = '{key}'\n")
    told = [f for f in examine(file, environ) if f.name == "host lab" and f.level is Level.FAIL]
    assert f"chmod 600 {key}" in told[0].remedy


def test_a_folder_that_cannot_be_written_is_named(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file in its place")
    findings = examine(None, environ)
    for name in ("state folder", "catalogue"):
        assert of(findings, name).level is Level.FAIL
        assert "is not a folder" in of(findings, name).why
    assert of(findings, "data folder").level is Level.OK


def test_the_shared_store_is_examined(
    environ: dict[str, str], tmp_path: Path, postgres: Cluster
) -> None:
    told = of(examine(None, environ), "shared store")
    assert (told.level, "first used" in told.what) == (Level.OK, True)
    assert not (tmp_path / "state/store.db").exists()
    (tmp_path / "state").mkdir()
    (tmp_path / "state/store.db").write_bytes(b"not a database" * 1000)
    assert of(examine(None, environ), "store").level is Level.FAIL
    url = postgres.make_database()
    file = configure(environ, f"[store]\nurl = '{url}'")
    assert "answers in" in of(examine(file, environ), "shared store").what
    postgres.drop_database(url)
    told = of(examine(file, environ), "store")
    assert told.level is Level.FAIL
    assert "store.url" in told.remedy


def test_a_file_system_without_room_is_named(environ: dict[str, str]) -> None:
    file = configure(environ, "[snapshots]\nkeep = 1000\n[local]\nagents = 200\nmemory_mib = 65536")
    (room,) = [f for f in examine(file, environ) if f.name.startswith("room for")]
    assert room.level is not Level.OK
    assert "snapshots.keep" in room.remedy


def test_a_low_limit_of_open_files_is_named(environ: dict[str, str]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        finding = of(examine(None, environ), "open files")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert finding.level is Level.WARN
    assert finding.remedy == "ulimit -n 1024"


def test_a_poor_terminal_is_named(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 60, 0, 0))
    with os.fdopen(master, "rb"), os.fdopen(slave, "w", encoding="ascii") as screen:
        monkeypatch.setattr(sys, "stdout", screen)
        findings = examine(None, environ | {"TERM": "dumb"})
    size, encoding, kind = (
        of(findings, f"terminal {part}") for part in ("size", "encoding", "kind")
    )
    assert (size.level, size.what) == (Level.WARN, "60×20")
    assert (encoding.level, encoding.what) == (Level.WARN, "ascii, not UTF-8")
    assert (kind.level, kind.what) == (Level.FAIL, "TERM is 'dumb'")


def test_the_scripts_install_every_program_that_the_image_is_built_with() -> None:
    from swarm_tui.outpost.programs import PROGRAMS

    setup = (Path(__file__).parents[2] / "scripts/setup.sh").read_text()
    always_there = {"apt", "dpkg", "tar"}
    packages = {line.split()[-1] for line in setup.splitlines() if len(line.split()) == 2}
    assert set(PROGRAMS.values()) - always_there <= packages
