"""Repositories made ready for guests, from real ones, by the machine's own git."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from swarm_tui.errors import SetupError, UsageError
from swarm_tui.review.depot import Depot
from swarm_tui.text import Safe


def ignore_progress(_step: Safe, _fraction: float | None) -> None:
    pass


def git(folder: Path, *arguments: str) -> str:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    for role in ("AUTHOR", "COMMITTER"):
        environment |= {f"GIT_{role}_NAME": "owner", f"GIT_{role}_EMAIL": "owner@localhost"}
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.check_output(command, text=True, env=environment).strip()


def commit(folder: Path, name: str, content: bytes) -> str:
    (folder / name).write_bytes(content)
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", name)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def owner(tmp_path: Path) -> Path:
    folder = tmp_path / "owner's & own"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "trunk")
    commit(folder, "first", os.urandom(200_000))
    commit(folder, "second", b"2\n")
    return folder


@pytest.fixture
def depot(tmp_path: Path) -> Depot:
    return Depot(tmp_path / "mirrors", tmp_path / "archives")


def unpack(archive: Path, folder: Path) -> Path:
    """As a guest does."""
    folder.mkdir()
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    git(folder, "reset", "-q", "--hard")
    return folder


async def test_a_workspace_has_the_commit_its_past_and_nothing_else(
    owner: Path, depot: Depot, tmp_path: Path
) -> None:
    git(owner, "config", "user.secret", "hunter2")
    git(owner, "remote", "add", "origin", "https://user:password@example.org/x")
    git(owner, "branch", "secret-plans")
    (owner / "first").write_text("not committed")
    source = await depot.get(str(owner), "HEAD", ignore_progress)
    assert source.repository == owner
    assert source.commit == git(owner, "rev-parse", "HEAD")
    assert source.size_bytes == source.archive.stat().st_size
    made = unpack(source.archive, tmp_path / "made")
    assert git(made, "rev-parse", "HEAD") == source.commit
    assert git(made, "status", "--porcelain") == ""
    assert git(made, "for-each-ref", "--format=%(refname)") == "refs/heads/trunk"
    assert git(made, "log", "--format=%s").split() == ["second", "first"]
    assert git(made, "remote") == ""
    assert b"hunter2" not in source.archive.read_bytes()
    git(made, "fsck", "--strict")


async def test_each_asks_for_what_its_ref_names_now(owner: Path, depot: Depot) -> None:
    first = await depot.get(str(owner), "trunk~1", ignore_progress)
    assert first.commit == git(owner, "rev-parse", "HEAD~1")
    before = await depot.get(str(owner), "trunk", ignore_progress)
    again = await depot.get(str(owner), "trunk", ignore_progress)
    assert again == before
    new = commit(owner, "third", b"3\n")
    assert (await depot.get(str(owner), "trunk", ignore_progress)).commit == new


async def test_what_is_too_large_comes_without_its_past_or_not_at_all(
    owner: Path, tmp_path: Path
) -> None:
    git(owner, "rm", "-q", "first")
    commit(owner, "third", b"3\n")
    small = Depot(tmp_path / "mirrors", tmp_path / "archives", 100_000)
    source = await small.get(str(owner), "HEAD", ignore_progress)
    made = unpack(source.archive, tmp_path / "made")
    assert git(made, "log", "--format=%s") == "third"
    assert git(made, "status", "--porcelain") == ""
    commit(owner, "large", os.urandom(200_000))
    with pytest.raises(SetupError) as raised:
        await small.get(str(owner), "HEAD", ignore_progress)
    assert "more than" in raised.value.detail
    assert not list((tmp_path / "archives").glob(".making-*"))


async def test_a_url_is_fetched_once_into_a_mirror_where_work_can_land(
    owner: Path, depot: Depot, tmp_path: Path
) -> None:
    steps: list[str] = []
    url = owner.as_uri().replace("%27", "'").replace("%20", " ").replace(" ", "%20")
    asked = (depot.get(url, "trunk", lambda step, _: steps.append(step)) for _ in range(5))
    sources = await asyncio.gather(*asked)
    assert len(set(sources)) == 1
    assert len([step for step in steps if step.startswith("fetching")]) == 1
    mirror = sources[0].repository
    assert mirror.parent == tmp_path / "mirrors"
    head = sources[0].commit
    assert head == git(owner, "rev-parse", "HEAD")
    git(mirror, "branch", "swarm/agent/1", head)
    new = commit(owner, "third", b"3\n")
    assert (await depot.get(url, "trunk", ignore_progress)).commit == new
    assert git(mirror, "rev-parse", "swarm/agent/1") == head


@pytest.mark.parametrize(
    ("repository", "ref", "kind"),
    [
        ("relative/path", "HEAD", UsageError),
        ("ext::sh -c touch% /tmp/x", "HEAD", UsageError),
        ("--upload-pack=touch /tmp/x", "HEAD", UsageError),
        ("-oProxyCommand=x:y", "HEAD", UsageError),
        ("/nonexistent", "HEAD", SetupError),
        ("OWNER", "no-such-branch", SetupError),
        ("OWNER", "--help", UsageError),
        ("OWNER", "a:b", UsageError),
        ("file:///nonexistent", "HEAD", SetupError),
    ],
)
async def test_what_is_no_repository_or_ref_is_told(
    owner: Path, depot: Depot, repository: str, ref: str, kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        await depot.get(repository.replace("OWNER", str(owner)), ref, ignore_progress)


async def test_nothing_in_the_repository_chooses_what_runs(
    owner: Path, depot: Depot, tmp_path: Path
) -> None:
    mark = tmp_path / "ran"
    for setting in ("core.fsmonitor", "core.sshCommand", "uploadpack.packObjectsHook"):
        git(owner, "config", setting, f"touch {mark}; false")
    (owner / ".git/hooks").mkdir(exist_ok=True)
    for name in ("post-checkout", "reference-transaction"):
        (owner / ".git/hooks" / name).write_text(f"#!/bin/sh\ntouch {mark}\n")
        (owner / ".git/hooks" / name).chmod(0o755)
    await depot.get(str(owner), "HEAD", ignore_progress)
    await depot.get(f"file://{owner}".replace(" ", "%20"), "HEAD", ignore_progress)
    assert not mark.exists()
