"""A real swarm of three agents, brought up by the program itself, shared by all tests here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from local.oci import make_layer, make_layout, take_busybox

from swarm_tui.local.oci.shelf import remove_image

from .warm import Warm

DEADLINE_S = 60.0
REST_S = 600
"""What the shared agents think before a step: at their own pace, emulated, they take the CPU that
the tests want.
"""
LIVE = {"running", "asking"}
"""States of an agent at work: the example agent asks for review now and then."""


@dataclass(frozen=True)
class Swarm:
    """The program's command line, in folders of the tests' own."""

    home: Path
    environ: dict[str, str]
    warm: Warm

    @property
    def program(self) -> list[str]:
        return [sys.executable, "-m", "swarm_tui"]

    def run(
        self, *arguments: str, stdin: str = "", timeout_s: float = DEADLINE_S
    ) -> subprocess.CompletedProcess[str]:
        return self.warm.run(arguments, self.environ, stdin, timeout_s)

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

    def set_pace(self, name: str, seconds: int) -> None:
        """How long the example agent thinks before each step, from the next one on."""
        said = f"echo {seconds} >/run/swarm/pace"
        done = self.run("shell", name, "--user", "root", "--", said)
        assert done.returncode == 0, done.stderr

    def goes_on(self, name: str, before: int) -> None:
        """Wait until the counter has gone on from a value that is not less than this.

        A frozen guest's would stand still, and that of one that lost its memory begins anew.
        """
        told = "cat /run/swarm/counter"
        script = f"at=$({told}); until [ $({told}) -gt $at ]; do sleep 0.1; done; echo $at"
        done = self.run("shell", name, "--user", "root", "--", script)
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) >= before, "its memory was lost"

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
def warm() -> Iterator[Warm]:
    with Warm() as warm:
        yield warm


@pytest.fixture(scope="session")
def swarm(shared_home: Path, image_cache: Path, warm: Warm) -> Iterator[Swarm]:
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SWARM_TUI_")},
        "SWARM_TUI_HOME": str(shared_home),
        "SWARM_TUI_PATHS_CACHE": str(image_cache),
    }
    it = Swarm(shared_home, environ, warm)
    try:
        up = it.run("demo", "--up", "--agents", "3", timeout_s=180)
        assert up.returncode == 0, up.stderr
        for agent in it.agents():
            it.set_pace(agent["name"], REST_S)
        yield it
    finally:
        down = it.run("demo", "--down")
        assert down.returncode == 0, down.stderr


@pytest.fixture(scope="session")
def userland(
    swarm: Swarm, image_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """An image of one static program: no Python, no git, no init of its own; its name.

    The name, and what it tells in /etc/who, are this swarm's: others share the cache.
    """
    folder = tmp_path_factory.mktemp("userland")
    busybox = take_busybox(image_cache, folder / "busybox")
    applets = {f"bin/{applet}": "busybox" for applet in ("cat", "echo", "sh", "sleep", "touch")}
    own = b"#!/bin/sh\nswarm log by itself: $1 in $(pwd)"
    layers = [
        make_layer({"bin/busybox": busybox, **applets, "app/start": own}),
        make_layer({"etc/who": swarm.home.name.encode()}),
    ]
    config = {
        "Env": ["PATH=/bin", "GREETING=it's a $GUEST"],
        "User": "4321:8765",
        "WorkingDir": "/app",
        "Entrypoint": ["./start"],
        "Cmd": ["one word"],
    }
    name = image_name(swarm, "userland")
    swarm.json("image", "build", make_layout(folder / "layout", layers, config), "--name", name)
    yield name
    remove_image(image_cache, name, dict, lambda _: None)


def image_name(swarm: Swarm, suffix: str) -> str:
    return f"{swarm.home.name.lower().replace('_', '-')}-{suffix}"


@contextmanager
def profile(
    swarm: Swarm, name: str, image: str, command: Sequence[str] = (), **more: Sequence[str]
) -> Iterator[str]:
    """A file of the image; without a command its agents run what the image says."""
    folder = swarm.home / "config/profiles"
    folder.mkdir(parents=True, exist_ok=True)
    asked = {"image": image, **({"command": command} if command else {}), **more}
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in asked.items()]
    (folder / f"{name}.toml").write_text("".join(lines))
    yield name
    (folder / f"{name}.toml").unlink()


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
