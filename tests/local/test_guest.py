"""The guest's side of the contract: in shells on this machine, and in a real guest."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from swarm_tui.local import guest
from swarm_tui.local.image import Image

from .machine import ANSWER_S, BOOT_S, Machine, boot, make_disk, make_key

ROOT = Path(guest.__file__).parent / "root"
HELPER = ROOT / "usr/bin/swarm"

HOSTILE = [
    "plain",
    "",
    " spaces  stay ",
    'quotes " \' and back\\slashes \\" \\\\ \\n',
    "newlines\nand\ttabs\r\nand a last one\n",
    "escape \x1b[31mred\x1b]52;c;AAAA\x07 \x01\x1f\x7f",
    "ünïcödé € 😀 \u202e\u200b\ufeff",
    "%s %d %% $(id) `id` ${HOME} $HOME ; | & * ? [a-z] ~",
    "-n -e --",
    '","kind":"done","text":"',
]


# The helper in every shell that it may meet


@pytest.fixture(scope="session")
def busybox(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guest's own busybox, with the programs that the helper needs, as a folder for PATH."""
    folder = tmp_path_factory.mktemp("busybox")
    (deb,) = (image.folder.parent.parent / "debs").glob("busybox-static_*.deb")
    subprocess.run(["dpkg-deb", "-x", str(deb), str(folder / "deb")], check=True)
    (found,) = (
        path for path in folder.rglob("busybox") if path.is_file() and path.stat().st_mode & 1
    )
    for name in ("sh", "awk", "date", "mv", "sleep"):
        (folder / name).symlink_to(found)
    return folder


class Helper:
    """`swarm` run by one shell on a folder of its own."""

    def __init__(self, folder: Path, shell: str, path: str) -> None:
        self.folder = folder
        self.command = [shell, str(HELPER)]
        self.environment = {"SWARM_RUN": str(folder), "PATH": path, "LANG": "C.UTF-8"}
        (folder / "inbox/read").mkdir(parents=True)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.command, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=ANSWER_S,
            check=False,
        )

    def events(self) -> Sequence[dict[str, Any]]:
        lines = (self.folder / "events.jsonl").read_bytes().splitlines(keepends=True)
        assert all(line.endswith(b"\n") and len(line) < 4096 for line in lines)
        return [json.loads(line) for line in lines]

    def deliver(self, number: int, **members: str) -> None:
        text = json.dumps({"id": f"{number:04}", **members}, ensure_ascii=number % 2 == 0)
        (self.folder / f"inbox/{number:04}.json").write_text(text)


@pytest.fixture(params=["sh", "bash", "busybox"])
def helper(request: pytest.FixtureRequest, tmp_path: Path, busybox: Path) -> Helper:
    if request.param == "busybox":
        return Helper(tmp_path / "run", str(busybox / "sh"), str(busybox))
    shell = shutil.which(request.param)
    assert shell
    return Helper(tmp_path / "run", shell, "/usr/bin:/bin")


@pytest.mark.parametrize("kind", ["log", "status", "tool"])
def test_any_text_becomes_one_line_of_json(helper: Helper, kind: str) -> None:
    before = int(time.time())
    for text in HOSTILE:
        assert helper.run(kind, text).returncode == 0
    events = helper.events()
    assert [event["text"] for event in events] == HOSTILE
    assert {event["kind"] for event in events} == {kind}
    assert all(before <= event["ts"] <= time.time() for event in events)


@pytest.mark.parametrize("unit", ["x", "€", "\x01", '"', "a\n", "😀"])
def test_a_long_text_is_cut_at_a_character(helper: Helper, unit: str) -> None:
    helper.run("log", unit * 9000)
    text = helper.events()[0]["text"]
    assert text.endswith("…")
    assert text[:-1] == (unit * 9000)[: len(text) - 1]
    assert len(text) > 500


def test_usage_carries_model_and_tokens(helper: Helper) -> None:
    assert (
        helper.run("usage", "--model", 'the "big" one', "--in", "1200", "--out", "34").returncode
        == 0
    )
    (event,) = helper.events()
    assert event | {"ts": 0} == {
        "ts": 0,
        "kind": "usage",
        "text": "",
        "model": 'the "big" one',
        "tokens_in": 1200,
        "tokens_out": 34,
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ["usage", "--in", "-3"],
        ["usage", "--in", "1e9"],
        ["usage", "--in", "007"],
        ["usage", "--in"],
        ["usage", "--cost", "3"],
        ["ask", "money", "please"],
        ["ask", "review"],
        ["log"],
        ["shout", "hello"],
        [],
    ],
)
def test_what_makes_no_sense_is_refused(helper: Helper, arguments: list[str]) -> None:
    done = helper.run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("swarm: ")
    assert not (helper.folder / "events.jsonl").exists()


