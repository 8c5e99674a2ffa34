"""A swarm on another host, by qemu+ssh:// and by ch+ssh://: watched, paused, resumed, reviewed.

Nothing of that host but its SSH server can be reached from here (`far`), and its cable is cut.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ch.bench import NoDriver, find_driver

from .conftest import LIVE, REST_S, Swarm, wait_until
from .far import FarHost, far_host, obstacle
from .terminal import Terminal
from .warm import Warm

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(bool(obstacle()), reason=f"no host far away: {obstacle()}"),
]

DRIVERS = ("qemu", "ch")
TRUTH_S = 10.0
"""For the screen to tell of a cut; it is due after 3 s on a machine with time to spare."""


@dataclass(frozen=True)
class Remote(Swarm):
    """The program here, for which that host is all there is."""

    host: FarHost
    theirs: Path
    """That host's SWARM_TUI_HOME."""

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


@pytest.fixture(scope="module", params=DRIVERS)
def remote(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    image_cache: Path,
    warm: Warm,
) -> Iterator[Remote]:
    folder = tmp_path_factory.mktemp("remote")
    environ = {name: value for name, value in os.environ.items() if name[:10] != "SWARM_TUI_"}
    # Short, and below /var/tmp, as in the fixtures of `conftest`.
    with tempfile.TemporaryDirectory(prefix="swarm-", dir="/var/tmp") as own:
        theirs = Path(own)
        theirs.chmod(0o711)
        inside = {"SWARM_TUI_HOME": own, "SWARM_TUI_PATHS_CACHE": str(image_cache)}
        with far_host(folder / "server", environ | inside) as host:
            inhabit = inhabited_by_ch if request.param == "ch" else inhabited_by_qemu
            with inhabit(host, theirs, image_cache) as uri:
                home = folder / "home"
                ours = {"SWARM_TUI_HOME": str(home), "HOME": str(folder)}
                ours |= {"SWARM_TUI_PATHS_CACHE": str(image_cache)}
                remote = Remote(home, environ | ours, warm, host, theirs)
                add_host(remote, uri)
                remote.set_pace("agent-01", REST_S)
                yield remote


@contextmanager
def inhabited_by_qemu(host: FarHost, theirs: Path, cache: Path) -> Iterator[str]:
    """With an agent there; their libvirt's URI as it is seen from here."""
    with demo(host, "qemu"):
        yield host.uri("qemu")


@contextmanager
def inhabited_by_ch(host: FarHost, theirs: Path, cache: Path) -> Iterator[str]:
    try:
        find_driver()
    except NoDriver as reason:
        pytest.skip(str(reason))
    script = str(Path(__file__).with_name("virtchd.py"))
    daemon = host.begin(sys.executable, script, str(theirs / "ch"), str(cache))
    with daemon:
        assert daemon.stdin
        assert daemon.stdout
        assert daemon.stdout.readline() == "ready\n"
        host.environ["SWARM_TUI_LOCAL_VIRTCHD"] = str(theirs / "ch/virtchd-sock")
        with demo(host, "ch"):
            yield host.uri("ch", theirs / "ch/virtchd-sock")
        daemon.stdin.close()


@contextmanager
def demo(host: FarHost, driver: str) -> Iterator[None]:
    program = [sys.executable, "-m", "swarm_tui", "demo", "--driver", driver]
    try:
        up = host.run(*program, "--up", "--agents", "1")
        assert up.returncode == 0, up.stderr
        yield
    finally:
        down = host.run(*program, "--down")
        assert down.returncode == 0, down.stderr


def add_host(remote: Remote, uri: str) -> None:
    """As a person would who has that host, its guests' key, and the owner's repository."""
    (remote.home / "config").mkdir(parents=True)
    (remote.home / "config/config.toml").write_text("[review]\nkey = 'none'\n")
    key = remote.home / "guests_key"
    shutil.move(remote.theirs / "data/local/keys/id_ed25519", key)
    server = remote.host.server
    named = ["--identity", str(server.identity), "--guest-identity", str(key)]
    places = ["--snapshots", f"{remote.theirs}/elsewhere", "--repository", project(remote)]
    trust = ["--fingerprint", server.fingerprint, "--no-check"]
    added = remote.run("host", "add", "lab", uri, *named, *places, *trust)
    assert added.returncode == 0, added.stderr + added.stdout


def project(remote: Remote) -> str:
    """The repository in which approved work lands."""
    return str(remote.theirs / "data/local/project.git")


def only_with(driver: str) -> pytest.MarkDecorator:
    """For what no driver makes a difference to, and takes long."""
    # The first of the fixture's own, or pytest would sort it among the tests of another.
    assert driver == DRIVERS[0]
    return pytest.mark.parametrize("remote", [driver], indirect=True)


@pytest.fixture
def agent(remote: Remote) -> str:
    return str(remote.agents()[0]["name"])


def test_its_agent_is_listed_and_reached_by_its_connection_alone(remote: Remote) -> None:
    (agent,) = remote.agents()
    assert agent["name"] == "agent-01"
    assert agent["state"] in LIVE
    assert agent["ssh"]["via"] == "lab"
    key = agent["ssh"]["host_key"].split()[1]
    assert key not in shown_key(agent["ssh"]["host"], agent["ssh"]["port"])
    assert remote.counter("agent-01") >= 0
    done = remote.run("shell", "agent-01", "--", "cat; exit 7", stdin="through\n")
    assert (done.returncode, done.stdout) == (7, "through\n")


