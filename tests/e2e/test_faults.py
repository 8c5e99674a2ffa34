"""Faults, made for real, while the app watches: it says what happened, and nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import LIVE, Swarm, names, wait_until
from .terminal import Terminal

pytestmark = pytest.mark.vm

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="mounting a small file system needs root")


def virsh(swarm: Swarm, *arguments: str) -> None:
    uri = (swarm.home / "data" / "local" / "uri").read_text().strip()
    done = subprocess.run(
        ["virsh", "-c", uri, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def shows_life(screen: str) -> bool:
    """Agents ask for review sooner or later, and then wait: in time, none would be running."""
    return any(state in screen for state in LIVE)


@pytest.fixture
def small_folder(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m,mode=711", "tmpfs", str(folder)], check=True
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@needs_root
def test_a_full_disk_fails_the_save_and_the_agent_runs_on(swarm: Swarm, small_folder: Path) -> None:
    name = names(swarm.agents())[0]
    before = swarm.counter(name)

    done = swarm.run("--set", f"snapshots.folder={small_folder}", "pause", name)

    assert done.returncode == 10, done.stderr
    assert "nothing was lost" in done.stderr
    assert swarm.agent(name)["state"] in LIVE
    swarm.goes_on(name, before)
    assert [path for path in small_folder.rglob("*") if path.is_file()] == []


def test_a_vm_destroyed_behind_our_back_is_shown_as_failed(swarm: Swarm) -> None:
    victim = swarm.agents()[1]
    name = victim["name"]
    with Terminal(swarm.program, environ=swarm.environ) as screen:
        screen.wait_for(lambda text: name in text and shows_life(text))
        virsh(swarm, "destroy", victim["id"])
        screen.wait_for("failed")
    assert swarm.agent(name)["state"] == "failed"
    swarm.json("kill", name, "--yes")
    swarm.json("spawn")


def test_a_changed_host_key_is_refused_and_named(swarm: Swarm) -> None:
    first, second = names(swarm.agents())[:2]
    key = "/etc/dropbear/host_key"
    theirs = swarm.run("shell", second, "--user", "root", "--", f"base64 {key}")
    assert theirs.returncode == 0
    swap = f"cp {key} {key}.own && base64 -d >{key}"
    done = swarm.run("shell", first, "--user", "root", "--", swap, stdin=theirs.stdout)
    assert done.returncode == 0, done.stderr
    refused = swarm.run("shell", first, "--", "true")
    assert refused.returncode == 6
    assert "key" in refused.stderr
    assert "true" not in refused.stdout
    swarm.json("kill", first, "--yes")  # nobody can tell any more whose guest this is
    swarm.json("spawn")


def test_ssh_cut_in_the_middle_resumes_the_log_without_loss(swarm: Swarm) -> None:
    name = names(swarm.agents())[0]
    with Terminal(swarm.program, environ=swarm.environ) as screen:
        screen.wait_for(name)
        screen.press("/")
        screen.type(name)
        screen.press("Enter")
        screen.wait_for(lambda text: "1 shown" in text)
        screen.press("L")
        swarm.run("shell", name, "--", "swarm log 'before the cut'")
        screen.wait_for("before the cut")
        # Every session, this one too; the listener, which was there first, stays.
        cut = "kill $(pidof dropbear | tr ' ' '\\n' | sort -n | tail -n +2)"
        swarm.run("shell", name, "--user", "root", "--", f"swarm log gap; {cut}")
        said = swarm.run("shell", name, "--", "swarm log 'after the cut'")
        assert said.returncode == 0, said.stderr
        seen = screen.wait_for("after the cut")
        assert [seen.count(line) for line in ("before the cut", " gap", "after the cut")] == [1] * 3


def own_libvirtd() -> int | None:
    """The daemon that this project started here for this user, not one of the system's.

    Nor that of a far host, which has a network of its own.
    """
    here = Path("/proc/self/ns/net").readlink()
    for process in Path("/proc").iterdir():
        try:
            is_ours = process.name.isdigit() and process.stat().st_uid == os.getuid()
            if not is_ours or (process / "ns/net").readlink() != here:
                continue
            if (process / "comm").read_text() == "libvirtd\n":
                parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
                if b"reaper.py" in Path("/proc", parent, "cmdline").read_bytes():
                    return int(process.name)
        except OSError:
            continue  # it ended meanwhile
    return None


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_libvirtd_killed_in_the_middle_of(swarm: Swarm, verb: str) -> None:
    """SIGKILL while it moves the guest's memory, under the app; all is found as it was."""
    daemon = own_libvirtd()
    if daemon is None:
        pytest.skip("libvirtd is the system's own, and not a test's to kill")
    name = names(swarm.agents())[0]
    before = swarm.counter(name)
    if verb == "resume":
        swarm.json("pause", name)
    with Terminal(swarm.program, environ=swarm.environ) as screen:
        screen.wait_for(lambda text: name in text and shows_life(text))
        said = act_and_kill(swarm, verb, name, daemon)
        assert "unknown" in said
        screen.wait_for("lost")
        up = swarm.run("demo", "--up", "--agents", "1")
        assert up.returncode == 0, up.stderr
        screen.wait_for(lambda text: shows_life(text) and "lost" not in text)
    told = next(act for act in reversed(swarm.json("audit")["acts"]) if act["verb"] == verb)
    assert told["outcome"] == "unknown"
    wait_until(lambda: swarm.run("resume", name).returncode in (0, 4), "it can be resumed", 60)
    swarm.goes_on(name, before)
    assert len(swarm.vmm_processes(name)) == 1, "it runs twice"


def act_and_kill(swarm: Swarm, verb: str, name: str, daemon: int) -> str:
    """Have the daemon die when it begins to move memory; what the command says of that."""
    command = [*swarm.program, verb, name]
    step = {"pause": "saving memory", "resume": "restoring memory"}[verb]
    with subprocess.Popen(command, env=swarm.environ, stderr=subprocess.PIPE, text=True) as acting:
        assert acting.stderr
        for line in acting.stderr:
            if step in line:
                os.kill(daemon, signal.SIGKILL)
                break
        said = acting.stderr.read()
    assert acting.returncode == 5, said
    return said
