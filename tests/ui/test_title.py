"""The terminal's title, in a real terminal: what is counted, and that it is given back."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from terminal import Terminal

from swarm_tui.attention import Kind
from swarm_tui.model import State
from swarm_tui.paths import HOME_VARIABLE
from swarm_tui.ui.herald import KEEP_TITLE, RESTORE_TITLE, make_title

TITLE = re.compile(rb"\x1b\]0;([^\x07\x1b]*) \xe2\x80\x94 swarm-tui\x07")
BYE = b"\x1b[?1049l"


def has_title(heard: bytes) -> bool:
    return TITLE.search(heard) is not None


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path))
    argv = [sys.executable, "-m", "swarm_tui", "demo", "--simulated", "3"]
    terminal = Terminal(argv)
    yield terminal
    terminal.end()


def test_it_counts_and_is_given_back_when_the_person_leaves(terminal: Terminal) -> None:
    heard = terminal.until(has_title)
    assert KEEP_TITLE.encode() in heard
    assert b"running" in TITLE.findall(heard)[-1]
    terminal.type(b"q")
    end = terminal.until(lambda heard: RESTORE_TITLE.encode() in heard)
    assert end.index(BYE) < end.index(RESTORE_TITLE.encode())


def test_it_is_given_back_when_the_program_is_ended(terminal: Terminal) -> None:
    terminal.until(has_title)
    os.kill(terminal.pid, signal.SIGTERM)
    assert RESTORE_TITLE.encode() in terminal.until(lambda heard: RESTORE_TITLE.encode() in heard)


@pytest.mark.parametrize("is_stopped", [False, True], ids=["hang-up", "stopped before"])
def test_it_ends_with_its_terminal(terminal: Terminal, is_stopped: bool) -> None:
    """The kernel sends SIGHUP and SIGCONT then; the fixture waits for the program's end."""
    terminal.until(has_title)
    if is_stopped:
        os.kill(terminal.pid, signal.SIGSTOP)
        os.kill(terminal.pid, signal.SIGCONT)
        terminal.until(lambda heard: b"\x1b[?1049h" in heard)


def test_what_waits_comes_before_what_runs() -> None:
    waiting = dict.fromkeys(Kind, 0) | {Kind.ASK: 2, Kind.FAILED: 1}
    states = dict.fromkeys(State, 0) | {State.RUNNING: 1_038}
    assert make_title(waiting, states) == "2 ask · 1 failed · 1,038 running — swarm-tui"
    assert make_title(dict.fromkeys(Kind, 0), dict.fromkeys(State, 0)) == "swarm-tui"