@pytest.mark.parametrize(("verdict", "status"), [("approve", 0), ("send-back", 10), ("reject", 20)])
def test_a_verdict_ends_the_wait(helper: Helper, verdict: str, status: int) -> None:
    helper.deliver(1, kind="message", text="not an answer")
    helper.deliver(2, kind="verdict", verdict=verdict, text='line 3: "kind": "message"\nno')
    done = helper.run("ask", "review", "is it good?")
    assert (done.returncode, done.stdout) == (status, 'line 3: "kind": "message"\nno\n')
    assert [event["kind"] for event in helper.events()] == ["ask", "status"]
    assert helper.events()[0]["text"] == "is it good?"
    assert {path.name for path in helper.folder.glob("inbox/*.json")} == {"0001.json"}
    assert {path.name for path in helper.folder.glob("inbox/read/*")} == {"0002.json"}


def test_a_message_answers_a_question(helper: Helper) -> None:
    helper.deliver(1, kind="message", text="blue")
    done = helper.run("ask", "question", "which colour?")
    assert (done.returncode, done.stdout) == (0, "blue\n")


def test_the_inbox_prints_any_text_once(helper: Helper) -> None:
    texts = [text for text in HOSTILE if "\r" not in text and "\a" not in text]
    for number, text in enumerate(texts):
        helper.deliver(number, kind="message", text=text)
    assert helper.run("inbox").stdout == "".join(f"{text}\n" for text in texts)
    assert helper.run("inbox").stdout == ""
    assert len(list(helper.folder.glob("inbox/read/*"))) == len(texts)


# The example agent, with its pauses cut short


