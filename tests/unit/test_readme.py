"""The README says what the program does: its keys, exit codes and commands are the real ones."""

from __future__ import annotations

import re
from pathlib import Path

from swarm_tui import errors
from swarm_tui.cli import build_parser
from swarm_tui.model import State
from swarm_tui.ui.keys import render_keys_markdown

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_table_of_keys_is_that_of_the_actions() -> None:
    table = README.split("<!-- keys -->")[1].split("<!-- /keys -->")[0]
    assert table.strip() == render_keys_markdown().strip(), "put what it renders there"


def test_every_exit_code_is_told() -> None:
    told = {int(code) for code in re.findall(r"\| (\d+) \|", README)}
    real = {
        error.exit_code
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.SwarmError)
    }
    assert real | {0} == told


def test_every_command_is_told() -> None:
    commands = set(re.findall(r"^    (\w+) {2,}", build_parser().format_help(), re.MULTILINE))
    assert commands
    assert {name for name in commands if not re.search(rf"\b{name}\b", README)} == set()


def test_every_state_is_told() -> None:
    assert {state for state in State if f"`{state}`" not in README} == set()


def test_the_picture_is_there() -> None:
    picture = Path(__file__).parents[2] / "docs/fleet.svg"
    assert picture.read_text().startswith("<svg")
