"""Agents by the dozen, of an OCI image, from their making to their end: only results are left.

`SWARM_TUI_DOZEN` says how many there are (5, so that it is short; 20 is what is promised).
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from .conftest import Swarm, profile, wait_until

pytestmark = pytest.mark.vm

COUNT = int(os.environ.get("SWARM_TUI_DOZEN", "5"))
ASKING = 3
ASK_S = 120.0
MARK = "label:dozen"


WORK = ["sh", "-c", "echo {task} >made; swarm log did it; sleep 600"]
COMMAND = ["sh", "-c", "echo {task} >made; swarm log did it; swarm ask review look; sleep 600"]


@pytest.fixture
def dozen(swarm: Swarm, userland: str) -> Iterator[Sequence[dict[str, Any]]]:
    """So many agents, those that ask first; whatever is left of them goes."""

    def spawn(kind: str, count: int) -> list[dict[str, Any]]:
        made = swarm.json(
            "spawn", kind, "--count", str(count), "--name", kind, "--task", kind, timeout_s=300
        )
        assert made["failed"] == []
        return sorted(made["agents"], key=lambda agent: str(agent["name"]))

    try:
        with (
            profile(swarm, "asking", userland, COMMAND, labels=["dozen"]),
            profile(swarm, "working", userland, WORK, labels=["dozen"]),
        ):
            yield [*spawn("asking", ASKING), *spawn("working", COUNT - ASKING)]
    finally:
        swarm.run("kill", "--filter", MARK, "--yes")


def git(repository: Path, *arguments: str) -> str:
    command = ["git", "-C", str(repository), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def in_guest(swarm: Swarm, name: str, script: str) -> bool:
    return swarm.run("shell", name, "--user", "root", "--", script).returncode == 0


def left_of(swarm: Swarm, agent: dict[str, Any]) -> list[str]:
    """What of an agent is still somewhere: VM, process, port, files."""
    home, data = swarm.home, swarm.home / "data"
    folders = [
        data / "local" / "agents" / agent["id"],
        data / "snapshots" / agent["id"],
        home / "state" / "catalogue" / agent["id"],
        home / "state" / "reviews" / agent["id"] / "quarantine.git",
    ]
    left = [str(folder) for folder in folders if folder.exists()]
    left += swarm.vmm_processes(agent["name"])
    if not is_free(agent["ssh"]["port"]):
        left.append(f"port {agent['ssh']['port']}")
    return left


def test_a_dozen_from_birth_to_end(swarm: Swarm, dozen: Sequence[dict[str, Any]]) -> None:
    """Three are reviewed, one is forked, one is rolled back, and all come to an end."""
    repository = swarm.home / "data/local/project.git"
    asking, others = dozen[:ASKING], dozen[ASKING:]
    for agent in asking:
        wait_until(
            lambda agent=agent: swarm.run("logs", agent["name"], "--asks").stdout.strip(),  # type: ignore[misc]
            f"{agent['name']} asks for review",
            ASK_S,
        )
    approved, rejected, open_ = (agent["name"] for agent in asking)
    reviews = {agent["name"]: swarm.json("review", agent["name"]) for agent in asking}
    assert all(review["files"] for review in reviews.values())
    swarm.json("approve", approved, "--digest", reviews[approved]["digest"], "--flags-seen")
    assert git(repository, "rev-parse", f"swarm/{approved}/1") == reviews[approved]["head"]
    swarm.json("reject", rejected, "--kill", "--message", "Not this way.")

    origin = others[0]["name"]
    swarm.json("fork", origin, "--count", "2", "--name", "twig", timeout_s=180)
    known = {agent["name"]: agent for agent in swarm.json("ls")["agents"]}
    twigs = [known[f"twig-{number}"] for number in (1, 2)]
    assert len({agent["ssh"]["host_key"] for agent in (known[origin], *twigs)}) == 3
    for twig in twigs:
        assert in_guest(swarm, twig["name"], "echo $(hostname) >/workspace/made")
    compared = swarm.run("compare", twigs[0]["name"], twigs[1]["name"], "--patch")
    assert compared.returncode == 0, compared.stderr
    assert "-twig-1" in compared.stdout
    assert "+twig-2" in compared.stdout
    assert all(swarm.agent(twig["name"])["state"] != "saved" for twig in twigs)
    swarm.json("kill", *(twig["name"] for twig in twigs), "--yes")

    rolled = others[1]["name"]
    swarm.json("checkpoint", rolled, "--name", "before")
    assert in_guest(swarm, rolled, "touch /workspace/later && sync")
    swarm.json("roll-back", rolled, "before")
    assert in_guest(swarm, rolled, "test ! -e /workspace/later"), "it is not what it was"

    # Their time is over, and a person is still at one of them.
    for name in (open_, others[0]["name"]):
        swarm.json("extend", name, "1s")
    seen: dict[str, Any] = {}

    def is_over() -> bool:
        seen.update(swarm.json("gc", "--dry-run"))
        return any(item["name"] == others[0]["name"] for item in seen["items"])

    wait_until(is_over, "its time is over")
    assert open_ not in [item["name"] for item in seen["items"]]
    swarm.json("gc")
    assert swarm.agent(others[0]["name"])["state"] == "saved", "paused, as its rule says"
    refused = swarm.run("end", open_, "--yes")
    assert refused.returncode == 4, "it is under review"

    swarm.json("reject", open_, "--message", "No.")
    ended = swarm.run("end", "--filter", MARK, "--yes", timeout_s=180)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    results = {one["name"]: one for one in swarm.json("results")["results"]}
    for agent in dozen:
        if agent["name"] != rejected:
            kept = results[agent["name"]]
            assert Path(kept["log"], "events.jsonl").exists()
            assert kept["agent"] == agent["id"]
            if kept["ref"]:
                assert git(repository, "rev-parse", kept["ref"]) == kept["head"]
    assert results[open_]["changes"]
    assert results[open_]["lines"] >= 2
    assert not git(repository, "for-each-ref", f"refs/heads/swarm/{open_}"), "it looks approved"
    for agent in (*dozen, *twigs):
        assert left_of(swarm, agent) == []
    assert MARK.partition(":")[2] not in [
        label for agent in swarm.json("ls")["agents"] for label in agent["labels"]
    ]
