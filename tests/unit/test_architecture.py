"""Rules of the house that no type checker knows."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "swarm_tui"
TESTS = Path(__file__).resolve().parents[1]
SOURCES = sorted(PACKAGE.rglob("*.py"))
BANNED = re.compile(r"(?:^|_)(managers?|helpers?|utils?|common|base|misc|handlers?|data)(?:_|$)")
LONGEST = 500


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE.parent).as_posix()


@cache
def nodes() -> Sequence[tuple[Path, ast.AST]]:
    return [
        (path, node) for path in SOURCES for node in ast.walk(ast.parse(path.read_text("utf-8")))
    ]


def offenders(*kinds: type[ast.AST], text: str, but: str = "") -> list[str]:
    """Places of nodes whose source matches the pattern."""
    return [
        f"{relative(path)}:{getattr(node, 'lineno', '?')}: {ast.unparse(node)}"
        for path, node in nodes()
        if isinstance(node, kinds) and path.name != but and re.search(text, ast.unparse(node))
    ]


def test_only_the_choke_point_makes_safe_text() -> None:
    assert not offenders(ast.Call, text=r"^(\w+\.)*Safe\(|^(\w+\.)*cast\(.?Safe\b", but="text.py")


def test_host_keys_are_always_pinned() -> None:
    assert not offenders(ast.keyword, text=r"^known_hosts=None")
    assert not offenders(ast.Dict, text=r"['\"]known_hosts['\"]: None")
    assert not offenders(ast.Constant, text=r"StrictHostKeyChecking=(no|off|accept-new)")


def test_text_is_never_read_as_markup() -> None:
    assert not offenders(ast.keyword, text=r"^markup=(?!False$)")
    assert not offenders(ast.Call, text=r"(^|\.)from_markup\(")


def test_nothing_runs_through_a_shell_of_this_machine() -> None:
    assert not offenders(ast.keyword, text=r"^shell=True")
    assert not offenders(ast.Call, text=r"^(os\.(system|popen)|asyncio\.create_subprocess_shell)\(")


def test_no_error_is_caught_by_a_net() -> None:
    nets = offenders(ast.ExceptHandler, text=r"^except( Exception\b|:)")
    assert not nets


def test_names_of_modules_say_what_they_hold() -> None:
    names = {path.stem for path in SOURCES} | {path.parent.name for path in SOURCES}
    assert not [name for name in names if BANNED.search(name)]


@pytest.mark.parametrize("folder", [PACKAGE, TESTS], ids=["package", "tests"])
def test_files_are_short_enough_to_read(folder: Path) -> None:
    long = {
        relative(path): count
        for path in folder.rglob("*.py")
        if (count := len(path.read_text("utf-8").splitlines())) > LONGEST
    }
    assert not long


def loaded_by(home: Path, *arguments: str) -> set[str]:
    """Top-level packages that a whole run of the program loads."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "swarm_tui", *arguments],
        env={"PATH": os.defpath, "HOME": str(home), "SWARM_TUI_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    modules = re.findall(r"^import time: .*\|\s*([\w.]+)$", done.stderr, re.M)
    assert "swarm_tui.cli" in modules
    return {module.partition(".")[0] for module in modules}


def test_help_loads_no_library(tmp_path: Path) -> None:
    heavy = {"textual", "rich", "libvirt", "asyncssh", "cryptography", "humanize", "asyncio"}
    assert not heavy & loaded_by(tmp_path, "--help")


def test_a_list_loads_neither_screen_nor_ssh(tmp_path: Path) -> None:
    heavy = {"textual", "rich", "asyncssh", "cryptography"}
    assert not heavy & loaded_by(tmp_path, "ls", "--json")
