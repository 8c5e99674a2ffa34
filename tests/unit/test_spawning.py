"""New agents from the command line: of a profile, one or many, on the simulated hosts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swarm_tui import spawning
from swarm_tui.bootstrap import make_simulated
from swarm_tui.cli import main
from swarm_tui.errors import Refused, UsageError
from swarm_tui.profile import PLAIN
from swarm_tui.spawns import MOST, Wish
from swarm_tui.supervisor import Supervisor

Tell = Callable[..., tuple[int, str, str]]


@pytest.fixture
def tell(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Tell:
    """Run the program, whose hosts are simulated; code, output, errors."""
    monkeypatch.setenv("SWARM_TUI_HOME", str(tmp_path / "home"))
    own = tmp_path / "home/config/profiles"
    own.mkdir(parents=True)
    (own / "shop.toml").write_text(
        'labels = ["team=web"]\nmemory_mib = 128\ntask = "sort"\n[life]\nttl = "2h"\n'
    )
    (own / "broken.toml").write_text("vcpu = 2\n")

    def simulate(*_: object, **__: object) -> Supervisor:
        supervisor, swarm = make_simulated(2, tmp_path / "swarm")
        if (own / "shop.toml").with_suffix(".fails").exists():
            swarm.fail_next("spawn", Refused("no disk for it"))
        return supervisor

    monkeypatch.setattr(spawning, "make_supervisor", simulate)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def spawned(tell: Tell, *arguments: str) -> dict[str, Any]:
    code, out, err = tell("spawn", *arguments, "--json")
    assert code == 0, err
    answer: dict[str, Any] = json.loads(out)
    return answer


def test_several_of_a_profile(tell: Tell) -> None:
    answer = spawned(tell, "shop", "--count", "3", "--name", "shop", "--label", "urgent")
    assert sorted(agent["name"] for agent in answer["agents"]) == ["shop-1", "shop-2", "shop-3"]
    for agent in answer["agents"]:
        assert agent["task"] == "sort"
        assert agent["labels"] == {"team": "web", "urgent": ""}
        assert agent["placed"]
    assert answer["failed"] == []


def test_each_is_told_as_it_is_there_and_then_all(tell: Tell) -> None:
    code, out, err = tell("spawn", "shop", "--count", "2", "--task", "count")
    assert code == 0
    assert "2 made in" in out
    lines = err.splitlines()
    assert lines[0].startswith("  2 agents: 2 on")
    assert [line.split()[0] for line in lines[1:]] == ["1/2", "2/2"]


def test_one_that_fails_takes_no_other_with_it(tell: Tell, tmp_path: Path) -> None:
    (tmp_path / "home/config/profiles/shop.fails").touch()
    code, out, err = tell("spawn", "shop", "--count", "3", "--name", "ada")
    assert code == 1
    assert "2 made in" in out
    assert "1 not" in out
    assert "failed: no disk for it" in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("shp",), "did you mean 'shop'"),
        (("broken",), "profile broken is not valid"),
        (("shop", "--count", "0"), "count: from 1"),
        (("shop", "--count", str(MOST + 1)), "count: from 1"),
        (("shop", "--name", "A b"), "cannot be a host name"),
        (("shop", "--ttl", "soon"), "no time"),
        (("shop", "--label", "a b"), "is no label"),
        (("codex",), "task: missing"),
        (("shop", "--host", "nowhere"), "nowhere"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(
    tell: Tell, arguments: tuple[str, ...], told: str
) -> None:
    code, out, err = tell("spawn", *arguments)
    assert code not in (0, 1)
    assert told in err
    assert out == ""


def test_profiles_are_listed_with_what_is_wrong_of_them(tell: Tell) -> None:
    code, out, err = tell("profiles")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:4]] == ["broken", "shop", "aider"]
    assert "vcpu: unknown key" in err
    code, out, _ = tell("profiles", "shop")
    assert (code, "128 MiB  (line 2)" in out, "2h00  (line 5)" in out) == (0, True, True)
    assert "ref          HEAD  (default)" in out
    assert "checkpoint   snapshots.every  (default)" in out


def test_of_an_environment_only_the_names_are_told(tell: Tell, tmp_path: Path) -> None:
    text = '[environment]\nPASS = "hunter2"\nKEY = { from = "MY_KEY" }\n'
    (tmp_path / "home/config/profiles/secret.toml").write_text(text)
    for arguments in (("profiles", "secret"), ("profiles", "secret", "--json")):
        _, out, _ = tell(*arguments)
        assert "PASS" in out
        assert "MY_KEY" in out
        assert "hunter2" not in out


def test_names_of_many_are_as_long_as_each_other() -> None:
    names = [command.name for command in Wish(PLAIN, count=12, name="w").commands()]
    assert (names[0], names[-1]) == ("w-01", "w-12")
    with pytest.raises(UsageError, match="cannot be a host name"):
        Wish(PLAIN, count=200, name="w" * 29).commands()
