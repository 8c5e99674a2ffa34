"""`swarm-tui audit`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swarm_tui.audit import Audit, Outcome
from swarm_tui.auditing import parse_time
from swarm_tui.cli import main
from swarm_tui.errors import UsageError
from swarm_tui.model import Verb
from swarm_tui.paths import HOME_VARIABLE, locate

from .standin import AGENT


@pytest.fixture
def audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Audit:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path))
    log = Audit(locate().audit_log)
    entry = log.intend(Verb.PAUSE, agent=AGENT, name="ember", host="lab", detail="\x1b[2J")
    log.conclude(entry, Outcome.FAILED, "No room")
    log.intend(Verb.KILL, agent="0" * 36, name="basil", host="lab", detail="")
    return log


@pytest.mark.parametrize("named", ["ember", "lab/ember", AGENT, AGENT[:6]])
def test_acts_of_one_agent(audit: Audit, capsys: pytest.CaptureFixture[str], named: str) -> None:
    assert main(["audit", "--agent", named, "--since", "1h"]) == 0
    [_, line] = capsys.readouterr().out.splitlines()
    assert "pause" in line
    assert "failed" in line
    assert line.endswith("No room")


def test_acts_of_all_for_programs(audit: Audit, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "--json"]) == 0
    acts = json.loads(capsys.readouterr().out)["acts"]
    assert [(act["verb"], act["outcome"]) for act in acts] == [("pause", "failed"), ("kill", None)]


def test_a_log_is_proved(audit: Audit, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "--verify"]) == 0
    assert capsys.readouterr().out.startswith("3 lines hold together")
    log = locate().audit_log
    log.write_bytes(log.read_bytes().replace(b"No room", b"Granted"))
    assert main(["audit", "--verify"]) == 11
    assert "line 3: what stands before it, number 2" in capsys.readouterr().err


def test_times() -> None:
    assert parse_time("2h", 10_000.0) == 2_800.0
    assert parse_time("2026-11-23T14:00+00:00", 0.0) == 1_795_442_400.0
    for wrong in ("", "yesterday", "2x", "2026-13-01"):
        with pytest.raises(UsageError):
            parse_time(wrong, 0.0)
