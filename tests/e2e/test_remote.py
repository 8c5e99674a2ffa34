"""A swarm on another host, by qemu+ssh://: watched, paused, resumed, reviewed, and its cable cut.

Nothing of that host but its SSH server can be reached from here (`far`).
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .conftest import LIVE, Swarm, wait_until
from .far import FarHost, far_host, obstacle
from .terminal import Terminal

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(bool(obstacle()), reason=f"no host far away: {obstacle()}"),
]

TRUTH_S = 10.0
"""For the screen to tell of a cut; it is due after 3 s on a machine with time to spare."""


@dataclass(frozen=True)
class Remote(Swarm):
    """The program here, for which that host is all there is."""

    host: FarHost

    def agents(self) -> list[dict[str, Any]]:
        return sorted(self.json("ls")["agents"], key=lambda agent: str(agent["name"]))

    @contextmanager
    def cut(self) -> Iterator[None]:
        """With every connection broken, and nobody there to make a new one to."""
        self.host.server.cut()
        self.host.server.stop()
        try:
            yield
        finally:
            self.host.server.start()


@pytest.fixture(scope="module")
def remote(
    tmp_path_factory: pytest.TempPathFactory, shared_home: Path, image_cache: Path
) -> Iterator[Remote]:
    folder = tmp_path_factory.mktemp("remote")
    environ = plain_environ()
    theirs = {"SWARM_TUI_HOME": str(shared_home), "SWARM_TUI_PATHS_CACHE": str(image_cache)}
    with far_host(folder / "server", environ | theirs) as host:
        try:
            up = host.run(sys.executable, "-m", "swarm_tui", "demo", "--up", "--agents", "2")
            assert up.returncode == 0, up.stderr
            home = folder / "home"
            configure(home, host, shared_home)
            ours = {"SWARM_TUI_HOME": str(home), "HOME": str(folder)}
            yield Remote(home, environ | ours, host)
        finally:
            down = host.run(sys.executable, "-m", "swarm_tui", "demo", "--down")
            assert down.returncode == 0, down.stderr


def plain_environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("SWARM_TUI_")}


def configure(home: Path, host: FarHost, theirs: Path) -> None:
    """As a person would who has that host, its guests' key, and the owner's repository."""
    config = home / "config"
    config.mkdir(parents=True)
    key = shutil.move(theirs / "data/local/keys/id_ed25519", home / "guests_key")
    (config / "config.toml").write_text(
        "[hosts.lab]\n"
        f"uri = '{host.uri}'\n"
        f"identity = '{host.server.identity}'\n"
        f"guest_identity = '{key}'\n"
        f"snapshots = '{theirs}/elsewhere'\n"
        f"repository = '{theirs}/data/local/project.git'\n"
        "[review]\n"
        "key = 'none'\n"
    )


@pytest.fixture
def agent(remote: Remote) -> str:
    return str(remote.agents()[0]["name"])


def test_an_unknown_host_is_met_before_it_is_asked(remote: Remote) -> None:
    done = remote.run("ls")
    assert done.returncode == 5
    assert remote.host.server.fingerprint in done.stderr
    added = remote.run(
        "host", "add", "lab", remote.host.uri, "--fingerprint", remote.host.server.fingerprint
    )
    assert added.returncode == 0, added.stderr + added.stdout


def test_its_agents_are_listed_and_reached_by_its_connection_alone(remote: Remote) -> None:
    agents = remote.agents()
    assert [agent["name"] for agent in agents] == ["agent-01", "agent-02"]
    assert {agent["state"] for agent in agents} <= LIVE
    for agent in agents:
        with socket.socket() as direct:
            assert direct.connect_ex((agent["ssh"]["host"], agent["ssh"]["port"])) != 0
        assert remote.counter(agent["name"]) > 0
    done = remote.run("shell", "agent-01", "--", "cat; exit 7", stdin="through\n")
    assert (done.returncode, done.stdout) == (7, "through\n")


def test_pause_and_resume_go_on_where_it_stood(
    remote: Remote, agent: str, shared_home: Path
) -> None:
    before = remote.counter(agent)
    remote.json("pause", agent)
    saved = remote.agent(agent)
    assert saved["state"] == "saved"
    shown = remote.json("show", agent)
    (snapshot,) = shown["snapshots"]
    assert snapshot["digests"].keys() >= {"memory", "disk-0", "definition.xml"}
    assert (shared_home / "elsewhere" / saved["id"] / snapshot["id"] / "memory").exists()
    assert not (remote.home / "data/snapshots").exists()
    resumed = remote.json("resume", agent)
    assert resumed["agent"]["state"] in LIVE
    after = remote.counter(agent)
    assert after >= before
    wait_until(lambda: remote.counter(agent) > after, "the counter goes on")


def test_its_work_is_reviewed_and_lands_here(remote: Remote, agent: str, shared_home: Path) -> None:
    wait_until(lambda: "committed" in remote.run("logs", agent).stdout, "it commits", 120)
    review = remote.json("review", agent)
    assert remote.agent(agent)["state"] == "saved"
    assert review["files"]
    approved = remote.run("approve", agent, "--digest", review["digest"], "--flags-seen")
    assert approved.returncode == 0, approved.stderr
    branches = subprocess.run(
        ["git", "-C", str(shared_home / "data/local/project.git"), "branch"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"swarm/{agent}/1" in branches.stdout
    assert remote.agent(agent)["state"] in LIVE


def test_a_cut_in_the_middle_of_a_save_loses_nothing(remote: Remote, agent: str) -> None:
    before = remote.counter(agent)
    pausing = subprocess.Popen(
        [*remote.program, "pause", agent],
        env=remote.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert pausing.stderr
    for line in pausing.stderr:
        if "saving memory" in line:
            break
    with remote.cut():
        _, said = pausing.communicate(timeout=60)
        assert pausing.returncode == 5, said
        assert "unknown" in said

    # Whatever became of the save, the agent goes on from there, once.
    wait_until(lambda: remote.run("resume", agent).returncode in (0, 4), "it can be resumed", 60)
    wait_until(lambda: remote.agent(agent)["state"] in LIVE, "it runs", 60)
    after = remote.counter(agent)
    assert after >= before
    wait_until(lambda: remote.counter(agent) > after, "the counter goes on")
    assert len(vmms(agent)) == 1


def vmms(agent: str) -> list[str]:
    found = []
    for process in Path("/proc").iterdir():
        try:
            line = (process / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if "qemu-system" in line and f"guest={agent}," in line:
            found.append(process.name)
    return found


def test_the_screen_tells_a_cut_and_its_healing(remote: Remote, agent: str) -> None:
    with Terminal(remote.program, environ=remote.environ) as screen:
        screen.wait_for(lambda text: agent in text and any(state in text for state in LIVE))
        with remote.cut():
            screen.wait_for("lost", TRUTH_S)
        screen.wait_for(lambda text: "lost" not in text and any(state in text for state in LIVE))


def test_kill_ends_it_there(remote: Remote) -> None:
    name = remote.agents()[-1]["name"]
    remote.json("kill", name, "--yes")
    assert name not in [agent["name"] for agent in remote.agents()]
    assert vmms(name) == []
