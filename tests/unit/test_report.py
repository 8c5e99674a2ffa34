"""What the command line prints: for people, and for programs."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from swarm_tui.fact import Listed
from swarm_tui.model import Tag
from swarm_tui.report import agent_object, write_agent, write_json
from swarm_tui.store import Store
from swarm_tui.text import sanitize

from .facts import vm
from .standin import AGENT, HOST


def test_an_agent_is_shown_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    store = Store()
    made = replace(vm(), memory_bytes=256 << 20, tag=Tag(task=sanitize("do it"), created=1.0))
    store.apply(Listed(HOST, (made,), 1))
    agent = store.agent(AGENT)
    assert agent
    write_agent(agent, [], [])
    shown = capsys.readouterr().out
    assert "256.0 MiB" in shown
    assert "do it" in shown
    assert "years ago" in shown
    assert agent_object(agent)["memory_bytes"] == 256 << 20


def test_json_carries_no_terminal_sequence(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "\x1b]52;c;x\x07 \x9b31m \u202e"
    write_json({"text": hostile})
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert "\x1b" not in printed
    assert json.loads(printed)["text"] == hostile
