"""Agents of a foreign image: built, spawned by a profile, and their work reviewed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from local.oci import make_layer, make_layout, take_busybox

from swarm_tui.local.image import build_image
from swarm_tui.local.oci.shelf import remove_image

from .conftest import Swarm, wait_until

pytestmark = pytest.mark.vm

NAME = "foreign"
COMMAND = ["sh", "-c", 'swarm log "$GREETING" from $(cat /etc/who); echo {task} >made']


@pytest.fixture
def profile(swarm: Swarm, image_cache: Path, tmp_path: Path) -> Iterator[str]:
    """A userland of one static program: no Python, no git, no init of its own."""
    busybox = take_busybox(image_cache, tmp_path / "busybox")
    applets = {f"bin/{applet}": "busybox" for applet in ("cat", "echo", "sh")}
    layers = [
        make_layer({"bin/busybox": busybox, **applets}),
        make_layer({"etc/who": swarm.home.name.encode()}),  # others share the cache
    ]
    environment = {"Env": ["PATH=/bin", "GREETING=it's a $GUEST"]}
    source = make_layout(tmp_path / "layout", layers, environment)
    name = swarm.home.name.lower().replace("_", "-")
    swarm.json("image", "build", source, "--name", f"{name}-image")
    profiles = swarm.home / "config/profiles"
    profiles.mkdir(parents=True, exist_ok=True)
    text = f'image = "{name}-image"\ncommand = {json.dumps(COMMAND)}\n'
    (profiles / f"{NAME}.toml").write_text(text)
    yield NAME
    (profiles / f"{NAME}.toml").unlink()
    remove_image(image_cache, f"{name}-image", {}, lambda _: None)


def test_agents_of_a_foreign_image_do_their_task(
    swarm: Swarm, image_cache: Path, profile: str
) -> None:
    base = build_image(image_cache, lambda _: None).base_commit
    made = swarm.json("spawn", profile, "--task", "a gill", "--count", "2")["agents"]
    names = [agent["name"] for agent in made]
    assert len(names) == 2
    try:
        for name in names:
            wait_until(lambda: "done" in swarm.run("logs", name).stdout, f"{name} done")  # noqa: B023 it is called here
            told = swarm.run("logs", name).stdout
            assert f"it's a $GUEST from {swarm.home.name}" in told
            assert swarm.agent(name)["base"] == base
            done = swarm.run("shell", name, "--", "id -u; cat /workspace/made; echo $0")
            assert done.returncode == 0, done.stderr
            assert done.stdout.splitlines()[:2] == ["1000", "a gill"]
        reviewed = swarm.run("review", names[0])
        assert reviewed.returncode == 0, reviewed.stderr
        assert base in reviewed.stdout
        assert "made" in reviewed.stdout
    finally:
        for name in names:
            swarm.run("kill", name, "--yes")
