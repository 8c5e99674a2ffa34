"""Hosts behind a real SSH server: whose key is trusted, and by whose word."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swarm_tui.cli import main

from .openssh import SSHD, Server

pytestmark = pytest.mark.skipif(SSHD is None, reason="there is no OpenSSH server")

Tell = Callable[..., tuple[int, str]]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A host that nobody knows yet."""
    # What the developer's own ssh knows and is told must make no difference.
    monkeypatch.setenv("HOME", str(tmp_path))
    server = Server(tmp_path / "server")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    monkeypatch.setenv("SWARM_TUI_HOME", str(folder))
    return folder


@pytest.fixture
def tell(server: Server, home: Path, capsys: pytest.CaptureFixture[str]) -> Tell:
    """Add the host with these options, unchecked; exit code and all that was said."""

    def run(*options: str, name: str = "lab", driver: str = "ch") -> tuple[int, str]:
        uri = f"{driver}+ssh://{server.user}@{server.address}:{server.port}/system"
        identity = ["--identity", str(server.identity)]
        code = main(["host", "add", name, uri, *identity, "--no-check", *options])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with open(os.devnull) as empty:
        monkeypatch.setattr(sys, "stdin", empty)
        yield


def configured(home: Path) -> str:
    file = home / "config/config.toml"
    return file.read_text() if file.exists() else ""


def trusted(home: Path) -> str:
    file = home / "config/known_hosts"
    return file.read_text() if file.exists() else ""


@pytest.mark.usefixtures("nobody")
def test_a_key_that_nobody_confirms_is_not_trusted(tell: Tell, server: Server, home: Path) -> None:
    code, said = tell()
    assert code == 2
    assert f"--fingerprint {server.fingerprint}" in said
    assert (configured(home), trusted(home)) == ("", "")


@pytest.mark.usefixtures("nobody")
def test_the_fingerprint_decides(tell: Tell, server: Server, home: Path) -> None:
    other = "SHA256:" + "A" * 43
    code, said = tell("--fingerprint", other)
    assert code == 5
    assert server.fingerprint in said
    assert (configured(home), trusted(home)) == ("", "")
    code, said = tell("--fingerprint", server.fingerprint, "--json")
    assert code == 0
    assert json.loads(said)["host"]["key"] == server.fingerprint
    assert trusted(home).startswith(server.entry)
    assert "[hosts.lab]" in configured(home)
    code, said = tell("--fingerprint", other)
    assert code == 5, "trusted or not, it is not the key that was named"


@pytest.mark.parametrize("reply", ["yes", "the fingerprint"])
def test_a_person_may_confirm_it(
    tell: Tell, server: Server, home: Path, answer: Callable[[str], None], reply: str
) -> None:
    answer(reply if reply == "yes" else server.fingerprint)
    code, said = tell()
    assert code == 0
    assert server.fingerprint in said
    assert trusted(home).startswith(server.entry)


def test_whatever_else_a_person_types_is_a_no(
    tell: Tell, home: Path, answer: Callable[[str], None]
) -> None:
    answer("y")
    assert tell()[0] == 2
    assert (configured(home), trusted(home)) == ("", "")


@pytest.mark.usefixtures("nobody")
def test_what_the_users_ssh_trusts_needs_no_word(tell: Tell, server: Server, home: Path) -> None:
    known = Path.home() / ".ssh/known_hosts"
    known.parent.mkdir()
    known.write_text(f"{server.entry}\n")
    assert tell()[0] == 0
    assert trusted(home) == ""


@pytest.mark.usefixtures("nobody")
def test_a_login_that_is_refused_leaves_nothing_behind(
    tell: Tell, server: Server, home: Path
) -> None:
    (server.folder / "authorized_keys").write_text("")
    code, said = tell("--yes")
    assert code == 5
    assert "does not let us in" in said
    assert (configured(home), trusted(home)) == ("", "")


@pytest.mark.usefixtures("nobody")
def test_a_changed_key_is_refused_until_the_host_is_removed(
    tell: Tell, server: Server, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tell("--yes")[0] == 0
    before = trusted(home)
    server.stop()
    server.change_key()
    server.start()
    code, said = tell("--yes")
    assert code == 5
    assert "has changed" in said
    assert trusted(home) == before
    assert main(["host", "remove", "lab", "--yes"]) == 0
    assert "its SSH key is forgotten" in capsys.readouterr().out
    assert tell("--yes")[0] == 0
    assert trusted(home).startswith(server.entry)


@pytest.mark.usefixtures("nobody")
def test_a_key_stays_for_as_long_as_a_host_is_at_its_place(tell: Tell, home: Path) -> None:
    assert tell("--yes", name="lab", driver="ch")[0] == 0
    assert tell(name="lab-qemu", driver="qemu")[0] == 0
    assert main(["host", "remove", "lab", "--yes"]) == 0
    assert trusted(home)
    assert main(["host", "remove", "lab-qemu", "--yes"]) == 0
    assert trusted(home) == ""


@pytest.mark.usefixtures("nobody")
def test_a_host_out_of_reach_is_not_added(tell: Tell, server: Server, home: Path) -> None:
    server.stop()
    code, said = tell("--yes")
    assert (code, "out of reach" in said) == (5, True)
    assert configured(home) == ""
