"""Verbs on several agents from the command line: chosen, counted, confirmed, each told."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from testhost import NOWHERE, Domain, write_config, write_host

from swarm_tui.cli import main

Tell = Callable[..., tuple[int, str, str]]


@pytest.fixture
def tell(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Tell:
    """Run the program on two hosts that answer and one that does not; code, output, errors."""
    home = tmp_path / "home"
    monkeypatch.setenv("SWARM_TUI_HOME", str(home))
    web = [Domain(f"web-{number}", labels=["team=web"]) for number in range(3)]
    lab = write_host(tmp_path, "lab", [*web, Domain("core", owner="bo")])
    edge = write_host(tmp_path, "edge", [Domain("web-9", labels=["team=web"])])
    write_config(home / "config/config.toml", {"lab": lab, "edge": edge, "gone": NOWHERE})

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def type_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """What a person at a terminal types."""

    def answer(text: str) -> None:
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
        monkeypatch.setattr(sys.stdin, "readline", lambda: f"{text}\n")

    return answer


def outcomes(out: str) -> dict[str, str]:
    told: dict[str, Any] = json.loads(out)
    return {f"{agent['host']}/{agent['name']}": agent["outcome"] for agent in told["agents"]}


def test_a_list_can_be_filtered(tell: Tell) -> None:
    code, out, _ = tell("ls", "--filter", "label:team=web -host:edge")
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["web-0", "web-1", "web-2"]
    assert code == 5, "one host was not read"
    code, _, err = tell("ls", "--filter", "state:asleep")
    assert (code, "state:asleep is none" in err) == (2, True)


def test_all_that_a_filter_lets_through_are_done_and_each_is_told(tell: Tell) -> None:
    code, out, err = tell("pause", "--quick", "--filter", "label:team", "--yes")
    assert code == 0
    told = [line.partition(":")[0] for line in out.splitlines()]
    assert sorted(told) == ["edge/web-9", "lab/web-0", "lab/web-1", "lab/web-2"]
    assert "nonexistent" in err, "whoever is on the lost host is not among them, and that is said"


def test_several_can_be_named(tell: Tell) -> None:
    code, out, _ = tell("pause", "lab/web-0", "edge/web-9", "--quick", "--yes", "--json")
    assert (code, outcomes(out)) == (0, {"lab/web-0": "done", "edge/web-9": "done"})


def test_one_that_fails_decides_the_code_and_stops_no_other(
    tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    from swarm_tui.adapters.libvirt import LibvirtHypervisor
    from swarm_tui.errors import HostError
    from swarm_tui.model import AgentId

    suspend = LibvirtHypervisor.suspend

    async def fail(hypervisor: LibvirtHypervisor, agent: AgentId) -> None:
        if hypervisor.host == "edge":
            raise HostError("The disk is on fire")
        await suspend(hypervisor, agent)

    monkeypatch.setattr(LibvirtHypervisor, "suspend", fail)
    code, out, _ = tell("pause", "--quick", "--filter", "name:web-0,web-9", "--yes", "--json")
    assert (code, outcomes(out)) == (1, {"lab/web-0": "done", "edge/web-9": "failed"})
    assert "The disk is on fire" in out


def test_a_person_is_asked_with_the_counts(tell: Tell, type_in: Callable[[str], None]) -> None:
    type_in("no")
    code, out, err = tell("pause", "--quick", "--filter", "label:team")
    assert (code, out) == (2, "")
    assert "pause 4 agents: 4 running · 3 on lab, 1 on edge" in err
    assert "Nothing was done" in err
    type_in("yes")
    assert tell("pause", "--quick", "--filter", "label:team")[0] == 0


def test_kill_wants_the_number_typed(tell: Tell, type_in: Callable[[str], None]) -> None:
    type_in("yes")
    code, _, err = tell("kill", "--filter", "label:team=web host:lab")
    assert (code, "3 was not typed" in err) == (2, True)
    type_in("3")
    code, out, _ = tell("kill", "--filter", "label:team=web host:lab")
    assert (code, len(out.splitlines())) == (0, 3), out


def test_nobody_there_to_ask_means_no(tell: Tell) -> None:
    code, _, err = tell("pause", "--filter", "label:team")
    assert (code, "needs --yes" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("pause",), 2, "Name an agent"),
        (("kill", "--filter", "", "--yes"), 2, "leaves nobody out"),
        (("pause", "web-0", "--filter", "x", "--yes"), 2, "Both were given"),
        (("pause", "--filter", "name:nobody", "--yes"), 3, "No agent matches"),
        (("resume", "--filter", "name:web-*", "--yes"), 4, "4 cannot: it is running; only a"),
        (("message", "--filter", "name:web-*", "--yes", "look", "here"), 4, "no SSH address"),
        (("message", "web-0"), 2, "Say what to write"),
    ],
)
def test_what_makes_no_sense_is_refused(
    tell: Tell, arguments: tuple[str, ...], code: int, told: str
) -> None:
    found, out, err = tell(*arguments)
    assert (found, told in err, out) == (code, True, "")
