"""The audit log: nothing without an intent, and nothing that hides how an act ended."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from swarm_tui.audit import Audit, Outcome
from swarm_tui.errors import AuditError
from swarm_tui.model import Verb

from .standin import AGENT
from .steps import fork


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "audit.jsonl"


@pytest.fixture
def audit(path: Path) -> Audit:
    return Audit(path)


def intend(audit: Audit, verb: Verb = Verb.PAUSE, agent: str = AGENT) -> str:
    return audit.intend(verb, agent=agent, name="ember", host="local", detail="quick")


def test_an_act_is_told_with_its_end(audit: Audit, path: Path) -> None:
    assert not audit.recent()
    entry = intend(audit)
    [open_act] = audit.recent()
    assert (open_act.outcome, open_act.ended, open_act.detail) == (None, None, "quick")
    audit.conclude(entry, Outcome.FAILED, "No room")
    [act] = audit.recent(AGENT)
    assert (act.outcome, act.detail, act.verb) == (Outcome.FAILED, "No room", "pause")
    assert act.ended is not None
    assert act.ended >= act.at
    assert path.stat().st_mode & 0o077 == 0, "others can read who did what"


def test_acts_of_one_agent(audit: Audit) -> None:
    intend(audit)
    intend(audit, agent="another")
    assert len(audit.recent()) == 2
    assert [act.agent for act in audit.recent("another")] == ["another"]


def test_what_a_crash_cut_off_shows_as_unfinished_and_hides_nothing(
    audit: Audit, path: Path
) -> None:
    intend(audit, Verb.PAUSE)
    with path.open("a") as file:
        file.write('{"at": 1, "id": "cut", "record": "outc')
    intend(audit, Verb.KILL)
    assert [(act.verb, act.outcome) for act in audit.recent()] == [("pause", None), ("kill", None)]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "7",
        "[]",
        "null",
        '{"record": "intent"}',
        '{"record": "intent", "id": [], "at": "now"}',
        '{"record": "outcome", "id": {}}',
        '{"record": "outcome"}',
        "\\ud800",
    ],
)
def test_strange_lines_are_passed_over(audit: Audit, path: Path, line: str) -> None:
    entry = intend(audit)
    with path.open("a") as file:
        file.write(line + "\n")
    audit.conclude(entry, Outcome.DONE)
    assert (audit.recent(AGENT)[0].verb, audit.recent(AGENT)[0].outcome) == ("pause", Outcome.DONE)


def test_an_unknown_end_is_unknown(audit: Audit, path: Path) -> None:
    entry = intend(audit)
    with path.open("a") as file:
        file.write(json.dumps({"record": "outcome", "id": entry, "outcome": ["done"]}) + "\n")
    assert audit.recent()[0].outcome is Outcome.UNKNOWN


def test_hostile_names_reach_no_screen(audit: Audit, path: Path) -> None:
    audit.intend(Verb.KILL, agent=AGENT, name="\x1b[2J\n{}", host="\u202e", detail="\r")
    assert path.read_text().count("\n") == 1
    [act] = audit.recent()
    assert act.name == "␛[2J␊{}"
    assert act.host == "\ufffd"


def test_a_line_that_was_cut_short_is_no_intent(
    audit: Audit, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full in the middle of a line: the caller must not act."""
    intend(audit)
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, line: write(handle, line[:20]))
    with pytest.raises(AuditError) as raised:
        intend(audit, Verb.KILL)
    assert "Nothing is done" in raised.value.hint
    monkeypatch.undo()
    intend(audit, Verb.RESUME)
    assert [act.verb for act in audit.recent()] == ["pause", "resume"]


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(AuditError):
        intend(Audit(tmp_path / "state" / "audit.jsonl"))


def test_only_the_end_of_a_long_log_is_read(audit: Audit, path: Path) -> None:
    intend(audit, Verb.SPAWN)
    filler = json.dumps({"record": "intent", "id": "x", "detail": "y" * 1000}) + "\n"
    with path.open("a") as file:
        file.write(filler * 1100)
    intend(audit, Verb.KILL)
    acts = audit.recent()
    assert acts[-1].verb == "kill"
    assert not [act for act in acts if act.verb == "spawn"]


def test_processes_write_side_by_side(audit: Audit, path: Path) -> None:
    children = []
    for _ in range(4):
        child = fork()
        if child == 0:
            for _ in range(25):
                intend(audit)
            os._exit(0)
        children.append(child)
    for child in children:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(audit.recent()) == 100
    assert all(json.loads(line) for line in path.read_text().splitlines())
