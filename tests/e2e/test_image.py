"""Agents of a foreign image: built, spawned by a profile, and their work reviewed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from local.oci import make_layer, make_layout, take_debian

from swarm_tui.local.image import build_image
from swarm_tui.local.oci.shelf import remove_image

from .conftest import Swarm, image_name, profile, wait_until

pytestmark = pytest.mark.vm

Build = Callable[[Sequence[bytes], Mapping[str, Any]], Mapping[str, Any]]


@pytest.fixture
def build(swarm: Swarm, image_cache: Path, tmp_path: Path) -> Iterator[Build]:
    """Makes an image of layers, and tells its name, too."""
    name = image_name(swarm, "image")

    def make(layers: Sequence[bytes], config: Mapping[str, Any]) -> Mapping[str, Any]:
        source = make_layout(tmp_path / "layout", layers, config)
        built: Mapping[str, Any] = swarm.json("image", "build", source, "--name", name)
        return {**built, "name": name}

    yield make
    remove_image(image_cache, name, dict, lambda _: None)


def spawn(swarm: Swarm, name: str, task: str) -> str:
    (agent,) = swarm.json("spawn", name, "--task", task)["agents"]
    return str(agent["name"])


def finish(swarm: Swarm, agent: str) -> str:
    """What an agent had logged when it was done."""
    wait_until(lambda: "done" in swarm.run("logs", agent).stdout, f"{agent} done")
    return swarm.run("logs", agent).stdout


def ask(swarm: Swarm, agent: str, script: str) -> list[str]:
    done = swarm.run("shell", agent, "--", script)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_agents_of_a_foreign_image_do_their_task(
    swarm: Swarm, image_cache: Path, userland: str
) -> None:
    command = ["sh", "-c", 'swarm log "$GREETING" from $(cat /etc/who); echo {task} >made']
    agents = []
    try:
        with profile(swarm, "told", userland, command) as name:
            agents.append(spawn(swarm, name, "a gill"))
        with profile(swarm, "itself", userland) as name:
            agents.append(spawn(swarm, name, "-"))
        told, itself = agents
        assert f"it's a $GUEST from {swarm.home.name}" in finish(swarm, told)
        assert ask(swarm, told, "id -u; id -g; cat /workspace/made") == ["4321", "8765", "a gill"]
        assert "by itself: one word in /app" in finish(swarm, itself)
        base = build_image(image_cache, lambda _: None).base_commit
        assert swarm.agent(told)["base"] == base
        reviewed = swarm.run("review", told)
        assert reviewed.returncode == 0, reviewed.stderr
        assert base in reviewed.stdout
        assert "made" in reviewed.stdout
    finally:
        for agent in agents:
            swarm.run("kill", agent, "--yes")


@pytest.mark.slow
def test_a_debian_base_is_at_home_in_a_guest(swarm: Swarm, image_cache: Path, build: Build) -> None:
    """The userland that most images have, of two layers, with a user of its own."""
    upper = make_layer({"usr/share/.wh.doc": b"", "srv/hello": b"#!/bin/bash\necho I am $0"})
    config = {"User": "games", "WorkingDir": "/srv", "Cmd": ["bash"], "Env": ["TZ=Europe/Athens"]}
    built = build([take_debian(image_cache), upper], config)
    assert built["outcome"]["capabilities"] == 1
    command = ["bash", "-c", '/srv/hello && echo {task} && date +%Z && git add . && echo "$HOME"']
    agents = []
    try:
        with profile(swarm, "debian", built["name"], command) as name:
            agents.append(spawn(swarm, name, "a furlong"))
        logged = finish(swarm, agents[0])
        for words in ("I am /srv/hello", "a furlong", "/home/agent"):
            assert words in logged
        script = (
            "id -un; id -u; id -g; test -e /usr/share/doc || echo none; dpkg --print-architecture"
        )
        assert ask(swarm, agents[0], script) == ["agent", "5", "60", "none", "amd64"]
        # The program has its capability there, and nobody else does.
        assert "1 received" in "\n".join(ask(swarm, agents[0], "ping -c 1 127.0.0.1"))
        assert ask(swarm, agents[0], "echo change >/workspace/made; echo $BASH_VERSION") != [""]
        reviewed = swarm.run("review", agents[0])
        assert reviewed.returncode == 0, reviewed.stderr
        assert "made" in reviewed.stdout
    finally:
        for agent in agents:
            swarm.run("kill", agent, "--yes")