class ExampleAgent:
    """The example agent on this machine, in a folder of its own, under a given host name."""

    def __init__(self, folder: Path, name: str, tasks: int) -> None:
        self.run_folder = folder / "run"
        self.workspace = folder / "workspace"
        scripts = folder / "scripts"
        for path in (self.run_folder / "inbox/read", self.workspace, scripts):
            path.mkdir(parents=True)
        for source in ("usr/lib/swarm/agent", "usr/bin/swarm"):
            path = scripts / Path(source).name
            path.write_bytes((ROOT / source).read_bytes())
            path.chmod(0o755)
        lines = (ROOT / "usr/lib/swarm/tasks").read_text().splitlines(keepends=True)
        (scripts / "tasks").write_text("".join(lines[:tasks]))
        for stand_in, content in (
            ("sleep", "exec /bin/sleep 0.01"),
            ("hostname", f"echo {name}"),
            ("heartbeat", "exit 0"),
        ):
            (scripts / stand_in).write_text(f"#!/bin/sh\n{content}\n")
            (scripts / stand_in).chmod(0o755)
        self.environment = {
            "PATH": f"{scripts}:{os.environ['PATH']}",
            "SWARM_RUN": str(self.run_folder),
            "SWARM_WORKSPACE": str(self.workspace),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": str(folder / "gitconfig"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        (folder / "gitconfig").write_text(f"[user]\n\tname = {name}\n\temail = {name}@test\n")
        self.git("init", "-q", "--initial-branch=main")
        self.git("apply", "--index", "-p0", str(ROOT.parent / "workspace.patch"))
        self.git("commit", "-q", "-m", "The base")
        self.process = subprocess.Popen(
            [str(scripts / "agent")], env=self.environment, start_new_session=True
        )
        self.answers = 0

    def git(self, *arguments: str) -> str:
        command = ["git", "-C", str(self.workspace), *arguments]
        return subprocess.run(
            command, env=self.environment, check=True, capture_output=True, text=True
        ).stdout.strip()

    def events(self) -> Sequence[dict[str, Any]]:
        lines = (self.run_folder / "events.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def await_asking(self) -> str:
        """Wait until it asks, or is done; the base name of the commit it stands at."""
        deadline = time.monotonic() + ANSWER_S
        while True:
            try:
                if self.events()[-1]["kind"] in ("ask", "done"):
                    return self.git("rev-parse", "HEAD")
            except (FileNotFoundError, IndexError, ValueError):
                pass  # nothing is written yet, or a line is being written
            assert time.monotonic() < deadline, "the agent never asks"
            time.sleep(0.02)

    def answer(self, verdict: str, text: str = "") -> str:
        """Give a verdict, and wait until it asks again."""
        self.answers += 1
        before = len(self.events())
        path = self.run_folder / f"inbox/{self.answers:04}.json"
        message = {"id": path.stem, "kind": "verdict", "verdict": verdict, "text": text}
        path.with_suffix(".new").write_text(json.dumps(message))
        path.with_suffix(".new").rename(path)
        deadline = time.monotonic() + ANSWER_S
        while len(self.events()) == before:
            assert time.monotonic() < deadline, "the agent does not hear"
            time.sleep(0.02)
        return self.await_asking()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[ExampleAgent]:
    running = ExampleAgent(tmp_path, "agent-01", tasks=7)
    yield running
    with contextlib.suppress(ProcessLookupError):
        os.killpg(running.process.pid, signal.SIGKILL)
    running.process.wait()


def test_the_example_agent_works_for_real_and_obeys_verdicts(agent: ExampleAgent) -> None:
    base = agent.git("rev-list", "--max-parents=0", "HEAD")
    first = agent.await_asking()
    assert first != base
    assert agent.git("status", "--porcelain") == ""

    second = agent.answer("send-back", 'list it in the "README"')
    assert 'list it in the "README"' in agent.git("log", "--format=%B", f"{first}..{second}")

    third = agent.answer("approve")
    agent.git("merge-base", "--is-ancestor", second, third)
    assert third != second

    fourth = agent.answer("reject", "not like this")
    assert agent.git("merge-base", third, fourth) == second
    assert fourth != second

    events = agent.events()
    assert {"ask", "log", "status", "tool", "usage"} == {event["kind"] for event in events}
    reports = [event["text"] for event in events if event["kind"] == "log"]
    assert any("Error" in report or "1 failed" in report for report in reports)
    assert any(report.endswith(" passed, 0 failed") for report in reports)
    assert sum(event.get("tokens_in", 0) for event in events) > 10_000
    tests = [sys.executable, "-BS", str(agent.workspace / "tests/run.py")]
    subprocess.run(tests, check=True, capture_output=True)


def test_the_example_agent_comes_to_an_end(agent: ExampleAgent) -> None:
    agent.await_asking()
    while agent.process.poll() is None:
        agent.answer("approve")
        if agent.events()[-1]["kind"] == "done":
            agent.process.wait(ANSWER_S)
    assert agent.process.returncode == 0
    functions = agent.git("grep", "-h", "^def .*_to_.*-> float", "--", "measures")
    assert len(functions.splitlines()) == 4 + 7
    assert agent.git("status", "--porcelain") == ""


# A real guest


class Keys:
    """Key pairs that the tests' guests use."""

    def __init__(self, folder: Path) -> None:
        self.client = folder / "client"
        self.template = folder / "template"
        for path in (self.client, self.template):
            make_key(path)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk with a checkpoint of `machine` as it was when its SSH server first answered."""
    return tmp_path_factory.mktemp("checkpoint") / "disk.qcow2"


@pytest.fixture(scope="module")
def machine(
    image: Image, keys: Keys, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    """A guest without an identity yet: its agent must not run."""
    folder = tmp_path_factory.mktemp("machine")
    disk = make_disk(image, folder / "disk.qcow2")
    running = boot(image, folder, disk, keys.client, keys.template)
    for line in ("stop", "savevm warm"):
        running.command(line)
    shutil.copyfile(disk, checkpoint)
    running.command("cont")
    yield running
    running.stop()


async def test_the_workspace_stands_at_the_base_commit(machine: Machine, image: Image) -> None:
    assert (await machine.run("git -C /workspace rev-parse HEAD")).strip() == image.base_commit
    assert await machine.run("cd /workspace && git status --porcelain", user="agent") == ""
    told = await machine.run("cd /workspace && python3 -S tests/run.py", user="agent")
    assert told.endswith(" passed, 0 failed\n")


async def test_the_agent_waits_for_an_identity(machine: Machine) -> None:
    assert await machine.run("cat /run/swarm/events.jsonl") == ""
    assert await machine.run("cat /run/swarm/counter") == "0\n"


async def test_the_agents_user_cannot_touch_what_is_the_supervisors(machine: Machine) -> None:
    attempts = (
        "echo /sys/fs/cgroup >/run/swarm/agent.cgroup",
        "echo 0 >/sys/fs/cgroup/swarm-agent/cgroup.freeze",
        "mv /run/swarm/events.jsonl /run/swarm/gone",
        "cat /etc/dropbear/host_key",
        ": >/run/swarm/go",
    )
    script = "\n".join(f"({attempt}) 2>/dev/null && echo '{attempt}'" for attempt in attempts)
    assert await machine.run(f"{script}\ntrue", user="agent") == ""


@pytest.mark.parametrize("terminal", ["xterm-256color", "tmux-256color", "screen-256color"])
async def test_a_shell_works_in_a_terminal(machine: Machine, terminal: str) -> None:
    async with machine.connect("agent") as connection:
        process = await connection.create_process(term_type=terminal, term_size=(80, 24))

        heard = ""

        async def until(text: str) -> None:
            nonlocal heard
            try:
                async with asyncio.timeout(ANSWER_S):
                    while text not in heard:
                        heard += await process.stdout.read(4096) or pytest.fail(f"end: {heard!r}")
            except TimeoutError:
                pytest.fail(f"no {text!r} in {heard!r}")
            heard = heard.partition(text)[2]

        await until("agent@")
        process.stdin.write("stty size; pwd\n")
        await until("24 80\r\n")
        await until("/workspace")
        process.change_terminal_size(132, 50)
        process.stdin.write("sh -c 'echo began; sleep 600'\n")
        await until("\rbegan\r\n")
        process.stdin.write("\x03")
        await until("agent@")
        process.stdin.write("stty size; echo grün\n")
        await until("50 132\r\n")
        await until("grün\r\n")
        process.stdin.write("clear\n")
        await until("\x1b[H\x1b[")
        process.stdin.write("git log\n")
        await until("Convert lengths")
        process.stdin.write("q\nexit 7\n")
        await asyncio.wait_for(process.wait_closed(), ANSWER_S)
        assert process.exit_status == 7


COUNT = "cat /run/swarm/counter"


async def test_an_identity_is_given_and_the_agent_starts(
    machine: Machine, keys: Keys, tmp_path: Path
) -> None:
    public = make_key(tmp_path / "own")
    own = guest.dropbear_key((tmp_path / "own").read_bytes())
    now = time.time() + 86400
    said = guest.render_identity("agent-07", own, now, "Teach it furlongs\nand grains")
    async with machine.connect() as earlier:
        done = await earlier.run(guest.IDENTIFY, input=said.decode(), timeout=ANSWER_S)
        assert (done.exit_status, done.stdout, done.stderr) == (0, "", "")
        with pytest.raises(asyncssh.HostKeyNotVerifiable):
            await machine.run("true")
        machine.host_key = public
        assert await machine.run("hostname; cat /etc/hostname") == "agent-07\nagent-07\n"
        # The connection that gave the identity goes on.
        assert (await earlier.run("hostname", timeout=ANSWER_S)).stdout == "agent-07\n"
    assert abs(int(await machine.run("date +%s")) - now) < 60
    assert len((await machine.run("cat /etc/machine-id")).strip()) == 32
    assert await machine.run("cat /run/swarm/task") == "Teach it furlongs\nand grains"
    await machine.wait_for("grep 'task: Teach it furlongs.nand grains' /run/swarm/events.jsonl")
    await machine.wait_for(f"test $({COUNT}) -ge 1")


async def test_a_frozen_agent_stands_still_and_goes_on_exactly(machine: Machine) -> None:
    told = await machine.run(
        """
        cd "$(cat /run/swarm/agent.cgroup)"
        echo 1 >cgroup.freeze
        until grep -q 'frozen 1' cgroup.events; do usleep 10000; done
        cat /run/swarm/counter; wc -c </run/swarm/events.jsonl
        sleep 1.3
        cat /run/swarm/counter; wc -c </run/swarm/events.jsonl
        echo 0 >cgroup.freeze
        sleep 1.2
        cat /run/swarm/counter
        """
    )
    stood, size, still, same, later = map(int, told.split())
    assert (still, same) == (stood, size)
    assert later - stood in (1, 2)


async def test_the_pid_file_names_the_agents_process_group(machine: Machine) -> None:
    told = await machine.run(
        """
        kill -STOP -$(cat /run/swarm/agent.pid)
        cat /run/swarm/counter; sleep 1.3; cat /run/swarm/counter
        kill -CONT -$(cat /run/swarm/agent.pid)
        """
    )
    stood, still = map(int, told.split())
    assert still == stood
    await machine.wait_for(f"test $({COUNT}) -gt {stood}")


async def test_a_killed_agent_is_started_again(machine: Machine) -> None:
    before = (await machine.run("cat /run/swarm/agent.pid")).strip()
    count = (await machine.run(COUNT)).strip()
    await machine.run(f"kill -KILL {before}")
    after = await machine.wait_for(f"cat /run/swarm/agent.pid | grep -vx {before}")
    members = await machine.wait_for("grep . /sys/fs/cgroup/swarm-agent/cgroup.procs")
    assert after.strip() in members.split()
    assert before not in members.split()
    await machine.wait_for(f"test $({COUNT}) -gt {count}")


async def test_refresh_sets_the_clock(machine: Machine) -> None:
    entropy = base64.b64encode(bytes(64)).decode()
    await machine.run(f"{guest.REFRESH} 2000000000", stdin=entropy)
    assert 0 <= int(await machine.run("date +%s")) - 2000000000 < 60
    done = await machine.attempt(f"{guest.REFRESH} never", stdin=entropy)
    assert done.exit_status != 0


async def test_forks_of_one_checkpoint_are_different_guests(
    image: Image, keys: Keys, machine: Machine, checkpoint: Path, tmp_path: Path
) -> None:
    facts = (
        "cat /etc/machine-id; hostname; head -c 32 /dev/urandom | base64; "
        "cat /proc/sys/kernel/random/uuid"
    )
    told = []
    for name in ("fork-1", "fork-2"):
        copy = tmp_path / f"{name}.qcow2"
        shutil.copyfile(checkpoint, copy)
        restored = ["-loadvm", "warm"]
        fork = boot(image, tmp_path / name, copy, keys.client, keys.template, restored)
        try:
            public = make_key(tmp_path / f"key-{name}")
            own = guest.dropbear_key((tmp_path / f"key-{name}").read_bytes())
            said = guest.render_identity(name, own, time.time())
            await fork.run(guest.IDENTIFY, stdin=said.decode())
            fork.host_key = public
            told.append((await fork.run(facts)).split())
        finally:
            fork.stop()
    assert all(len(facts) == 4 for facts in told)
    assert all(one != other for one, other in zip(*told, strict=True))


def test_the_console_gives_a_shell(machine: Machine) -> None:
    machine.type("\n", b"agent@")
    machine.type("echo $((6 * 7)) $PWD\n", b"42 /workspace\r\n")


async def test_an_identity_outlives_a_power_failure(machine: Machine) -> None:
    facts = "cat /etc/machine-id; hostname; git -C /workspace fsck 2>&1"
    before = await machine.run(facts)
    boot_id = await machine.run("cat /proc/sys/kernel/random/boot_id")
    machine.command("system_reset")
    deadline = time.monotonic() + BOOT_S
    now = boot_id
    while now == boot_id:  # the reset comes when QEMU finds the time
        assert time.monotonic() < deadline
        with contextlib.suppress(asyncssh.Error, OSError):
            async with asyncio.timeout(2):
                now = await machine.run("cat /proc/sys/kernel/random/boot_id")
    assert await machine.run(facts) == before
    await machine.wait_for(f"test $({COUNT}) -ge 1")


def test_the_power_button_shuts_down(machine: Machine) -> None:
    machine.command("system_powerdown")
    machine.process.wait(ANSWER_S)


# What the host makes for it


def test_only_a_plain_ed25519_key_is_taken(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="OpenSSH private key"):
        guest.dropbear_key(b"-----BEGIN NONSENSE-----\nAAAA\n-----END NONSENSE-----\n")
    with pytest.raises(ValueError, match="OpenSSH private key"):
        guest.dropbear_key(b"")
    for name, options, complaint in (
        ("locked", ["-t", "ed25519", "-N", "secret"], "passphrase"),
        ("ecdsa", ["-t", "ecdsa", "-N", ""], "ed25519"),
    ):
        path = tmp_path / name
        subprocess.run(["ssh-keygen", "-q", *options, "-f", str(path)], check=True)
        with pytest.raises(ValueError, match=complaint):
            guest.dropbear_key(path.read_bytes())


@pytest.mark.parametrize("name", ["", "two words", "a\nb", "ü", "x" * 64, "a=b;rm"])
def test_a_name_that_is_no_host_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="host name"):
        guest.render_identity(name, b"", 0.0)
