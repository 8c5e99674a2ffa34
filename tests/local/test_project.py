"""The owner's repository of a local swarm."""

from __future__ import annotations

import subprocess
from pathlib import Path

from swarm_tui.local.image import Image
from swarm_tui.local.project import ensure_project


def git(repository: Path, *arguments: str) -> str:
    command = ["git", "-C", str(repository), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_it_holds_what_the_agents_began_with(tmp_path: Path, image: Image) -> None:
    repository = ensure_project(tmp_path, image)
    assert git(repository, "rev-parse", "main") == image.base_commit
    assert "README.md" in git(repository, "ls-tree", "--name-only", "main").split()
    assert git(repository, "remote") == ""


def test_what_its_owner_did_in_it_stays(tmp_path: Path, image: Image) -> None:
    repository = ensure_project(tmp_path, image)
    git(repository, "branch", "mine", "main")
    git(repository, "update-ref", "-d", "refs/heads/main")
    assert ensure_project(tmp_path, image) == repository
    assert git(repository, "branch", "--format=%(refname:short)") == "mine"


def test_a_base_that_is_missing_is_added(tmp_path: Path, image: Image) -> None:
    subprocess.run(["git", "init", "-q", "--bare", str(tmp_path / "project.git")], check=True)
    repository = ensure_project(tmp_path, image)
    assert git(repository, "cat-file", "-t", image.base_commit) == "commit"
