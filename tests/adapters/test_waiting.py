"""`swarm-tui waiting`, on libvirt's test driver."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swarm_tui.audit import Audit, Outcome
from swarm_tui.cli import main
from swarm_tui.model import Tag, Verb
from swarm_tui.paths import HOME_VARIABLE, locate
from swarm_tui.tag import render_tag
from swarm_tui.text import literal

RUNNING, SHUT_OFF = 1, 5
"""virDomainState, as the test driver's file has it."""
AGENT = "0b5e0001-77aa-4c11-9d20-000000000001"
NAMESPACE = "http://libvirt.org/schemas/domain/test/1.0"


def write_host(folder: Path, state: int) -> str:
    tag = render_tag(Tag(owner=literal("hanne"), created=1.7e9))
    file = folder / "host.xml"
    file.write_text(
        f"<node><domain type='test' xmlns:test='{NAMESPACE}'><name>moss</name><uuid>{AGENT}</uuid>"
        f"<metadata>{tag}<test:runstate>{state}</test:runstate></metadata>"
        "<memory unit='MiB'>256</memory><os><type>hvm</type></os>"
        f"<test:runstate>{state}</test:runstate></domain></node>"
    )
    return f"test://{file}"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path))


def test_who_has_failed_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri = write_host(tmp_path, SHUT_OFF)
    assert main(["--connect", uri, "waiting", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (need,) = told["waiting"]
    assert (need["kind"], need["name"], need["owner"]) == ("failed", "moss", "hanne")
    assert told["counts"] == {"failed": 1}
    assert main(["--connect", uri, "waiting", "--summary"]) == 0
    assert capsys.readouterr().out == "1 failed\n"
    assert main(["--connect", uri, "waiting", "--wait"]) == 0
    assert "moss" in capsys.readouterr().out
    assert main(["--connect", uri, "waiting", "--mine"]) == 1
    assert capsys.readouterr().out == ""


def test_nothing_waits_until_a_verb_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = write_host(tmp_path, RUNNING)
    assert main(["--connect", uri, "waiting"]) == 1
    assert capsys.readouterr().out == ""
    log = Audit(locate().audit_log)
    entry = log.intend(Verb.PAUSE, agent=AGENT, name="moss", host="connected")
    log.conclude(entry, Outcome.FAILED, "No room\x1b[2J")
    assert main(["--connect", uri, "waiting"]) == 0
    told = capsys.readouterr().out
    assert "pause failed: No room" in told
    assert "\x1b" not in told


def test_a_host_out_of_reach_waits(capsys: pytest.CaptureFixture[str]) -> None:
    uri = "test+unix:///default?socket=/nowhere/libvirt-sock"
    assert main(["--connect", uri, "waiting", "--summary"]) == 0
    assert capsys.readouterr().out == "1 host\n"