def shown_key(host: str, port: int) -> str:
    """The SSH key that whoever answers there from here shows; another machine may have that
    address in our network.
    """
    command = ["ssh-keyscan", "-T", "2", "-t", "ed25519", "-p", str(port), host]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def test_an_agent_made_there_from_here_is_paused_goes_on_and_leaves_nothing(remote: Remote) -> None:
    """The host has what `demo` brought, but nothing of that is used."""
    workshop = remote.theirs / "data/workshop"
    name = "guest-worker"
    try:
        spawned = remote.json("spawn", "--host", "lab", "--name", name, "--task", "sort")
        assert "on lab: " in spawned["done"]
        (agent,) = spawned["agents"]
        assert (agent["host"], agent["task"], agent["ssh"]["via"]) == ("lab", "sort", "lab")
        folder = workshop / "agents" / agent["id"]
        assert list(folder.glob("disk.*"))
        assert not list((remote.home / "data/local").glob("agents/*")), "nothing of it is here"
        assert not [path for path in workshop.rglob("*") if b"PRIVATE KEY" in head(path)]
        remote.goes_on(name, 0)
        before = remote.counter(name)
        remote.json("pause", name)
        shown = remote.json("show", name)
        assert shown["state"] == "saved"
        assert vmms(remote, name) == []
        (snapshot,) = shown["snapshots"]
        parts = {part.partition("/")[0] for part in snapshot["digests"]}
        assert parts == {"memory", "disk-0", "definition.xml"}
        assert (remote.theirs / "elsewhere" / shown["id"] / snapshot["id"] / "memory").exists()
        assert not (remote.home / "data/snapshots").exists()
        resumed = remote.json("resume", name)
        assert resumed["agent"]["state"] in LIVE
        remote.goes_on(name, before)
        assert len(vmms(remote, name)) == 1
    finally:
        killed = remote.run("kill", name, "--yes")
    assert killed.returncode == 0, killed.stderr
    assert not folder.exists()
    assert [each["name"] for each in remote.agents()] == ["agent-01"]
    wait_until(lambda: not of_processes(agent["id"]), "its VMM is gone")
    assert vmms(remote, name) == []


@only_with("qemu")
def test_a_spawn_that_is_killed_in_the_middle_leaves_nothing_there(remote: Remote) -> None:
    agents = remote.theirs / "data/workshop/agents"
    before = set(agents.glob("*"))
    spawning = subprocess.Popen(
        [*remote.program, "spawn", "--host", "lab", "--name", "never"],
        env=remote.environ,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: of_processes("guest=never,"), "its VM is started")
    spawning.kill()
    spawning.wait()
    (folder,) = set(agents.glob("*")) - before
    remote.json("message", "agent-01", "is anybody there?")
    wait_until(lambda: not of_processes("guest=never,"), "its VM is gone")
    wait_until(lambda: not folder.exists(), "its files are gone")
    assert "never" not in [agent["name"] for agent in remote.agents()]


def of_processes(word: str) -> list[str]:
    """Command lines of this machine's processes in which a word is."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            line = process.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if word in line:
                found.append(line)
    return found


def head(path: Path) -> bytes:
    """The beginning of a file."""
    if not path.is_file():
        return b""
    with open(path, "rb") as file:
        return file.read(4096)


@only_with("qemu")
def test_its_work_is_reviewed_and_lands_here(remote: Remote, agent: str) -> None:
    said = remote.run("shell", agent, "--", "echo 'by hand' >/workspace/notes.txt")
    assert said.returncode == 0, said.stderr
    review = remote.json("review", agent)
    assert remote.agent(agent)["state"] == "saved"
    assert "notes.txt" in [file["path"] for file in review["files"]]
    approved = remote.run("approve", agent, "--digest", review["digest"], "--flags-seen")
    assert approved.returncode == 0, approved.stderr
    command = ["git", "-C", project(remote), "branch"]
    branches = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"swarm/{agent}/1" in branches
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
    remote.goes_on(agent, before)
    assert len(vmms(remote, agent)) == 1


def vmms(remote: Remote, agent: str) -> list[str]:
    """Processes that run a VM of that name on that host, be it under QEMU or another VMM."""
    found: dict[str, list[str]] = {f"guest={agent},": [], f"/{agent}-event-monitor": []}
    for process in Path("/proc").iterdir():
        try:
            line = (process / "cmdline").read_bytes().decode(errors="replace")
            is_there = (process / "ns/net").readlink() == remote.host.network
        except OSError:
            continue
        for mark, processes in found.items():
            if mark in line and is_there:
                processes.append(process.name)
    return next(filter(None, found.values()), [])


@only_with("qemu")
def test_the_screen_tells_a_cut_and_its_healing(remote: Remote, agent: str) -> None:
    with Terminal(remote.program, environ=remote.environ) as screen:
        screen.wait_for(lambda text: agent in text and any(state in text for state in LIVE))
        with remote.cut():
            screen.wait_for("lost", TRUTH_S)
        screen.wait_for(lambda text: "lost" not in text and any(state in text for state in LIVE))
