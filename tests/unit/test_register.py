"""Hosts go into the configuration file and out of it; what a person wrote there stays."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from swarm_tui.config import load
from swarm_tui.errors import ConfigError
from swarm_tui.model import HostName
from swarm_tui.register import enter, strike

LAB = HostName("lab")
DESK = HostName("desk")
URI = "ch+ssh://me@lab:2222/system"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def hosts(file: Path) -> list[str]:
    return list(load({"SWARM_TUI_HOME": str(file.parent)}, file=file).config.hosts)


def test_a_host_goes_in_at_the_end_and_everything_else_stays(file: Path) -> None:
    written = "# mine\n[hosts.desk]  # here\nuri = 'qemu:///system'\n\n# looks\n[ui]\nview='table'"
    file.write_text(written)
    enter(file, LAB, {"uri": URI, "identity": '~/a "key" of mine'})
    assert file.read_text() == (
        f'{written}\n\n[hosts.lab]\nuri = "{URI}"\nidentity = "~/a \\"key\\" of mine"\n'
    )
    assert hosts(file) == [DESK, LAB]


def test_a_host_taken_out_leaves_no_trace(file: Path) -> None:
    for written in ("", "[ui]\nview = 'table'\n", "# first\r\n[ui]\r\nview = 'table'\r\n"):
        file.write_bytes(written.encode())
        enter(file, LAB, {"uri": URI})
        assert hosts(file) == [LAB]
        strike(file, LAB)
        assert file.read_bytes().decode().strip() == written.strip()


@pytest.mark.parametrize(
    ("written", "left"),
    [
        (
            "[hosts.lab]\nuri = 'a:///b'  # the lab\n# identity = '~/k'\n\n# looks\n[ui]\n",
            "# looks\n[ui]\n",
        ),
        ("[ui]\n\n[hosts.lab]\nuri = 'a:///b'\n# looks\n[local]\n", "[ui]\n\n# looks\n[local]\n"),
        ("[ui]\n\n[hosts.lab]\nuri = 'a:///b'\n\n# the end\n", "[ui]\n\n# the end\n"),
        (
            "[hosts]\nlab = { uri = 'a:///b' }\ndesk.uri = 'c:///d'\n",
            "[hosts]\ndesk.uri = 'c:///d'\n",
        ),
        ("hosts.lab.uri = 'a:///b'\n[ui]\n", "[ui]\n"),
        ("[hosts.'lab']\nuri = 'a:///b'\n[ui]\n", "[ui]\n"),
    ],
)
def test_a_host_goes_out_however_it_was_written(file: Path, written: str, left: str) -> None:
    file.write_text(written)
    strike(file, LAB)
    assert file.read_text() == left


@pytest.mark.parametrize(
    "written",
    [
        "hosts = { lab = { uri = 'a:///b' }, desk = { uri = 'c:///d' } }\n",
        "[hosts.lab]\nuri = '''\n[hosts.desk]\nuri = 'a:///b'\n'''\n",
    ],
)
def test_a_file_that_cannot_be_changed_surely_is_left_alone(file: Path, written: str) -> None:
    file.write_text(written)
    with pytest.raises(ConfigError, match="as it is written"):
        strike(file, LAB)
    assert file.read_text() == written


def test_what_is_not_there_and_what_is_there_already_is_told(file: Path) -> None:
    with pytest.raises(ConfigError, match="no host lab"):
        strike(file, LAB)
    enter(file, LAB, {"uri": URI})
    with pytest.raises(ConfigError, match="a host lab already"):
        enter(file, LAB, {"uri": "qemu:///session"})
    file.write_text("[hosts")
    with pytest.raises(ConfigError, match="not TOML"):
        enter(file, LAB, {"uri": URI})
    assert file.read_text() == "[hosts"


def test_its_mode_and_a_link_to_it_are_kept(file: Path, tmp_path: Path) -> None:
    enter(file, LAB, {"uri": URI})
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o640)
    link = tmp_path / "link.toml"
    link.symlink_to(file)
    enter(link, DESK, {"uri": "qemu:///session"})
    assert link.is_symlink()
    assert hosts(file) == [LAB, DESK]
    assert file.stat().st_mode & 0o777 == 0o640


def test_of_two_at_once_none_is_lost(file: Path) -> None:
    names = [HostName(f"host-{number}") for number in range(8)]
    at_once = [
        threading.Thread(target=enter, args=(file, name, {"uri": f"qemu:///{name}"}))
        for name in names
    ]
    for thread in at_once:
        thread.start()
    for thread in at_once:
        thread.join()
    assert sorted(hosts(file)) == names
