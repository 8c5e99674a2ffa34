"""A real swarm of three agents, brought up by the program itself, shared by all tests here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

DEADLINE_S = 60.0
LIVE = {"running", "asking"}
"""States of an agent at work: the example agent asks for review now and then."""


@dataclass(frozen=True)
class Swarm:
    """The program's command line, in folders of the tests' own."""

    home: Path
    environ: dict[str, str]

    @property
    def program(self) -> list[str]:
        return [sys.executable, "-m", "swarm_tui"]

    def run(
        self, *arguments: str, stdin: str = "", timeout_s: float = DEADLINE_S
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.program, *arguments],
            env=self.environ,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def json(self, *arguments: str, timeout_s: float = DEADLINE_S) -> Any:
        """Run a command that must succeed and print JSON."""
        done = self.run(*arguments, "--json", timeout_s=timeout_s)
        assert done.returncode == 0, done.stderr + done.stdout
        return json.loads(done.stdout)

    def agents(self) -> list[dict[str, Any]]:
        """This swarm's agents: others may live on the same host."""
        folder = self.home / "data" / "local" / "agents"
        own = [agent for agent in self.json("ls")["agents"] if (folder / agent["id"]).exists()]
        return sorted(own, key=lambda agent: str(agent["name"]))

    def agent(self, name: str) -> dict[str, Any]:
        return next(agent for agent in self.agents() if agent["name"] == name)

    def counter(self, name: str) -> int:
        """The counter that a process in the guest counts up each second, if not faster."""
        done = self.run("shell", name, "--user", "root", "--", "cat /run/swarm/counter")
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    def vmm_processes(self, name: str) -> list[str]:
        """Process ids of the QEMU that runs this agent: none when its RAM is free."""
        disk = str(self.home)
        found = []
        for process in Path("/proc").iterdir():
            if not process.name.isdigit():
                continue
            try:
                line = (process / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if "qemu-system" in line and f"guest={name}," in line and disk in line:
                found.append(process.name)
        return found


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.1)


@pytest.fixture(scope="session")
def swarm(shared_home: Path, image_cache: Path) -> Iterator[Swarm]:
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SWARM_TUI_")},
        "SWARM_TUI_HOME": str(shared_home),
        "SWARM_TUI_PATHS_CACHE": str(image_cache),
    }
    it = Swarm(shared_home, environ)
    try:
        up = it.run("demo", "--up", "--agents", "3", timeout_s=180)
        assert up.returncode == 0, up.stderr
        yield it
    finally:
        down = it.run("demo", "--down")
        assert down.returncode == 0, down.stderr


@pytest.fixture
def idle(swarm: Swarm) -> Iterator[str]:
    """An agent of the test's own, whose processes stand still: nobody else reads its inbox."""
    name = swarm.json("spawn")["agents"][0]["name"]
    stop = "echo 1 >/sys/fs/cgroup/swarm-agent/cgroup.freeze"
    done = swarm.run("shell", name, "--user", "root", "--", stop)
    assert done.returncode == 0, done.stderr
    yield name
    swarm.json("kill", name, "--yes")


def names(agents: Sequence[dict[str, Any]]) -> list[str]:
    return [agent["name"] for agent in agents]
