"""Profiles in files: what a person writes, and what is said of what they got wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from swarm_tui.errors import ConfigError, NotFound, SetupError
from swarm_tui.profile import Ending, Life, Profile
from swarm_tui.profiles import load

WHOLE = """
about = "Fixes the shop"
image = "node-20"
vcpus = 2
memory_mib = 1024
disk_mib = 4096
repository = "/srv/shop.git"
ref = "main"
task = "Look for work"
command = ["fix", "--task", "{task}"]
labels = ["team=web", "urgent"]
hosts = ["lab", "edge"]
ready = 3
checkpoint = "10m"

[environment]
MODEL = "big"
KEY = { from = "MY_KEY" }

[life]
ttl = "2h"
on_expiry = "end"
on_done = "end"
on_failed = "pause"
"""


def write(folder: Path, text: str | bytes, name: str = "shop") -> Path:
    path = folder / f"{name}.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read(folder: Path, text: str) -> Profile:
    write(folder, text)
    return load(folder).find("shop")


def test_everything_that_can_be_said(tmp_path: Path) -> None:
    profile = read(tmp_path, WHOLE)
    assert (profile.name, profile.image, profile.vcpus) == ("shop", "node-20", 2)
    assert (profile.memory_mib, profile.disk_mib, profile.ready) == (1024, 4096, 3)
    assert (profile.repository, profile.ref) == ("/srv/shop.git", "main")
    assert profile.command == ("fix", "--task", "{task}")
    assert [label.text for label in profile.labels] == ["team=web", "urgent"]
    assert profile.hosts == ("lab", "edge")
    assert profile.life == Life(7200.0, Ending.END, Ending.END, Ending.PAUSE)
    assert profile.checkpoint == "10m"
    assert profile.variables({"MY_KEY": "s3cret"}) == {"MODEL": "big", "KEY": "s3cret"}
    with pytest.raises(SetupError, match="needs MY_KEY"):
        profile.variables({})


def test_an_empty_file_makes_what_spawn_alone_makes(tmp_path: Path) -> None:
    assert read(tmp_path, "") == Profile(name=load(tmp_path).entries[0].name)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("vcpu = 2", ":1: vcpu: unknown key; did you mean 'vcpus'"),
        ("\n\nvcpus = 0", ":3: vcpus: found 0; allowed: a whole number from 1 to 64"),
        ("vcpus = true", "vcpus: found true"),
        ('memory_mib = "1G"', "memory_mib: found '1G'"),
        ("command = [1]", "command: found a list"),
        ('repository = "shop"', "repository: found 'shop'; allowed: an absolute path"),
        ('repository = "--upload-pack=/bin/sh"', "repository: found"),
        ('repository = "ext::sh -c id"', "repository: found"),
        ('ref = "--all"', "ref: found '--all'"),
        ('ref = "a..b"', "git takes no such name"),
        ('labels = ["a b"]', "is no label"),
        ('hosts = ["../x"]', "hosts: found a list"),
        ('about = "a\\u0007b"', "it holds what cannot be seen"),
        ('life = "2h"', "life: found '2h'; allowed: a table"),
        ('[life]\nttl = "soon"', ":2: life.ttl: found 'soon'"),
        ('[life]\non_done = "ende"', "did you mean 'end'"),
        ("[life]\nttl_s = 3", "life.ttl_s: unknown key; did you mean 'ttl'"),
        ('[environment]\n"A B" = "x"', "a variable's name"),
        ("[environment]\nA = 3", "environment.A: found 3"),
        ('[environment]\nA = { from = "B", or = "C" }', "environment.A: found a table"),
        ("vcpus = ", "not TOML"),
        pytest.param(f"task = '{'x' * 20_000}'", "text of at most 16384", id="long task"),
        pytest.param(f"# {'x' * 70_000}", "longer than 64 KiB", id="long file"),
    ],
)
def test_what_is_wrong_is_told_where_it_stands(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert "profile shop is not valid" in caught.value.title
    assert told in caught.value.detail


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, "vcpus = 0\nready = -1\nwhat = 1")
    assert [line.split(": ")[1] for line in caught.value.detail.splitlines()] == [
        "vcpus",
        "ready",
        "what",
    ]


def test_a_broken_one_takes_no_other_with_it(tmp_path: Path) -> None:
    write(tmp_path, b"\xff\xfe", "broken")
    write(tmp_path, "vcpus = 2", "good")
    write(tmp_path, "", "no name!")
    profiles = load(tmp_path)
    assert {
        entry.name: entry.error is None for entry in profiles.entries if not entry.is_shipped
    } == {
        "broken": False,
        "good": True,
        "no name!": False,
    }
    assert "good" in [profile.name for profile in profiles.usable]
    with pytest.raises(ConfigError, match="not valid"):
        profiles.find("broken")


@pytest.mark.parametrize(
    "text",
    [
        b"a = " + b"[" * 5000,
        b"vcpus = " + b"9" * 5000,
        b"\xff\xfe",
        b"x" * (65 << 10),
        b'repository = "~nobody-here/x"',
        b'about = "\\u001b[2J"',
        b'command = ["\\u0000"]',
        b"[environment]\n'a=b' = 'x'",
        b"[[life]]",
    ],
)
def test_a_hostile_file_is_refused_and_nothing_else_suffers(tmp_path: Path, text: bytes) -> None:
    write(tmp_path, text, "bad")
    found = load(tmp_path)
    error = found.entry("bad").error
    assert error
    assert "\x1b" not in str(error)
    assert found.find("demo")


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "folder.toml").mkdir()
    found = load(tmp_path)
    assert "not a file" in str(found.entry("pipe").error)
    assert "not a file" in str(found.entry("folder").error)


def test_a_task_that_looks_like_an_option_is_none(tmp_path: Path) -> None:
    """Of shipped ones: behind -- or =."""
    for profile in load(tmp_path).usable:
        *before, word = profile.command or ("--", "{task}")
        assert word.endswith("={task}") or (word == "{task}" and before[-1] == "--")


def test_a_name_that_there_is_not_is_told_with_the_near_one(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        load(tmp_path / "none").find("claud")
    assert "did you mean 'claude'" in caught.value.title
    assert "codex" in caught.value.detail


def test_those_that_are_shipped_are_valid_and_an_own_one_goes_before(tmp_path: Path) -> None:
    shipped = load(tmp_path)
    assert all(entry.profile and entry.is_shipped for entry in shipped.entries)
    assert {"demo", "claude", "codex", "gemini", "opencode", "aider"} <= {
        entry.name for entry in shipped.entries
    }
    for profile in shipped.usable:
        assert profile.about
        assert not profile.command or any("{task}" in word for word in profile.command)
    write(tmp_path, "vcpus = 7", "claude")
    assert load(tmp_path).find("claude").vcpus == 7
    assert len(load(tmp_path).entries) == len(shipped.entries)
