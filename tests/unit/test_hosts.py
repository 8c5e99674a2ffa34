"""Hosts from the command line: added, listed, checked and removed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swarm_tui import trust
from swarm_tui.catalogue import Catalogue
from swarm_tui.cli import main
from swarm_tui.database import open_database
from swarm_tui.errors import ConfigError
from swarm_tui.model import AgentId, HostName, Record, SnapshotId
from swarm_tui.text import literal

WORKS = "test:///default"
NOWHERE = "qemu+unix:///session?socket=/nonexistent/sock"
AGENT = AgentId("6f1c7b0e-0000-4000-8000-000000000001")
ENTRY = (
    "[lab]:2222 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
)
"""The well-known key of github.com under another name."""
FINGERPRINT = "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU"


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    (folder / "config").mkdir(parents=True)
    monkeypatch.setenv("SWARM_TUI_HOME", str(folder))
    return folder


@pytest.fixture
def file(home: Path) -> Path:
    return home / "config/config.toml"


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run the program; exit code and all that it said."""

    def run(*arguments: str) -> tuple[int, str]:
        code = main(["host", *arguments])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def test_a_host_is_added_checked_and_listed_with_its_place(
    tell: Callable[..., tuple[int, str]], file: Path, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.touch(0o600)
    file.write_text("# mine\n[ui]\nview = 'table'\n")
    code, said = tell("add", "lab", WORKS, "--identity", str(key), "--repository", "~/repository")
    assert code == 0
    assert "ok    host lab: test:///default answers in" in said
    assert "ok    host lab: lacks: " in said, "with the reason"
    assert file.read_text() == (
        "# mine\n[ui]\nview = 'table'\n\n"
        f'[hosts.lab]\nuri = "{WORKS}"\nidentity = "{key}"\nrepository = "~/repository"\n'
    )
    code, said = tell("ls", "--check", "--json")
    (row,) = json.loads(said)["hosts"]
    assert (code, row["name"], row["uri"], row["state"]) == (0, "lab", WORKS, "up")
    assert row["where"] == f"{file}:6"


def test_the_same_host_again_is_only_looked_at(
    tell: Callable[..., tuple[int, str]], file: Path
) -> None:
    assert tell("add", "lab", WORKS)[0] == 0
    written = file.read_text()
    code, said = tell("add", "lab", WORKS)
    assert (code, "configured already" in said) == (0, True)
    code, said = tell("add", "lab", "qemu:///session")
    assert code == 2
    assert "There is a host lab already" in said
    assert f"{file}:2" in said
    assert file.read_text() == written


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["a.b", WORKS], 2, "'a.b'"),
        (["lab", "alias"], 8, "'alias'"),
        (["lab", "qemu+ssh://lab/system?no_verify=1"], 8, "right host"),
        (["lab", "qemu+ssh://me:secret@lab/system"], 8, "password"),
        (["lab", WORKS, "--fingerprint", "SHA256:abc"], 2, "SHA256:abc"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_written(
    tell: Callable[..., tuple[int, str]], file: Path, arguments: list[str], code: int, told: str
) -> None:
    found, said = tell("add", *arguments)
    assert found == code
    assert told in said
    assert not file.exists()


def test_a_host_that_fails_its_check_stays_configured(
    tell: Callable[..., tuple[int, str]], file: Path
) -> None:
    code, said = tell("add", "gone", NOWHERE)
    assert code == 5
    assert "/nonexistent/sock" in said
    assert "swarm-tui host check gone" in said
    assert NOWHERE in file.read_text()
    code, said = tell("ls", "--check")
    assert (code, "down" in said) == (5, True)
    code, said = tell("check", "gone", "--json")
    (finding, *_) = json.loads(said)["findings"]
    assert (code, finding["level"], finding["exit_code"]) == (5, "fail", 5)


def test_a_checked_list_tells_capacity(tell: Callable[..., tuple[int, str]], file: Path) -> None:
    file.write_text(f"[hosts.lab]\nuri = '{WORKS}'\n\n[hosts.gone]\nuri = '{NOWHERE}'\n")
    code, said = tell("ls", "--check", "--json")
    lab, gone = json.loads(said)["hosts"]
    assert (code, lab["state"], gone["state"]) == (5, "up", "down")
    assert lab["cpus"] > 0
    assert lab["memory_total"] > 0
    assert lab["agents"] == 0
    assert gone["cpus"] is gone["memory_total"] is gone["agents"] is None
    code, said = tell("ls", "--check")
    assert "FREE" in said
    assert "n/a" in said


def test_a_check_can_be_left_out(tell: Callable[..., tuple[int, str]]) -> None:
    code, said = tell("add", "gone", NOWHERE, "--no-check", "--json")
    added = json.loads(said)
    assert (code, added["findings"], added["host"]["key"]) == (0, None, None)


def test_an_unknown_host_is_no_host(tell: Callable[..., tuple[int, str]]) -> None:
    for verb in (["check", "lab"], ["remove", "lab", "--yes"]):
        code, said = tell(*verb)
        assert (code, "No such host" in said) == (3, True)
    code, said = tell("ls")
    assert (code, "host add" in said) == (0, True)


def catalogue(home: Path) -> Catalogue:
    return Catalogue(open_database(f"sqlite://{home}/state/store.db"), home / "state/catalogue")


def keep(home: Path) -> None:
    """What an agent of host lab leaves behind."""
    catalogue(home).write(
        Record(AGENT, literal("agent-01"), HostName("lab"), saved_in=SnapshotId("one"))
    )
    for name in ("one", "two", "three.partial"):
        (home / f"data/snapshots/{AGENT}/{name}").mkdir(parents=True)
    review = home / f"state/reviews/{AGENT}/reviews/1/review.json"
    review.parent.mkdir(parents=True)
    review.write_text("{}")


def test_removing_a_host_tells_what_is_kept_of_its_agents(
    tell: Callable[..., tuple[int, str]], home: Path, file: Path
) -> None:
    file.write_text(f"[hosts.lab]\nuri = '{WORKS}'\n\n# looks\n[ui]\nview = 'table'\n")
    keep(home)
    code, said = tell("remove", "lab", "--yes", "--json")
    (agent,) = json.loads(said)["agents"]
    wanted: dict[str, Any] = {"name": "agent-01", "is_saved": True, "snapshots": 2, "reviews": 1}
    assert code == 0
    assert wanted.items() <= agent.items()
    assert file.read_text() == "# looks\n[ui]\nview = 'table'\n"
    assert catalogue(home).record(AGENT)


@pytest.mark.parametrize(("typed", "code", "is_gone"), [("yes", 0, True), ("", 2, False)])
def test_removing_asks(
    tell: Callable[..., tuple[int, str]],
    answer: Callable[[str], None],
    home: Path,
    file: Path,
    typed: str,
    code: int,
    is_gone: bool,
) -> None:
    file.write_text(f"[hosts.lab]\nuri = '{WORKS}'\n")
    keep(home)
    answer(typed)
    found, said = tell("remove", "lab")
    assert found == code
    assert "agent agent-01 (6f1c7b0e): saved, snapshots: 2, reviews: 1; all kept" in said
    assert (file.read_text() == "") is is_gone


def test_nobody_who_could_be_asked_means_no(
    tell: Callable[..., tuple[int, str]], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(f"[hosts.lab]\nuri = '{WORKS}'\n")
    with open(os.devnull) as nobody:
        monkeypatch.setattr(sys, "stdin", nobody)
        code, said = tell("remove", "lab")
    assert (code, "--yes" in said) == (2, True)
    assert WORKS in file.read_text()


def test_a_host_of_the_environment_is_not_in_the_file(
    tell: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWARM_TUI_HOSTS_LAB_URI", WORKS)
    code, said = tell("remove", "lab", "--yes")
    assert code == 2
    assert "SWARM_TUI_HOSTS_LAB_URI" in said


def test_trust_is_for_a_place_and_goes_with_it(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text("# mine\nother ssh-ed25519 AAAA\n")
    assert trust.fingerprint(ENTRY) == FINGERPRINT
    trust.vouch(file, ENTRY, "lab:2222")
    assert file.stat().st_mode & 0o777 == 0o600
    assert f"{ENTRY} lab:2222\n" in file.read_text()
    assert trust.withdraw(file, "lab") == 0
    assert trust.withdraw(file, "lab:2222") == 1
    assert file.read_text() == "# mine\nother ssh-ed25519 AAAA\n"
    for wrong in ("", "lab", "lab ssh-ed25519 !"):
        with pytest.raises(ConfigError):
            trust.fingerprint(wrong)
